#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A data set as a folder of PNG files in train/LABEL and test/LABEL, beside it FOLDER.npz in its own order.

    as_pictures.py SOURCE FOLDER

SOURCE is a folder of the four IDX files, as MNIST and Fashion-MNIST have them (Debian's package
dataset-fashion-mnist), or `digits`: scikit-learn's 1,797 of 8×8 pixels, of which every fifth is for the
test. What is trained on either should be as good. Needs numpy and Pillow, for `digits` scikit-learn.
"""
import argparse
import gzip
from pathlib import Path

import numpy as np
from PIL import Image


def idx(path):
    data = path.read_bytes()
    data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    sizes = np.frombuffer(data, ">u4", data[3], 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(sizes)


def load(source):
    if source == "digits":
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        images = np.rint(images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
        test = np.arange(len(images)) % 5 == 4
        return (images[~test], labels[~test]), (images[test], labels[test])
    return [[idx(next(Path(source).glob(f"{name}-{part}*"))) for part in ("images", "labels")]
            for name in ("train", "t10k")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("source")
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    arrays = {}
    for part, (images, labels) in zip(("train", "test"), load(options.source)):
        arrays |= {f"x_{part}": images, f"y_{part}": labels.astype(np.uint8)}
        for number, (image, label) in enumerate(zip(images, labels)):
            target = options.folder / part / str(label)
            target.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(target / f"{number:05}.png")
    np.savez_compressed(f"{options.folder}.npz", **arrays)
    print(f"{options.folder}: {len(arrays['x_train'])} training and {len(arrays['x_test'])} test pictures")


if __name__ == "__main__":
    main()
