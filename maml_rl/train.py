"""Meta-training: the loop of the MAML paper's algorithm 3."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from maml_envs import InputError
from maml_rl import distributed
from maml_rl.config import Config
from maml_rl.diagnostics import compare_gradients
from maml_rl.distributions import Normal
from maml_rl.evaluate import evaluate_learner
from maml_rl.learner import Learner, build, explore_training
from maml_rl.meta import Exploration, inner_kl
from maml_rl.outer import OUTER, Measures
from maml_rl.training import Log, Pictures, train
from maml_rl.types import Params, map_tensors, run_names, sum_tasks


def describe(learner: Learner, exploration: Exploration) -> Measures:
    """What an exploration shows of each run, (*runs): returns, successes, the policy's spread, how adaptation moved it.

    Means over tasks, and the environment steps.
    """

    def mean(per_task: Tensor) -> Tensor:
        each: Tensor = per_task.unflatten(0, (*exploration.runs, -1)).mean(-1)
        return each

    row: Measures = {}
    reached: list[Tensor] = []
    for k, trajectory in enumerate(exploration.trajectories):
        reached.append(trajectory.returns().mean(-1))
        row[f"return/{k}"] = mean(reached[k])
        if k > 0:
            row[f"gain/{k}"] = mean(reached[k] - reached[k - 1])
        if trajectory.success is not None:
            row[f"success/{k}"] = mean(trajectory.success.float().mean(-1))
        row[f"entropy/{k}"] = mean((trajectory.behaviour.entropy() * exploration.batches[k].weights).sum((-2, -1)))
        if isinstance(trajectory.behaviour, Normal):
            row[f"std/{k}"] = mean(trajectory.behaviour.std()[:, 0, 0].mean(-1))
    row["share_worse"] = mean((reached[-1] < reached[0]).float())
    row["kl/inner"] = mean(inner_kl(learner.policy, exploration))
    live = torch.stack([trajectory.mask.sum((-2, -1)) for trajectory in exploration.trajectories], -1).sum(-1)
    row["env_steps"] = sum_tasks(live, exploration.runs)
    return row


def logs(measures: Measures) -> list[Log]:
    """A row for each run of what each of R runs has measured, (R,); read at once from each device that it is on."""
    found: dict[str, list[float]] = {}
    for device in {values.device for values in measures.values()}:
        there = {name: values.double() for name, values in measures.items() if values.device == device}
        found |= zip(there, torch.stack(list(there.values())).tolist(), strict=True)
    columns = zip(*(found[name] for name in measures), strict=True)
    return [dict(zip(measures, column, strict=True)) for column in columns]


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
) -> list[tuple[Params, Params, Log]]:
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
    exploration = distributed.agreed(lambda: explore_training(learners, theta, iteration, names))
    sampled = time.perf_counter()
    tasks = len(exploration.batches[0].weights) // len(learners)
    rows = distributed.mean_rows(logs(describe(learners[0], exploration)), tasks, sums=("env_steps",))
    objective = learners[0].objective(exploration)
    moved, after, measures = OUTER[config.outer.name](theta, state, exploration, objective, config.outer)
    outer = logs(measures)
    seconds = {
        "seconds/sampling": exploration.sampling_seconds,
        "seconds/inner": sampled - began - exploration.sampling_seconds,
        "seconds/outer": time.perf_counter() - sampled,
    }
    compared: list[Log] = [{} for _ in learners]
    if config.compare_gradients and (iteration + 1) % config.compare_gradients == 0:
        compared = logs(compare_gradients(learners[0], theta, exploration))
    results = []
    for run in range(len(learners)):
        # A copy: a view would keep, and a checkpoint hold, the memory of all runs.
        own = map_tensors(lambda x, run=run: x[run].clone(), [moved, after])
        results.append((*own, rows[run] | outer[run] | seconds | compared[run]))
    return results


@dataclass(frozen=True)
class MetaRL:
    """Meta-reinforcement learning, as the training loop takes it."""

    learners: Sequence[Learner]
    stride = 1

    @property
    def label(self) -> str:
        """The environment."""
        return self.learners[0].config.env

    def iterate(
        self, runs: Sequence[int], starts: Sequence[tuple[Params, Params]], iteration: int
    ) -> list[tuple[Params, Params, Log]]:
        """One meta-iteration of these runs."""
        names = run_names([learner.config.seed for learner in self.learners])
        return meta_iteration(
            [self.learners[run] for run in runs], starts, iteration, [names[run] for run in runs if names]
        )

    def evaluate(self, run: int, theta: Params) -> tuple[Log, Pictures]:
        """Mean return, and share of successes, on held-out tasks after each gradient step, and pictures of these."""
        learner = self.learners[run]
        found = evaluate_learner(learner, theta)
        row = {f"evaluation/{k}": float(value) for k, value in enumerate(found.mean)}
        success = found.mean_success()
        if success is not None:
            row |= {f"evaluation/success/{k}": float(value) for k, value in enumerate(success)}
        from maml_rl.figures import png  # only a run that is evaluated in training needs matplotlib

        pictures = {"evaluation/adaptation": png(found.plot())}
        if learner.config.evaluation.film:
            from maml_rl.render import gif

            pictures["evaluation/film"] = gif(learner, theta)
        return row, pictures

    def progress(self, row: Log) -> tuple[float, str]:
        """The training return after adaptation, and how it changed."""
        steps = self.learners[0].config.trained_steps
        score = row[f"return/{steps}"]
        return score, f"return {row['return/0']:.1f} -> {score:.1f}" if steps else f"return {score:.1f}"


def meta_train(config: Config, out: Path | str, resume: bool = False, quiet: bool = False) -> Path:
    """Train, and write the run folder; see ``meta_train_seeds``."""
    return train(partial(_build, config), MetaRL, {config.seed: out}, resume, quiet, f"--resume --out {out}")[0]


def meta_train_seeds(
    config: Config, outs: Mapping[int, Path | str], resume: bool = False, quiet: bool = False
) -> list[Path]:
    """Train several runs that differ in the seed alone, their episodes sampled as one batch.

    Each is what it would be alone, up to the rounding of matrix products of another size.

    Args:
        config: What to train.
        outs: The run folder of each seed.
        resume: Continue from their checkpoints where they have one; runs that are behind catch up first.
        quiet: Show no progress.

    Returns:
        The run folders.

    Raises:
        InputError: The configuration, a seed or a folder cannot be used; nothing has been changed.
        FloatingPointError: Something became NaN or infinite in one of them, which ends all; the state of each before
            that iteration is in its failed.pt.
        WorkerError: A worker raised, died or stalled; the iterations before are saved.
        Stopped: By SIGINT or SIGTERM; everything is saved.
    """
    return train(partial(_build, config), MetaRL, outs, resume, quiet, "--resume")


def _build(config: Config) -> Learner:
    if config.evaluation.film:
        from maml_rl.render import refuse_undrawable

        refuse_undrawable(config)
    return build(config)
