"""Trajectories, and the batches that losses take. Axes: tasks K, episodes B, steps T, feature."""

from typing import NamedTuple

import torch
from torch import Tensor

from maml_rl.core.tree import map_tensors
from maml_rl.rl.distributions import Distribution


class Trajectory(NamedTuple):
    """Sampled episodes. A loss cannot take them: they have no advantages."""

    observations: Tensor  # (K, B, T, obs)
    actions: Tensor  # (K, B, T, act)  raw samples of the policy
    rewards: Tensor  # (K, B, T)
    mask: Tensor  # (K, B, T) bool  True while the episode lives; True for its last step
    truncated: Tensor  # (K, B) bool     ended by a time limit and not by the task
    final_observations: Tensor  # (K, B, obs)     after the last live step
    behaviour: Distribution  # fields (K, B, T, act): what the actions were drawn from
    success: Tensor | None = None  # (K, B) bool: in some live step; None where the environment reports none

    @property
    def steps(self) -> int:
        """T, at most the horizon: the steps in which an episode lived."""
        return self.mask.shape[2]

    def padded(self, steps: int) -> "Trajectory":
        """Return it with T = steps, zeros and False in those that are added."""
        missing = steps - self.steps
        if not missing:
            return self

        def pad(x: Tensor) -> Tensor:
            return torch.cat([x, x.new_zeros(*x.shape[:2], missing, *x.shape[3:])], 2)

        of_steps = ("observations", "actions", "rewards", "mask", "behaviour")
        return self._replace(**{name: map_tensors(pad, getattr(self, name)) for name in of_steps})

    def returns(self) -> Tensor:
        """Undiscounted return of each episode, (K, B)."""
        return torch.where(self.mask, self.rewards, 0.0).sum(-1)


class Batch(NamedTuple):
    """Input of a loss. Entries after an episode's end are zero."""

    observations: Tensor  # (K, B, T, obs)
    actions: Tensor  # (K, B, T, act)
    advantages: Tensor  # (K, B, T)  normalised over each task's live steps
    weights: Tensor  # (K, B, T)  1 / (the task's live steps) where live, else 0: a weighted sum is a mean
    behaviour: Distribution  # fields (K, B, T, act)


def every_episode(batch: Batch, stride: int, start: int = 0) -> Batch:
    """Keep every ``stride``-th episode from ``start``; the weights sum to 1."""
    kept: Batch = map_tensors(lambda x: x[:, start::stride], batch)
    return _weighted(kept)


def every_step(batch: Batch, stride: int) -> Batch:
    """Keep every ``stride``-th step, of episode b those with (t + b) % stride = 0; the weights sum to 1.

    Staggered, as steps of the same time are alike in all episodes.
    """
    _, episodes, steps = batch.weights.shape
    rows = torch.arange(episodes, device=batch.weights.device).unsqueeze(-1)
    columns = torch.arange(0, steps, stride, device=rows.device) + (-rows) % stride
    inside = columns < steps
    columns = columns.clamp(max=steps - 1)
    kept: Batch = map_tensors(lambda x: x[:, rows, columns], batch)
    return _weighted(kept._replace(weights=kept.weights * inside))


def _weighted(batch: Batch) -> Batch:
    return batch._replace(weights=batch.weights / batch.weights.sum((-2, -1), keepdim=True))
