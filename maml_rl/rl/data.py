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


def thin(batch: Batch, stride: int, whole_episodes: bool = False, start: int = 0) -> Batch:
    """Keep every ``stride``-th step, or episode, from ``start``; the weights sum to 1."""
    if stride == 1:
        return batch
    kept = slice(start, None, stride)
    kept_batch: Batch = map_tensors(lambda x: x[:, kept] if whole_episodes else x[:, :, kept], batch)
    return kept_batch._replace(weights=kept_batch.weights / kept_batch.weights.sum((-2, -1), keepdim=True))
