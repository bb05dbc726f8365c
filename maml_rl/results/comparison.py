"""From run folders to numbers: groups of seeds, returns with their intervals, and what they are worth."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maml_envs import InputError
from maml_rl.config.rl import Config
from maml_rl.results import published
from maml_rl.results.published import Published
from maml_rl.results.runs import Group, Run, grouped, read_runs
from maml_rl.results.statistics import Floats, Interval, interquartile_mean, interval, mean, overall, ratio, resample


class Point(NamedTuple):
    """A group after so many gradient steps; every interval is of 95 %."""

    steps: int
    iqm: Interval  # interquartile mean of the returns over seeds and tasks
    mean: Interval  # mean of the same
    seed_means: tuple[float, ...]  # of each seed, over tasks
    normalised: Interval | None  # 0: random parameters after as many steps; 1: the oracle without a step; of means
    gap_closed: Interval | None  # share of the way from no step to the oracle without a step; of means


class Row(NamedTuple):
    """A group that was evaluated."""

    label: str
    method: str
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    env_steps: float  # of training, mean over seeds
    seconds: float  # of training, mean over seeds
    hardware: tuple[str, ...]
    points: tuple[Point, ...]  # after 0, 1, ... gradient steps


class Comparison(NamedTuple):
    """Groups of one environment, evaluated on the same tasks."""

    env: str
    preset: str | None
    horizon: int | None
    split: str
    tasks: list[list[float]]
    rows: tuple[Row, ...]
    published: Published | None  # of this environment, preset and horizon

    def as_json(self) -> dict[str, Any]:
        """Nested dictionaries and lists; what is not finite is None."""
        return {key: _plain(each) for key, each in self._asdict().items()}


def _plain(value: object) -> object:
    if isinstance(value, Comparison | Row | Point | Interval | Published):
        return {key: _plain(each) for key, each in value._asdict().items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def returns(run: Run[Config]) -> Floats:
    """Returns (tasks, k) of a run's evaluation, mean over episodes.

    Raises:
        InputError: It holds none.
    """
    try:
        values = np.asarray((run.evaluation or {})["returns"], dtype=float)
        if values.ndim != 3 or len(values) != len((run.evaluation or {})["tasks"]):
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"the evaluation of {run.name} does not hold the return of every task, step and episode; evaluate it again"
        ) from None
    return np.asarray(values.mean(-1))


def returns_of(group: Group) -> Floats:
    """Returns (seeds, tasks, k) of the runs of a group that were evaluated, as many steps as all of them have."""
    each = [returns(run) for run in group.runs if run.evaluation]
    steps = min(values.shape[1] for values in each)
    return np.stack([values[:, :steps] for values in each])


def _refuse_other_evaluations(runs: Sequence[Run[Config]]) -> None:
    def on(run: Run[Config]) -> str:
        about = run.evaluation or {}
        return f"{len(about['tasks'])} tasks of split {about.get('split')!r}"

    def of(run: Run[Config]) -> str:
        return str((run.evaluation or {}).get("which", "checkpoint"))

    for run in runs[1:]:
        if on(run) != on(runs[0]) or (run.evaluation or {})["tasks"] != (runs[0].evaluation or {})["tasks"]:
            raise InputError(
                f"evaluations compare only on the same tasks: {runs[0].name} is evaluated on {on(runs[0])}, {run.name} "
                f"on {'others, ' * (on(run) == on(runs[0]))}{on(run)}; evaluate both with the same --tasks and --split"
            )
    trained = [run for run in runs if run.config.method != "random"]
    for run in trained[1:]:
        if of(run) != of(trained[0]):
            raise InputError(
                f"evaluations compare only of the same parameters: {trained[0].name} is evaluated with --which "
                f"{of(trained[0])}, {run.name} with --which {of(run)}; evaluate both with the same"
            )


def _hardware(run: Run[Config]) -> str:
    machine = run.made_with.get("machine", {})
    parts = [machine.get("platform"), machine.get("gpu")]
    counts = {one: machine.get(f"{one}s") for one in ("core", "thread")}
    parts += [f"{count} {one}{'s' * (count != 1)}" for one, count in counts.items() if count]
    return ", ".join(str(part) for part in parts if part) or "unknown"


def _points(groups: Sequence[Group]) -> list[tuple[Point, ...]]:
    """The points of every group, from the same resamples of tasks."""
    values = [returns_of(group) for group in groups]
    middle, means = (resample(values, average) for average in (interquartile_mean, mean))
    whole = [overall(each, mean) for each in values]

    def only(method: str) -> int | None:
        of = [i for i, group in enumerate(groups) if group.method == method]
        return of[0] if len(of) == 1 else None

    random, oracle = only("random"), only("oracle")

    def between(i: int, k: int, low: int | None, at: int) -> Interval | None:
        """Where group i after k steps is between group ``low`` after ``at`` steps and the oracle before any."""
        if low is None or oracle is None or at >= len(whole[low]):
            return None
        top, bottom, goal = whole[i][k], whole[low][at], whole[oracle][0]
        if goal <= bottom:  # an oracle that has learned less than this has no way to measure
            return None
        tops, bottoms, goals = means[i][:, k], means[low][:, at], means[oracle][:, 0]
        return ratio(top - bottom, goal - bottom, tops - bottoms, goals - bottoms)

    return [
        tuple(
            Point(
                steps=k,
                iqm=interval(overall(values[i][..., k], interquartile_mean).item(), middle[i][:, k]),
                mean=interval(whole[i][k], means[i][:, k]),
                seed_means=tuple(values[i][..., k].mean(1).tolist()),
                normalised=between(i, k, random, k),
                gap_closed=between(i, k, i, 0) if k > 0 else None,
            )
            for k in range(values[i].shape[-1])
        )
        for i in range(len(groups))
    ]


def evaluated(groups: Sequence[Group]) -> list[Group]:
    """The groups with the runs of each that were evaluated, without those where none was."""
    kept = [group._replace(runs=tuple(run for run in group.runs if run.evaluation)) for group in groups]
    return [group for group in kept if group.runs]


def compare_groups(groups: Sequence[Group]) -> Comparison:
    """Compare groups by their evaluations; see ``compare``."""
    chosen = evaluated(groups)
    runs = [run for group in chosen for run in group.runs]
    if not runs:
        names = [run.name for group in groups for run in group.runs]
        raise InputError(f"nothing is evaluated yet: maml-rl evaluate {names[0]}")
    for run in runs:
        returns(run)  # refuses one that is not an evaluation
    _refuse_other_evaluations(runs)
    first, about = runs[0].config, runs[0].evaluation or {}
    rows = [
        Row(
            label=group.label,
            method=group.method,
            runs=tuple(run.name for run in group.runs),
            seeds=tuple(run.config.seed for run in group.runs),
            env_steps=float(np.mean([run.metrics[-1]["env_steps"] if run.metrics else 0 for run in group.runs])),
            seconds=float(np.mean([seconds(run.metrics).sum() for run in group.runs])),
            hardware=tuple(sorted({_hardware(run) for run in group.runs})),
            points=points,
        )
        for group, points in zip(chosen, _points(chosen), strict=True)
    ]
    known = published.adaptation(first.env, first.preset, first.horizon) if about["split"] == "in" else None
    return Comparison(first.env, first.preset, first.horizon, about["split"], about["tasks"], tuple(rows), known)


def seconds(rows: Sequence[Mapping[str, float]]) -> Floats:
    """Wall clock of each row of metrics: what it says of sampling, inner and outer."""
    return np.array([sum(value for key, value in row.items() if key.startswith("seconds/")) for row in rows])


def compare(runs: Sequence[Path | str], which: str = "checkpoint", split: str = "in") -> Comparison:
    """Compare evaluated runs: groups of seeds, their returns after 0, 1, ... steps, what these are worth, what it took.

    Intervals are from a bootstrap that draws the tasks once for all groups, which share them, and the seeds within
    each group. Of a group of one seed they are over tasks alone. ``normalised`` needs one group of method random and
    one of method oracle among the runs, ``gap_closed`` the latter.

    Args:
        runs: Run folders. The newest evaluation of each counts; runs without one are left out.
        which: Of which parameters: "checkpoint" for the last, "best" for those with the best training return.
        split: On which held-out tasks: "in" or "out" of the training distribution.

    Raises:
        InputError: Runs of different environments, evaluations of different tasks or parameters, a seed twice,
            or nothing that is evaluated.
    """
    return compare_groups(grouped(read_runs(runs, Config, which, split)))
