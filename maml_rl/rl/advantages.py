"""From rewards to returns and advantages. Step axis last; a mask marks the steps before each episode's end."""

import torch
from torch import Tensor

from maml_rl.config.rl import Config
from maml_rl.core.tree import map_tensors
from maml_rl.rl.baselines import BASELINES, Samples
from maml_rl.rl.data import Batch, Trajectory


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


def normalise(advantages: Tensor, mask: Tensor) -> Tensor:
    """(A - mean) / (standard deviation + 1e-8) over one task's live steps; population standard deviation.

    Args:
        advantages: (B, T) or (K, B, T); the last two axes are pooled.
        mask: The same shape, bool.

    Returns:
        The same shape, zero where the mask is False.
    """
    count = mask.sum((-2, -1), keepdim=True)
    live = torch.where(mask, advantages, 0.0)
    centred = torch.where(mask, live - live.sum((-2, -1), keepdim=True) / count, 0.0)
    std = (centred.square().sum((-2, -1), keepdim=True) / count).sqrt()
    return centred / (std + 1e-8)


def to_batch(trajectory: Trajectory, config: Config, seeds: int = 1) -> Batch:
    """Take advantages against a baseline that is fitted on this very trajectory.

    Args:
        trajectory: Of K S tasks.
        config: Its baseline, discounts, and what follows a time limit.
        seeds: S, of which there are as many tasks each; nothing of one depends on another.
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
    if config.normalise_advantages:
        advantages = normalise(advantages, mask)
    weights = mask.to(rewards.dtype) / mask.sum((-2, -1), keepdim=True)
    behaviour = map_tensors(lambda field: torch.where(mask.unsqueeze(-1), field, 0.0), trajectory.behaviour)
    return Batch(observations, actions, advantages, weights, behaviour)
