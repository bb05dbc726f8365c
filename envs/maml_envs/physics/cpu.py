"""MuJoCo on CPU threads: one C++ call steps the whole batch."""

from collections.abc import Sequence

import mujoco
import numpy as np
import torch
from mujoco.rollout import Rollout
from torch import Tensor

from maml_envs.physics.warnings import log_warnings
from maml_envs.task_env import GraphKey

_FULL_PHYSICS = mujoco.mjtState.mjSTATE_FULLPHYSICS

log_warnings()


class CpuPhysics:
    """A batch of MuJoCo worlds over ``mujoco.rollout`` with a persistent thread pool and preallocated arrays.

    ``qpos`` and ``qvel`` are float64 torch views (batch, nq) and (batch, nv) of the state that the simulator
    writes. Worlds that diverge, by MuJoCo's own limit on the size of a state, are not reset silently: they
    turn to NaN, which the caller finds in its data.

    Args:
        models: One compiled model for all worlds, or one for each, all of the same sizes.
        batch: Number of worlds.
        threads: Threads of the pool; 1 runs on the calling thread, without the interpreter lock.
    """

    graph_key: GraphKey | None = None

    def __init__(self, models: mujoco.MjModel | Sequence[mujoco.MjModel], batch: int, threads: int) -> None:
        self._batch = batch
        self.set_models([models] * batch if isinstance(models, mujoco.MjModel) else models)
        model = self._models[0]
        self._data = [mujoco.MjData(model) for _ in range(threads)]
        self._pool = Rollout(nthread=threads if threads > 1 else 0)
        self._state = np.zeros((batch, mujoco.mj_stateSize(model, _FULL_PHYSICS)))
        self._nq, self._nv, self._nu = model.nq, model.nv, model.nu
        self._frame_skip = 0
        self._allocate(1)
        state = torch.from_numpy(self._state)
        self.qpos: Tensor = state[:, 1 : 1 + model.nq]
        self.qvel: Tensor = state[:, 1 + model.nq : 1 + model.nq + model.nv]

    def _allocate(self, frame_skip: int) -> None:
        if frame_skip != self._frame_skip:
            batch, sensors = self._batch, self._models[0].nsensordata
            self._control = np.zeros((batch, frame_skip, self._nu))
            self._control_view = torch.from_numpy(self._control)
            self._states = np.empty((batch, frame_skip, self._state.shape[1]))
            self._sensors = np.empty((batch, frame_skip, sensors))
            self._frame_skip = frame_skip

    def set_models(self, models: Sequence[mujoco.MjModel]) -> None:
        """Give each world a model, of the same sizes as those before."""
        # The simulator does not check: it would read beyond a list that is too short.
        if len(models) != self._batch:
            raise ValueError(f"{len(models)} models for {self._batch} worlds: give one model, or one for each world")
        self._models = list(models)

    def set_state(self, qpos: Tensor, qvel: Tensor) -> None:
        """Put every world at time 0 into the given positions (batch, nq) and velocities (batch, nv)."""
        self._state[:] = 0.0
        self.qpos.copy_(qpos)
        self.qvel.copy_(qvel)

    def step(self, control: Tensor, frame_skip: int) -> None:
        """Hold ``control`` (batch, nu) for ``frame_skip`` physics steps."""
        self._allocate(frame_skip)
        self._control_view.copy_(control.unsqueeze(1))
        self._pool.rollout(
            self._models,
            self._data,
            self._state,
            self._control,
            nstep=frame_skip,
            state=self._states,
            sensordata=self._sensors,
            skip_checks=True,
        )
        np.copyto(self._state, self._states[:, -1])
        if not np.abs(self._state).max() < mujoco.mjMAXVAL:
            self._state[~(np.abs(self._state).max(axis=1) < mujoco.mjMAXVAL)] = np.nan

    def check(self) -> None:
        """Do nothing: a diverged world shows as NaN, and MuJoCo makes room for what it needs."""

    def close(self) -> None:
        """Stop the threads."""
        self._pool.close()
