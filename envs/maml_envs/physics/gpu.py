"""MuJoCo on a GPU: mujoco_warp steps all worlds at once, in float32. Needs the extra ``gpu``."""

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from functools import partial

import mujoco
import mujoco_warp
import numpy as np
import torch
import warp as wp
from mujoco_warp import OverflowType
from torch import Tensor

from maml_envs.errors import InputError
from maml_envs.physics.cuda_graph import Recording
from maml_envs.physics.fields import FOR_SENSORS, own_sensordata, stage_of
from maml_envs.physics.gpu_buffers import buffer_sizes
from maml_envs.physics.gpu_device import lacks
from maml_envs.physics.gpu_worlds import SIZE_BUFFERS, values_of, with_derived
from maml_envs.task_env import GraphKey

ROWS = OverflowType.NEFC | OverflowType.NJMAX_NNZ
CONTACTS = OverflowType.BROADPHASE | OverflowType.NARROWPHASE
OVERFLOWS = OverflowType.ALL & ~(OverflowType.ITERATIONS | OverflowType.LS_ITERATIONS)
"""What loses contacts or forces. A solver that stops at its limit of iterations is no news: MuJoCo's does so too."""


def _in_turn(device: torch.device) -> wp.ScopedDevice | wp.ScopedStream:
    """Make a context in which warp works on the device and, on a GPU, in order with torch."""
    if device.type == "cuda":
        return wp.ScopedStream(wp.stream_from_torch(device))
    return wp.ScopedDevice(wp.device_from_torch(device))


def _launch(graph: wp.Graph, device: torch.device) -> None:
    wp.capture_launch(graph, wp.stream_from_torch(device) if device.type == "cuda" else None)


@wp.kernel(enable_backward=False)
def _note(
    nacon: wp.array[int], ncollision: wp.array[int], nefc: wp.array[int], contacts: wp.array[int], rows: wp.array[int]
) -> None:
    """Keep the most contacts of all worlds together, and the most rows of each, so far."""
    world = wp.tid()
    rows[world] = wp.max(rows[world], nefc[world])
    if world == 0:
        contacts[0] = wp.max(contacts[0], wp.max(nacon[0], ncollision[0]))


