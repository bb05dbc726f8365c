"""A comparison of runs as a table: what the terminal, the report and experiments/README.md show."""

import math
from datetime import timedelta
from typing import NamedTuple

import rich.table
from rich.box import SIMPLE_HEAD
from rich.console import Console

from maml_rl.results.comparison import Comparison, Row
from maml_rl.results.runs import METHODS
from maml_rl.results.statistics import Interval


class Table(NamedTuple):
    """Cells of text."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """As a table in Markdown."""
        lines = [self.header, tuple("---" for _ in self.header), *self.rows]
        return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)

    def show(self, title: str) -> None:
        """Print it on the terminal."""
        table = rich.table.Table(title=title, box=SIMPLE_HEAD, padding=0, collapse_padding=True)
        for i, column in enumerate(self.header):
            table.add_column(column, justify="left" if i == 0 else "right", overflow="fold")
        for row in self.rows:
            table.add_row(*row)
        Console().print(table)


def number(value: float) -> str:
    """Of a return: three digits or so."""
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 1000 else f"{value:.0f}"


def with_range(found: Interval | None) -> str:
    """A number with its interval; nothing where there is none."""
    if found is None or math.isnan(found.value):
        return ""
    if not (math.isfinite(found.low) and math.isfinite(found.high)):
        return f"{number(found.value)} (unknown)"
    return f"{number(found.value)} ({number(found.low)} to {number(found.high)})"


def count(steps: float) -> str:
    """Environment steps."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if steps >= size:
            return f"{steps / size:.3g} {unit}"
    return f"{steps:.0f}"


def clock(seconds: float) -> str:
    """Wall clock."""
    return f"{seconds / 60:.1f} min" if seconds < 5400 else str(timedelta(seconds=round(seconds)))


def after(k: int) -> str:
    """What k gradient steps are called."""
    return "before" if k == 0 else f"after {k} step{'s' * (k > 1)}"


def listed(comparison: Comparison) -> Table:
    """A row for each group and number of steps: mean, interquartile mean, what the mean is worth, and what is known."""
    known = comparison.published
    points = [point for row in comparison.rows for point in row.points]
    scored, closed = any(point.normalised for point in points), any(point.gap_closed for point in points)
    header = ("", "seeds", "steps", "mean", "interquartile mean", *([known.source] if known else []))
    header += ("score",) * scored + ("gap closed",) * closed
    rows = []
    for row in comparison.rows:
        theirs = known.of(row.method) if known else ()
        for point in row.points:
            k = point.steps
            cells = [row.label, str(len(row.seeds))] if k == 0 else ["", ""]
            cells += [str(k), with_range(point.mean), number(point.iqm.value)]
            cells += [number(theirs[k]) if k < len(theirs) else ""] if known else []
            score = number(point.normalised.value) if point.normalised else ""
            cells += [score] * scored + [with_range(point.gap_closed)] * closed
            rows.append(tuple(cells))
    return Table(header, tuple(rows))


def _cells(row: Row, steps: int, worth: bool) -> tuple[str, ...]:
    returns = [with_range(point.mean) for point in row.points[:steps]]
    returns += [""] * (steps - len(returns))
    judged = row.points[0] if row.method == "oracle" else row.points[1] if len(row.points) > 1 else None
    score = [with_range(judged.normalised if judged else None), with_range(judged.gap_closed if judged else None)]
    cost = [count(row.env_steps), clock(row.seconds)] if row.method != "random" else ["0", ""]
    return (row.label, str(len(row.seeds)), *returns, *(score if worth else []), *cost)


def tabulate(comparison: Comparison) -> Table:
    """Mean returns after each step with 95 % intervals over seeds and tasks, what they are worth, and what they cost.

    The normalised score is 0 for random parameters after as many steps and 1 for the oracle; the gap closed is the
    share of the way from before adaptation to the oracle. Published results of the same environment follow.
    """
    steps = max(len(row.points) for row in comparison.rows)
    worth = any(point.gap_closed or point.normalised for row in comparison.rows for point in row.points)
    scores = ("normalised score, 1 step", "gap closed by 1 step") if worth else ()
    header = ("", "seeds", *map(after, range(steps)), *scores, "environment steps", "wall clock")
    rows = [_cells(row, steps, worth) for row in comparison.rows]
    known = comparison.published
    for method in dict.fromkeys(row.method for row in comparison.rows) if known else ():
        returns = known.of(method)[:steps] if known else ()
        if known and returns:
            shown = [number(value) for value in returns] + [""] * (steps - len(returns))
            ours = method == "maml" and worth
            scores_of = (known.normalised(1), known.gap_closed(1)) if ours else (None, None)
            cells = ["" if score is None else f"{score:.2f}" for score in scores_of] if worth else []
            rows.append((f"{METHODS[method]}, {known.source}", "", *shown, *cells, "", ""))
    return Table(header, tuple(rows))
