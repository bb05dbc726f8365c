"""Ant tasks: run forward or backward, in a direction of the plane, at a goal velocity; walk to a goal."""

from typing import ClassVar

import mujoco
import torch
from torch import Tensor

from maml_envs.robots.locomotion import Definition, Locomotion, Motion, of_center_of_mass, outside
from maml_envs.robots.locomotion_tasks import ForwardOrBackward, GoalPosition, GoalVelocity, PlaneDirection
from maml_envs.robots.model import ResetNoise, State, compiled, gymnasium_asset


def ant_model() -> mujoco.MjModel:
    """Compile gymnasium's ant."""
    return compiled(gymnasium_asset("ant.xml"))


RLLAB_FIELDS = ("cfrc_ext", "xmat", "subtree_com", "subtree_linvel")


def rllab_ant_model() -> mujoco.MjModel:
    """Compile gymnasium's ant with rllab's time step and softer contacts."""
    model = compiled(gymnasium_asset("ant.xml"), RLLAB_FIELDS)
    model.opt.timestep = 0.02
    model.geom_solimp[:, :3] = 0.8, 0.8, 0.01
    return model


def contact_cost(forces: Tensor) -> Tensor:
    """Return rllab's cost of contact forces (..., bodies, 6): 0.0005 sum(clip(f, +-1)^2)."""
    return 0.0005 * forces.clamp(-1, 1).square().sum((-2, -1))


LEGS_DOWN = (0.0, 0.0, 0.55, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, -1.0, 0.0, -1.0, 0.0, 1.0)
GYMNASIUM = Definition(ant_model, 5, 10.0, ResetNoise(qpos_uniform=0.1), control_cost=0.5)
FINN2017 = Definition(
    rllab_ant_model,
    1,
    1.0,
    ResetNoise(qpos_normal=0.01, around=LEGS_DOWN),
    control_cost=0.005,
    heights=(0.2, 1.0),
    fields=RLLAB_FIELDS,
    contact_cost=contact_cost,
)


class Ant(Locomotion):
    """A four-legged robot with eight actuated joints; abstract in what the task rewards.

    | quantity      | gymnasium                            | finn2017                                     | unit    |
    |---------------|--------------------------------------|----------------------------------------------|---------|
    | observation   | qpos[2:], qvel (27); with x, y where | qpos, qvel, contact forces clipped to +-1,   | m, rad, |
    |               | the task is a place (29)             | the torso's rotation matrix, the centre of   | N, N m  |
    |               |                                      | mass x, y, z (125)                           |         |
    | action        | clipped to [-1, 1]                   | clipped to [-1, 1]                           |         |
    | policy's unit | 10                                   | 1                                            |         |
    | time step     | 5 x 0.01                             | 1 x 0.02                                     | s       |
    | position      | of the torso                         | of the robot's centre of mass                | m       |
    | velocity      | change of the torso's position / dt  | of the centre of mass after the step         | m/s     |
    | start         | qpos uniform +-0.1, qvel 0.1 normal  | legs down, qpos 0.01 normal, qvel 0.1 normal |         |
    | horizon       | 200                                  | 200                                          | steps   |

    Controls a are in [-1, 1], a torque of up to 150 Nm: rllab's controls, which reach 150, over 150.

    In finn2017, contact forces are observed and cost 0.0005 sum(clip(f, +-1)^2) a step. In gymnasium they are not, as
    in PEARL's runs, whose MuJoCo 2 left them at zero. Where gymnasium reads the torso's position from the integrator's
    last stage, here it is that of the state.

    Sources: ProMP (arXiv 1810.06784) and PEARL (arXiv 1903.08254) on gymnasium's ant; the MAML paper's code over rllab
    for finn2017.
    """

    sees_position: ClassVar[bool] = False

    def observation(self, state: State) -> Tensor:
        """Return positions and velocities; finn2017 adds contact forces, the torso's rotation, the centre of mass."""
        if self.fields:
            forces = state.cfrc_ext.clamp(-1, 1).flatten(-2)
            return torch.cat((state.qpos, state.qvel, forces, state.xmat[..., 1, :], state.subtree_com[..., 1, :]), -1)
        return torch.cat((state.qpos[..., 0 if self.sees_position else 2 :], state.qvel), -1)

    def motion(self, before: State, after: State) -> Motion:
        """Return the motion along x and y, by the preset's definition."""
        return of_center_of_mass(after, 2) if self.fields else self.change(before, after, 2)

    def terminated(self, state: State) -> Tensor:
        """Return whether the torso's height has left the definition's range."""
        return outside(state.qpos[..., 2], self.definition.heights)


