#!/bin/sh
# SPDX-License-Identifier: MIT
# Packages elsewhere that have this one as a versioned dependency: they build only if it asks for
# nothing that a dependency may not have (unsafe flags). One has all of it and shows the five-line
# network; the other the core alone, on a machine without the libraries that the rest needs.
# And what is to be possible with the public interface alone, the articles' and the README's Swift, layers,
# losses, optimisers and data of one's own, is read as another package's: tests are the same package's,
# which sees more.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# package NAME PRODUCT: a program that depends on a product of the working tree as it is.
package() {
  mkdir -p "$work/$1/Sources/$1"
  cat > "$work/$1/Package.swift" <<EOF
// swift-tools-version: 6.1
import PackageDescription
let package = Package(
  name: "$1", platforms: [.macOS(.v15)],
  dependencies: [.package(url: "file://$work/stridenet", from: "1.0.0")],
  targets: [
    .executableTarget(name: "$1", dependencies: [.product(name: "$2", package: "stridenet")])
  ])
EOF
  cat > "$work/$1/Sources/$1/main.swift"
}
release() {
  (cd "$work/stridenet" && git add -Af &&
    git -c user.name=test -c user.email=test@localhost commit -qm test && git tag "$1")
}

mkdir "$work/stridenet"
(cd "$here" && git ls-files -z --cached --others --exclude-standard | xargs -0 tar cf -) |
  tar xf - -C "$work/stridenet"
(cd "$work/stridenet" && git init -q)
release 1.0.0
package whole StrideNet <<'EOF'
import StrideNet

let data = try Dataset.load("sample")
let network = Network([Conv2D(8, 3), MaxPool2D(2), Flatten(), Dense(10, activation: .softmax)])
for i in 0..<20 { try network.train(data.train.batch(i * 64..<i * 64 + 64), learningRate: 0.1) }
let (cce, ce) = try network.evaluate(data.test)
print("all of it: CCE \(cce), CE \(ce)")
precondition(ce < 0.5)
EOF
# In a folder of its own, and from a binary that was moved: the sample must come along.
cd "$work/whole"
swift build -c release 2>&1 | tail -n 3
cp .build/release/whole "$work/moved"
(cd / && "$work/moved")

for library in CZlib CPNG CDigest CCurl; do
  echo '#error "the core needs no library of the system"' > "$work/stridenet/Sources/$library/shim.h"
done
release 1.0.1
package core StrideNetCore <<'EOF'
import StrideNetCore

// The sign of the sum of four numbers.
var random = SeededGenerator(seed: 1)
let inputs = (0..<4 * 256).map { _ in Float.random(in: -1...1, using: &random) }
let labels = (0..<256).map { i in inputs[4 * i..<4 * i + 4].reduce(0, +) > 0 ? 1 : 0 }
let set = try TensorSet(try Tensor(batch: 256, shape: Shape(4), inputs), labels: labels)
let network = Network([Dense(8, activation: .relu), Dense(2, activation: .softmax)])
var settings = TrainingSettings()
settings.epochs = 40
let trainer = try Trainer(network, train: set, test: set, settings)
try trainer.run()
print("the core: CE \(trainer.results.last!.testCE)")
precondition(trainer.results.last!.testCE < 0.1)
EOF
cd "$work/core"
swift build -c release 2>&1 | tail -n 3
.build/release/core
if ldd .build/release/core | grep -E 'lib(z|png|md|curl)'; then exit 1; fi

cd "$here"
swift build --target StrideNet 2>&1 | tail -n 1
build=.build/debug tests=Tests/StrideNetTests
outside() {
  # shellcheck disable=SC2046
  swiftc -typecheck -swift-version 6 -package-name another -module-name "$1" -I "$build/Modules" \
    -Xcc "-fmodule-map-file=$build/CKernels.build/module.modulemap" \
    -Xcc "-fmodule-map-file=$build/MNISTSample.build/module.modulemap" \
    $(ls Sources/*/module.modulemap | sed 's|^|-I |; s|/[^/]*$||') $plugins $2
}
plugins=
for example in LeNet CustomLayer Transfer; do outside $example Examples/$example/main.swift; done
plugins="-plugin-path $(dirname "$(readlink -f "$(command -v swift)")")/../lib/swift/host/plugins/testing"
outside Outside "$(grep -l 'not @testable' $tests/*.swift) $tests/Support.swift $tests/Documents.swift \
  $tests/ArticlePage.swift $tests/Workplace.swift \
  $tests/TemporaryFiles.swift"
echo "from outside: $(grep -l 'not @testable' $tests/*.swift | wc -l) files of tests and the examples"
