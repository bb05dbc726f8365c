"""The frames of a video of adaptation, drawn with Pillow: a grid of panels, a row for each task."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from maml_rl.pictures.style import BLUE, GREY, ORANGE

Floats = NDArray[np.float64]
Box = tuple[int, int]

WIDTH, HEIGHT = 320, 240  # pixels of a picture
MAP, INSET, STRIP = 300, 96, 46  # pixels: side of a map, of a map on a picture; height of a strip
MARGIN, LINE = 8, 19  # pixels
ROOM = 1.25
"""How much larger a map is than what it shows: a star at the edge is whole."""

FINE = 3
"""Lines are drawn so many times as large and made small again: Pillow's own have steps."""

INK, PALE, WHITE, TRAIL = "#000000", "#E6E6E6", "#FFFFFF", "#7FB8D8"
FONT = ImageFont.load_default(size=14)
SMALL = ImageFont.load_default(size=11)


class Panel(NamedTuple):
    """Contents of one panel in one frame."""

    task: str  # in words
    after: str  # "before adaptation", "after 1 step" ...
    step: str
    value: str  # the return so far
    ended: bool  # the picture is dimmed
    picture: NDArray[np.uint8] | None  # (height, width, 3)
    paths: Floats | None  # (episodes, steps so far + 1, 1 or 2), NaN after an episode's end
    goal: Floats | None  # (1 or 2,)


def limits_of(places: ArrayLike, goals: ArrayLike | None) -> Floats:
    """(2, 1 or 2): lowest and highest coordinates of all panels, with some room; of a plane, a square.

    Args:
        places: (..., 1 or 2), NaN where there is none.
        goals: (tasks, 1 or 2), or None.
    """
    where = np.asarray(places, np.float64)
    points = where.reshape(-1, where.shape[-1])
    if goals is not None:
        points = np.concatenate([points, np.asarray(goals, np.float64)])
    low, high = np.nanmin(points, axis=0), np.nanmax(points, axis=0)
    middle, half = (low + high) / 2, max(float((high - low).max()) / 2, 1e-3)
    return np.stack([middle - ROOM * half, middle + ROOM * half])


def _pixels(places: Floats, limits: Floats, size: Box) -> Floats:
    """Pixels (..., 2) in an image of a size of places (..., 2); y points up."""
    share = (places - limits[0]) / (limits[1] - limits[0])
    return np.stack([share[..., 0] * (size[0] - 1), (1 - share[..., 1]) * (size[1] - 1)], -1)


def _line(draw: ImageDraw.ImageDraw, path: Floats, colour: str, width: int) -> None:
    seen = path[~np.isnan(path).any(-1)]
    if len(seen) > 1:
        draw.line([tuple(point) for point in seen.tolist()], colour, width, joint="curve")


def _dot(draw: ImageDraw.ImageDraw, centre: Floats, radius: int, colour: str) -> None:
    x, y = centre.tolist()
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), colour)


def _star(draw: ImageDraw.ImageDraw, centre: Floats, radius: int) -> None:
    angle = np.pi / 2 + np.arange(10) * np.pi / 5
    reach = np.where(np.arange(10) % 2, 0.45 * radius, radius)
    points = centre + np.stack([reach * np.cos(angle), -reach * np.sin(angle)], -1)
    draw.polygon([tuple(point) for point in points.tolist()], ORANGE, INK, FINE)


def _now(path: Floats) -> Floats:
    """The last place of a path (T, 2) that is not NaN."""
    return np.asarray(path[~np.isnan(path).any(-1)][-1])


