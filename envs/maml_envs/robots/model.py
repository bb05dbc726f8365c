"""A robot: where its model comes from, how it starts, what its controls and its state are."""

import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, TypeAlias

import gymnasium.envs
import mujoco
import torch
from torch import Tensor

from maml_envs.errors import InputError
from maml_envs.physics.fields import add_sensors, check_fields

Source: TypeAlias = str | Path | mujoco.MjSpec | mujoco.MjModel
"""A robot: the path of an MJCF file, XML text, a spec or a compiled model."""

SIZES = ("nq", "nv", "na", "nu", "nbody", "njnt", "ngeom", "nsite", "ncam", "ntendon", "neq", "nsensor", "nmocap")
"""Sizes of a model that those of all tasks share."""


class State:
    """State of the simulator: generalised positions and velocities, and the fields that the class names.

    Attributes:
        qpos: (..., nq).
        qvel: (..., nv).
    """

    qpos: Tensor
    qvel: Tensor

    def __init__(self, qpos: Tensor, qvel: Tensor, **fields: Tensor) -> None:
        self.__dict__.update(fields, qpos=qpos, qvel=qvel)

    def __getattr__(self, name: str) -> Tensor:
        """Refuse what is not there."""
        raise AttributeError(
            f"the state has no {name!r}, only {', '.join(self.__dict__)}: name it in the class, "
            f"fields = ({name!r}, ...), which may be any of maml_envs.physics.fields"
        )

    def clone(self) -> "State":
        """Return a copy, which the next step leaves alone."""
        return State(**{name: value.clone() for name, value in self.__dict__.items()})


class ResetNoise(NamedTuple):
    """Start state: a position + uniform(-u, u) + normal(0, n), each of its own width."""

    qpos_uniform: float = 0.0
    qpos_normal: float = 0.0
    qvel_normal: float = 0.1
    qvel_uniform: float = 0.0
    around: tuple[float, ...] | str | None = None  # the position, qpos, or a keyframe's name; None: the model's own


def gymnasium_asset(name: str) -> str:
    """Return the XML text of a robot model that gymnasium ships."""
    return (Path(gymnasium.envs.__file__).parent / "mujoco" / "assets" / name).read_text()


def folder_of(cls: type) -> Path:
    """Return the folder of the file that defines a class; the current one in a notebook."""
    try:
        return Path(inspect.getfile(cls)).parent
    except (OSError, TypeError):
        return Path.cwd()


def compiled(source: Source, fields: Iterable[str] = (), folder: Path | None = None) -> mujoco.MjModel:
    """Compile a model that can give these fields of MuJoCo's data.

    Meshes and included files are looked for beside the file that names them.

    Args:
        source: The robot.
        fields: Names of fields.
        folder: Where the path of a file starts from.

    Raises:
        InputError: There is no such file, the XML does not compile, or the model cannot give a field.
    """
    if not isinstance(source, mujoco.MjModel):
        text = isinstance(source, str) and "<" in source
        path = "the XML text" if text else (folder or Path()) / str(source)
        try:
            if isinstance(source, mujoco.MjSpec):
                spec = source.copy()
            elif text:
                spec = mujoco.MjSpec.from_string(source)
            elif isinstance(path, Path) and path.is_file():
                spec = mujoco.MjSpec.from_file(str(path))
            else:
                raise InputError(f"the robot's model: there is no file {path}")
            source = add_sensors(spec, fields).compile()
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"the robot's model does not compile, {path}: {' '.join(str(error).split())}") from error
    check_fields(source, fields)
    return source


def start_data(model: mujoco.MjModel, around: tuple[float, ...] | str | None) -> mujoco.MjData:
    """Return MuJoCo's data at a start position: one given, a keyframe's by its name, or the model's own.

    Raises:
        InputError: There is no such keyframe, or the position has another length.
    """
    data = mujoco.MjData(model)
    if isinstance(around, str):
        names = [model.key(i).name for i in range(model.nkey)]
        if around not in names:
            raise InputError(f"ResetNoise(around={around!r}): the model has no such keyframe, only {names}")
        mujoco.mj_resetDataKeyframe(model, data, names.index(around))
    elif around is not None:
        if len(around) != model.nq:
            raise InputError(f"ResetNoise(around=...) has {len(around)} numbers: qpos of this robot has {model.nq}")
        data.qpos[:] = around
    mujoco.mj_forward(model, data)
    return data


def control_range(model: mujoco.MjModel) -> tuple[Tensor, Tensor, Tensor]:
    """Return limit, middle and half, each (nu,), of control = middle + half * clip(unit, +-limit).

    An actuator without a control range takes the unit as it is: limit infinite, middle 0, half 1.
    """
    limited = torch.from_numpy(model.actuator_ctrllimited.astype(bool))
    low, high = torch.from_numpy(model.actuator_ctrlrange.copy()).unbind(-1)
    limit = torch.where(limited, 1.0, torch.inf).double()
    return limit, torch.where(limited, (high + low) / 2, 0.0), torch.where(limited, (high - low) / 2, 1.0)


def check_sizes(first: mujoco.MjModel, other: mujoco.MjModel, task: str) -> None:
    """Check that the model of a task has the sizes of the first.

    Raises:
        InputError: It has not.
    """
    wrong = [name for name in SIZES if getattr(first, name) != getattr(other, name)]
    if wrong:
        sizes = ", ".join(f"{name} {getattr(first, name)} and {getattr(other, name)}" for name in wrong)
        raise InputError(
            f"task_model: the model of {task} has other sizes than the robot's: {sizes}. All tasks need as many "
            "bodies, joints and motors; leave out what a task lacks by making it small, light or out of reach"
        )
