"""Simulators of batches of MuJoCo worlds: what each can do, and the table of them."""

from collections.abc import Callable, Mapping, Sequence
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
    fields: dict[str, Tensor]  # of MuJoCo's data, (batch, ...), of the present state; see ``maml_envs.physics.fields``

    @property
    def graph_key(self) -> GraphKey | None:
        """Key under which ``step`` may be recorded, see ``TaskEnv``; None on the CPU, where nothing is."""

    def set_models(self, models: Sequence[mujoco.MjModel]) -> None:
        """Give each world a model, of the same sizes as the first one."""

    def set_parameters(self, parameters: Mapping[str, Tensor]) -> None:
        """Give each world values of its own of the model's fields, (batch, ...) each, and what follows from them."""

    def set_state(self, qpos: Tensor, qvel: Tensor) -> None:
        """Put every world at time 0 into the given positions (batch, nq) and velocities (batch, nv)."""

    def step(self, control: Tensor, frame_skip: int) -> None:
        """Hold ``control`` (batch, nu) for ``frame_skip`` physics steps."""

    def end(self, worlds: Tensor) -> None:
        """Let worlds, (batch,) bool, stand still until ``set_state``, if that saves work."""

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
    fields: tuple[str, ...]  # of MuJoCo's data to keep up to date


class Simulator(NamedTuple):
    """A way to simulate MuJoCo worlds."""

    physics: Callable[[mujoco.MjModel, int, Settings], Physics]  # model, batch, settings
    dtype: torch.dtype  # of the state
    packages: tuple[str, ...]  # of an extra of this package
    extra: str

    def lacks(self, device: torch.device) -> str:
        """Return what is missing here to simulate on a device, and what to do about it; empty where nothing is."""
        if not all(find_spec(name) for name in self.packages):
            return f"{self.packages[-1]} is not installed: pip install 'maml_rl[{self.extra}]'"
        if not self.packages:
            return ""
        from maml_envs.physics.gpu_device import lacks  # of the extra gpu

        return lacks(device)


def _on_threads(model: mujoco.MjModel, batch: int, settings: Settings) -> Physics:
    from maml_envs.physics.cpu import CpuPhysics

    return CpuPhysics(model, batch, settings.threads, settings.fields)


def _on_gpu(model: mujoco.MjModel, batch: int, settings: Settings) -> Physics:
    from maml_envs.physics.gpu import GpuPhysics  # of the extra gpu

    return GpuPhysics(model, batch, settings.device, settings.max_contacts, settings.max_rows, settings.fields)


SIMULATORS = {
    "mujoco": Simulator(_on_threads, torch.float64, (), ""),
    "mujoco_warp": Simulator(_on_gpu, torch.float32, ("warp", "mujoco_warp"), "gpu"),
}


def simulator_on(device: torch.device) -> str:
    """Return the name of the simulator of a device."""
    return "mujoco" if device.type == "cpu" else "mujoco_warp"
