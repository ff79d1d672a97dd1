#!/usr/bin/env python3
"""StrideNet against its peers, in one session on the same cores: `make bench-peers`.

    bench_peers.py [--images 60000] [--rounds 5] [--threads N] [--data FOLDER]
                   [--python PYTHON] [--program STRIDENET] [--models cnn,lenet,vgg,flat]
                   [--out FILE]

Peers are what peers.py can run with the interpreter PYTHON; it says what is timed. Without
one, a virtual environment with torch, numpy, onnxruntime and openvino is made under .build-peers. PyTorch
runs in both layouts, each with the C library's allocator as it is and told to keep
memory (peers.py --allocator): four workers, of which "fastest PyTorch" is, for each row,
the one with the least median.

All workers stay alive and wait; runs alternate (ours, peer, ours, peer ...), so that a
change in the machine's speed meets both of a pair. A ratio is peer / ours of one pair,
given as median [least - greatest]: above 1, ours is faster. NumPy's peers run networks
with convolutions on fewer images; their times are scaled to the number of the others.

Training: mini-batches of 128, momentum 0.9; each row needs the first five losses to
agree with ours within 1e-3. Inference: 10,000 images, each program with the mini-batch that
it is fastest with; with ONNX Runtime and OpenVINO, which don't train. Peak memory is that of a process
which did one such run, images included. Exit status 1 if losses differ.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BATCHES = [32, 64, 128, 250, 500, 1000, 2500, 10000]
NUMPY_IMAGES = 1280
TOLERANCE = 1e-3


def note(text):
    print(text, file=sys.stderr, flush=True)


# --- programs ------------------------------------------------------------------------

class Program:
    """A way to run: its name and how to start a worker."""

    def __init__(self, name, command):
        self.name, self.command = name, command
        self.is_torch, self.is_numpy = name.startswith("torch"), name.startswith("numpy")
        self.trains = not name.startswith(("onnxruntime", "openvino"))
        self.worker = self.version = None

    def start(self):
        return Worker(self.command)

    def ask(self, **command):
        if self.worker is None:
            self.worker = self.start()
        answer = self.worker.ask(command)
        self.version = answer.get("version", "")
        return answer

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
            sys.exit(f"{' '.join(self.command)}\n  was asked {command}\n"
                     f"  and answered {answer.get('error', 'nothing')}")
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
        self.process.stdin.close()
        self.process.wait()


def interpreter(given):
    if given:
        return given
    environment = ROOT / ".build-peers" / "venv"
    python = environment / "bin" / "python"
    if not (environment / "complete").exists():
        note(f"making {environment} with torch, numpy, onnxruntime and openvino "
             "(PYTHON= names an interpreter instead)")
        subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "numpy", "torch", "onnx",
                        "onnxruntime", "openvino"], check=True)
        (environment / "complete").touch()
    return str(python)


def find_programs(arguments):
    ours = Program("stridenet", [arguments.program, "bench", "worker",
                                 "--threads", str(arguments.threads)])
    python, script = interpreter(arguments.python), str(HERE / "peers.py")
    found = json.loads(subprocess.run([python, script, "list"], check=True, text=True,
                                      stdout=subprocess.PIPE).stdout)
    peers = []
    for name, version in found.items():
        if version is None:
            note(f"{name}: its package isn't there")
            continue
        for allocator in ("keep", "default") if name.startswith("torch") else ("keep",):
            peers.append(Program(
                name + (f" ({allocator})" if name.startswith("torch") else ""),
                [python, script, "worker", name, "--threads", str(arguments.threads),
                 "--allocator", allocator]))
    return ours, peers


# --- measuring -----------------------------------------------------------------------

def compare_losses(row, name, ours, theirs):
    """Whether they agree; says it if not."""
    worst = max(abs(a - b) / max(abs(a), 1e-30) for a, b in zip(ours, theirs))
    row.setdefault("loss_difference", {})[name] = worst
    if len(ours) != len(theirs) or not worst <= TOLERANCE:
        note(f"LOSSES DIFFER: {row['row']}, {name}: {theirs}, ours {ours}")
        row["failed"] = True


def alternate(row, ours, peers, rounds, run):
    """Fills a row: run(program) gives an answer and its time, scaled."""
    times, ratios, own = {p.name: [] for p in peers}, {p.name: [] for p in peers}, []
    for number in range(rounds):
        for peer in peers:
            (_, mine), (_, theirs) = run(ours), run(peer)
            own.append(mine)
            times[peer.name].append(theirs)
            ratios[peer.name].append(theirs / mine)
        note(f"{row['row']}: round {number + 1} of {rounds}")
    row["seconds"] = {ours.name: own, **times}
    row["ratios"] = ratios
    torches = [p.name for p in peers if p.is_torch]
    if torches:
        row["fastest_torch"] = min(torches, key=lambda n: statistics.median(times[n]))


def train(model, ours, peers, arguments):
    row = dict(row=f"train {model}", model=model, images=arguments.images, batch=128)
    command = dict(model=model, mode="train", batch=128, data=arguments.data)
    first = ours.ask(images=128 * 5, **command)["losses"]
    for peer in peers:
        compare_losses(row, peer.name, first, peer.ask(images=128 * 5, **command)["losses"])

    def run(program):
        count = program.count(model, arguments.images)
        answer = program.ask(images=count, **command)
        return answer, answer["seconds"] * arguments.images / count

    alternate(row, ours, peers, arguments.rounds, run)
    return row


def infer(model, images, ours, peers, arguments):
    row = dict(row=f"infer {model}", model=model, images=images, best_batch={})
    command = dict(model=model, mode="infer", data=arguments.data)
    for program in [ours] + peers:
        swept = {}
        for batch in (b for b in BATCHES if b <= program.count(model, images)):
            answers = [program.ask(images=program.count(model, images), batch=batch, **command)
                       for _ in range(2)]
            swept[batch] = min(a["seconds"] for a in answers)
            if batch == 128:
                losses = answers[0]["losses"]
        if program is ours:
            first = losses
        else:
            compare_losses(row, program.name, first, losses)
        row["best_batch"][program.name] = min(swept, key=swept.get)
        row.setdefault("swept", {})[program.name] = swept
    note(f"{row['row']}: best mini-batches {row['best_batch']}")

    def run(program):
        count = program.count(model, images)
        answer = program.ask(images=count, batch=row["best_batch"][program.name], **command)
        return answer, answer["seconds"] * images / count

    alternate(row, ours, peers, arguments.rounds, run)
    return row


def memory(program, mode, batch, images, data):
    worker = program.start()
    worker.ask(dict(model="cnn", mode=mode, batch=batch, images=images, data=data))
    peak = worker.peak_memory()
    worker.stop()
    return peak


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


def print_row(row, peers):
    scaled = any(p.count(row["model"], row["images"]) < row["images"] for p in peers)
    print(f"\n{row['row']}, {row['images']:,} images, mini-batch "
          + (f"{row['batch']}" if "batch" in row else "the best of each")
          + (f" (numpy: {NUMPY_IMAGES:,} images, scaled)"
             if scaled else ""))
    print(f"  {'':32} {'median s':>9}  {'images/s':>10}  peer / ours")
    for name, seconds in row["seconds"].items():
        median = statistics.median(seconds)
        ratios = row["ratios"].get(name)
        batch = f", {row['best_batch'][name]}" if "best_batch" in row else ""
        mark = "  <- fastest PyTorch" if name == row.get("fastest_torch") else ""
        print(f"  {name + batch:32} {median:9.3f}  {row['images'] / median:10,.0f}"
              + (f"  {spread(ratios)}{mark}" if ratios else ""))
    print(f"  first losses differ by at most {max(row['loss_difference'].values(), default=0):.1e}"
          + (" TOO MUCH" if row.get("failed") else ""), flush=True)


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
    parser.add_argument("--models", default="cnn,lenet,vgg,flat")
    parser.add_argument("--out", default=str(ROOT / ".build-peers" / "results.json"))
    arguments = parser.parse_args()
    if arguments.images < 640 or arguments.rounds < 1 or arguments.threads < 1:
        parser.error("needs at least 640 images, 1 round and 1 thread")
    if hasattr(os, "sched_setaffinity"):
        # Every program gets the same cores, as many as threads.
        cores = sorted(os.sched_getaffinity(0))[:arguments.threads]
        os.sched_setaffinity(0, cores)
    out = Path(arguments.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    ours, peers = find_programs(arguments)

    rows = []
    for model in arguments.models.split(","):
        rows.append(train(model, ours, [p for p in peers if p.trains], arguments))
        print_row(rows[-1], peers)
    for model in arguments.models.split(","):
        rows.append(infer(model, 10000, ours, peers, arguments))
        print_row(rows[-1], peers)

    best = next((row["best_batch"] for row in rows if row["row"] == "infer cnn"), {})
    programs = [p for p in [ours] + peers if p.trains and not p.is_numpy and p.name in best]
    peaks = {p.name: dict(
        train=memory(p, "train", 128, arguments.images, arguments.data),
        infer=memory(p, "infer", best[p.name], 10000, arguments.data))
        for p in programs}
    start = startup([arguments.program, "--help"])
    print("\npeak memory of a process, MB, and the share of it that ours takes")
    for name, peak in peaks.items():
        if None not in peak.values():
            shares = (f"  ours {peaks[ours.name][m] / peak[m]:.3f}" if name != ours.name else ""
                      for m in peak)
            print(f"  {name:32} " + "".join(
                f" {m} {peak[m] / 1e6:8.1f}{s}" for m, s in zip(peak, shares)))
    print(f"\nstridenet --help: {start * 1000:.1f} ms from start to end")
    result = dict(
        date=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), threads=arguments.threads,
        images=arguments.images, rounds=arguments.rounds, numpy_images=NUMPY_IMAGES,
        versions={p.name: p.version for p in [ours] + peers}, rows=rows, peak_memory=peaks,
        startup_seconds=start)
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"everything measured is in {out}")
    sys.exit(1 if any(row.get("failed") for row in rows) else 0)


if __name__ == "__main__":
    main()
