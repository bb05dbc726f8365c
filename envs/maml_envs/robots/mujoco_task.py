"""MujocoTask: a MuJoCo model and a few pure functions make a TaskEnv."""

import math
from abc import abstractmethod
from functools import cached_property
from typing import ClassVar

import gymnasium
import mujoco
import numpy as np
import torch
from mujoco.batch import Batch
from numpy.typing import NDArray
from torch import Tensor

from maml_envs.cores import cores
from maml_envs.errors import InputError
from maml_envs.physics import SIMULATORS, Physics, Settings, Simulator, simulator_on
from maml_envs.physics.fields import own_sensordata
from maml_envs.physics.model_fields import expand
from maml_envs.physics.renderer import Pictures
from maml_envs.robots.model import (
    ResetNoise,
    Source,
    State,
    check_flags,
    check_numbers,
    compiled,
    control_range,
    folders_of,
    start_data,
    without_reset,
)
from maml_envs.robots.own_class import refuse_changes_in_place, refuse_late_changes
from maml_envs.robots.parameters import check_parameters, check_sizes
from maml_envs.task_env import SUCCESS, GraphKey, Step, TaskEnv


class MujocoTask(TaskEnv):
    """A family of tasks for one robot. Subclasses are final and give the functions below.

    The functions use operators and slices only, so that the same lines serve a batch on any device and one
    environment; and they look at nothing but what they are given, as a GPU records them once and replays them.

    An action spans an actuator's control range from -1 to 1, and is clipped to that; one without a range gets it as it
    is.

    A world whose episode has ended stands still on the CPU, where that costs nothing.

    Args:
        model: The robot: an MJCF file, whose path is taken from the folder of the class's file, XML text, an
            ``MjSpec`` or a compiled model.
        frame_skip: Physics steps in one control step.
        noise: Distribution of the start state.
        horizon: Control steps in an episode.
        threads: Threads of each copy's simulator; 0 for all cores, or with torchrun its rank's share.
        device: Where the worlds are and all tensors live: the CPU, or a GPU with the extra ``gpu``.

    Attributes:
        fields: Names of fields of MuJoCo's data that ``State`` has beside qpos and qvel, such as ``("site_xpos",
            "sensordata", "cfrc_ext")``, each (..., *its shape in MuJoCo) and of the same state as those; forces and
            accelerations under the control just applied. ``maml_envs.physics.fields`` lists them.
        simulator: Its name in ``SIMULATORS``; None for that of the device.
        max_contacts: Contacts that mujoco_warp makes room for in each world; None for the most there can be.
        max_rows: The same of constraint rows.

    Raises:
        InputError: The model does not compile or lacks a field or keyframe; or the device is a GPU and the extra is
            not installed.
    """

    copies = 2
    fields: tuple[str, ...] = ()
    simulator: ClassVar[str | None] = None
    max_contacts: ClassVar[int | None] = None
    max_rows: ClassVar[int | None] = None

    def __init__(
        self,
        model: Source,
        frame_skip: int = 1,
        noise: ResetNoise | None = None,
        horizon: int = 200,
        threads: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self._simulator = self._simulator_on(self.device)
        if missing := self._simulator.lacks(self.device):
            raise InputError(f"device = '{self.device}' for {type(self).__name__}: {missing}; or use device = 'cpu'")
        self._noise = noise or ResetNoise()
        check_numbers(frame_skip=(frame_skip, 1), horizon=(horizon, 1), threads=(threads, 0))
        if any(not 0 <= width < math.inf for width in self._noise[:4]):
            raise InputError(f"{self._noise}: a width is 0 or more")
        self.model = without_reset(compiled(model, self.fields, folders_of(type(self))))
        self.frame_skip = frame_skip
        self.horizon = horizon
        # Every copy gets all cores: while the policy of one works, the simulator of the other can use them all.
        self._threads = threads or cores()
        self._limit, self._control_middle, self._control_half = (x.to(self.device) for x in control_range(self.model))
        data = start_data(self.model, self._noise.around)
        self._start, self._start_velocity = self._like(data.qpos), self._like(data.qvel)
        self._physics: Physics | None = None
        self._batch = 0
        self._task = torch.zeros(0)
        self._looked = self.device.type != "cpu"  # whether its functions were looked at: they change nothing in place
        self._models: dict[bytes, mujoco.MjModel] = {}  # of the tasks that were last reset to
        self._pictures = Pictures()
        bound = np.where(self.model.actuator_ctrllimited, 1.0, np.inf).astype(np.float32)
        self.action_space = gymnasium.spaces.Box(-bound, bound, dtype=np.float32)
        self._first_fields = {name: self._like(getattr(data, name)) for name in self.fields}
        if "sensordata" in self.fields:
            self._first_fields["sensordata"] = self._first_fields["sensordata"][: own_sensordata(self.model)]

    @cached_property
    def dt(self) -> float:
        """Time of a control step, in the model's unit: ``frame_skip`` physics steps."""
        return float(self.frame_skip * self.model.opt.timestep)

    @cached_property
    def observation_space(self) -> gymnasium.spaces.Box:  # type: ignore[override]  # after a subclass's __init__
        """Space of one observation, as wide as that of the start."""
        try:
            width = self.observation(State(self._start, self._start_velocity, **self._first_fields)).shape[-1]
        except IndexError as error:
            raise InputError(
                f"{type(self).__name__}.observation of one state fails: {error}; count axes from the end, "
                "state.qpos[..., 2], and return (..., numbers)"
            ) from error
        return gymnasium.spaces.Box(-np.inf, np.inf, (width,), np.float32)

    def _like(self, values: NDArray[np.float64]) -> Tensor:
        return torch.tensor(values, dtype=self._simulator.dtype, device=self.device)

    @classmethod
    def _simulator_on(cls, device: torch.device) -> Simulator:
        return SIMULATORS[cls.simulator or simulator_on(device)]

    @classmethod
    def lacks(cls, device: torch.device) -> str:
        """Return what is missing to simulate on a device; empty where nothing is."""
        return cls._simulator_on(device).lacks(device)

    @abstractmethod
    def observation(self, state: State) -> Tensor:
        """Return what the policy observes of a state, (..., obs)."""

    @abstractmethod
    def reward_terms(self, before: State, control: Tensor, after: State, task: Tensor) -> dict[str, Tensor]:
        """Return named terms, each (...), that sum to the reward; ``control`` is the action, scaled and clipped."""

    def terminated(self, state: State) -> Tensor:
        """Return whether the episode ends in this state, (...) bool; by default it never does."""
        return torch.zeros(state.qpos.shape[:-1], dtype=torch.bool, device=state.qpos.device)

    def success(self, state: State, task: Tensor) -> Tensor | None:
        """Return whether the task is solved in this state, (...) bool, which is counted; None where nothing tells."""
        return None

    def task_parameters(self, tasks: Tensor) -> dict[str, Tensor]:
        """Return what tasks (n, *task_shape) change of the model: name of its field to values (n, *shape of the field).

        What MuJoCo derives from them, such as the mass of a whole robot from those of its parts, follows.
        """
        return {}

    def task_model(self, task: Tensor) -> mujoco.MjModel:
        """Return the model of a task (task_shape), with its ``task_parameters``.

        Override it for what they cannot say, such as other meshes; the models have the same sizes.
        """
        parameters = check_parameters(self.model, self.task_parameters(task.unsqueeze(0)), 1)
        if not parameters:
            return self.model
        world = Batch(self.model, 1, 1)
        expand(world, parameters)
        return world.get_model(0)

    def _model_of(self, task: Tensor) -> mujoco.MjModel:
        """Return ``task_model``, made once while the task is played."""
        key = task.cpu().numpy().tobytes()
        if key not in self._models:
            model = compiled(self.task_model(task), self.fields, folders_of(type(self)))
            check_sizes(self.model, model, self.describe(task))
            self._models[key] = without_reset(model)
        return self._models[key]

    def _set_dynamics(self, physics: Physics, tasks: Tensor, new: bool) -> None:
        """Give each world the dynamics of its task; reads nothing from the tasks' device where all have the same."""
        if type(self).task_model is not MujocoTask.task_model:
            keys = {task.cpu().numpy().tobytes() for task in tasks}
            self._models = {key: model for key, model in self._models.items() if key in keys}
            physics.set_models([self._model_of(task) for task in tasks])
        elif type(self).task_parameters is not MujocoTask.task_parameters and (
            new or not torch.equal(self._task, tasks)
        ):
            self._models.clear()
            physics.set_parameters(check_parameters(self.model, self.task_parameters(tasks), len(tasks)))

    @property
    def state(self) -> State:
        """Current state of the worlds: views of the simulator's arrays, in its dtype."""
        if self._physics is None:
            raise RuntimeError("call reset(tasks, seeds) before reading the state")
        return State(self._physics.qpos, self._physics.qvel, **self._physics.fields)

    def reset(self, tasks: Tensor, seeds: Tensor) -> Tensor:
        """Start at the default position plus noise; see ``ResetNoise``."""
        batch = len(seeds)
        physics = self._physics
        if physics is None or batch != self._batch:
            start, ranges = self._start, (self._limit, self._control_middle, self._control_half)
            refuse_late_changes(type(self).__name__, self.model, self._noise.around, start, ranges)
            self.close()
            settings = Settings(self.device, self._threads, self.max_contacts, self.max_rows, self.fields)
            physics = self._simulator.physics(self.model, batch, settings)
            self._set_dynamics(physics, tasks, new=True)
            self._physics, self._batch, self._task = physics, batch, tasks.clone()
        else:
            self._set_dynamics(physics, tasks, new=False)
            self._task.copy_(tasks)
        position, velocity = self._noise.drawn(seeds, self.model.nq, self.model.nv)
        physics.set_state(self._start + position, self._start_velocity + velocity)
        return self.observation(self.state).float()

    def step(self, action: Tensor) -> Step:
        """Clip the action, make a control of it, hold it for ``frame_skip`` physics steps."""
        if self._physics is None:
            raise RuntimeError("call reset(tasks, seeds) before step(action)")
        unit = action.double().clamp(-self._limit, self._limit)
        control = self._control_middle + self._control_half * unit
        before, name = self.state.clone(), type(self).__name__
        self._physics.step(control, self.frame_skip)
        after = self.state
        if not self._looked:
            refuse_changes_in_place(self, before, control, after, self._task)
            self._looked = True
        terms = self.reward_terms(before, control, after, self._task)
        if not isinstance(terms, dict) or SUCCESS in terms:
            found = list(terms) if isinstance(terms, dict) else type(terms).__name__
            raise InputError(
                f"{name}.reward_terms returned {found}: return a dictionary of terms that sum to the reward; "
                f"{SUCCESS!r} is the method success(state, task)"
            )
        ended = check_flags(f"{name}.terminated", self.terminated(after), self._batch)
        self._physics.end(ended)
        reward = sum(terms.values(), torch.zeros(())).float()
        solved = self.success(after, self._task)
        info = terms if solved is None else terms | {SUCCESS: check_flags(f"{name}.success", solved, self._batch)}
        return Step(self.observation(after).float(), reward, ended, torch.zeros_like(ended), info)

    @property
    def graph_key(self) -> GraphKey | None:
        """The simulator's key, until a reset to another number of worlds or to more that differs in them.

        None for a class with a ``step`` of its own.
        """
        overridden = type(self).step is not MujocoTask.step
        return None if overridden or self._physics is None else self._physics.graph_key

    def notes(self) -> list[str]:
        """Name motors that no range limits."""
        free = [
            self.model.actuator(int(i)).name or f"number {i}" for i in np.flatnonzero(~self._limit.isfinite().cpu())
        ]
        return [f"motors without ctrlrange take actions as they are, unclipped: {', '.join(free)}"] if free else []

    def raise_deferred(self) -> None:
        """Wait for the simulator and check that it had room for every contact.

        Raises:
            FloatingPointError: It had not: contacts or forces were lost.
        """
        if self._physics is not None:
            self._physics.check()

    def render(self, index: int = 0, width: int = 480, height: int = 360) -> NDArray[np.uint8]:
        """Draw an RGB image of one environment, in its own model, from the model's first camera."""
        model, state = self._model_of(self._task[index]), self.state
        # Meshes and textures of a whole model of a task are in a renderer of its own.
        like = model if type(self).task_model is not MujocoTask.task_model else self.model
        return self._pictures.draw(model, state.qpos[index].cpu(), state.qvel[index].cpu(), (width, height), like)

    def close(self) -> None:
        """Stop the simulator's threads and free the renderer."""
        if self._physics is not None:
            self._physics.close()
            self._physics = None
        self._pictures.close()
