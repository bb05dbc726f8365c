"""Meta-training: the loop of the MAML paper's algorithm 3."""

import time
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from maml_rl import distributed, torchrun
from maml_rl.config import Config
from maml_rl.diagnostics import compare_gradients
from maml_rl.distributions import Normal
from maml_rl.evaluate import evaluate_learner
from maml_rl.learner import Learner, build
from maml_rl.meta import Exploration, inner_kl
from maml_rl.outer import OUTER
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


def meta_iteration(learner: Learner, theta: Params, state: Params, iteration: int) -> tuple[Params, Params, Log]:
    """Sample tasks, adapt to each, and step theta: one turn of algorithm 3.

    Args:
        learner: What to sample and adapt with.
        theta: The initial parameters.
        state: The outer optimiser's state; empty at first.
        iteration: Its number, which its random numbers follow from.

    Returns:
        The next theta and state, and the iteration's metrics.
    """
    config = learner.config
    began = time.perf_counter()
    exploration = distributed.agreed(lambda: learner.explore_training(theta, iteration))
    live = sum(int(trajectory.mask.sum()) for trajectory in exploration.trajectories)
    own = describe(learner, exploration) | {"env_steps": live}
    row = distributed.mean_row(own, len(exploration.batches[0].weights), sums=("env_steps",))
    explored = time.perf_counter()
    objective = learner.objective(exploration)
    moved, state, log = OUTER[config.outer.name](theta, state, exploration, objective, config.outer)
    outer = time.perf_counter() - explored
    sampling = exploration.sampling_seconds
    seconds = {"sampling": sampling, "inner": explored - began - sampling, "outer": outer}
    row |= log | {f"seconds/{name}": value for name, value in seconds.items()}
    every = config.compare_gradients
    if every and (iteration + 1) % every == 0:
        row |= compare_gradients(learner, theta, exploration)
    return moved, state, row


@dataclass(frozen=True)
class MetaRL:
    """Meta-reinforcement learning, as the training loop takes it."""

    learner: Learner
    stride = 1

    @property
    def label(self) -> str:
        """The environment."""
        return self.learner.config.env

    def iterate(self, theta: Params, state: Params, iteration: int) -> tuple[Params, Params, Log]:
        """One meta-iteration."""
        return meta_iteration(self.learner, theta, state, iteration)

    def evaluate(self, theta: Params) -> tuple[Log, Pictures]:
        """Mean return, and share of successes, on held-out tasks after each gradient step, and pictures of these."""
        found = evaluate_learner(self.learner, theta)
        row = {f"evaluation/{k}": float(value) for k, value in enumerate(found.mean)}
        success = found.mean_success()
        if success is not None:
            row |= {f"evaluation/success/{k}": float(value) for k, value in enumerate(success)}
        from maml_rl.figures import png  # only a run that is evaluated in training needs matplotlib

        pictures = {"evaluation/adaptation": png(found.plot())}
        if self.learner.config.evaluation.film:
            from maml_rl.render import gif

            pictures["evaluation/film"] = gif(self.learner, theta)
        return row, pictures

    def progress(self, row: Log) -> tuple[float, str]:
        """The training return after adaptation, and how it changed."""
        steps = self.learner.config.trained_steps
        score = row[f"return/{steps}"]
        return score, f"return {row['return/0']:.1f} -> {score:.1f}" if steps else f"return {score:.1f}"


@torchrun.joined()
def meta_train(config: Config, out: Path | str, resume: bool = False, quiet: bool = False) -> Path:
    """Train, and write the run folder.

    Args:
        config: What to train.
        out: The run folder.
        resume: Continue from its checkpoint, if it has one.
        quiet: Show no progress.

    Returns:
        The run folder.

    Raises:
        InputError: The configuration or the folder cannot be used; nothing has been changed.
        FloatingPointError: Something became NaN or infinite; the state before that iteration is in failed.pt.
        WorkerError: A worker raised, died or stalled; the iterations before are saved.
        Stopped: By SIGINT or SIGTERM; everything is saved.
    """

    def checked() -> Learner:
        if config.evaluation.film:
            from maml_rl.render import refuse_undrawable

            refuse_undrawable(config)
        return build(config)

    return train(MetaRL(distributed.agreed(checked)), out, resume, quiet)
