"""How many cores a process may use."""

import os


def cores() -> int:
    """This process's share of the machine's cores: all of them, or with torchrun those of one of its ranks here."""
    return max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
