"""The device that a run computes on, its threads and its memory."""

import ctypes
import platform
import sys
from functools import cache

import torch

from maml_envs import InputError
from maml_envs.cores import cores
from maml_rl.machine import launch
from maml_rl.machine.ranks import is_main

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def keep_freed_memory() -> None:
    """Have glibc keep up to 2 GiB of freed memory for the next tensors instead of giving it back to the system.

    Otherwise every large activation is mapped, zeroed and unmapped anew: a fifth of a small meta-iteration.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_MMAP_THRESHOLD, 2**30)


CPU = torch.device("cpu")


def first_line(error: BaseException) -> str:
    """Return an error's type and the first line of what it says."""
    return ": ".join([type(error).__name__, *str(error).splitlines()[:1]])


def memory_is_full(error: BaseException) -> bool:
    """Return whether an error says so: of Python, torch, whose CPU has no type for it, or warp."""
    said = ("DefaultCPUAllocator", "Failed to allocate")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in str(error) for words in said)


@cache
def fall_back(reason: str) -> None:
    """Say once, on standard error, why ``device = "auto"`` is the CPU although there is a GPU."""
    if is_main():
        print(f"device = 'auto' is the CPU here, though there is a GPU: {reason}", file=sys.stderr)


def _found() -> torch.device:
    """Return the GPU that torch can compute on, or the CPU: an old card or driver may fail at the first kernel."""
    if not torch.cuda.is_available():
        return CPU
    try:
        torch.ones(1, device="cuda").add_(1).item()
    except (RuntimeError, AssertionError) as error:  # an AssertionError of a torch without CUDA
        fall_back(f"torch cannot compute on it ({first_line(error)})")
        return CPU
    return torch.device("cuda")


def choose_device(name: str) -> torch.device:
    """Return the torch device of ``device = name``; "auto" is a GPU that works, of several this rank's, or the CPU.

    Raises:
        InputError: The name is unknown, asks for a GPU that is not there, or there is not one for each rank.
    """
    try:
        device = _found() if name == "auto" else torch.device(name)
    except RuntimeError:
        raise InputError(f"device = {name!r} is not a device: use auto, cpu or cuda") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device = {name!r}, but torch finds no CUDA GPU here: use device = 'cpu'")
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device = {name!r} is not supported: use auto, cpu or cuda")
    return launch.local_device(device)


def set_up(device: str, threads: int) -> None:
    """Give this process its GPU, torch its threads (0: this rank's share of the cores) and the allocator its memory.

    On a GPU torch gets one thread: slices that ran side by side would wait for the same device, and hold their memory.

    Raises:
        InputError: There is no such device, or not one for each rank.
    """
    chosen = choose_device(device)
    if chosen.index is not None:
        torch.cuda.set_device(chosen)
    torch.set_num_threads(1 if chosen.type == "cuda" else threads or cores())
    keep_freed_memory()
