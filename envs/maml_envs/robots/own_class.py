"""Refusals of what a class of a robot may not do: change what it is given, or its model when that is too late."""

from collections.abc import Callable, Sequence
from typing import Protocol

import mujoco
import torch
from torch import Tensor

from maml_envs.errors import InputError
from maml_envs.robots.model import State, control_range, start_data


class Functions(Protocol):
    """The functions of a robot's class; see ``MujocoTask``."""

    def observation(self, state: State) -> Tensor:
        """Return what the policy observes."""

    def reward_terms(self, before: State, control: Tensor, after: State, task: Tensor) -> dict[str, Tensor]:
        """Return what sums to the reward."""

    def terminated(self, state: State) -> Tensor:
        """Return whether the episode ends."""

    def success(self, state: State, task: Tensor) -> Tensor | None:
        """Return whether the task is solved."""


def _same(one: State | Tensor, other: State | Tensor) -> bool:
    ours, others = ([x] if isinstance(x, Tensor) else list(vars(x).values()) for x in (one, other))
    return all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(ours, others, strict=True))


def refuse_changes_in_place(robot: Functions, before: State, control: Tensor, after: State, task: Tensor) -> None:
    """Call the functions of a robot's class on copies, and refuse those that change in place what they are given.

    Raises:
        InputError: One does: the simulation would go on from what it left behind.
    """
    given: tuple[State | Tensor, ...] = (before, control, after, task)
    functions: dict[str, Callable[..., object]] = {
        "observation": lambda _, __, after, ___: robot.observation(after),
        "reward_terms": robot.reward_terms,
        "terminated": lambda _, __, after, ___: robot.terminated(after),
        "success": lambda _, __, after, task: robot.success(after, task),
    }
    for name, function in functions.items():
        copies = [each.clone() for each in given]
        function(*copies)
        if any(not _same(one, other) for one, other in zip(copies, given, strict=True)):
            raise InputError(
                f"{type(robot).__name__}.{name} changes in place what it is given, which the simulation goes on from: "
                "write v = state.qvel / 10, and not v = state.qvel; v /= 10"
            )


def refuse_late_changes(
    name: str, model: mujoco.MjModel, around: tuple[float, ...] | str | None, start: Tensor, ranges: Sequence[Tensor]
) -> None:
    """Refuse a compiled model whose start or control ranges are no longer those that its class was made with.

    Args:
        name: Of the class.
        model: The model.
        around: Start position, as in ``ResetNoise``.
        start: Start position when it was made.
        ranges: ``control_range`` when it was made.

    Raises:
        InputError: They are others.
    """
    pairs = [(torch.from_numpy(start_data(model, around).qpos), start), *zip(control_range(model), ranges, strict=True)]
    if any(not torch.equal(now.to(made.dtype), made.cpu()) for now, made in pairs):
        raise InputError(
            f"{name}: control ranges or the start position of self.model were changed after super().__init__, which "
            "made the action space and the start of them: change an mujoco.MjSpec, and pass that to super().__init__"
        )
