"""The linear baseline: a ridge regression of returns on features of the observation and the time, for each task."""

import os
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from maml_envs import InputError

RIDGE = 1e-5
RIDGE_RAISES = 5

NAMED = 5
"""Tasks that an error names."""


class NoFitError(FloatingPointError):
    """A baseline has no fit for some tasks, rows of the task axis."""

    def __init__(self, what: str, rows: Tensor, why: str) -> None:
        self._what, self._rows, self._why = what, rows.nonzero().flatten().tolist(), why
        super().__init__(self.naming("task {}".format))

    def naming(self, called: Callable[[int], str]) -> str:
        """The message, with what errors call a row."""
        named = [called(row) for row in self._rows[:NAMED]]
        more = f" and {len(self._rows) - NAMED} more" if len(self._rows) > NAMED else ""
        return f"{self._what} for {', '.join(named)}{more}: {self._why}"


def features(observations: Tensor, times: Tensor) -> Tensor:
    """Features clip(o, -10, 10), its square, t/100, (t/100)^2, (t/100)^3, 1, in float64 (rllab's linear baseline).

    Args:
        observations: (..., obs).
        times: (...) zero-based step numbers.

    Returns:
        (..., 2 obs + 4).
    """
    seen = observations.double().clamp(-10, 10)
    t = times.double().unsqueeze(-1) / 100
    return torch.cat([seen, seen.square(), t, t.square(), t.pow(3), torch.ones_like(t)], -1)


def ridge_regression(x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """Solve (X'WX + ridge I) w = X'Wy for every task in one batched call.

    The ridge, 1e-5, is raised tenfold, at most five times, for the tasks whose system cannot be solved.

    Args:
        x: (K, N, F) float64.
        y: (K, N) float64.
        weights: (K, N) 1 for samples that count, 0 for others.

    Returns:
        (K, F).

    Raises:
        NoFitError: No ridge makes a task's system solvable.
    """
    weighted = x * weights.unsqueeze(-1)
    gram, moment = weighted.mT @ x, (weighted.mT @ y.unsqueeze(-1))
    ridge = torch.full((len(x), 1, 1), RIDGE, dtype=x.dtype, device=x.device)
    eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    for _ in range(RIDGE_RAISES + 1):
        factor, info = torch.linalg.cholesky_ex(gram + ridge * eye)
        solution = torch.cholesky_solve(moment, factor).squeeze(-1)
        failed = (info != 0) | ~solution.isfinite().all(-1)
        if not failed.any():
            return solution
        ridge = torch.where(failed[:, None, None], 10 * ridge, ridge)
    why = "look for huge or constant observations, and for huge rewards"
    raise NoFitError("the linear baseline has no solution", failed, why)


def refuse_wide(width: int, tasks: int) -> None:
    """Refuse observations of so many numbers that the systems of equations of the linear part do not fit the memory.

    Raises:
        InputError: The message says how much it would be.
    """
    needed = 3 * 8 * (2 * width + 4) ** 2 * tasks  # the matrix, with the ridge, and its factor, in float64
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there / 2:
        raise InputError(
            f"baseline.name = 'linear' or 'value_network' with observations of {width:,} numbers and tasks = {tasks}: "
            f"its systems of equations take {needed / 1e9:.0f} GB, of {there / 1e9:.0f} GB that there are; use "
            "baseline.name = 'time', fewer tasks, or observations of fewer numbers"
        )


class Samples(NamedTuple):
    """Data that a baseline is fitted to."""

    observations: Tensor  # (K, B, T, obs)
    returns: Tensor  # (K, B, T) of the rewards that were sampled
    mask: Tensor  # (K, B, T) bool
    final: Tensor  # (K, B, obs) after the last live step
    bootstrap_discount: Tensor | None = None  # (K, B, T) to the final observation, 0 where nothing follows; None for 0
    seeds: int = 1  # of each of which as many tasks are given


Value = Callable[[Tensor, Tensor], Tensor]
"""Observations (K, B, ..., obs) and times (broadcast to its leading axes) to values (K, B, ...)."""


def linear(data: Samples) -> Value:
    """Fit a linear function V of ``features``, one for each task: V(o_t) = R_t + d_t V(final).

    With a ``bootstrap_discount`` d, the ridge pulls V towards the constant c that solves the equation best, c =
    sum (1 - d) R / sum (1 - d)^2, and not towards 0: over a short horizon the equation hardly tells constants apart.

    Returns:
        V.
    """
    observations, returns, mask, final, bootstrap_discount, _ = data
    tasks, horizon = len(observations), observations.shape[2]
    x = features(observations, torch.arange(horizon, device=observations.device).expand(returns.shape))
    y, live, constant = returns.double(), mask.double(), returns.new_zeros(tasks, 1, 1, dtype=torch.float64)
    if bootstrap_discount is not None:
        x = x - bootstrap_discount.unsqueeze(-1) * features(final, mask.sum(-1)).unsqueeze(2)
        share = (1 - bootstrap_discount.double()) * live
        constant = (share * y).sum((1, 2), keepdim=True) / share.square().sum((1, 2), keepdim=True).clamp(min=1e-12)
        y = y - share * constant
    solution = ridge_regression(x.flatten(1, 2), y.flatten(1), live.flatten(1))

    def predict(seen: Tensor, when: Tensor) -> Tensor:
        table = features(seen, when.expand(seen.shape[:-1]))
        flat = table.reshape(tasks, -1, table.shape[-1]) @ solution.unsqueeze(-1)
        value = constant.reshape(tasks, *[1] * (seen.dim() - 2)) + flat.reshape(seen.shape[:-1])
        return value.to(returns.dtype)

    return predict


def time(data: Samples) -> Value:
    """Fit a cubic of the time, one for each task: what ``linear`` is where observations are too wide for it."""
    value = linear(data._replace(observations=data.observations[..., :0], final=data.final[..., :0]))
    return lambda seen, when: value(seen[..., :0], when)
