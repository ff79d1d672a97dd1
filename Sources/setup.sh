#!/bin/sh
# SPDX-License-Identifier: MIT
# Checks for the toolchain and the C headers that the build needs. What is missing is installed
# where that is possible (Debian and its kin, as root); elsewhere the command to run is printed.
# Arguments name further Debian packages that a target needs.
set -eu

if ! command -v swift >/dev/null; then
  echo "setup: no Swift toolchain on the PATH" >&2
  echo "  expected: Swift 6.1 or newer" >&2
  echo "  --> install it from https://www.swift.org/install and run this again" >&2
  exit 69
fi
version=$(swift --version 2>/dev/null | sed -n 's/.*Swift version \([0-9]*\.[0-9]*\).*/\1/p' | head -n 1)
case "$version" in
  [0-5].* | 6.0)
    echo "setup: Swift $version is too old; expected 6.1 or newer" >&2
    echo "  --> install a newer one from https://www.swift.org/install" >&2
    exit 69 ;;
esac

missing="$*"
[ "$(uname)" = Linux ] || exit 0
has() { printf '#include <%s>\n' "$1" | clang -fsyntax-only -x c ${2:+-include "$2"} - 2>/dev/null; }
has stdlib.h || missing="$missing libc6-dev"
has zlib.h || missing="$missing zlib1g-dev"
has png.h || missing="$missing libpng-dev"
has turbojpeg.h || missing="$missing libturbojpeg0-dev"
has webp/decode.h || missing="$missing libwebp-dev"
has curl/curl.h || missing="$missing libcurl4-openssl-dev"
has sha2.h sys/types.h || missing="$missing libmd-dev"
[ -n "$missing" ] || exit 0

install="apt-get update && apt-get install -y $missing"
if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
  echo "setup: installing $missing"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq && apt-get install -y -qq $missing >/dev/null
elif command -v apt-get >/dev/null; then
  echo "setup: missing: $missing" >&2
  echo "  --> sudo sh -c '$install'" >&2
  exit 69
else
  echo "setup: missing (by Debian's names): $missing" >&2
  echo "  --> install them with this system's package manager and run this again" >&2
  exit 69
fi
