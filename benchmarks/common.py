"""What the benchmarks share: their flags, a learner with data to work on, and how they print."""

import json
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import tyro

from maml_rl.config.rl import Config, Evaluation, Outer, Policy
from maml_rl.core.tree import Params
from maml_rl.rl.explore import Exploration
from maml_rl.rl.learner import Learner, build
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
    """Environments and policy of that size."""
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


def explored(learner: Learner) -> tuple[Params, Exploration, MetaObjective]:
    """Initial parameters, one exploration from them, and its meta-objective."""
    theta = learner.initial_params()
    found = learner.explore_training(theta, 0)
    return theta, found, learner.objective(found)


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


def report(rows: dict[str, float]) -> None:
    """Print a table and, last, one line of JSON."""
    for name, value in rows.items():
        print(f"{name:<36} {value:>12,.3f}")
    print(json.dumps(rows))
