"""Tasks made of an environment's attributes, each drawn uniformly from a range."""

import difflib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial, reduce
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec, load_env_creator
from numpy.typing import NDArray

from maml_envs.conventions import HELD_OUT_SEED
from maml_envs.errors import InputError

Ranges = Mapping[str, tuple[float, float]]
Options = Mapping[str, Any]
"""Arguments of an environment's constructor."""

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


class Attribute(NamedTuple):
    """A number of an environment."""

    get: Callable[[], Any]
    set: Callable[[float], None]


def _element(key: str, array_of: Callable[[], NDArray[Any]], index: str | None) -> Attribute:
    """Return an element of an array, which may be made anew."""
    array = array_of()
    if index is None and array.size != 1:
        raise InputError(f"vector.task_ranges: {key!r} has {array.size} numbers: name one, such as '{key}.0'")
    number = int(index or 0) if (index or "0").isdigit() else array.size
    if number >= array.size:
        raise InputError(f"vector.task_ranges: {key!r} has no number {index!r}: give 0 to {array.size - 1}")
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(
            f"vector.task_ranges: {key!r} is in an array of {array.dtype}, which cannot hold fractions: make it an "
            "array of floats, or write a class with sample_tasks and set_task"
        )

    def put(value: float) -> None:
        array_of().flat[number] = value

    return Attribute(lambda: float(array_of().flat[number]), put)


def _of_model(key: str, model: Any) -> Attribute | None:  # noqa: ANN401
    """Return the number of a key such as ``body_mass.torso``; None for keys of another form."""
    field, *rest = key.split(".")
    kind, _, quantity = field.partition("_")
    if key == "gravity":
        return _element(key, lambda: model.opt.gravity, "2")
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
    part = named(names.index(rest[0]))
    return _element(key, lambda: getattr(part, quantity), rest[1] if len(rest) == 2 else None)


def _of_attributes(key: str, root: Any) -> Attribute:  # noqa: ANN401
    """Return the number of a dotted path of attributes; a last part of digits is an element of an array."""
    *path, last = key.split(".")
    if last.isdigit() and path:
        last = f"{path.pop()}.{last}"

    def owner_of() -> Any:  # noqa: ANN401
        return reduce(lambda owner, part: getattr(owner, part, None), path, root)

    owner = owner_of()
    name, _, index = last.partition(".")
    value = getattr(owner, name, None)
    if isinstance(value, np.ndarray):
        return _element(key, lambda: getattr(owner_of(), name), index or None)
    if not _is_number(value) or index:
        known = [other for other in dir(owner) if not other.startswith("_") and _is_number(getattr(owner, other, None))]
        what = f"is a {type(value).__name__} and not a number" if value is not None else "is not an attribute"
        raise InputError(f"vector.task_ranges: {key!r} {what} of {type(root).__name__}; {_near(name, known)}")
    return Attribute(lambda: getattr(owner_of(), name), lambda value: setattr(owner_of(), name, value))


def _short(keys: Sequence[str]) -> list[str]:
    """Return the ends of dotted keys that tell them apart, such as body_mass.2 of _env.physics.model.body_mass.2."""

    def ends(key: str) -> list[str]:
        parts = key.split(".")
        return [".".join(parts[-n:]) for n in range(1, len(parts) + 1) if not parts[-n].isdigit()]

    every = [end for key in keys for end in ends(key)]
    return [next((end for end in ends(key) if every.count(end) == 1), key) for key in keys]


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
        self._attributes = [
            (_of_model(key, model) if model is not None else None) or _of_attributes(key, env.unwrapped)
            for key in self._keys
        ]
        self._owned = [attribute.get() for attribute in self._attributes]
        self._task: NDArray[Any] = np.array(self._owned, np.float64)
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
        return ", ".join(f"{name} {value:.3g}" for name, value in zip(_short(self._keys), task, strict=True))

    def set_task(self, task: NDArray[Any]) -> None:
        """Set every attribute to its value."""
        self._task = task
        for key, attribute, value in zip(self._keys, self._attributes, task, strict=True):
            try:
                attribute.set(float(value))
            except (AttributeError, TypeError, ValueError) as error:
                raise InputError(f"vector.task_ranges: {key} = {float(value):g} cannot be set: {error}") from error
        self._refuse_lost("it was set")
        if self._derive is not None:
            self._derive()

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:  # noqa: ANN401
        """Reset the environment, which has to leave the task as it is."""
        first = super().reset(**options)
        self._refuse_lost("a reset, which sets it itself")
        return first

    def _refuse_lost(self, after: str) -> None:
        for key, attribute, value in zip(self._keys, self._attributes, self._task, strict=True):
            found = float(attribute.get())
            if not math.isclose(found, float(value), rel_tol=1e-6, abs_tol=1e-12):
                raise InputError(
                    f"vector.task_ranges: {key} was set to {float(value):g} and is {found:g} after {after}: write a "
                    "class with sample_tasks and set_task, or leave it out"
                )

    def warnings(self) -> list[str]:
        """Say what is odd about the ranges."""
        found = []
        for key, low, high, own in zip(self._keys, self._low, self._high, self._owned, strict=True):
            given = float(own)
            if given and (max(low, high) * given < 0 or (low * given < 0 and min(low, high) == 0)):
                found.append(f"vector.task_ranges: {key} = [{low:g}, {high:g}] has another sign than its own {given:g}")
            if isinstance(own, int):
                found.append(f"vector.task_ranges: {key} is a whole number of its own, {given:g}, and gets fractions")
        return found


def refuse_options(kind: Callable[..., Any], options: Options, table: str = "env_options") -> None:
    """Refuse arguments that a class or function does not take.

    Raises:
        InputError: The message names those that it takes.
    """
    try:
        signature = inspect.signature(kind)
        signature.bind_partial(**options)
    except TypeError:
        takes = {name for name, each in signature.parameters.items() if each.kind not in (each.VAR_POSITIONAL,)}
        other = next((name for name in options if name not in takes), "")
        called = getattr(kind, "__name__", kind)
        raise InputError(f"{table}: {called} takes no {other!r}; {_near(other, takes)}") from None
    except ValueError:  # it is not written in Python
        return


def _made(
    make: Callable[..., gymnasium.Env[Any, Any]], options: Options, ranges: Ranges, render_mode: str | None
) -> gymnasium.Env[Any, Any]:
    """Make an environment, with a render mode if one is given and it takes it; without ranges, it has its own tasks."""
    try:
        env = make(**options, **({"render_mode": render_mode} if render_mode else {}))
    except TypeError:
        if render_mode is None:
            raise
        env = make(**options)  # its class takes no render mode
    return RangedEnv(env, ranges) if ranges else env


def by_class(
    kind: type[gymnasium.Env[Any, Any]], ranges: Ranges, render_mode: str | None = None, options: Options | None = None
) -> gymnasium.Env[Any, Any]:
    """Make an environment of a class, with arguments for its constructor."""
    refuse_options(kind, options or {})
    return _made(kind, options or {}, ranges, render_mode)


def by_spec(
    spec: EnvSpec,
    horizon: int | None,
    ranges: Ranges,
    render_mode: str | None = None,
    options: Options | None = None,
) -> gymnasium.Env[Any, Any]:
    """Make an environment registered with gymnasium; a horizon replaces its time limit."""
    entry = spec.entry_point
    if options and entry is not None:
        refuse_options(load_env_creator(entry) if isinstance(entry, str) else entry, options)
    make = partial(gymnasium.make, spec, max_episode_steps=horizon, disable_env_checker=True)
    return _made(make, options or {}, ranges, render_mode)
