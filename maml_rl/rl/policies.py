"""Policies as pure functions of parameters and observations."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from maml_rl.core.mlp import Perceptron
from maml_rl.core.tree import Params
from maml_rl.rl.distributions import Categorical, Distribution, Normal
from maml_rl.rl.own_network import OwnNetwork

CONTEXT = "context"
"""The parameter that joins every observation: a vector that can be all that adapts (CAVIA, Zintgraf et al. 2019)."""


@dataclass(frozen=True)
class Policy(ABC):
    """A multilayer perceptron from observations to what a distribution is made of.

    Attributes:
        observations: Width of an observation.
        actions: Width of an action: of a vector, or of a one-hot row.
        hidden: Widths of the hidden layers.
        activation: "tanh" or "relu".
        context: Width of the context vector; 0 for none.
        own: A user's network in place of the perceptron, with units of its own; None for none.
        units: What the perceptron gets each number of an observation divided by, (obs,); None for nothing.
    """

    observations: int
    actions: int
    hidden: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    context: int = 0
    own: OwnNetwork | None = None
    units: Tensor | None = None

    @abstractmethod
    def __call__(self, params: Params, observations: Tensor) -> Distribution:
        """The action distribution, fields (..., act), for observations (..., obs).

        Parameters of one task, or stacked for K tasks with observations (K, ..., obs); the latter is what
        ``torch.func.vmap`` of the former gives, without its cost in every step of a rollout.
        """

    def control(self, action: Tensor) -> Tensor:
        """Return what the environment gets for an action (..., act): a copy, which it may write into."""
        return action.clone()

    @property
    def head(self) -> frozenset[str]:
        """Names of the last layer's parameters."""
        if self.own is not None:
            return self.own.head
        last = len(self.hidden)
        return frozenset({f"{last}.weight", f"{last}.bias"})

    @property
    def network(self) -> Perceptron | OwnNetwork:
        """From an observation, joined by the context, to the distribution."""
        return self.own or Perceptron(self.observations + self.context, self.actions, self.hidden, self.activation)

    def init(self, generator: torch.Generator) -> Params:
        """The perceptron's parameters, and a context of zeros."""
        params = self.network.init(generator)
        return params | {CONTEXT: torch.zeros(self.context)} if self.context else params

    def outputs(self, params: Params, observations: Tensor) -> Tensor:
        """The last layer's values (..., act)."""
        if self.units is not None:
            observations = observations / self.units.to(observations)
        if not self.context:
            return self.network(params, observations)
        context = params[CONTEXT]
        between = [1] * (observations.dim() - context.dim())
        context = context.reshape(*context.shape[:-1], *between, self.context).expand(*observations.shape[:-1], -1)
        return self.network(params, torch.cat([observations, context], -1))


@dataclass(frozen=True)
class GaussianPolicy(Policy):
    """The perceptron gives the mean; the standard deviation does not depend on the state.

    The logarithm of the standard deviation is a parameter (act,), adapted like every other and floored by a clamp.

    Attributes:
        init_std: Standard deviation at initialisation.
        min_std: Its floor.
        action_scale: Its unit: the environment gets an action divided by this.
    """

    init_std: float = 1.0
    min_std: float = 1e-6
    action_scale: float = 1.0

    def control(self, action: Tensor) -> Tensor:
        """Return the action over its unit."""
        return action / self.action_scale

    def init(self, generator: torch.Generator) -> Params:
        """The perceptron's parameters, and log_std = log(init_std)."""
        return super().init(generator) | {"log_std": torch.full((self.actions,), math.log(self.init_std))}

    def __call__(self, params: Params, observations: Tensor) -> Normal:
        """A Gaussian, fields (..., act), for observations (..., obs)."""
        mean = self.outputs(params, observations)
        log_std = params["log_std"].clamp(min=math.log(self.min_std))
        between = [1] * (mean.dim() - log_std.dim())
        return Normal(mean, log_std.reshape(*log_std.shape[:-1], *between, self.actions).expand_as(mean))


@dataclass(frozen=True)
class CategoricalPolicy(Policy):
    """The perceptron gives the logits of ``actions`` discrete actions."""

    def __call__(self, params: Params, observations: Tensor) -> Categorical:
        """Logits (..., act) for observations (..., obs)."""
        return Categorical(self.outputs(params, observations))