class AntDirection(ForwardOrBackward, Ant):
    """Run forward or backward, d = +1 or -1 with equal chance. Held-out tasks alternate; there are none beyond them.

    | preset    | reward a step                               | ends                      |
    |-----------|---------------------------------------------|---------------------------|
    | gymnasium | d vx - 0.5 sum(a^2) + 1                     | height outside [0, 1] m   |
    | finn2017  | d vx - 0.005 sum(a^2) + 0.05 - contact cost | height outside [0.2, 1] m |

    Sources: ProMP's AntRandDirec and PEARL; the MAML paper's code.
    """

    definitions: ClassVar = {
        "gymnasium": GYMNASIUM._replace(survive=1.0, heights=(0.0, 1.0)),
        "finn2017": FINN2017._replace(survive=0.05),
    }
    presets = tuple(definitions)


class AntDirection2D(PlaneDirection, Ant):
    """Run in a direction of the plane, a unit vector d: reward d · v - 0.5 sum(a^2) + 1 a step.

    Ends when the height leaves [0, 1] m. Held-out directions are evenly spaced; there are none beyond the circle.

    Source: ProMP's AntRandDirec2D, its "AntRandDir". finn2017 has no such task.
    """

    definitions: ClassVar = {"gymnasium": AntDirection.definitions["gymnasium"]}
    presets = tuple(definitions)


class AntVelocity(GoalVelocity, Ant):
    """Run at a goal velocity, g uniform in (0, 3) m/s: reward 1 - abs(vx - g) - 0.005 sum(a^2) + 0.05 a step.

    Of the reward, 1 + 0.05 is the bonus for staying up. Ends when the height leaves [0.2, 1] m. Held-out split "out":
    3 to 4 m/s. In finn2017 the contact cost is taken off.

    Sources: the MAML paper's code; the gymnasium preset has the same reward on gymnasium's ant, as pytorch-maml-rl's
    AntVel, for ProMP has no such task.
    """

    definitions: ClassVar = {
        "gymnasium": GYMNASIUM._replace(control_cost=0.005, survive=1.05, heights=(0.2, 1.0)),
        "finn2017": FINN2017._replace(survive=1.05),
    }
    presets = tuple(definitions)
    top_speeds: ClassVar = {"gymnasium": 3.0, "finn2017": 3.0}


class AntGoal(GoalPosition, Ant):
    """Walk to a goal g, which is not seen; the position is.

    | preset    | reward a step                              | goals, from the origin | ends                      |
    |-----------|--------------------------------------------|------------------------|---------------------------|
    | gymnasium | -abs(x - gx) - abs(y - gy) - 0.1 sum(a^2)  | disc of radius 3 m     | never                     |
    | finn2017  | the same, 0.005, + 4 + 0.05 - contact cost | square of +-3 m        | height outside [0.2, 1] m |

    Of the reward, 4 + 0.05 is the bonus for staying up. Held-out split "out": 3 to 4.5 m away, in finn2017 by the
    larger coordinate.

    Sources: ProMP's AntRandGoal and PEARL; the MAML paper's code.
    """

    sees_position = True
    definitions: ClassVar = {
        "gymnasium": GYMNASIUM._replace(control_cost=0.1),
        "finn2017": FINN2017._replace(survive=4.05),
    }
    presets = tuple(definitions)
    shapes: ClassVar = {"gymnasium": "disc", "finn2017": "square"}
