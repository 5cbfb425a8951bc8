#!/usr/bin/env python3
"""Draws docs/growth.svg from benches/data/growth.csv (standard library only).

    benches/plot.py            # writes it
    benches/plot.py --check    # fails if it is not what the data say
"""
import csv
import math
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
DATA, PICTURE = os.path.join(HERE, "data", "growth.csv"), os.path.join(HERE, "..", "docs", "growth.svg")
WIDTH, HEIGHT, LEFT, TOP, GAP = 330, 200, 60, 46, 100
COLOURS = ["#1b6ca8", "#b5561d"]

# Series, title, name of the axis, metrics with their names, divisor of the values.
PANELS = [
    ("sessions", "CPU of a message, µs", "idle sessions", [("cpu_us_per_message_window_16", "16 in flight"), ("cpu_us_per_message_window_1", "1 in flight")], 1),
    ("sessions", "Server's memory (PSS), MB", "idle sessions", [("pss_kib_after", "plain")], 1000 / 1.024),
    ("stored", "CPU of a stored message, µs", "messages stored", [("cpu_us_per_message_of_50_pairs_16_in_flight", "50 pairs, 16 in flight"), ("cpu_us_per_message_of_50_pairs_1_in_flight", "50 pairs, 1 in flight")], 1),
    ("stored", "Written per stored message, KB", "messages stored", [("written_bytes_per_message_of_50_pairs_16_in_flight", "50 pairs, 16 in flight"), ("written_bytes_per_message_of_50_pairs_1_in_flight", "50 pairs, 1 in flight")], 1000),
]


def short(number):
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:g}{letter}"
    return f"{number:g}"


def ceiling(value):
    """The next of 1, 2, 5, 10, …"""
    power = 10 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value)


def text(x, y, words, anchor="middle", size=11, colour="#333"):
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}">{words}</text>'


def panel(rows, index, series, title, axis, metrics, divisor):
    left = LEFT + index % 2 * (WIDTH + GAP)
    top = TOP + index // 2 * (HEIGHT + GAP)
    lines = [
        [(int(row["count"]), float(row["value"]) / divisor) for row in rows if row["series"] == series and row["metric"] == metric]
        for metric, _ in metrics
    ]
    counts = sorted({count for line in lines for count, _ in line})
    most = ceiling(max(value for line in lines for _, value in line))
    low, high = math.log10(counts[0]), math.log10(counts[-1])
    place = lambda count, value: (left + WIDTH * (math.log10(count) - low) / (high - low), top + HEIGHT * (1 - value / most))
    yield text(left, top - 26, title, "start", 13)
    for share in range(5):
        y = top + HEIGHT * share / 4
        yield f'<line x1="{left}" y1="{y:.1f}" x2="{left + WIDTH}" y2="{y:.1f}" stroke="#ddd"/>'
        yield text(left - 6, y + 4, f"{most * (4 - share) / 4:g}", "end")
    for count in counts:
        yield text(place(count, 0)[0], top + HEIGHT + 16, short(count))
    yield text(left + WIDTH / 2, top + HEIGHT + 34, axis)
    for number, ((_, name), line, colour) in enumerate(zip(metrics, lines, COLOURS)):
        points = [place(*point) for point in line]
        yield f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'
        yield from (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points)
        yield text(left + 150 * number, top - 9, name, "start", 11, colour)


def draw():
    with open(DATA) as file:
        rows = list(csv.DictReader(file))
    width, height = LEFT + 2 * WIDTH + GAP + 30, TOP + 2 * HEIGHT + GAP + 50
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">'
    yield f'<rect width="{width}" height="{height}" fill="#fff"/>'
    for index, what in enumerate(PANELS):
        yield from panel(rows, index, *what)
    yield "</svg>"


picture = "\n".join(draw()) + "\n"
if sys.argv[1:] == ["--check"]:
    with open(PICTURE) as file:
        sys.exit(0 if file.read() == picture else "docs/growth.svg is not what benches/data/growth.csv says; run benches/plot.py")
with open(PICTURE, "w") as file:
    file.write(picture)
