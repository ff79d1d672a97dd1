#!/bin/bash
# SPDX-License-Identifier: MIT
# Trainings by several processes, started as their user starts them, by mpirun: the weights must be
# those of one process, whatever the number of processes and threads, after being stopped, and on
# several hosts; and whatever goes wrong in one process ends all of them, with a message. A line a test.
#
#   mpi.sh PROGRAM [PROGRAM-WITHOUT-MPI]
#
# Hosts are network namespaces, which root alone can make; without it that part is left out, which is
# said. Around our message there is always mpirun's own text, which nobody can turn off.
set -u
program=$(realpath "$1") plain=
[ -x "${2:-}" ] && plain=$(realpath "$2")
here=$(realpath "$(dirname "$0")")
files=$here/../../Sources/MNISTSample/files
cluster=$here/../../Examples/Cluster
export SWIFT_BACKTRACE=enable=no OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
# More processes than processors share these.
export OMPI_MCA_rmaps_base_oversubscribe=1
work=$(mktemp -d)
hosts=
bridge=snbr$$
clean() {
  [ -z "$(jobs -p)" ] || kill -9 $(jobs -p) 2> /dev/null
  for host in $hosts; do
    ip netns pids "$host" 2> /dev/null | xargs -r kill -9
    ip netns del "$host"
  done
  [ -z "$hosts" ] || ip link del "$bridge"
  rm -rf "$work"
}
trap clean EXIT
trap 'exit 130' INT TERM
cd "$work" || exit 1

# MARK: A small data set

cut_idx() {  # from, header in octal, bytes to skip, bytes to take, to
  { printf "$2"; gzip -dc "$files/$1.gz" | tail -c +$(($3 + 1)) | head -c "$4"; } > "data/$1"
}
mkdir data
cut_idx train-images-idx3-ubyte '\0\0\010\003\0\0\003\350\0\0\0\034\0\0\0\034' 16 784000
cut_idx train-labels-idx1-ubyte '\0\0\010\001\0\0\003\350' 8 1000
cut_idx t10k-images-idx3-ubyte '\0\0\010\003\0\0\0\144\0\0\0\034\0\0\0\034' 16 78400
cut_idx t10k-labels-idx1-ubyte '\0\0\010\001\0\0\0\144' 8 100

# MARK: Tests

passed=0 wrong=0
pass() { passed=$((passed + 1)); echo "ok      $1"; }
fail() {
  wrong=$((wrong + 1))
  echo "FAILED  $1: $2"
  head -n 12 err | sed 's/^/  | /'
}
digest() { sed -n 's/.*"weights_sha256":"\([0-9a-f]*\)".*/\1/p' "${1:-out}"; }

# Runs a command; a hang ends after a minute, with code 124.
run() {
  timeout -k 5 60 "$@" > out 2> err < /dev/null
  code=$?
}
expect_weights() {  # what, expected
  if [ $code != 0 ]; then fail "$1" "code $code"
  elif [ "$(digest)" != "$2" ]; then fail "$1" "other weights"
  else pass "$1"; fi
}
# The whole run has ended, neither well nor by a hang, with one message that says this.
expect_end() {  # what, words
  local count
  count=$(grep -c '^stridenet: ' err)
  # The terminal's width may have broken the line.
  if [ $code = 0 ] || [ $code = 124 ] || [ $code = 137 ]; then fail "$1" "code $code"
  elif [ "$count" != 1 ]; then fail "$1" "$count messages"
  elif ! tr '\n' ' ' < err | grep -q -e "$2"; then fail "$1" "a message without '$2'"
  else pass "$1"; fi
}

# MARK: The same weights

deep='conv(7,3,padding=1,activation=none) batchnorm(activation=relu) conv(9,3,padding=1,activation=none)
  batchnorm(activation=relu) maxpool(2) conv(13,3,activation=none) batchnorm(activation=relu)
  conv(11,3) maxpool(2) dropout(0.3) flatten relu(37) dropout(0.2) softmax(10)'
