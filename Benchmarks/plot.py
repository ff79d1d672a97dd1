#!/usr/bin/env python3
"""The ratios of bench_peers.py as bars (SVG): plot.py RESULTS.json >FILE

For each row the fastest PyTorch and the fastest of all, as peer / ours on a logarithmic axis
from 1; a thin line goes from the least pair to the greatest. Above them the ratios to PyTorch in
training over the work that an image is.
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
.torch.bf16,.curve.bf16{fill:none;stroke:var(--other)}.curve{fill:none;stroke:var(--torch)}
.grid{stroke:var(--faint)}.one{stroke:var(--ink);stroke-width:1.5}.spread{stroke:var(--ink)}
"""


def heading(row):
    batch = "one at a time" if row["one_at_a_time"] else "mini-batches"
    kind = "Training" if row["mode"] == "train" else f"Inference, {batch}"
    return f"{kind}, {row['precision']}"


def bars(row):
    names = dict.fromkeys(n for n in (row["fastest_torch"], row["fastest"]) if n)
    return [(name, row["ratios"][name]) for name in names]


class Drawing:
    def __init__(self):
        self.parts = []

    def line(self, kind, x1, y1, x2, y2):
        self.parts.append(f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" '
                          f'y2="{y2:.1f}"/>')

    def text(self, x, y, content, kind=""):
        self.parts.append(f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(content)}</text>')

    def box(self, kind, x, y, width, height):
        self.parts.append(f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" '
                          f'height="{height:.1f}"/>')


def log_axis(values, start, end):
    """The place of a value between start and end, and where its ticks are."""
    low, high = min(values) / 1.1, max(values) * 1.1
    ticks = [m * 10.0**e for e in range(-3, 6) for m in (1, 2, 5)]
    return (lambda value: start + (end - start) * math.log(value / low) / math.log(high / low),
            [tick for tick in ticks if low <= tick <= high])


def draw_sizes(drawing, rows, top):
    """The ratio to the fastest PyTorch in training over an image's work; where it ends below."""
    rows = [row for row in rows
            if row["mode"] == "train" and row["fastest_torch"] and row.get("work")]
    if len({row["model"] for row in rows}) < 3:
        return top
    pairs = {id(row): row["ratios"][row["fastest_torch"]] for row in rows}
    left, right, above, below = 60, WIDTH - 40, top + 54, top + 264
    x, across = log_axis([row["work"] for row in rows], left, right)
    y, up = log_axis([1, *(r for ratios in pairs.values() for r in ratios)], below, above)
    drawing.text(10, top + 14, "Training: time of the fastest PyTorch / time of StrideNet, "
                 "by the work that an image is", "head")
    for tick in up:
        drawing.line("one" if tick == 1 else "grid", left, y(tick), right, y(tick))
        drawing.text(left - 8, y(tick) + 4, f"{tick:g}", "end")
    for tick in across:
        if math.log10(tick) == round(math.log10(tick)):
            drawing.line("grid", x(tick), above, x(tick), below)
            drawing.text(x(tick), below + 15, f"{tick:g}", "middle")
    drawing.text(right, below + 32, "million multiply-adds for the answer", "end")
    for number, precision in enumerate(sorted({row["precision"] for row in rows}, reverse=True)):
        kind = "bf16" if precision == "bf16" else ""
        series = sorted((row for row in rows if row["precision"] == precision),
                        key=lambda row: row["work"])
        points = [(x(row["work"]), y(statistics.median(pairs[id(row)]))) for row in series]
        last = -60
        drawing.line(f"curve {kind}", 10 + 110 * number, top + 32, 32 + 110 * number, top + 32)
        drawing.text(38 + 110 * number, top + 36, precision)
        drawing.parts.append(f'<polyline class="curve {kind}" points="'
                             + " ".join(f"{a:.1f},{b:.1f}" for a, b in points) + '"/>')
        for row, (a, b) in zip(series, points):
            drawing.line(f"curve {kind}", a, y(min(pairs[id(row)])), a, y(max(pairs[id(row)])))
            drawing.parts.append(f'<circle class="torch {kind}" cx="{a:.1f}" cy="{b:.1f}" r="3.5"/>')
            if number == 0:                # where names would meet, every other one goes below
                place, last = ((y(min(pairs[id(row)])) + 16, -60) if a - last < 48
                               else (y(max(pairs[id(row)])) - 6, a))
                drawing.text(a, place, row["model"], "middle head")
    return below + 52


def draw_bars(drawing, rows, top):
    """A bar for each row and fastest peer; where it ends below."""
    every = [r for row in rows for _, ratios in bars(row) for r in ratios]
    x, ticks = log_axis([0.9, 1.1, *every], LEFT, RIGHT)
    grid, body, y, head = drawing, Drawing(), top + 64, None
    for row in rows:
        if heading(row) != head:
            head, y = heading(row), y + 24
            body.text(10, y - 6, head, "head")
        for number, (name, ratios) in enumerate(bars(row)):
            median = statistics.median(ratios)
            if number == 0:
                body.text(LEFT - 8, y + 12, row["model"], "end")
            body.box("torch" if name.startswith("torch") else "other", min(x(1), x(median)), y + 2,
                     abs(x(median) - x(1)), BAR - 3)
            body.line("spread", x(min(ratios)), y + 8, x(max(ratios)), y + 8)
            body.text(RIGHT + 8, y + 12, f"{median:.2f} {name.replace('-bf16', '')}")
            y += BAR
        y += 4
    for tick in ticks:
        grid.line("one" if tick == 1 else "grid", x(tick), top + 64, x(tick), y)
        grid.text(x(tick), y + 15, f"{tick:g}", "middle")
    grid.parts += body.parts
    grid.text(10, top + 20, "Time of the fastest peers / time of StrideNet", "head")
    grid.text(10, top + 38,
              "Right of 1 StrideNet is faster. Thin lines: from the least to the greatest pair.")
    for place, kind, title in ((10, "torch", "PyTorch"), (100, "other", "another, faster still")):
        grid.box(kind, place, top + 48, 11, 11)
        grid.text(place + 16, top + 58, title)
    return y + 24


def draw(rows):
    order = list(dict.fromkeys(map(heading, rows)))
    rows = sorted((row for row in rows if bars(row)), key=lambda row: order.index(heading(row)))
    drawing = Drawing()
    end = draw_bars(drawing, rows, draw_sizes(drawing, rows, 6))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {end:.0f}" '
            f'width="{WIDTH}" height="{end:.0f}">\n<style>{STYLE}</style>\n'
            f'<rect class="paper" width="{WIDTH}" height="{end:.0f}"/>\n'
            + "\n".join(drawing.parts) + "\n</svg>\n")


if __name__ == "__main__":
    print(draw(json.loads(Path(sys.argv[1]).read_text())["rows"]), end="")
