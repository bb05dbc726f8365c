"""Sample one episode in every environment of a batch, for all tasks at once."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from maml_envs import SUCCESS, InputError, TaskEnv, random
from maml_rl.core.task_axis import TaskAxis
from maml_rl.core.tree import Params, map_tensors
from maml_rl.machine.threads import one_torch_thread, spans
from maml_rl.rl.data import Trajectory
from maml_rl.rl.episodes import Episodes
from maml_rl.rl.policies import Policy


def _waves(tasks: int, episodes: int, copies: int, max_batch: int | None) -> list[tuple[slice, slice]]:
    """Rectangles of tasks and episodes: one for each copy, or more where a copy cannot take its share at once."""
    by_tasks = tasks % copies == 0 or episodes < copies  # larger products with each task's weights
    height, width = (-(-tasks // copies), episodes) if by_tasks else (tasks, -(-episodes // copies))
    if max_batch is not None:
        width = min(width, max_batch)
        height = min(height, max(1, max_batch // width))
    return [(rows, columns) for columns in spans(episodes, width) for rows in spans(tasks, height)]


class Sampler:
    """Samples episodes of a policy in copies of an environment.

    The copies run side by side in threads: the policy of one works while the simulator of another steps. What is
    sampled does not depend on how many copies or waves there are, up to the rounding of matrix products.

    Args:
        envs: Copies of the environment.
        policy: The policy.
        observe_task: Join every observation with the numbers of the task, as an oracle learns with.
    """

    def __init__(self, envs: Sequence[TaskEnv], policy: Policy, observe_task: bool = False) -> None:
        self.envs, self.policy, self.observe_task = envs, policy, observe_task
        self._episodes = [Episodes(env, policy, observe_task) for env in envs]

    def close(self) -> None:
        """Release the environments, and the memory of their episodes."""
        self._episodes.clear()
        for env in self.envs:
            env.close()

    def sample(self, params: Params, tasks: Tensor, episodes: int, keys: Tensor, axis: TaskAxis) -> Trajectory:
        """Roll out with the noise and start states that ``draw`` makes of the keys.

        Args:
            params: Stacked parameters, one set a task.
            tasks: (K S, *task_shape), as many of each seed, one seed's after the other's.
            episodes: B.
            keys: (S,) int64.
            axis: Which tasks these are.
        """
        noise, seeds = self.draw(params, episodes, keys, axis)
        return self.rollout(params, tasks, noise, seeds, axis)

    def draw(self, params: Params, episodes: int, keys: Tensor, axis: TaskAxis) -> tuple[Tensor, Tensor]:
        """Draw the noise (K S, B, T, act), as the parameters are, and the seeds of start states (K S, B).

        They follow from a seed's key, the task's number and the episode's alone: a run samples what it would sample
        alone.
        """
        numbers = torch.arange(axis.own.start, axis.own.stop, device=keys.device)
        seeds = random.fold_in(keys.unsqueeze(-1), numbers).reshape(-1, 1)
        seeds = random.fold_in(seeds, torch.arange(episodes, device=keys.device))
        noise = random.normal(random.fold_in(seeds, 0), (self.envs[0].horizon, self.policy.actions))
        return noise.to(next(iter(params.values()))), random.fold_in(seeds, 1)

    def rollout(self, params: Params, tasks: Tensor, noise: Tensor, seeds: Tensor, axis: TaskAxis) -> Trajectory:
        """Run B episodes of each of K S tasks, each task with parameters of its own.

        Args:
            params: Stacked parameters, one set a task.
            tasks: (K S, *task_shape).
            noise: (K S, B, T, act) standard normal; its T is the number of steps, less those after all have ended.
            seeds: (K S, B) int64, for the start states.
            axis: Which tasks these are, for errors.

        Raises:
            InputError: The environment reports success at some steps only.
            FloatingPointError: An action, reward or observation of a live step is NaN or infinite, or the simulator
                lost contacts or forces.
        """
        envs = self.envs
        waves = _waves(seeds.shape[0], seeds.shape[1], len(envs), envs[0].max_batch)

        def play_waves(copy: int) -> list[Trajectory]:
            played = []
            for rows, columns in waves[copy :: len(envs)]:
                own = {name: value[rows] for name, value in params.items()}
                part = self._episodes[copy].play(own, tasks[rows], noise[rows, columns], seeds[rows, columns])
                overwritten = len(waves) > len(envs) and envs[copy].graph_key is not None
                played.append(map_tensors(torch.clone, part) if overwritten else part)
            return played

        with one_torch_thread():
            if len(envs) == 1:
                parts = [play_waves(0)]
            else:
                with ThreadPoolExecutor(len(envs)) as executor:
                    parts = list(executor.map(play_waves, range(len(envs))))
        if len({part.success is None for played in parts for part in played}) > 1:
            raise InputError(
                f"the environment's info has {SUCCESS!r} in some batches and not in others: give it at every step, 0 "
                "where the task is not solved"
            )
        longest = max(part.steps for played in parts for part in played)
        like = parts[0][0].padded(longest)
        trajectory: Trajectory = map_tensors(lambda part: part.new_empty(*seeds.shape, *part.shape[2:]), like)
        for copy, played in enumerate(parts):
            for wave, part in zip(waves[copy :: len(envs)], played, strict=True):
                map_tensors(lambda own, piece, at=wave: own[at].copy_(piece), trajectory, part.padded(longest))
        _check_finite(trajectory, axis)
        return trajectory


def _check_finite(trajectory: Trajectory, axis: TaskAxis) -> None:
    """Name what was NaN or infinite first: in time, and in a step in the order of what is seen, done and got."""
    values = {name: getattr(trajectory, name) for name in ("observations", "actions", "rewards")}
    not_finite = [~value.isfinite().reshape(*trajectory.mask.shape, -1).all(-1) for value in values.values()]
    bad = torch.stack(not_finite, -1) & trajectory.mask.unsqueeze(-1)
    if not bad.any():
        return
    step, kind, task, episode = min((step, kind, task, episode) for task, episode, step, kind in bad.nonzero().tolist())
    name, value = list(values.items())[kind]
    tasks = bad.flatten(1).any(1).nonzero().flatten().tolist()
    others = f"; {len(tasks)} of {len(bad)} tasks hold such numbers{axis.of_seeds(tasks)}" if len(tasks) > 1 else ""
    observations = [*trajectory.observations[task, episode], trajectory.final_observations[task, episode]]
    goes_on = bool(observations[step + 1].isfinite().all())
    causes = {
        "observations": "the environment gave it",
        "actions": "the policy's parameters or what it makes of its input diverged: lower inner.lr, or what limits the "
        "outer step",
        "rewards": "the environment gave it" if goes_on else "the state of the simulation diverged",
    }
    raise FloatingPointError(
        f"{name} of {axis.name(task)}, episode {episode}, step {step} (all counted from 0) hold "
        f"{value[task, episode, step].flatten().tolist()}: {causes[name]}{others}"
    )
