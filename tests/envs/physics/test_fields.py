"""Fields of MuJoCo's data, each beside ``mj_forward`` at the very state that it is given with."""

import mujoco
import numpy as np
import pytest
import torch

from maml_envs import InputError
from maml_envs.physics.cpu import CpuPhysics
from maml_envs.physics.fields import FOR_SENSORS, STAGES, add_sensors, check_fields, own_sensordata, stage_of

WORLDS, STEPS, FRAMES = 3, 12, 4
ARM = """
<mujoco>
  <option timestep="0.005" density="1.2" viscosity="0.01"/>
  <worldbody>
    <light pos="0 0 3" mode="trackcom"/>
    <light pos="1 0 3" mode="targetbodycom" target="box"/>
    <camera name="eye" pos="0 -2 1" mode="trackcom"/>
    <geom type="plane" size="5 5 0.1"/>
    <body name="hand" mocap="true" pos="1 1 1"/>
    <body name="box" pos="0 0 0.11">
      <freejoint/><geom type="box" size="0.1 0.1 0.1" mass="1"/>
      <site name="top" pos="0 0 0.1" size="0.12"/>
      <body name="arm" pos="0 0 0.1" gravcomp="0.5">
        <joint name="shoulder" axis="0 1 0" damping="0.1" stiffness="1" limited="true" range="-1 1"/>
        <geom type="capsule" fromto="0 0 0 0.3 0 0" size="0.03" mass="0.3"/>
        <camera name="wrist" pos="0.3 0 0"/><site name="tip" pos="0.3 0 0"/>
        <body name="finger" pos="0.3 0 0">
          <joint name="knuckle" axis="0 1 0" damping="0.05"/>
          <geom type="capsule" fromto="0 0 0 0.1 0 0" size="0.02" mass="0.1"/>
        </body>
      </body>
    </body>
  </worldbody>
  <tendon><fixed name="pull"><joint joint="shoulder" coef="1"/><joint joint="knuckle" coef="-0.5"/></fixed></tendon>
  <actuator>
    <motor name="motor" joint="shoulder" gear="2"/><position tendon="pull" kp="3"/>
    <general joint="knuckle" dyntype="filter" dynprm="0.1" gainprm="1"/>
  </actuator>
  <sensor>{}</sensor>
</mujoco>"""
PLACES = '<framepos objtype="site" objname="tip"/><tendonpos tendon="pull"/>'
MOTIONS = '<velocimeter site="tip"/><gyro site="tip"/><subtreelinvel body="arm"/>'
PUSHES = '<touch site="top"/><force site="tip"/><accelerometer site="tip"/><actuatorfrc actuator="motor"/>'


def arm(sensors: str = "", fields: tuple[str, ...] = ()) -> mujoco.MjModel:
    return add_sensors(mujoco.MjSpec.from_string(ARM.format(sensors)), fields).compile()


def moved(physics: CpuPhysics, model: mujoco.MjModel) -> list[mujoco.MjData]:
    """Take some steps, and MuJoCo's own data at each world's state, all passes taken."""
    generator = torch.Generator().manual_seed(0)
    qpos = torch.tensor(model.qpos0).repeat(WORLDS, 1) + 0.05 * torch.rand(WORLDS, model.nq, generator=generator)
    physics.set_state(qpos, 0.5 * torch.randn(WORLDS, model.nv, generator=generator))
    for _ in range(STEPS):
        physics.step(torch.randn(WORLDS, model.nu, generator=generator), FRAMES)
    return data_of(physics, model)


def data_of(physics: CpuPhysics, model: mujoco.MjModel) -> list[mujoco.MjData]:
    found = []
    for world in range(WORLDS):
        data = physics._batch.get_data(world)
        mujoco.mj_forward(model, data)
        mujoco.mj_subtreeVel(model, data)
        mujoco.mj_rnePostConstraint(model, data)
        found.append(data)
    return found


def off(physics: CpuPhysics, data: list[mujoco.MjData], name: str) -> tuple[float, float]:
    """Largest difference of a field from MuJoCo's, and its size."""
    own = np.stack([np.asarray(getattr(each, name)) for each in data])
    given = physics.fields[name].numpy().astype(float)
    own = own[:, : given.shape[1]] if name == "sensordata" else own
    return float(np.abs(given - own).max(initial=0)), float(np.abs(own).max(initial=0))


