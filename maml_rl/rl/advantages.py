"""From rewards to returns and advantages. Step axis last; a mask marks the steps before each episode's end."""

from typing import NamedTuple

import torch
from torch import Tensor

from maml_rl.config.rl import Config
from maml_rl.core.tree import map_tensors
from maml_rl.rl.baselines import BASELINES
from maml_rl.rl.data import Batch, Trajectory
from maml_rl.rl.linear_baseline import Samples


def discounted_returns(rewards: Tensor, mask: Tensor, discount: float, bootstrap: Tensor | None = None) -> Tensor:
    """R_t = r_t + discount * R_{t+1}, with R = bootstrap after the last live step.

    Args:
        rewards: (..., T).
        mask: (..., T) bool, True while the episode lives.
        discount: In [0, 1].
        bootstrap: (...) value of what follows the last live step; None for 0, the finite-horizon protocol.

    Returns:
        (..., T), zero where the mask is False.
    """
    return gae(rewards, torch.zeros_like(rewards), mask, discount, 1.0, bootstrap)


def gae(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    discount: float,
    decay: float,
    bootstrap: Tensor | None = None,
) -> Tensor:
    """Generalised advantage estimates (Schulman et al. 2016, equation 16).

    A_t = d_t + discount * decay * A_{t+1},  d_t = r_t + discount * V_{t+1} - V_t, in log2 T operations on whole
    episodes rather than T on their steps.

    Args:
        rewards: (..., T).
        values: (..., T) baseline.
        mask: (..., T) bool, True while the episode lives: from its first step to its last.
        discount: In [0, 1].
        decay: Lambda, in [0, 1]; at 1 an advantage is the discounted return minus the baseline.
        bootstrap: (...) value after the last live step; None for 0.

    Returns:
        (..., T), zero where the mask is False.
    """
    ahead = torch.zeros_like(rewards[..., :1]) if bootstrap is None else bootstrap.unsqueeze(-1)
    following = torch.cat([torch.where(mask[..., 1:], values[..., 1:], ahead), ahead], -1)
    advantages = torch.where(mask, rewards + discount * following - values, 0.0)
    # After this many of the d's ahead have been added up, the sum from there on has as many more.
    added, horizon = 1, rewards.shape[-1]
    while added < horizon:
        later = torch.nn.functional.pad(advantages[..., added:], (0, added))
        advantages = advantages + (discount * decay) ** added * later
        added *= 2
    return torch.where(mask, advantages, 0.0)


class Scale(NamedTuple):
    """Sizes of a batch, for each of K tasks."""

    returns: Tensor  # (K,) root mean square of live steps' discounted returns; the largest since it began to adapt
    advantages: Tensor  # (K,) that advantages were divided by; 1 where they are not


def normalise(advantages: Tensor, mask: Tensor, least: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
    """(A - mean) / (max(standard deviation, least) + 1e-8) over one task's live steps; population standard deviation.

    Args:
        advantages: (B, T) or (K, B, T); the last two axes are pooled.
        mask: The same shape, bool.
        least: A number, or one for each task, (K,).

    Returns:
        The same shape, zero where the mask is False, and what was divided by, () or (K,).
    """
    count = mask.sum((-2, -1), keepdim=True)
    live = torch.where(mask, advantages, 0.0)
    centred = torch.where(mask, live - live.sum((-2, -1), keepdim=True) / count, 0.0)
    std = (centred.square().sum((-2, -1), keepdim=True) / count).sqrt()
    divisor = std[..., 0, 0].clamp(min=torch.as_tensor(least).to(std)) + 1e-8
    return centred / divisor[..., None, None], divisor


def to_batch(
    trajectory: Trajectory, config: Config, seeds: int = 1, before: Scale | None = None
) -> tuple[Batch, Scale]:
    """Take advantages against a baseline that is fitted on this very trajectory.

    They are divided by their standard deviation, but by no less than ``advantage_floor`` of the returns' size: where
    the returns of a task hardly differ, or no longer do as an earlier inner step has solved it, what is left is noise.

    Args:
        trajectory: Of K S tasks.
        config: Its baseline, discounts, and what follows a time limit.
        seeds: S, of which there are as many tasks each; nothing of one depends on another.
        before: Sizes of the same tasks' batch before the last inner step; None where this is the first.
    """
    mask, discount, bootstraps = trajectory.mask, config.discount, config.bootstrap_on_truncation
    observations = torch.where(mask.unsqueeze(-1), trajectory.observations, 0.0)
    actions = torch.where(mask.unsqueeze(-1), trajectory.actions, 0.0)
    rewards = torch.where(mask, trajectory.rewards, 0.0)
    returns = discounted_returns(rewards, mask, discount)
    times = torch.arange(mask.shape[-1], device=mask.device)
    length = mask.sum(-1)
    remaining_discount = bootstrap = None
    if bootstraps:
        left = length.unsqueeze(-1) - times
        remaining_discount = torch.where(trajectory.truncated.unsqueeze(-1) & mask, discount**left, 0.0)
    samples = Samples(observations, returns, mask, trajectory.final_observations, remaining_discount, seeds)
    value = BASELINES[config.baseline.name](samples)
    if bootstraps:
        bootstrap = torch.where(trajectory.truncated, value(trajectory.final_observations, length), 0.0)
    advantages = gae(rewards, value(observations, times), mask, discount, config.gae_lambda, bootstrap)
    size = (returns.square().sum((-2, -1)) / mask.sum((-2, -1))).sqrt()
    size = size if before is None else torch.maximum(size, before.returns)
    scale = Scale(size, torch.ones_like(size))
    if config.normalise_advantages:
        advantages, divisor = normalise(advantages, mask, config.advantage_floor * size)
        scale = scale._replace(advantages=divisor)
    weights = mask.to(rewards.dtype) / mask.sum((-2, -1), keepdim=True)
    behaviour = map_tensors(lambda field: torch.where(mask.unsqueeze(-1), field, 0.0), trajectory.behaviour)
    return Batch(observations, actions, advantages, weights, behaviour), scale
