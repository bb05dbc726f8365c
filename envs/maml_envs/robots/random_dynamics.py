"""Random dynamics: run forward with masses, inertias, damping and friction that differ from task to task."""

import torch
from torch import Tensor

from maml_envs.robots.locomotion import Locomotion, Motion
from maml_envs.task_env import HELD_OUT_SEED

BASES = {"body_mass": 1.5, "body_inertia": 1.5, "dof_damping": 1.3, "geom_friction": 1.5}
"""Parameters of the model, in the order of a task's factors, each with the base of its factors."""


TIME_STEP = 0.004
"""Of the physics, in s; a control step has four."""


class RandomDynamics(Locomotion):
    """Task: a factor base^u for every element of the model's masses, inertias, damping and friction; reward v along x.

    | factor of              | elements        | base | u, split "in" | u, split "out" |
    |------------------------|-----------------|------|---------------|----------------|
    | mass                   | bodies          | 1.5  | U(-3, 3)      | U(-4, 4)       |
    | inertia about its axes | bodies x 3      | 1.5  | U(-3, 3)      | U(-4, 4)       |
    | damping                | joints          | 1.3  | U(-3, 3)      | U(-4, 4)       |
    | friction               | geometries x 3  | 1.5  | U(-3, 3)      | U(-4, 4)       |

    Elements that are zero, such as the world's mass and the damping of the root, have factors too, without effect:
    so a task is an array as the model has it. What MuJoCo derives from the masses is computed anew for each task.

    Source: rand_param_envs, the environments of the ProMP paper (arXiv 1810.06784).
    """

    exponent = 3.0
    exponent_beyond = 4.0

    def _sizes(self) -> list[int]:
        return [getattr(self.model, name).size for name in BASES]

    def _factors(self, count: int, exponent: float, generator: torch.Generator) -> Tensor:
        bases = torch.cat([torch.full((size,), base) for base, size in zip(BASES.values(), self._sizes(), strict=True)])
        return bases ** (exponent * (2 * torch.rand(count, len(bases), generator=generator) - 1))

    def sample_tasks(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw factors (count, elements)."""
        return self._factors(count, self.exponent, generator)

    def held_out_tasks(self, count: int, split: str = "in") -> Tensor:
        """Return fixed factors; split "out" has exponents of up to 4 instead of 3."""
        if split == "out":
            return self._factors(count, self.exponent_beyond, torch.Generator().manual_seed(HELD_OUT_SEED))
        return super().held_out_tasks(count, split)

    def task_parameters(self, tasks: Tensor) -> dict[str, Tensor]:
        """Return the model's parameters times the tasks' factors."""
        found = {}
        for name, factors in zip(BASES, tasks.double().cpu().split(self._sizes(), -1), strict=True):
            own = torch.from_numpy(getattr(self.model, name))
            found[name] = own * factors.reshape(len(tasks), *own.shape)
        return found

    def describe(self, task: Tensor) -> str:
        """Name the geometric mean of each kind's factors, over the elements that are not zero."""
        words = []
        for name, factors in zip(BASES, task.double().cpu().split(self._sizes()), strict=True):
            present = torch.from_numpy(getattr(self.model, name) != 0).flatten()
            words.append(f"{name.split('_')[1]} {factors[present].log().mean().exp():.2f}")
        return ", ".join(words)

    def task_reward(self, motion: Motion, task: Tensor) -> Tensor:
        """Return the velocity along x."""
        return motion.velocity[..., 0]
