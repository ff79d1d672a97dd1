#!/usr/bin/env python3
"""The ratios of bench_peers.py as bars (SVG): plot.py RESULTS.json >FILE

For each row the fastest PyTorch and the fastest of all, as peer / ours on a logarithmic axis
from 1; a thin line goes from the least pair to the greatest.
"""
import json
import math
import statistics
import sys
from html import escape
from pathlib import Path

WIDTH, LEFT, RIGHT, BAR = 700, 86, 452, 15
STYLE = """
svg{--ink:#222;--faint:#ddd;--paper:#fff;--torch:#d55e00;--other:#0072b2}
@media(prefers-color-scheme:dark){
svg{--ink:#e6e6e6;--faint:#444;--paper:#181818;--torch:#e69f00;--other:#56b4e9}}
text{fill:var(--ink);font:12px DejaVu Sans,Verdana,sans-serif}
.head{font-weight:bold;paint-order:stroke;stroke:var(--paper);stroke-width:4px}
.end{text-anchor:end}.middle{text-anchor:middle}
.torch{fill:var(--torch)}.other{fill:var(--other)}.paper{fill:var(--paper)}
.grid{stroke:var(--faint)}.one{stroke:var(--ink);stroke-width:1.5}.spread{stroke:var(--ink)}
"""


def heading(row):
    batch = "one at a time" if row["one_at_a_time"] else "mini-batches"
    kind = "Training" if row["mode"] == "train" else f"Inference, {batch}"
    return f"{kind}, {row['precision']}"


def bars(row):
    names = dict.fromkeys(n for n in (row["fastest_torch"], row["fastest"]) if n)
    return [(name, row["ratios"][name]) for name in names]


def draw(rows):
    rows = [row for row in rows if bars(row)]
    every = [r for row in rows for _, ratios in bars(row) for r in ratios]
    low, high = min([0.9, *every]) / 1.1, max([1.1, *every]) * 1.1
    body, y = [], 64

    def x(ratio):
        return LEFT + (RIGHT - LEFT) * math.log(ratio / low) / math.log(high / low)

    def line(kind, x1, y1, x2, y2):
        body.append(f'<line class="{kind}" x1="{x1:.1f}" y1="{y1}" x2="{x2:.1f}" y2="{y2}"/>')

    def text(x, y, content, kind=""):
        body.append(f'<text class="{kind}" x="{x:.1f}" y="{y}">{escape(content)}</text>')

    def box(kind, x, y, width, height):
        body.append(f'<rect class="{kind}" x="{x:.1f}" y="{y}" width="{width:.1f}" '
                    f'height="{height}"/>')

    head = None
    for row in rows:
        if heading(row) != head:
            head, y = heading(row), y + 24
            text(10, y - 6, head, "head")
        for number, (name, ratios) in enumerate(bars(row)):
            median = statistics.median(ratios)
            if number == 0:
                text(LEFT - 8, y + 12, row["model"], "end")
            box("torch" if name.startswith("torch") else "other", min(x(1), x(median)), y + 2,
                abs(x(median) - x(1)), BAR - 3)
            line("spread", x(min(ratios)), y + 8, x(max(ratios)), y + 8)
            text(RIGHT + 8, y + 12, f"{median:.2f} {name.replace('-bf16', '')}")
            y += BAR
        y += 4
    marked, body = body, []
    ticks = [m * 10.0**e for e in range(-3, 4) for m in (1, 2, 5)]
    for tick in (t for t in ticks if low <= t <= high):
        line("one" if tick == 1 else "grid", x(tick), 64, x(tick), y)
        text(x(tick), y + 15, f"{tick:g}", "middle")
    body, grid = [], body
    box("paper", 0, 0, WIDTH, y + 24)
    text(10, 20, "Time of the fastest peers / time of StrideNet", "head")
    text(10, 38, "Right of 1 StrideNet is faster. Thin lines: from the least to the greatest pair.")
    for place, kind, title in ((10, "torch", "PyTorch"), (100, "other", "another, faster still")):
        box(kind, place, 48, 11, 11)
        text(place + 16, 58, title)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 24}" '
            f'width="{WIDTH}" height="{y + 24}">\n<style>{STYLE}</style>\n'
            + "\n".join(body + grid + marked) + "\n</svg>\n")


if __name__ == "__main__":
    print(draw(json.loads(Path(sys.argv[1]).read_text())["rows"]), end="")
