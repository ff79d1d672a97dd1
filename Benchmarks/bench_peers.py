#!/usr/bin/env python3
"""StrideNet against its peers, in one session on the same cores: `make bench-peers`.

    bench_peers.py [--images 60000] [--rounds 5] [--threads N] [--data FOLDER]
                   [--python PYTHON] [--program STRIDENET] [--out FILE] [--svg FILE]
                   [--models cnn,lenet,vgg,flat,vgg32,resnet20,wide32,resnet64,resnet224,vgg224]
                   [--precisions float32,bf16] [--peers NAME,NAME ...] [--avx2]

Peers are what peers.py can run with the interpreter PYTHON; it says what is timed. Without
one, a virtual environment with their packages is made under .build-peers. What can't be
installed, imported or compiled is named and left out. PyTorch runs eagerly in both layouts,
each with the C library's allocator as it is and told to keep memory (peers.py --allocator),
and compiled.

Ours in single precision runs beside the peers in single precision, ours with --precision bf16
beside those in bfloat16. Of each row the fastest peer is named, and the fastest PyTorch: those
with the least median.

All workers stay alive and wait; runs alternate (ours, peer, ours, peer ...), so that a
change in the machine's speed meets both of a pair. A ratio is peer / ours of one pair,
given as median [least - greatest]: above 1, ours is faster. NumPy's peers run networks
with convolutions on fewer images; their times are scaled to the number of the others.

With --avx2 all programs are kept from instructions beyond AVX2, which is what most machines have:
STRIDENET_ISA=avx2, and for the peers ATEN_CPU_CAPABILITY and ONEDNN_MAX_CPU_ISA (of ONNX Runtime
and OpenVINO nothing is known that would keep their own kernels from them, so they are left out).

Training: mini-batches of 128 (of the networks at 224x224: 16), momentum 0.9. Inference: 10,000
images, each program with the mini-batch that it is fastest with; then 1,000 one at a time. The
networks from vgg32 on take as many as peers.py says. ONNX Runtime and OpenVINO answer only. With
fewer --images all take no more than those. The first five losses must agree with ours within a
thousandth, bfloat16's within a fiftieth. Peak memory is that of a process which did one such run
of cnn, images included. Exit status 1 if losses differ.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import peers as definitions
import plot

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BATCHES = [32, 64, 128, 250, 500, 1000, 2500, 10000]
COMPILED_BATCHES = [32, 128, 500]             # each takes a compiler's time
NUMPY_IMAGES = 1280
PACKAGES = ["numpy", "torch", "onnx", "onnxruntime", "openvino", "tensorflow-cpu", "jax"]


def note(text):
    print(text, file=sys.stderr, flush=True)


# --- programs ------------------------------------------------------------------------

class Failed(Exception):
    pass


class Program:
    """A way to run: its name, which peer it is (None: ours) and how to start a worker."""

    def __init__(self, name, command, peer=None, precision="float32"):
        self.name, self.command, self.peer, self.precision = name, command, peer, precision
        self.is_torch, self.is_numpy = name.startswith("torch"), name.startswith("numpy")
        self.worker = self.version = None

    def start(self):
        return Worker(self.command)

    def ask(self, model, mode, batch, images, data):
        if self.worker is None:
            self.worker = self.start()
        command = dict(model=model, mode=mode, batch=batch, images=images)
        if model not in definitions.LARGE:
            command["data"] = data
        elif self.peer is None:
            command.update(layers=definitions.text(model), shape=definitions.shape(model))
        try:
            answer = self.worker.ask(command)
        except Failed:
            self.worker.stop()
            self.worker = None
            raise
        self.version = answer.get("version", "")
        return answer

    def can(self, model, mode, one_at_a_time):
        """Whether it has such a row. Streams answer several images at once."""
        return (self.peer is None or definitions.supports(self.peer, model)
                and (mode == "infer" or definitions.trains(self.peer))
                and not (one_at_a_time and "streams" in self.peer))

    def count(self, model, images):
        """How many images it is run on: NumPy's convolutions would take minutes."""
        return min(images, NUMPY_IMAGES) if self.is_numpy and model != "flat" else images