deep=$(echo $deep)

same_weights() {  # name, arguments; then the processes x threads
  local name=$1 combinations=$2 expected pair
  shift 2
  run ${plain:-$program} train "$@" --epochs 2 --json --threads 1
  expected=$(digest)
  [ $code = 0 ] || { fail "$name, one process" "code $code"; return; }
  for pair in $combinations; do
    run mpirun -n "${pair%x*}" "$program" train "$@" --epochs 2 --json --threads "${pair#*x}"
    expect_weights "$name, ${pair%x*} processes x ${pair#*x} threads" "$expected"
  done
}
same_weights cnn '1x3 2x1 3x2 8x1' cnn --data data --limit 333 --batch-size 47 --optimizer adam --ema 0.95
same_weights lenet '2x3 4x1' lenet --data data --limit 201 --batch-size 50 --clip-norm 0.7 \
  --augment shift=2,rotate=9
same_weights 'batch normalisation' '1x2 2x2 3x1 4x2' --layers "$deep" --data data --limit 205 \
  --batch-size 68 --optimizer adam --augment shift=1,scale=0.1 --clip-norm 1 --ema 0.9
same_weights vgg '2x1 3x1' vgg --data data --limit 97 --batch-size 32 --optimizer adamw
same_weights 'the sample' '4x1' flat --data sample --limit 501

# MARK: Stopped, and gone on with

# Long enough to be stopped in the middle of the second epoch.
long='--batch-size 20 --optimizer adam --epochs 8'
run "${plain:-$program}" train vgg --data data $long --threads 2 --json
uninterrupted=$(digest)

# Waits until a training has finished an epoch, then a little, so that it is in the next one.
in_second_epoch() {
  local turn=0
  until [ -s c ] || [ $turn = 600 ]; do sleep 0.05; turn=$((turn + 1)); done
  sleep 0.2
}
begin() {  # what comes before the program
  rm -f c
  timeout -k 5 60 "$@" "$program" train vgg --data data $long --threads 1 --checkpoint c --json \
    > out 2> err < /dev/null &
  job=$!
}
end() { { wait $job; } 2> /dev/null; code=$?; }
# mpirun and the processes that it has started. `timeout` is mpirun's parent.
find_processes() {
  launcher=$(pgrep -P $job)
  processes=$(pgrep -f -P "$launcher" "$program train")
}
go_on() {  # what, command
  local what=$1
  shift
  run "$@" "$program" train --resume c --threads 1 --json
  expect_weights "$what" "$uninterrupted"
}

stopped() {  # what, expected code
  if [ $code != "$2" ]; then fail "$1" "code $code, not $2"
  elif ! grep -q 'stopped; go on with' err; then fail "$1" "no word about going on"
  else pass "$1"; fi
}
begin mpirun -n 3
in_second_epoch
find_processes
kill -INT "$(echo "$processes" | sed -n 2p)"
end
stopped 'SIGINT to one of three' 130
go_on '  goes on with two' mpirun -n 2

# To mpirun. (A shell's background has SIGINT ignored, which is inherited.) It sends SIGTERM a second
# later, and a second after that SIGKILL.
for signal in INT TERM; do
  begin env --default-signal=INT mpirun -n 2
  in_second_epoch
  find_processes
  cp c before
  kill -$signal "$launcher"
  end
  [ $code = 0 ] && fail "SIG$signal to mpirun" 'code 0'
  if grep -q 'stopped; go on with' err; then pass "SIG$signal to mpirun"
  else fail "SIG$signal to mpirun" "no word about going on, code $code"; fi
  case $signal in INT) go_on '  goes on with four' mpirun -n 4 ;; *) go_on '  goes on alone' ;; esac
done

# MARK: What goes wrong

export STRIDENET_PATIENCE=3

