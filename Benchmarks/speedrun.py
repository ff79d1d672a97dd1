#!/usr/bin/env python3
"""The speedrun recipe in PyTorch and here, alternating on the same cores: `make bench-speedrun`.

    speedrun.py PROGRAM DATA [rounds]

DATA is a folder with MNIST's four files. PyTorch runs in both layouts, with the C library's
memory kept between steps (faster) and images scaled once before the time starts; ours is timed
with its scaling. Each round trains one epoch of each from new weights and measures the test set.
"""
import gzip
import json
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

if "MALLOC_TRIM_THRESHOLD_" not in os.environ:  # glibc reads these once, at the start
    keep = dict(os.environ, MALLOC_TRIM_THRESHOLD_="4294967296", MALLOC_MMAP_THRESHOLD_="4294967296")
    os.execve(sys.executable, [sys.executable] + sys.argv, keep)

import numpy as np
import torch
import torch.nn as nn

BATCH, RATE, SMOOTHING = 128, 0.008, 0.05


def idx(folder, name, header):
    found = sorted(Path(folder).glob(name.replace("-idx", "?idx") + "*"))
    if not found:
        sys.exit(f"{folder}: no file {name}")
    data = found[0].read_bytes()
    data = gzip.decompress(data) if found[0].suffix == ".gz" else data
    return np.frombuffer(data[header:], dtype=np.uint8)


def load(folder, part):
    x = idx(folder, f"{part}-images-idx3-ubyte", 16).reshape(-1, 1, 28, 28)
    y = idx(folder, f"{part}-labels-idx1-ubyte", 8)
    return torch.from_numpy(x.astype(np.float32) / 255), torch.from_numpy(y.astype(np.int64))


def pytorch(layout, train, test, seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(1, 24, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(24, 32, 3),
                        nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(800, 256), nn.ReLU(),
                        nn.Linear(256, 10)).to(memory_format=layout)
    x, y = train[0].to(memory_format=layout), train[1]
    steps = math.ceil(len(x) / BATCH)
    adam = torch.optim.Adam(net.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, RATE, total_steps=steps,
                                                   cycle_momentum=False)
    loss = nn.CrossEntropyLoss(label_smoothing=SMOOTHING)
    start = time.perf_counter()
    order = torch.randperm(len(x))
    for k in range(steps):
        part = order[k * BATCH:(k + 1) * BATCH]
        adam.zero_grad()
        loss(net(x[part]), y[part]).backward()
        adam.step()
        schedule.step()
    seconds = time.perf_counter() - start
    net.eval()
    with torch.no_grad():
        right = (net(test[0]).argmax(1) == test[1]).float().mean().item()
    return seconds, right


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    program, data = sys.argv[1:3]
    rounds = int(sys.argv[3]) if len(sys.argv) == 4 else 5
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    train, test = load(data, "train"), load(data, "t10k")
    layouts = {"torch": torch.contiguous_format, "torch-channels-last": torch.channels_last}
    ours, theirs = [], {name: [] for name in layouts}
    for r in range(rounds):
        for name, layout in layouts.items():
            run = json.loads(subprocess.run(
                [program, "speedrun", "--runs", "1", "--data", data, "--json"], check=True,
                text=True, stdout=subprocess.PIPE).stdout.splitlines()[0])
            ours.append((run["seconds"], run["test_accuracy"]))
            theirs[name].append(pytorch(layout, train, test, r))
            print(f"round {r + 1}: ours {ours[-1][0]:.2f} s {ours[-1][1]:.4f}, "
                  f"{name} {theirs[name][-1][0]:.2f} s {theirs[name][-1][1]:.4f}", flush=True)
    for index, (name, runs) in enumerate(theirs.items()):
        ratios = [t[0] / o[0] for t, o in zip(runs, ours[index::len(layouts)])]
        print(f"{name}: {statistics.median(t[0] for t in runs):.2f} s, accuracy "
              f"{statistics.mean(t[1] for t in runs):.4f}; {statistics.median(ratios):.2f} "
              f"[{min(ratios):.2f} - {max(ratios):.2f}] times as long as ours")
    print(f"ours: {statistics.median(o[0] for o in ours):.2f} s")


if __name__ == "__main__":
    main()
