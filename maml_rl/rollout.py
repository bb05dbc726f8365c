"""Sample one episode in every environment of a batch, for all tasks at once."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from envs import SUCCESS, TaskEnv, random
from maml_rl.parallel import one_torch_thread
from maml_rl.policies import Policy
from maml_rl.types import Params, Trajectory, map_tensors


@torch.no_grad()
def _episodes(env: TaskEnv, policy: Policy, params: Params, tasks: Tensor, noise: Tensor, seeds: Tensor) -> Trajectory:
    """One episode in each of (K, B) environments, on one copy of the environment."""
    shape = seeds.shape
    like = next(iter(params.values()))

    def taken(value: Tensor) -> Tensor:
        # A copy: an environment may write its next step into the tensor that it returned.
        return value.to(like, copy=True).reshape(*shape, *value.shape[1:])

    observation = taken(env.reset(tasks.repeat_interleave(shape[1], 0).to(env.device), seeds.flatten().to(env.device)))
    live = torch.ones(shape, dtype=torch.bool, device=like.device)
    truncated, final = ~live, observation
    success: Tensor | None = None
    steps = []
    for t in range(noise.shape[2]):
        behaviour = policy(params, observation)
        action = behaviour.sample(noise[:, :, t])
        step = env.step(action.flatten(0, 1).to(env.device))
        steps.append((observation, action, taken(step.reward), live, behaviour))
        observation = taken(step.observation)
        final = torch.where(live.unsqueeze(-1), observation, final)
        terminated, cut = (flag.to(live.device).reshape(shape) for flag in (step.terminated, step.truncated))
        truncated = truncated | (live & cut & ~terminated)
        if SUCCESS in step.info:
            reached = live & (step.info[SUCCESS].to(live.device).reshape(shape) > 0)
            success = reached if success is None else success | reached
        live = live & ~(terminated | cut)
    observations, actions, rewards, mask, behaviours = zip(*steps, strict=True)
    return Trajectory(
        torch.stack(observations, 2),
        torch.stack(actions, 2),
        torch.stack(rewards, 2),
        torch.stack(mask, 2),
        truncated | live,
        final,
        map_tensors(lambda *fields: torch.stack(fields, 2), *behaviours),
        success,
    )


def _spans(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _waves(tasks: int, episodes: int, copies: int, max_batch: int | None) -> list[tuple[slice, slice]]:
    """Rectangles of tasks and episodes: one for each copy, or more where a copy cannot take its share at once."""
    by_tasks = tasks % copies == 0 or episodes < copies  # larger products with each task's weights
    height, width = (-(-tasks // copies), episodes) if by_tasks else (tasks, -(-episodes // copies))
    if max_batch is not None:
        width = min(width, max_batch)
        height = min(height, max(1, max_batch // width))
    return [(rows, columns) for columns in _spans(episodes, width) for rows in _spans(tasks, height)]


def rollout(
    envs: Sequence[TaskEnv],
    policy: Policy,
    params: Params,
    tasks: Tensor,
    noise: Tensor,
    seeds: Tensor,
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

    Raises:
        FloatingPointError: An action, reward or observation of a live step is NaN or infinite.
    """
    waves = _waves(seeds.shape[0], seeds.shape[1], len(envs), envs[0].max_batch)

    def run_share(copy: int) -> list[Trajectory]:
        share = []
        for rows, columns in waves[copy :: len(envs)]:
            own = {name: value[rows] for name, value in params.items()}
            share.append(_episodes(envs[copy], policy, own, tasks[rows], noise[rows, columns], seeds[rows, columns]))
        return share

    with one_torch_thread():
        if len(envs) == 1:
            shares = [run_share(0)]
        else:
            with ThreadPoolExecutor(len(envs)) as executor:
                shares = list(executor.map(run_share, range(len(envs))))
    trajectory: Trajectory = map_tensors(lambda part: part.new_empty(*seeds.shape, *part.shape[2:]), shares[0][0])
    for copy, share in enumerate(shares):
        for (rows, columns), part in zip(waves[copy :: len(envs)], share, strict=True):
            map_tensors(lambda whole, piece, at=(rows, columns): whole[at].copy_(piece), trajectory, part)
    _check_finite(trajectory)
    return trajectory


def sample(
    envs: Sequence[TaskEnv], policy: Policy, params: Params, tasks: Tensor, episodes: int, key: Tensor
) -> Trajectory:
    """``rollout`` with noise and start states that follow from a key, the task's index and the episode's alone."""
    seeds = random.fold(key, torch.arange(len(tasks), device=key.device)).unsqueeze(-1)
    seeds = random.fold(seeds, torch.arange(episodes, device=key.device))
    like = next(iter(params.values()))
    noise = random.normal(random.fold(seeds, 0), (envs[0].horizon, policy.actions)).to(like)
    return rollout(envs, policy, params, tasks, noise, random.fold(seeds, 1))


def _check_finite(trajectory: Trajectory) -> None:
    for name in ("observations", "actions", "rewards"):
        value = getattr(trajectory, name)
        bad = ~value.isfinite().reshape(*trajectory.mask.shape, -1).all(-1) & trajectory.mask
        if bad.any():
            task, episode, step = bad.nonzero()[bad.nonzero()[:, 2].argmin()].tolist()
            raise FloatingPointError(
                f"{name} of task {task}, episode {episode}, step {step} (all counted from 0) hold "
                f"{value[task, episode, step].flatten().tolist()}: the environment or the policy diverged"
            )
