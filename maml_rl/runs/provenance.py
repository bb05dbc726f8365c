"""Versions, commit and hardware of a run, for its config.toml."""

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("maml_rl", "torch", "numpy", "gymnasium", "mujoco")
ON_GPU = {"warp-lang": "warp", "mujoco-warp": "mujoco_warp"}
"""Packages by name, and their modules, of runs that simulate on a GPU."""


def _git_commit() -> str:
    here = Path(__file__).parent
    try:
        # Of a file that git has: in a virtual environment in somebody's own project, it has none of ours.
        ours = ["git", "-C", str(here), "ls-files", "--error-unmatch", Path(__file__).name]
        subprocess.run(ours, capture_output=True, check=True, timeout=10)
        found = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.stdout.strip()


def _command() -> str:
    """The command line of this process, if it is one of this package's."""
    program = Path(sys.argv[0])
    ours = program.name == "maml-rl" or (program.name == "__main__.py" and program.parent.name == "maml_rl")
    return shlex.join(["maml-rl", *sys.argv[1:]]) if ours else ""


def made_with(threads: int, device: torch.device, notes: Sequence[str] = ()) -> dict[str, Any]:
    """Command, versions, commit, hardware and notes of the environment, for config.toml."""
    gpu = {"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}
    packages = PACKAGES + tuple(name for name, module in ON_GPU.items() if gpu and module in sys.modules)
    return {
        "command": _command(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
        "git_commit": _git_commit(),
        **({"environment": list(notes)} if notes else {}),
        "machine": {
            "platform": f"{platform.system()} {platform.machine()}",
            "cores": os.cpu_count() or 0,
            "threads": threads,
            **({"load": round(os.getloadavg()[0], 1)} if hasattr(os, "getloadavg") else {}),  # of the last minute
            **gpu,
        },
    }
