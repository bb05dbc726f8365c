"""How many cores a process may use."""

import os


def cores() -> int:
    """This process's share of the cores it may run on: all of them, or with torchrun those of one of its ranks here."""
    # Fewer than the machine has under taskset, and in a job that Slurm gave a part of it; macOS cannot tell.
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, allowed // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
