"""MuJoCo on CPU threads: one C++ call steps the whole batch."""

from collections.abc import Iterable, Mapping, Sequence

import mujoco
import numpy as np
import torch
from mujoco.batch import Batch
from numpy.typing import NDArray
from torch import Tensor

from maml_envs.physics.fields import own_sensordata, stage_of
from maml_envs.physics.model_fields import expand
from maml_envs.physics.warnings import log_warnings
from maml_envs.task_env import GraphKey

NOT_COMPUTED = int(mujoco.mjtStage.mjSTAGE_NONE)

log_warnings()


def _tensor(array: NDArray[np.generic]) -> Tensor:
    """Return a tensor over an array that the simulator alone writes, of which torch would warn."""
    array.flags.writeable = True
    return torch.from_numpy(array)


class CpuPhysics:
    """A batch of MuJoCo worlds over ``mujoco.batch``, bit for bit a loop of ``mj_step`` over them.

    ``qpos`` and ``qvel`` are float64 torch views (batch, nq) and (batch, nv) of the state that the simulator
    writes. Worlds that diverge, by MuJoCo's own limit on the size of a state, are not reset silently: they
    turn to NaN, which the caller finds in its data.

    Args:
        model: The compiled model of all worlds.
        batch: Number of worlds.
        threads: Threads of the pool, the caller's among them.
        fields: Names of fields of MuJoCo's data to keep up to date.
    """

    graph_key: GraphKey | None = None

    def __init__(self, model: mujoco.MjModel, batch: int, threads: int, fields: Iterable[str] = ()) -> None:
        self._size = batch
        self._live = np.ones(batch, dtype=bool)
        self._batch = Batch(model, batch, threads)
        self._stage = stage_of(model, fields)
        self._control: Tensor = torch.from_numpy(self._batch.bind("ctrl"))
        self.qpos: Tensor = torch.from_numpy(self._batch.bind("qpos"))
        self.qvel: Tensor = torch.from_numpy(self._batch.bind("qvel"))
        self.fields: dict[str, Tensor] = {name: _tensor(self._batch.bind(name)) for name in fields}
        if "sensordata" in self.fields:
            self.fields["sensordata"] = self.fields["sensordata"][:, : own_sensordata(model)]
        self._moving = self._batch.state[:, : 1 + model.nq + model.nv + model.na]  # time, qpos, qvel, act

    def set_models(self, models: Sequence[mujoco.MjModel]) -> None:
        """Give each world a model, of the same sizes as the first one."""
        if len(models) != self._size:
            raise ValueError(f"{len(models)} models for {self._size} worlds: give one for each world")
        self._batch.set_models(models)

    def set_parameters(self, parameters: Mapping[str, Tensor]) -> None:
        """Give each world values of its own of the model's fields, (batch, ...) each, and what follows from them."""
        expand(self._batch, parameters)

    def set_state(self, qpos: Tensor, qvel: Tensor) -> None:
        """Put every world at time 0 into the given positions (batch, nq) and velocities (batch, nv)."""
        self._live[:] = True
        self._batch.reset(stage=NOT_COMPUTED)
        self.qpos.copy_(qpos)
        self.qvel.copy_(qvel)
        if self._stage != NOT_COMPUTED:
            self._batch.forward(stage=self._stage)

    def end(self, worlds: Tensor) -> None:
        """Let worlds, (batch,) bool, stand still until ``set_state``."""
        self._live &= ~worlds.numpy()

    def step(self, control: Tensor, frame_skip: int) -> None:
        """Hold ``control`` (batch, nu) for ``frame_skip`` physics steps in the worlds that have not ended."""
        self._control.copy_(control)
        self._batch.step(self._live, frame_skip, self._stage)
        if not np.abs(self._moving).max() < mujoco.mjMAXVAL:
            self._batch.state[~(np.abs(self._moving).max(axis=1) < mujoco.mjMAXVAL)] = np.nan

    def check(self) -> None:
        """Do nothing: a diverged world shows as NaN, and MuJoCo makes room for what it needs."""

    def close(self) -> None:
        """Stop the threads."""
        self.fields.clear()
        del self._batch