def plane(paths: Floats, goal: Floats | None, limits: Floats, side: int) -> Image.Image:
    """A square map: paths (episodes, T, 2) pale blue, start black, goal an orange star, agents now blue."""
    size = (FINE * side, FINE * side)
    image = Image.new("RGB", size, WHITE)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, size[0] - 1, size[1] - 1), None, GREY, FINE)
    where, radius = _pixels(paths, limits, size), FINE * max(3, side // 75)
    for path in where:
        _line(draw, path, TRAIL, FINE * 3 // 2)
    _dot(draw, where[0, 0], radius, INK)
    if goal is not None:
        _star(draw, _pixels(goal, limits, size), 3 * radius)
    for path in where:
        _dot(draw, _now(path), radius, BLUE)
    return image.resize((side, side), Image.Resampling.BOX)


def strip(paths: Floats, goal: Floats | None, limits: Floats, size: Box) -> Image.Image:
    """A line with ticks: paths (episodes, T, 1) blue, start a black tick, agent a blue dot, goal an orange star."""
    fine = (FINE * size[0], FINE * size[1])
    image = Image.new("RGB", fine, WHITE)
    draw = ImageDraw.Draw(image)

    def at(places: Floats) -> Floats:
        flat = np.concatenate([places, np.zeros_like(places)], -1)
        room = np.concatenate([limits, [[-1.0], [1.0]]], -1)
        return _pixels(flat, room, (fine[0], FINE * (size[1] - 14)))

    axis = float(at(np.zeros((1, 1)))[0, 1])
    draw.line((0, axis, fine[0], axis), PALE, 2 * FINE)
    where = at(paths)
    for path in where:
        _line(draw, path, BLUE, 4 * FINE)
    if goal is not None:
        _star(draw, at(goal), 9 * FINE)
    start = float(where[0, 0, 0])
    draw.line((start, axis - 9 * FINE, start, axis + 9 * FINE), INK, 2 * FINE)
    for path in where:
        _dot(draw, _now(path), 6 * FINE, BLUE)
    image = image.resize(size, Image.Resampling.BOX)
    write = ImageDraw.Draw(image)
    for tick in ticks(float(limits[0, 0]), float(limits[1, 0])):
        x = float(at(np.array([[tick]]))[0, 0]) / FINE
        write.line((x, axis / FINE + 4, x, axis / FINE + 8), GREY)
        write.text((x, size[1]), f"{tick:g}", GREY, SMALL, "md")
    return image


def ticks(low: float, high: float) -> list[float]:
    """Round numbers between two numbers: at most seven, multiples of 1, 2 or 5 times a power of ten."""
    least = (high - low) / 6
    power = 10.0 ** np.floor(np.log10(least))
    apart = next(float(n * power) for n in (1, 2, 5, 10) if n * power >= least)
    return [round(n * apart, 10) for n in range(int(np.ceil(low / apart)), int(np.floor(high / apart)) + 1)]


def shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The text, cut with dots where it is wider than some pixels."""
    if font.getlength(text) <= width:
        return text
    return next(cut for n in range(len(text), -1, -1) if font.getlength(cut := text[:n] + "...") <= width)


def _fitted(picture: NDArray[np.uint8]) -> Image.Image:
    """A picture of ``WIDTH`` x ``HEIGHT``, as large as it fits, on white."""
    image = Image.fromarray(picture)
    if image.size == (WIDTH, HEIGHT):
        return image
    scale = min(WIDTH / image.width, HEIGHT / image.height)
    image = image.resize((round(scale * image.width), round(scale * image.height)), Image.Resampling.LANCZOS)
    whole = Image.new("RGB", (WIDTH, HEIGHT), WHITE)
    whole.paste(image, ((WIDTH - image.width) // 2, (HEIGHT - image.height) // 2))
    return whole


def _views(panel: Panel, limits: Floats | None) -> list[Image.Image]:
    """Return what stands below a panel's text: a picture, a strip, a map, or a picture with a map on it."""
    views = []
    if panel.picture is not None:
        picture = _fitted(panel.picture)
        views.append(Image.blend(picture, Image.new("RGB", picture.size, WHITE), 0.55) if panel.ended else picture)
    if panel.paths is None or limits is None:
        return views
    if panel.paths.shape[-1] == 1:
        return [*views, strip(panel.paths, panel.goal, limits, (WIDTH, STRIP))]
    if not views:
        return [plane(panel.paths, panel.goal, limits, MAP)]
    inset = plane(panel.paths, panel.goal, limits, INSET)
    views[0].paste(inset, (WIDTH - INSET - 4, 4))
    return views


def draw_panel(panel: Panel, limits: Floats | None) -> Image.Image:
    """Three lines of text, then what there is to see."""
    views = _views(panel, limits)
    width = max(view.width for view in views)
    image = Image.new("RGB", (width, 3 * LINE + sum(view.height for view in views)), WHITE)
    draw = ImageDraw.Draw(image)
    draw.text((0, 0), shortened(panel.task, FONT, width), INK, FONT)
    draw.text((0, LINE), panel.after, BLUE, FONT)
    draw.text((width, LINE), panel.value, INK, FONT, "ra")
    draw.text((0, 2 * LINE), panel.step, GREY, FONT)
    top = 3 * LINE
    for view in views:
        image.paste(view, (0, top))
        top += view.height
    return image


def draw_frame(panels: Sequence[Panel], columns: int, limits: Floats | None) -> Image.Image:
    """All panels, row by row, of even width and height."""
    images = [draw_panel(panel, limits) for panel in panels]
    wide, high = images[0].width + 2 * MARGIN, images[0].height + 2 * MARGIN
    rows = -(-len(images) // columns)
    frame = Image.new("RGB", (columns * wide + columns * wide % 2, rows * high + rows * high % 2), WHITE)
    for number, image in enumerate(images):
        frame.paste(image, (number % columns * wide + MARGIN, number // columns * high + MARGIN))
    return frame
