"""The architecture as a picture: rooms on their floors, and an arrow for every import that no other arrow implies.

Rooms, floors and imports are counted in the files, by tests/helpers/house.py. ``make docs`` writes it.
"""

import ast
import itertools
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from house import PACKAGES, floors, imports, modules, rooms

ENVS = "maml_envs"
WIDTH, COLUMNS, PITCH, BOX, HIGH, EDGE, APART = 960, 3, 146, 276, 94, 6, 44
LETTERS = 38
"""Letters of a line of a box."""

INK, FILL, LINE = "#1d2733", "#dfe9f7", "#7d828b"
"""The boxes have colours of their own, and lines are grey: it reads on light and on dark."""

Rooms = Mapping[str, set[str]]
Point = tuple[float, float]


def house() -> dict[str, set[str]]:
    """Return the rooms of maml_rl, and maml_envs as one more, with those that each imports."""
    of = {room: set(others) for room, others in rooms("maml_rl").items() if room != "__main__"}
    of[ENVS] = set()
    for name, path in modules("maml_rl").items():
        if any(imported.split(".")[0] == ENVS for imported in imports(path)):
            of[name.split(".")[1]].add(ENVS)
    return of


def essential(of: Rooms) -> dict[str, set[str]]:
    """Leave out the arrows that follow from others: what an imported room imports itself."""

    def below(room: str) -> set[str]:
        return of[room].union(*(below(other) for other in of[room]))

    return {
        room: {other for other in others if not any(other in below(one) for one in others - {other})}
        for room, others in of.items()
    }


def _summary(room: str) -> str:
    top = PACKAGES[room] if room in PACKAGES else PACKAGES["maml_rl"] / room
    file = top / "__init__.py" if top.is_dir() else top.with_suffix(".py")
    first = (ast.get_docstring(ast.parse(file.read_text())) or "").splitlines()[0]
    return re.split(r"\.(?= [A-Z]|$)", first)[0]


def _label(room: str) -> str:
    if room == "__init__":
        return "maml_rl"
    return room if room == ENVS or (Path(PACKAGES["maml_rl"]) / room).is_dir() else f"{room}.py"


def _faults(places: Mapping[str, Point], arrows: Sequence[tuple[str, str]]) -> float:
    """Count crossings of arrows, and boxes that they go through, which are worse; a long way is a fault too."""
    faults = 0.0
    for (a, b), (c, d) in itertools.combinations(arrows, 2):
        if places[a][1] == places[c][1] and places[b][1] == places[d][1]:
            faults += (places[a][0] - places[c][0]) * (places[b][0] - places[d][0]) < 0
    for a, b in arrows:
        (x, y), (u, v) = places[a], places[b]
        faults += abs(x - u) / WIDTH
        for s, t in places.values():
            edges = (t - HIGH / 2, t, t + HIGH / 2)
            faults += 2 * sum(y < t < v and abs(x + (u - x) * (at - y) / (v - y) - s) < BOX / 2 for at in edges)
    return faults


def arranged(of: Rooms) -> dict[str, Point]:
    """Place the rooms on their floors, floor by floor where the faults are fewest, until nothing can be moved."""
    levels, arrows = floors(dict(of)), [(room, other) for room in sorted(of) for other in sorted(of[room])]
    top = max(levels.values())
    storeys = [sorted(room for room in of if levels[room] == level) for level in range(1, top + 1)]
    columns = [(column + 0.5) * WIDTH / COLUMNS for column in range(COLUMNS)]
    height = {room: EDGE + HIGH / 2 + (top - levels[room]) * PITCH for room in of}
    places = {room: (columns[column], height[room]) for storey in storeys for column, room in enumerate(storey)}
    places[ENVS] = (WIDTH / 2, height[ENVS])
    before: dict[str, Point] = {}
    while before != places:
        before = dict(places)
        for storey in storeys[1:]:
            tried = [
                places | {room: (x, height[room]) for room, x in zip(storey, chosen, strict=True)}
                for chosen in itertools.permutations(columns, len(storey))
            ]
            places = min(tried, key=lambda each: _faults(each, arrows))
    return places


def _box(room: str, place: Point) -> Iterator[str]:
    x, y = place
    wide = WIDTH - 2 * EDGE if room == ENVS else BOX
    yield (
        f'<rect x="{x - wide / 2:.0f}" y="{y - HIGH / 2:.0f}" width="{wide}" height="{HIGH}" rx="10" fill="{FILL}" '
        f'stroke="{LINE}"/>'
    )
    lines = textwrap.wrap(_summary(room), LETTERS * 3 if room == ENVS else LETTERS)
    top = y - 9 * len(lines)
    yield f'<text x="{x:.0f}" y="{top + 4:.0f}" font-weight="600" font-size="17">{escape(_label(room))}</text>'
    for number, line in enumerate(lines, start=1):
        yield f'<text x="{x:.0f}" y="{top + 5 + 18 * number:.0f}" font-size="13">{escape(line)}</text>'


def _arrows(of: Rooms, places: Mapping[str, Point]) -> Iterator[str]:
    """Yield the arrows; those that leave a box, or reach it, do so side by side."""
    arrows = [(room, other) for room in sorted(of) for other in sorted(of[room])]
    for a, b in arrows:
        (x, y), (u, v) = places[a], places[b]
        leaving = sorted((places[other][0], other) for room, other in arrows if room == a)
        reaching = sorted((places[room][0], room) for room, other in arrows if other == b)
        x += APART * (leaving.index((u, b)) - (len(leaving) - 1) / 2)
        u = x if b == ENVS else u + APART * (reaching.index((places[a][0], a)) - (len(reaching) - 1) / 2)
        yield (
            f'<line x1="{x:.0f}" y1="{y + HIGH / 2:.0f}" x2="{u:.0f}" y2="{v - HIGH / 2 - 8:.0f}" stroke="{LINE}" '
            'stroke-width="1.6" marker-end="url(#tip)"/>'
        )


def picture() -> str:
    """Return the picture, as SVG."""
    of = essential(house())
    places = arranged(of)
    height = max(y for _, y in places.values()) + HIGH / 2 + EDGE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" '
        f'height="{height:.0f}" font-family="system-ui, sans-serif" text-anchor="middle" fill="{INK}">',
        "<title>The folders of maml_rl, and which imports which</title>",
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="2" refY="5" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0 0 L10 5 L0 10 z" fill="{LINE}"/></marker></defs>',
        *_arrows(of, places),
        *(line for room in sorted(places) for line in _box(room, places[room])),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"
