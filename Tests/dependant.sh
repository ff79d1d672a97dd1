#!/bin/sh
# SPDX-License-Identifier: MIT
# A package elsewhere that has this one as a versioned dependency: builds only if the package asks
# for nothing that a dependency may not have (unsafe flags), and shows the five-line network.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The working tree as it is, under a version.
mkdir "$work/stridenet" "$work/dependant"
(cd "$here" && git ls-files -z --cached --others --exclude-standard | xargs -0 tar cf -) |
  tar xf - -C "$work/stridenet"
(cd "$work/stridenet" && git init -q && git add -Af &&
  git -c user.name=test -c user.email=test@localhost commit -qm test && git tag 1.0.0)
cd "$work/dependant"
mkdir -p Sources/dependant
cat > Package.swift <<EOF
// swift-tools-version: 6.1
import PackageDescription
let package = Package(
  name: "dependant", platforms: [.macOS(.v15)],
  dependencies: [.package(url: "file://$work/stridenet", from: "1.0.0")],
  targets: [
    .executableTarget(
      name: "dependant", dependencies: [.product(name: "StrideNet", package: "stridenet")])
  ])
EOF
cat > Sources/dependant/main.swift <<'EOF'
import StrideNet

let data = try Dataset.load("sample")
let network = Network([Conv2D(8, 3), MaxPool2D(2), Flatten(), Dense(10, activation: .softmax)])
for i in 0..<20 { try network.train(data.train.batch(i * 64..<i * 64 + 64), learningRate: 0.1) }
let (cce, ce) = try network.evaluate(data.test)
print("dependant: CCE \(cce), CE \(ce)")
precondition(ce < 0.5)
EOF
# In a folder of its own, and from a binary that was moved: the sample must come along.
swift build -c release 2>&1 | tail -n 3
cp .build/release/dependant "$work/moved"
cd / && "$work/moved"
