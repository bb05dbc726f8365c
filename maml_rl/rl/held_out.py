"""Adaptation to held-out tasks."""

from typing import NamedTuple

import torch
from torch import Tensor

from maml_envs import TaskEnv
from maml_rl.config.rl import Config
from maml_rl.core.adapt import PREFIX
from maml_rl.core.streams import Purpose
from maml_rl.core.task_axis import TaskAxis
from maml_rl.core.tree import Params, of_one_seed
from maml_rl.rl.explore import Draw, Exploration, explore
from maml_rl.rl.learner import Learner

VALIDATION_SEED = 20170311
"""Tasks of the split "validation" are drawn from this seed, whatever the seed of training."""

RATE_FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)
"""Factors on the configuration's inner rate that ``tune`` tries."""


class HeldOut(NamedTuple):
    """Adaptation to the fixed held-out tasks."""

    draw: Draw
    exploration: Exploration
    lr: list[float]  # of each step; where it is learned, the mean over the numbers that adapt


def rate_factors(config: Config, steps: int) -> list[float]:
    """Return the factor on the inner rate of each step at test: 1, and less after the first, or after those trained."""
    trained = max(1, config.trained_steps)
    return [1.0 if step < trained else config.evaluation.lr_after_first_step for step in range(steps)]


def draw_for(learner: Learner, tasks: Tensor, episodes: int, purpose: Purpose, number: int = 0) -> Draw:
    """Draw episodes of given tasks for one run."""
    key = learner.key(purpose, number).unsqueeze(0)
    return Draw(TaskAxis(len(tasks)), tasks.to(learner.device), key, episodes)


def tasks_of(env: TaskEnv, count: int, split: str) -> Tensor:
    """Return the fixed tasks of a split that training does not draw.

    Args:
        env: Whose tasks.
        count: How many.
        split: "validation", of the training distribution, to choose settings by; "in", of it too, to report; "out",
            beyond it.
    """
    if split == "validation":
        return env.sample_tasks(count, torch.Generator().manual_seed(VALIDATION_SEED))
    return env.held_out_tasks(count, split)


def explore_held_out(learner: Learner, theta: Params, tasks: int, episodes: int, steps: int, split: str) -> HeldOut:
    """Adapt the parameters of one run to the fixed held-out tasks of a split."""
    draw = draw_for(learner, tasks_of(learner.env, tasks, split), episodes, Purpose.EVALUATION)
    factors = rate_factors(learner.config, steps)
    exploration = explore(learner, of_one_seed(theta), draw, factors)
    learned = [value.flatten() for name, value in theta.items() if name.startswith(PREFIX)]
    lr = float(torch.cat(learned).mean()) if learned else learner.inner.rates.lr
    return HeldOut(draw, exploration, [lr * factor for factor in factors])


def tune(learner: Learner, theta: Params, tasks: int, episodes: int) -> float:
    """Find the inner rate whose first step gives the highest mean return on tasks of the training distribution.

    Of the configuration's rate times each of ``RATE_FACTORS``; a baseline that was not trained for any rate is granted
    this.
    """
    drawn = learner.env.sample_tasks(tasks, learner.generator(Purpose.TUNING))
    draw = draw_for(learner, drawn, episodes, Purpose.TUNING)
    reached = {}
    for rate in (learner.config.inner.lr * factor for factor in RATE_FACTORS):
        exploration = explore(learner.with_rate(rate), of_one_seed(theta), draw, [1.0])
        reached[rate] = float(exploration.outcomes[-1].returns.mean())
    return max(reached, key=lambda rate: reached[rate])
