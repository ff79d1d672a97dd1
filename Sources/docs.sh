#!/bin/sh
# SPDX-License-Identifier: MIT
# Builds the documentation as a web site: what the compiler knows of the library's public symbols,
# and the articles in StrideNet.docc, by the toolchain's own docc. It opens with the page to draw in
# as `stridenet export` writes it. Nothing is fetched. A warning fails it. Arguments: the folder to
# write to, and the path that the site will have on its server, if that isn't the top ("stridenet" for https://example.com/stridenet/).
set -eu
site=$1 base=${2:-}
build=.build/debug symbols=.build/symbols

# Beside the compiler; where that is only a pointer to the chosen toolchain, xcrun knows the place.
if command -v xcrun >/dev/null; then
  docc=$(xcrun --find docc)
  sdk="-sdk $(xcrun --show-sdk-path)"
else
  docc=$(dirname "$(readlink -f "$(command -v swift)")")/docc
  sdk=
fi
if [ ! -x "$docc" ]; then
  echo "docs: the toolchain has no docc; looked for $docc" >&2
  echo "  --> install a toolchain from https://www.swift.org/install, which has it" >&2
  exit 69
fi
target=$(swift -print-target-info | sed -n 's/.*"triple": "\(.*\)",.*/\1/p' | head -n 1)

rm -rf "$symbols" "$site"
mkdir -p "$symbols"
# Those that the umbrella exports again are shown as its own. They import two of the package's modules
# in C, and those of the system.
# shellcheck disable=SC2086
swift symbolgraph-extract -module-name StrideNet -minimum-access-level public \
  -experimental-allowed-reexported-modules=StrideNetCore,StrideNetFiles,StrideNetLaboratory \
  -skip-synthesized-members -target "$target" $sdk -I "$build/Modules" \
  -Xcc "-fmodule-map-file=$build/CKernels.build/module.modulemap" \
  -Xcc "-fmodule-map-file=$build/MNISTSample.build/module.modulemap" \
  $(ls Sources/*/module.modulemap | sed 's|^|-I |; s|/[^/]*$||') -output-dir "$symbols"
"$docc" convert Sources/StrideNet/StrideNet.docc --additional-symbol-graph-dir "$symbols" \
  --output-dir "$site" --fallback-display-name StrideNet \
  --fallback-bundle-identifier StrideNet --transform-for-static-hosting --warnings-as-errors \
  ${base:+--hosting-base-path "$base"}

# What docc puts at the top has no text of its own.
"$build/stridenet" export Sources/MNISTSample/files/digits.safetensors "$symbols/page.html" --data sample
sed 's|^  <h1>StrideNet</h1>|&\n  <p><a href="documentation/stridenet/">The documentation</a></p>|' \
  "$symbols/page.html" > "$site/index.html"
grep -q 'href="documentation/stridenet/"' "$site/index.html" || {
  echo "docs: the page's heading, behind which the link to the documentation goes, is another one" >&2
  exit 70
}

echo "the documentation is in $site; to look at it:"
if [ -n "$base" ]; then
  echo "  serve that folder as /$base and open /$base/"
else
  echo "  python3 -m http.server -d $site 8000"
  echo "  and open http://localhost:8000/"
fi
