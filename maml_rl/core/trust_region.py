"""Conjugate gradient and backtracking line search on vectors. They know nothing of reinforcement learning.

Each solves one problem, or a batch of independent ones side by side: everything that a problem has of its own may have
leading axes (*batch), and no problem sees the numbers of another.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Solution(NamedTuple):
    """Point at which conjugate gradient stopped."""

    x: Tensor  # (*batch, n)
    product: Tensor  # (*batch, n) A x, as the iteration knows it
    residual: Tensor  # (*batch) |b - A x| / |b|


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner products (*batch) of vectors (*batch, n)."""
    return (a * b).sum(-1)


def conjugate_gradient(product: Callable[[Tensor], Tensor], b: Tensor, iterations: int) -> Solution:
    """Solve A x = b for a symmetric positive definite A given by its products (Hestenes and Stiefel 1952).

    Exact after n iterations for an n x n matrix, rounding aside. Stays where it is from a residual of 1e-10 on, or from
    a direction with p'Ap <= 0, which only rounding or an indefinite A can give. It takes all products in any case: on
    a GPU nothing waits for the numbers of an iteration.

    Args:
        product: v -> A v, for vectors (*batch, n).
        b: (*batch, n).
        iterations: Most products to take.
    """
    x, residual = torch.zeros_like(b), b
    direction, square = residual, dot(residual, residual)
    start, goes_on = square, torch.ones_like(square, dtype=torch.bool)
    for _ in range(iterations):
        image = product(direction)
        curvature = dot(direction, image)
        goes_on = goes_on & (square > 1e-20 * start) & ~(curvature <= 0)  # NaN goes on, to be seen at the end
        step = torch.where(goes_on, square / curvature, 0.0).unsqueeze(-1)
        x, residual = x + step * direction, residual - step * image
        square, last = dot(residual, residual), square
        direction = residual + torch.where(goes_on, square / last, 0.0).unsqueeze(-1) * direction
    return Solution(x, b - residual, torch.where(start > 0, (square / start).sqrt(), 0.0))


class Search(NamedTuple):
    """The outcome of a line search; all but x are on the CPU."""

    x: Tensor  # (*batch, n) the accepted point, or the start itself if none was
    accepted: Tensor  # (*batch) bool
    backtracks: Tensor  # (*batch) points tried and refused
    objective: Tensor  # (*batch) at x
    constraint: Tensor  # (*batch) at x; 0 at the start


def line_search(
    evaluate: Callable[[Tensor], tuple[Tensor, Tensor]],
    start: Tensor,
    objective: Tensor,
    step: Tensor,
    limit: float,
    ratio: float,
    backtracks: int,
) -> Search:
    """The first of start + ratio^i * step, i = 0 ... backtracks - 1, that improves the objective within the limit.

    Args:
        evaluate: Objective (to be raised) and constraint (*batch) at points (*batch, n).
        start: Where the steps begin, (*batch, n).
        objective: Its values there, (*batch).
        step: The full steps, (*batch, n). Where one is zero nothing is tried.
        limit: Largest constraint that is accepted.
        ratio: Factor from one try to the next, in (0, 1).
        backtracks: How many points to try.

    Returns:
        The accepted points, or ``start`` itself, the same tensor, if none is.
    """
    before = objective.cpu()
    searching = (step != 0).any(-1).cpu()
    found = Search(start, torch.zeros_like(searching), torch.zeros_like(before), before, torch.zeros_like(before))
    for i in range(backtracks):
        if not searching.any():
            break
        point = start + ratio**i * step
        value, constraint = torch.stack(evaluate(point)).cpu()
        taken = searching & (value > before) & (constraint <= limit)
        searching = searching & ~taken
        if taken.any():
            found = Search(
                torch.where(taken.to(start.device).unsqueeze(-1), point, found.x),
                found.accepted | taken,
                found.backtracks,
                torch.where(taken, value, found.objective),
                torch.where(taken, constraint, found.constraint),
            )
        found = found._replace(backtracks=found.backtracks + searching)
    return found
