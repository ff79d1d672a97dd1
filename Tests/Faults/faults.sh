#!/bin/sh
# SPDX-License-Identifier: MIT
# Trainings that are killed, or whose disk, files or memory fail, at random moments: after each fault
# the files that are there must load, and the training that goes on in the end must come to the very
# weights of one that was never disturbed. A line a round.
#
#   faults.sh PROGRAM SHIM [ROUNDS [SEED [ROUND]]]
#
# The same seed gives the same faults; a ROUND runs that one alone. What fails is said with the
# command that repeats it. (What is killed after a time may be elsewhere by then.)
set -u
program=$(realpath "$1") shim=$(realpath "$2") rounds=${3:-50} seed=${4:-1} only=${5:-}
files=$(realpath "$(dirname "$0")/../../Sources/MNISTSample/files")
export SWIFT_BACKTRACE=enable=no
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# MARK: A small data set, one file of it compressed

cut_idx() {  # from, header in octal, bytes to skip, bytes to take, to
  { printf "$2"; gzip -dc "$files/$1.gz" | tail -c +$(($3 + 1)) | head -c "$4"; } > "$work/data/$1"
}
mkdir "$work/data"
cut_idx train-images-idx3-ubyte '\0\0\010\003\0\0\0\310\0\0\0\034\0\0\0\034' 16 156800
cut_idx train-labels-idx1-ubyte '\0\0\010\001\0\0\0\310' 8 200
cut_idx t10k-images-idx3-ubyte '\0\0\010\003\0\0\0\144\0\0\0\034\0\0\0\034' 16 78400
cut_idx t10k-labels-idx1-ubyte '\0\0\010\001\0\0\0\144' 8 100
gzip "$work/data/train-images-idx3-ubyte"

# MARK: What is trained

settings() {
  case $1 in
    0) set -- --layers 'conv(4,3) maxpool(2) flatten softmax(10)' --momentum 0.9 --batch-size 16 ;;
    1) set -- --layers 'flatten batchnorm relu(12) dropout(0.2) softmax(10)' --optimizer adamw \
      --ema 0.9 --best --schedule warmup:1,cosine --batch-size 32 ;;
    2) set -- --layers 'conv(3,5,stride=2) layernorm flatten softmax(10)' --optimizer nesterov \
      --augment shift=2,rotate=5 --batch-size 25 --log-dir log ;;
  esac
  # No line of it may hold a quote or a line break.
  for word; do echo "$word"; done
}

# Runs the program in the round's folder; words that begin a line each come from standard input.
# A hang ends after five minutes, with code 124.
start() {  # fault, limit, further arguments
  fault=$1 limit=$2
  shift 2
  while IFS= read -r word; do set -- "$@" "$word"; done
  cd "$round_folder" || exit 1
  FAULT=$fault LIMIT=$limit PRELOAD=$shim exec timeout -k 5 300 sh -c '
    echo $$ > ../pid
    $LIMIT
    [ -z "$FAULT" ] || export LD_PRELOAD=$PRELOAD
    exec "$0" "$@"' "$program" "$@"
}

digest() { sed -n 's/.*"weights_sha256":"\([0-9a-f]*\)".*/\1/p' "$1"; }

train() {  # fault, limit: begins or goes on, as there is a checkpoint
  random 3
  threads=$((chosen + 1))
  if [ -e "$round_folder/c" ]; then
    [ "$network" = 2 ] && log='--log-dir log' || log=
    start "$@" train --resume c --save w --json --threads $threads $log < /dev/null
  else
    settings "$network" | start "$@" train --data ../data --epochs 5 --checkpoint c --save w \
      --json --threads $threads
  fi > "$work/out" 2> "$work/err"
}

# MARK: Random numbers

state=0
random() {  # below
  state=$(((state * 1103515245 + 12345) % 2147483648))
  chosen=$((state / 65536 % $1))
}

# MARK: Rounds

failed() {
  echo "$line"
  echo "  FAILED: $1" 
  sed 's/^/  | /' "$work/err" | head -n 8
  echo "  again:  make faults SEED=$seed ROUND=$round"
  return 1
}

