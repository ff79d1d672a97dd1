#!/bin/sh
# SPDX-License-Identifier: MIT
# What the README claims of accuracy, measured again: claim beside result. `make reproduce`.
#
#     reproduce.sh PROGRAM [quick]
#
# quick leaves out the recipes that take minutes a run. Needs MNIST and Fashion-MNIST (stridenet
# fetch); what isn't there is skipped and said.
set -eu
program=$1
quick=${2:-}

say() { printf '%-44s %-22s %s\n' "$1" "$2" "$3"; }
field() { tail -n 1 | sed "s/.*\"$1\":\([0-9.e-]*\).*/\1/"; }

# what claim command: the mean of three seeds' test accuracies
seeds() {
  what=$1 claim=$2
  shift 2
  sum=0
  for seed in 1 2 3; do
    accuracy=$("$program" train "$@" --seed $seed --json | field test_accuracy)
    sum=$(echo "$sum $accuracy" | awk '{ printf "%.6f", $1 + $2 }')
  done
  say "$what" "$claim" "$(echo "$sum" | awk '{ printf "%.2f %%", $1 / 3 * 100 }')"
}

# what claim recipe runs
recipe() {
  result=$("$program" speedrun --recipe "$3" --runs "$4" --json)
  say "$1" "$2" "$(echo "$result" | field mean_accuracy | awk '{ printf "%.2f %%", $1 * 100 }'), $(
    echo "$result" | field median_seconds | awk '{ printf "%.1f s", $1 }') a run"
}

# A data set that a one-image run can be made with.
has() { "$program" train flat --data "$1" --limit 1 --epochs 1 --quiet >/dev/null 2>&1; }

say "" "README" "here"
if has mnist; then
  seeds "cnn, 3 epochs of MNIST, mean of 3" "98.76 %" cnn --data mnist
  seeds "flat, 10 epochs of MNIST, mean of 3" "98.02 %" flat --data mnist --epochs 10
  recipe "speedrun, mean of 10" "99.09 %, 1.8 s" speedrun 10
  [ -n "$quick" ] || recipe "best, mean of 3" "99.66 %, 8 minutes" best 3
else
  echo "MNIST isn't on this machine: stridenet fetch mnist"
fi
if has fashion-mnist; then
  [ -n "$quick" ] || recipe "best-fashion, mean of 3" "93.78 %, 8 minutes" best-fashion 3
else
  echo "Fashion-MNIST isn't on this machine: stridenet fetch fashion-mnist"
fi
