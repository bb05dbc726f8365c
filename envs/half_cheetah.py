"""Half-cheetah tasks: run forward or backward, run at a goal velocity."""

from abc import abstractmethod
from functools import cached_property
from typing import NamedTuple

import mujoco
import torch
from torch import Tensor

from envs.errors import InputError
from envs.mujoco_task import MujocoTask, ResetNoise, State, gymnasium_asset
from envs.task_env import HELD_OUT_SEED

TOTAL_MASS = 14.0
CONTROL_COST = 0.05


class Preset(NamedTuple):
    """How one line of work defines the robot."""

    frame_skip: int
    action_scale: float
    noise: ResetNoise
    center_of_mass: bool  # observe the centre of mass and take its velocity, as rllab does
    top_speed: float  # m/s, of goal velocities


PRESETS = {
    "gymnasium": Preset(5, 10.0, ResetNoise(qpos_uniform=0.1, qvel_normal=0.1), center_of_mass=False, top_speed=3.0),
    "finn2017": Preset(1, 1.0, ResetNoise(qpos_normal=0.01, qvel_normal=0.1), center_of_mass=True, top_speed=2.0),
}


def half_cheetah_model() -> mujoco.MjModel:
    """Gymnasium's half-cheetah, its mass set after compiling because the XML attribute is deprecated."""
    model = mujoco.MjModel.from_xml_string(gymnasium_asset("half_cheetah.xml").replace('settotalmass="14"', ""))
    mujoco.mj_setTotalmass(model, TOTAL_MASS)
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


class PlanarMass(NamedTuple):
    """The centre of mass of a planar tree of bodies as a function of joint angles.

    Body j, turned by a_j = the sum of the hinge angles above it, adds R(a_j) lever_j to the centre of mass,
    where lever_j is its own mass's offset plus the attachment points of its children, weighted by the share
    of mass that each carries.
    """

    ancestors: Tensor  # (bodies, hinges) 1.0 where the hinge turns the body
    lever: Tensor  # (bodies, 2) x and z, metres
    height: float  # of the root body at qpos 0, metres

    @classmethod
    def of(cls, model: mujoco.MjModel) -> "PlanarMass":
        """Read the levers off a model whose root slides along x and z and whose every body turns about y."""
        share = torch.from_numpy(model.body_subtreemass[1:] / model.body_subtreemass[1])
        own = torch.from_numpy(model.body_mass[1:] / model.body_subtreemass[1]).unsqueeze(-1)
        lever = own * torch.from_numpy(model.body_ipos[1:, [0, 2]])
        ancestors = torch.eye(model.nbody - 1, dtype=torch.float64)
        for body in range(2, model.nbody):
            parent = int(model.body_parentid[body])
            lever[parent - 1] += share[body - 1] * torch.from_numpy(model.body_pos[body, [0, 2]])
            ancestors[body - 1] += ancestors[parent - 1]
        return cls(ancestors, lever, float(model.body_pos[1, 2]))

    def __call__(self, state: State) -> tuple[Tensor, Tensor]:
        """Position (..., 3) in m of the centre of mass, and its velocity (...) along x in m/s."""
        angle, spin = state.qpos[..., 2:] @ self.ancestors.mT, state.qvel[..., 2:] @ self.ancestors.mT
        along = angle.cos() * self.lever[:, 0] + angle.sin() * self.lever[:, 1]
        up = angle.cos() * self.lever[:, 1] - angle.sin() * self.lever[:, 0]
        x, z = state.qpos[..., 0] + along.sum(-1), self.height + state.qpos[..., 1] + up.sum(-1)
        return torch.stack((x, torch.zeros_like(x), z), -1), state.qvel[..., 0] + (spin * up).sum(-1)


