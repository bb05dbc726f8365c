"""Parameters, and trees of tensors."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

Params = dict[str, Tensor]
"""Parameters by name. Those of several seeds, or stacked for several tasks, have a leading axis."""

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


def leaves(tree: Tree) -> Iterator[Tensor]:
    """Yield the tensors of a tree, in order."""
    if isinstance(tree, Tensor):
        yield tree
    elif tree is not None:
        for branch in tree.values() if isinstance(tree, dict) else tree:
            yield from leaves(branch)


def stack(params: Sequence[Params]) -> Params:
    """Stack parameters of the same names, (...) each, along a new leading axis, where the first are."""
    first = params[0]
    return {name: torch.stack([each[name].to(value) for each in params]) for name, value in first.items()}


def of_one_seed(params: Params) -> Params:
    """Give parameters a leading axis of one seed, (...) -> (1, ...)."""
    return {name: value.unsqueeze(0) for name, value in params.items()}


def flatten(params: Params) -> Tensor:
    """Join all parameters (S, ...) to one vector for each seed, (S, n), in the dict's order."""
    return torch.cat([value.reshape(len(value), -1) for value in params.values()], -1)


def unflatten(vector: Tensor, like: Params) -> Params:
    """Undo ``flatten``, with the names and shapes of ``like``."""
    parts = vector.split([value[0].numel() for value in like.values()], -1)
    return {name: part.reshape(value.shape) for (name, value), part in zip(like.items(), parts, strict=True)}
