"""Humanoid task: run in a direction of the plane."""

from collections.abc import Iterable
from functools import partial
from typing import ClassVar

import mujoco
import torch
from torch import Tensor

from maml_envs.robots.locomotion import Definition, Motion, outside
from maml_envs.robots.locomotion_tasks import PlaneDirection
from maml_envs.robots.model import ResetNoise, State, compiled, gymnasium_asset


def humanoid_model(fields: Iterable[str] = ()) -> mujoco.MjModel:
    """Compile gymnasium's humanoid with the Newton solver instead of PGS, which the GPU simulator does not have."""
    model = compiled(gymnasium_asset("humanoid.xml"), fields)
    model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
    return model


def impact_cost(forces: Tensor) -> Tensor:
    """Return the sources' cost of contact forces (..., bodies, 6): 5e-7 sum(f^2), at most 10."""
    return (5e-7 * forces.square().sum((-2, -1))).clamp(max=10.0)


BODIES = ("cinert", "cvel", "qfrc_actuator", "cfrc_ext")
"""What promp observes beside positions and velocities, in its order."""

GYMNASIUM = Definition(
    humanoid_model,
    5,
    10.0,
    ResetNoise(qpos_uniform=0.01, qvel_normal=0.0, qvel_uniform=0.01),
    control_cost=0.1,
    survive=5.0,
    weight=1.25,
    heights=(1.0, 2.0),
    fields=("subtree_com",),
)


class HumanoidDirection(PlaneDirection):
    """A two-legged robot with 17 actuated joints has to run in a direction of the plane, a unit vector d.

    | quantity      | gymnasium                                           | unit   |
    |---------------|-----------------------------------------------------|--------|
    | observation   | qpos[2:], qvel (45)                                 | m, rad |
    | action        | clipped to [-1, 1], which spans controls of +-0.4   |        |
    | policy's unit | 10                                                  |        |
    | time step     | 5 x 0.003                                           | s      |
    | velocity      | change of the robot's centre of mass in a step / dt | m/s    |
    | reward        | 1.25 d · v - 0.1 sum(a^2) + 5                       |        |
    | ends          | when the torso's height leaves [1, 2]               | m      |
    | start         | qpos and qvel uniform +-0.01                        |        |
    | horizon       | 200                                                 | steps  |

    Preset promp is the sources' own: it observes the bodies' inertias and velocities, the motors' forces and the
    contact forces f too (376 numbers), and pays min(5e-7 sum(f^2), 10) for these. In gymnasium the state is complete
    without them. The factor 1.25 is the sources' 0.25 over the physics step, of which a control step has five. The
    solver is Newton and not PGS.

    Held-out directions are evenly spaced; there are none beyond the circle.

    Sources: ProMP's HumanoidRandDirec2D (arXiv 1810.06784); PEARL (arXiv 1903.08254) has the same.
    """

    definitions: ClassVar = {
        "gymnasium": GYMNASIUM,
        "promp": GYMNASIUM._replace(
            model=partial(humanoid_model, BODIES), fields=("subtree_com", *BODIES), contact_cost=impact_cost
        ),
    }
    presets = tuple(definitions)
    max_contacts = 64  # of 190 that there can be; lying and struggling it has 18, mean over worlds
    max_rows = 160  # of 294; it has 39

    def observation(self, state: State) -> Tensor:
        """Return all positions but x and y, and all velocities; promp adds what moves and pushes the bodies."""
        seen = [state.qpos[..., 2:], state.qvel]
        if self.preset == "promp":
            forces = state.qfrc_actuator
            seen += [state.cinert.flatten(-2), state.cvel.flatten(-2), forces, state.cfrc_ext.flatten(-2)]
        return torch.cat(seen, -1)

    def motion(self, before: State, after: State) -> Motion:
        """Return the centre of mass along x and y, and its mean velocity over the step."""
        position = after.subtree_com[..., 1, :2]
        return Motion(position, (position - before.subtree_com[..., 1, :2]) / self.dt)

    def terminated(self, state: State) -> Tensor:
        """Return whether the torso is too low or too high."""
        return outside(state.qpos[..., 2], self.definition.heights)