class HalfCheetah(MujocoTask):
    """A planar two-legged robot with six actuated joints; abstract in what the task rewards.

    | quantity    | gymnasium                             | finn2017                              | unit   |
    |-------------|---------------------------------------|---------------------------------------|--------|
    | observation | qpos[1:], qvel (17)                   | the same, centre of mass x, y, z (20) | m, rad |
    | action      | divided by 10, clipped to [-1, 1]     | clipped to [-1, 1]                    |        |
    | time step   | 5 x 0.01                              | 1 x 0.01                              | s      |
    | velocity    | change of the root's x in a step / dt | of the centre of mass after the step  | m/s    |
    | start       | qpos uniform +-0.1, qvel 0.1 normal   | qpos 0.01 normal, qvel 0.1 normal     |        |
    | horizon     | 200                                   | 200                                   | steps  |

    Control cost in every preset: 0.05 times the sum of squared controls after clipping. No state ends the
    episode. The centre of mass is computed from qpos and qvel, exactly for the state it is reported with.

    Sources: gymnasium, ProMP (arXiv 1810.06784) and PEARL (arXiv 1903.08254) for the gymnasium preset; the
    MAML paper's code over rllab for finn2017.
    """

    presets = tuple(PRESETS)

    def __init__(self, preset: str = "gymnasium", horizon: int = 200, threads: int = 0) -> None:
        self.preset = preset
        self._definition = PRESETS[preset]
        definition = self._definition
        super().__init__(
            half_cheetah_model(),
            definition.frame_skip,
            definition.action_scale,
            definition.noise,
            horizon,
            threads,
        )

    @cached_property
    def _mass(self) -> PlanarMass:
        return PlanarMass.of(self.model)

    def observation(self, state: State) -> Tensor:
        """All positions but x, and all velocities; finn2017 adds the centre of mass."""
        seen = [state.qpos[..., 1:], state.qvel]
        if self._definition.center_of_mass:
            seen.append(self._mass(state)[0])
        return torch.cat(seen, -1)

    def forward_velocity(self, before: State, after: State) -> Tensor:
        """Velocity along x in m/s, by the preset's definition."""
        if self._definition.center_of_mass:
            return self._mass(after)[1]
        return (after.qpos[..., 0] - before.qpos[..., 0]) / self.dt

    @abstractmethod
    def velocity_reward(self, velocity: Tensor, task: Tensor) -> Tensor:
        """What the task pays for a forward velocity."""

    def reward_terms(self, before: State, control: Tensor, after: State, task: Tensor) -> dict[str, Tensor]:
        """The task's reward for the velocity, and the control cost."""
        return {
            "reward_run": self.velocity_reward(self.forward_velocity(before, after), task[..., 0]),
            "reward_control": -CONTROL_COST * control.square().sum(-1),
        }

    def terminated(self, state: State) -> Tensor:
        """Never."""
        return torch.zeros(state.qpos.shape[:-1], dtype=torch.bool, device=state.qpos.device)


class HalfCheetahDirection(HalfCheetah):
    """Run forward or backward: reward d v - 0.05 sum(a^2) a step, task d = +1 or -1 with equal chance.

    Held-out tasks alternate between the two directions; the family has no tasks outside them.
    """

    def sample_tasks(self, count: int, generator: torch.Generator) -> Tensor:
        """Directions (count, 1), +1 or -1."""
        return 2.0 * torch.randint(2, (count, 1), generator=generator) - 1

    def held_out_tasks(self, count: int, split: str = "in") -> Tensor:
        """+1, -1, +1, ...: as many of one direction as of the other."""
        if split != "in":
            raise InputError(f"half-cheetah-dir has only two tasks, so no split {split!r}: use split='in'")
        return 1.0 - 2.0 * (torch.arange(count).unsqueeze(-1) % 2)

    def velocity_reward(self, velocity: Tensor, task: Tensor) -> Tensor:
        """Velocity in the task's direction."""
        return task * velocity


class HalfCheetahVelocity(HalfCheetah):
    """Run at a goal velocity: reward -abs(v - g) - 0.05 sum(a^2) a step, g uniform in (0, top speed) m/s.

    Top speed is 3 m/s in the gymnasium preset and 2 m/s in finn2017. Held-out split "out": up to 1 m/s above.
    """

    def sample_tasks(self, count: int, generator: torch.Generator) -> Tensor:
        """Goal velocities (count, 1) in m/s."""
        return self._definition.top_speed * torch.rand(count, 1, generator=generator)

    def held_out_tasks(self, count: int, split: str = "in") -> Tensor:
        """Fixed goal velocities; split "out" lies within 1 m/s above the training range."""
        if split == "out":
            generator = torch.Generator().manual_seed(HELD_OUT_SEED)
            return self._definition.top_speed + torch.rand(count, 1, generator=generator)
        return super().held_out_tasks(count, split)

    def velocity_reward(self, velocity: Tensor, task: Tensor) -> Tensor:
        """Minus the distance to the goal velocity."""
        return -(velocity - task).abs()
