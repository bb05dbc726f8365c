"""Locomotion: a reward for how a robot moves, a cost of control, a bonus for staying up."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, NamedTuple

import mujoco
import torch
from torch import Tensor

from maml_envs.robots.model import ResetNoise, State
from maml_envs.robots.mujoco_task import MujocoTask


class Motion(NamedTuple):
    """Position of a robot after a step and its velocity, along x or along x and y."""

    position: Tensor  # (..., axes) m
    velocity: Tensor  # (..., axes) m/s


class Definition(NamedTuple):
    """A family of tasks, by one published definition."""

    model: Callable[[], mujoco.MjModel]
    frame_skip: int
    action_scale: float  # of the policy that the sources had
    noise: ResetNoise
    control_cost: float  # times the sum of squared controls
    survive: float = 0.0  # a step
    weight: float = 1.0  # times the task's reward
    heights: tuple[float, float] = (-torch.inf, torch.inf)  # m: outside, the episode ends
    fields: tuple[str, ...] = ()  # of MuJoCo's data, beside qpos and qvel
    contact_cost: Callable[[Tensor], Tensor] | None = None  # of the contact forces cfrc_ext, (..., bodies, 6)


class Locomotion(MujocoTask):
    """Reward w r(motion, task) - c sum(a^2) + s a step, with w, c and s of the definition and r the task's.

    Where the definition has a cost of contact forces, it is taken off.

    The step that ends an episode has the bonus s too, as in the sources; gymnasium's robots withhold it there.

    A robot defines ``motion``, ``observation`` and ``terminated``; a task ``task_reward`` and its distribution; a
    family is one of each, and its definitions by preset.
    """

    definitions: ClassVar[Mapping[str, Definition]]

    def __init__(
        self,
        preset: str = "gymnasium",
        horizon: int = 200,
        threads: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.preset = preset
        self.definition = form = self.definitions[preset]
        self.fields, self.action_scale = form.fields, form.action_scale
        super().__init__(form.model(), form.frame_skip, form.noise, horizon, threads, device)

    @abstractmethod
    def motion(self, before: State, after: State) -> Motion:
        """Return how the robot moved in a step."""

    @abstractmethod
    def task_reward(self, motion: Motion, task: Tensor) -> Tensor:
        """Return the task's reward for a motion, (...)."""

    def reward_terms(self, before: State, control: Tensor, after: State, task: Tensor) -> dict[str, Tensor]:
        """Return the task's reward for the motion, the control cost and, if there are such, contact cost and bonus."""
        run = self.definition.weight * self.task_reward(self.motion(before, after), task)
        terms = {"reward_run": run, "reward_control": -self.definition.control_cost * control.square().sum(-1)}
        if self.definition.contact_cost:
            terms["reward_contact"] = -self.definition.contact_cost(after.cfrc_ext)
        if self.definition.survive:
            terms["reward_survive"] = torch.full_like(run, self.definition.survive)
        return terms

    def positions(self) -> Tensor:
        """Return positions, as the preset measures them, (batch, axes) in m."""
        return self.motion(self.state, self.state).position.clone()

    def change(self, before: State, after: State, axes: int) -> Motion:
        """Return the root's motion along its first axes; the velocity is the change of position over dt."""
        position = after.qpos[..., :axes]
        return Motion(position, (position - before.qpos[..., :axes]) / self.dt)


def of_center_of_mass(state: State, axes: int) -> Motion:
    """Return position and velocity of the robot's centre of mass along the first axes, as rllab measures motion."""
    return Motion(state.subtree_com[..., 1, :axes], state.subtree_linvel[..., 1, :axes])


def outside(value: Tensor, interval: tuple[float, float]) -> Tensor:
    """Return whether a value has left a closed interval; NaN has not, so that divergence shows and is not an ending."""
    low, high = interval
    return (value < low) | (value > high)
