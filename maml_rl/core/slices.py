"""Slices of the task axis, as large as a core's cache or a GPU's memory should hold."""

from typing import NamedTuple

from maml_rl.core.tree import Tree, leaves
from maml_rl.machine.threads import spans

CPU_STEPS = 4096
"""Steps of data in one slice on a CPU: a few hundred kilobytes for each hidden layer, the size of a core's cache."""

GPU_STEPS = 1_000_000
"""Steps of data in one slice on a GPU."""


class Slice(NamedTuple):
    """Rows to work on at once: some of one seed, or all of several."""

    seeds: slice
    rows: slice


def width(data: Tree, loop: bool, most: int = 0) -> int:
    """Return how many tasks to work on at once: the first tensor, (rows, ..., feature), says how large one is.

    Args:
        data: Of the tasks.
        loop: One at a time.
        most: As many as said instead; 0 for as many as a core's cache or a GPU's memory should hold.
    """
    if most and not loop:
        return most
    first = next(leaves(data))
    limit = GPU_STEPS if first.is_cuda else CPU_STEPS
    return 1 if loop else max(1, limit // max(1, first[0].numel() // first.shape[-1]))


def slices_of(data: Tree, tasks: int, seeds: int, loop: bool, most: int = 0) -> list[Slice]:
    """Cover the rows of as many tasks of each seed: with whole seeds where several fit, else with tasks of one seed.

    Of 3 seeds of 40 tasks, 50 tasks at a time: one seed each. With 90 at a time: rows 0 to 79 of seeds 0 and 1, then
    rows 80 to 119 of seed 2. With 30: rows 0 to 29 of seed 0, then 30 to 39, and so on.
    """
    at_once = width(data, loop, most)
    if at_once >= tasks:
        whole = spans(seeds, at_once // tasks)
        return [Slice(some, slice(some.start * tasks, some.stop * tasks)) for some in whole]
    return [
        Slice(slice(seed, seed + 1), slice(seed * tasks + part.start, seed * tasks + part.stop))
        for seed in range(seeds)
        for part in spans(tasks, at_once)
    ]
