"""Torchrun's own agent and its ranks, forked from a process that has imported torch already: a launch in a second."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from maml_rl.cli import main

# Imported here once, so that no rank has to.
IMPORTED = (__name__, "maml_rl.supervised.method", "maml_rl.train", "matplotlib.pyplot", "torch._dynamo",
            "torch.utils.tensorboard", "few_shot", "tiny")  # fmt: skip
TIMEOUT_S = 120
ROOT = Path(__file__).parents[2]
PATH = os.pathsep.join(map(str, (ROOT, ROOT / "envs", ROOT / "tests/helpers")))


class Ended(NamedTuple):
    """How a launch ended."""

    code: int  # of torchrun
    out: str
    err: str  # of all ranks; torchrun's report with their exit codes last


def _agent(folder: Path, ranks: int, function: Callable[..., None], *arguments: Any) -> None:
    os.setsid()  # a group of its own, which can be killed whole
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ["OMP_NUM_THREADS"] = "1"
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        run_id="test",
        max_restarts=0,
        start_method="fork",
    )
    elastic_launch(config, _rank)(folder, function, *arguments)


def _rank(folder: Path, function: Callable[..., None], *arguments: Any) -> None:
    (folder / f"begun{os.environ['RANK']}").touch()
    function(*arguments)


def launch(folder: Path, ranks: int, function: Callable[..., None], *arguments: Any) -> Ended:
    """Run a function in every rank; none of its processes outlives the call, however it ends."""
    folder.mkdir(exist_ok=True)
    ended, hung = _launch(folder, ranks, function, *arguments)
    if hung and len(list(folder.glob("begun*"))) < ranks:
        # A rank forked while another thread of the agent holds a lock waits for it for ever, before it begins.
        ended, hung = _launch(folder, ranks, function, *arguments)
    assert not hung, ended
    return ended


def _launch(folder: Path, ranks: int, function: Callable[..., None], *arguments: Any) -> tuple[Ended, bool]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(IMPORTED))
    agent = context.Process(target=_agent, args=(folder, ranks, function, *arguments))
    agent.start()
    agent.join(TIMEOUT_S)
    hung = agent.exitcode is None
    assert agent.pid
    with contextlib.suppress(ProcessLookupError):
        os.killpg(agent.pid, signal.SIGKILL)
    agent.join()
    return Ended(agent.exitcode or 0, (folder / "out").read_text(), (folder / "err").read_text()), hung


ALONE = ("--standalone", "--nproc-per-node", "2")


def torchrun(folder: Path, *arguments: str, where: tuple[str, ...] = ALONE, strike: str = "no") -> Ended:
    """Torchrun's command line, with two ranks, in a folder; none of its processes outlives the call."""
    process = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *where, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": PATH, "OMP_NUM_THREADS": "1", "STRIKE": strike},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        out, err = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.terminate()  # torchrun ends its ranks
        process.wait(TIMEOUT_S)
    return Ended(process.returncode, out, err)


def command(*arguments: str | Path) -> None:
    """``maml-rl`` on this rank."""
    sys.argv = ["maml-rl", *map(str, arguments)]
    main.main()
