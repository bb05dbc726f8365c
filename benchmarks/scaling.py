"""One meta-iteration in one process and in two on the same cores: seconds, and what the ranks say to each other.

The last columns are predicted, not measured: as many tasks on every rank as one process has here, all reduced in a
ring over a network of the given latency and bandwidth.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

import torch
import tyro
from torch import distributed as torch_distributed

from common import Arguments, learner_for, report
from maml_rl.core.tree import of_one_seed
from maml_rl.machine import launch, ranks
from maml_rl.rl.method import MetaRL

PREDICTED = (8, 64, 512)


@dataclass(frozen=True)
class Scaling(Arguments):
    """The problem, small enough for a minute, and the network that is assumed."""

    tasks: int = 8
    episodes: int = 10
    horizon: int = 100
    repeats: int = 3
    latency_us: float = 30.0
    """From one machine to the next, as over TCP."""
    bandwidth_gb_s: float = 1.25
    """A 10 Gbit/s network."""


def measure(chosen: Scaling) -> None:
    """Iterations of this rank, after one that warms up; rank 0 prints their medians."""
    said: list[int] = []
    all_reduce = torch_distributed.all_reduce

    def counted(values: torch.Tensor, *options: object) -> None:
        said.append(values.nbytes)
        all_reduce(values, *options)

    torch_distributed.all_reduce = counted
    learner = learner_for(chosen)
    with launch.joined():
        method, theta, state, rows = MetaRL([learner]), of_one_seed(learner.initial_params()), {}, []
        for iteration in range(chosen.repeats + 1):
            said.clear()
            began = time.perf_counter()
            theta, state, (row,) = method.iterate(theta, state, iteration)
            for _ in ("saved", "stopped"):  # as in training, after every iteration
                ranks.any_rank(0)
            rows.append(
                {
                    "seconds": time.perf_counter() - began,
                    "sampling_seconds": row["seconds/sampling"],
                    "collectives": len(said),
                    "bytes": sum(said),
                    "parameters": sum(value.numel() for value in theta.values()),
                }
            )
        if ranks.is_main():
            print(json.dumps({name: statistics.median(row[name] for row in rows[1:]) for name in rows[0]}))
    learner.close()


def launched(ranks: int) -> dict[str, float]:
    """Return the figures that rank 0 of so many prints, each with its share of the cores."""
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), __file__, *sys.argv[1:]]
    done = subprocess.run([sys.executable, *command], stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Run both, and print them with what they let expect."""
    chosen = tyro.cli(Scaling, description=__doc__)
    if "RANK" in os.environ:
        measure(chosen)
        return
    one, two = launched(1), launched(2)
    found = {
        "seconds_1_rank": one["seconds"],
        "seconds_2_ranks": two["seconds"],
        "sampling_seconds_1_rank": one["sampling_seconds"],
        "sampling_seconds_2_ranks": two["sampling_seconds"],
        "efficiency": one["seconds"] / two["seconds"],
        "parameters": two["parameters"],
        "collectives": two["collectives"],
        "bytes": two["bytes"],
    }
    for count in PREDICTED:
        latency = 2 * (count - 1) * two["collectives"] * chosen.latency_us * 1e-6
        transfer = 2 * (count - 1) / count * two["bytes"] / (chosen.bandwidth_gb_s * 1e9)
        found[f"predicted_seconds_{count}_ranks"] = one["seconds"] + latency + transfer
        found[f"predicted_efficiency_{count}_ranks"] = one["seconds"] / (one["seconds"] + latency + transfer)
    report(found)


if __name__ == "__main__":
    main()
