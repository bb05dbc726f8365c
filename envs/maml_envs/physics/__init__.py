"""Batched steppers: one MuJoCo model, many worlds."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Protocol

import mujoco
import torch
from torch import Tensor

from maml_envs.errors import InputError
from maml_envs.task_env import Memory


class Physics(Protocol):
    """A batch of MuJoCo worlds, on the CPU (``cpu.CpuPhysics``) or on a GPU (``gpu.GpuPhysics``).

    ``qpos`` (batch, nq) and ``qvel`` (batch, nv) are the state that the simulator writes, not copies of it. A world
    that diverges turns to NaN and stays so until ``set_state``; its neighbours go on.
    """

    qpos: Tensor
    qvel: Tensor

    @property
    def memory(self) -> Memory | None:
        """In which ``step`` does the same operations every time; None on the CPU, where nothing records them."""

    def use(self, models: Sequence[mujoco.MjModel]) -> None:
        """Give each world a model, of the same sizes as those before."""

    def set_state(self, qpos: Tensor, qvel: Tensor) -> None:
        """Put every world at time 0 into the given positions (batch, nq) and velocities (batch, nv)."""

    def step(self, control: Tensor, frame_skip: int) -> None:
        """Hold ``control`` (batch, nu) for ``frame_skip`` physics steps."""

    def check(self) -> None:
        """Raise what no step since ``set_state`` could raise without waiting for the device."""

    def close(self) -> None:
        """Release threads and memory."""


def gpu_extra() -> bool:
    """Whether the extra ``gpu`` is installed."""
    return all(find_spec(name) for name in ("warp", "mujoco_warp"))


def require_gpu_extra(env: str, device: torch.device) -> None:
    """Refuse a GPU for the MuJoCo environment ``env`` where there is nothing that simulates on it.

    Raises:
        InputError: The extra ``gpu`` is not installed.
    """
    if device.type != "cpu" and not gpu_extra():
        raise InputError(
            f"env = {env!r} with device = '{device}' simulates on the GPU with mujoco_warp, which is not installed: "
            "pip install 'maml_rl[gpu]', or use device = 'cpu'"
        )