@pytest.mark.parametrize("name", STAGES)
def test_a_field_is_of_the_present_state(name: str) -> None:
    model = arm(PLACES, (name,))
    physics = CpuPhysics(model, WORLDS, 2, (name,))
    data = moved(physics, model)
    error, size = off(physics, data, name)
    assert error <= 1e-6 * max(1, size)
    physics.set_state(torch.tensor(model.qpos0).repeat(WORLDS, 1), torch.zeros(WORLDS, model.nv))
    error, size = off(physics, data_of(physics, model), name)
    assert error <= 1e-6 * max(1, size)  # and of the first, before any step
    physics.close()


@pytest.mark.parametrize("name", [name for name, stage in STAGES.items() if stage])
def test_a_stage_too_early_is_seen(name: str) -> None:
    """Without its stage, a field is of the state before: the table holds no field that could do with less."""
    model = arm(PLACES, (name,))
    physics = CpuPhysics(model, WORLDS, 1, (name,))
    physics._stage = STAGES[name] - 1
    error, size = off(physics, moved(physics, model), name)
    assert error > 1e-6 * max(1, size)
    physics.close()


@pytest.mark.parametrize(("sensors", "stage"), [(PLACES, 1), (PLACES + MOTIONS, 2), (PLACES + PUSHES + MOTIONS, 3)])
def test_sensors_are_of_the_present_state(sensors: str, stage: int) -> None:
    fields = ("sensordata", "cfrc_ext", "subtree_linvel") if stage == 3 else ("sensordata",)
    model = arm(sensors, fields)
    physics = CpuPhysics(model, WORLDS, 2, fields)
    assert stage_of(model, fields) == stage
    data = moved(physics, model)
    error, size = off(physics, data, "sensordata")
    assert size > 0.1
    assert error <= 1e-6 * size
    # Those that were added for other fields are no part of it.
    assert physics.fields["sensordata"].shape[1] == arm(sensors).nsensordata == own_sensordata(model)
    physics.close()


def test_who_asks_for_nothing_gets_what_mj_step_leaves() -> None:
    model = arm(PUSHES)
    assert stage_of(model, ()) == 0
    physics = CpuPhysics(model, WORLDS, 1)
    assert physics.fields == {}
    physics.close()


def test_contact_forces_come_with_a_sensor_that_is_added() -> None:
    assert arm().nsensor == 0
    for name in FOR_SENSORS:
        model = arm("", (name,))
        assert (model.nsensor, own_sensordata(model)) == (1, 0)
        check_fields(model, (name,))
        with pytest.raises(InputError, match=f"fills '{name}' only where a sensor needs it, .* give the XML file"):
            check_fields(arm(), (name,))
    assert arm("", ("cfrc_ext", "cacc", "subtree_linvel")).nsensor == 2
    check_fields(arm(PUSHES), ("cfrc_ext",))


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match=r"there is no 'tip_position'; qpos and qvel are always there, .*site_xpos"):
        check_fields(arm(), ("xpos", "tip_position"))
    with pytest.raises(InputError, match="the model has no sensors, so 'sensordata' is empty"):
        check_fields(arm(), ("sensordata",))


# --- On mujoco_warp.


LACKING = {"xiquat", "geom_xquat", "site_xquat", "ncon"}


@pytest.mark.parametrize("name", [*STAGES, "sensordata"])
def test_mujoco_warp_gives_the_same_or_refuses(name: str) -> None:
    pytest.importorskip("mujoco_warp")
    from maml_envs.physics.gpu import GpuPhysics

    sensors = PLACES + MOTIONS + PUSHES if name == "sensordata" else PLACES
    model = arm(sensors, (name,))
    model.opt.density = model.opt.viscosity = 0.0
    if name in LACKING:
        with pytest.raises(InputError, match=f"mujoco_warp has no '{name}'; leave it out, or use device = 'cpu'"):
            GpuPhysics(model, 2, torch.device("cpu"), fields=(name,))
        return
    cpu, warp = CpuPhysics(model, 2, 1, (name,)), GpuPhysics(model, 2, torch.device("cpu"), fields=(name,))
    qpos, qvel = torch.tensor(model.qpos0).repeat(2, 1), torch.full((2, model.nv), 0.3)
    for each in (cpu, warp):
        each.set_state(qpos, qvel)
    for control in (0.0, 0.7, -0.4):
        expected, found = cpu.fields[name].double(), warp.fields[name].double()
        scale = max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(found, expected, rtol=0, atol=5e-3 * scale, msg=lambda text: f"{name}: {text}")
        for each in (cpu, warp):
            each.step(torch.full((2, model.nu), control), FRAMES)
    cpu.close()
    warp.close()
