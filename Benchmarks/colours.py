#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Icons of Debian's themes by the theme that they are of, as a folder of pictures to train with.

    colours.py FOLDER [--cache CACHE]

Writes FOLDER/train/THEME/NAME.png and FOLDER/test/THEME/NAME.png: 32×32 in colour over white. Themes that
grew out of each other, as MATE's out of GNOME's, are one class. Icons whose names begin with the same
word, as those of all folders and of all batteries do, are all in the training or all in the test set,
whatever the theme; a fifth of these words, by their digests, are for the test. Pictures that are there
twice are left out the second time, and counted. Needs Pillow, and apt-get and dpkg-deb of Debian 12,
which install nothing: packages are downloaded, 110 MB, and unpacked in CACHE.
"""
import argparse
import collections
import hashlib
import re
import shutil
from pathlib import Path

from PIL import Image

import debian

THEMES = {
    "elementary": ["elementary-xfce-icon-theme"],
    "faenza": ["faenza-icon-theme", "obsidian-icon-theme"],
    "gnome": ["gnome-icon-theme", "mate-icon-theme"],
    "nuovext": ["lxde-icon-theme"],
    "oxygen": ["oxygen-icon-theme"],
    "tango": ["tango-icon-theme"],
}
SIZE = 32


def icons(folder):
    """(name, file) of each icon, of the size itself or the least that is larger."""
    best = {}
    for path in sorted(folder.rglob("*.png")):
        size = [int(match[1]) for part in path.parts if (match := re.fullmatch(r"(\d+)(x\1)?", part))]
        if path.is_symlink() or len(size) != 1 or size[0] < SIZE:
            continue
        if path.stem not in best or size[0] < best[path.stem][0]:
            best[path.stem] = (size[0], path)
    for name, (_, path) in sorted(best.items()):
        yield name, path


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
    unpacked = debian.unpack(sum(THEMES.values(), []), options.cache)
    shutil.rmtree(options.folder, ignore_errors=True)
    counts, twice, seen = collections.Counter(), 0, set()
    for theme, packages in THEMES.items():
        for package in packages:
            for name, path in icons(unpacked / package):
                icon = picture(path)
                if icon.tobytes() in seen:
                    twice += 1
                    continue
                seen.add(icon.tobytes())
                word = re.split("[^a-z]", name.lower(), maxsplit=1)[0]
                part = "test" if hashlib.sha256(word.encode()).digest()[0] % 5 == 0 else "train"
                target = options.folder / part / theme
                target.mkdir(parents=True, exist_ok=True)
                icon.save(target / f"{package.removesuffix('-icon-theme')}-{name}.png")
                counts[part, theme] += 1
    for part in ("train", "test"):
        each = ", ".join(f"{theme} {counts[part, theme]}" for theme in THEMES)
        print(f"{options.folder}/{part}: {sum(counts[part, theme] for theme in THEMES)} pictures: {each}")
    print(f"left out: {twice} pictures that were there before")


if __name__ == "__main__":
    main()
