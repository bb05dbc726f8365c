"""Work on slices of the task axis side by side.

On a CPU each worker thread takes one small slice at a time and uses one torch thread for it: tasks are independent,
so nothing waits at the end of every operation, activations stay in a core's cache, and memory is bounded by the
slices in flight. Results do not depend on how many workers there are. On a GPU a slice is as large as memory should
allow and there is one worker.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

CPU_STEPS = 4096
"""Steps of data in one slice on a CPU: a few hundred kilobytes for each hidden layer, the size of a core's cache."""

GPU_STEPS = 1_000_000
"""Steps of data in one slice on a GPU."""

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


def task_slices(steps: Tensor) -> list[slice]:
    """Slices that cover the task axis of a (K, B, T) tensor, of whole tasks and about the same number of steps."""
    tasks, size = steps.shape[0], steps[0].numel()
    width = max(1, (GPU_STEPS if steps.is_cuda else CPU_STEPS) // size)
    return [slice(start, min(tasks, start + width)) for start in range(0, tasks, width)]


def side_by_side(function: Callable[[In], Out], items: Sequence[In]) -> list[Out]:
    """``[function(item) for item in items]`` in as many threads as torch has been given."""
    with one_torch_thread() as threads:
        if threads == 1 or len(items) == 1:
            return [function(item) for item in items]
        with ThreadPoolExecutor(threads) as executor:
            return list(executor.map(function, items))
