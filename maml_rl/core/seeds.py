"""The axis of seeds: repeated for each task, summed over tasks, averaged over ranks, read as rows of metrics."""

import torch
from torch import Tensor

from maml_rl.core.tree import Params, Tree, leaves, map_tensors
from maml_rl.machine import ranks


def repeat(params: Params, tasks: int) -> Params:
    """Give each of so many tasks its seed's parameters, (S, ...) -> (tasks S, ...)."""
    return {
        name: value.unsqueeze(1).expand(len(value), tasks, *value.shape[1:]).flatten(0, 1)
        for name, value in params.items()
    }


def sum_of_each(values: Tensor, seeds: int) -> Tensor:
    """Sum over the tasks of each seed, (rows, ...) -> (S, ...)."""
    total: Tensor = values.unflatten(0, (seeds, -1)).sum(1)
    return total


def over_ranks(means: Tree, tasks: int) -> Tree:
    """Average a tree of means over this rank's tasks, of any shapes and types, over all ranks; see ``ranks.mean``."""
    if ranks.size() == 1:
        return means
    flat = [value.reshape(-1) for value in leaves(means)]
    parts = iter(ranks.mean(torch.cat(flat), tasks).split([len(part) for part in flat]))
    reduced: Tree = map_tensors(lambda value: next(parts).reshape(value.shape).to(value.dtype), means)
    return reduced


def to_rows(metrics: dict[str, Tensor]) -> list[dict[str, float]]:
    """Turn metrics, (S,) each, into a row of numbers for each seed; read at once from each device they are on."""
    numbers: dict[str, list[float]] = {}
    for device in {values.device for values in metrics.values()}:
        there = {name: values.double() for name, values in metrics.items() if values.device == device}
        numbers |= zip(there, torch.stack(list(there.values())).tolist(), strict=True)
    columns = zip(*(numbers[name] for name in metrics), strict=True)
    return [dict(zip(metrics, column, strict=True)) for column in columns]
