#!/usr/bin/env python3
"""Draws architecture.svg from architecture.txt, which lies beside it and explains its lines.

    docs/picture.py            writes the picture
    docs/picture.py --check    says whether it is up to date; exit code 1 if not

Needs nothing but Python. The same text gives the same bytes. A text that would not fit where it stands is an error, so that
nobody has to look for it. The SVG carries both colour schemes, and its own background: it can stand on any page.
"""

import pathlib
import shlex
import sys
from xml.sax.saxutils import escape

HERE = pathlib.Path(__file__).resolve().parent
SOURCE = HERE / "architecture.txt"
PICTURE = HERE / "architecture.svg"

WIDTH = 1320
# Left edge and width of each zone's column.
COLUMNS = {"clients": (20, 206), "net": (250, 262), "core": (546, 470), "store": (1044, 256)}
ZONES_TOP = 118
BOXES_TOP = ZONES_TOP + 68
BOX_HEIGHT = 54
ROW_HEIGHT = 76
ROWS = 5
BOX_MARGIN = 16
STEP_HEIGHT = 45
PANEL_HEAD = 100
PANEL_GAP = 18

# Colours by scheme. A path's colour has 4.5:1 against the background and the zones.
SCHEMES = {
    "light": {
        "page": "#fdfcfa", "ink": "#1d2329", "soft": "#59636e", "line": "#8a949e", "box": "#ffffff", "edge": "#c3cad1",
        "clients": "#f1efe9", "net": "#e8f0f9", "core": "#fcefdf", "store": "#e7f3ea",
        "login": "#1f5fbf", "contact": "#18794e", "message": "#b4430c",
    },
    "dark": {
        "page": "#14171b", "ink": "#e8eaed", "soft": "#a3adb8", "line": "#7d8894", "box": "#1f242a", "edge": "#464f59",
        "clients": "#1b1e22", "net": "#17212d", "core": "#2a2118", "store": "#17251c",
        "login": "#7db1ff", "contact": "#5fcf98", "message": "#ff9d6b",
    },
}
PATHS = ("login", "contact", "message")

# Widths of characters in thousandths of the font size: those of wide common fonts, so that narrower ones leave air.
NARROW = dict.fromkeys("ijl|.,:;'!()[]/ I", 340) | dict.fromkeys("ftr-\"", 420)
WIDE = dict.fromkeys("mwMW", 960) | dict.fromkeys("ABCDEFGHJKLNOPQRSTUVXYZ_<>=&@", 730)


class Problem(Exception):
    """What is wrong with the text."""


def text_width(text, size, strong=False):
    widths = NARROW | WIDE
    return sum(widths.get(letter, 600) for letter in text) * size / 1000 * (1.13 if strong else 1)


class Picture:
    """SVG elements in the order of drawing."""

    def __init__(self):
        self.parts = []

    def rect(self, kind, x, y, width, height, radius):
        self.parts.append(f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius}"/>')

    def text(self, kind, x, y, text, size, room):
        needed = text_width(text, size, "strong" in kind)
        if needed > room:
            raise Problem(f"{text!r} needs {needed:.0f} of {room:.0f}")
        self.parts.append(f'<text class="{kind}" x="{x:g}" y="{y:g}" font-size="{size}">{escape(text)}</text>')

    def line(self, kind, *points):
        path = "M" + "L".join(f"{x:g} {y:g}" for x, y in points)
        self.parts.append(f'<path class="{kind}" d="{path}"/>')

    def head(self, kind, x, y, way):
        """An arrowhead with its tip at x, y; `way` is where it points."""
        dx, dy = {"right": (-1, 0), "left": (1, 0), "down": (0, -1), "up": (0, 1)}[way]
        base = [(x + 9 * dx + 4.5 * side * dy, y + 9 * dy + 4.5 * side * dx) for side in (1, -1)]
        points = " ".join(f"{a:g},{b:g}" for a, b in [(x, y), *base])
        self.parts.append(f'<polygon class="{kind}" points="{points}"/>')

    def circle(self, kind, x, y, radius):
        self.parts.append(f'<circle class="{kind}" cx="{x:g}" cy="{y:g}" r="{radius:g}"/>')


