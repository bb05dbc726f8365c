"""The number of cores that a process may use."""

import math
import os
from pathlib import Path

SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
QUOTA = "/sys/fs/cgroup/cpu.max"
"""Microseconds of computation in a period, and the period: of a container."""


def cores() -> int:
    """Return the number of physical cores for this process: all it may use or, with torchrun, its rank's share.

    Two hyperthreads of a core are one: simulating and multiplying matrices, they wait for the same arithmetic units.
    """
    # Fewer than the machine has under taskset, and in a job that Slurm gave a part of it; macOS cannot tell.
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    count = len({_read(SIBLINGS.format(number)) or str(number) for number in allowed})
    quota, _, period = _read(QUOTA).partition(" ")
    if quota.isdigit() and period.isdigit():
        count = min(count, math.ceil(int(quota) / int(period)))
    return max(1, count // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
