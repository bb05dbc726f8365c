"""The number of cores that a process may use."""

import os


def cores() -> int:
    """Return the number of cores for this process: all it may run on or, with torchrun, its rank's share of them."""
    # Fewer than the machine has under taskset, and in a job that Slurm gave a part of it; macOS cannot tell.
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, allowed // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
