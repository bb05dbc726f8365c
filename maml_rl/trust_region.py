"""Conjugate gradient and backtracking line search on vectors. They know nothing of reinforcement learning."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Solution(NamedTuple):
    """Where conjugate gradient stopped."""

    x: Tensor  # (n,)
    product: Tensor  # (n,) A x, as the iteration knows it
    residual: float  # |b - A x| / |b|


def conjugate_gradient(product: Callable[[Tensor], Tensor], b: Tensor, iterations: int) -> Solution:
    """Solve A x = b for a symmetric positive definite A given by its products (Hestenes and Stiefel 1952).

    Exact after n iterations for an n x n matrix, rounding aside. Stays where it is from a residual of 1e-10 on, or from
    a direction with p'Ap <= 0, which only rounding or an indefinite A can give. It takes all products in any case: on
    a GPU nothing waits for the numbers of an iteration.

    Args:
        product: v -> A v.
        b: (n,).
        iterations: Most products to take.
    """
    x, residual = torch.zeros_like(b), b
    direction, square = residual, residual.dot(residual)
    start, goes_on = square, torch.ones_like(square, dtype=torch.bool)
    for _ in range(iterations):
        image = product(direction)
        curvature = direction.dot(image)
        goes_on = goes_on & (square > 1e-20 * start) & ~(curvature <= 0)  # NaN goes on, to be seen at the end
        step = torch.where(goes_on, square / curvature, 0.0)
        x, residual = x + step * direction, residual - step * image
        square, last = residual.dot(residual), square
        direction = residual + torch.where(goes_on, square / last, 0.0) * direction
    return Solution(x, b - residual, float(torch.where(start > 0, (square / start).sqrt(), 0.0)))


class Search(NamedTuple):
    """The outcome of a line search."""

    x: Tensor  # (n,) the accepted point, or the start itself if none was
    accepted: bool
    backtracks: int  # points tried and refused
    objective: float  # at x
    constraint: float  # at x


def line_search(
    evaluate: Callable[[Tensor], tuple[float, float]],
    start: Tensor,
    objective: float,
    step: Tensor,
    limit: float,
    ratio: float,
    backtracks: int,
) -> Search:
    """The first of start + ratio^i * step, i = 0 ... backtracks - 1, that improves the objective within the limit.

    Args:
        evaluate: Objective (to be raised) and constraint at a point.
        start: Where the step begins.
        objective: Its value there.
        step: The full step.
        limit: Largest constraint that is accepted.
        ratio: Factor from one try to the next, in (0, 1).
        backtracks: How many points to try.

    Returns:
        The accepted point, or ``start`` itself, the same tensor, if none is.
    """
    for i in range(backtracks):
        point = start + ratio**i * step
        value, constraint = evaluate(point)
        if value > objective and constraint <= limit:
            return Search(point, True, i, value, constraint)
    return Search(start, False, backtracks, objective, 0.0)
