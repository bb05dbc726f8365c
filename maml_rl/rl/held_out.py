"""Adaptation to held-out tasks."""

import torch
from torch import Tensor

from maml_rl.config.rl import Config
from maml_rl.core.adapt import PREFIX
from maml_rl.core.streams import Purpose
from maml_rl.core.tree import Params
from maml_rl.rl.explore import Exploration
from maml_rl.rl.learner import Learner

RATE_FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)
"""What ``tune`` multiplies the configuration's inner rate with."""


def rate_factors(config: Config, steps: int) -> list[float]:
    """What each step at test multiplies the inner rate with: 1, and less after the first, or after those trained."""
    trained = max(1, config.trained_steps)
    return [1.0 if step < trained else config.evaluation.lr_after_first_step for step in range(steps)]


def explore_held_out(
    learner: Learner, theta: Params, tasks: int, episodes: int, steps: int, split: str
) -> tuple[Exploration, Tensor, list[float]]:
    """Adapt to the fixed held-out tasks: everything that was sampled, the tasks, and the rates."""
    held_out = learner.envs[0].held_out_tasks(tasks, split).to(learner.device)
    factors = rate_factors(learner.config, steps)
    exploration = learner.explore(theta, held_out, episodes, learner.key(Purpose.EVALUATION), factors)
    learned = [value.flatten() for name, value in theta.items() if name.startswith(PREFIX)]
    lr = float(torch.cat(learned).mean()) if learned else learner.rates.lr
    return exploration, held_out, [lr * factor for factor in factors]


def tune(learner: Learner, theta: Params, tasks: int, episodes: int) -> float:
    """The inner rate whose first step gives the highest mean return on tasks of the training distribution.

    Of the configuration's rate times each of ``RATE_FACTORS``; what a baseline that was not trained for any rate is
    granted.
    """
    drawn = learner.envs[0].sample_tasks(tasks, learner.generator(Purpose.TUNING)).to(learner.device)
    reached = {}
    for rate in (learner.config.inner.lr * factor for factor in RATE_FACTORS):
        found = learner.with_rate(rate).explore(theta, drawn, episodes, learner.key(Purpose.TUNING), [1.0])
        reached[rate] = float(found.trajectories[-1].returns().mean())
    return max(reached, key=lambda rate: reached[rate])
