"""The inner loop. It knows nothing of reinforcement learning: a loss, parameters, a batch, a rate."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from maml_rl.core.tree import Params, Rate

Data = TypeVar("Data")
Loss = Callable[[Params, Data], torch.Tensor]


def descend(params: Params, gradients: Params, lr: Rate) -> Params:
    """Return params - lr * gradients; ``lr`` is a number, or a tensor for each parameter by name."""
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


PREFIX = "lr."
"""A learned rate is an entry of theta: "lr." and the name of the parameter that it is for."""


def scaled(rate: Rate, factor: float) -> Rate:
    """The rate times a number."""
    return {name: factor * value for name, value in rate.items()} if isinstance(rate, dict) else factor * rate


@dataclass(frozen=True)
class Rates:
    """The inner rates of theta.

    Attributes:
        lr: The rate, or where a learned rate starts.
        adapted: Names of the parameters that adapt, the others having rate 0; None for all. The last layer alone is
            ANIL (Raghu et al. 2020); a context vector alone is CAVIA (Zintgraf et al. 2019), here with a learned
            start instead of zero.
        learned: A rate for every number that adapts, learned with theta (Meta-SGD, Li et al. 2017). As there, nothing
            keeps a rate positive: a negative one climbs the inner loss in that parameter.
    """

    lr: float
    adapted: frozenset[str] | None = None
    learned: bool = False

    def init(self, params: Params) -> Params:
        """Theta: the parameters, and after them the learned rates if there are any."""
        if not self.learned:
            return params
        adapted = params.keys() if self.adapted is None else self.adapted
        return params | {
            f"{PREFIX}{name}": torch.full_like(value, self.lr) for name, value in params.items() if name in adapted
        }

    def split(self, theta: Params) -> tuple[Params, Rate]:
        """The parameters of theta and the rate to adapt them with."""
        if not self.learned and self.adapted is None:
            return theta, self.lr
        params = {name: value for name, value in theta.items() if not name.startswith(PREFIX)}
        adapted = self.adapted or frozenset()
        rate = {name: torch.full_like(value, self.lr if name in adapted else 0.0) for name, value in params.items()}
        learned = {name.removeprefix(PREFIX): value for name, value in theta.items() if name.startswith(PREFIX)}
        return params, rate | learned


@dataclass(frozen=True)
class InnerLoop(Generic[Data]):
    """Adaptation to a task: its loss, rates and order.

    Attributes:
        loss: Of one task's parameters and data.
        rates: The inner rates in theta.
        first_order: Treat inner gradients as constants when differentiating the result (MAML paper, section 5.2).
    """

    loss: Loss[Data]
    rates: Rates
    first_order: bool = False

    def step(self, params: Params, batch: Data, lr: Rate) -> Params:
        """Take one inner step; see ``inner_step``."""
        return inner_step(self.loss, params, batch, lr, self.first_order)

    def adapt(self, params: Params, batches: Iterable[Data], lr: Rate) -> Params:
        """Take one inner step for each batch, in order; see ``adapt``."""
        return adapt(self.loss, params, batches, lr, self.first_order)