def style():
    """One rule for each colour and scheme; no variables, which not every viewer knows."""

    def rules(colours):
        flat = {
            ".page": f"fill:{colours['page']};stroke:{colours['edge']}",
            ".box": f"fill:{colours['box']};stroke:{colours['edge']}",
            ".ink": f"fill:{colours['ink']}",
            ".soft": f"fill:{colours['soft']}",
            ".flow": f"stroke:{colours['line']}",
            ".tip": f"fill:{colours['line']}",
            ".life": f"stroke:{colours['edge']}",
            ".badge": f"fill:{colours['page']}",
        }
        flat |= {f".z-{zone}": f"fill:{colours[zone]}" for zone in COLUMNS}
        flat |= {f".f-{path}": f"fill:{colours[path]}" for path in PATHS}
        flat |= {f".s-{path}": f"stroke:{colours[path]}" for path in PATHS}
        return "".join(f"{name}{{{rule}}}" for name, rule in flat.items())

    common = (
        "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans','DejaVu Sans',sans-serif}"
        ".mid{text-anchor:middle}.strong{font-weight:600}.flow,.step{fill:none;stroke-width:1.6}.life{stroke-dasharray:2 4}"
        ".step{stroke-width:1.8}.pill{stroke-width:1.6}"
    )
    dark = rules(SCHEMES["dark"])
    return f"<style>{common}{rules(SCHEMES['light'])}@media (prefers-color-scheme:dark){{{dark}}}</style>"


def read(source):
    """Lines of the text as lists of words, with the number of each."""
    for number, line in enumerate(source.splitlines(), 1):
        words = shlex.split(line, comments=False) if not line.startswith("#") else []
        if words:
            yield number, words


