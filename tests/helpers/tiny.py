"""Runs small enough for tests, and what they left behind."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maml_rl.config.rl import Config
from maml_rl.config.toml import parse
from maml_rl.runs import checkpoint
from maml_rl.runs.evaluation import Evaluation

Command = Callable[..., tuple[int, str, str]]
"""The fixture ``command``: arguments to exit code, stdout and stderr."""

TINY: dict[str, Any] = {
    "env": "navigation",
    "horizon": 5,
    "tasks": 2,
    "episodes": 2,
    "iterations": 2,
    "threads": 1,
    "policy": {"hidden": [8]},
    "evaluation": {"tasks": 3, "episodes": 2, "steps": 2},
}


def tiny(**changes: Any) -> Config:
    """A configuration that trains in a fraction of a second; tables are merged with their defaults here."""
    tables = {key: TINY.get(key, {}) | value for key, value in changes.items() if isinstance(value, dict)}
    return parse(TINY | changes | tables, "tiny")


def evaluation_of(values: Any, measure: str = "return", **fields: Any) -> Evaluation:
    """An evaluation with these values (tasks, k), of returns one episode each or (tasks, k, episodes)."""
    array = np.asarray(values, dtype=float)
    array = array[..., None] if measure == "return" and array.ndim == 2 else array
    about = {"which": "checkpoint", "iteration": 1, "split": "in", "lr": np.full(array.shape[1] - 1, 0.1)}
    if measure == "return":
        about["tasks"] = np.stack([np.arange(len(array)), np.zeros(len(array))], 1)
    return Evaluation({measure: array}, **about | fields)


def maml_rl(*arguments: str | Path, cwd: Path, **more: Any) -> subprocess.Popen[str]:
    """``maml-rl`` as a process of its own, in which a warning is an error."""
    command = [sys.executable, "-W", "error", "-m", "maml_rl", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=cwd, env=environment, text=True, **pipes | more)


def finish(process: subprocess.Popen[str], seconds: float = 60) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return process.returncode, out, err


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder; the lock, which is empty, aside."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def rows(run: Path) -> list[dict[str, float]]:
    """The lines of metrics.jsonl without what differs from run to run: the seconds."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.startswith("seconds/")} for row in lines]


def same_checkpoint(one: Path, other: Path) -> bool:
    """Bit for bit the same parameters, state of the outer optimiser, counters and best return."""
    a, b = checkpoint.load(one), checkpoint.load(other)
    counters = (a.iteration, a.env_steps, a.best_return) == (b.iteration, b.env_steps, b.best_return)
    states = ((a.theta, b.theta), (a.outer, b.outer))
    same = [x.keys() == y.keys() and all(torch.equal(x[name], y[name]) for name in x) for x, y in states]
    return counters and all(same)
