"""Action distributions as named tuples of their parameters."""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Normal(NamedTuple):
    """A Gaussian with diagonal covariance over the last axis.

    Fields have the same shape (..., act); log densities and divergences are summed over act and have shape (...).
    """

    mean: Tensor
    log_std: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """Mean + std * noise, for standard normal noise (..., act)."""
        return self.mean + self.log_std.exp() * noise

    def log_prob(self, value: Tensor) -> Tensor:
        """Log N(value; mean, std^2), summed over the last axis."""
        scaled = (value - self.mean) * (-self.log_std).exp()
        return -(0.5 * scaled.square() + self.log_std).sum(-1) - 0.5 * math.log(2 * math.pi) * value.shape[-1]

    def kl(self, other: "Normal") -> Tensor:
        """KL(self || other) = sum log(s'/s) + (s^2 + (m - m')^2) / (2 s'^2) - 1/2."""
        precision = (-2 * other.log_std).exp()
        spread = (2 * self.log_std).exp() + (self.mean - other.mean).square()
        return (other.log_std - self.log_std + 0.5 * spread * precision - 0.5).sum(-1)

    def entropy(self) -> Tensor:
        """Differential entropy, sum of log std + (1 + log 2 pi) / 2."""
        return (self.log_std + 0.5 * (1 + math.log(2 * math.pi))).sum(-1)

    def fisher(self, tangent: "Normal") -> "Normal":
        """The Fisher matrix in (mean, log_std), diag(1 / std^2, 2), times a tangent."""
        return Normal(tangent.mean * (-2 * self.log_std).exp(), 2 * tangent.log_std)

    def std(self) -> Tensor:
        """Standard deviation, (..., act)."""
        return torch.exp(self.log_std)


Distribution = Normal
