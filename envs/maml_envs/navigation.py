"""2D navigation: walk from the origin to a goal that the agent does not see (MAML paper, section 5.3)."""

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maml_envs.task_env import HELD_OUT_SEED, Step, TaskEnv, goal_in_words


class Navigation(TaskEnv):
    """A point in the plane that has to find a goal.

    | quantity    | value                                             | unit   |
    |-------------|---------------------------------------------------|--------|
    | observation | position (x, y)                                   | length |
    | action      | scaled by 0.1 and clipped to +-0.1: the move      | length |
    | reward      | minus the distance to the goal after the move     | length |
    | start       | (0, 0)                                            | length |
    | ends        | when abs(x - gx) < 0.01 and abs(y - gy) < 0.01    |        |
    | task        | goal, each coordinate uniform in (-0.5, 0.5)      | length |
    | horizon     | 100                                               | steps  |

    The paper's text says squared distance; its code, and its published return of -40.41 before adaptation,
    are of the plain distance, as here. Held-out split "out": one coordinate in 0.5 to 0.75 from the origin,
    beyond the training square.

    Source: Finn, Abbeel, Levine 2017, section 5.3, and its code (preset finn2017).
    """

    presets = ("finn2017",)
    step_length = 0.1
    goal_range = 0.5
    arrival = 0.01
    map_only = True
    task_name = "goal position"

    def __init__(self, preset: str = "finn2017", horizon: int = 100, device: torch.device | str = "cpu") -> None:
        self.preset = preset
        self.horizon = horizon
        self.device = torch.device(device)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self._position = self._goal = torch.zeros(0, 2, device=self.device)

    def sample_tasks(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw goals (count, 2), each coordinate uniform in (-0.5, 0.5)."""
        return self.goal_range * (2 * torch.rand(count, 2, generator=generator) - 1)

    def held_out_tasks(self, count: int, split: str = "in") -> Tensor:
        """Return fixed goals; in split "out" the larger coordinate is between 0.5 and 0.75."""
        goals = super().held_out_tasks(count, "in" if split == "out" else split)
        if split == "out":
            reach = torch.rand(count, 1, generator=torch.Generator().manual_seed(HELD_OUT_SEED + 1))
            goals = goals / goals.abs().amax(-1, keepdim=True) * self.goal_range * (1 + 0.5 * reach)
        return goals

    def reset(self, tasks: Tensor, seeds: Tensor) -> Tensor:
        """Start every episode at the origin."""
        self._goal = tasks.to(self.device, torch.float32)
        self._position = torch.zeros_like(self._goal)
        return self._position

    def step(self, action: Tensor) -> Step:
        """Move by the clipped, scaled action."""
        self._position = self._position + (self.step_length * action).clamp(-self.step_length, self.step_length)
        offset = self._position - self._goal
        terminated = (offset.abs() < self.arrival).all(-1)
        reward = -torch.linalg.vector_norm(offset, dim=-1)
        return Step(self._position, reward, terminated, torch.zeros_like(terminated), {"success": terminated})

    def positions(self) -> Tensor:
        """Return the positions, which are the observations."""
        return self._position

    def goal_positions(self, tasks: Tensor) -> Tensor:
        """Return the tasks, which are the goals."""
        return tasks

    def describe(self, task: Tensor) -> str:
        """Name the goal."""
        return goal_in_words(task)

    def render(self, index: int = 0) -> NDArray[np.uint8]:
        """Draw a 400 x 400 image of the square from -1 to 1: goal green, point blue."""
        axis = np.linspace(-1, 1, 400, dtype=np.float32)
        x, y = np.meshgrid(axis, -axis)
        image = np.full((400, 400, 3), 255, np.uint8)
        for center, radius, color in (
            (self._goal[index], 0.04, (0, 158, 115)),
            (self._position[index], 0.03, (0, 114, 178)),
        ):
            cx, cy = center.tolist()
            image[(x - cx) ** 2 + (y - cy) ** 2 < radius**2] = color
        return image
