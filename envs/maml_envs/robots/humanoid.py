"""Humanoid task: run in a direction of the plane."""

from functools import cached_property
from typing import ClassVar

import mujoco
import torch
from torch import Tensor

from maml_envs.robots.center_of_mass import CenterOfMass
from maml_envs.robots.locomotion import Definition, Motion, outside
from maml_envs.robots.locomotion_tasks import PlaneDirection
from maml_envs.robots.mujoco_task import ResetNoise, State, gymnasium_asset


def humanoid_model() -> mujoco.MjModel:
    """Compile gymnasium's humanoid with the Newton solver instead of PGS, which the GPU simulator does not have."""
    model = mujoco.MjModel.from_xml_string(gymnasium_asset("humanoid.xml"))
    model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
    return model


class HumanoidDirection(PlaneDirection):
    """A two-legged robot with 17 actuated joints has to run in a direction of the plane, a unit vector d.

    | quantity    | gymnasium                                                                | unit   |
    |-------------|--------------------------------------------------------------------------|--------|
    | observation | qpos[2:], qvel (45)                                                      | m, rad |
    | action      | divided by 10, clipped to [-1, 1], which spans controls a of +-0.4       |        |
    | time step   | 5 x 0.003                                                                | s      |
    | velocity    | change of the robot's centre of mass in a step / dt                      | m/s    |
    | reward      | 1.25 d · v - 0.1 sum(a^2) + 5                                            |        |
    | ends        | when the torso's height leaves [1, 2]                                    | m      |
    | start       | qpos and qvel uniform +-0.01                                             |        |
    | horizon     | 200                                                                      | steps  |

    The sources observe inertias, body velocities, actuator and contact forces too (376 numbers): they are left out,
    for the state is complete without them. The cost of contact forces is left out: MuJoCo 2 and newer leave them
    at zero without a pass of their own. The factor 1.25 is the sources' 0.25 over the physics step, of which a
    control step has five. The solver is Newton and not PGS.

    Held-out directions are evenly spaced; there are none beyond the circle.

    Sources: ProMP's HumanoidRandDirec2D (arXiv 1810.06784); PEARL (arXiv 1903.08254) has the same.
    """

    definitions: ClassVar = {
        "gymnasium": Definition(
            humanoid_model,
            5,
            10.0,
            ResetNoise(qpos_uniform=0.01, qvel_normal=0.0, qvel_uniform=0.01),
            control_cost=0.1,
            survive=5.0,
            weight=1.25,
            heights=(1.0, 2.0),
        )
    }
    presets = tuple(definitions)

    @cached_property
    def _mass(self) -> CenterOfMass:
        return CenterOfMass(self.model, self._start)

    def observation(self, state: State) -> Tensor:
        """Return all positions but x and y, and all velocities."""
        return torch.cat((state.qpos[..., 2:], state.qvel), -1)

    def motion(self, before: State, after: State) -> Motion:
        """Return the centre of mass along x and y, and its mean velocity over the step."""
        position = self._mass(after)[0][..., :2]
        return Motion(position, (position - self._mass(before)[0][..., :2]) / self.dt)

    def terminated(self, state: State) -> Tensor:
        """Return whether the torso is too low or too high."""
        return outside(state.qpos[..., 2], self.definition.heights)