class Diagram:
    """The boxes and how they hang together, then the panels below."""

    def __init__(self):
        self.picture = Picture()
        self.boxes = {}
        self.zone = None
        self.names = {}
        self.path = None
        self.steps = 0
        self.problems = []
        self.bottom = BOXES_TOP + ROWS * ROW_HEIGHT

    def draw(self, number, words):
        kind, *rest = words
        drawers = {"heading": self.heading, "band": self.band, "zone": self.open_zone, "box": self.box, "arrow": self.arrow,
                   "path": self.open_path, "step": self.step, "note": self.note}
        try:
            drawers[kind](*rest)
        except (KeyError, TypeError, ValueError, Problem) as error:
            self.problems.append(f"{SOURCE.name}:{number}: {kind}: {error}")

    def heading(self, title, subtitle):
        self.picture.text("ink strong", 22, 48, title, 26, 160)
        self.picture.text("soft", 190, 47, subtitle, 15, 700)

    def band(self, first, last, text):
        left = COLUMNS[first][0]
        right = sum(COLUMNS[last])
        self.picture.text("ink mid strong", (left + right) / 2, ZONES_TOP - 27, text, 15, right - left)
        y = ZONES_TOP - 10
        self.picture.line("flow", (left, y + 6), (left, y), (right, y), (right, y + 6))

    def open_zone(self, name, title, subtitle):
        left, width = COLUMNS[name]
        self.zone = name
        self.names[name] = title.split()[0].rstrip(",/").lower()
        self.picture.rect(f"z-{name}", left, ZONES_TOP, width, BOXES_TOP + ROWS * ROW_HEIGHT - ZONES_TOP, 12)
        self.picture.text("ink mid strong", left + width / 2, ZONES_TOP + 27, title, 16, width - 12)
        self.picture.text("soft mid", left + width / 2, ZONES_TOP + 47, subtitle, 13, width - 12)

    def box(self, name, row, *texts):
        left, width = COLUMNS[self.zone]
        left, width = left + BOX_MARGIN, width - 2 * BOX_MARGIN
        side, title, subtitle = texts if len(texts) == 3 else (None, *texts)
        if side:
            width = (width - 42) / 2
            left += width + 42 if side == "right" else 0
        top = BOXES_TOP + (int(row) - 1) * ROW_HEIGHT
        self.boxes[name] = (left, top, width)
        self.picture.rect("box", left, top, width, BOX_HEIGHT, 8)
        self.picture.text("ink mid strong", left + width / 2, top + 23, title, 14, width - 6)
        self.picture.text("soft mid", left + width / 2, top + 42, subtitle, 12, width - 6)

    def arrow(self, first, sign, second, both=None):
        if sign != ">":
            raise Problem("FROM > TO")
        (x1, y1, w1), (x2, y2, w2) = self.boxes[first], self.boxes[second]
        half = BOX_HEIGHT / 2
        if x1 == x2:
            x = x1 + w1 / 2
            way, start, end = ("down", y1 + BOX_HEIGHT, y2) if y2 > y1 else ("up", y1, y2 + BOX_HEIGHT)
            points = [(x, start), (x, end)]
        else:
            way, start, end = ("right", x1 + w1, x2) if x2 > x1 else ("left", x1, x2 + w2)
            # What changes rows does so just before the box it goes to.
            bend = end - 30 if way == "right" else end + 30
            points = [(start, y1 + half), (end, y2 + half)]
            if y1 != y2:
                points[1:1] = [(bend, y1 + half), (bend, y2 + half)]
        self.picture.line("flow", *points)
        self.picture.head("tip", *points[-1], way)
        if both:
            self.picture.head("tip", *points[0], {"right": "left", "left": "right", "down": "up", "up": "down"}[way])

    def open_path(self, name, title, subtitle):
        if name not in PATHS:
            raise Problem(f"there is no colour for {name}")
        self.close_path()
        self.path, self.steps = name, 0
        top = self.bottom + PANEL_GAP
        self.panel = (top, len(self.picture.parts))
        self.picture.text(f"f-{name} strong", 38, top + 34, title, 20, 300)
        self.picture.text("soft", 54 + text_width(title, 20, strong=True), top + 33, subtitle, 15, 500)
        self.bottom = top + PANEL_HEAD

    def close_path(self):
        """Puts the columns and their middles behind the steps."""
        if not self.path:
            return
        top, behind = self.panel
        back = Picture()
        end = self.bottom - 14
        for zone, (left, width) in COLUMNS.items():
            back.rect(f"z-{zone}", left, top + 48, width, end - top - 48, 12)
            back.text("soft mid", left + width / 2, top + 66, self.names[zone], 12, width - 12)
            back.line("life", (self.middle(zone), top + 74), (self.middle(zone), end - 6))
        self.picture.parts[behind:behind] = back.parts
        self.bottom, self.path = end, None

    def middle(self, zone):
        left, width = COLUMNS[zone]
        return left + width / 2

    def step(self, *words):
        """zone > text > zone …"""
        places, texts = words[0::4], words[2::4]
        if len(places) != len(texts) + 1 or set(words[1::2]) != {">"}:
            raise Problem("a step is: ZONE > \"what\" > ZONE …")
        y, self.bottom, self.steps = self.bottom, self.bottom + STEP_HEIGHT, self.steps + 1
        client = {"Juliet", "Romeo"}
        at = [self.middle("clients" if place in client else place) for place in places]
        rightward = at[-1] > at[0]
        for index, text in enumerate(texts):
            # A name in the clients' column takes room on its side, the number at the start, the arrowhead at the end.
            first, last = [(42 if place in client else 16) for place in (places[index], places[index + 1])]
            sign = 1 if rightward else -1
            start, end = at[index] + sign * first, at[index + 1] - sign * last
            last_one = index == len(texts) - 1
            tip = end + sign * (0 if places[index + 1] in client else 12)
            from_x = start if index == 0 else at[index] + sign * 4
            self.picture.line(f"step s-{self.path}", (from_x, y), (tip - sign * 6, y))
            self.picture.head(f"f-{self.path}", tip, y, "right" if rightward else "left")
            if not last_one:
                self.picture.circle(f"f-{self.path}", at[index + 1], y, 4)
            self.picture.text("ink mid", (start + end) / 2, y - 8, text, 13, abs(end - start))
        for place, x in zip(places, at):
            if place in client:
                self.name(place, x, y)
        self.number(at[0] - (62 if places[0] in client else 0), y)

    def name(self, who, x, y):
        self.picture.rect(f"badge pill s-{self.path}", x - 36, y - 13, 72, 26, 13)
        self.picture.text("ink mid strong", x, y + 4.5, who, 13, 60)

    def number(self, x, y):
        self.picture.circle(f"f-{self.path}", x, y, 12)
        self.picture.parts.append(
            f'<text class="num mid strong" x="{x:g}" y="{y + 4.5:g}" font-size="13">{self.steps}</text>')

    def note(self, zone, text):
        left, width = COLUMNS[zone]
        y, self.bottom = self.bottom - 6, self.bottom + STEP_HEIGHT - 8
        self.picture.rect(f"badge pill s-{self.path}", left + 14, y - 14, width - 28, 28, 6)
        self.picture.text("ink mid", left + width / 2, y + 4.5, text, 13, width - 36)

    def svg(self):
        self.close_path()
        height = self.bottom + 22
        numbers = (f".num{{fill:{SCHEMES['light']['page']}}}"
                   f"@media (prefers-color-scheme:dark){{.num{{fill:{SCHEMES['dark']['page']}}}}}")
        head = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}" '
            'role="img" aria-labelledby="t">',
            '<title id="t">The parts of Whinchat, and the ways of a login, a contact request and a message through them</title>',
            style().replace("</style>", numbers + "</style>"),
            f'<rect class="page" x=".5" y=".5" width="{WIDTH - 1}" height="{height - 1:g}" rx="14"/>',
        ]
        return "\n".join([*head, *self.picture.parts, "</svg>", ""])


def main():
    diagram = Diagram()
    for number, words in read(SOURCE.read_text(encoding="utf-8")):
        diagram.draw(number, words)
    if diagram.problems:
        sys.exit("\n".join(diagram.problems))
    svg = diagram.svg()
    if sys.argv[1:] == ["--check"]:
        if not PICTURE.exists() or PICTURE.read_text(encoding="utf-8") != svg:
            sys.exit(f"{PICTURE.name} is not what {SOURCE.name} says; run docs/picture.py")
    elif sys.argv[1:]:
        sys.exit(__doc__)
    else:
        PICTURE.write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
