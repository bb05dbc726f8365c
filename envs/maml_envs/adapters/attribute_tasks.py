"""Tasks made of an environment's attributes, each drawn uniformly from a range."""

import difflib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray

from maml_envs.errors import InputError
from maml_envs.held_out import HELD_OUT_SEED

Ranges = Mapping[str, tuple[float, float]]
_KINDS = ("body", "geom", "jnt", "dof", "actuator", "site", "tendon")


def _near(name: str, known: Iterable[str]) -> str:
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    more = ", ..." if len(known) > 12 else ""
    return f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(known[:12]) or 'none'}{more}"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def mujoco_model(env: gymnasium.Env[Any, Any]) -> Any:  # noqa: ANN401  MuJoCo is not imported for environments without it
    """Return the environment's MuJoCo model, or None if it has none."""
    model = getattr(env.unwrapped, "model", None)
    return model if type(model).__module__.startswith("mujoco") else None


def _element(key: str, array: NDArray[Any], index: str | None) -> Callable[[float], None]:
    if index is None and array.size != 1:
        raise InputError(f"vector.task_ranges: {key!r} has {array.size} numbers: name one, such as '{key}.0'")
    number = int(index or 0) if (index or "0").isdigit() else array.size
    if number >= array.size:
        raise InputError(f"vector.task_ranges: {key!r} has no number {index!r}: give 0 to {array.size - 1}")
    return partial(array.reshape(-1).__setitem__, number)


def _of_model(key: str, model: Any) -> Callable[[float], None] | None:  # noqa: ANN401
    """Return the setter of a key such as ``body_mass.torso``; None for keys of another form."""
    field, *rest = key.split(".")
    kind, _, quantity = field.partition("_")
    if key == "gravity":
        return _element(key, model.opt.gravity, "2")
    if kind not in _KINDS or len(rest) not in (1, 2):
        return None
    fields = [name for name in dir(model) if name.partition("_")[0] in _KINDS]
    if not isinstance(getattr(model, field, None), np.ndarray):
        raise InputError(f"vector.task_ranges: {key!r}: a MuJoCo model has no {field!r}; {_near(field, fields)}")
    named = getattr(model, {"dof": "jnt"}.get(kind, kind))
    count = model.njnt if kind == "dof" else len(getattr(model, field))
    names = [named(i).name or str(i) for i in range(count)]
    if rest[0] not in names:
        raise InputError(
            f"vector.task_ranges: {key!r}: no {kind} of the model is named {rest[0]!r}; {_near(rest[0], names)}"
        )
    return _element(key, getattr(named(names.index(rest[0])), quantity), rest[1] if len(rest) == 2 else None)


def _of_attributes(key: str, root: Any) -> Callable[[float], None]:  # noqa: ANN401
    """Return the setter of a dotted path of attributes; a last part of digits is an element of an array."""
    *path, last = key.split(".")
    if last.isdigit() and path:
        last = f"{path.pop()}.{last}"
    owner = root
    for part in path:
        owner = getattr(owner, part, None)
    name, _, index = last.partition(".")
    value = getattr(owner, name, None)
    if isinstance(value, np.ndarray):
        return _element(key, value, index or None)
    if not _is_number(value) or index:
        known = [other for other in dir(owner) if not other.startswith("_") and _is_number(getattr(owner, other, None))]
        what = f"is a {type(value).__name__} and not a number" if value is not None else "is not an attribute"
        raise InputError(f"vector.task_ranges: {key!r} {what} of {type(root).__name__}; {_near(name, known)}")
    return partial(setattr, owner, name)


def _check(ranges: Ranges) -> None:
    if not ranges:
        raise InputError("vector.task_ranges is empty: give an attribute and its range, such as g = [5, 15]")
    for key, (low, high) in ranges.items():
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            raise InputError(
                f"vector.task_ranges: {key} = [{low:g}, {high:g}] is no range: give [low, high] with low <= high"
            )


