"""What the benchmarks share: their flags, a learner with data to work on, and how they print."""

import json
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import tyro
from torch import Tensor

from maml_rl.config.rl import Config, Evaluation, Outer, Policy
from maml_rl.core.streams import Purpose
from maml_rl.core.task_axis import TaskAxis
from maml_rl.core.tree import Params, of_one_seed
from maml_rl.machine.device import set_up
from maml_rl.rl.data import Trajectory
from maml_rl.rl.explore import explore
from maml_rl.rl.learner import Learner, build
from maml_rl.rl.method import MetaRL, meta_objective
from maml_rl.rl.objective import MetaObjective


@dataclass(frozen=True)
class Arguments:
    """Size of the problem; the defaults are the comparison that published packages were timed on."""

    env: str = "half-cheetah-dir"
    preset: str = "gymnasium"
    tasks: int = 20
    episodes: int = 20
    horizon: int = 200
    hidden: tuple[int, ...] = (100, 100)
    device: str = "cpu"
    outer: Literal["trpo", "promp", "adam"] = "trpo"
    repeats: int = 5


def arguments(description: str | None) -> Arguments:
    """Read the command line."""
    return tyro.cli(Arguments, description=description)


def learner_for(chosen: Arguments) -> Learner:
    """Environments and policy of that size, with all threads."""
    set_up(chosen.device, threads=0)
    return build(
        Config(
            env=chosen.env,
            preset=chosen.preset,
            horizon=chosen.horizon,
            tasks=chosen.tasks,
            episodes=chosen.episodes,
            device=chosen.device,
            policy=Policy(hidden=chosen.hidden),
            outer=Outer(name=chosen.outer),
            evaluation=Evaluation(),
        )
    )


def explored(learner: Learner) -> tuple[Params, MetaObjective]:
    """Initial parameters (1, ...), and the meta-objective of one exploration from them."""
    theta = of_one_seed(learner.initial_params())
    draw = MetaRL([learner]).draw(0, [0])
    data = explore(learner, theta, draw, [1.0] * learner.config.trained_steps)
    return theta, meta_objective(learner, data)


def episodes_of(learner: Learner, tasks: Tensor, episodes: int) -> Trajectory:
    """A rollout with the initial policy for each task."""
    axis = TaskAxis(len(tasks))
    params = axis.spread(of_one_seed(learner.initial_params()))
    keys = learner.key(Purpose.TRAINING).unsqueeze(0)
    return learner.sampler.sample(params, tasks, episodes, keys, axis)


def seconds(function: Callable[[], object]) -> float:
    """Wall clock of one call."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def median_seconds(function: Callable[[], object], repeats: int) -> float:
    """Median wall clock of repeated calls, after one that warms up."""
    function()
    return statistics.median(seconds(function) for _ in range(repeats))


def peak_rss_mib() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def gpu_memory(device: torch.device) -> dict[str, float]:
    """MiB of a GPU in use by all libraries, warp's too, and the most of torch's alone so far; nothing on a CPU."""
    if device.type != "cuda":
        return {}
    free, total = torch.cuda.mem_get_info(device)
    return {
        "gpu_mib_in_use": (total - free) / 2**20,
        "torch_peak_mib": torch.cuda.max_memory_allocated(device) / 2**20,
    }


def report(rows: dict[str, float]) -> None:
    """Print a table and, last, one line of JSON."""
    for name, value in rows.items():
        print(f"{name:<36} {value:>12,.3f}")
    print(json.dumps(rows))
