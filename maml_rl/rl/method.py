"""Meta-reinforcement learning: the loop of the MAML paper's algorithm 3."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from maml_rl.core.seeds import to_rows
from maml_rl.core.streams import Purpose
from maml_rl.core.task_axis import TaskAxis
from maml_rl.core.tree import Params
from maml_rl.rl.diagnostics import compare_gradients
from maml_rl.rl.explore import Draw, Exploration, explore
from maml_rl.rl.learner import Learner
from maml_rl.rl.losses import ESTIMATORS
from maml_rl.rl.metrics import COUNTS, describe
from maml_rl.rl.objective import MetaObjective
from maml_rl.rl.outer import OUTER


@dataclass(frozen=True)
class MetaRL:
    """Meta-reinforcement learning of several seeds as one batch.

    Attributes:
        learners: Of each seed; they share the environments.
        names: What errors call them.
    """

    learners: Sequence[Learner]
    names: Sequence[str] = ("",)
    iterations_per_call = 1

    @property
    def title(self) -> str:
        """The environment's name, for the progress line."""
        return self.learners[0].config.env

    def iterate(
        self, theta: Params, state: Params, iteration: int, seeds: Sequence[int] | None = None
    ) -> tuple[Params, Params, list[dict[str, float]]]:
        """Sample tasks, adapt to each, and step theta: one turn of algorithm 3.

        Args:
            theta: The initial parameters, (S, ...).
            state: The outer optimiser's state, (S, ...); empty at first.
            iteration: Its number, which its random numbers follow from.
            seeds: Which of the learners take part; None for all.

        Returns:
            The next theta and state, and a row of metrics for each seed, whose seconds are its share of all seeds'.
        """
        began = time.perf_counter()
        learner, config = self.learners[0], self.learners[0].config
        draw = self.draw(iteration, range(len(self.learners)) if seeds is None else seeds)
        with draw.axis.together():
            data = explore(learner, theta, draw, [1.0] * config.trained_steps)
        explored = time.perf_counter()
        rows = draw.axis.average(describe(learner.policy, data), COUNTS)
        objective = meta_objective(learner, data)
        outer = OUTER[config.outer.name]
        moved, state, metrics = outer.step(theta, state, outer.objective(objective, config.outer), config.outer)
        seconds = {
            "seconds/sampling": data.sampling_seconds,
            "seconds/inner": explored - began - data.sampling_seconds,
            "seconds/outer": time.perf_counter() - explored,
        }
        more = to_rows(metrics)
        if config.compare_gradients and (iteration + 1) % config.compare_gradients == 0:
            more = [row | other for row, other in zip(more, to_rows(compare_gradients(objective, theta)), strict=True)]
        share = {name: spent / len(rows) for name, spent in seconds.items()}
        return moved, state, [row | other | share for row, other in zip(rows, more, strict=True)]

    def draw(self, iteration: int, seeds: Sequence[int]) -> Draw:
        """Draw this rank's tasks of an iteration."""
        learners, config = [self.learners[seed] for seed in seeds], self.learners[0].config
        axis = TaskAxis.of_this_rank(config.tasks, [self.names[seed] for seed in seeds])
        tasks = torch.cat([learner.training_tasks(iteration)[axis.own] for learner in learners])
        keys = torch.stack([learner.key(Purpose.TRAINING, iteration) for learner in learners])
        return Draw(axis, tasks, keys, config.trained_episodes)

    def score(self, row: dict[str, float]) -> float:
        """Score the theta that the iteration began with: the training return after adaptation."""
        return row[f"return/{self.learners[0].config.trained_steps}"]

    def message(self, row: dict[str, float]) -> str:
        """Say for the progress line how the return changed."""
        steps, score = self.learners[0].config.trained_steps, self.score(row)
        return f"return {row['return/0']:.1f} -> {score:.1f}" if steps else f"return {score:.1f}"


def meta_objective(learner: Learner, data: Exploration) -> MetaObjective:
    """Return the meta-objective on what was explored."""
    config = learner.config
    return MetaObjective(
        learner.policy,
        learner.inner,
        data.axis,
        data.batches,
        data.params_by_step,
        couples_steps=ESTIMATORS[config.inner.estimator].couples_steps,
        credit=exploration_credit(data, config.exploration, config.tasks),
    )


def exploration_credit(data: Exploration, weight: float, tasks: int) -> Tensor | None:
    """Credit for each task's exploration, (K S,): weight (R - R') / (T s), in units of the surrogate.

    R is the mean return after adaptation and R' that of the same task explored and adapted to again, which has its
    difficulty and nothing of the episodes that are credited; T is the mean length of an episode and s what advantages
    were divided by. Times the gradient of log p(episodes before adaptation), with weight 1, that is the part of the
    gradient of E R / (T s) that differentiating through the inner step leaves out (Stadie et al. 2018, equation 4).

    Args:
        data: What was sampled; two rows of each task, one after the other.
        weight: 0 for no credit.
        tasks: Rows of each seed, on all ranks.
    """
    if not weight:
        return None
    after, own = data.outcomes[-1], data.axis.own
    returns: Tensor = after.returns.mean(-1)
    others: Tensor = data.axis.gather(returns, tasks).unflatten(-1, (-1, 2)).flip(-1).flatten(-2)[:, own].flatten()
    length = after.steps.to(returns).mean(-1)
    return weight * (returns - others) / (length * after.scale.advantages)
