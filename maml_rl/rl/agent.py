"""A trained agent: adapt it to a task, and act."""

import math
from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from maml_envs import InputError
from maml_rl.core.streams import Purpose
from maml_rl.core.tree import Params, of_one_seed
from maml_rl.rl.episodes import with_task
from maml_rl.rl.explore import explore
from maml_rl.rl.held_out import draw_for, rate_factors
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
            The adapted policy: the most probable action for an observation (obs,), as the environment takes it (act,),
            or the index of a discrete one.

        Raises:
            InputError: The task does not have the shape of one task, or a number is out of range.
        """
        learner = self.learner
        row, shape = torch.as_tensor(task, dtype=torch.float32), self.task_shape
        if row.numel() != math.prod(shape):
            raise InputError(f"a task of {learner.config.env} has shape {shape}, not {tuple(row.shape)}")
        if steps < 0 or (episodes is not None and episodes < 1):
            raise InputError(f"steps = {steps}, episodes = {episodes}: give at least 0 steps and 1 episode")
        draw = draw_for(
            learner, row.reshape(1, *shape), episodes or learner.config.episodes, Purpose.EVALUATION, seed + 1
        )
        exploration = explore(learner, of_one_seed(self.theta), draw, rate_factors(learner.config, steps))
        params = {name: value[0] for name, value in exploration.params_by_step[-1].items()}
        discrete, observed = learner.env.discrete, draw.tasks.flatten() if learner.sampler.observe_task else None

        @torch.no_grad()
        def policy(observation: ArrayLike) -> NDArray[Any]:
            seen = torch.as_tensor(observation, dtype=torch.float32, device=learner.device)
            task = None if observed is None else observed.expand(*seen.shape[:-1], -1)
            action = learner.policy.control(learner.policy(params, with_task(seen, task)).mode()).cpu().numpy()
            return np.asarray(action.argmax(-1)) if discrete else action

        return policy

    @property
    def task_shape(self) -> tuple[int, ...]:
        """Shape of one task."""
        return tuple(self.learner.env.sample_tasks(1, torch.Generator().manual_seed(0)).shape[1:])

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
