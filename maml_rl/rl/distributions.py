"""Action distributions as named tuples of their parameters."""

import math
from collections.abc import Iterator
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor


class Distribution(Protocol):
    """An action distribution: a named tuple of fields (..., act)."""

    def __iter__(self) -> Iterator[Tensor]:
        """Its fields."""

    def sample(self, noise: Tensor) -> Tensor:
        """An action (..., act) as a function of standard normal noise (..., act)."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density or log probability (...) of an action (..., act)."""

    def kl(self, other: Self) -> Tensor:
        """KL(self || other), (...)."""

    def entropy(self) -> Tensor:
        """Entropy, (...)."""

    def fisher(self, tangent: Self) -> Self:
        """The Fisher matrix in the fields, times a tangent."""

    def mode(self) -> Tensor:
        """The most probable action, (..., act)."""


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

    def mode(self) -> Tensor:
        """The mean."""
        return self.mean

    def std(self) -> Tensor:
        """Standard deviation, (..., act)."""
        return torch.exp(self.log_std)


class Categorical(NamedTuple):
    """One of n actions, each a one-hot row of the last axis: p = softmax(logits).

    A row of zeros, as in the steps after an episode's end, has log probability 0.
    """

    logits: Tensor  # (..., n)

    def log_probs(self) -> Tensor:
        """Log p of every action, (..., n)."""
        return torch.log_softmax(self.logits, -1)

    def sample(self, noise: Tensor) -> Tensor:
        """A one-hot row by the Gumbel-max trick: argmax(logits - log(-log u)), u = Phi(noise) uniform."""
        gumbel = -torch.log(-torch.special.log_ndtr(noise.double()))
        chosen = (self.logits + gumbel).argmax(-1, keepdim=True)
        return torch.zeros_like(self.logits).scatter(-1, chosen, 1.0)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log p of the action that the one-hot row ``value`` marks."""
        return (self.log_probs() * value).sum(-1)

    def kl(self, other: "Categorical") -> Tensor:
        """KL(self || other) = sum p (log p - log q)."""
        log_p = self.log_probs()
        return (log_p.exp() * (log_p - other.log_probs())).sum(-1)

    def entropy(self) -> Tensor:
        """Entropy -sum p log p, in nats."""
        log_p = self.log_probs()
        return -(log_p.exp() * log_p).sum(-1)

    def fisher(self, tangent: "Categorical") -> "Categorical":
        """The Fisher matrix in the logits, diag(p) - p p', times a tangent."""
        p = self.log_probs().exp()
        weighted = p * tangent.logits
        return Categorical(weighted - p * weighted.sum(-1, keepdim=True))

    def mode(self) -> Tensor:
        """The one-hot row of the most probable action."""
        return torch.zeros_like(self.logits).scatter(-1, self.logits.argmax(-1, keepdim=True), 1.0)
