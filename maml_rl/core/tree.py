"""The values that flow through the package. Axes in this order everywhere: tasks K, episodes B, steps T, feature.

Several runs that are trained at once are one batch: what each has of its own (theta, a key, an objective) has a leading
axis of runs, and their tasks are rows of one task axis, one run's after the other's.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

Params = dict[str, Tensor]
"""Parameters by name. Stacked parameters have a leading task axis."""

Rate = float | Params
"""A step size: one number, or one tensor for each parameter (zeros leave that parameter as it is)."""


Tree: TypeAlias = Any
"""A tensor, None, or named tuples, lists and dicts of trees: a recursion that the type checker does not follow."""


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


def flatten(params: Params, runs: tuple[int, ...] = ()) -> Tensor:
    """All parameters (*runs, ...) as one vector for each run, (*runs, n), in the dict's order."""
    return torch.cat([value.reshape(*runs, -1) for value in params.values()], -1)


def unflatten(vector: Tensor, like: Params) -> Params:
    """The inverse of ``flatten``, with the names and shapes of ``like``."""
    runs = vector.shape[:-1].numel()
    parts = vector.split([value.numel() // runs for value in like.values()], -1)
    return {name: part.reshape(value.shape) for (name, value), part in zip(like.items(), parts, strict=True)}
