"""An ordinary gymnasium environment of any TaskEnv: one robot, for rendering and for other libraries."""

from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from maml_envs.errors import InputError
from maml_envs.task_env import TaskEnv


class SingleEnv(gymnasium.Env[NDArray[Any], NDArray[Any]]):
    """A single environment of a TaskEnv.

    Its spaces are the TaskEnv's: actions within its bounds, or a choice of a discrete action.
    ``reset`` draws a new task from its seed unless ``options={"task": row}`` gives one; its ``info`` holds
    the task. The ``info`` of ``step`` holds the reward terms by name.

    Args:
        env: The TaskEnv; it is used with a batch of one.
        render_mode: None or "rgb_array".
    """

    def __init__(self, env: TaskEnv, render_mode: str | None = None) -> None:
        self.env = env
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 20}
        self.render_mode = render_mode
        self.observation_space = env.observation_space
        self.action_space: gymnasium.spaces.Space[Any] = env.action_space
        self._steps = 0
        self._task: torch.Tensor | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Start an episode; ``options["task"]`` is one row of tasks."""
        super().reset(seed=seed)
        draw = int(self.np_random.integers(2**62))
        if options and "task" in options:
            self._task = torch.as_tensor(options["task"], dtype=torch.float32).unsqueeze(0)
        else:
            self._task = self.env.sample_tasks(1, torch.Generator().manual_seed(draw))
        self._steps = 0
        observation = self.env.reset(self._task, torch.tensor([draw]))
        return observation[0].numpy().astype(np.float32), {"task": self._task[0].numpy()}

    def _policy_action(self, action: NDArray[Any]) -> NDArray[np.float32]:
        space = self.env.action_space
        if not isinstance(space, gymnasium.spaces.Discrete):
            return np.asarray(action, np.float32)
        row = np.asarray(space.start + np.arange(space.n) == action, np.float32)
        if row.ndim != 1 or row.sum() != 1:
            raise InputError(f"action = {action!r} is not one of the {space.n} actions, from {space.start} on")
        return row

    def step(self, action: NDArray[Any]) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        """Take one control step; truncated at the environment's horizon."""
        step = self.env.step(torch.from_numpy(self._policy_action(action)).unsqueeze(0))
        self._steps += 1
        truncated = bool(step.truncated[0]) or self._steps >= self.env.horizon
        info = {name: value[0].item() for name, value in step.info.items()}
        return (
            step.observation[0].numpy().astype(np.float32),
            float(step.reward[0]),
            bool(step.terminated[0]),
            truncated,
            info,
        )

    def render(self) -> NDArray[np.uint8] | None:
        """Return an RGB image (height, width, 3), uint8, or None without the render mode."""
        return self.env.render() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Release the environment's threads and renderer."""
        self.env.close()
