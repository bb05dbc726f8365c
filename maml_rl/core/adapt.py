"""The inner loop. It knows nothing of reinforcement learning: a loss, parameters, a batch, a rate."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

import torch
from torch import Tensor

from maml_rl.core.tree import Params, Rate

Data = TypeVar("Data")
Loss = Callable[[Params, Data], torch.Tensor]


def descend(params: Params, gradients: Params, lr: Rate) -> Params:
    """Return params - lr * gradients; ``lr`` is a number, or a tensor for each parameter by name.

    Parameters without a gradient stay as they are.
    """
    rates = lr if isinstance(lr, dict) else dict.fromkeys(params, lr)
    return params | {name: params[name] - rates[name] * gradient for name, gradient in gradients.items()}


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
        whole: One learned rate for each parameter tensor, a layer's weights or biases, and not for each of its numbers.
        steps: Learned rates for each of so many steps, the last one's for all after it; 0 for the same at every step.
            With ``whole``, MAML++'s (Antoniou et al. 2019, section 4, LSLR).
    """

    lr: float
    adapted: frozenset[str] | None = None
    learned: bool = False
    whole: bool = False
    steps: int = 0

    def init(self, params: Params) -> Params:
        """Theta: the parameters, and after them the learned rates if there are any."""
        if not self.learned:
            return params
        adapted = params.keys() if self.adapted is None else self.adapted
        return params | {f"{PREFIX}{name}": self._start(value) for name, value in params.items() if name in adapted}

    def _start(self, value: Tensor) -> Tensor:
        shape = (1,) * value.dim() if self.whole else value.shape
        return value.new_full((self.steps, *shape) if self.steps else shape, self.lr)

    def split(self, theta: Params) -> tuple[Params, Rate]:
        """The parameters of theta and the rate to adapt them with."""
        if not self.learned and self.adapted is None:
            return theta, self.lr
        params = {name: value for name, value in theta.items() if not name.startswith(PREFIX)}
        adapted = self.adapted or frozenset()
        rate = {name: torch.full_like(value, self.lr if name in adapted else 0.0) for name, value in params.items()}
        learned = {name.removeprefix(PREFIX): value for name, value in theta.items() if name.startswith(PREFIX)}
        if self.steps:
            rate = {name: value.expand(self.steps, *value.shape) for name, value in rate.items()}
        return params, rate | learned

    def of_step(self, rate: Rate, step: int) -> Rate:
        """Return the rate of a step, counted from 0."""
        if not (self.steps and self.learned):
            return rate
        assert isinstance(rate, dict)
        return {name: value[min(step, self.steps - 1)] for name, value in rate.items()}


@dataclass(frozen=True)
class InnerLoop(Generic[Data]):
    """Adaptation to a task by gradient steps on its loss. Nothing is changed in place.

    Attributes:
        loss: Scalar function of one task's parameters and data.
        rates: The inner rates in theta.
        first_order: Treat inner gradients as constants when differentiating the result (MAML paper, section 5.2).
        mapped: It may run under ``torch.vmap``, for which gradients are ``torch.func``'s; those of a task that is
            alone are ``torch.autograd``'s, which are the same and take less time.
    """

    loss: Loss[Data]
    rates: Rates
    first_order: bool = False
    mapped: bool = True

    def step(self, params: Params, batch: Data, lr: Rate) -> Params:
        """Take one gradient step, params - lr * grad loss(params, batch) (MAML paper, equation 1).

        Args:
            params: Where to start.
            batch: The task's data.
            lr: A number, or a tensor for each parameter by name.

        Returns:
            New parameters, differentiable in the old ones (and in ``lr``).
        """
        gradients = self._gradients(params, batch)
        if self.first_order:
            gradients = {name: gradient.detach() for name, gradient in gradients.items()}
        return descend(params, gradients, lr)

    def _gradients(self, params: Params, batch: Data) -> Params:
        """Gradient of the loss in the parameters that adapt."""
        names = params.keys() if self.rates.adapted is None else self.rates.adapted
        own = {name: value for name, value in params.items() if name in names}
        if self.mapped:
            found: Params = torch.func.grad(lambda own: self.loss(params | own, batch))(own)
            return found
        further = torch.is_grad_enabled() and not self.first_order and any(x.requires_grad for x in params.values())
        with torch.enable_grad():
            own = {name: x if x.requires_grad else x.detach().requires_grad_() for name, x in own.items()}
            slopes = torch.autograd.grad(
                self.loss(params | own, batch), list(own.values()), create_graph=further, materialize_grads=True
            )
        return dict(zip(own, slopes, strict=True))

    def careful_step(self, params: Params, batch: Data, lr: Rate, backtracks: int) -> Params:
        """Take a gradient step that lowers the loss: the longest of 1, 1/2, ..., 2^-backtracks of it, or none.

        For use after training: the choice has no derivative.
        """
        gradients = self._gradients(params, batch)
        ends = [descend(params, gradients, scaled(lr, 0.5**k)) for k in range(backtracks + 1)]
        start = self.loss(params, batch)
        none = torch.ones_like(start, dtype=torch.bool)
        lower = torch.stack([*(self.loss(end, batch) < start for end in ends), none])
        chosen = lower.int().argmax().reshape(1)  # the first of them
        ends.append(params)
        return {name: torch.stack([end[name] for end in ends]).index_select(0, chosen)[0] for name in params}

    def path(self, params: Params, batches: Iterable[Data], lr: Rate, backtracks: int = 0) -> Iterator[Params]:
        """Yield the parameters before the first step, and after one for each batch, in order.

        Args:
            params: Where to start.
            batches: The data of each step.
            lr: A number, or a tensor for each parameter by name, with a row for each step where rates differ by step.
            backtracks: Of careful steps; 0 for steps as they are.
        """
        take = partial(self.careful_step, backtracks=backtracks) if backtracks else self.step
        yield params
        for step, batch in enumerate(batches):
            params = take(params, batch, self.rates.of_step(lr, step))
            yield params

    def adapt(self, params: Params, batches: Iterable[Data], lr: Rate) -> Params:
        """Take one step for each batch, in order. No batch returns the parameters unchanged."""
        (adapted,) = deque(self.path(params, batches, lr), maxlen=1)
        return adapted
