"""Hopper task: run forward with random dynamics."""

from typing import ClassVar

import mujoco
import torch
from torch import Tensor

from maml_envs.robots.locomotion import Definition, Motion, outside
from maml_envs.robots.model import ResetNoise, State, compiled, gymnasium_asset
from maml_envs.robots.random_dynamics import TIME_STEP, RandomDynamics


def hopper_model() -> mujoco.MjModel:
    """Compile gymnasium's hopper, with the time step of rand_param_envs."""
    model = compiled(gymnasium_asset("hopper.xml"))
    model.opt.timestep = TIME_STEP
    return model


class HopperRandomDynamics(RandomDynamics):
    """A planar robot with one leg and three actuated joints has to run forward with random dynamics.

    | quantity      | gymnasium                                                           | unit   |
    |---------------|---------------------------------------------------------------------|--------|
    | observation   | qpos[1:], qvel clipped to +-10 (11)                                 | m, rad |
    | action        | clipped to [-1, 1]                                                  |        |
    | policy's unit | 10                                                                  |        |
    | time step     | 4 x 0.004                                                           | s      |
    | velocity      | change of the root's x in a step / dt                               | m/s    |
    | reward        | v - 0.001 sum(a^2) + 1                                              |        |
    | ends          | height below 0.7, lean outside +-0.2, any other number beyond +-100 | m, rad |
    | start         | qpos and qvel uniform +-0.005                                       |        |
    | horizon       | 200                                                                 | steps  |

    A task has 20 + 6 + 15 factors, of 5 bodies, 6 joints and 5 geometries (world and floor are one of each); see
    ``RandomDynamics`` for their distribution and for held-out split "out".

    Source: rand_param_envs, the environments of the ProMP paper (arXiv 1810.06784).
    """

    definitions: ClassVar = {
        "gymnasium": Definition(
            hopper_model,
            4,
            10.0,
            ResetNoise(qpos_uniform=0.005, qvel_normal=0.0, qvel_uniform=0.005),
            control_cost=0.001,
            survive=1.0,
            heights=(0.7, torch.inf),
        )
    }
    presets = tuple(definitions)

    def observation(self, state: State) -> Tensor:
        """Return all positions but x, and all velocities, clipped."""
        return torch.cat((state.qpos[..., 1:], state.qvel.clamp(-10, 10)), -1)

    def motion(self, before: State, after: State) -> Motion:
        """Return the root's motion along x."""
        return self.change(before, after, 1)

    def terminated(self, state: State) -> Tensor:
        """Return whether it has fallen, by height and lean, or whirls."""
        fallen = outside(state.qpos[..., 1], self.definition.heights) | outside(state.qpos[..., 2], (-0.2, 0.2))
        whirls = outside(torch.cat((state.qpos[..., 2:], state.qvel), -1), (-100.0, 100.0)).any(-1)
        return fallen | whirls
