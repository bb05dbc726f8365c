"""Half-cheetah tasks: run forward or backward, run at a goal velocity."""

from collections.abc import Iterable
from functools import partial
from typing import ClassVar

import mujoco
import torch
from torch import Tensor

from maml_envs.robots.locomotion import Definition, Locomotion, Motion, of_center_of_mass
from maml_envs.robots.locomotion_tasks import ForwardOrBackward, GoalVelocity
from maml_envs.robots.model import ResetNoise, State, compiled, gymnasium_asset

TOTAL_MASS = 14.0


def half_cheetah_model(fields: Iterable[str] = ()) -> mujoco.MjModel:
    """Compile gymnasium's half-cheetah, and set its mass afterwards because the XML attribute is deprecated."""
    model = compiled(gymnasium_asset("half_cheetah.xml").replace('settotalmass="14"', ""), fields)
    mujoco.mj_setTotalmass(model, TOTAL_MASS)
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


RLLAB_FIELDS = ("subtree_com", "subtree_linvel")
DEFINITIONS = {
    "gymnasium": Definition(half_cheetah_model, 5, 10.0, ResetNoise(qpos_uniform=0.1), control_cost=0.05),
    "finn2017": Definition(
        partial(half_cheetah_model, RLLAB_FIELDS),
        1,
        1.0,
        ResetNoise(qpos_normal=0.01),
        control_cost=0.05,
        fields=RLLAB_FIELDS,
    ),
}


class HalfCheetah(Locomotion):
    """A planar two-legged robot with six actuated joints; abstract in what the task rewards.

    | quantity      | gymnasium                             | finn2017                              | unit   |
    |---------------|---------------------------------------|---------------------------------------|--------|
    | observation   | qpos[1:], qvel (17)                   | the same, centre of mass x, y, z (20) | m, rad |
    | action        | clipped to [-1, 1]                    | clipped to [-1, 1]                    |        |
    | policy's unit | 10                                    | 1                                     |        |
    | time step     | 5 x 0.01                              | 1 x 0.01                              | s      |
    | velocity      | change of the root's x in a step / dt | of the centre of mass after the step  | m/s    |
    | start         | qpos uniform +-0.1, qvel 0.1 normal   | qpos 0.01 normal, qvel 0.1 normal     |        |
    | horizon       | 200                                   | 200                                   | steps  |

    Control cost in every preset: 0.05 times the sum of squared controls after clipping. No state ends the
    episode.

    Sources: gymnasium, ProMP (arXiv 1810.06784) and PEARL (arXiv 1903.08254) for the gymnasium preset; the
    MAML paper's code over rllab for finn2017.
    """

    presets = tuple(DEFINITIONS)
    definitions = DEFINITIONS

    def observation(self, state: State) -> Tensor:
        """Return all positions but x, and all velocities; finn2017 adds the centre of mass."""
        seen = [state.qpos[..., 1:], state.qvel]
        return torch.cat([*seen, state.subtree_com[..., 1, :]] if self.fields else seen, -1)

    def motion(self, before: State, after: State) -> Motion:
        """Return the motion along x, by the preset's definition."""
        return of_center_of_mass(after, 1) if self.fields else self.change(before, after, 1)


class HalfCheetahDirection(ForwardOrBackward, HalfCheetah):
    """Run forward or backward: reward d v - 0.05 sum(a^2) a step, task d = +1 or -1 with equal chance.

    Held-out tasks alternate between the two directions; the family has no tasks outside them.
    """


class HalfCheetahVelocity(GoalVelocity, HalfCheetah):
    """Run at a goal velocity: reward -abs(v - g) - 0.05 sum(a^2) a step, g uniform in (0, top speed) m/s.

    Top speed is 3 m/s in the gymnasium preset and 2 m/s in finn2017. Held-out split "out": up to 1 m/s above.
    """

    top_speeds: ClassVar = {"gymnasium": 3.0, "finn2017": 2.0}
