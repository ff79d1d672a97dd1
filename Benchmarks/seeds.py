#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Whether another way of rounding costs accuracy: the same trainings by two kernel choices, many seeds.

    seeds.py PROGRAM DATA [--networks lenet vgg] [--seeds 20] [--limit 20000] [--epochs 2]
             [--ways exact auto bf16]

For each network and seed it trains with each of the --ways, kernels or a precision, and compares the
errors on the test set with the first one's. It prints each network's mean errors, the mean of the
differences with its 95 % confidence interval (Student's t), and how many trainings ended above 10 %
(diverged).
"""
import argparse
import json
import math
import statistics
import subprocess

# Student's t, 97.5 %, by degrees of freedom.
T = {4: 2.776, 9: 2.262, 14: 2.145, 19: 2.093, 29: 2.045, 39: 2.023, 49: 2.010, 99: 1.984}


def error(program, network, data, limit, epochs, way, seed):
    """The test error after training, in per cent."""
    option = "--precision" if way == "bf16" else "--kernels"
    out = subprocess.run(
        [program, "train", network, "--data", data, "--limit", str(limit), "--epochs", str(epochs),
         "--seed", str(seed), option, way, "--json"],
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
    parser.add_argument("--ways", nargs="+", default=["exact", "auto", "bf16"])
    options = parser.parse_args()
    freedom = options.seeds - 1
    t = T[min(k for k in T if k >= freedom or k == max(T))]
    for network in options.networks:
        errors = [
            [error(options.program, network, options.data, options.limit, options.epochs, way, seed)
             for way in options.ways]
            for seed in range(1, options.seeds + 1)
        ]
        for way, column in zip(options.ways, zip(*errors)):
            differences = [other - row[0] for other, row in zip(column, errors)]
            half = t * statistics.stdev(differences) / math.sqrt(len(differences))
            print(f"{network:8} {way:8} {statistics.mean(column):.3f} %  "
                  f"difference {statistics.mean(differences):+.3f} ± {half:.3f} points  "
                  f"diverged {sum(e > 10 for e in column)} of {len(errors)}", flush=True)


if __name__ == "__main__":
    main()
