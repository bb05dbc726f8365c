"""A trained agent: adapt it to a task, and act."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from maml_envs import InputError, VectorOptions
from maml_envs.adapters.actions import passed_on
from maml_envs.adapters.from_gymnasium import GymnasiumTaskEnv
from maml_envs.adapters.to_gymnasium import SingleEnv
from maml_rl.core.streams import Purpose
from maml_rl.core.tree import Params, of_one_seed
from maml_rl.rl.adapted import AdaptedPolicy
from maml_rl.rl.explore import explore
from maml_rl.rl.held_out import draw_for, rate_factors
from maml_rl.rl.learner import Learner
from maml_rl.rl.rollout import Sampler


class Agent:
    """Meta-trained parameters that adapt to a task by acting in it."""

    def __init__(self, learner: Learner, theta: Params) -> None:
        self.learner = learner
        self.theta = theta

    def adapt(
        self,
        task: ArrayLike | Tensor | Mapping[str, float] | gymnasium.Env[Any, Any],
        steps: int = 1,
        episodes: int | None = None,
        seed: int = 0,
    ) -> AdaptedPolicy:
        """Take gradient steps on episodes of one task.

        Args:
            task: One row of tasks, such as a goal; with ``vector.task_ranges`` also the values by their keys, such as
                {"gravity": -3.0}. Or a gymnasium environment, in which the episodes are sampled, as long as those of
                training, its task being whatever it is.
            steps: Gradient steps; 0 gives the policy before adaptation.
            episodes: Episodes for each step; None for the configuration's number.
            seed: For the episodes' noise and start states, and for the policy's own noise.

        Raises:
            InputError: The task does not have the shape of one task, the environment other spaces than the agent was
                trained with, or a number is out of range.
        """
        if steps < 0 or (episodes is not None and episodes < 1):
            raise InputError(f"steps = {steps}, episodes = {episodes}: give at least 0 steps and 1 episode")
        if episodes == 1 and self.learner.config.baseline.name == "value_network":
            raise InputError(
                "episodes = 1 with baseline.name = 'value_network', which learns from a task's others: give 2"
            )
        if isinstance(task, gymnasium.Env):
            learner, row = _within(self.learner, task), torch.zeros(1, 1)
        else:
            learner, row = self.learner, self._row(task)
        draw = draw_for(learner, row, episodes or learner.config.episodes, Purpose.EVALUATION, seed + 1)
        exploration = explore(learner, of_one_seed(self.theta), draw, rate_factors(learner.config, steps))
        params = {name: value[0] for name, value in exploration.params_by_step[-1].items()}
        observed, env = draw.tasks.flatten() if learner.sampler.observe_task else None, learner.env
        if isinstance(env, GymnasiumTaskEnv):
            return AdaptedPolicy(learner.policy, params, env.own_space, env.own_actions, observed, seed)
        space, actions = env.observation_space, passed_on(env.action_space)
        return AdaptedPolicy(learner.policy, params, space, actions, observed, seed)

    def _row(self, task: ArrayLike | Tensor | Mapping[str, float]) -> Tensor:
        shape, dtype = self._tasks.shape[1:], self._tasks.dtype
        ranges = self.learner.config.vector.task_ranges or {}
        keys = sorted(ranges)
        if isinstance(task, Mapping):
            if not keys or set(task) != set(keys):
                wanted = (
                    f"give {', '.join(keys)}" if keys else "give a row of numbers, as vector.task_ranges is not used"
                )
                raise InputError(f"a task by the keys {', '.join(map(str, task)) or 'none'}: {wanted}")
            task = [task[key] for key in keys]
        row = torch.as_tensor(task, dtype=dtype)
        if row.numel() != math.prod(shape):
            raise InputError(f"a task of {self.learner.config.env} has shape {tuple(shape)}, not {tuple(row.shape)}")
        for key, value in zip(keys, row.flatten().tolist(), strict=False):  # without ranges there are no keys
            low, high = ranges[key]
            if not low <= value <= high:
                warnings.warn(f"{key} = {value:g} is outside [{low:g}, {high:g}], which was trained on", stacklevel=3)
        return row.reshape(1, *shape)

    @property
    def _tasks(self) -> Tensor:
        return self.learner.env.sample_tasks(1, torch.Generator().manual_seed(0))

    @property
    def task_shape(self) -> tuple[int, ...]:
        """Shape of one task."""
        return tuple(self._tasks.shape[1:])

    def close(self) -> None:
        """Release the environments."""
        self.learner.close()

    def __enter__(self) -> "Agent":
        """The agent."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the environments."""
        self.close()


class _Borrowed(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A user's environment, whose task is set already and which is not ours to close."""

    def sample_tasks(self, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
        return np.zeros((count, 1))

    def set_task(self, task: NDArray[Any]) -> None:
        pass

    def close(self) -> None:
        pass


def _within(learner: Learner, env: gymnasium.Env[Any, Any]) -> Learner:
    """Return a learner that samples its episodes in one environment of a user.

    Raises:
        InputError: It has other spaces, or a new task at every reset; or the policy is told the task.
    """
    named = type(env.unwrapped).__name__
    if learner.sampler.observe_task:
        raise InputError(f"adapt({named}): this policy was trained to observe the task, which no environment shows")
    if isinstance(env.unwrapped, SingleEnv):
        raise InputError(f"adapt({named}): it draws a new task at every reset; give adapt the task and not it")
    alone, steps = VectorOptions(vector_size=1), learner.env.horizon
    wrapped = GymnasiumTaskEnv(lambda: _Borrowed(env), alone, steps, f"adapt({named})")
    for name, found, expected in (
        ("observations", wrapped.observation_space.shape, learner.env.observation_space.shape),
        ("actions", (wrapped.discrete, wrapped.action_width), (learner.env.discrete, learner.env.action_width)),
    ):
        if found != expected:
            raise InputError(f"adapt({named}): its {name} have shape {found}, and those of training {expected}")
    return replace(learner, sampler=Sampler([wrapped], learner.policy))
