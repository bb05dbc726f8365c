"""MujocoTask: a MuJoCo model and four pure functions make a TaskEnv."""

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar, NamedTuple

import gymnasium
import gymnasium.envs
import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maml_envs import random
from maml_envs.cores import cores
from maml_envs.errors import InputError
from maml_envs.physics import SIMULATORS, Physics, Settings, Simulator, renderer, simulator_on
from maml_envs.task_env import GraphKey, Step, TaskEnv


class State(NamedTuple):
    """State of the simulator: generalised positions and velocities."""

    qpos: Tensor  # (..., nq)
    qvel: Tensor  # (..., nv)


class ResetNoise(NamedTuple):
    """Start state: a position + uniform(-u, u) + normal(0, n), each of its own width."""

    qpos_uniform: float = 0.0
    qpos_normal: float = 0.0
    qvel_normal: float = 0.1
    qvel_uniform: float = 0.0
    around: tuple[float, ...] | None = None  # the position, qpos; None: the model's own


def gymnasium_asset(name: str) -> str:
    """Return the XML text of a robot model that gymnasium ships."""
    return (Path(gymnasium.envs.__file__).parent / "mujoco" / "assets" / name).read_text()


class MujocoTask(TaskEnv):
    """A family of tasks for one robot. Subclasses are final and give the four functions below.

    The functions use operators and slices only, so that the same lines serve a batch on any device and one
    environment; and they look at nothing but what they are given, as a GPU records them once and replays them.

    Args:
        model: Compiled model.
        frame_skip: Physics steps in one control step.
        action_scale: The policy's action is divided by this and clipped to [-1, 1], which spans the control
            range.
        noise: Distribution of the start state.
        horizon: Control steps in an episode.
        threads: Threads of each copy's simulator; 0 for all cores, or with torchrun its rank's share.
        device: Where the worlds are and all tensors live: the CPU, or a GPU with the extra ``gpu``.

    Attributes:
        simulator: Its name in ``SIMULATORS``; None for that of the device.
        max_contacts: Contacts that mujoco_warp makes room for in each world; None for the most there can be.
        max_rows: The same of constraint rows.

    Raises:
        InputError: The device is a GPU and the extra is not installed.
    """

    copies = 2
    simulator: ClassVar[str | None] = None
    max_contacts: ClassVar[int | None] = None
    max_rows: ClassVar[int | None] = None

    def __init__(
        self,
        model: mujoco.MjModel,
        frame_skip: int,
        action_scale: float,
        noise: ResetNoise,
        horizon: int,
        threads: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self._simulator = self._simulator_on(self.device)
        if not self._simulator.installed():
            raise InputError(
                f"device = '{self.device}': {type(self).__name__} simulates there with {self._simulator.packages[-1]}, "
                f"which is not installed: pip install 'maml_rl[{self._simulator.extra}]', or use device = 'cpu'"
            )
        # A diverged world must show as NaN, not restart from the default state.
        model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
        self.model = model
        self.frame_skip = frame_skip
        self.horizon = horizon
        self.dt: float = frame_skip * model.opt.timestep
        self._action_scale = action_scale
        self._noise = noise
        # Every copy gets all cores: while the policy of one works, the simulator of the other can use them all.
        self._threads = threads or cores()
        low, high = torch.from_numpy(model.actuator_ctrlrange.copy()).to(self.device).unbind(-1)
        self._control_middle, self._control_half = (high + low) / 2, (high - low) / 2
        start = model.qpos0 if noise.around is None else noise.around
        self._start = torch.tensor(start, dtype=self._simulator.dtype, device=self.device)
        self._physics: Physics | None = None
        self._batch = 0
        self._task = torch.zeros(0)
        self._models: dict[bytes, mujoco.MjModel] = {}  # of the tasks that were last reset to
        self._worlds: list[mujoco.MjModel] = []  # the model of each environment
        self._renderer: mujoco.Renderer | None = None
        self.action_space = gymnasium.spaces.Box(-action_scale, action_scale, (model.nu,), np.float32)
        width = self.observation(State(self._start, self._start.new_zeros(model.nv))).shape[-1]
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (width,), np.float32)

    @classmethod
    def _simulator_on(cls, device: torch.device) -> Simulator:
        return SIMULATORS[cls.simulator or simulator_on(device)]

    @classmethod
    def best_device(cls, device: torch.device) -> torch.device:
        """Return the device if its simulator is installed, else the CPU."""
        return device if cls._simulator_on(device).installed() else torch.device("cpu")

    @abstractmethod
    def observation(self, state: State) -> Tensor:
        """Return what the policy observes of a state, (..., obs)."""

    @abstractmethod
    def reward_terms(self, before: State, control: Tensor, after: State, task: Tensor) -> dict[str, Tensor]:
        """Return named terms, each (...), that sum to the reward; ``control`` is the action, scaled and clipped."""

    @abstractmethod
    def terminated(self, state: State) -> Tensor:
        """Return whether the episode ends in this state, (...) bool."""

    def task_model(self, task: Tensor) -> mujoco.MjModel:
        """Return the model of a task (task_shape): the same for all, unless tasks change the dynamics."""
        return self.model

    def _models_of(self, tasks: Tensor) -> list[mujoco.MjModel]:
        """Return a model for each environment; equal tasks share one, and tasks of the last reset keep theirs.

        Reads nothing from the tasks' device where no task has a model of its own.
        """
        if type(self).task_model is MujocoTask.task_model:
            return [self.model] * len(tasks)
        keys = [row.tobytes() for row in tasks.cpu().numpy()]
        distinct = dict(zip(keys, tasks, strict=True))
        before = self._models
        self._models = {key: before[key] if key in before else self.task_model(task) for key, task in distinct.items()}
        return [self._models[key] for key in keys]

    @property
    def state(self) -> State:
        """Current state of the worlds: views of the simulator's arrays, in its dtype."""
        if self._physics is None:
            raise RuntimeError("call reset(tasks, seeds) before reading the state")
        return State(self._physics.qpos, self._physics.qvel)

    def reset(self, tasks: Tensor, seeds: Tensor) -> Tensor:
        """Start at the default position plus noise; see ``ResetNoise``."""
        batch, self._worlds = len(seeds), self._models_of(tasks)
        if self._physics is None or batch != self._batch:
            self.close()
            settings = Settings(self.device, self._threads, self.max_contacts, self.max_rows)
            self._physics = self._simulator.physics(self._worlds, batch, settings)
            self._batch, self._task = batch, tasks.clone()
        else:
            self._physics.set_models(self._worlds)
            self._task.copy_(tasks)
        nq, nv = self.model.nq, self.model.nv
        shift = self._noise.qpos_uniform * (2 * random.uniform(random.fold_in(seeds, 0), (nq,)) - 1)
        shift = shift + self._noise.qpos_normal * random.normal(random.fold_in(seeds, 1), (nq,))
        velocity = self._noise.qvel_normal * random.normal(random.fold_in(seeds, 2), (nv,))
        velocity = velocity + self._noise.qvel_uniform * (2 * random.uniform(random.fold_in(seeds, 3), (nv,)) - 1)
        self._physics.set_state(self._start + shift, velocity)
        return self.observation(self.state).float()

    def step(self, action: Tensor) -> Step:
        """Scale and clip the action to a control, hold it for ``frame_skip`` physics steps."""
        if self._physics is None:
            raise RuntimeError("call reset(tasks, seeds) before step(action)")
        control = self._control_middle + self._control_half * (action.double() / self._action_scale).clamp(-1, 1)
        before = State(self._physics.qpos.clone(), self._physics.qvel.clone())
        self._physics.step(control, self.frame_skip)
        after = self.state
        terms = self.reward_terms(before, control, after, self._task)
        ended = self.terminated(after)
        reward = sum(terms.values(), torch.zeros(())).float()
        return Step(self.observation(after).float(), reward, ended, torch.zeros_like(ended), terms)

    @property
    def graph_key(self) -> GraphKey | None:
        """The simulator's key, until a reset to another number of worlds or to more that differs in them.

        None for a class with a ``step`` of its own.
        """
        overridden = type(self).step is not MujocoTask.step
        return None if overridden or self._physics is None else self._physics.graph_key

    def raise_deferred(self) -> None:
        """Wait for the simulator and check that it had room for every contact.

        Raises:
            FloatingPointError: It had not: contacts or forces were lost.
        """
        if self._physics is not None:
            self._physics.check()

    def render(self, index: int = 0, width: int = 480, height: int = 360) -> NDArray[np.uint8]:
        """Draw an RGB image of one environment, in its own model, from the model's tracking camera."""
        state = self.state
        if self._renderer is None or (self._renderer.width, self._renderer.height) != (width, height):
            if self._renderer is not None:
                self._renderer.close()
            self._renderer = renderer.renderer(self.model, width, height)
        model = self._worlds[index]
        data = mujoco.MjData(model)
        data.qpos[:], data.qvel[:] = state.qpos[index].cpu(), state.qvel[index].cpu()
        mujoco.mj_forward(model, data)
        camera = mujoco.MjvCamera()
        if model.ncam:
            camera.type, camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, 0
        else:
            mujoco.mjv_defaultFreeCamera(model, camera)
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(model, data, mujoco.MjvOption(), None, camera, everything, self._renderer.scene)
        image: NDArray[np.uint8] = self._renderer.render()
        return image

    def close(self) -> None:
        """Stop the simulator's threads and free the renderer."""
        if self._physics is not None:
            self._physics.close()
            self._physics = None
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
