"""One training run in several processes, as torchrun starts them: each has a share of the tasks.

Tasks and noise follow from seed, purpose, iteration and task index, whoever draws them. What is a mean over tasks
(objective, KL, gradient, Fisher products, metrics) is averaged over ranks, so that every rank takes the same step.
Without torchrun there is one rank, and nothing here does anything.

Ranks wait for each other in every call but ``share``, so all of them must make the same calls in the same order: what
one of them may fail in alone goes through ``agreed``.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar
from uuid import uuid4

import torch
from torch import Tensor, distributed
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from envs import InputError, WorkerError
from maml_rl.types import Tree, map_tensors

T = TypeVar("T")
U = TypeVar("U")

PATIENCE = timedelta(hours=2)
"""How long ranks wait for one that lives, as they do while rank 0 evaluates and draws."""

TOLD = (InputError, FloatingPointError, WorkerError)
"""Errors that a user is told of in a message."""


class Echo(Exception):  # noqa: N818  the error is rank 0's
    """Rank 0 raises an error: it tells the user, and its exit code is the run's. The other ranks just end."""


def size() -> int:
    """How many ranks there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Which one this is, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def is_main() -> bool:
    """Whether this rank logs and saves."""
    return rank() == 0


def local_device(device: torch.device) -> torch.device:
    """The device of this rank: of several GPUs its own.

    Raises:
        InputError: Ranks on this machine would have to share a GPU, which nccl does not let them.
    """
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if device.type != "cuda" or ranks == 1:
        return device
    if device.index is not None:
        raise InputError(f"device = '{device}' for {ranks} ranks: with device = 'cuda' each takes a GPU of its own")
    gpus = torch.cuda.device_count()
    if ranks > gpus:
        raise InputError(f"device = 'cuda' for {ranks} ranks on a machine with {gpus} GPUs: start one rank for each")
    return torch.device("cuda", int(os.environ["LOCAL_RANK"]))


def _meeting(store: Store, number: int, ranks: int) -> str:
    """A name that these processes alone have: torchrun's store keeps what those before a restart wrote there.

    Rank 0 calls a new name, the others sign under the name that they read, and it is theirs once rank 0 has
    published their own signature under it.
    """
    mine = uuid4().hex
    if number == 0:
        store.set("maml_rl/called", mine)
        signatures = [store.get(f"{mine}/{each}").decode() for each in range(1, ranks)]
        store.set(f"{mine}/signed", " ".join(signatures))
        return mine
    while True:
        name = store.get("maml_rl/called").decode()
        store.set(f"{name}/{number}", mine)
        if store.check([f"{name}/signed"]) and mine.encode() in store.get(f"{name}/signed"):
            return name
        time.sleep(0.05)


@contextmanager
def joined(device: torch.device, tasks: int) -> Iterator[None]:
    """Be one of torchrun's ranks while this lasts; alone without torchrun.

    Tensors on a GPU are reduced over nccl, those on the CPU over gloo.

    Args:
        device: Where this rank computes.
        tasks: How many an iteration has.

    Raises:
        InputError: There are more ranks than tasks.
        Echo: There are, and this is not rank 0, which says so.
    """
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if ranks == 1 or distributed.is_initialized():
        yield
        return
    if ranks > tasks:
        kind = InputError if os.environ["RANK"] == "0" else Echo
        raise kind(f"tasks = {tasks} for {ranks} ranks: give at least one task for each, or start fewer ranks")
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    store, number, _ = next(rendezvous("env://", timeout=PATIENCE))
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
        store=PrefixStore(_meeting(store, number, ranks), store),
        rank=number,
        world_size=ranks,
        timeout=PATIENCE,
    )
    failed = True
    try:
        yield
        any_rank(0)  # what rank 0 writes is written before another goes on
        failed = False
    finally:
        # nccl would wait here for ranks that are busy; one that failed has to end instead, for torchrun to see it.
        if not (failed and on_gpu):
            distributed.destroy_process_group()


def share(count: int) -> slice:
    """This rank's tasks of so many: whole tasks, as equal as can be."""
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
        raise WorkerError(f"another rank is gone: {str(error).split('. ')[0]}") from error


def _sum(values: Tensor) -> Tensor:
    _together(distributed.all_reduce, values)
    return values


def mean(means: Tree, tasks: int) -> Tree:
    """Means over all tasks from those over this rank's: tensors of any shapes and types, all reduced at once.

    Args:
        means: Of this rank.
        tasks: How many they are over.
    """
    if size() == 1:
        return means
    flat: list[Tensor] = []

    def note(value: Tensor) -> Tensor:
        flat.append(value.reshape(-1) * tasks)
        return value

    map_tensors(note, means)
    sums = _sum(torch.cat([*flat, flat[0].new_tensor([tasks])]))
    parts = iter((sums[:-1] / sums[-1]).split([len(each) for each in flat]))
    reduced: Tree = map_tensors(lambda value: next(parts).reshape(value.shape).to(value.dtype), means)
    return reduced


def mean_row(row: dict[str, float], tasks: int, sums: tuple[str, ...] = ()) -> dict[str, float]:
    """A row of metrics over all ranks: means over tasks, and sums for those that count.

    Args:
        row: Of this rank; its names are the same on every rank.
        tasks: How many its means are over.
        sums: The names of what counts.
    """
    if size() == 1:
        return row
    weighted = [value if name in sums else value * tasks for name, value in row.items()]
    *totals, count = _sum(torch.tensor([*weighted, tasks], dtype=torch.float64)).tolist()
    return {name: total if name in sums else total / count for name, total in zip(row, totals, strict=True)}


def gather(values: Tensor, count: int) -> Tensor:
    """All tasks' values (count, ...) from this rank's share of them."""
    if size() == 1:
        return values
    whole = values.new_zeros(count, *values.shape[1:])
    whole[share(count)] = values
    return _sum(whole)


def any_rank(flag: int) -> int:
    """The largest of the ranks' numbers: whether one of them was asked to stop, and by what."""
    if size() == 1:
        return flag
    number = torch.tensor([flag], dtype=torch.int64)
    _together(distributed.all_reduce, number, distributed.ReduceOp.MAX)
    return int(number)


def from_main(value: T) -> T:
    """What rank 0 has."""
    return _from(0, value) if size() > 1 else value


def _from(source: int, value: T) -> T:
    held: list[Any] = [value if rank() == source else None]
    _together(distributed.broadcast_object_list, held, source)
    return held[0]  # type: ignore[no-any-return]


def on_main(function: Callable[[], T], otherwise: U) -> T | U:
    """What a function gives on rank 0, and something else on the others; an error ends all, as in ``agreed``."""
    return agreed(lambda: function() if is_main() else otherwise)


def agreed(function: Callable[[], T]) -> T:
    """What a function gives on this rank; if it raises an error on any of them, all end, so that none waits for it.

    Raises:
        InputError, FloatingPointError, WorkerError: On rank 0, what the first rank that failed raised; a WorkerError
            that names the rank where it was of another type.
        Echo: On the others.
    """
    if size() == 1:
        return function()
    found, error = None, None
    try:
        found = function()
    except Exception as raised:
        error = raised
    failed = any_rank(size() - rank() if error else 0)
    if not failed:
        return found  # type: ignore[return-value]
    source, kind = size() - failed, type(error)
    told = (kind, str(error)) if kind in TOLD else (WorkerError, f"rank {rank()}: {kind.__name__}: {error}")
    first, message = _from(source, told)
    if error and (kind not in TOLD or (is_main() and source == 0)):
        raise error  # with its own traceback
    raise (first if is_main() else Echo)(message) from error
