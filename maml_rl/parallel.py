"""Work on slices of the task axis side by side.

On a CPU each worker thread takes one small slice at a time and uses one torch thread for it: tasks are independent,
so nothing waits at the end of every operation, activations stay in a core's cache, and memory is bounded by the
slices in flight. Results do not depend on how many workers there are. On a GPU a slice is as large as memory should
allow and there is one worker.
"""

import ctypes
import platform
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import EllipsisType
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from maml_rl.types import Params, Runs, Tree, map_tensors

CPU_STEPS = 4096
"""Steps of data in one slice on a CPU: a few hundred kilobytes for each hidden layer, the size of a core's cache."""

GPU_STEPS = 1_000_000
"""Steps of data in one slice on a GPU."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h

In = TypeVar("In")
Out = TypeVar("Out")


@contextmanager
def one_torch_thread() -> Iterator[int]:
    """Give torch one thread, and yield how many it had: two thread pools on the same cores slow each other down."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def keep_freed_memory() -> None:
    """Have glibc keep up to 2 GiB of freed memory for the next tensors instead of giving it back to the system.

    Otherwise every large activation is mapped, zeroed and unmapped anew: a fifth of a small meta-iteration.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_MMAP_THRESHOLD, 2**30)


def spans(count: int, size: int) -> list[slice]:
    """Slices of that size, the last one smaller, that cover so many."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


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


def side_by_side(function: Callable[[In], Out], items: Sequence[In]) -> list[Out]:
    """``[function(item) for item in items]`` in as many threads as torch has been given."""
    with one_torch_thread() as threads:
        if threads == 1 or len(items) == 1:
            return [function(item) for item in items]
        with ThreadPoolExecutor(threads) as executor:
            return list(executor.map(function, items))
