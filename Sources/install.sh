#!/bin/sh
# SPDX-License-Identifier: MIT
# Installs the program, and what it says of itself: a manual page, and completions for shells.
#
#     install.sh PROGRAM PREFIX FILE...
#
# The files' places below PREFIX are the Makefile's, which removes them too.
set -eu
program=$1 prefix=$2
shift 2

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for file; do
  mode=644
  case $file in
    bin/*) cp "$program" "$work/file"; mode=755 ;;
    */man1/*) sh Sources/man.sh "$program" > "$work/file" ;;
    */bash-completion/*) "$program" --generate-completion-script bash > "$work/file" ;;
    */zsh/*) "$program" --generate-completion-script zsh > "$work/file" ;;
    */fish/*) "$program" --generate-completion-script fish > "$work/file" ;;
  esac
  mkdir -p "$prefix/$(dirname "$file")"
  install -m $mode "$work/file" "$prefix/$file"
  echo "$prefix/$file"
done