class Worker:
    def __init__(self, command):
        self.command = command
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True)

    def ask(self, command):
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
            answer = json.loads(self.process.stdout.readline() or "{}")
        except BrokenPipeError:
            answer = {}
        if "seconds" not in answer:
            if "error" not in answer:
                raise Failed(f"it ended with status {self.process.wait()}")
            raise Failed(answer["error"])
        return answer

    def peak_memory(self):
        """Bytes, or None where the system doesn't say. (A child's rusage begins with the peak
        of the process that started it.)"""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return None
        return next((int(line.split()[1]) * 1024 for line in status.splitlines()
                     if line.startswith("VmHWM:")), None)

    def stop(self):
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        self.process.wait()


def interpreter(given):
    if given:
        return given
    environment = ROOT / ".build-peers" / "venv"
    python, complete = environment / "bin" / "python", environment / "complete"
    wanted = " ".join(PACKAGES)
    if not complete.exists() or complete.read_text() != wanted:
        note(f"making {environment} with {', '.join(PACKAGES)} "
             "(PYTHON= names an interpreter instead)")
        subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=True)
        for package in PACKAGES:
            if subprocess.run([python, "-m", "pip", "install", "-q", package]).returncode:
                note(f"{package} can't be installed: its peers are left out")
        complete.write_text(wanted)
    return str(python)


def find_programs(arguments):
    """Ours, and its peers, by precision."""
    threads = ["--threads", str(arguments.threads)]
    worker = [arguments.program, "bench", "worker", *threads]
    ours = {"float32": Program("stridenet", worker),
            "bf16": Program("stridenet-bf16", worker + ["--precision", "bf16"], precision="bf16")}
    python, script = interpreter(arguments.python), str(HERE / "peers.py")
    found = json.loads(subprocess.run([python, script, "list"], check=True, text=True,
                                      stdout=subprocess.PIPE).stdout)
    peers = []
    for name, version in found.items():
        if arguments.peers and name not in arguments.peers.split(","):
            continue
        if version is None:
            note(f"{name}: its package isn't there")
            continue
        eager = name.startswith("torch") and "compiled" not in name
        for allocator in ("keep", "default") if eager else ("keep",):
            peers.append(Program(
                name + (f" ({allocator})" if eager else ""),
                [python, script, "worker", name, *threads, "--allocator", allocator],
                name, "bf16" if name.endswith("-bf16") else "float32"))
    return ours, peers


# --- measuring -----------------------------------------------------------------------

def compare_losses(row, name, ours, theirs):
    """Whether they agree; says it if not."""
    worst = max(abs(a - b) / max(abs(a), 1e-30) for a, b in zip(ours, theirs))
    row["loss_difference"][name] = worst
    if len(ours) != len(theirs) or not worst <= definitions.TOLERANCE[row["precision"]]:
        note(f"LOSSES DIFFER: {row['row']}, {name}: {theirs}, ours {ours}")
        row["failed"] = True


def alternate(row, ours, peers, rounds, run):
    """Fills a row: run(program) gives its seconds, scaled."""
    times, ratios, own = {p.name: [] for p in peers}, {p.name: [] for p in peers}, []
    for number in range(rounds):
        for peer in peers:
            mine, theirs = run(ours), run(peer)
            own.append(mine)
            times[peer.name].append(theirs)
            ratios[peer.name].append(theirs / mine)
        note(f"{row['row']}: round {number + 1} of {rounds}")
    row["seconds"] = {ours.name: own, **times}
    row["ratios"] = ratios

    def fastest(peers):
        return min((p.name for p in peers), key=lambda name: statistics.median(times[name]),
                   default=None)

    row["fastest"] = fastest(peers)
    row["fastest_torch"] = fastest([p for p in peers if p.is_torch])


