"""The inner loop. It knows nothing of reinforcement learning: a loss, parameters, a batch, a rate."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch

from maml_rl.types import Params, Rate

Data = TypeVar("Data")
Loss = Callable[[Params, Data], torch.Tensor]


def descend(params: Params, gradients: Params, lr: Rate) -> Params:
    """The update itself, params - lr * gradients; ``lr`` is a number, or a tensor for each parameter by name."""
    rates = lr if isinstance(lr, dict) else dict.fromkeys(params, lr)
    return {name: value - rates[name] * gradients[name] for name, value in params.items()}


def inner_step(loss: Loss[Data], params: Params, batch: Data, lr: Rate, first_order: bool = False) -> Params:
    """One gradient step for one task, params - lr * grad loss(params, batch). Nothing is changed in place.

    Args:
        loss: Scalar function of parameters and a batch.
        params: Where to start.
        batch: The task's data.
        lr: A number, or a tensor for each parameter by name.
        first_order: Treat the gradient as a constant when differentiating the result (MAML paper, section 5.2).

    Returns:
        New parameters, differentiable in the old ones (and in ``lr``).
    """
    gradients = torch.func.grad(loss)(params, batch)
    if first_order:
        gradients = {name: gradient.detach() for name, gradient in gradients.items()}
    return descend(params, gradients, lr)


def adapt(loss: Loss[Data], params: Params, batches: Iterable[Data], lr: Rate, first_order: bool = False) -> Params:
    """One inner step for each batch, in order (MAML paper, equation 1). No batch returns the parameters unchanged."""
    for batch in batches:
        params = inner_step(loss, params, batch, lr, first_order)
    return params
