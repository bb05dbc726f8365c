"""Baselines: predict the return of a step, fitted for each task on the batch they are used on."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from maml_rl.core.mlp import Perceptron
from maml_rl.core.tree import Params, map_tensors
from maml_rl.machine.threads import spans

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


def none(data: Samples) -> Value:
    """No baseline: the value is 0 everywhere."""
    return lambda seen, when: torch.zeros(seen.shape[:-1], dtype=data.returns.dtype, device=seen.device)


def _moments(table: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of (K, B, T, F) over live steps, (K, 1, F)."""
    live, weight = mask.unsqueeze(-1).flatten(1, 2), 1 / mask.sum((1, 2)).reshape(-1, 1, 1)
    flat = table.flatten(1, 2)
    mean = torch.where(live, flat, 0.0).sum(1, keepdim=True) * weight
    variance = torch.where(live, flat - mean, 0.0).square().sum(1, keepdim=True) * weight
    return mean, variance.sqrt()


def _least_squares(
    network: Perceptron, start: Params, inputs: Tensor, targets: Tensor, live: Tensor, count: Tensor
) -> Params:
    """Parameters for each task that fit its live targets; one L-BFGS for all of them."""
    params = {name: value.clone().requires_grad_() for name, value in start.items()}
    optimiser = torch.optim.LBFGS(
        params.values(), max_iter=200, tolerance_change=1e-5, history_size=20, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        error = torch.where(live, network(params, inputs).squeeze(-1) - targets, 0.0)
        mean = (error.square().sum(1) / count).mean()
        mean.backward()
        return mean.detach()

    optimiser.step(loss)
    return {name: value.detach() for name, value in params.items()}


def _with_final(data: Samples) -> tuple[Tensor, Tensor, Tensor]:
    """Return features, returns and mask; where values after the end count, with the final observation as a step."""
    observations, returns, mask, final, bootstrap_discount, _ = data
    steps = torch.arange(observations.shape[2], device=observations.device)
    table = features(observations, steps.expand(mask.shape))
    if bootstrap_discount is None:
        return table, returns, mask
    ahead = linear(data)(final, mask.sum(-1)).unsqueeze(-1)
    known = (bootstrap_discount * mask).sum(-1, keepdim=True) > 0
    table = torch.cat([table, features(final, mask.sum(-1)).unsqueeze(2)], 2)
    return table, torch.cat([returns + bootstrap_discount * ahead, ahead], 2), torch.cat([mask, known], 2)


def value_network(data: Samples) -> Value:
    """Fit a perceptron (32, 32, tanh), one for each task, to the returns by least squares.

    L-BFGS on all of a run's tasks, from the same start for each, until the mean squared error (in units of the returns'
    variance, mean over tasks) or every parameter moves by less than 1e-5 in an iteration, or 200 iterations are over: a
    hard task among many easy ones is fitted less well than alone, and runs are fitted apart. Inputs are
    ``features``; they and the returns are standardised over the task's live steps. With a
    ``bootstrap_discount``, an equation that many perceptrons solve, the value of the final observation is that of
    ``linear``, and the network is fitted to it there as well.

    Raises:
        NoFitError: Observations or returns of live steps are not finite.
    """
    table, returns, mask = _with_final(data)
    tasks = len(table)
    count = mask.sum((1, 2))
    x_mean, x_std = _moments(table, mask)
    x_std = torch.where(x_std < 1e-6, 1.0, x_std)
    y_mean, y_std = _moments(returns.unsqueeze(-1), mask)
    y_std = y_std.clamp(min=1e-6)
    bad = ~(x_mean.isfinite() & x_std.isfinite() & y_mean.isfinite() & y_std.isfinite()).all(-1).flatten()
    if bad.any():
        raise NoFitError("the value network has no fit", bad, "observations or returns are NaN, infinite or huge")
    network = Perceptron(x_mean.shape[-1], 1, (32, 32))
    each = tasks // data.seeds
    start = {
        name: value.to(returns).expand(each, *value.shape)
        for name, value in network.init(torch.Generator().manual_seed(0)).items()
    }

    def standard(rows: Tensor) -> Tensor:
        return ((rows.reshape(tasks, -1, rows.shape[-1]) - x_mean) / x_std).to(returns.dtype)

    inputs, live = standard(table), mask.flatten(1)
    targets = torch.where(live, (returns.flatten(1) - y_mean.squeeze(-1)) / y_std.squeeze(-1), 0.0)

    samples = (inputs, targets, live, count)
    fits = [_least_squares(network, start, *(x[rows] for x in samples)) for rows in spans(tasks, each)]
    params: Params = map_tensors(lambda *parts: torch.cat(parts), *fits)

    @torch.no_grad()
    def predict(seen: Tensor, when: Tensor) -> Tensor:
        found = network(params, standard(features(seen, when.expand(seen.shape[:-1]))))
        return (y_mean + y_std * found).reshape(seen.shape[:-1])

    return predict


BASELINES = {"linear": linear, "value_network": value_network, "none": none}
