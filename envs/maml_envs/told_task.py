"""An environment whose observation tells the task: what an oracle learns in."""

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maml_envs.task_env import GraphKey, Step, TaskEnv


class ToldTask(TaskEnv):
    """Another environment, with the numbers of the task after its observation: (batch, obs + numbers of a task).

    Args:
        env: The environment; it is closed with this one.
    """

    def __init__(self, env: TaskEnv) -> None:
        self.env = env
        task = env.held_out_tasks(1)
        width = env.observation_space.shape[0] + task[0].numel()
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (width,), np.float32)
        self.action_space = env.action_space
        self.horizon, self.max_batch, self.copies, self.device = env.horizon, env.max_batch, env.copies, env.device
        self.map_only, self.presets = env.map_only, env.presets
        self._task = torch.zeros(0)

    @staticmethod
    def told(observation: Tensor, task: Tensor) -> Tensor:
        """Observations (..., obs) with their tasks (..., *task_shape) after them."""
        return torch.cat([observation, task.reshape(*observation.shape[:-1], -1).to(observation)], -1)

    def sample_tasks(self, count: int, generator: torch.Generator) -> Tensor:
        """The other environment's."""
        return self.env.sample_tasks(count, generator)

    def held_out_tasks(self, count: int, split: str = "in") -> Tensor:
        """The other environment's."""
        return self.env.held_out_tasks(count, split)

    def best_return(self, tasks: Tensor) -> Tensor | None:
        """The other environment's."""
        return self.env.best_return(tasks)

    def reset(self, tasks: Tensor, seeds: Tensor) -> Tensor:
        """First observations, with the tasks."""
        if self._task.shape == tasks.shape:
            self._task.copy_(tasks)
        else:
            self._task = tasks.clone()
        return self.told(self.env.reset(tasks, seeds), tasks)

    def step(self, action: Tensor) -> Step:
        """The other environment's step, with the tasks in the observation."""
        step = self.env.step(action)
        return step._replace(observation=self.told(step.observation, self._task))

    @property
    def graph_key(self) -> GraphKey | None:
        """The other environment's."""
        return self.env.graph_key

    def raise_deferred(self) -> None:
        """Look at the other environment's."""
        self.env.raise_deferred()

    def describe(self, task: Tensor) -> str:
        """The other environment's words."""
        return self.env.describe(task)

    def positions(self) -> Tensor | None:
        """The other environment's."""
        return self.env.positions()

    def goal_positions(self, tasks: Tensor) -> Tensor | None:
        """The other environment's."""
        return self.env.goal_positions(tasks)

    def render(self, index: int = 0) -> NDArray[np.uint8]:
        """The other environment's picture."""
        return self.env.render(index)

    def close(self) -> None:
        """Close the other environment."""
        self.env.close()
