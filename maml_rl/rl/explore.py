"""Sample and adapt in turn: the data of one meta-iteration."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import vmap

from maml_rl.core.adapt import Loss, adapt
from maml_rl.core.task_axis import ONE_RUN, Runs, TaskRows, task_slices
from maml_rl.core.tree import Params, Rate, map_tensors
from maml_rl.machine.threads import side_by_side
from maml_rl.rl.baselines import NoFitError
from maml_rl.rl.data import Batch, Trajectory
from maml_rl.rl.policies import Policy


class Exploration(NamedTuple):
    """What one meta-iteration sampled, for K tasks (of all runs together) and S inner steps."""

    chain: list[Params]  # S + 1 stacked parameters: before each inner step, and adapted
    trajectories: list[Trajectory]  # S + 1
    batches: list[Batch]  # S + 1: one for each inner step, the last of the adapted policies
    sampling_seconds: float  # spent in rollouts
    runs: Runs = ()  # the axes of runs that theta had
    rows: TaskRows = ONE_RUN


def explore(
    sample: Callable[[Params, int], Trajectory],
    prepare: Callable[[Trajectory], Batch],
    loss: Loss[Batch],
    start: Params,
    rates: Sequence[Rate],
    rows: TaskRows,
) -> Exploration:
    """Sample and adapt in turn, with fresh episodes for every inner step (MAML paper, algorithm 3).

    Args:
        sample: Episodes for stacked parameters before inner step k.
        prepare: Advantages for those.
        loss: The inner loss.
        start: Stacked parameters: where each task starts.
        rates: The rate of each inner step, in order, with a row for each task.
        rows: Which tasks these are.

    Raises:
        FloatingPointError: A baseline has no fit, or an inner step gives NaN or infinity.
    """
    found, seconds = Exploration([start], [], [], 0.0), 0.0
    for k in range(len(rates) + 1):
        began = time.perf_counter()
        try:
            found.trajectories.append(sample(found.chain[-1], k))
        except FloatingPointError as error:
            where = f"before inner step {k} (counted from 0)" if k < len(rates) else "of the adapted policies"
            raise FloatingPointError(f"{error}; in the episodes {where}") from error
        seconds += time.perf_counter() - began
        try:
            found.batches.append(prepare(found.trajectories[-1]))
        except NoFitError as error:
            raise FloatingPointError(error.naming(rows.called)) from error
        if k < len(rates):
            found.chain.append(adapt_stacked(loss, found.chain[-1], found.batches[-1:], rates[k]))
            _refuse_diverged(found.chain[-1], k, rows)
    return found._replace(sampling_seconds=seconds, rows=rows)


def _refuse_diverged(adapted: Params, k: int, rows: TaskRows) -> None:
    finite = torch.stack([value.isfinite().flatten(1).all(-1) for value in adapted.values()]).all(0)
    if not finite.all():
        raise FloatingPointError(
            f"inner step {k} (counted from 0) takes parameters of {rows.called(int(finite.int().argmin()))} to NaN or "
            "infinity: look for huge rewards, or lower inner.lr"
        )


def adapt_stacked(loss: Loss[Batch], params: Params, batches: Sequence[Batch], lr: Rate) -> Params:
    """The inner loop for all tasks at once, from stacked parameters; no gradient flows through the result.

    The rate is a number, or has a row for each task.
    """

    @torch.no_grad()
    def adapt_slice(rows: slice) -> Params:
        own, data, rates = map_tensors(lambda x: x[rows], (params, list(batches), lr if isinstance(lr, dict) else {}))
        return vmap(lambda p, b, r: adapt(loss, p, b, r or lr))(own, data, rates)

    pieces = side_by_side(adapt_slice, task_slices(batches[0].weights))
    adapted: Params = map_tensors(lambda *parts: torch.cat(parts), *pieces)
    return adapted


def inner_kl(policy: Policy, exploration: Exploration) -> Tensor:
    """KL(before || after adaptation), mean over live steps of the first batch, of each task."""
    first, adapted = exploration.batches[0], exploration.chain[-1]

    @torch.no_grad()
    def kl(rows: slice) -> Tensor:
        params, batch = map_tensors(lambda x: x[rows], (adapted, first))
        after = policy(params, batch.observations)
        mean: Tensor = (batch.behaviour.kl(after) * batch.weights).sum((-2, -1))
        return mean

    return torch.cat(side_by_side(kl, task_slices(first.weights)))
