"""Spaces of a gymnasium environment as a policy sees them: flat rows of numbers."""

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from maml_envs.errors import InputError


def observation_box(space: gymnasium.Space[Any], where: str) -> spaces.Box:
    """Return the space of flattened observations, float32.

    Args:
        space: A Box of any shape, or a Dict or Tuple of such spaces: what ``gymnasium.spaces.flatten`` flattens.
        where: Names the environment in errors.

    Raises:
        InputError: It does not flatten to a row of numbers.
    """
    if not isinstance(space, gymnasium.Space):
        raise InputError(
            f"{where}: observation_space is {space!r:.100}: give a space, such as "
            "gymnasium.spaces.Box(-numpy.inf, numpy.inf, (3,), numpy.float32)"
        )
    try:
        flat = spaces.flatten_space(space) if space.is_np_flattenable else None
    except NotImplementedError:  # of a space class of the user's own
        flat = None
    if not isinstance(flat, spaces.Box):
        raise InputError(
            f"{where}: observation_space is {in_brief(space)}, which does not flatten to a row of numbers: "
            "wrap the environment in gymnasium.wrappers.TransformObservation to a Box"
        )
    with np.errstate(over="ignore"):  # a float64 bound that float32 cannot hold is infinite
        low, high = np.asarray(flat.low, np.float32), np.asarray(flat.high, np.float32)
    return spaces.Box(low, high, dtype=np.float32)


