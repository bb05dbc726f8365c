"""The values that flow through the package. Axes in this order everywhere: tasks K, episodes B, steps T, feature.

Several runs that are trained at once are one batch: what each has of its own (theta, a key, an objective) has a leading
axis of runs, and their tasks are rows of one task axis, one run's after the other's.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from maml_rl.distributions import Distribution

Params = dict[str, Tensor]
"""Parameters by name. Stacked parameters have a leading task axis."""

Rate = float | Params
"""A step size: one number, or one tensor for each parameter (zeros leave that parameter as it is)."""

Runs: TypeAlias = tuple[int, ...]
"""The leading axes of what each run has of its own: (R,) in training, whatever R; () for one run without such an axis,
as evaluation, checks and diagnostics have it."""

Tree: TypeAlias = Any
"""A tensor, None, or named tuples, lists and dicts of trees: a recursion that the type checker does not follow."""


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


class Trajectory(NamedTuple):
    """What was sampled. A loss cannot take it: it has no advantages."""

    observations: Tensor  # (K, B, T, obs)
    actions: Tensor  # (K, B, T, act)  raw samples of the policy
    rewards: Tensor  # (K, B, T)
    mask: Tensor  # (K, B, T) bool  True while the episode lives; True for its last step
    truncated: Tensor  # (K, B) bool     ended by a time limit and not by the task
    final_observations: Tensor  # (K, B, obs)     after the last live step
    behaviour: Distribution  # fields (K, B, T, act): what the actions were drawn from
    success: Tensor | None = None  # (K, B) bool: in some live step; None where the environment reports none

    def returns(self) -> Tensor:
        """Undiscounted return of each episode, (K, B)."""
        return torch.where(self.mask, self.rewards, 0.0).sum(-1)


class Batch(NamedTuple):
    """What a loss takes. Entries after an episode's end are zero."""

    observations: Tensor  # (K, B, T, obs)
    actions: Tensor  # (K, B, T, act)
    advantages: Tensor  # (K, B, T)  normalised over each task's live steps
    weights: Tensor  # (K, B, T)  1 / (the task's live steps) where live, else 0: a weighted sum is a mean
    behaviour: Distribution  # fields (K, B, T, act)


def map_tensors(function: Callable[..., Tensor], tree: Tree, *others: Tree) -> Tree:
    """Apply a function to the matching tensors of trees made of named tuples, lists and dicts."""
    if tree is None:
        return None
    if isinstance(tree, Tensor):
        return function(tree, *others)
    if isinstance(tree, dict):
        return {key: map_tensors(function, value, *(o[key] for o in others)) for key, value in tree.items()}
    parts = [map_tensors(function, *values) for values in zip(tree, *others, strict=True)]
    return type(tree)(parts) if type(tree) in (list, tuple) else type(tree)(*parts)


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


def flatten(params: Params, runs: Runs = ()) -> Tensor:
    """All parameters (*runs, ...) as one vector for each run, (*runs, n), in the dict's order."""
    return torch.cat([value.reshape(*runs, -1) for value in params.values()], -1)


def unflatten(vector: Tensor, like: Params) -> Params:
    """The inverse of ``flatten``, with the names and shapes of ``like``."""
    runs = vector.shape[:-1].numel()
    parts = vector.split([value.numel() // runs for value in like.values()], -1)
    return {name: part.reshape(value.shape) for (name, value), part in zip(like.items(), parts, strict=True)}
