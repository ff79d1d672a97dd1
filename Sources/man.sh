#!/bin/sh
# SPDX-License-Identifier: MIT
# Prints the manual page: what the program says with --help, of itself and of each command, as roff.
#
#     man.sh PROGRAM
set -eu
program=$1
export COLUMNS=80

# help text on standard input -> roff. What stands in columns becomes an indented list; an overview,
# whose lines may be examples, stays as it is.
roff() {
  awk -v title="$1" '
    function escaped(text) {
      gsub(/\\/, "\\e", text)
      gsub(/-/, "\\-", text)
      sub(/^[.\047]/, "\\\\\\&&", text)
      return text
    }
    function filled(yes) {
      if (yes != fill) print yes ? ".fi" : ".nf"
      fill = yes
    }
    function text(line) { if (line != "") print escaped(line) }
    BEGIN { fill = 1; print ".SH \"" escaped(title) "\"" }
    /^OVERVIEW: / { filled(0); text(substr($0, 11)); next }
    /^USAGE: / { filled(0); print ".PP\n.B \"" escaped(substr($0, 8)) "\""; next }
    /^[A-Z]+:$/ { filled(1); list = 1; print ".SS \"" $0 "\""; next }
    list && /^  See / { exit }
    list && /^  [^ ]/ {
      name = substr($0, 3); what = ""
      if (match(name, /  +/)) { what = substr(name, RSTART + RLENGTH); name = substr(name, 1, RSTART - 1) }
      print ".TP\n.B \"" escaped(name) "\""
      text(what)
      next
    }
    list { sub(/^ +/, ""); text($0); next }
    /^$/ { print ".PP"; next }
    { text($0) }
    END { filled(1) }'
}

# The commands that a help text lists.
commands() {
  sed -n '/^SUBCOMMANDS:/,$ s/^  \([a-z][a-z]*\)  *.*/\1/p; /^SUBCOMMANDS:/,$ s/^  \([a-z][a-z]*\) (default).*/\1/p' | uniq
}

# command words -> its help, then that of the commands below it
page() {
  help=$("$program" "$@" --help)
  printf '%s\n' "$help" | roff "stridenet${*:+ $*}"
  for command in $(printf '%s\n' "$help" | commands); do (page "$@" "$command"); done
}

version=$("$program" --version)
printf '.TH STRIDENET 1 "" "stridenet %s"\n.ad l\n.SH NAME\n' "$version"
"$program" --help | sed -n 's/^OVERVIEW: /stridenet \\- /p'
page
