"""A comparison of runs as a table: what the terminal, the report and experiments/README.md show."""

import math
from datetime import timedelta
from typing import Literal, NamedTuple

import rich.table
from rich.box import SIMPLE_HEAD
from rich.console import Console

from maml_rl.config.base import METHODS
from maml_rl.pictures.style import after
from maml_rl.results.comparison import Comparison, GroupResult
from maml_rl.results.published import Published
from maml_rl.runs.measures import MEASURES, number, shown, with_interval


class Table(NamedTuple):
    """Cells of text."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """As a table in Markdown."""
        lines = [self.header, tuple("---" for _ in self.header), *self.rows]
        return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)

    def _room(self, column: int) -> int:
        """Characters that a column needs: its cells whole, its header and the first column in words."""
        cells = [row[column] for row in self.rows]
        words = [word for cell in (cells if column == 0 else []) for word in cell.split()]
        return max(len(part) for part in (*self.header[column].split(), *(words or cells), ""))

    def pieces(self, width: int, keys: int) -> list[list[int]]:
        """Deal the columns to tables that fit a width, each of which begins with the first ``keys`` columns."""
        first = list(range(keys))
        found = [first.copy()]
        for column in range(keys, len(self.header)):
            if len(found[-1]) > keys and sum(self._room(k) + 1 for k in (*found[-1], column)) + 1 > width:
                found.append(first.copy())
            found[-1].append(column)
        return found

    def show(self, title: str, keys: int) -> None:
        """Print it on the terminal, in several tables where it is too wide, each with the first ``keys`` columns."""
        console = Console()
        for place, columns in enumerate(self.pieces(console.width, keys)):
            heading = None if place else title
            table = rich.table.Table(title=heading, box=SIMPLE_HEAD, padding=0, collapse_padding=True)
            rooms = {i: self._room(i) for i in columns}
            left = console.width - sum(rooms.values()) - len(columns) - 1
            rooms[0] = min(max(len(row[0]) for row in self.rows), rooms[0] + max(0, left))
            for i in columns:
                side: Literal["left", "right"] = "left" if i == 0 else "right"
                table.add_column(self.header[i], justify=side, overflow="fold", width=rooms[i])
            for row in self.rows:
                table.add_row(*(row[i] for i in columns))
            console.print(table)


STEPS, FEW = (0, 1, 3, 5, 10), 6
"""After which steps a wide table has a column, where there are more than a few numbers of steps."""


def count(steps: float) -> str:
    """Write a number of environment steps or iterations."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if steps >= size:
            return f"{steps / size:.3g} {unit}"
    return f"{steps:.0f}"


def clock(seconds: float) -> str:
    """Write a duration."""
    return f"{seconds / 60:.1f} min" if seconds < 5400 else str(timedelta(seconds=round(seconds)))


def _label(row: GroupResult, beside: Published | None) -> str:
    """Name a group; beside published results with the unit of its policies, which theirs may not have."""
    return f"{row.label}, action_scale {row.action_scale:g}" if beside and row.action_scale else row.label


def long_table(comparison: Comparison) -> Table:
    """Return a row for each group and number of steps: averages, what the mean is worth, and what is published."""
    measure, published = comparison.measure, comparison.published
    points = [point for row in comparison.rows for point in row.points]
    scored, closed = any(point.normalised for point in points), any(point.gap_closed for point in points)
    robust = "trimmed mean" if measure == "error" else "interquartile mean"
    header = ("", "seeds", "steps", "mean", robust, *([published.source] if published else []))
    header += ("score",) * scored + ("gap closed",) * closed
    rows = []
    for row in comparison.rows:
        theirs = published.of(row.method) if published else ()
        for point in row.points:
            k = point.steps
            cells = [_label(row, published), str(len(row.seeds))] if k == 0 else ["", ""]
            cells += [str(k), with_interval(point.mean, measure)]
            cells += [shown(point.trimmed_mean if measure == "error" else point.iqm.value, measure)]
            cells += [shown(theirs[k], measure) if k < len(theirs) else ""] if published else []
            score = number(point.normalised.value) if point.normalised else ""
            cells += [score] * scored + [with_interval(point.gap_closed)] * closed
            rows.append(tuple(cells))
    return Table(header, tuple(rows))


