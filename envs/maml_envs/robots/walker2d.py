"""Walker tasks: run forward or backward, run at a goal velocity, run forward with random dynamics."""

from typing import ClassVar

import mujoco
import torch
from torch import Tensor

from maml_envs.robots.locomotion import Definition, Locomotion, Motion, outside
from maml_envs.robots.locomotion_tasks import ForwardOrBackward, GoalVelocity
from maml_envs.robots.model import ResetNoise, State, compiled, gymnasium_asset
from maml_envs.robots.random_dynamics import TIME_STEP, RandomDynamics


def walker2d_model() -> mujoco.MjModel:
    """Compile gymnasium's walker of version 4 and before: friction 0.9 under one foot and 1.9 under the other."""
    return compiled(gymnasium_asset("walker2d.xml"))


def random_walker2d_model() -> mujoco.MjModel:
    """Compile the walker with the time step of rand_param_envs."""
    model = walker2d_model()
    model.opt.timestep = TIME_STEP
    return model


NOISE = ResetNoise(qpos_uniform=0.005, qvel_normal=0.0, qvel_uniform=0.005)
GYMNASIUM = Definition(walker2d_model, 8, 10.0, NOISE, control_cost=0.001, survive=1.0, heights=(0.8, 2.0))


class Walker2d(Locomotion):
    """A planar robot with two legs and six actuated joints; abstract in what the task rewards.

    | quantity      | gymnasium                                       | unit   |
    |---------------|-------------------------------------------------|--------|
    | observation   | qpos[1:], qvel clipped to +-10 (17)             | m, rad |
    | action        | clipped to [-1, 1]                              |        |
    | policy's unit | 10                                              |        |
    | time step     | 8 x 0.002; with random dynamics 4 x 0.004       | s      |
    | velocity      | change of the root's x in a step / dt           | m/s    |
    | reward        | the task's - 0.001 sum(a^2) + bonus of the task |        |
    | ends          | height outside [0.8, 2], lean outside +-1       | m, rad |
    | start         | qpos and qvel uniform +-0.005                   |        |
    | horizon       | 200                                             | steps  |

    Friction is 0.9 under the right foot and 1.9 under the left, as in the sources; gymnasium's Walker2d-v5 has 1.9
    under both.

    Sources: ProMP (arXiv 1810.06784), its Walker2DRandDirec and Walker2DRandVel and, for random dynamics,
    rand_param_envs.
    """

    def observation(self, state: State) -> Tensor:
        """Return all positions but x, and all velocities, clipped."""
        return torch.cat((state.qpos[..., 1:], state.qvel.clamp(-10, 10)), -1)

    def motion(self, before: State, after: State) -> Motion:
        """Return the root's motion along x."""
        return self.change(before, after, 1)

    def terminated(self, state: State) -> Tensor:
        """Return whether it has fallen, by height and lean."""
        return outside(state.qpos[..., 1], self.definition.heights) | outside(state.qpos[..., 2], (-1.0, 1.0))


class Walker2dDirection(ForwardOrBackward, Walker2d):
    """Run forward or backward: reward d v - 0.001 sum(a^2) + 1 a step, d = +1 or -1 with equal chance.

    Held-out tasks alternate between the two directions; the family has no tasks outside them.
    """

    definitions: ClassVar = {"gymnasium": GYMNASIUM}
    presets = tuple(definitions)


class Walker2dVelocity(GoalVelocity, Walker2d):
    """Run at a goal velocity: reward -abs(v - g) - 0.001 sum(a^2) + 15 a step, g uniform in (0, 10) m/s.

    Held-out split "out": 10 to 11 m/s.
    """

    definitions: ClassVar = {"gymnasium": GYMNASIUM._replace(survive=15.0)}
    presets = tuple(definitions)
    top_speeds: ClassVar = {"gymnasium": 10.0}


class Walker2dRandomDynamics(RandomDynamics, Walker2d):
    """Run forward with random dynamics: reward v - 0.001 sum(a^2) + 1 a step.

    A task has 32 + 9 + 24 factors, of 8 bodies, 9 joints and 8 geometries (world and floor are one of each); see
    ``RandomDynamics`` for their distribution and for held-out split "out".
    """

    definitions: ClassVar = {"gymnasium": GYMNASIUM._replace(model=random_walker2d_model, frame_skip=4)}
    presets = tuple(definitions)