def measure(model, mode, ours, peers, arguments, one_at_a_time=False):
    """A row, or None where nobody has it."""
    _, most, few, batch = definitions.LARGE.get(model, (28, arguments.images, 10000, 128))
    images = min(arguments.images, most if mode == "train" else few,
                 1000 if one_at_a_time else arguments.images)
    name = f"{mode} {model}{', one at a time' if one_at_a_time else ''}, {ours.precision}"
    row = dict(row=name, model=model, mode=mode, precision=ours.precision, images=images,
               work=definitions.work(model), batch=batch, one_at_a_time=one_at_a_time, best_batch={}, swept={}, loss_difference={},
               left_out={})
    peers = [p for p in peers if p.precision == ours.precision]
    if not peers:
        return None

    def ask(program, batch, count):
        return program.ask(model, mode, batch, count, arguments.data)

    def prepare(program):
        """The first losses, and in inference the mini-batch that it is fastest with."""
        fixed = batch if mode == "train" else 1 if one_at_a_time else None
        losses = ask(program, fixed or batch, min(images, 5 * (fixed or batch)))["losses"]
        if fixed is None:
            count = program.count(model, images)
            batches = COMPILED_BATCHES if "compiled" in program.name else BATCHES
            swept = {batch: min(ask(program, batch, count)["seconds"] for _ in range(2))
                     for batch in batches if batch <= count}
            row["swept"][program.name] = swept
            fixed = min(swept, key=swept.get)
        row["best_batch"][program.name] = fixed
        return losses

    first, ready = prepare(ours), []
    for peer in peers:
        if not peer.can(model, mode, one_at_a_time):
            continue
        try:
            compare_losses(row, peer.name, first, prepare(peer))
            ready.append(peer)
        except Failed as error:
            row["left_out"][peer.name] = str(error)
            note(f"{name}: {peer.name} is left out: {error}")

    def run(program):
        count = program.count(model, images)
        return ask(program, row["best_batch"][program.name], count)["seconds"] * images / count

    alternate(row, ours, ready, arguments.rounds, run)
    row["scaled"] = [p.name for p in ready if p.count(model, images) < images]
    return row


def memory(program, mode, batch, images, data):
    worker = program.start()
    try:
        worker.ask(dict(model="cnn", mode=mode, batch=batch, images=images, data=data))
        return worker.peak_memory()
    finally:
        worker.stop()