def costs(comparison: Comparison) -> list[str]:
    """Return a sentence for each group that trained: what a seed took; of errors, the share of tasks that diverged."""
    unit = "environment steps" if comparison.is_rl else "iterations"
    said = []
    for row in comparison.rows:
        steps, seconds = _cost(row, comparison.is_rl)
        took = [f"{steps} {unit}", seconds] if METHODS[row.method].trains else []
        off = [f"{100 * row.diverged:.1f} % of the tasks diverged"] * (comparison.measure == "error")
        said += [f"{_label(row, comparison.published)}: {', '.join([*took, *off])}."] * bool(took or off)
    for name, value in comparison.published.others if comparison.published else ():
        said.append(f"{name}: {shown(value, comparison.measure)} after 1 step.")
    return said


def _worth(row: GroupResult) -> list[str]:
    judged = row.points[0] if METHODS[row.method].told else row.points[1] if len(row.points) > 1 else None
    return [with_interval(judged.normalised if judged else None), with_interval(judged.gap_closed if judged else None)]


def _cost(row: GroupResult, is_rl: bool) -> list[str]:
    trains = METHODS[row.method].trains
    steps = row.env_steps if is_rl else row.iterations
    return [count(steps if trains else 0) if math.isfinite(steps) else "", clock(row.seconds) if trains else ""]


def wide_table(comparison: Comparison) -> Table:
    """Return a row for each group: means after each step, with 95 % intervals over seeds and tasks, worth and cost.

    The normalised score is 0 for random parameters after as many steps and 1 for the oracle; the gap closed is the
    share of the way from before adaptation to the oracle. An error has its median, its trimmed mean and the share of
    tasks that diverged beside it. Published results of the same environment or data follow.
    """
    measure, is_rl, published = comparison.measure, comparison.is_rl, comparison.published
    most = max(len(row.points) for row in comparison.rows)
    steps = [k for k in range(most) if most <= FEW or k in STEPS]
    worth = any(point.gap_closed or point.normalised for row in comparison.rows for point in row.points)
    error = measure == "error"
    header = ["" if is_rl else MEASURES[measure].label, "seeds", *(after(k, "before") for k in steps)]
    header += ["normalised score, 1 step", "gap closed by 1 step"] * worth
    header += [f"median, {after(steps[-1], 'before')}", "trimmed mean", "diverged"] * error
    header += ["environment steps" if is_rl else "iterations", "wall clock"]
    rows = []
    for row in comparison.rows:
        cells = [_label(row, published), str(len(row.seeds))]
        cells += [with_interval(row.points[k].mean, measure) if k < len(row.points) else "" for k in steps]
        cells += _worth(row) if worth else []
        if error:
            last = row.points[min(steps[-1], len(row.points) - 1)]
            cells += [shown(last.median, measure), shown(last.trimmed_mean, measure), f"{100 * row.diverged:.1f} %"]
        rows.append((*cells, *_cost(row, is_rl)))
    for method in dict.fromkeys(row.method for row in comparison.rows) if published else ():
        theirs = published.of(method) if published else ()
        if published and theirs:
            cells = [f"{METHODS[method].label}, {published.source}", ""]
            cells += [shown(theirs[k], measure) if k < len(theirs) else "" for k in steps]
            scores = (published.normalised(1), published.gap_closed(1)) if METHODS[method].adapts else (None, None)
            cells += ["" if score is None else number(score) for score in scores] if worth else []
            rows.append((*cells, *[""] * (len(header) - len(cells))))
    for name, value in published.others if published else ():
        cells = [name, "", *(shown(value, measure) if k == 1 else "" for k in steps)]
        rows.append((*cells, *[""] * (len(header) - len(cells))))
    return Table(tuple(header), tuple(rows))
