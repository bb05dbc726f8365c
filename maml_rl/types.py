"""The values that flow through the package. Axes in this order everywhere: tasks K, episodes B, steps T, feature."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from maml_rl.distributions import Distribution

Params = dict[str, Tensor]
"""Parameters by name. Stacked parameters have a leading task axis."""

Rate = float | Params
"""A step size: one number, or one tensor for each parameter (zeros leave that parameter as it is)."""

Tree: TypeAlias = Any
"""A tensor, None, or named tuples, lists and dicts of trees: a recursion that the type checker does not follow."""


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


def stack(params: Params, count: int) -> Params:
    """The same parameters for each of ``count`` tasks, without copying."""
    return {name: value.expand(count, *value.shape) for name, value in params.items()}


def flatten(params: Params) -> Tensor:
    """All parameters as one vector, in the dict's order."""
    return torch.cat([value.reshape(-1) for value in params.values()])


def unflatten(vector: Tensor, like: Params) -> Params:
    """The inverse of ``flatten``, with the names and shapes of ``like``."""
    parts = vector.split([value.numel() for value in like.values()])
    return {name: part.reshape(value.shape) for (name, value), part in zip(like.items(), parts, strict=True)}
