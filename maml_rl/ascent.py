"""Adam as a function: from parameters, its state and a gradient to the next ones."""

import torch
from torch.optim.adam import adam as torch_adam

from maml_rl.types import Params

MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def initial_state(theta: Params) -> Params:
    """Adam's state before its first step: "<moment>.<parameter>" for the moments and the count of steps of each."""
    return {
        f"{key}.{name}": torch.zeros(()) if key == "step" else torch.zeros_like(value)
        for key in MOMENTS
        for name, value in theta.items()
    }


@torch.no_grad()
def adam_step(theta: Params, state: Params, gradient: Params, lr: float, maximise: bool) -> tuple[Params, Params]:
    """One step of Adam (Kingma and Ba 2015, algorithm 1) with torch's defaults; nothing is changed in place.

    Args:
        theta: Parameters.
        state: See ``initial_state``; may be empty at first.
        gradient: Like theta.
        lr: Step size.
        maximise: Go up the gradient instead of down.

    Returns:
        The next parameters and state.
    """
    state = state or initial_state(theta)
    moved = {name: value.detach().clone() for name, value in theta.items()}
    after = {name: value.clone() for name, value in state.items()}
    steps, means, squares = ([after[f"{key}.{name}"] for name in theta] for key in MOMENTS)
    torch_adam(
        list(moved.values()),
        [gradient[name] for name in theta],
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
