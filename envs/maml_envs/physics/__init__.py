"""Simulators of batches of MuJoCo worlds: what each can do, and the table of them."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import NamedTuple, Protocol

import mujoco
import torch
from torch import Tensor

from maml_envs.task_env import GraphKey


class Physics(Protocol):
    """A batch of MuJoCo worlds.

    ``qpos`` (batch, nq) and ``qvel`` (batch, nv) are the state that the simulator writes, not copies of it. A world
    that diverges turns to NaN and stays so until ``set_state``; its neighbours go on.
    """

    qpos: Tensor
    qvel: Tensor

    @property
    def graph_key(self) -> GraphKey | None:
        """Key under which ``step`` may be recorded, see ``TaskEnv``; None on the CPU, where nothing is."""

    def set_models(self, models: Sequence[mujoco.MjModel]) -> None:
        """Give each world a model, of the same sizes as those before."""

    def set_state(self, qpos: Tensor, qvel: Tensor) -> None:
        """Put every world at time 0 into the given positions (batch, nq) and velocities (batch, nv)."""

    def step(self, control: Tensor, frame_skip: int) -> None:
        """Hold ``control`` (batch, nu) for ``frame_skip`` physics steps."""

    def check(self) -> None:
        """Raise errors that steps since ``set_state`` put off because looking means waiting for the device."""

    def close(self) -> None:
        """Release threads and memory."""


class Settings(NamedTuple):
    """Settings of a simulator; each uses those that concern it."""

    device: torch.device
    threads: int
    max_contacts: int | None  # to make room for in each world; None: the most there can be
    max_rows: int | None  # of constraints, likewise


class Simulator(NamedTuple):
    """A way to simulate MuJoCo worlds."""

    physics: Callable[[Sequence[mujoco.MjModel], int, Settings], Physics]  # models, batch, settings
    dtype: torch.dtype  # of the state
    packages: tuple[str, ...]  # of an extra of this package
    extra: str

    def installed(self) -> bool:
        """Return whether the packages it needs are installed."""
        return all(find_spec(name) for name in self.packages)


def _on_threads(models: Sequence[mujoco.MjModel], batch: int, settings: Settings) -> Physics:
    from maml_envs.physics.cpu import CpuPhysics

    return CpuPhysics(models, batch, settings.threads)


def _on_gpu(models: Sequence[mujoco.MjModel], batch: int, settings: Settings) -> Physics:
    from maml_envs.physics.gpu import GpuPhysics  # of the extra gpu

    return GpuPhysics(models, batch, settings.device, settings.max_contacts, settings.max_rows)


SIMULATORS = {
    "mujoco": Simulator(_on_threads, torch.float64, (), ""),
    "mujoco_warp": Simulator(_on_gpu, torch.float32, ("warp", "mujoco_warp"), "gpu"),
}


def simulator_on(device: torch.device) -> str:
    """Return the name of the simulator of a device."""
    return "mujoco" if device.type == "cpu" else "mujoco_warp"
