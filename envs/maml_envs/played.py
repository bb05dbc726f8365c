"""Episodes that are played with given actions, to look at and to compare."""

import time
from typing import NamedTuple

import torch
from torch import Tensor

from maml_envs import random
from maml_envs.task_env import TaskEnv

MOST_STEPS = 1000
"""Steps of an episode that are played at most."""


class Episodes(NamedTuple):
    """A batch of episodes, until the last has ended."""

    observations: Tensor  # (T + 1, batch, obs)
    rewards: Tensor  # (T, batch)
    live: Tensor  # (T, batch) bool: the step was one of the episode
    terminated: Tensor  # (batch,) bool
    truncated: Tensor  # (batch,) bool
    seconds: float


def random_actions(env: TaskEnv, steps: int, batch: int) -> Tensor:
    """Draw actions of an untrained policy, (steps, batch, act): standard normal numbers, or one-hot rows."""
    numbers = random.normal(random.fold_in(torch.arange(batch), 7), (steps, env.action_width)).float().transpose(0, 1)
    if env.discrete:
        numbers = torch.nn.functional.one_hot(numbers.argmax(-1), env.action_width).float()
    return numbers.to(env.device)


@torch.no_grad()
def play(env: TaskEnv, tasks: Tensor, seeds: Tensor, actions: Tensor) -> Episodes:
    """Play episodes with given actions (steps, batch, act)."""
    # Copies, which it may write into.
    observations = [env.reset(tasks.to(env.device, copy=True), seeds.to(env.device, copy=True)).cpu().clone()]
    ended = torch.zeros(2, len(seeds), dtype=torch.bool)
    rewards, live = [], []
    began = time.perf_counter()
    for action in actions:
        live.append(~ended.any(0))
        step = env.step(action.clone())
        ended = torch.where(live[-1], torch.stack((step.terminated.cpu(), step.truncated.cpu())), ended)
        observations.append(step.observation.cpu().clone())
        rewards.append(step.reward.cpu().clone())
        if ended.any(0).all():
            break
    seconds = time.perf_counter() - began
    terminated, truncated = ended
    stacked = (torch.stack(observations), torch.stack(rewards), torch.stack(live))
    return Episodes(*stacked, terminated, truncated, seconds)


def first_difference(one: Episodes, other: Episodes, steps: int | None = None, rounding: float = 0.0) -> str | None:
    """Describe where two batches that should be equal first differ; None where they do not."""
    if not torch.allclose(one.observations[0], other.observations[0], rounding, rounding, equal_nan=True):
        return "the first observation differs"
    none = torch.zeros_like(one.live[0])
    for t in range(min(max(len(one.live), len(other.live)), steps or MOST_STEPS)):
        live, others = (batch.live[t] if t < len(batch.live) else none for batch in (one, other))
        if not torch.equal(live, others):
            return f"at step {t} (counted from 0) other episodes have ended"
        if not live.any():
            break
        for name, a, b in (
            ("reward", one.rewards[t], other.rewards[t]),
            ("observation", one.observations[t + 1], other.observations[t + 1]),
        ):
            if not torch.allclose(a[live], b[live], rounding, rounding, equal_nan=True):
                return f"the {name} of step {t} (counted from 0) differs"
    return None


def row_of(episodes: Episodes, i: int) -> Episodes:
    """Return the episodes of one environment of a batch."""
    one = slice(i, i + 1)
    observations, rewards, live = (part[:, one] for part in (episodes.observations, episodes.rewards, episodes.live))
    return Episodes(observations, rewards, live, episodes.terminated[one], episodes.truncated[one], episodes.seconds)
