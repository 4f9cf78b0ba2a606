#!/usr/bin/env python3
"""Draws docs/performance/*.svg from the figures beside them (*.csv), and writes the tables of docs/PERFORMANCE.md anew, each
between the comments `<!-- table: NAME -->` and `<!-- end -->`.

    scripts/plot.py [--check]

Where there are no figures, table and plot say so. With --check changes nothing, and fails if something would change. Needs only Python 3.
"""

import csv
import math
import sys
from dataclasses import dataclass
from pathlib import Path

root = Path(__file__).resolve().parent.parent
figures = root / "docs/performance"
document = root / "docs/PERFORMANCE.md"
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 940, 400, 80, 300, 40, 60
# Distinguishable with colour blindness.
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#332288", "#882255", "#44aa99", "#666666"]


@dataclass
class Plot:
    """A figure: `variant,x,value` in its file. `x` and `y` name the axes, both logarithmic unless `linear`."""

    title: str
    x: str
    y: str
    x_is_bytes: bool = False
    linear: bool = False


PLOTS = {
    "size": Plot("get and cp by the size of the file", "bytes", "seconds", x_is_bytes=True),
    "count": Plot("get and cp -r by the number of files of 4 KiB", "files", "seconds"),
    "sources": Plot("get of 64 MiB by the number of sources of 25 MiB/s each", "sources", "seconds", linear=True),
    "peers": Plot("The server's CPU time for a heartbeat by the number of sessions", "sessions", "µs"),
    "memory": Plot("The server's memory for a session by their number", "sessions", "bytes"),
    "publications": Plot("Search by the number of published names", "published names", "µs"),
    "needle": Plot("Search among 1,000,000 names by the length of the needle", "bytes", "µs"),
    "start": Plot("Start of the server by the number of stored publications", "publications", "seconds"),
}


def read(name):
    """The points of each variant, in the order of the file."""
    series = {}
    path = figures / f"{name}.csv"
    if not path.exists():
        return series
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            series.setdefault(row["variant"], []).append((float(row["x"]), float(row["value"])))
    return {variant: sorted(points) for variant, points in series.items()}


def number(value):
    """Three digits, for people."""
    if value == 0 or value >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"


def size(value):
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            break
        value /= 1024
    else:
        unit = "GiB"
    return f"{value:g} {unit}"


def axis(values, linear):
    """Where the axis begins and ends, a function from a value to its place between 0 and 1, and the marks."""
    if linear:
        step = 10 ** math.floor(math.log10(max(values)))
        end = math.ceil(max(values) / step) * step
        step *= 1 if end / step > 2 else 0.5
        return lambda value: value / end, [step * at for at in range(round(end / step) + 1)]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high += low == high
    return lambda value: (math.log10(value) - low) / (high - low), [10.0**power for power in range(low, high + 1)]


def draw(plot, series):
    if not series:
        yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} 60" font-family="sans-serif" font-size="15">'
        yield f'<text x="{LEFT}" y="35">{plot.title}: not measured</text></svg>'
        return
    x_place, x_marks = axis([x for points in series.values() for x, _ in points], plot.linear)
    y_place, y_marks = axis([y for points in series.values() for _, y in points], plot.linear)
    if plot.x_is_bytes:
        powers = range(1, 50, 3)
        xs = [x for points in series.values() for x, _ in points]
        x_marks = [2.0**power for power in powers if min(xs) <= 2**power <= max(xs)]
    across = lambda x: LEFT + x_place(x) * (WIDTH - LEFT - RIGHT)
    up = lambda y: HEIGHT - BOTTOM - y_place(y) * (HEIGHT - TOP - BOTTOM)
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="13">'
    yield f"<title>{plot.title}</title>"
    yield f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
    yield f'<text x="{WIDTH / 2}" y="22" text-anchor="middle" font-size="15">{plot.title}</text>'
    for x in x_marks:
        label = size(x) if plot.x_is_bytes else f"{x:,.10g}"
        yield f'<path d="M{across(x):.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#ddd"/>'
        yield f'<text x="{across(x):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{label}</text>'
    for y in y_marks:
        yield f'<path d="M{LEFT} {up(y):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>'
        yield f'<text x="{LEFT - 6}" y="{up(y) + 4:.1f}" text-anchor="end">{y:,.10g}</text>'
    middle = (TOP + HEIGHT - BOTTOM) / 2
    yield f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 20}" text-anchor="middle">{plot.x}</text>'
    yield f'<text x="18" y="{middle}" text-anchor="middle" transform="rotate(-90 18 {middle})">{plot.y}</text>'
    for at, (variant, points) in enumerate(series.items()):
        colour = COLOURS[at % len(COLOURS)]
        line = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in points)
        yield f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>'
        yield from (f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="3" fill="{colour}"/>' for x, y in points)
        yield f'<rect x="{WIDTH - RIGHT + 16}" y="{TOP + 10 + 18 * at}" width="14" height="4" fill="{colour}"/>'
        yield f'<text x="{WIDTH - RIGHT + 36}" y="{TOP + 17 + 18 * at}">{variant}</text>'
    yield "</svg>"


def plot_table(plot, series):
    """A row for each x, a column for each variant."""
    yield f"| {plot.x} | " + " | ".join(f"{variant}, {plot.y}" for variant in series) + " |"
    yield "|---:|" + "---:|" * len(series)
    values = {variant: dict(points) for variant, points in series.items()}
    for x in sorted({x for points in series.values() for x, _ in points}):
        cells = (number(values[variant][x]) if x in values[variant] else "" for variant in series)
        yield f"| {size(x) if plot.x_is_bytes else f'{x:,.10g}'} | " + " | ".join(cells) + " |"


def plain_table(name):
    """The rows of the file as they are; numbers are aligned at the right."""
    with open(figures / f"{name}.csv", newline="") as file:
        head, *rows = csv.reader(file)
    is_number = lambda text: text.replace(".", "", 1).replace("-", "", 1).isdigit()
    yield f"| {' | '.join(head)} |"
    yield "|" + "".join("---:|" if any(is_number(row[at]) for row in rows) else "---|" for at in range(len(head)))
    for row in rows:
        yield f"| {' | '.join(row)} |"


def instructions_table():
    yield "| what | instructions |"
    yield "|---|---:|"
    for line in (root / "benches/instructions.tsv").read_text().splitlines():
        if not line.startswith("#"):
            name, count = line.split("\t")
            yield f"| {name} | {int(count):,} |"


def table(name):
    if name != "instructions" and not (figures / f"{name}.csv").exists():
        return ["Not measured."]
    if name == "instructions":
        return instructions_table()
    return plot_table(PLOTS[name], read(name)) if name in PLOTS else plain_table(name)


def fill_tables(text):
    """The document with its tables written anew."""
    lines, is_inside = [], False
    for line in text.splitlines():
        is_inside = is_inside and line != "<!-- end -->"
        if not is_inside:
            lines.append(line)
        if line.startswith("<!-- table: "):
            is_inside = True
            lines.extend(table(line.split()[2]))
    return "\n".join(lines) + "\n"


def main():
    wanted = {figures / f"{name}.svg": "\n".join(draw(plot, read(name))) + "\n" for name, plot in PLOTS.items()}
    wanted[document] = fill_tables(document.read_text())
    is_check = sys.argv[1:] == ["--check"]
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if is_check:
            print(f"{path.relative_to(root)} is not what scripts/plot.py makes", file=sys.stderr)
        else:
            path.write_text(wanted[path])
    return 1 if is_check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
