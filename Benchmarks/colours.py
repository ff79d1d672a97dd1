#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The icons of Debian's themes by what they stand for, as a folder of pictures to train with.

    colours.py FOLDER [--cache CACHE]

Writes FOLDER/train/CLASS/NAME.png and FOLDER/test/CLASS/NAME.png: 32×32 in colour over white. The classes
are the themes' own: actions, apps, devices, mimetypes, places, status. A theme stands in the training
or in the test set with all its icons, so that the test is of styles that weren't seen; pictures that
are there twice, in one set or both, are left out the second time, and counted. Needs Pillow, and apt-get
and dpkg-deb of Debian 12, which install nothing: packages are downloaded, 110 MB, and unpacked in CACHE.
"""
import argparse
import collections
import re
import shutil
from pathlib import Path

from PIL import Image

import debian

# Themes that grew out of each other, as MATE's out of GNOME's, are on the same side.
TRAIN = ["oxygen-icon-theme", "gnome-icon-theme", "mate-icon-theme", "faenza-icon-theme",
         "obsidian-icon-theme"]
TEST = ["elementary-xfce-icon-theme", "lxde-icon-theme", "tango-icon-theme"]
CLASSES = ["actions", "apps", "devices", "mimetypes", "places", "status"]
OTHER_NAMES = {"mimes": "mimetypes"}
SIZE = 32


def icons(folder):
    """(class, name, file) of each icon, of the size itself or the least that is larger."""
    best = {}
    for path in sorted(folder.rglob("*.png")):
        if path.is_symlink():
            continue
        kinds = [OTHER_NAMES.get(part, part) for part in path.parts]
        kind = [part for part in kinds if part in CLASSES]
        size = [int(match[1]) for part in path.parts if (match := re.fullmatch(r"(\d+)(x\1)?", part))]
        if len(kind) != 1 or len(size) != 1 or size[0] < SIZE:
            continue
        key = (kind[0], path.stem)
        if key not in best or size[0] < best[key][0]:
            best[key] = (size[0], path)
    for (kind, name), (_, path) in sorted(best.items()):
        yield kind, name, path


def picture(path):
    icon = Image.open(path).convert("RGBA")
    scale = SIZE / max(icon.size)
    icon = icon.resize([max(1, round(side * scale)) for side in icon.size], Image.BOX)
    result = Image.new("RGB", (SIZE, SIZE), "white")
    result.paste(icon, ((SIZE - icon.width) // 2, (SIZE - icon.height) // 2), icon)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/stridenet/debian")
    options = parser.parse_args()
    unpacked = debian.unpack(TRAIN + TEST, options.cache)
    shutil.rmtree(options.folder, ignore_errors=True)
    counts, twice, seen = collections.Counter(), 0, set()
    for part, packages in (("train", TRAIN), ("test", TEST)):
        for package in packages:
            for kind, name, path in icons(unpacked / package):
                icon = picture(path)
                if icon.tobytes() in seen:
                    twice += 1
                    continue
                seen.add(icon.tobytes())
                target = options.folder / part / kind
                target.mkdir(parents=True, exist_ok=True)
                icon.save(target / f"{package.removesuffix('-icon-theme')}-{name}.png")
                counts[part, kind] += 1
    for part in ("train", "test"):
        each = ", ".join(f"{kind} {counts[part, kind]}" for kind in CLASSES)
        print(f"{options.folder}/{part}: {sum(counts[part, kind] for kind in CLASSES)} pictures: {each}")
    print(f"left out: {twice} pictures that were there before")


if __name__ == "__main__":
    main()
