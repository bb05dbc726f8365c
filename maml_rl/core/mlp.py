"""A multilayer perceptron as a pure function of its parameters."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from maml_rl.core.tree import Params

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "relu": torch.relu}


@dataclass(frozen=True)
class Perceptron:
    """Affine maps with a non-linearity between them.

    Attributes:
        inputs: Width of an input.
        outputs: Width of an output.
        hidden: Widths of the hidden layers.
        activation: "tanh" or "relu".
    """

    inputs: int
    outputs: int
    hidden: tuple[int, ...]
    activation: str = "tanh"

    def init(self, generator: torch.Generator) -> Params:
        """Glorot-uniform weights "<layer>.weight" (inputs, outputs), zero biases "<layer>.bias"."""
        params: Params = {}
        for index, (inputs, outputs) in enumerate(itertools.pairwise((self.inputs, *self.hidden, self.outputs))):
            bound = math.sqrt(6 / (inputs + outputs))
            weight = torch.rand(inputs, outputs, generator=generator, dtype=torch.float64)
            params[f"{index}.weight"] = ((2 * weight - 1) * bound).to(torch.get_default_dtype())
            params[f"{index}.bias"] = torch.zeros(outputs)
        return params

    def __call__(self, params: Params, inputs: Tensor) -> Tensor:
        """The last layer's values (..., outputs) for inputs (..., inputs).

        Parameters of one task, or stacked for K tasks with inputs (K, ..., inputs); the latter is what
        ``torch.func.vmap`` of the former gives, without its cost in every step of a rollout.
        """
        activation = ACTIVATIONS[self.activation]
        values = inputs.reshape(*params["0.bias"].shape[:-1], -1, self.inputs)
        for index in range(len(self.hidden)):
            values = activation(_affine(params[f"{index}.weight"], params[f"{index}.bias"], values))
        last = len(self.hidden)
        values = _affine(params[f"{last}.weight"], params[f"{last}.bias"], values)
        return values.reshape(*inputs.shape[:-1], self.outputs)


def _affine(weight: Tensor, bias: Tensor, inputs: Tensor) -> Tensor:
    """Inputs (n, in) or (K, n, in), times weight plus bias."""
    if weight.dim() == 2:
        return torch.addmm(bias, inputs, weight)
    return torch.baddbmm(bias.unsqueeze(-2), inputs, weight)
