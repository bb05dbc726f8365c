"""Adam as a function: from parameters, its state and a gradient to the next ones."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim.adam import adam as torch_adam

from maml_rl.core.tree import Params

COUNT = "step"
MOMENTS = (COUNT, "exp_avg", "exp_avg_sq")


def initial_state(theta: Params) -> Params:
    """Return Adam's state at first: "<moment>.<parameter>", and "step.<parameter>", the count of steps, (S,)."""
    return {
        f"{key}.{name}": torch.zeros(len(value)) if key == COUNT else torch.zeros_like(value)
        for key in MOMENTS
        for name, value in theta.items()
    }


@torch.no_grad()
def adam_step(theta: Params, state: Params, gradient: Params, lr: float, maximise: bool) -> tuple[Params, Params]:
    """Take one step of Adam (Kingma and Ba 2015, algorithm 1) with torch's defaults; nothing is changed in place.

    Args:
        theta: Parameters (S, ...); each seed takes a step of its own.
        state: See ``initial_state``; may be empty at first.
        gradient: Like theta.
        lr: Step size.
        maximise: Go up the gradient instead of down.

    Returns:
        The next parameters and state.
    """

    def each(values: Iterable[Tensor]) -> list[Tensor]:
        return [part for value in values for part in value.unbind()]

    state = state or initial_state(theta)
    moved = {name: value.detach().clone() for name, value in theta.items()}
    # Steps are counted on the CPU, where a checkpoint that was read on a GPU has not left them: Adam reads them.
    after = {name: (value.cpu() if name.startswith(COUNT) else value).clone() for name, value in state.items()}
    steps, means, squares = (each(after[f"{key}.{name}"] for name in theta) for key in MOMENTS)
    torch_adam(
        each(moved.values()),
        each(gradient[name] for name in theta),
        means,
        squares,
        [],
        steps,
        foreach=True,
        amsgrad=False,
        beta1=0.9,
        beta2=0.999,
        lr=lr,
        weight_decay=0.0,
        eps=1e-8,
        maximize=maximise,
    )
    return moved, after
