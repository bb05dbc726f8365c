"""Tasks that robots share: each a distribution and a reward for a motion."""

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from maml_envs.errors import InputError
from maml_envs.robots.locomotion import Locomotion, Motion
from maml_envs.task_env import HELD_OUT_SEED, goal_in_words


def _unit(angle: Tensor) -> Tensor:
    return torch.stack((angle.cos(), angle.sin()), -1)


class ForwardOrBackward(Locomotion):
    """Task d = +1 or -1 with equal chance: reward d v along x. Held-out tasks alternate; there are none beyond them.

    Tasks drawn together are as many of one direction as of the other, in random order: of four drawn one by one, all
    are alike once in eight times, and a meta-gradient of one direction alone unlearns the other.
    """

    task_name = "direction (1: forward, -1: backward)"

    def sample_tasks(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw directions (count, 1), +1 or -1: half of each; of an odd count, chance says which has one more."""
        extra = torch.randint(2, (), generator=generator)
        order = torch.randperm(count, generator=generator).unsqueeze(-1)
        return 1.0 - 2.0 * ((order + extra) % 2)

    def held_out_tasks(self, count: int, split: str = "in") -> Tensor:
        """Return +1, -1, +1, ...: as many of one direction as of the other."""
        if split != "in":
            raise InputError(f"{type(self).__name__} has only two tasks, so no split {split!r}: use split='in'")
        return 1.0 - 2.0 * (torch.arange(count).unsqueeze(-1) % 2)

    def task_reward(self, motion: Motion, task: Tensor) -> Tensor:
        """Return the velocity in the task's direction."""
        return task[..., 0] * motion.velocity[..., 0]

    def describe(self, task: Tensor) -> str:
        """Name the direction."""
        return "forward" if task[0] > 0 else "backward"


class PlaneDirection(Locomotion):
    """Task d, a unit vector of any direction in the plane: reward d · v.

    Held-out tasks are evenly spaced around the circle, from the x axis; there are none beyond it.
    """

    task_name = "direction"

    def sample_tasks(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw directions (count, 2), unit vectors."""
        return _unit(2 * math.pi * torch.rand(count, generator=generator))

    def held_out_tasks(self, count: int, split: str = "in") -> Tensor:
        """Return directions evenly spaced around the circle."""
        if split != "in":
            raise InputError(f"{type(self).__name__} has tasks all around, so no split {split!r}: use split='in'")
        return _unit(2 * math.pi * torch.arange(count) / count)

    def task_reward(self, motion: Motion, task: Tensor) -> Tensor:
        """Return the velocity in the task's direction."""
        return (task * motion.velocity).sum(-1)

    def describe(self, task: Tensor) -> str:
        """Name the direction's angle from the x axis."""
        degrees = math.degrees(math.atan2(task[1], task[0]))
        return f"direction {round(degrees) % 360}°"


class GoalVelocity(Locomotion):
    """Task g, uniform in (0, top speed) m/s: reward -abs(v - g) along x. Split "out": up to 1 m/s above."""

    task_name = "goal velocity (m/s)"
    top_speeds: ClassVar[Mapping[str, float]]  # m/s, by preset

    def sample_tasks(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw goal velocities (count, 1) in m/s."""
        return self.top_speeds[self.preset] * torch.rand(count, 1, generator=generator)

    def held_out_tasks(self, count: int, split: str = "in") -> Tensor:
        """Return fixed goal velocities; split "out" lies within 1 m/s above the training range."""
        if split == "out":
            generator = torch.Generator().manual_seed(HELD_OUT_SEED)
            return self.top_speeds[self.preset] + torch.rand(count, 1, generator=generator)
        return super().held_out_tasks(count, split)

    def task_reward(self, motion: Motion, task: Tensor) -> Tensor:
        """Return minus the distance to the goal velocity."""
        return -(motion.velocity[..., 0] - task[..., 0]).abs()

    def describe(self, task: Tensor) -> str:
        """Name the goal velocity."""
        return f"goal velocity {float(task[0]):.2f} m/s"


class GoalPosition(Locomotion):
    """Task g, uniform in a disc or a square around the start: reward -abs(x - gx) - abs(y - gy) after the step.

    Split "out": goals beyond the training range, at up to 1.5 times its size.
    """

    task_name = "goal position (m)"
    reach: ClassVar[float] = 3.0  # m, radius of the disc or half the side of the square
    shapes: ClassVar[Mapping[str, str]]  # "disc" or "square", by preset

    def sample_tasks(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw goals (count, 2) in m."""
        numbers = torch.rand(count, 2, generator=generator)
        if self.shapes[self.preset] == "square":
            return self.reach * (2 * numbers - 1)
        return self.reach * numbers[:, :1].sqrt() * _unit(2 * math.pi * numbers[:, 1])

    def held_out_tasks(self, count: int, split: str = "in") -> Tensor:
        """Return fixed goals; split "out": 3 to 4.5 m from the start, in a square by the larger coordinate."""
        goals = super().held_out_tasks(count, "in" if split == "out" else split)
        if split == "out":
            norm = 2 if self.shapes[self.preset] == "disc" else math.inf
            beyond = torch.rand(count, 1, generator=torch.Generator().manual_seed(HELD_OUT_SEED + 1))
            goals = goals / torch.linalg.vector_norm(goals, norm, -1, keepdim=True) * self.reach * (1 + 0.5 * beyond)
        return goals

    def task_reward(self, motion: Motion, task: Tensor) -> Tensor:
        """Return minus the distance to the goal, along x plus along y."""
        return -(motion.position - task).abs().sum(-1)

    def goal_positions(self, tasks: Tensor) -> Tensor:
        """Return the tasks, which are the goals."""
        return tasks

    def describe(self, task: Tensor) -> str:
        """Name the goal."""
        return goal_in_words(task)