def _plain(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape without its axes of length 1, which change no order."""
    return tuple(length for length in shape if length != 1)


EXACT = 2**24
"""Whole numbers up to here are exact as 32-bit floating-point numbers."""


def in_brief(space: spaces.Space[Any]) -> str:
    """Write a space as gymnasium does, but a Box whose numbers have limits of their own by its lowest and highest."""
    if isinstance(space, spaces.Dict):
        return f"Dict({', '.join(f'{name!r}: {in_brief(part)}' for name, part in space.spaces.items())})"
    if isinstance(space, spaces.Tuple):
        return f"Tuple({', '.join(map(in_brief, space.spaces))})"
    if isinstance(space, spaces.Box) and "[" in str(space):
        return f"Box(from {space.low.min():g}, to {space.high.max():g}, {space.shape}, {space.dtype})"
    return str(space)


def refuse_misfit(space: gymnasium.Space[Any], observation: Any) -> None:  # noqa: ANN401
    """Refuse an observation that would be another one once it is a row of 32-bit numbers.

    Such are another shape or other keys than the space's, fractions in whole numbers, whole numbers that are too large,
    complex numbers, and a choice that there is not.

    Raises:
        ValueError: It would be something else; the message says what it is.
    """
    if isinstance(space, spaces.Box):
        try:
            given = np.asarray(observation)
        except ValueError:  # lists of several lengths
            given = np.zeros(0, object)
        if given.dtype.kind not in "biufc":
            said = f"the observation {observation!r:.200} is not of observation_space {in_brief(space)}"
            raise ValueError(f"{said}: return one that is")
        _refuse_misfit_of_box(space, given)
    elif isinstance(space, spaces.Dict):
        if isinstance(observation, Mapping):
            if unknown := [name for name in observation if name not in space.spaces]:
                raise ValueError(
                    f"the observation has the keys {unknown}, which observation_space lacks: it has "
                    f"{list(space.spaces)}; declare them, or leave them out"
                )
            for name, part in space.spaces.items():
                if name in observation:
                    refuse_misfit(part, observation[name])
    elif isinstance(space, spaces.Tuple):
        if isinstance(observation, tuple | list):
            if len(observation) != len(space.spaces):
                raise ValueError(
                    f"the observation has {len(observation)} parts, and observation_space {in_brief(space)}"
                )
            for part, value in zip(space.spaces, observation, strict=True):
                refuse_misfit(part, value)
    elif not _holds(space, observation):
        said = f"the observation {observation!r:.200} is not of observation_space {in_brief(space)}"
        raise ValueError(f"{said}: return one that is")


def _refuse_misfit_of_box(space: spaces.Box, given: NDArray[Any]) -> None:
    if given.shape != space.shape and _plain(given.shape) != _plain(space.shape):
        raise ValueError(
            f"the observation has the shape {given.shape}, and observation_space {space.shape}: return it in that shape"
        )
    if given.dtype.kind == "c":
        raise ValueError("the observation holds complex numbers: return their real and imaginary parts")
    if space.dtype is None or space.dtype.kind == "f":
        return
    with np.errstate(invalid="ignore"):
        kept = given.astype(space.dtype) if given.dtype.kind in "biuf" else given
    if kept.dtype != space.dtype or not np.array_equal(kept, given):
        wrong = given.ravel()[(kept != given).ravel()][:1].tolist() if kept.dtype == space.dtype else given.dtype
        raise ValueError(
            f"the observation holds {wrong}, which observation_space {in_brief(space)} cannot hold: declare it with a "
            "dtype that can, such as numpy.float32"
        )
    if kept.itemsize > 2 and kept.size and np.abs(kept.astype(np.float64)).max() > EXACT:
        raise ValueError(
            f"the observation holds {kept.ravel()[np.abs(kept.astype(np.float64)).argmax()]}, and a policy sees 32-bit "
            "floating-point numbers, exact up to 2**24: return smaller numbers, such as a share of the largest"
        )


def _holds(space: gymnasium.Space[Any], observation: Any) -> bool:  # noqa: ANN401
    return space.contains(observation if isinstance(space, spaces.Discrete) else np.asarray(observation))


def form_of(space: Any) -> Any:  # noqa: ANN401  of any object
    """Return what of a space a flattened observation depends on: all but the bounds of a Box."""
    if isinstance(space, spaces.Box):
        return "Box", space.shape, space.dtype
    if isinstance(space, spaces.Dict):
        return [(name, form_of(part)) for name, part in space.spaces.items()]
    if isinstance(space, spaces.Tuple):
        return [form_of(part) for part in space.spaces]
    return space


PICTURE = 255.0
"""Bytes of a picture are divided by this."""


def units_of(space: gymnasium.Space[Any]) -> NDArray[np.float32]:
    """Return what each number of a flattened observation is divided by: 255 in a picture of bytes up to 255, else 1."""
    if isinstance(space, spaces.Dict):
        return np.concatenate([units_of(part) for part in space.spaces.values()])
    if isinstance(space, spaces.Tuple):
        return np.concatenate([units_of(part) for part in space.spaces])
    picture = (
        isinstance(space, spaces.Box)
        and space.dtype == np.uint8
        and len(space.shape) > 1
        and bool((space.high == PICTURE).all())
    )
    return np.full(spaces.flatdim(space), PICTURE if picture else 1.0, np.float32)


def described(space: gymnasium.Space[Any]) -> tuple[Any, ...] | None:
    """Return a space as plain data, which another process can send; None for one of another kind."""
    if isinstance(space, spaces.Box):
        return "Box", space.low, space.high, str(space.dtype)
    if isinstance(space, spaces.Discrete):
        return "Discrete", int(space.n), int(space.start)
    if isinstance(space, spaces.MultiDiscrete):
        return "MultiDiscrete", space.nvec, space.start
    if isinstance(space, spaces.MultiBinary):
        return "MultiBinary", tuple(space.shape)
    if isinstance(space, spaces.Dict):
        parts = [described(part) for part in space.spaces.values()]
        return None if any(part is None for part in parts) else ("Dict", list(space.spaces), parts)
    if isinstance(space, spaces.Tuple):
        parts = [described(part) for part in space.spaces]
        return None if any(part is None for part in parts) else ("Tuple", parts)
    return None


def space_of(description: tuple[Any, ...]) -> gymnasium.Space[Any]:
    """Return the space of a description."""
    kind, *values = description
    if kind == "Box":
        low, high, dtype = values
        return spaces.Box(low, high, dtype=np.dtype(dtype).type)
    if kind == "Discrete":
        return spaces.Discrete(values[0], start=values[1])
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(values[0], start=values[1])
    if kind == "MultiBinary":
        return spaces.MultiBinary(list(values[0]))
    if kind == "Dict":
        return spaces.Dict([(name, space_of(part)) for name, part in zip(*values, strict=True)])
    return spaces.Tuple([space_of(part) for part in values[0]])


def _first(space: gymnasium.Space[Any], value: Any) -> tuple[gymnasium.Space[Any], Any]:  # noqa: ANN401
    if isinstance(space, spaces.Dict):
        name, part = next(iter(space.spaces.items()))
        return _first(part, value[name])
    return _first(space[0], value[0]) if isinstance(space, spaces.Tuple) else (space, value)


def _row(space: gymnasium.Space[Any], value: Any, i: int) -> Any:  # noqa: ANN401  one of a batch of the space
    if isinstance(space, spaces.Dict):
        return {name: _row(part, value[name], i) for name, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_row(part, each, i) for part, each in zip(space.spaces, value, strict=True))
    return value[i]


def rows_of(space: gymnasium.Space[Any], observation: Any) -> tuple[NDArray[np.float32], bool]:  # noqa: ANN401
    """Flatten an observation, or a batch of them, to rows (n, obs), float32; and return whether it was one alone.

    Raises:
        InputError: It is neither of the space nor a batch of it.
    """
    try:
        leaf, value = _first(space, observation)
        single = np.ndim(value) == len(leaf.shape or ())
        if not single and np.ndim(value) != len(leaf.shape or ()) + 1:
            raise ValueError(f"its shape is {np.shape(value)}, and that of the space {leaf.shape}")
        count = 1 if single else len(value)
        each = [observation] if single else [_row(space, observation, i) for i in range(count)]
        for one in each:
            refuse_misfit(space, one)
        rows = np.stack([np.asarray(spaces.flatten(space, one), np.float32) for one in each])
        if not np.isfinite(rows).all():
            raise ValueError("it holds NaN or infinity")
        if rows.shape == (count, spaces.flatdim(space)):
            return rows, single
        found = f"it has {rows.shape[-1]} numbers"
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        found = str(error)
    raise InputError(f"the observation {observation!r:.200} is not of {in_brief(space)}, nor a batch of it: {found}")
