#!/bin/sh
# SPDX-License-Identifier: MIT
# Where the time of a training run goes: perf's samples by function, and the hottest function's
# hottest loop. Where perf can't be had or isn't permitted, the program's own timers say it.
# usage: profile.sh PROGRAM MODEL
set -eu
program=$1
model=$2

own_timers() {
  echo "profile: by the program's own timers, since $1"
  "$program" train "$model" --data sample --epochs 3 --profile
  exit
}

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
data=$folder/perf.data

setup=$(dirname "$0")/../Sources/setup.sh
command -v perf >/dev/null || sh "$setup" linux-perf || true
command -v perf >/dev/null || own_timers "perf isn't installed"
# A trial on a program that does nothing: then what fails later is the training itself.
if ! perf record -q -F 2000 -o "$data" true >/dev/null 2>"$folder/why"; then
  # The first line that says something.
  why=$(grep -v -e '^ *$' -e '^Error:$' "$folder/why" | head -n 1)
  own_timers "perf may not record here: ${why:-no reason given}"
fi
perf record -q -F 2000 -o "$data" "$program" train "$model" --data sample --epochs 3 --quiet

# Share, then name; the columns that perf leaves empty taken away.
report() {
  perf report -i "$data" --stdio --sort symbol "$@" 2>/dev/null |
    sed -n 's/^ *\([0-9.]*%\) *\[\(.\)\] \(.*[^ -]\)[ -]*$/\1 \2 \3/p'
}
hottest=$(report --dsos "$(basename "$program")" | head -n 1 | cut -d' ' -f3)
[ -n "$hottest" ] || own_timers "perf took no samples here"
event=$(perf evlist -i "$data" 2>/dev/null | head -n 1)
echo
echo "share of the samples (${event:-?}); 'kernel' is the operating system's"
report |
  awk '{
    share = $1 + 0; where = $2 == "k" ? "kernel" : ""; sub(/^[^ ]* [^ ]* /, "")
    if (/^0x/) nameless += share
    else if (share >= 0.5) printf "%7.2f %%  %-6s  %s\n", share, where, $0
  }
  END { if (nameless >= 0.5) printf "%7.2f %%  %-6s  %s\n", nameless, "", "code without names" }' |
  if command -v swift >/dev/null; then swift demangle --compact --simplified; else cat; fi | cut -c1-120

perf annotate -i "$data" --stdio --no-source -s "$hottest" 2>/dev/null >"$folder/code" || true
echo
# The innermost loop with at least half of the function's samples (a loop: a jump backwards), else
# all of it; of that the 40 instructions in a row that have most.
awk -v name="$hottest" -v program="$program" '
  $2 == ":" && $3 ~ /^[0-9a-f]+:$/ {
    at = ++count; percent[at] = $1
    place = $3; sub(/:$/, "", place); line[place] = at; address[at] = place
    sum[at] = sum[at - 1] + $1; text = $0; sub(/^[^:]*: */, "", text); code[at] = text
    if ($4 ~ /^j/ && $5 in line) { from[++loops] = line[$5]; to[loops] = at }
  }
  END {
    if (!count) { print "no instructions of " name ": perf annotate needs objdump (binutils)"; exit }
    first = 1; last = count
    for (i = 1; i <= loops; i++)
      if (sum[to[i]] - sum[from[i] - 1] >= sum[count] / 2 && to[i] - from[i] < last - first) {
        first = from[i]; last = to[i]
      }
    what = last - first + 1 < count ? "its hottest loop" : "no loop stands out"
    share = sum[last] - sum[first - 1]
    if (last - first >= 40) {
      for (i = first; i + 39 <= last; i++) {
        s = sum[i + 39] - sum[i - 1]
        if (s > most) { most = s; best = i }
      }
      cut = sprintf("; 40 of its %d instructions", last - first + 1)
      first = best; last = best + 39
    }
    for (i = top = first; i <= last; i++) if (percent[i] > percent[top]) top = i
    ("addr2line -e " program " 0x" address[top] " 2>/dev/null") | getline source
    sub(/.*\//, "", source); sub(/ .*/, "", source)
    printf "%s%s: %s, %.0f %% of its samples%s\n", \
      name, source ~ /:[0-9]/ ? " (" source ")" : "", what, share, cut
    for (i = first; i <= last; i++) printf "%8s  %s\n", (percent[i] > 0 ? percent[i] : ""), code[i]
  }' "$folder/code"
