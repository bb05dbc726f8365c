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


def spans(count: int, size: int) -> list[slice]:
    """Slices of that size, the last one smaller, that cover so many."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def side_by_side(function: Callable[[In], Out], items: Sequence[In]) -> list[Out]:
    """``[function(item) for item in items]`` in as many threads as torch has been given."""
    with one_torch_thread() as threads:
        if threads == 1 or len(items) == 1:
            return [function(item) for item in items]
        with ThreadPoolExecutor(threads) as executor:
            return list(executor.map(function, items))
