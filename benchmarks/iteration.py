"""One whole meta-iteration: both rollouts, the inner step and the trust-region step, of one run or several seeds."""

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import tyro
from torch.profiler import ProfilerActivity, profile

from common import Arguments, gpu_memory, learner_for, peak_rss_mib, report
from maml_rl.core.tree import Params, stack
from maml_rl.rl.method import MetaRL


@dataclass(frozen=True)
class Iteration(Arguments):
    """The same, for several runs."""

    seeds: int = 1
    """Runs at once."""
    profile: bool = False
    """After that, show what one more iteration spends its time in, by operation (torch.profiler)."""


def show_profile(iterate: Callable[[], object], device: torch.device) -> None:
    """The twenty operations with most time of their own, on the device or on the CPU, on standard error."""
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=kinds) as found:
        iterate()
    table = found.key_averages().table(sort_by=f"self_{device.type}_time_total", row_limit=20)
    print(table, file=sys.stderr)


def measure(chosen: Iteration) -> dict[str, float]:
    """Medians over the iterations of a training run, after the first one, which warms up."""
    learner = learner_for(chosen)
    method = MetaRL([learner.with_seed(seed) for seed in range(1, chosen.seeds + 1)], [""] * chosen.seeds)
    theta, state = stack([each.initial_params() for each in method.learners]), Params()
    rows = []
    for iteration in range(chosen.repeats + 1):
        began = time.perf_counter()
        theta, state, metrics = method.iterate(theta, state, iteration)
        seconds = time.perf_counter() - began
        rows.append(metrics[0] | {"seconds": seconds, "env_steps": sum(row["env_steps"] for row in metrics)})
    del rows[0]
    median = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    found = {
        "seconds": median["seconds"],
        "sampling_seconds": chosen.seeds * median["seconds/sampling"],
        "inner_seconds": chosen.seeds * median["seconds/inner"],
        "outer_seconds": chosen.seeds * median["seconds/outer"],
        "env_steps": median["env_steps"],
        "steps_per_second": median["env_steps"] / median["seconds"],
        "seconds_per_million_steps": 1e6 * median["seconds"] / median["env_steps"],
        "peak_rss_mib": peak_rss_mib(),
        **gpu_memory(learner.device),
    }
    if chosen.profile:
        show_profile(lambda: method.iterate(theta, state, chosen.repeats + 1), learner.device)
    learner.close()
    return found


def main() -> None:
    """Print them."""
    chosen = tyro.cli(Iteration, description=__doc__)
    if chosen.seeds < 1:
        sys.exit(f"--seeds {chosen.seeds}: time one run or more")
    report(measure(chosen))


if __name__ == "__main__":
    main()
