"""Values of a model's arrays that differ from world to world, for mujoco_warp."""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import mujoco
import numpy as np
from mujoco.batch import MODEL_FIELDS, Batch
from numpy.typing import NDArray
from torch import Tensor

from maml_envs.physics.model_fields import expand

Values = dict[str, NDArray[Any]]
"""By name of a model's array, (worlds, ...)."""

NOT_SIMULATED = {"dof_M0"}
"""What MuJoCo derives from masses and mujoco_warp does not use."""

SIZE_BUFFERS = {"dof_frictionloss", "tendon_frictionloss"}
"""What mujoco_warp could vary among worlds, but how many there are above 0 is in the size of the buffers."""


def _differences(base: mujoco.MjModel, models: Sequence[mujoco.MjModel]) -> set[str]:
    """Return the names of arrays and options in which some model differs from the base."""
    arrays = [name for name in dir(base) if isinstance(getattr(base, name), np.ndarray)]
    options = [f"opt.{name}" for name in dir(base.opt) if not name.startswith("_")]
    return {
        name
        for name in (*arrays, *options)
        if any(not np.array_equal(attrgetter(name)(base), attrgetter(name)(model)) for model in models)
    }


def values_of(models: Sequence[mujoco.MjModel], base: mujoco.MjModel, also: set[str]) -> Values:
    """Return each world's values of what differs from the base in any of their models, and of ``also``."""
    distinct = list({id(model): model for model in models}.values())
    place = {id(model): index for index, model in enumerate(distinct)}
    rows = [place[id(model)] for model in models]
    varied = also | _differences(base, distinct) - NOT_SIMULATED
    return {name: np.stack([attrgetter(name)(model) for model in distinct])[rows] for name in varied}


def with_derived(parameters: Mapping[str, Tensor], base: mujoco.MjModel, worlds: int) -> Values:
    """Return these values and those of all that MuJoCo derives from them."""
    batch = Batch(base, worlds)
    expand(batch, parameters)
    expanded = {name: batch.expanded(name) for name in MODEL_FIELDS - NOT_SIMULATED}
    return {name: values for name, values in expanded.items() if values is not None}
