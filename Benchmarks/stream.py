#!/usr/bin/env python3
"""Trains on a data set larger than the memory that the program takes, and measures that.

    python3 stream.py [megabytes] [program]

Writes IDX files of so many megabytes (1000) of colour images of 64 x 64 pixels, which are noise with a
bright square whose place is the class, trains a network on them for an epoch with --stream, and prints
the most memory that was resident (VmHWM), with the accuracy on the test set.
"""
import random
import resource
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

SIDE = 64
IMAGE = SIDE * SIDE * 3
LAYERS = "conv(16,5,stride=4) maxpool(2) flatten relu(32) softmax(4)"


def write(folder, images, labels, count, seed):
    dice = random.Random(seed)
    classes = bytes(dice.randrange(4) for _ in range(count))
    (folder / labels).write_bytes(struct.pack(">HBBI", 0, 8, 1, count) + classes)
    dim = bytes(byte & 127 for byte in range(256))
    bright = bytes([220]) * (16 * 3)
    with open(folder / images, "wb") as file:
        file.write(struct.pack(">HBBIIII", 0, 8, 4, count, SIDE, SIDE, 3))
        for label in classes:
            pixels = bytearray((dice.randbytes(IMAGE // 8) * 8).translate(dim))
            top, left = label // 2 * 32 + dice.randrange(16), label % 2 * 32 + dice.randrange(16)
            for row in range(top, top + 16):
                start = (row * SIDE + left) * 3
                pixels[start:start + len(bright)] = bright
            file.write(pixels)


def main():
    if len(sys.argv) > 3:
        sys.exit(__doc__)
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    program = sys.argv[2] if len(sys.argv) > 2 else str(
        Path(__file__).parent / "../.build/release/stridenet")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        count = megabytes * 1_000_000 // IMAGE
        write(folder, "train-images-idx4-ubyte", "train-labels-idx1-ubyte", count, 1)
        write(folder, "t10k-images-idx4-ubyte", "t10k-labels-idx1-ubyte", 1000, 2)
        size = (folder / "train-images-idx4-ubyte").stat().st_size
        print(f"{count} training images, {size / 1e6:.0f} MB", flush=True)
        subprocess.run(
            [program, "--layers", LAYERS, "--data", name, "--stream", "--epochs", "1",
             "--learning-rate", "0.02"], check=True)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        print(f"peak memory {peak / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
