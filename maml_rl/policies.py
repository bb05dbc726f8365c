"""Policies as pure functions of parameters and observations."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from maml_rl.distributions import Normal
from maml_rl.types import Params

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "relu": torch.relu}


@dataclass(frozen=True)
class GaussianPolicy:
    """A multilayer perceptron for the mean, and a standard deviation that does not depend on the state.

    The logarithm of the standard deviation is a parameter (act,), adapted like every other and floored by a clamp.

    Attributes:
        observations: Width of an observation.
        actions: Width of an action.
        hidden: Widths of the hidden layers.
        activation: "tanh" or "relu".
        init_std: Standard deviation at initialisation.
        min_std: Its floor.
    """

    observations: int
    actions: int
    hidden: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    init_std: float = 1.0
    min_std: float = 1e-6

    def init(self, generator: torch.Generator) -> Params:
        """Glorot-uniform weights (inputs, outputs), zero biases, log_std = log(init_std)."""
        params: Params = {}
        widths = (self.observations, *self.hidden, self.actions)
        for index, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
            bound = math.sqrt(6 / (inputs + outputs))
            weight = torch.rand(inputs, outputs, generator=generator, dtype=torch.float64)
            params[f"{index}.weight"] = ((2 * weight - 1) * bound).to(torch.get_default_dtype())
            params[f"{index}.bias"] = torch.zeros(outputs)
        params["log_std"] = torch.full((self.actions,), math.log(self.init_std))
        return params

    def __call__(self, params: Params, observations: Tensor) -> Normal:
        """The action distribution, fields (..., act), for observations (..., obs).

        Parameters of one task, or stacked for K tasks with observations (K, ..., obs); the latter is what
        ``torch.func.vmap`` of the former gives, without its cost in every step of a rollout.
        """
        activation = ACTIVATIONS[self.activation]
        tasks = params["log_std"].shape[:-1]
        shape = observations.shape[:-1]
        hidden = observations.reshape(*tasks, -1, self.observations)
        for index in range(len(self.hidden)):
            hidden = activation(_affine(params[f"{index}.weight"], params[f"{index}.bias"], hidden))
        last = len(self.hidden)
        mean = _affine(params[f"{last}.weight"], params[f"{last}.bias"], hidden).reshape(*shape, self.actions)
        log_std = params["log_std"].clamp(min=math.log(self.min_std))
        return Normal(mean, log_std.reshape(*tasks, *[1] * (len(shape) - len(tasks)), self.actions).expand_as(mean))


def _affine(weight: Tensor, bias: Tensor, inputs: Tensor) -> Tensor:
    """Inputs (n, in) or (K, n, in), times weight plus bias."""
    if weight.dim() == 2:
        return torch.addmm(bias, inputs, weight)
    return torch.baddbmm(bias.unsqueeze(-2), inputs, weight)
