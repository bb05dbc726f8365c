"""A run that is killed at random moments and resumed each time, beside one that nothing happens to: are they equal?

    python benchmarks/kills.py --kills 50

A moment is up to ``spread`` seconds after a process has added its first line to metrics.jsonl, which a small run spends
on iterations and on saving them in equal parts; one kill in four comes earlier, while it starts and opens the folder.
Exits with 1 if anything differs.
"""

import random
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import tyro

from common import report
from maml_rl.runs import checkpoint

sys.path.insert(0, str(Path(__file__).parent.parent / "tests/helpers"))
from tiny import rows, same_checkpoint

CONFIG = """
env = "navigation"
horizon = 5
tasks = 2
episodes = 2
threads = 1
policy.hidden = [8]
inner.learn_lr = true
outer.name = "adam"
"""
EARLY = 0.25


@dataclass(frozen=True)
class Kills:
    """How often, when and of what."""

    kills: int = 50
    seed: int = 0
    spread: float = 0.3
    """Seconds in which a kill may come."""
    iterations: int = 3000


def differences(one: Path, other: Path) -> list[str]:
    """Name all that is not bit for bit the same in two run folders: checkpoints and metrics but for seconds."""
    found = [] if rows(one) == rows(other) else ["metrics.jsonl"]
    for name in ("checkpoint.pt", "checkpoint_previous.pt", "best.pt"):
        configs = [checkpoint.load(run / name).config for run in (one, other)]
        if not same_checkpoint(one / name, other / name) or configs[0] != configs[1]:
            found.append(name)
    return found


def _start(folder: Path, run: Path, iterations: int) -> "subprocess.Popen[bytes]":
    flags = ["--out", str(run), "--resume", "--iterations", str(iterations)]
    command = [sys.executable, "-m", "maml_rl", "train", str(folder / "config.toml"), *flags]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def _finish(process: "subprocess.Popen[bytes]") -> None:
    _, err = process.communicate()
    if process.returncode:
        raise RuntimeError(f"a resumed run ended with {process.returncode}: {err.decode()}")


def survive(folder: Path, chosen: Kills) -> tuple[dict[str, float], list[str]]:
    """Make both runs in a folder: numbers, and what is different in the one that was killed.

    Raises:
        RuntimeError: A run was refused, failed, or was over before all kills had come.
    """
    (folder / "config.toml").write_text(CONFIG)
    killed, metrics = folder / "killed", folder / "killed" / "metrics.jsonl"
    _finish(_start(folder, folder / "whole", chosen.iterations))
    pick, at, starting = random.Random(chosen.seed), [], 1.0
    for _ in range(chosen.kills):
        size = metrics.stat().st_size if metrics.exists() else 0
        began, process = time.monotonic(), _start(folder, killed, chosen.iterations)
        if pick.random() < EARLY:
            time.sleep(pick.uniform(0, starting))
        else:
            # Resuming may cut the last line off before it adds one.
            while process.poll() is None and not (metrics.exists() and metrics.stat().st_size > size):
                time.sleep(0.001)
            starting = time.monotonic() - began
            time.sleep(pick.uniform(0, chosen.spread))
        if process.poll() is not None:
            _finish(process)
            raise RuntimeError(f"the run is over after {len(at)} kills: give more iterations")
        process.kill()
        process.communicate()
        at.append(len(metrics.read_bytes().splitlines()) if metrics.exists() else 0)
    _finish(_start(folder, killed, chosen.iterations))
    numbers = {"kills": len(at), "iterations": chosen.iterations, "iterations_before_last_kill": at[-1]}
    return numbers, differences(folder / "whole", killed)


def main() -> None:
    """Say how often it was killed, and what differs."""
    with TemporaryDirectory() as folder:
        numbers, different = survive(Path(folder), tyro.cli(Kills, description=__doc__))
    report(numbers | {"different_files": len(different)})
    if different:
        sys.exit(f"different: {', '.join(different)}")


if __name__ == "__main__":
    main()