begin mpirun -n 3
in_second_epoch
find_processes
kill -KILL "$(echo "$processes" | sed -n 2p)"
end
# It is mpirun that sees this one, ends the others and says so, before they know.
if [ $code = 0 ] || [ $code = 124 ] || ! grep -q 'signal 9' err; then fail 'one is killed' "code $code"
else pass 'one is killed'; fi
go_on '  goes on with two' mpirun -n 2

begin mpirun -n 3
in_second_epoch
find_processes
hanging=$(echo "$processes" | sed -n 2p)
kill -STOP "$hanging"
end
kill -KILL "$hanging" 2> /dev/null
expect_end 'one hangs' "doesn't answer"
go_on '  goes on with three' mpirun -n 3

small='train flat --data data --limit 100 --threads 1 --json'
run mpirun -n 1 "$program" $small : -n 1 "$program" train flat --data data --limit 99 --threads 1
expect_end 'one has fewer images' 'different'
cp -r data other
printf '\001' | dd of=other/train-images-idx3-ubyte bs=1 seek=5000 conv=notrunc 2> /dev/null
run mpirun -n 1 "$program" $small : -n 1 "$program" train flat --data other --limit 100 --threads 1
expect_end 'one has other pixels' 'different data'
run mpirun -n 1 "$program" $small : -n 1 "$program" $small --seed 2
expect_end 'one has another seed' 'different settings'
if STRIDENET_ISA=baseline "$program" kernels > /dev/null 2>&1; then
  run mpirun -n 1 "$program" $small : -n 1 -x STRIDENET_ISA=baseline "$program" $small
  expect_end 'one has other instructions' 'different instruction sets'
fi
run mpirun -n 1 "$program" $small : -n 1 "$program" $small --epochs none
if [ $code = 64 ] && [ "$(grep -c "^Error: .*'none'" err)" = 1 ]; then pass 'one has a wrong option'
else fail 'one has a wrong option' "code $code"; fi
run mpirun -n 3 "$program" $small --epochs none
if [ $code = 64 ] && [ "$(grep -c "^Error: .*'none'" err)" = 1 ]; then pass 'all have a wrong option'
else fail 'all have a wrong option' "code $code"; fi
rm other/train-labels-idx1-ubyte
run mpirun -n 1 "$program" $small : -n 1 "$program" train flat --data other --limit 100 --threads 1
expect_end "one lacks a file" 'train-labels'
run mpirun -n 2 "$program" $small --checkpoint none/c
expect_end 'a checkpoint in no folder' 'none'
# A limit on files' sizes, as a full disk: the data is read, the checkpoint can't be written. (MPI's own
# files, for memory that processes share, would be too large too.)
run mpirun -n 2 --mca pml ob1 --mca btl tcp,self sh -c 'ulimit -f 100; exec "$@"' sh \
  "$program" train cnn --data data --limit 100 --threads 1 --json --checkpoint c2
expect_end 'the disk is full' 'writing failed: File too large'
[ ! -e c2 ] || fail 'the disk is full' 'there is half a checkpoint'
if [ -n "$plain" ]; then
  run mpirun -n 2 "$plain" $small
  expect_end 'a build without MPI' 'in one process'
else
  echo 'left out: the build without MPI, which is not there (make build)'
fi

# MARK: Several hosts

