"""Differences between the models of tasks: values of a model's fields, or whole models of the same sizes."""

import difflib
from collections.abc import Mapping

import mujoco
import numpy as np
import torch
from mujoco.batch import MODEL_FIELDS
from torch import Tensor

from maml_envs.errors import InputError

SIZES = ("nq", "nv", "na", "nu", "nbody", "njnt", "ngeom", "nsite", "ncam", "ntendon", "neq", "nsensor", "nmocap")
"""Sizes of a model that those of all tasks share."""


def check_parameters(model: mujoco.MjModel, parameters: object, count: int) -> dict[str, Tensor]:
    """Check what ``task_parameters`` returned for so many tasks, and return it as tensors.

    Raises:
        InputError: It is no dictionary, a name is not that of numbers that may differ between tasks, or the shape of a
            value is not (tasks, *shape of the field).
    """
    if not isinstance(parameters, Mapping):
        raise InputError(
            f"task_parameters returned {parameters!r:.80}: return a dictionary, field of the model to tensor"
        )
    found = {}
    for name, values in parameters.items():
        field = np.asarray(_field(model, str(name)))
        if name == "opt.timestep" or not np.issubdtype(field.dtype, np.floating):
            near = difflib.get_close_matches(str(name), [each for each in dir(model) if not each.startswith("_")], n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else "such as body_mass, geom_friction, opt.gravity"
            raise InputError(f"task_parameters: {name!r} is no array of numbers that tasks may change; {hint}")
        try:
            own = torch.as_tensor(values)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"task_parameters: {name!r} is {values!r:.80} and not a tensor: {error}") from error
        if tuple(own.shape) != (count, *field.shape):
            raise InputError(
                f"task_parameters: {name!r} has shape {tuple(own.shape)} for {count} tasks: return ({count}, "
                f"{', '.join(map(str, field.shape))}), a row for each task"
            )
        found[str(name)] = own.double()
    return found


def _field(model: mujoco.MjModel, name: str) -> object:
    owner = model.opt if name.startswith("opt.") else model
    return getattr(owner, name.removeprefix("opt."), None) if name in MODEL_FIELDS else None


def check_sizes(first: mujoco.MjModel, other: mujoco.MjModel, task: str) -> None:
    """Check that the model of a task has the sizes of the first.

    Raises:
        InputError: It has not.
    """
    if first.opt.timestep != other.opt.timestep:
        raise InputError(
            f"task_model: the model of {task} has time step {other.opt.timestep:g} s, and the robot's "
            f"{first.opt.timestep:g} s: all tasks need one"
        )
    wrong = [name for name in SIZES if getattr(first, name) != getattr(other, name)]
    if wrong:
        sizes = ", ".join(f"{name} {getattr(first, name)} and {getattr(other, name)}" for name in wrong)
        raise InputError(
            f"task_model: the model of {task} has other sizes than the robot's: {sizes}. All tasks need as many "
            "bodies, joints and motors; leave out what a task lacks by making it small, light or out of reach"
        )
