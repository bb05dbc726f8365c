"""A trained agent: adapt it to a task, and act."""

import math
from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from maml_envs import InputError, ToldTask
from maml_rl.core.streams import Purpose
from maml_rl.core.tree import Params
from maml_rl.rl.held_out import rate_factors
from maml_rl.rl.learner import Learner


class Agent:
    """Meta-trained parameters that adapt to a task by acting in it."""

    def __init__(self, learner: Learner, theta: Params) -> None:
        self.learner = learner
        self.theta = theta

    def adapt(
        self, task: ArrayLike | Tensor, steps: int = 1, episodes: int | None = None, seed: int = 0
    ) -> Callable[[ArrayLike], NDArray[Any]]:
        """Take gradient steps on episodes of one task.

        Args:
            task: One row of tasks, such as a goal.
            steps: Gradient steps; 0 gives the policy before adaptation.
            episodes: Episodes for each step; None for the configuration's number.
            seed: For the episodes' noise and start states.

        Returns:
            The adapted policy: the most probable action for an observation (obs,); in the policy's units (act,), or
            the index of a discrete one.

        Raises:
            InputError: The task does not have the shape of one task, or a number is out of range.
        """
        learner = self.learner
        row, shape = torch.as_tensor(task, dtype=torch.float32), self.task_shape
        if row.numel() != math.prod(shape):
            raise InputError(f"a task of {learner.config.env} has shape {shape}, not {tuple(row.shape)}")
        if steps < 0 or (episodes is not None and episodes < 1):
            raise InputError(f"steps = {steps}, episodes = {episodes}: give at least 0 steps and 1 episode")
        tasks = row.reshape(1, *shape).to(learner.device)
        key = learner.key(Purpose.EVALUATION, seed + 1)
        exploration = learner.explore(
            self.theta, tasks, episodes or learner.config.episodes, key, rate_factors(learner.config, steps)
        )
        params = {name: value[0] for name, value in exploration.chain[-1].items()}

        discrete, told = learner.envs[0].discrete, learner.config.method == "oracle"

        @torch.no_grad()
        def policy(observation: ArrayLike) -> NDArray[Any]:
            seen = torch.as_tensor(observation, dtype=torch.float32, device=learner.device)
            seen = ToldTask.told(seen, tasks[0].expand(*seen.shape[:-1], *shape)) if told else seen
            action = learner.policy(params, seen).mode().cpu().numpy()
            return np.asarray(action.argmax(-1)) if discrete else action

        return policy

    @property
    def task_shape(self) -> tuple[int, ...]:
        """Shape of one task."""
        return tuple(self.learner.envs[0].sample_tasks(1, torch.Generator().manual_seed(0)).shape[1:])

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
