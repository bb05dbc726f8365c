"""From run folders to numbers: groups of seeds, measures with their intervals, and what they are worth."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maml_envs import InputError
from maml_rl.config.base import METHODS
from maml_rl.config.rl import Config
from maml_rl.core.statistics import (
    Floats,
    Interval,
    in_words,
    interquartile_mean,
    interval,
    mean,
    overall,
    ratio,
    resample,
    strata,
    trimmed_mean,
)
from maml_rl.pictures.curves import seconds
from maml_rl.results.published import Published, published
from maml_rl.results.runs import Group, Run, grouped, read_runs
from maml_rl.runs.evaluation import Evaluation


class Point(NamedTuple):
    """A group after so many gradient steps; every interval is of 95 %, every average over seeds and tasks."""

    steps: int
    iqm: Interval  # interquartile mean
    mean: Interval
    trimmed_mean: float  # without 5 % at each end
    median: float
    seed_means: tuple[float, ...]  # of each seed, over tasks
    normalised: Interval | None  # 0: random parameters after as many steps; 1: the oracle without a step; of means
    gap_closed: Interval | None  # share of the way from no step to the oracle without a step; of means


class GroupResult(NamedTuple):
    """A group that was evaluated."""

    label: str
    method: str  # of METHODS
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    iterations: float  # of training, mean over seeds; NaN where an evaluation does not say
    env_steps: float  # of training, mean over seeds
    seconds: float  # of training, mean over seeds
    diverged: float  # share of tasks, mean over seeds
    hardware: tuple[str, ...]
    points: tuple[Point, ...]  # after 0, 1, ... gradient steps
    values: Floats  # (seeds, tasks, k) mean over episodes
    action_scale: float | None = None  # unit of its policies; None where it has none


class Comparison(NamedTuple):
    """Groups of one environment, or of the same data, evaluated on the same tasks, by one measure."""

    subject: str  # the environment, or the data
    measure: str  # of MEASURES
    split: str
    tasks: int
    task_numbers: Floats | None  # (tasks, numbers of a task)
    rows: tuple[GroupResult, ...]
    published: Published | None  # of the same

    @property
    def is_rl(self) -> bool:
        """Return whether it is of meta-RL, and not of few-shot learning."""
        return self.measure == "return"

    @property
    def strata(self) -> NDArray[np.int64]:
        """Return the stratum of each task, for intervals."""
        return strata(self.task_numbers, self.tasks)

    def tasks_in_words(self, kind: str = "") -> str:
        """Return how many tasks of a kind there are, and adaptations to each where they repeat."""
        return in_words(self.task_numbers, self.tasks, kind)


class Evaluated(NamedTuple):
    """The runs of a group that were evaluated, and how."""

    group: Group
    evaluations: tuple[Evaluation, ...]  # of each run

    def values(self, measure: str) -> Floats:
        """Return a measure (seeds, tasks, k), mean over episodes, as many steps as all runs have."""
        runs = [evaluation.of(measure).per_task for evaluation in self.evaluations]
        steps = min(values.shape[1] for values in runs)
        return np.stack([values[:, :steps] for values in runs])


def _evaluated(groups: Sequence[Group], which: str, split: str) -> list[Evaluated]:
    """Choose an evaluation of each run; runs, and groups, without one are left out.

    Raises:
        InputError: Nothing is left, or evaluations are of other tasks.
    """
    evaluated, every_pair = [], []
    for group in groups:
        pairs = [(run, evaluation) for run in group.runs if (evaluation := run.evaluation(which, split))]
        if pairs:
            runs, evaluations = zip(*pairs, strict=True)
            evaluated.append(Evaluated(group._replace(runs=runs), evaluations))
            every_pair += pairs
    if not evaluated:
        raise InputError(f"nothing is evaluated yet: maml-rl evaluate {groups[0].runs[0].name}")
    _refuse_other_tasks(every_pair)
    return evaluated


def _refuse_other_tasks(pairs: Sequence[tuple[Run, Evaluation]]) -> None:
    def on(run: Run, evaluation: Evaluation) -> str:
        tasks, split = f"{len(evaluation.per_task)} tasks", f"split {evaluation.split!r}"
        if isinstance(run.config, Config):
            return f"{tasks} of {split}"
        shots = f"{evaluation.shots} shots and " if evaluation.shots else ""
        examples = f"{shots}{run.config.queries} queries"
        return f"{tasks} of {examples} of {split} by seed {evaluation.seed} with {evaluation.backtracks} backtracks"

    first, about = pairs[0]
    flags = "--tasks and --split" if isinstance(first.config, Config) else "--tasks, --shots, --seed and --backtracks"
    for run, evaluation in pairs[1:]:
        same = on(run, evaluation) == on(first, about)
        ours, theirs = (np.zeros(0) if one.tasks is None else one.tasks for one in (evaluation, about))
        if not same or not np.array_equal(ours, theirs):
            raise InputError(
                f"evaluations compare only on the same tasks: {first.name} is evaluated on {on(first, about)}, "
                f"{run.name} on {'others, ' * same}{on(run, evaluation)}; evaluate both with the same {flags}"
            )


def _hardware(run: Run) -> str:
    machine = run.made_with.get("machine", {})
    parts = [machine.get("platform"), machine.get("gpu")]
    counts = {one: machine.get(f"{one}s") for one in ("core", "thread")}
    parts += [f"{count} {one}{'s' * (count != 1)}" for one, count in counts.items() if count]
    return ", ".join(str(part) for part in parts if part) or "unknown"


def _points(methods: Sequence[str], values: Sequence[Floats], of: NDArray[np.int64]) -> list[tuple[Point, ...]]:
    """Summarise values (seeds, tasks, k) of every group, from the same resamples of tasks."""
    middle, means = (resample(values, average, of=of) for average in (interquartile_mean, mean))
    whole = [overall(group, mean) for group in values]

    def only(candidates: Sequence[int]) -> int | None:
        return candidates[0] if len(candidates) == 1 else None

    random = only([i for i, method in enumerate(methods) if not METHODS[method].trains])
    oracle = only([i for i, method in enumerate(methods) if METHODS[method].told])

    def between(i: int, k: int, low: int | None, at: int) -> Interval | None:
        """Place group i after k steps between group ``low`` after ``at`` steps and the oracle before any."""
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
                trimmed_mean=overall(values[i][..., k], trimmed_mean).item(),
                median=float(np.median(values[i][..., k])),
                seed_means=tuple(mean(values[i][..., k]).tolist()),
                normalised=between(i, k, random, k),
                gap_closed=between(i, k, i, 0) if k > 0 else None,
            )
            for k in range(values[i].shape[-1])
        )
        for i in range(len(values))
    ]


def _row(evaluated: Evaluated, values: Floats, points: tuple[Point, ...]) -> GroupResult:
    runs, iterations = evaluated.group.runs, [one.iteration for one in evaluated.evaluations]
    return GroupResult(
        label=evaluated.group.label,
        method=evaluated.group.method,
        runs=tuple(run.name for run in runs),
        seeds=tuple(run.config.seed for run in runs),
        iterations=float(np.mean([math.nan if count is None else count for count in iterations])),
        env_steps=float(np.mean([run.metrics[-1].get("env_steps", 0) if run.metrics else 0 for run in runs])),
        seconds=float(np.mean([seconds(run.metrics).sum() for run in runs])),
        diverged=float(np.mean([one.diverged for one in evaluated.evaluations])),
        hardware=tuple(sorted({_hardware(run) for run in runs})),
        points=points,
        values=values,
        action_scale=runs[0].config.policy.action_scale if isinstance(runs[0].config, Config) else None,
    )


def comparisons(groups: Sequence[Group], which: str = "checkpoint", split: str = "in") -> list[Comparison]:
    """Compare groups by each measure that all their evaluations have, the leading one first; see ``compare``."""
    evaluated = _evaluated(groups, which, split)
    run, about = evaluated[0].group.runs[0], evaluated[0].evaluations[0]
    results = []
    for measure in (name for name in about.values if name != "success"):
        if not all(measure in other.values for group in evaluated for other in group.evaluations):
            continue
        values = [group.values(measure) for group in evaluated]
        points = _points([group.group.method for group in evaluated], values, strata(about.tasks, values[0].shape[1]))
        results.append(
            Comparison(
                subject=run.config.env if isinstance(run.config, Config) else run.config.data,
                measure=measure,
                split=split,
                tasks=values[0].shape[1],
                task_numbers=about.tasks,
                rows=tuple(map(_row, evaluated, values, points)),
                published=published(run.config, about, measure),
            )
        )
    return results


def compare(runs: Sequence[Path | str], which: str = "checkpoint", split: str = "in") -> Comparison:
    """Compare evaluated runs by their leading measure: groups of seeds, their results after 0, 1, ... steps, the cost.

    Intervals are from a bootstrap that draws the tasks once for all groups, which share them, and the seeds within
    each group. Of a group of one seed they are over tasks alone. ``normalised`` needs one group of method random and
    one of method oracle among the runs, ``gap_closed`` the latter.

    Args:
        runs: Run folders. The newest evaluation of each counts; runs without one are left out.
        which: Of which parameters: "checkpoint" for the last, "best" for the best in training.
        split: On which tasks: "in" or "out" of the training distribution, or "validation".

    Raises:
        InputError: Runs of different environments or data, evaluations of different tasks, a seed twice, or nothing
            that is evaluated.
    """
    return comparisons(grouped(read_runs(runs)), which, split)[0]