class RangedEnv(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment whose task is a row of values for some of its attributes.

    A key is ``gravity`` or an element of a named part of a MuJoCo model, such as ``body_mass.torso``,
    ``dof_damping.hip`` or ``geom_friction.floor.0``; or else a dotted attribute of ``env.unwrapped``, such as ``g`` or
    ``model.opt.timestep``. A part without a name goes by its number. The values are absolute. A body's mass is the mass
    alone, without its inertia; MuJoCo's derived constants follow. A row has its columns in the alphabetical order of
    the keys.

    Args:
        env: The environment.
        ranges: Key -> (low, high).

    Raises:
        InputError: A key names nothing that can be set, or a range is not one.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], ranges: Ranges) -> None:
        super().__init__(env)
        _check(ranges)
        if env.has_wrapper_attr("sample_tasks"):
            raise InputError(f"vector.task_ranges: {type(env.unwrapped).__name__} draws its own tasks: leave them out")
        self._keys = sorted(ranges)
        self._low, self._high = np.array([ranges[key] for key in self._keys], np.float64).T
        model = mujoco_model(env)
        self._set = [
            (_of_model(key, model) if model is not None else None) or _of_attributes(key, env.unwrapped)
            for key in self._keys
        ]
        self._derive: Callable[[], None] | None = None
        if model is not None:
            import mujoco

            self._derive = partial(mujoco.mj_setConst, model, mujoco.MjData(model))
        self.set_task(self._low)

    def sample_tasks(self, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw values uniformly from the ranges, (count, keys)."""
        return rng.uniform(self._low, self._high, (count, len(self._keys)))

    def held_out_tasks(self, count: int, split: str) -> NDArray[np.float64]:
        """Return fixed values; split "out" is outside each range by up to a quarter of its width, of its sign."""
        rng = np.random.default_rng(HELD_OUT_SEED)
        inside = self.sample_tasks(count, rng)
        if split == "in":
            return inside
        reach = (inside - self._low) / 4
        below, above = self._low - reach, self._high + reach
        quarter = (self._high - self._low) / 4
        only_above = (self._low >= 0) & (self._low - quarter <= 0)
        only_below = (self._high <= 0) & (self._high + quarter >= 0)
        upward = np.where(only_above, True, np.where(only_below, False, rng.random(inside.shape) < 0.5))
        return np.asarray(np.where(upward, above, below), np.float64)

    def describe(self, task: NDArray[Any]) -> str:
        """List every attribute with its value."""
        return ", ".join(f"{key} {value:.3g}" for key, value in zip(self._keys, task, strict=True))

    def set_task(self, task: NDArray[Any]) -> None:
        """Set every attribute to its value."""
        for key, setter, value in zip(self._keys, self._set, task, strict=True):
            try:
                setter(float(value))
            except (AttributeError, TypeError, ValueError) as error:
                raise InputError(f"vector.task_ranges: {key} = {float(value):g} cannot be set: {error}") from error
        if self._derive is not None:
            self._derive()


def by_class(
    kind: type[gymnasium.Env[Any, Any]], ranges: Ranges, render_mode: str | None = None
) -> gymnasium.Env[Any, Any]:
    """Make an environment of a class, with a render mode if one is given and the class takes it.

    Without ranges, it has tasks of its own.
    """
    options: dict[str, Any] = {"render_mode": render_mode} if render_mode else {}
    env = kind(**options) if options.keys() <= inspect.signature(kind).parameters.keys() else kind()
    return RangedEnv(env, ranges) if ranges else env


def by_spec(
    spec: EnvSpec, horizon: int | None, ranges: Ranges, render_mode: str | None = None
) -> gymnasium.Env[Any, Any]:
    """Make an environment registered with gymnasium; a horizon replaces its time limit."""
    make = partial(gymnasium.make, spec, max_episode_steps=horizon, disable_env_checker=True)
    try:
        env = make(render_mode=render_mode)
    except TypeError:
        if render_mode is None:
            raise
        env = make()  # its class takes no render mode
    return RangedEnv(env, ranges) if ranges else env