class GpuPhysics:
    """A batch of MuJoCo worlds over ``mujoco_warp``, one world for each environment; see ``Physics``.

    ``qpos`` and ``qvel`` are float32 torch views of warp's arrays. The physics of a control step is a graph, captured
    once for each ``frame_skip`` and replayed: nothing waits for the device before ``check``, and ``step`` can be part
    of a ``Recording``. Models that differ give warp arrays with a leading axis over worlds, of what differs only.
    ``set_models`` copies them, and takes models that it had the last time for unchanged.

    ``mujoco_warp`` neither looks for diverged worlds nor resets them. A world turns to NaN here when the size of its
    state reaches MuJoCo's own limit, or when contacts or forces were lost because a buffer was full, which ``check``
    reports. Every computation of forces is looked at, also those between the stages of Runge-Kutta, which mujoco_warp
    itself does not look at.

    On a CPU warp records and replays the same graph, which is how this class is tested. What CUDA adds has not been
    run: the capture on warp's own stream (torch's default stream cannot be captured), the launch on torch's current
    stream, and the loops of the solver as conditional nodes of the graph. One thread at a time may capture.

    Contacts of a plane with a capsule that leans less than 30 degrees from the plane's normal have other axes of
    friction than MuJoCo's, which turns the pyramid of a robot that moves in three dimensions.

    Args:
        model: The compiled model of all worlds.
        batch: Number of worlds.
        device: Where they are.
        contacts: Contacts to make room for in each world, on average; None for the most there can be.
        rows: Constraint rows to make room for in each world; None for the most there can be.
        fields: Names of fields of MuJoCo's data to keep up to date.

    Raises:
        InputError: mujoco_warp has no such field, or warp cannot work on the device.
        ValueError: There is less room than could be needed in a model whose actuators are switched off: mujoco_warp
            then does not call what looks at every computation of forces.
        NotImplementedError: mujoco_warp lacks something that the model uses, such as the PGS solver.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        batch: int,
        device: torch.device,
        contacts: int | None = None,
        rows: int | None = None,
        fields: Iterable[str] = (),
    ) -> None:
        self._batch = batch
        if missing := lacks(device):
            raise InputError(f"device = '{device}': {missing}; or use device = 'cpu'")
        self._torch_device = torch.empty(0, device=device).device  # "cuda" is one of them, which warp wants named
        self._device = wp.device_from_torch(self._torch_device)
        self._graphs: dict[int, wp.Graph] = {}
        self._models: list[mujoco.MjModel] = []
        self._base, self._wanted, self._stage = model, tuple(fields), stage_of(model, fields)
        self._put(set())
        with _in_turn(self._torch_device):
            self._most = buffer_sizes(self._base, self._model.nxn_geom_pair_filtered.numpy())
            self._contacts = self._most[0] if contacts is None else contacts
            self._rows = self._most[1] if rows is None else rows
            unseen = self._base.opt.disableflags & int(mujoco.mjtDisableBit.mjDSBL_ACTUATION)
            if unseen and (self._contacts < self._most[0] or self._rows < self._most[1]):
                raise ValueError(
                    f"with the flag that disables actuation, a full buffer can go unseen: give {self._most[0]} "
                    f"contacts and {self._most[1]} rows or more, or leave them at None"
                )
            self._data = mujoco_warp.make_data(self._base, nworld=batch, nconmax=self._contacts, njmax=self._rows)
            self._most_contacts, self._most_rows = wp.zeros(1, dtype=int), wp.zeros(batch, dtype=int)
        self.qpos: Tensor = wp.to_torch(self._data.qpos)
        self.qvel: Tensor = wp.to_torch(self._data.qvel)
        self._control: Tensor = wp.to_torch(self._data.ctrl)
        self._overflow: Tensor = wp.to_torch(self._data.overflow)
        self._contacts_seen: Tensor = wp.to_torch(self._most_contacts)
        self._rows_seen: Tensor = wp.to_torch(self._most_rows)
        self.fields: dict[str, Tensor] = {name: self._field(name) for name in self._wanted}

    def _field(self, name: str) -> Tensor:
        """Return the view of a field, in MuJoCo's shape; matrices are rows of nine there."""
        if not isinstance(getattr(self._data, name, None), wp.array):
            raise InputError(
                f"fields = {self._wanted}: mujoco_warp has no {name!r}; leave it out, or use device = 'cpu'"
            )
        like = getattr(mujoco.MjData(self._base), name)
        field: Tensor = wp.to_torch(getattr(self._data, name)).reshape(self._batch, *np.shape(like))
        return field[:, : own_sensordata(self._base)] if name == "sensordata" else field

    def _put(self, varied: set[str]) -> None:
        """Put the model on the device, with a row for each world in the arrays that vary."""
        fixed = sorted(varied - mujoco_warp.Model.__dataclass_fields__.keys() | varied & SIZE_BUFFERS)
        if fixed:
            raise ValueError(f"the models differ in {', '.join(fixed)}, which must be the same in all worlds on a GPU")
        base = copy(self._base)
        base.opt.disableflags &= ~int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)  # it has none, and refuses the flag
        if not self._wanted_of_sensors():
            base.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_SENSOR)
        with _in_turn(self._torch_device):
            self._model = mujoco_warp.put_model(base, dict.fromkeys(varied, self._batch))
        if not any(name.startswith(("cam_", "light_", "sensordata")) for name in self._wanted):
            self._model.ncam = self._model.nlight = 0  # nobody looks: two kernels fewer in every physics step
        self._model.opt.warn_overflow = 0  # check says it
        self._model.callback.control = self._look
        self._model.opt.graph_conditional = not self._device.is_cuda or wp.is_conditional_graph_supported()
        self._varied = varied
        self._graphs.clear()
        self.graph_key: GraphKey | None = GraphKey()

    def _wanted_of_sensors(self) -> bool:
        return any(name == "sensordata" or name in FOR_SENSORS for name in self._wanted)

    def set_models(self, models: Sequence[mujoco.MjModel]) -> None:
        """Give each world a model, of the same sizes and options as the first one; compared on the host.

        Raises:
            ValueError: The models differ in what cannot vary from world to world.
        """
        if len(models) != self._batch:
            raise ValueError(f"{len(models)} models for {self._batch} worlds: give one for each world")
        if list(models) == self._models:
            return
        self._vary(values_of(models, self._base, self._varied))
        self._models = list(models)

    def set_parameters(self, parameters: Mapping[str, Tensor]) -> None:
        """Give each world values of its own of the model's fields, (batch, ...) each, and what follows from them."""
        self._vary(with_derived(parameters, self._base, self._batch))

    def _vary(self, values: Mapping[str, np.ndarray]) -> None:
        """Write values of the model's arrays, (batch, ...), into arrays that have a row for each world."""
        if values.keys() != self._varied:
            self._put(set(values))
        with _in_turn(self._torch_device):
            for name, rows in values.items():
                array = getattr(self._model, name)
                array.assign(wp.array(rows, dtype=array.dtype, shape=array.shape, device="cpu"))

    def set_state(self, qpos: Tensor, qvel: Tensor) -> None:
        """Put every world at time 0 into the given positions (batch, nq) and velocities (batch, nv)."""
        with _in_turn(self._torch_device):
            mujoco_warp.reset_data(self._model, self._data)
            self._most_contacts.zero_()
            self._most_rows.zero_()
        self.qpos.copy_(qpos)
        self.qvel.copy_(qvel)
        if self._stage:
            self._run(0)

    def _compute_fields(self) -> None:
        """Bring the fields up to the present state, as far as they are wanted."""
        model, data = self._model, self._data
        if self._stage >= int(mujoco.mjtStage.mjSTAGE_ACC):
            mujoco_warp.forward(model, data)
            return
        if self._stage:
            mujoco_warp.fwd_position(model, data)
            mujoco_warp.sensor_pos(model, data)
        if self._stage >= int(mujoco.mjtStage.mjSTAGE_VEL):
            mujoco_warp.fwd_velocity(model, data)
            mujoco_warp.sensor_vel(model, data)

    def _look(self, _: mujoco_warp.Model, data: mujoco_warp.Data) -> None:
        """Note how full the buffers are: mujoco_warp calls this in each computation of forces, after the contacts."""
        counts = [data.nacon, data.ncollision, data.nefc]
        wp.launch(_note, self._batch, counts, [self._most_contacts, self._most_rows])

    def _lost(self) -> Tensor:
        """Tell which worlds have lost contacts or forces, (batch,) bool."""
        full = (self._contacts_seen > self._contacts * self._batch) | (self._rows_seen > self._rows)
        return full | (self._overflow & int(OVERFLOWS) != 0)

    def _run(self, frame_skip: int) -> None:
        """Take physics steps and compute the fields: a graph, recorded the first time. Warp compiles what it lacks."""
        if frame_skip not in self._graphs:
            with wp.ScopedDevice(self._device), wp.ScopedCapture() as capture:
                for _ in range(frame_skip):
                    mujoco_warp.step(self._model, self._data)
                self._compute_fields()
            self._graphs[frame_skip] = capture.graph
        Recording.between(partial(_launch, self._graphs[frame_skip], self._torch_device))

    def end(self, worlds: Tensor) -> None:
        """Do nothing: a world that stands still saves no work, as its thread would wait for the others."""

    def step(self, control: Tensor, frame_skip: int) -> None:
        """Hold ``control`` (batch, nu) for ``frame_skip`` physics steps."""
        self._control.copy_(control)
        self._run(frame_skip)
        size = torch.maximum(self.qpos.abs().amax(1), self.qvel.abs().amax(1))
        lost = ~(size < mujoco.mjMAXVAL) | self._lost()
        self.qpos.masked_fill_(lost.unsqueeze(1), torch.nan)
        self.qvel.masked_fill_(lost.unsqueeze(1), torch.nan)

    def check(self) -> None:
        """Wait for the device and check that every step since ``set_state`` had room for its contacts.

        Raises:
            FloatingPointError: A buffer was full; the message has its size, what was needed and the remedy.
        """
        if not (lost := self._lost()).any():
            return
        flags = OverflowType(int(np.bitwise_or.reduce(self._data.overflow.numpy())))
        needed = -(-int(self._contacts_seen) // self._batch), int(self._rows_seen.max())
        worlds = lost.nonzero().flatten().tolist()
        buffers = [
            (CONTACTS, "contacts", self._contacts, needed[0], "max_contacts", self._most[0]),
            (ROWS, "constraint rows", self._rows, needed[1], "max_rows", self._most[1]),
        ]
        overflows = [
            f"{size} {what} a world, and at least {need} are needed: leave {key} of the environment's class at None, "
            f"which makes room for {most}"
            for kinds, what, size, need, key, most in buffers
            if flags & kinds or need > size
        ]
        others = flags & OVERFLOWS & ~(CONTACTS | ROWS)
        if others:
            overflows.append(f"a buffer of fixed size ({others.name}): this model needs device = 'cpu'")
        raise FloatingPointError(
            f"mujoco_warp lost contacts or forces in {len(worlds)} of {self._batch} worlds, the first {worlds[0]}: it "
            f"had room for {'; '.join(overflows)}"
        )

    def close(self) -> None:
        """Free the graphs."""
        self._graphs.clear()
