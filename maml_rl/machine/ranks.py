"""One training run in several processes, as torchrun starts them: each has a share of the tasks.

Tasks and noise follow from seed, purpose, iteration and task index, whoever draws them. What is a mean over tasks
(objective, KL, gradient, Fisher products, metrics) is averaged over ranks, so that every rank takes the same step.
Without torchrun there is one rank, and nothing here does anything.

Ranks wait for each other in every call but ``share``, so all of them must make the same calls in the same order: what
one of them may fail in alone goes through ``agreement``.
"""

import os
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from maml_envs import InputError, WorkerError

T = TypeVar("T")
U = TypeVar("U")

TOLD = (InputError, FloatingPointError, WorkerError, OSError)
"""Errors that a user is told of in a message."""


class Echo(Exception):  # noqa: N818  the error is rank 0's
    """Rank 0 raises an error: it tells the user, and its exit code is the run's. The other ranks just end."""


def size() -> int:
    """Return the number of ranks."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Return this rank's number, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def is_main() -> bool:
    """Tell whether this rank logs, saves and prints; also before the ranks have joined and after."""
    return (rank() if distributed.is_initialized() else launched()[1]) == 0


def launched() -> tuple[int, int]:
    """Return the number of ranks that were started, and which one this is: (1, 0) without torchrun.

    Raises:
        InputError: Only a part of what torchrun sets is set.
    """
    said = os.environ.get("WORLD_SIZE", "1")
    if said == "1":
        return 1, 0
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    number = os.environ.get("RANK", "0")
    if missing or not said.isdecimal() or not number.isdecimal():
        what = f"without {', '.join(missing)}" if missing else f"with RANK = {number}"
        raise InputError(
            f"WORLD_SIZE = {said} in the environment {what}: start ranks with torchrun, or unset WORLD_SIZE for one "
            "process"
        )
    return int(said), int(number)


def of_all(error: Exception) -> Exception:
    """Return what this rank raises for an error all ranks have found: the error itself on rank 0, else an Echo."""
    return error if is_main() else Echo(str(error))


def refuse_idle(tasks: int) -> None:
    """Refuse more ranks than there are tasks in an iteration.

    Raises:
        InputError: There are.
    """
    if size() > tasks:
        raise of_all(
            InputError(f"tasks = {tasks} for {size()} ranks: give at least one task for each, or start fewer ranks")
        )


def share(count: int) -> slice:
    """Return this rank's slice of ``count`` tasks: whole tasks, as equal as can be."""
    start, stop = (count * each // size() for each in (rank(), rank() + 1))
    return slice(start, stop)


def _together(call: Callable[..., object], *arguments: object) -> None:
    """Make a collective call.

    Raises:
        WorkerError: Another rank is gone.
    """
    try:
        call(*arguments)
    except RuntimeError as error:
        said = re.sub(r"^\[[^]]*\] ", "", str(error).split(". ")[0])  # where in gloo's sources
        raise WorkerError(f"another rank is gone: {said}") from error


def _sum(values: Tensor) -> Tensor:
    _together(distributed.all_reduce, values)
    return values


def mean(values: Tensor, tasks: int) -> Tensor:
    """Average a vector of this rank's means over all ranks, weighted by each rank's tasks, in one all-reduce.

    Args:
        values: (n,) means over this rank's tasks.
        tasks: How many they are over.
    """
    if size() == 1:
        return values
    # new_tensor would copy the number from the host, and wait for the device.
    sums = _sum(torch.cat([values * tasks, values.new_full((1,), tasks)]))
    return sums[:-1] / sums[-1]


def mean_rows(rows: list[dict[str, float]], tasks: int, sums: tuple[str, ...] = ()) -> list[dict[str, float]]:
    """Rows of metrics, each of a run, over all ranks: means over tasks, and sums for those that count.

    Args:
        rows: Of this rank, with the same names.
        tasks: How many their means are over.
        sums: The names of what counts.

    Raises:
        InputError: The ranks have different names in them.
    """
    if size() == 1:
        return rows
    names = zlib.crc32("\n".join(rows[0]).encode())
    span = torch.tensor([names, -names], dtype=torch.int64)
    _together(distributed.all_reduce, span, distributed.ReduceOp.MAX)
    if span.sum():
        raise of_all(
            InputError(
                f"the ranks measure different things, rank 0 {', '.join(rows[0])}: an environment reports success at "
                "every step or never, whatever its tasks"
            )
        )
    weighted = [value if name in sums else value * tasks for row in rows for name, value in row.items()]
    *totals, count = _sum(torch.tensor([*weighted, tasks], dtype=torch.float64)).tolist()
    total = iter(totals)
    return [{name: next(total) / (1 if name in sums else count) for name in row} for row in rows]


def gather(values: Tensor, count: int) -> Tensor:
    """Gather all tasks' values (count, ...) from each rank's share of them."""
    if size() == 1:
        return values
    whole = values.new_zeros(count, *values.shape[1:])
    whole[share(count)] = values
    return _sum(whole)


def any_rank(flag: int) -> int:
    """Return the largest of the ranks' numbers: whether one of them was asked to stop, and by what."""
    if size() == 1:
        return flag
    number = torch.tensor([flag], dtype=torch.int64)
    _together(distributed.all_reduce, number, distributed.ReduceOp.MAX)
    return int(number)


def from_main(function: Callable[[], T]) -> T:
    """Call ``function`` on rank 0 and broadcast its result. An exception there stops every rank (see ``agreed``)."""
    value: Any = on_main(function, None)
    found: T = _from(0, value) if size() > 1 else value
    return found


def _from(source: int, value: T) -> T:
    held: list[Any] = [value if rank() == source else None]
    _together(distributed.broadcast_object_list, held, source)
    return held[0]  # type: ignore[no-any-return]


def on_main(function: Callable[[], T], otherwise: U) -> T | U:
    """Call ``function`` on rank 0; the others return ``otherwise``. An exception there stops every rank."""
    return agreed(lambda: function() if is_main() else otherwise)


def agreed(function: Callable[[], T]) -> T:
    """Call ``function`` on this rank; see ``agreement``."""
    with agreement():
        return function()


@contextmanager
def agreement() -> Iterator[None]:
    """Run a block on every rank; if it raises an error on any of them, all end, so that none waits for another.

    Raises:
        InputError, FloatingPointError, WorkerError, OSError: On rank 0, what the first rank that failed raised; a
            WorkerError that names the rank where it was of another type.
        Echo: On the others.
    """
    if size() == 1:
        yield
        return
    error = None
    try:
        yield
    except (Exception, SystemExit) as raised:
        error = raised
    failed = any_rank(size() - rank() if error else 0)
    if not failed:
        return
    source, kind = size() - failed, next((each for each in TOLD if isinstance(error, each)), None)
    told = (kind, str(error)) if kind else (WorkerError, f"rank {rank()}: {type(error).__name__}: {error}")
    if kind is OSError and not is_main():
        told = (kind, f"rank {rank()}: {error}")
    first, message = _from(source, told)
    if error and (kind is None or is_main()):
        raise error  # with its own traceback
    raise (first if is_main() else Echo)(message) from error