def startup(command, times=15):
    """Median seconds of a whole process."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


# --- the table -----------------------------------------------------------------------

def spread(ratios):
    return f"{statistics.median(ratios):.2f} [{min(ratios):.2f} - {max(ratios):.2f}]"


def print_row(row):
    batch = (f"mini-batch {row['batch']}" if row["mode"] == "train"
             else "one at a time" if row["one_at_a_time"] else "mini-batch the best of each")
    print(f"\n{row['mode']} {row['model']}, {row['precision']}, {row['images']:,} images, {batch}"
          + (f" (numpy: {NUMPY_IMAGES:,} images, scaled)" if row["scaled"] else ""))
    print(f"  {'':34} {'batch':>5} {'median s':>9} {'images/s':>10}  peer / ours")
    for name, seconds in row["seconds"].items():
        if not seconds:
            continue
        median = statistics.median(seconds)
        ratios = row["ratios"].get(name)
        print(f"  {name:34} {row['best_batch'][name]:5} {median:9.4f} "
              f"{row['images'] / median:10,.0f}" + (f"  {spread(ratios)}" if ratios else ""))
    for title, name in (("PyTorch", row["fastest_torch"]), ("of all", row["fastest"])):
        if name:
            print(f"  fastest {title}: {name}, {spread(row['ratios'][name])}")
    print(f"  first losses differ by at most {max(row['loss_difference'].values(), default=0):.1e}"
          + (" TOO MUCH" if row.get("failed") else ""))
    for name, error in row["left_out"].items():
        print(f"  left out: {name}: {error.splitlines()[0]}"[:100])
    sys.stdout.flush()


def print_memory(peaks):
    print("\npeak memory of a process, MB, and the share of it that ours takes")
    for name, peak in peaks.items():
        own = peaks["stridenet-bf16" if "-bf16" in name else "stridenet"]
        if None not in peak.values():
            print(f"  {name:34}" + "".join(
                f" {mode} {peak[mode] / 1e6:8.1f}"
                + (f"  ours {own[mode] / peak[mode]:.3f}" if own is not peak else "")
                for mode in peak))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=60000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0))
                        if hasattr(os, "sched_getaffinity") else os.cpu_count())
    # The first 10,000 images, repeated; of the whole MNIST where its folder is given.
    parser.add_argument("--data", default=str(ROOT / "Sources" / "MNISTSample" / "files"))
    parser.add_argument("--python", default=os.environ.get("PYTHON", ""))
    parser.add_argument("--program", default=str(ROOT / ".build" / "release" / "stridenet"))
    parser.add_argument("--models", default=",".join(definitions.MODELS))
    parser.add_argument("--precisions", default="float32,bf16")
    parser.add_argument("--peers", default="")
    parser.add_argument("--avx2", action="store_true")
    parser.add_argument("--out", default=str(ROOT / ".build-peers" / "results.json"))
    parser.add_argument("--svg", default=str(ROOT / ".build-peers" / "peers.svg"))
    arguments = parser.parse_args()
    if arguments.images < 640 or arguments.rounds < 1 or arguments.threads < 1:
        parser.error("needs at least 640 images, 1 round and 1 thread")
    models, precisions = arguments.models.split(","), arguments.precisions.split(",")
    for given, known in ((models, definitions.MODELS), (precisions, definitions.TOLERANCE),
                         (arguments.peers.split(",") if arguments.peers else [],
                          definitions.PEERS)):
        for name in given:
            if name not in known:
                parser.error(f"no {name!r}: there are {', '.join(known)}")
    if hasattr(os, "sched_setaffinity"):
        # Every program gets the same cores, as many as threads.
        cores = sorted(os.sched_getaffinity(0))[:arguments.threads]
        os.sched_setaffinity(0, cores)
    for file in (arguments.out, arguments.svg):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
    if arguments.avx2:
        os.environ.update(STRIDENET_ISA="avx2", ATEN_CPU_CAPABILITY="avx2",
                          ONEDNN_MAX_CPU_ISA="AVX2")
    ours, peers = find_programs(arguments)
    if arguments.avx2:
        peers = [p for p in peers if p.is_torch or p.is_numpy]

    rows, result = [], dict(
        date=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), threads=arguments.threads,
        images=arguments.images, rounds=arguments.rounds, avx2=arguments.avx2,
        numpy_images=NUMPY_IMAGES)

    def save():
        result.update(rows=rows, versions={p.name: p.version for p in [*ours.values(), *peers]})
        Path(arguments.out).write_text(json.dumps(result, indent=1) + "\n")

    for mode, one_at_a_time in (("train", False), ("infer", False), ("infer", True)):
        for model in models:
            for precision in precisions:
                row = measure(model, mode, ours[precision], peers, arguments, one_at_a_time)
                if row:
                    rows.append(row)
                    print_row(row)
                    save()

    result["peak_memory"] = peaks = {}
    for row in rows:
        if row["row"].startswith("infer cnn, ") and not row["one_at_a_time"]:
            for p in [ours[row["precision"]]] + peers:
                batch = row["best_batch"].get(p.name)
                if batch and p.can("cnn", "train", False) and not p.is_numpy:
                    peaks[p.name] = dict(
                        train=memory(p, "train", 128, arguments.images, arguments.data),
                        infer=memory(p, "infer", batch, row["images"], arguments.data))
    print_memory(peaks)
    result["startup_seconds"] = start = startup([arguments.program, "--help"])
    print(f"\nstridenet --help: {start * 1000:.1f} ms from start to end")
    save()
    Path(arguments.svg).write_text(plot.draw(rows))
    print(f"everything measured is in {arguments.out}\nand drawn in {arguments.svg}")
    sys.exit(1 if any(row.get("failed") for row in rows) else 0)


if __name__ == "__main__":
    try:
        main()
    except Failed as error:
        sys.exit(f"a program failed: {error}")
