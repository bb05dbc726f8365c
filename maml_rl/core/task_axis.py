"""The task axis: what is written for one task is mapped over all of them and averaged here."""

import math
from collections.abc import Callable, Sequence
from types import EllipsisType
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from maml_rl.core.tree import Params, Tree, map_tensors
from maml_rl.machine import ranks
from maml_rl.machine.threads import spans

CPU_STEPS = 4096
"""Steps of data in one slice on a CPU: a few hundred kilobytes for each hidden layer, the size of a core's cache."""

GPU_STEPS = 1_000_000
"""Steps of data in one slice on a GPU."""

Runs: TypeAlias = tuple[int, ...]
"""The leading axes of what each run has of its own: (R,) in training, whatever R; () for one run without such an axis,
as evaluation, checks and diagnostics have it."""


class TaskRows(NamedTuple):
    """Which tasks the rows of the task axis are: as many of each run."""

    first: int = 0  # the number of each run's first task
    tasks: int = 0  # of each run; needed where there are several
    names: tuple[str, ...] = ()  # what errors call the runs, where there are several

    def of_run(self, run: int) -> str:
        """What follows a thing of this run in errors: "... of seed 3", or nothing where there is one run."""
        return f" of {self.names[run]}" if self.names else ""

    def runs_of(self, rows: Sequence[int]) -> str:
        """What follows several tasks in errors: ", of seed 1, seed 3", or nothing where there is one run."""
        if not self.names:
            return ""
        return ", of " + ", ".join(self.names[run] for run in sorted({row // self.tasks for row in rows}))

    def called(self, row: int) -> str:
        """What errors call a row: "task 7", or "task 7 of seed 3"."""
        run, task = divmod(row, self.tasks) if self.names else (0, row)
        return f"task {self.first + task}{self.of_run(run)}"


ONE_RUN = TaskRows()


def run_names(seeds: Sequence[int]) -> list[str]:
    """What errors call the runs with these seeds, where there are several."""
    return [f"seed {seed}" for seed in seeds] if len(seeds) > 1 else []


def stack(params: Params, tasks: int, runs: Runs = ()) -> Params:
    """A row for each of so many tasks, of the parameters (*runs, ...) of its run; for one run, without copying."""
    axis, each = len(runs), tasks // math.prod(runs)
    return {
        name: value.unsqueeze(axis).expand(*runs, each, *value.shape[axis:]).flatten(0, axis)
        for name, value in params.items()
    }


def sum_tasks(values: Tensor, runs: Runs) -> Tensor:
    """Sums over the tasks of each run, (*runs, ...), of values (rows of the task axis, ...)."""
    total: Tensor = values.unflatten(0, (*runs, -1)).sum(len(runs))
    return total


def _width(steps: Tensor) -> int:
    return max(1, (GPU_STEPS if steps.is_cuda else CPU_STEPS) // steps[0].numel())


def task_slices(steps: Tensor) -> list[slice]:
    """Slices that cover the task axis of a (K, B, T) tensor, of whole tasks and about the same number of steps."""
    return spans(len(steps), _width(steps))


class Part(NamedTuple):
    """Tasks to work on at once: some of one run, or all of several.

    Of 3 runs of 40 tasks, 50 tasks at a time: one run each, rows 40 to 79 of run 1. With 90 at a time: rows 0 to 79 of
    runs 0 and 1, whose sums have ``runs`` (2,), then rows 80 to 119 of run 2.
    """

    tasks: slice  # rows of the task axis
    of: int | slice | EllipsisType = ...  # where their runs are in the axis of runs, if there is one
    runs: Runs = ()  # what is left of that axis

    def own(self, params: Params) -> Params:
        """What its runs have, (*its runs, ...), of what all have."""
        return {name: value[self.of] for name, value in params.items()}


def parts(steps: Tensor, runs: Runs) -> list[Part]:
    """Parts that cover the task axis of (rows, B, T), as ``task_slices`` do, with as many tasks of each run."""
    if not runs:
        return [Part(rows) for rows in task_slices(steps)]
    tasks, width = len(steps) // runs[0], _width(steps)
    if width >= tasks:
        whole = spans(runs[0], width // tasks)
        return [Part(slice(of.start * tasks, of.stop * tasks), of, (of.stop - of.start,)) for of in whole]
    return [
        Part(slice(run * tasks + rows.start, run * tasks + rows.stop), run)
        for run in range(runs[0])
        for rows in spans(tasks, width)
    ]


def add_up(pieces: Sequence[Part], sums: Sequence[Tree], runs: Runs) -> Tree:
    """Sums over all tasks of each run, (*runs, ...), from those over its tasks in each part."""
    shared = len(pieces[0].runs)
    total: Tree = map_tensors(lambda x: x.new_zeros((*runs, *x.shape[shared:])), sums[0])
    for part, each in zip(pieces, sums, strict=True):
        map_tensors(lambda whole, piece, of=part.of: whole[of].add_(piece), total, each)
    return total


def check_gradient(
    total: Params, of_task: Callable[[int], Params], tasks: int, rows: TaskRows, runs: Runs = ()
) -> None:
    """Refuse a meta-gradient (*runs, ...) that is not finite, and find the first run and task that make it so.

    Args:
        total: The mean over tasks.
        of_task: That of one, by its row.
        tasks: Of each run.
        rows: Which tasks the rows are.
        runs: The axes of runs.

    Raises:
        FloatingPointError: It is not finite.
    """

    def bad(gradient: Params, runs: Runs = ()) -> list[list[str]]:
        """Of each run, the names of what is not finite."""
        finite = torch.stack([value.reshape(*runs, -1).isfinite().all(-1) for value in gradient.values()], -1)
        return [
            [name for name, fine in zip(gradient, each, strict=True) if not fine]
            for each in finite.reshape(-1, len(gradient)).tolist()
        ]

    for run, names in enumerate(bad(total, runs)):
        if names:
            own = range(run * tasks, run * tasks + tasks)
            together = f"all tasks together{rows.of_run(run)}"
            alone = next((rows.called(row) for row in own if any(bad(of_task(row)))), together)
            raise FloatingPointError(f"the meta-gradient of {alone} is NaN or infinite in {', '.join(names)}")


def mean_over_ranks(means: Tree, tasks: int) -> Tree:
    """Average a tree of means over this rank's tasks, of any shapes and types, over all ranks; see ``ranks.mean``."""
    if ranks.size() == 1:
        return means
    flat: list[Tensor] = []

    def note(value: Tensor) -> Tensor:
        flat.append(value.reshape(-1))
        return value

    map_tensors(note, means)
    parts = iter(ranks.mean(torch.cat(flat), tasks).split([len(each) for each in flat]))
    reduced: Tree = map_tensors(lambda value: next(parts).reshape(value.shape).to(value.dtype), means)
    return reduced