# A host is a network namespace with an address and, for its processes, a name of its own.
make_hosts() {
  local index host
  ip link add "$bridge" type bridge && ip link set "$bridge" up || return 1
  for index in 1 2 3 4; do
    host=sn$$-$index
    ip netns add "$host" || return 1
    hosts="$hosts $host"
    ip link add "sn$$v$index" type veth peer name eth0 netns "$host" \
      && ip link set "sn$$v$index" master "$bridge" up \
      && ip -n "$host" addr add "10.213.77.$index/24" dev eth0 \
      && ip -n "$host" link set eth0 up && ip -n "$host" link set lo up || return 1
    slow=$(ip netns exec "$host" tc qdisc add dev eth0 root netem delay 1ms rate 200mbit 2>&1)
  done
  [ -z "$slow" ] || echo 'left out: a slow network, since netem is not in this kernel'
  # Stands for ssh: enters the host with this address and runs a command line there.
  cat > enter << END
#!/bin/sh
host=sn$$-\${1##*.}
shift
exec ip netns exec "\$host" unshare -u sh -c 'hostname "\$0"; exec sh -c "\$1"' "\$host" "\$*"
END
  chmod +x enter
}
# mpirun on the first so many hosts, with a process on each; it runs on the first itself.
on_hosts() {
  local addresses=10.213.77.1 index
  for index in $(seq 2 "$1"); do addresses=$addresses,10.213.77.$index; done
  echo "$work/enter 10.213.77.1 mpirun -n $1 --host $addresses --mca plm_rsh_agent $work/enter" \
    --mca pml ob1 --mca btl tcp,self --mca btl_tcp_if_include eth0 \
    --mca oob_tcp_if_include eth0 -x STRIDENET_PATIENCE
}

if [ "$(id -u)" != 0 ] || ! command -v ip > /dev/null || ! command -v unshare > /dev/null; then
  echo 'left out: several hosts, which take root, iproute2 and unshare'
elif ! make_hosts 2> err; then
  echo "left out: several hosts, which this kernel has no network namespaces for: $(head -n 1 err)"
else
  for number in 2 4; do
    run $(on_hosts $number) "$program" train vgg --data "$work/data" $long --threads 1 --json
    expect_weights "$number hosts" "$uninterrupted"
  done
  # The processes end. mpirun waits for the host that isn't there, until TCP gives up.
  begin $(on_hosts 4)
  in_second_epoch
  ip link set "sn$$v3" down
  turn=0 left=all
  while [ -n "$left" ] && [ $turn -lt 30 ]; do
    sleep 0.5
    turn=$((turn + 1)) left=
    for index in 1 2 4; do
      for process in $(ip netns pids "sn$$-$index"); do
        [ "$(readlink "/proc/$process/exe")" != "$program" ] || left="$left $process"
      done
    done
  done
  { ip netns pids "sn$$-1" | xargs -r kill -9; end; } 2> /dev/null
  ip netns pids "sn$$-3" | xargs -r kill -9
  ip link set "sn$$v3" up
  code=1
  if [ -n "$left" ]; then fail 'a host is cut off' "processes are left:$left"
  else expect_end 'a host is cut off' 'go on with --resume'; fi
  go_on '  goes on with two hosts' $(on_hosts 2)
  # Told to look for hosts that have gone, mpirun ends, and is the first to say so.
  begin $(on_hosts 4) --mca oob_tcp_keepalive_time 1 --mca oob_tcp_keepalive_intvl 1 \
    --mca oob_tcp_keepalive_probes 1
  in_second_epoch
  ip link set "sn$$v3" down
  end
  ip netns pids "sn$$-3" | xargs -r kill -9
  ip link set "sn$$v3" up
  if [ $code = 0 ] || [ $code = 124 ]; then fail 'mpirun sees that a host is cut off' "code $code"
  else pass 'mpirun sees that a host is cut off'; fi
  go_on '  goes on with four hosts' $(on_hosts 4)
fi

# MARK: Recipes for clusters

if bash -n "$cluster/train.sbatch" 2> err; then pass train.sbatch; else fail train.sbatch syntax; fi
if ! python3 -c 'import yaml' 2> /dev/null; then
  echo "left out: mpijob.yaml, which takes Python's yaml"
elif python3 - "$cluster/mpijob.yaml" 2> err << 'END'
import sys, yaml
job = yaml.safe_load(open(sys.argv[1]))
assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v2beta1", "MPIJob")
replicas = job["spec"]["mpiReplicaSpecs"]
assert set(replicas) == {"Launcher", "Worker"}
for replica in replicas.values():
    assert all(container["image"] for container in replica["template"]["spec"]["containers"])
END
then pass mpijob.yaml; else fail mpijob.yaml syntax; fi

echo "$passed passed, $wrong failed"
[ $wrong = 0 ]
