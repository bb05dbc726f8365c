"""Meta-reinforcement learning: the loop of the MAML paper's algorithm 3."""

import time
from collections.abc import Sequence

import torch

from maml_envs import InputError
from maml_rl.core.task_axis import run_names
from maml_rl.core.tree import Params, map_tensors
from maml_rl.machine import ranks
from maml_rl.rl.diagnostics import compare_gradients
from maml_rl.rl.learner import Learner, explore_training
from maml_rl.rl.metrics import describe, logs
from maml_rl.rl.outer import OUTER


def _joined(each: Sequence[Params]) -> Params:
    """What each run has, with a leading axis of runs, where the first run has it.

    Raises:
        InputError: One has what another has not.
    """
    if any(one.keys() != each[0].keys() for one in each):
        raise InputError("the checkpoints of the runs hold different states of the optimiser: continue them one by one")
    joined: Params = map_tensors(lambda first, *others: torch.stack([first, *(x.to(first) for x in others)]), *each)
    return joined


def meta_iteration(
    learners: Sequence[Learner],
    starts: Sequence[tuple[Params, Params]],
    iteration: int,
    names: Sequence[str] = (),
) -> list[tuple[Params, Params, dict[str, float]]]:
    """Sample tasks, adapt to each, and step theta: one turn of algorithm 3, of several runs as one batch.

    Args:
        learners: What each run samples and adapts with; they differ in the seed alone.
        starts: Of each run, the initial parameters and the outer optimiser's state, which is empty at first.
        iteration: Its number, which its random numbers follow from.
        names: What errors call the runs; by default their seeds, where there are several.

    Returns:
        Of each run, the next theta and state, and the iteration's metrics, whose seconds are those of all runs.
    """
    began = time.perf_counter()
    names = names or run_names([learner.config.seed for learner in learners])
    config, theta, state = learners[0].config, *map(_joined, zip(*starts, strict=True))
    exploration = ranks.agreed(lambda: explore_training(learners, theta, iteration, names))
    sampled = time.perf_counter()
    tasks = len(exploration.batches[0].weights) // len(learners)
    rows = ranks.mean_rows(logs(describe(learners[0], exploration)), tasks, sums=("env_steps",))
    objective = learners[0].objective(exploration)
    moved, after, measures = OUTER[config.outer.name](theta, state, exploration, objective, config.outer)
    outer = logs(measures)
    seconds = {
        "seconds/sampling": exploration.sampling_seconds,
        "seconds/inner": sampled - began - exploration.sampling_seconds,
        "seconds/outer": time.perf_counter() - sampled,
    }
    compared: list[dict[str, float]] = [{} for _ in learners]
    if config.compare_gradients and (iteration + 1) % config.compare_gradients == 0:
        compared = logs(compare_gradients(learners[0], theta, exploration))
    results = []
    for run in range(len(learners)):
        # A copy: a view would keep, and a checkpoint hold, the memory of all runs.
        own = map_tensors(lambda x, run=run: x[run].clone(), [moved, after])
        results.append((*own, rows[run] | outer[run] | seconds | compared[run]))
    return results
