"""Sample one episode in every environment of a batch, for all tasks at once."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from maml_envs import SUCCESS, InputError, TaskEnv, random
from maml_rl.core.task_axis import ONE_RUN, TaskRows
from maml_rl.core.tree import Params, map_tensors
from maml_rl.machine.threads import one_torch_thread, spans
from maml_rl.rl.data import Trajectory
from maml_rl.rl.policies import Policy
from maml_rl.rl.scan import play


def _waves(tasks: int, episodes: int, copies: int, max_batch: int | None) -> list[tuple[slice, slice]]:
    """Rectangles of tasks and episodes: one for each copy, or more where a copy cannot take its share at once."""
    by_tasks = tasks % copies == 0 or episodes < copies  # larger products with each task's weights
    height, width = (-(-tasks // copies), episodes) if by_tasks else (tasks, -(-episodes // copies))
    if max_batch is not None:
        width = min(width, max_batch)
        height = min(height, max(1, max_batch // width))
    return [(rows, columns) for columns in spans(episodes, width) for rows in spans(tasks, height)]


def rollout(
    envs: Sequence[TaskEnv],
    policy: Policy,
    params: Params,
    tasks: Tensor,
    noise: Tensor,
    seeds: Tensor,
    rows: TaskRows = ONE_RUN,
) -> Trajectory:
    """Run B episodes of each of K tasks, each task with parameters of its own.

    The episodes are dealt to the copies of the environment, which run side by side in threads: the policy of one
    works while the simulator of another steps. What is sampled does not depend on how many copies or waves there are,
    up to the rounding of matrix products of another size.

    Args:
        envs: Copies of the environment.
        policy: The policy.
        params: Stacked parameters, one set a task.
        tasks: (K, *task_shape).
        noise: (K, B, T, act) standard normal; its T is the number of steps.
        seeds: (K, B) int64, for the start states.
        rows: Which tasks these are, for errors.

    Raises:
        InputError: The environment reports success at some steps only.
        FloatingPointError: An action, reward or observation of a live step is NaN or infinite, or the simulator lost
            contacts or forces.
    """
    waves = _waves(seeds.shape[0], seeds.shape[1], len(envs), envs[0].max_batch)

    def run_share(copy: int) -> list[Trajectory]:
        share = []
        for at in waves[copy :: len(envs)]:
            own = {name: value[at[0]] for name, value in params.items()}
            part = play(envs[copy], policy, own, tasks[at[0]], noise[at], seeds[at])
            overwritten = len(waves) > len(envs) and envs[copy].graph_key is not None
            share.append(map_tensors(torch.clone, part) if overwritten else part)
        return share

    with one_torch_thread():
        if len(envs) == 1:
            shares = [run_share(0)]
        else:
            with ThreadPoolExecutor(len(envs)) as executor:
                shares = list(executor.map(run_share, range(len(envs))))
    if len({part.success is None for share in shares for part in share}) > 1:
        raise InputError(
            f"the environment's info has {SUCCESS!r} in some batches and not in others: give it at every step, 0 where "
            "the task is not solved"
        )
    trajectory: Trajectory = map_tensors(lambda part: part.new_empty(*seeds.shape, *part.shape[2:]), shares[0][0])
    for copy, share in enumerate(shares):
        for at, part in zip(waves[copy :: len(envs)], share, strict=True):
            map_tensors(lambda whole, piece, at=at: whole[at].copy_(piece), trajectory, part)
    _check_finite(trajectory, rows)
    return trajectory


def sample(
    envs: Sequence[TaskEnv],
    policy: Policy,
    params: Params,
    tasks: Tensor,
    episodes: int,
    key: Tensor,
    rows: TaskRows = ONE_RUN,
) -> Trajectory:
    """``rollout`` with the noise and start states that ``draw`` makes of a run's key, or of several runs' keys.

    Args:
        envs: Copies of the environment.
        policy: The policy.
        params: Stacked parameters, one set a task.
        tasks: (K, *task_shape): as many of each run, one run's after the other's.
        episodes: B.
        key: (*runs) int64.
        rows: Which tasks these are.
    """
    noise, seeds = draw(envs[0], policy, params, len(tasks) // key.numel(), episodes, key, rows.first)
    return rollout(envs, policy, params, tasks, noise, seeds, rows)


def draw(
    env: TaskEnv, policy: Policy, params: Params, tasks: int, episodes: int, key: Tensor, first: int = 0
) -> tuple[Tensor, Tensor]:
    """The noise (K, B, T, act) and seeds (K, B) of ``rollout`` for so many tasks of each run, from the first on.

    They follow from a run's key, the task's number and the episode's alone: a run samples what it would sample alone.
    """
    seeds = random.fold_in(key.unsqueeze(-1), torch.arange(first, first + tasks, device=key.device)).reshape(-1, 1)
    seeds = random.fold_in(seeds, torch.arange(episodes, device=key.device))
    noise = random.normal(random.fold_in(seeds, 0), (env.horizon, policy.actions)).to(next(iter(params.values())))
    return noise, random.fold_in(seeds, 1)


def _check_finite(trajectory: Trajectory, rows: TaskRows) -> None:
    """Name what was NaN or infinite first: in time, and in a step in the order of what is seen, done and got."""
    values = {name: getattr(trajectory, name) for name in ("observations", "actions", "rewards")}
    bad = [~value.isfinite().reshape(*trajectory.mask.shape, -1).all(-1) for value in values.values()]
    found = torch.stack(bad, -1) & trajectory.mask.unsqueeze(-1)
    if not found.any():
        return
    step, kind, task, episode = min(
        (step, kind, task, episode) for task, episode, step, kind in found.nonzero().tolist()
    )
    name, value = list(values.items())[kind]
    tasks = found.flatten(1).any(1).nonzero().flatten().tolist()
    others = f"; {len(tasks)} of {len(found)} tasks hold such numbers{rows.runs_of(tasks)}" if len(tasks) > 1 else ""
    seen = [*trajectory.observations[task, episode], trajectory.final_observations[task, episode]]
    goes_on = bool(seen[step + 1].isfinite().all())
    causes = {
        "observations": "the environment gave it",
        "actions": "the policy's parameters or what it makes of its input diverged: lower inner.lr, or what limits the "
        "outer step",
        "rewards": "the environment gave it" if goes_on else "the state of the simulation diverged",
    }
    raise FloatingPointError(
        f"{name} of {rows.called(task)}, episode {episode}, step {step} (all counted from 0) hold "
        f"{value[task, episode, step].flatten().tolist()}: {causes[name]}{others}"
    )
