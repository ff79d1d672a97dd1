#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The letters A to J in some hundred fonts of Debian's packages, as a folder of pictures to train with.

    letters.py FOLDER [--cache CACHE]

Writes FOLDER/train/A/NAME.png … FOLDER/test/J/NAME.png: 28×28, white on black, as large as fits 24×24.
A font stands in the training or the test set with all its letters, and so do all fonts whose names
begin with the same word, as those of a family do; a fifth of these words, by their digests, are for
the test. Fonts that lack a letter, and test pictures that are in the training set as well, are left
out and counted. Needs Pillow, and apt-get and dpkg-deb of Debian 12, which install nothing: packages
are downloaded, 90 MB, and unpacked in CACHE.
"""
import argparse
import collections
import hashlib
import shutil
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import debian

# Of fonts that copy each other, as Arimo and Liberation do, one.
PACKAGES = """
fonts-3270 fonts-adf-accanthis fonts-adf-baskervald fonts-adf-berenis fonts-adf-gillius
fonts-adf-ikarius fonts-adf-irianis fonts-adf-libris fonts-adf-mekanus fonts-adf-oldania
fonts-adf-romande fonts-adf-solothurn fonts-adf-switzera fonts-adf-tribun fonts-adf-universalis
fonts-adf-verana fonts-aenigma fonts-averia-sans-gwf fonts-averia-serif-gwf fonts-b612
fonts-bebas-neue fonts-beteckna fonts-breip fonts-cabin fonts-cantarell fonts-century-catalogue
fonts-clear-sans fonts-cmu fonts-comfortaa fonts-comic-neue fonts-courier-prime
fonts-crosextra-caladea fonts-crosextra-carlito fonts-dancingscript fonts-dejavu-core
fonts-dejavu-extra fonts-dkg-handwriting fonts-dosis fonts-dustin fonts-ebgaramond
fonts-ecolier-court fonts-essays1743 fonts-eurofurence fonts-fantasque-sans fonts-fanwood
fonts-femkeklaver fonts-georgewilliams fonts-gfs-artemisia fonts-gfs-didot fonts-gfs-neohellenic
fonts-go fonts-goudybookletter fonts-hack-ttf fonts-humor-sans fonts-inconsolata fonts-isabella
fonts-jetbrains-mono fonts-joscelyn fonts-junction fonts-junicode fonts-jura fonts-karla
fonts-kaushanscript fonts-kristi fonts-lato fonts-league-spartan fonts-leckerli-one
fonts-levien-museum fonts-liberation2 fonts-lindenhill fonts-linuxlibertine fonts-lobster
fonts-lobstertwo fonts-manrope fonts-millimetre fonts-monofur fonts-mononoki fonts-national-park
fonts-ocr-a fonts-ocr-b fonts-okolaks fonts-oldstandard fonts-open-sans fonts-opendin
fonts-opendyslexic fonts-osifont fonts-paratype fonts-play fonts-prociono fonts-quattrocento
fonts-quicksand fonts-radisnoir fonts-roadgeek fonts-rufscript fonts-sil-andika fonts-sil-charis
fonts-sil-gentium fonts-sjfonts fonts-solide-mirage fonts-sora fonts-summersby fonts-texgyre
fonts-tiresias fonts-tlwg-garuda-ttf fonts-tlwg-kinnari-ttf fonts-tlwg-loma-ttf fonts-tlwg-norasi-ttf
fonts-tlwg-purisa-ttf fonts-tlwg-sawasdee-ttf fonts-tlwg-typewriter-ttf fonts-tlwg-umpush-ttf
fonts-tomsontalks fonts-train fonts-tuffy fonts-ubuntu-title fonts-vollkorn fonts-yanone-kaffeesatz
""".split()
LETTERS = "ABCDEFGHIJ"
SIZE, INK = 28, 24


def draw(font, letter):
    """The letter as a picture, or None where there is no ink."""
    left, top, right, bottom = font.getbbox(letter)
    if right - left < 4 or bottom - top < 4 or max(right - left, bottom - top) > 1000:
        return None
    large = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(large).text((-left, -top), letter, font=font, fill=255)
    box = large.getbbox()
    if box is None:
        return None
    large = large.crop(box)
    scale = INK / max(large.size)
    small = large.resize([max(1, round(side * scale)) for side in large.size], Image.BOX)
    picture = Image.new("L", (SIZE, SIZE))
    picture.paste(small, ((SIZE - small.width) // 2, (SIZE - small.height) // 2))
    return picture


def fonts(folder, seen):
    """(first word of the family's name, name, letters) of each font that has them all and isn't seen."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in (".ttf", ".otf", ".pfb") or path.is_symlink():
            continue
        try:
            font = ImageFont.truetype(path, 96)
            pictures = [draw(font, letter) for letter in LETTERS]
        except OSError:
            yield None
            continue
        # A font without a letter draws the same box for all that it lacks.
        if None in pictures or len({picture.tobytes() for picture in pictures}) < len(LETTERS):
            yield None
            continue
        family, style = font.getname()
        name = "-".join("".join(c if c.isalnum() else " " for c in f"{family} {style}").split())
        if not name or name in seen:
            continue
        seen.add(name)
        yield name.split("-")[0].lower(), name, pictures


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/stridenet/debian")
    options = parser.parse_args()
    unpacked = debian.unpack(PACKAGES, options.cache)
    left_out, words, names = 0, collections.defaultdict(list), set()
    for package in PACKAGES:
        for font in fonts(unpacked / package, names):
            if font is None:
                left_out += 1
            else:
                words[font[0]].append(font[1:])
    shutil.rmtree(options.folder, ignore_errors=True)
    counts, twice, digests = collections.Counter(), 0, set()
    sets = {word: "test" if hashlib.sha256(word.encode()).digest()[0] % 5 == 0 else "train"
            for word in words}
    for word in sorted(words, key=lambda word: (sets[word] == "test", word)):
        for name, pictures in words[word]:
            for letter, picture in zip(LETTERS, pictures):
                if sets[word] == "train":
                    digests.add(picture.tobytes())
                elif picture.tobytes() in digests:
                    twice += 1
                    continue
                target = options.folder / sets[word] / letter
                target.mkdir(parents=True, exist_ok=True)
                picture.save(target / f"{name}.png")
                counts[sets[word]] += 1
        counts[sets[word] + " words"] += 1
    print(f"{options.folder}: {counts['train']} training pictures of {counts['train words']} families, "
          f"{counts['test']} test pictures of {counts['test words']}; left out: {left_out} fonts without "
          f"all letters, {twice} test pictures that are training pictures")


if __name__ == "__main__":
    main()
