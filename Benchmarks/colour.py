#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Recipe `colour` beside PyTorch with the same network, settings and changes of images: test accuracies.

    colour.py PROGRAM FOLDER [--runs 3] [--epochs 30]

FOLDER is a data set of pictures of one size in train/CLASS and test/CLASS, as colours.py writes it. Both
sides train with so many seeds, which mean other things in each; printed are the accuracies, their
means, and the difference with its standard error. Needs torch, numpy and Pillow.
"""
import argparse
import json
import math
import statistics
import subprocess
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

BATCH, RATE = 64, 0.003


def load(folder):
    """Images (N,3,H,W) from 0 to 1, and labels."""
    images, labels = [], []
    for label, kind in enumerate(sorted(path for path in folder.iterdir() if path.is_dir())):
        for path in sorted(kind.iterdir()):
            images.append(np.asarray(Image.open(path).convert("RGB"), np.float32) / 255)
            labels.append(label)
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels)


def normed(inputs, filters, size, stride=1):
    return [nn.Conv2d(inputs, filters, size, stride, size // 2), nn.BatchNorm2d(filters)]


class Residual(nn.Module):
    def __init__(self, inputs, filters, stride):
        super().__init__()
        self.body = nn.Sequential(
            *normed(inputs, filters, 3, stride), nn.ReLU(), *normed(filters, filters, 3))
        self.shortcut = nn.Sequential(*normed(inputs, filters, 1, stride) if stride > 1 else [])

    def forward(self, x):
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet(classes):
    model = nn.Sequential(
        *normed(3, 16, 3), nn.ReLU(), Residual(16, 16, 1), Residual(16, 32, 2), Residual(32, 64, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    return model


def augmented(x, random):
    """crop=4,mirror,brightness=0.2,contrast=0.2,saturation=0.2,cutout=8 of images (N,3,H,W)."""
    n, _, h, w = x.shape

    def factors():
        return 1 + 0.2 * (2 * torch.rand((n, 1, 1, 1), generator=random) - 1)

    def grey(x):
        return (x * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)

    padded = F.pad(x, (4, 4, 4, 4))
    places = torch.randint(9, (n, 2), generator=random).tolist()
    x = torch.stack([padded[i, :, top:top + h, left:left + w] for i, (top, left) in enumerate(places)])
    mirrored = torch.rand(n, generator=random) < 0.5
    x[mirrored] = x[mirrored].flip(3)
    x = (x * factors()).clamp(0, 1)
    factor = factors()
    x = (x * factor + grey(x).mean((2, 3), keepdim=True) * (1 - factor)).clamp(0, 1)
    factor = factors()
    x = (x * factor + grey(x) * (1 - factor)).clamp(0, 1)
    rows = torch.randint(h, (n, 1, 1, 1), generator=random) - 4
    columns = torch.randint(w, (n, 1, 1, 1), generator=random) - 4
    row, column = torch.arange(h).view(1, 1, h, 1), torch.arange(w).view(1, 1, 1, w)
    covered = (row >= rows) & (row < rows + 8) & (column >= columns) & (column < columns + 8)
    return x.masked_fill(covered, 0)


def train(seed, epochs, images, labels, test_images, test_labels):
    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    model = resnet(int(labels.max()) + 1)
    weights = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": weights}, {"params": others, "weight_decay": 0}], lr=RATE, weight_decay=0.01)
    steps = math.ceil(len(images) / BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, RATE, total_steps=epochs * steps, cycle_momentum=False)
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)
    for _ in range(epochs):
        model.train()
        for batch in torch.randperm(len(images), generator=random).split(BATCH):
            optimizer.zero_grad()
            loss(model(augmented(images[batch], random)), labels[batch]).backward()
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.no_grad():
        guesses = torch.cat([model(part).argmax(1) for part in test_images.split(256)])
    return float((guesses == test_labels).float().mean())


def accuracy(options, seed):
    """That of the recipe."""
    out = subprocess.run(
        [options.program, "train", "--recipe", "colour", "--data", str(options.folder), "--seed",
         str(seed), "--epochs", str(options.epochs), "--json"],
        check=True, capture_output=True, text=True).stdout
    return 1 - [row for row in map(json.loads, out.splitlines()) if row["event"] == "epoch"][-1]["test_ce"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("program")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30)
    options = parser.parse_args()
    torch.set_num_threads(2)
    seeds = range(1, options.runs + 1)
    ours = [accuracy(options, seed) for seed in seeds]
    data = [*load(options.folder / "train"), *load(options.folder / "test")]
    theirs = [train(seed, options.epochs, *data) for seed in seeds]
    for name, accuracies in (("StrideNet", ours), ("PyTorch", theirs)):
        each = ", ".join(f"{100 * accuracy:.2f}" for accuracy in accuracies)
        print(f"{name:9} {100 * statistics.mean(accuracies):.2f} % of {each}")
    error = math.sqrt(sum(statistics.variance(a) / len(a) for a in (ours, theirs)))
    print(f"difference {100 * (statistics.mean(ours) - statistics.mean(theirs)):+.2f} ± {100 * error:.2f} "
          "points (standard error)")


if __name__ == "__main__":
    main()
