"""A value network as a baseline, cross-fitted by episodes."""

import torch
from torch import Tensor

from maml_rl.core.mlp import Perceptron
from maml_rl.core.tree import Params, map_tensors
from maml_rl.machine.threads import spans
from maml_rl.rl.linear_baseline import NoFitError, Samples, Value, features, linear, ridge_regression

FOLDS = 5
"""Parts of a task's episodes, each of which is left out of one fit of the value network."""

PATIENCE = 10
"""Tries without a better fit after which the value network's search ends."""

WORTHWHILE = 1e-3
"""Share of the mean error that a better fit takes off."""

MOST_TRIES = 200


def _moments(table: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of (R, N, F) over the rows' live steps (R, N), (R, 1, F)."""
    live, weight = mask.unsqueeze(-1), 1 / mask.sum(1).reshape(-1, 1, 1)
    mean = torch.where(live, table, 0.0).sum(1, keepdim=True) * weight
    variance = torch.where(live, table - mean, 0.0).square().sum(1, keepdim=True) * weight
    return mean, variance.sqrt()


def _early_stopped(network: Perceptron, inputs: Tensor, targets: Tensor, learned: Tensor, held: Tensor) -> Params:
    """Fit one network a row to the steps that are ``learned``; return what predicts those that are ``held`` best.

    One L-BFGS for all rows from the same start, whose value is 0.
    """
    start = network.init(torch.Generator().manual_seed(0))
    last = f"{len(network.hidden)}.weight"
    start[last] = torch.zeros_like(start[last])
    params = {
        name: value.to(inputs).expand(len(inputs), *value.shape).clone().requires_grad_()
        for name, value in start.items()
    }
    best = {name: value.detach().clone() for name, value in params.items()}
    least, reached, improved, calls = inputs.new_full((len(inputs),), torch.inf), torch.inf, 0, 0
    optimiser = torch.optim.LBFGS(
        params.values(), max_iter=PATIENCE, tolerance_change=1e-7, history_size=20, line_search_fn="strong_wolfe"
    )

    def mean_over(part: Tensor, error: Tensor) -> Tensor:
        return torch.where(part, error, 0.0).sum(1) / part.sum(1)

    def loss() -> Tensor:
        nonlocal reached, improved, calls
        optimiser.zero_grad()
        error = (network(params, inputs).squeeze(-1) - targets).square()
        calls += 1
        with torch.no_grad():
            wrong = mean_over(held, error)
            better = wrong < least
            least[better] = wrong[better]
            if (now := float(least.mean())) < (1 - WORTHWHILE) * reached:
                reached, improved = now, calls
            for name, value in params.items():
                best[name][better] = value[better]
        mean = mean_over(learned, error).mean()
        mean.backward()
        return mean.detach()

    while calls < MOST_TRIES and calls - improved < PATIENCE:
        optimiser.step(loss)
    return best


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
    """Fit a linear function and a perceptron (32, 32, tanh) to what it leaves, cross-fitted by episodes.

    The value of an episode is that of a fit to other episodes of its task: those of each fifth (each half, third or
    quarter of fewer than five) are left out of one fit. A network of this size that is fitted to the returns that it is
    then subtracted from remembers them, noise and all, and the advantages lose what the policy could learn.

    The linear part is a ridge regression on ``features``. The perceptron starts at 0 and is fitted by L-BFGS to the
    mean squared error, for all of a run's tasks at once; each fit keeps the parameters that predicted the episodes left
    out best, and the search ends when their mean error has not fallen by a thousandth for ten tries, or after 200.
    Features are standardised over a task's steps, returns over those of a fit. With a ``bootstrap_discount``, an
    equation that many perceptrons solve, the value of the final observation is that of ``linear``, and the fits are to
    it there as well.

    Raises:
        NoFitError: Observations or returns of live steps are not finite.
        ValueError: There is one episode, which leaves none to fit to.
    """
    table, returns, mask = _with_final(data)
    tasks, episodes, _, width = table.shape
    if episodes < 2:
        raise ValueError("value_network fits to other episodes of a task: give at least 2")
    folds = min(FOLDS, episodes)
    fold = torch.arange(episodes, device=table.device) % folds
    left_out = (fold == torch.arange(folds, device=table.device).unsqueeze(-1)).reshape(1, folds, episodes, 1)

    def for_each(rows: Tensor) -> Tensor:
        """Repeat (K, N, ...) for each fit, (K folds, N, ...)."""
        return rows.unsqueeze(1).expand(tasks, folds, *rows.shape[1:]).flatten(0, 1)

    of_task = mask.flatten(1)
    held = (mask.unsqueeze(1) & left_out).flatten(2).flatten(0, 1)
    learned = for_each(of_task) & ~held
    x_mean, x_std = _moments(table.flatten(1, 2), of_task)
    x_std = torch.where(x_std < 1e-6, 1.0, x_std)
    y = torch.where(for_each(of_task), for_each(returns.flatten(1)).double(), 0.0)
    y_mean, y_std = _moments(y.unsqueeze(-1), learned)
    y_std = y_std.clamp(min=1e-6)
    finite = (x_mean.isfinite() & x_std.isfinite()).all(-1).flatten()
    bad = ~(finite & (y_mean.isfinite() & y_std.isfinite()).reshape(tasks, folds).all(-1))
    if bad.any():
        raise NoFitError("the value network has no fit", bad, "observations or returns are NaN, infinite or huge")

    def standard(rows: Tensor) -> Tensor:
        return for_each((rows.reshape(tasks, -1, width) - x_mean) / x_std)

    inputs = torch.where(for_each(of_task).unsqueeze(-1), standard(table), 0.0)
    targets = torch.where(for_each(of_task), (y - y_mean.squeeze(-1)) / y_std.squeeze(-1), 0.0)
    straight = ridge_regression(inputs, targets, learned.double()).unsqueeze(-1)
    rest, network = targets - (inputs @ straight).squeeze(-1), Perceptron(width, 1, (32, 32))
    samples = (inputs.to(returns.dtype), rest.to(returns.dtype), learned, held)
    each = tasks // data.seeds * folds
    fits = [_early_stopped(network, *(x[rows] for x in samples)) for rows in spans(len(inputs), each)]
    params: Params = map_tensors(lambda *parts: torch.cat(parts), *fits)

    @torch.no_grad()
    def predict(seen: Tensor, when: Tensor) -> Tensor:
        rows = standard(features(seen, when.expand(seen.shape[:-1])))
        found = y_mean + y_std * (rows @ straight + network(params, rows.to(returns.dtype)))
        by_fold = found.reshape(tasks, folds, *seen.shape[1:-1])
        index = fold.reshape(1, 1, episodes, *[1] * (by_fold.dim() - 3)).expand(tasks, 1, *by_fold.shape[2:])
        return by_fold.gather(1, index).squeeze(1).to(returns.dtype)

    return predict
