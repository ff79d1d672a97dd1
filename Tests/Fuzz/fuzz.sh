#!/bin/sh
# SPDX-License-Identifier: MIT
# Feeds the readers with inputs that libFuzzer makes up, under AddressSanitizer:
#
#   sh Tests/Fuzz/fuzz.sh SECONDS [TARGET]     all targets, or one, for so long altogether
#   sh Tests/Fuzz/fuzz.sh - TARGET FILE        one input again
#
# The library's modules are compiled once more, so that the targets see all of them.
set -eu
cd "$(dirname "$0")/../.."
out=$PWD/.build/fuzz
mkdir -p "$out/CKernels" "$out/MNISTSample"
fuzz=$out/fuzz

if [ ! -x "$fuzz" ] || [ -n "$(find Sources/StrideNet* Sources/Web CKernels Tests/Fuzz -newer "$fuzz" -type f | head -n 1)" ]; then
  for library in CKernels/include/CKernels Sources/MNISTSample/include/MNISTSample; do
    name=${library##*/}
    echo "module $name { umbrella header \"$PWD/$library.h\" export * }" > "$out/$name/module.modulemap"
  done
  # The kernels are other tests' concern.
  for file in CKernels/*.c Sources/MNISTSample/sample.c; do
    echo "clang -O1 -fno-omit-frame-pointer -ICKernels/include -ISources/MNISTSample/include -c $file" \
      "-o $out/$(basename "$file" .c).o"
  done | xargs -P "$(nproc)" -I '{}' sh -c '{}'
  # compile MODULE FILES…: a module, and its object file.
  compile() {
    module=$1
    shift
    swiftc -O -wmo -parse-as-library -swift-version 6 -suppress-warnings -package-name stridenet \
      -enable-testing -sanitize=fuzzer,address -module-name "$module" -emit-module \
      -emit-module-path "$out/$module.swiftmodule" -emit-object -o "$out/$module.o" \
      -I "$out" -I "$out/CKernels" -I "$out/MNISTSample" \
      $(ls Sources/*/module.modulemap | sed 's|^|-I |; s|/[^/]*$||') "$@"
  }
  for module in StrideNetCore StrideNetFiles StrideNetLaboratory; do
    compile $module Sources/$module/*/*.swift
  done
  compile StrideNet Sources/StrideNet/*.swift
  compile Web Sources/Web/*.swift
  compile Fuzz Tests/Fuzz/*.swift
  swiftc -use-ld=lld -sanitize=fuzzer,address -o "$fuzz" "$out"/*.o -lm
fi

export ASAN_OPTIONS=detect_leaks=0 SWIFT_BACKTRACE=enable=no
export FUZZ_EXPECTATIONS="$PWD/Tests/StrideNetTests/Expectations"
if [ "$1" = - ]; then
  FUZZ=$2 exec "$fuzz" "$3"
fi
targets=${2:-$("$fuzz")}
each=$(($1 / $(echo "$targets" | wc -w)))
failed=0
for target in $targets; do
  corpus=$out/corpus/$target
  mkdir -p "$corpus"
  # Inputs that take 10 s or 2 GB are found faults, too.
  if FUZZ=$target FUZZ_SEEDS=$corpus "$fuzz" -max_total_time=$((each > 0 ? each : 1)) -timeout=10 \
    -rss_limit_mb=2048 -max_len=4096 -dict=Tests/Fuzz/words.dict -artifact_prefix="$out/$target-" \
    "$corpus" > "$out/$target.log" 2>&1; then
    echo "fuzz $target: $(sed -n 's/^Done \([0-9]*\) runs in \(.*\) second.*/\1 inputs in \2 s/p' "$out/$target.log")"
  else
    failed=1
    tail -n 30 "$out/$target.log"
    file=$(sed -n 's/.*Test unit written to //p' "$out/$target.log" | tail -n 1)
    echo "fuzz $target: failed; again with: sh Tests/Fuzz/fuzz.sh - $target $file"
  fi
done
exit $failed
