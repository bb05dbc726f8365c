"""A robot: where its model comes from, how it starts, what its controls and its state are."""

import contextlib
import inspect
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import gymnasium.envs
import mujoco
import numpy as np
import torch
from torch import Tensor

from maml_envs import random
from maml_envs.errors import InputError
from maml_envs.physics.fields import add_sensors, check_fields, check_names

Source: TypeAlias = str | Path | mujoco.MjSpec | mujoco.MjModel
"""A robot: the path of an MJCF file, XML text, a spec or a compiled model."""


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

    def drawn(self, seeds: Tensor, nq: int, nv: int) -> tuple[Tensor, Tensor]:
        """Return what is added to positions (batch, nq) and velocities (batch, nv), a row from each seed."""

        def uniform(stream: int, width: int) -> Tensor:
            return 2 * random.uniform(random.fold_in(seeds, stream), (width,)) - 1

        def normal(stream: int, width: int) -> Tensor:
            return random.normal(random.fold_in(seeds, stream), (width,))

        position = self.qpos_uniform * uniform(0, nq) + self.qpos_normal * normal(1, nq)
        return position, self.qvel_normal * normal(2, nv) + self.qvel_uniform * uniform(3, nv)


def gymnasium_asset(name: str) -> str:
    """Return the XML text of a robot model that gymnasium ships."""
    return (Path(gymnasium.envs.__file__).parent / "mujoco" / "assets" / name).read_text()


def folders_of(cls: type) -> list[Path]:
    """Return the folders of the files that define a class and its bases, and the current one, as in a notebook."""
    found = []
    for each in cls.__mro__:
        with contextlib.suppress(OSError, TypeError):
            found.append(Path(inspect.getfile(each)).parent)
    return [*found, Path.cwd()]


def compiled(source: object, fields: Iterable[str] = (), folders: Sequence[Path] = ()) -> mujoco.MjModel:
    """Compile a model that can give these fields of MuJoCo's data.

    Meshes and included files are looked for beside the file that names them.

    Args:
        source: A ``Source``.
        fields: Names of fields.
        folders: Where the path of a file may start from.

    Raises:
        InputError: It is none, there is no such file, the XML does not compile, or the model cannot give a field.
    """
    if isinstance(source, mujoco.MjModel):
        check_fields(source, fields)
        return source
    if not isinstance(source, str | Path | mujoco.MjSpec):
        raise InputError(f"the robot's model is {source!r}: give an MJCF file, XML text, an MjSpec or an MjModel")
    check_names(fields)
    place = _place(source, folders or [Path()])
    try:
        model = add_sensors(_spec(source, place), fields).compile()
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"the robot's model does not compile, {place}: {' '.join(str(error).split())}") from error
    check_fields(model, fields)
    return model


def _place(source: str | Path | mujoco.MjSpec, folders: Sequence[Path]) -> str | Path:
    """Return the file of a model, or what it is if it is in none."""
    if isinstance(source, mujoco.MjSpec):
        return "the MjSpec"
    if isinstance(source, str) and "<" in source:
        return "the XML text"
    files = list(dict.fromkeys(folder / source for folder in folders))
    for file in files:
        if file.is_file():
            return file
    raise InputError(f"the robot's model: there is no file {' or '.join(map(str, files))}")


def _spec(source: str | Path | mujoco.MjSpec, place: str | Path) -> mujoco.MjSpec:
    """Return a spec of its own."""
    if isinstance(source, mujoco.MjSpec):
        return source.copy()
    return mujoco.MjSpec.from_file(str(place)) if isinstance(place, Path) else mujoco.MjSpec.from_string(str(source))


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
        key, own = model.key(around), mujoco.MjData(model)
        if key.act.any() or not (
            np.allclose(data.mocap_pos, own.mocap_pos) and np.allclose(data.mocap_quat, own.mocap_quat)
        ):
            raise InputError(
                f"ResetNoise(around={around!r}): the keyframe sets activations or mocap bodies, and a start "
                "sets positions and velocities alone: leave them out of the keyframe"
            )
    elif around is not None:
        if not isinstance(around, Sequence) or len(around) != model.nq:
            raise InputError(
                f"ResetNoise(around={around!r:.80}): give a keyframe's name, or the {model.nq} numbers of qpos"
            )
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


def check_numbers(**numbers: tuple[object, int]) -> None:
    """Check that each is a whole number, (value, least), and not less.

    Raises:
        InputError: It is not.
    """
    for name, (value, least) in numbers.items():
        if not isinstance(value, int) or value < least:
            raise InputError(f"{name} = {value!r}: give a whole number of {least} or more")


def check_flags(name: str, value: object, count: int) -> Tensor:
    """Check that what a function returned is a bool for each of so many worlds.

    Raises:
        InputError: It is not.
    """
    if not isinstance(value, Tensor) or value.dtype != torch.bool or tuple(value.shape) != (count,):
        found = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else f"{value!r:.80}"
        raise InputError(f"{name} returned {found} for {count} worlds: return a bool for each, such as distance < 0.1")
    return value


def without_reset(model: mujoco.MjModel) -> mujoco.MjModel:
    """Have a diverged world show as NaN, and not restart from the default state."""
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
    return model
