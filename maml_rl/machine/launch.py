"""Becoming one of torchrun's ranks: which GPU is its own, and how they meet."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from uuid import uuid4

import torch
from torch import distributed
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from maml_envs import InputError
from maml_rl.machine.ranks import any_rank, launched

PATIENCE = timedelta(hours=2)
"""How long ranks wait for one that lives, as they do while rank 0 evaluates and draws."""


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
def joined() -> Iterator[None]:
    """Be one of torchrun's ranks while this lasts; alone without torchrun.

    Tensors on a GPU are reduced over nccl, those on the CPU over gloo.
    """
    ranks, _ = launched()
    if ranks == 1 or distributed.is_initialized():
        yield
        return
    # A default argument in there keeps the group that there is when it is imported, as torch.func.grad first does: then
    # the threads of the group outlive it, and one that lets go of a tensor while Python ends aborts the process.
    import torch.distributed.nn.functional

    on_gpu = torch.cuda.is_available()
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
