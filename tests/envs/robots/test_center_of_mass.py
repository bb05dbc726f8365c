"""The centre of mass and its velocity against MuJoCo's own, on every robot and on a tree made to be awkward."""

import mujoco
import numpy as np
import pytest
import torch

from maml_envs.robots.center_of_mass import CenterOfMass, rotation
from maml_envs.robots.half_cheetah import half_cheetah_model
from maml_envs.robots.mujoco_task import State, gymnasium_asset

# Turned bodies, two joints on one, anchors off the body's origin, reference angles, a body without a joint.
TREE = """
<mujoco>
  <worldbody>
    <body pos="1 2 3" quat="{turn}">
      {root}
      <geom size="0.1" mass="2" pos="0.1 0.2 0.3"/>
      <body pos="0.3 0 0.1" quat="0.8 0.6 0 0">
        <joint name="a" axis="0.6 0 0.8" pos="0.1 0.05 -0.2" ref="40"/>
        <joint name="b" axis="0 1 0" pos="-0.1 0 0.2"/>
        <geom size="0.1" mass="1.5" pos="0 0.4 0"/>
        <body pos="0 0.5 0" quat="0 0.6 0 0.8">
          <geom size="0.1" mass="0.7" pos="0.2 0 0"/>
          <body pos="0.2 0.1 0.4"><joint name="c" axis="1 1 1"/><geom size="0.1" mass="0.4" pos="0.3 0 0.1"/></body>
        </body>
      </body>
      <body pos="-0.3 0.1 0"><joint name="d" axis="0 0 1"/><geom size="0.1" mass="0.9" pos="0 -0.3 0.2"/></body>
    </body>
    <body pos="5 0 0"><geom size="0.1" mass="{other}"/></body>
  </worldbody>
</mujoco>"""
SLIDES = '<joint type="slide" axis="1 0 0"/><joint type="slide" axis="0 0.6 0.8" ref="0.3"/><joint axis="0 1 0"/>'


def tree(root: str, turn: str = "1 0 0 0", other: float = 1e-9) -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(TREE.format(root=root, turn=turn, other=other))


MODELS = {
    "ant": lambda: mujoco.MjModel.from_xml_string(gymnasium_asset("ant.xml")),
    "humanoid": lambda: mujoco.MjModel.from_xml_string(gymnasium_asset("humanoid.xml")),
    "walker2d": lambda: mujoco.MjModel.from_xml_string(gymnasium_asset("walker2d.xml")),
    "hopper": lambda: mujoco.MjModel.from_xml_string(gymnasium_asset("hopper.xml")),
    "half-cheetah": half_cheetah_model,
    "fixed tree": lambda: tree("", "0.6 0 0.8 0"),
    "sliding tree": lambda: tree(SLIDES, "0.6 0 0.8 0", other=3.0),
    "free tree": lambda: tree("<freejoint/>", "0.6 0 0.8 0", other=0.0),
}


def random_state(model: mujoco.MjModel, batch: int) -> State:
    """Far from the default position; quaternions of free joints have any length."""
    generator = torch.Generator().manual_seed(2)
    qpos = torch.from_numpy(model.qpos0) + 2 * torch.randn(batch, model.nq, generator=generator, dtype=torch.float64)
    return State(qpos, 5 * torch.randn(batch, model.nv, generator=generator, dtype=torch.float64))


@pytest.mark.parametrize("name", MODELS)
def test_it_is_mujocos(name: str) -> None:
    model = MODELS[name]()
    state, data = random_state(model, 20), mujoco.MjData(model)
    position, velocity = CenterOfMass(model)(state)
    assert position.shape == velocity.shape == (20, 3)
    for row in range(20):
        data.qpos[:], data.qvel[:] = state.qpos[row], state.qvel[row]
        mujoco.mj_forward(model, data)
        mujoco.mj_subtreeVel(model, data)
        np.testing.assert_allclose(position[row], data.subtree_com[0], rtol=0, atol=1e-10)
        np.testing.assert_allclose(velocity[row], data.subtree_linvel[0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["ant", "half-cheetah"])
def test_any_batch_shape(name: str) -> None:
    model = MODELS[name]()
    center, state = CenterOfMass(model), random_state(model, 6)
    position, velocity = center(state)
    grid = center(State(*(part.reshape(2, 3, -1) for part in state)))
    alone = center(State(*(part[4] for part in state)))
    for whole, block, single in zip((position, velocity), grid, alone, strict=True):
        torch.testing.assert_close(block, whole.reshape(2, 3, 3), rtol=0, atol=1e-12)
        torch.testing.assert_close(single, whole[4], rtol=0, atol=1e-12)


def test_the_velocity_is_the_rate_of_the_position() -> None:
    model = MODELS["ant"]()
    center, (qpos, qvel) = CenterOfMass(model), random_state(model, 1)
    qpos[:, 3:7] /= qpos[:, 3:7].norm()
    ends = []
    for time in (-1e-5, 1e-5):
        moved = qpos[0].numpy().copy()
        mujoco.mj_integratePos(model, moved, qvel[0].numpy(), time)
        ends.append(center(State(torch.from_numpy(moved), qvel[0]))[0])
    torch.testing.assert_close((ends[1] - ends[0]) / 2e-5, center(State(qpos, qvel))[1][0], rtol=0, atol=1e-6)


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(ValueError, match="joint 0 is a ball"):
        CenterOfMass(tree('<joint type="ball"/>'))
    with pytest.raises(ValueError, match="joint 1 is a ball, a slide behind a hinge"):
        CenterOfMass(tree('<joint axis="0 1 0"/><joint type="slide"/>'))
    with pytest.raises(ValueError, match="frees a part of the whole only"):
        CenterOfMass(tree("<freejoint/>", other=1.0))


def test_rotation_matrices() -> None:
    generator = torch.Generator().manual_seed(0)
    quaternions = 3 * torch.randn(5, 4, generator=generator, dtype=torch.float64)
    for quaternion, matrix in zip(quaternions, rotation(quaternions), strict=True):
        expected = np.zeros(9)
        mujoco.mju_quat2Mat(expected, (quaternion / quaternion.norm()).numpy())
        np.testing.assert_allclose(matrix.flatten(), expected, rtol=0, atol=1e-14)
