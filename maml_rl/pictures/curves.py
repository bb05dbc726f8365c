"""Curves over training: what the metrics of some seeds have of a key, and how seeds are drawn."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from maml_rl.pictures.style import Floats, dashes

Rows = Sequence[Mapping[str, float]]
"""Of metrics.jsonl of one run."""

AXES = {
    "env_steps": "environment steps\n(adaptation included)",
    "minutes": "wall clock (minutes)",
    "iteration": "iteration",
}
"""What curves can be drawn over, and its label."""


def moving_average(values: Floats, window: int) -> Floats:
    """Mean of the `window` values around each, at the ends of fewer; an even window counts as one more."""
    half = window // 2
    padded = np.concatenate([np.full(half, np.nan), values, np.full(half, np.nan)])
    return np.asarray(np.nanmean(np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1), axis=-1))


def steps_of(seeds: Sequence[Rows], stem: str) -> list[int]:
    """The k of every key `stem`/k."""
    keys = {key for rows in seeds for row in rows for key in row}
    return sorted(int(match[1]) for key in keys if (match := re.fullmatch(rf"{re.escape(stem)}/(\d+)", key)))


def seconds(rows: Rows, part: str = "") -> Floats:
    """Wall clock of each row, evaluations and saving not counted: of a part such as "sampling", or of all parts."""
    keys = (f"seconds/{part}",) if part else ("seconds", "seconds/sampling", "seconds/inner", "seconds/outer")
    return np.array([sum(row.get(key, 0.0) for key in keys) for row in rows], dtype=float)


def clock(rows: Rows) -> Floats:
    """Minutes from the start of training to the end of each row."""
    return np.cumsum(seconds(rows)) / 60


def series(name: str, seeds: Sequence[Rows], key: str, over: str) -> tuple[Floats, Floats]:
    """`key` of every seed that has it, from the rows that do, as long as the shortest seed.

    Returns:
        x (n,), the mean of the seeds' `over`; y (seeds, n).

    Raises:
        ValueError: a row has the key and not `over`.
    """
    xs, ys = [], []
    for rows in seeds:
        minutes = clock(rows) if over == "minutes" else np.zeros(len(rows))
        chosen = [i for i, row in enumerate(rows) if key in row]
        if not chosen:
            continue
        if over != "minutes" and any(over not in rows[i] for i in chosen):
            raise ValueError(f"{name}: a row of its metrics has {key} and no {over}")
        xs.append(minutes[chosen] if over == "minutes" else np.array([rows[i][over] for i in chosen]))
        ys.append(np.array([rows[i][key] for i in chosen], dtype=float))
    shortest = min(map(len, ys))
    return np.mean([x[:shortest] for x in xs], axis=0), np.stack([y[:shortest] for y in ys])


def draw(axes: Axes, x: Floats, y: Floats, colour: object, k: int = 1, window: int | None = None) -> None:
    """Draw seeds (seeds, n) as one line: their mean, in a band from the lowest to the highest.

    Each seed is smoothed by a moving average first; of one seed the data are the faint line behind. The line style is
    that of k gradient steps; `window` is in rows, a twentieth of them by default.
    """
    size = max(1, y.shape[1] // 20) if window is None else window
    smooth = np.stack([moving_average(each, size) for each in y])
    if len(y) > 1:
        axes.fill_between(x, smooth.min(0), smooth.max(0), color=colour, alpha=0.18, linewidth=0, zorder=2)
    elif size > 1:
        axes.plot(x, y[0], color=colour, linewidth=0.7, alpha=0.3, zorder=2)
    marker = "o" if len(x) == 1 else ""
    axes.plot(x, smooth.mean(0), color=colour, linestyle=dashes(k), marker=marker, zorder=3)


def called(name: str, seeds: Sequence[object]) -> str:
    """A group in a legend: with the number of its seeds, if there are several."""
    return f"{name} ({len(seeds)} seeds: mean, range)" if len(seeds) > 1 else name