# Whatever happened, the weights that are there must load; the checkpoint is loaded by what goes on.
check_weights() {
  [ -e "$round_folder/w" ] || return 0
  (start '' '' evaluate w --data ../data --json < /dev/null > "$work/out" 2> "$work/err")
  code=$?
  [ $code = 0 ] || { failed "'w' doesn't load: code $code"; return 1; }
}

# One process with a fault. Sets what it was, the codes it may end with, and runs it.
disturb() {
  random "$kinds"
  random_kind=$chosen
  random 4
  signal=$(set -- 1 2 9 15; shift "$chosen"; echo "$1")
  random 60
  at=$((chosen + 1))
  limit='' allowed="0 65 66 73 74"
  case $random_kind in
    0)
      random 150
      fault= what="signal $signal after $chosen ms"
      delay=$(printf '0.%03d' "$chosen")
      allowed="0 $((128 + signal))"
      rm -f "$work/pid"
      train '' '' &
      until [ -s "$work/pid" ]; do sleep 0.001; done
      sleep "$delay"
      kill -"$signal" "$(cat "$work/pid")" 2> /dev/null
      wait $! 2> /dev/null
      code=$?
      return ;;
    1) fault=any:$at:kill:$signal allowed="0 $((128 + signal))" ;;
    2) fault=write:$at:28 ;;
    3) fault=read:$at:5 ;;
    4) fault=short:$chosen$round allowed=0 ;;
    5) random 3; fault=create:$((at % 12 + 1)):$(set -- 13 24 28; shift "$chosen"; echo "$1") ;;
    6) fault=fsync:$((at % 12 + 1)):5 ;;
    7) random 3; fault=rename:$((at % 12 + 1)):$(set -- 5 13 28; shift "$chosen"; echo "$1") ;;
    # Below 5 the shell or the dynamic linker can't begin either.
    8) fault='' limit="ulimit -n $((at % 30 + 5))" ;;
    9) fault=alloc:$((at % 30 + 1)):12 ;;
    10) random 4; fault=thread:$((chosen + 1)):11 allowed=0 ;;
    # Without enough for its libraries a program doesn't begin: 127.
    11) fault='' limit="ulimit -v $((at * 4000 + 100000))" allowed="$allowed 127" ;;
  esac
  what="$fault$limit"
  { (train "$fault" "$limit"); code=$?; } 2> /dev/null
}

run_round() {
  state=$((seed * 7919 + round))
  random 3; random 3
  network=$chosen
  line="round $round  network $network:"
  rm -rf "$round_folder"
  mkdir "$round_folder"
  random 3
  faults=$((chosen + 1))
  while [ $faults -gt 0 ]; do
    faults=$((faults - 1))
    disturb
    line="$line $what → $code,"
    case " $allowed " in
      *" $code "*) ;;
      *) failed "code $code, expected one of: $allowed"; return 1 ;;
    esac
    if [ $code -gt 0 ] && [ $code -lt 128 ] && ! grep -q '^stridenet: ' "$work/err"; then
      failed "code $code without a word"
      return 1
    fi
    check_weights || return 1
  done
  (train '' '')
  code=$?
  [ $code = 0 ] || { failed "going on ended with code $code"; return 1; }
  expected=$(cat "$work/expected.$network")
  [ "$(digest "$work/out")" = "$expected" ] || { failed "other weights than undisturbed"; return 1; }
  check_weights || return 1
  [ "$(digest "$work/out")" = "$expected" ] || { failed "other weights in 'w'"; return 1; }
  left=$(ls -A "$round_folder" | grep -v -x -e c -e w -e log)
  [ -z "$left" ] || { failed "left behind: $left"; return 1; }
  echo "$line and went on to the same weights"
}

round_folder=$work/round
# How many kinds of faults there are.
kinds=12
state=0
for network in 0 1 2; do
  mkdir "$round_folder"
  (train '' '') || { cat "$work/err"; exit 1; }
  digest "$work/out" > "$work/expected.$network"
  rm -rf "$round_folder"
done
passed=0 wrong=0
round=${only:-1}
while [ "$round" -le "${only:-$rounds}" ]; do
  if run_round; then passed=$((passed + 1)); else wrong=$((wrong + 1)); fi
  round=$((round + 1))
done
echo "$passed passed, $wrong failed"
[ $wrong = 0 ]
