"""Meta-training: the loop of the MAML paper's algorithm 3."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from maml_rl import distributed
from maml_rl.config import Config
from maml_rl.diagnostics import compare_gradients
from maml_rl.distributions import Normal
from maml_rl.evaluate import evaluate_learner
from maml_rl.learner import Learner, build, explore_training
from maml_rl.meta import Exploration, inner_kl
from maml_rl.outer import OUTER
from maml_rl.rollout import names_of, of_run
from maml_rl.training import Log, Pictures, train
from maml_rl.types import Params


def describe(learner: Learner, exploration: Exploration) -> Log:
    """What one exploration shows: returns, successes, the policy's spread, how far and how well adaptation moved it."""
    row: Log = {}
    reached: list[Tensor] = []
    for k, trajectory in enumerate(exploration.trajectories):
        per_task = trajectory.returns().mean(-1)
        row[f"return/{k}"] = float(per_task.mean())
        if k > 0:
            row[f"gain/{k}"] = float((per_task - reached[-1]).mean())
        reached.append(per_task)
        if trajectory.success is not None:
            row[f"success/{k}"] = float(trajectory.success.float().mean())
        row[f"entropy/{k}"] = float(
            (trajectory.behaviour.entropy() * exploration.batches[k].weights).sum(-1).sum(-1).mean()
        )
        if isinstance(trajectory.behaviour, Normal):
            row[f"std/{k}"] = float(trajectory.behaviour.std()[:, 0, 0].mean())
    row["share_worse"] = float((reached[-1] < reached[0]).float().mean())
    row["kl/inner"] = inner_kl(learner.policy, exploration)
    return row


def meta_iteration(
    learners: Sequence[Learner], starts: Sequence[tuple[Params, Params]], iteration: int
) -> list[tuple[Params, Params, Log]]:
    """Sample tasks, adapt to each, and step theta: one turn of algorithm 3 for each of several runs.

    Args:
        learners: What each run samples and adapts with; they differ in the seed alone.
        starts: Of each run, the initial parameters and the outer optimiser's state, which is empty at first.
        iteration: Its number, which its random numbers follow from.

    Returns:
        Of each run, the next theta and state, and the iteration's metrics. The seconds of sampling and of the inner
        steps are those of all runs together.
    """
    began = time.perf_counter()
    thetas = [theta for theta, _ in starts]
    explored = distributed.agreed(lambda: explore_training(learners, thetas, iteration))
    sampling = explored[0].sampling_seconds
    seconds = {"seconds/sampling": sampling, "seconds/inner": time.perf_counter() - began - sampling}
    results, names = [], names_of([learner.config.seed for learner in learners])
    for learner, start, exploration, name in zip(learners, starts, explored, names, strict=True):
        with of_run(name):
            results.append(_outer_step(learner, start, exploration, iteration, seconds))
    return results


def _outer_step(
    learner: Learner, start: tuple[Params, Params], exploration: Exploration, iteration: int, seconds: Log
) -> tuple[Params, Params, Log]:
    config, (theta, state) = learner.config, start
    began = time.perf_counter()
    live = sum(int(trajectory.mask.sum()) for trajectory in exploration.trajectories)
    own = describe(learner, exploration) | {"env_steps": live}
    row = distributed.mean_row(own, len(exploration.batches[0].weights), sums=("env_steps",))
    objective = learner.objective(exploration)
    moved, state, log = OUTER[config.outer.name](theta, state, exploration, objective, config.outer)
    row |= log | seconds | {"seconds/outer": time.perf_counter() - began}
    every = config.compare_gradients
    if every and (iteration + 1) % every == 0:
        row |= compare_gradients(learner, theta, exploration)
    return moved, state, row


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
        return meta_iteration([self.learners[run] for run in runs], starts, iteration)

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
