#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Whether another way of rounding costs accuracy: the same trainings by two kernel choices, many seeds.

    seeds.py PROGRAM DATA [--networks lenet vgg] [--seeds 20] [--limit 20000] [--epochs 2]
             [--kernels exact auto]

For each network and seed it trains twice, with the first --kernels and with the second, and compares the
errors on the test set. It prints each network's mean errors, the mean of the differences with its 95 %
confidence interval (Student's t), and how many trainings ended above 10 % (diverged).
"""
import argparse
import json
import math
import statistics
import subprocess

# Student's t, 97.5 %, by degrees of freedom.
T = {4: 2.776, 9: 2.262, 14: 2.145, 19: 2.093, 29: 2.045, 39: 2.023, 49: 2.010, 99: 1.984}


def error(program, network, data, limit, epochs, kernels, seed):
    """The test error after training, in per cent."""
    out = subprocess.run(
        [program, "train", network, "--data", data, "--limit", str(limit), "--epochs", str(epochs),
         "--seed", str(seed), "--kernels", kernels, "--json"],
        check=True, capture_output=True, text=True).stdout
    epochs = [row for row in map(json.loads, out.splitlines()) if row["event"] == "epoch"]
    return 100 * epochs[-1]["test_ce"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("program")
    parser.add_argument("data")
    parser.add_argument("--networks", nargs="+", default=["lenet", "vgg"])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--limit", type=int, default=20000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--kernels", nargs=2, default=["exact", "auto"])
    options = parser.parse_args()
    freedom = options.seeds - 1
    t = T[min(k for k in T if k >= freedom or k == max(T))]
    for network in options.networks:
        errors = [
            [error(options.program, network, options.data, options.limit, options.epochs, kernels, seed)
             for kernels in options.kernels]
            for seed in range(1, options.seeds + 1)
        ]
        differences = [b - a for a, b in errors]
        half = t * statistics.stdev(differences) / math.sqrt(len(differences))
        means = [statistics.mean(column) for column in zip(*errors)]
        diverged = [sum(e > 10 for e in column) for column in zip(*errors)]
        a, b = options.kernels
        print(f"{network:8}  {a} {means[0]:.3f} %  {b} {means[1]:.3f} %  "
              f"difference {statistics.mean(differences):+.3f} ± {half:.3f} points  "
              f"diverged {diverged[0]} and {diverged[1]} of {len(errors)}", flush=True)


if __name__ == "__main__":
    main()
