"""Fields of MuJoCo's data that a task may read, and what has to be computed for each to be of the present state.

``mj_step`` leaves them one physics step behind the positions and velocities that it returns. The stages of
``mj_forward`` bring them up to date: positions alone, velocities too, or accelerations and forces too, those under the
control that was just applied.
"""

import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import mujoco
import numpy as np
from mujoco import mjtSensor, mjtStage

from maml_envs.errors import InputError

INPUTS = "time act ctrl mocap_pos mocap_quat qfrc_applied xfrc_applied"
POSITIONS = (
    "xpos xquat xmat xipos xiquat ximat xanchor xaxis geom_xpos geom_xquat geom_xmat site_xpos site_xquat site_xmat "
    "cam_xpos cam_xmat light_xpos light_xdir subtree_com cdof cinert ten_length actuator_length ncon nefc"
)
VELOCITIES = (
    "cvel cdof_dot qfrc_bias qfrc_passive qfrc_spring qfrc_damper qfrc_gravcomp qfrc_fluid ten_velocity "
    "actuator_velocity subtree_linvel subtree_angmom"
)
FORCES = "qacc qacc_smooth act_dot actuator_force qfrc_actuator qfrc_smooth qfrc_constraint cacc cfrc_int cfrc_ext"
STAGES: Mapping[str, int] = MappingProxyType(
    {
        name: int(stage)
        for names, stage in (
            (INPUTS, mjtStage.mjSTAGE_NONE),
            (POSITIONS, mjtStage.mjSTAGE_POS),
            (VELOCITIES, mjtStage.mjSTAGE_VEL),
            (FORCES, mjtStage.mjSTAGE_ACC),
        )
        for name in names.split()
    }
)
"""The stage of ``mj_forward`` after which a field is of the present state; of ``sensordata``, see ``stage_of``."""

_ACCELERATION = (
    mjtSensor.mjSENS_FRAMELINACC,
    mjtSensor.mjSENS_FRAMEANGACC,
    mjtSensor.mjSENS_ACCELEROMETER,
    mjtSensor.mjSENS_FORCE,
    mjtSensor.mjSENS_TORQUE,
)
_SUBTREE = (mjtSensor.mjSENS_SUBTREELINVEL, mjtSensor.mjSENS_SUBTREEANGMOM)
FOR_SENSORS: Mapping[str, tuple[mjtSensor, ...]] = MappingProxyType(
    dict.fromkeys(("cacc", "cfrc_int", "cfrc_ext"), _ACCELERATION)
    | dict.fromkeys(("subtree_linvel", "subtree_angmom"), _SUBTREE)
)
"""Fields that MuJoCo fills only where a sensor needs them, with the sensors that do."""

_ADDED = "maml_envs:"
"""What the names of sensors that ``add_sensors`` adds begin with."""


def add_sensors(spec: mujoco.MjSpec, fields: Iterable[str]) -> mujoco.MjSpec:
    """Add, after all others, a sensor for each kind of field that MuJoCo fills only where a sensor needs it."""
    for kind in dict.fromkeys(FOR_SENSORS[name][0] for name in fields if name in FOR_SENSORS):
        if len(spec.bodies) < 2:
            raise InputError("the robot's model has no body: nothing has forces or velocities")
        body = spec.bodies[1]
        body.name = body.name or f"{_ADDED}body"
        spec.add_sensor(name=f"{_ADDED}{kind.name}", type=kind, objtype=mujoco.mjtObj.mjOBJ_BODY, objname=body.name)
    return spec


def own_sensordata(model: mujoco.MjModel) -> int:
    """Return the length of the part of ``sensordata`` that is the model's, without sensors of ``add_sensors``."""
    added = [i for i in range(model.nsensor) if model.sensor(i).name.startswith(_ADDED)]
    return int(model.sensor_adr[added[0]]) if added else int(model.nsensordata)


def check_names(fields: Iterable[str]) -> tuple[str, ...]:
    """Check that there are such fields, and return their names.

    Raises:
        InputError: There is one that is not.
    """
    if isinstance(fields, str):
        raise InputError(f"fields = {fields!r} is a text: a comma is missing, fields = ({fields!r},)")
    given = tuple(fields)
    for name in given:
        if name not in STAGES and name != "sensordata":
            near = difflib.get_close_matches(str(name), [*STAGES, "sensordata"], n=3, cutoff=0.7)
            meant = f"did you mean {' or '.join(near)}? " if near else ""
            raise InputError(
                f"fields = {given}: there is no {name!r}; {meant}qpos and qvel are always there, and fields may be "
                f"sensordata, {', '.join(STAGES)}"
            )
    return given


def check_fields(model: mujoco.MjModel, fields: Iterable[str]) -> None:
    """Check that a model can give these fields.

    Raises:
        InputError: There is no such field, or it would stay empty.
    """
    given = check_names(fields)
    for name in given:
        if name in FOR_SENSORS and not np.isin(model.sensor_type, [int(kind) for kind in FOR_SENSORS[name]]).any():
            raise InputError(
                f"fields = {given}: MuJoCo fills {name!r} only where a sensor needs it, and this compiled model has "
                f"none: give the XML file or an MjSpec instead, to which one is added, or add a sensor of type "
                f"{FOR_SENSORS[name][0].name.removeprefix('mjSENS_').lower()} yourself"
            )
    if "sensordata" in given and not own_sensordata(model):
        raise InputError(f"fields = {given}: the model has no sensors, so 'sensordata' is empty: leave it out")


def stage_of(model: mujoco.MjModel, fields: Iterable[str]) -> int:
    """Return the first stage after which all these fields are of the present state; that of sensors is the last."""
    sensors = int(model.sensor_needstage.max(initial=0))
    return max((sensors if name == "sensordata" else STAGES[name] for name in fields), default=0)
