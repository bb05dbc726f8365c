"""Methods of a gymnasium environment as they have to be called, and what they have to return.

Nothing here imports torch, as a worker loads this file.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maml_envs.adapters.spaces import form_of
from maml_envs.conventions import SUCCESS
from maml_envs.errors import InputError

METHODS = """\
    def sample_tasks(self, count, rng):  # rng: a numpy Generator; returns one row for each task
        return rng.uniform(-1, 1, (count, 1))

    def set_task(self, task):            # one row; reset(seed=...) comes after it
        self.goal = task[0]"""
"""The two methods, as an example for those who have to write them."""

SUCCESS_NAMES = (SUCCESS, "is_success")
"""What infos call that the task is solved: gymnasium-robotics and stable-baselines3 have the second."""

SIGNATURES = {
    "sample_tasks": ("sample_tasks(self, count, rng)", (1, None), {}),
    "set_task": ("set_task(self, task)", (None,), {}),
    "reset": ("reset(self, *, seed=None, options=None)", (), {"seed": 0}),
    "step": ("step(self, action)", (None,), {}),
    "held_out_tasks": ("held_out_tasks(self, count, split)", (1, "in"), {}),
}
"""How a method is written, and what it is called with; the last need not be there."""


def as_number(value: object) -> float:
    """Return a number or flag of an environment's info, also an array of one, as a float; NaN for anything else."""
    if isinstance(value, int | float | np.number | np.bool_):
        return float(value)
    if getattr(value, "shape", None) in ((), (1,)) and hasattr(value, "item"):  # numpy's, torch's or jax's
        return as_number(value.item())
    return np.nan


def one_number(name: str, value: object) -> float:
    """Return a number or flag that a step gave.

    Raises:
        TypeError: It is anything else; NaN is a reward that training names, and no flag.
    """
    number = as_number(value)
    if number != number and not (name == "reward" and isinstance(value, float | np.floating)):
        what = "one number" if name == "reward" else "True or False"
        raise TypeError(f"{name} is {value!r:.200}: return {what}")
    return number


def success_of(info: Mapping[str, Any]) -> float:
    """Return whether an info says that the task is solved; NaN where it does not say."""
    return next((as_number(info[name]) for name in SUCCESS_NAMES if info.get(name) is not None), np.nan)


def odd_success(info: Mapping[str, Any]) -> list[str]:
    """Say that an info's success is no flag, and will not be counted."""
    solved = success_of(info)
    given = next(((name, info[name]) for name in SUCCESS_NAMES if info.get(name) is not None), None)
    if given is None or solved == solved or isinstance(given[1], float | np.floating):
        return []
    return [f"info[{given[0]!r}] is {given[1]!r:.100}, and success is counted where it is one flag, True or False"]


def checked_step(step: object) -> tuple[Any, Any, Any, Any, Mapping[str, Any]]:
    """Return the five values of an environment's step.

    Raises:
        TypeError: It returned anything else.
    """
    if not isinstance(step, tuple) or len(step) != 5:
        what = f"{len(step)} values" if isinstance(step, tuple) else f"a {type(step).__name__}"
        raise TypeError(f"step returned {what}: return (observation, reward, terminated, truncated, info)")
    if not isinstance(step[4], Mapping):
        raise TypeError(f"step returned an info that is {step[4]!r:.100}: return a dict, which may be empty")
    return step


def checked_reset(reset: object) -> Any:  # noqa: ANN401  an observation of the environment's
    """Return the observation of what an environment's reset returned.

    Raises:
        TypeError: It returned anything but (observation, info).
    """
    if not isinstance(reset, tuple) or len(reset) != 2 or not isinstance(reset[1], Mapping):
        what = f"a {type(reset).__name__}"
        if isinstance(reset, tuple):
            what = f"({', '.join(type(part).__name__ for part in reset)})"
        raise TypeError(f"reset returned {what}: return (observation, info), info a dict, which may be empty")
    return reset[0]


def refuse_missing(reach: Callable[[str], Any], where: str) -> None:
    """Refuse an environment without tasks; one that is written for another package is told the lines to add.

    Raises:
        InputError: ``sample_tasks`` or ``set_task`` is missing.
    """
    missing = [name for name in ("sample_tasks", "set_task") if not callable(reach(name))]
    if not missing:
        return
    said = f"{where}: the environment has no {' and no '.join(missing)}."
    if "set_task" in missing and callable(reach("reset_task")):
        raise InputError(
            f"{said} It has reset_task, as those of pytorch-maml-rl and PEARL: a task is a row of numbers here. Add\n"
            "    def sample_tasks(self, count, rng):  # a row for each task\n"
            "        return rng.uniform(0, 2, (count, 1))\n\n"
            "    def set_task(self, task):            # and what reset_task took, made of the row\n"
            '        self.reset_task({"velocity": task[0]})'
        )
    raise InputError(f"{said} Give ranges of its attributes in [vector.task_ranges], or write methods like\n{METHODS}")


def refuse_signatures(reach: Callable[[str], Any], where: str) -> None:
    """Refuse methods that cannot be called as they have to be.

    Args:
        reach: Name to method.
        where: Names the environment in errors.

    Raises:
        InputError: The message has the line to write.
    """
    for name, (wanted, values, named) in SIGNATURES.items():
        if (method := reach(name)) is None:
            continue
        if not callable(method):
            raise InputError(f"{where}: {name} is {method!r:.80}: write def {wanted}, or give it another name")
        try:
            inspect.signature(method).bind(*values, **named)
        except TypeError as error:
            raise InputError(
                f"{where}: {name} cannot be called as it has to be ({error}): write def {wanted}"
            ) from None
        except ValueError:  # it is not written in Python
            continue


def refuse_other_spaces(found: Sequence[object], first: Sequence[object]) -> None:
    """Refuse spaces, of observations and actions, that differ from those of the first environment when it was made.

    Bounds of observations may differ: nothing follows from them.

    Raises:
        ValueError: One does.
    """
    for name, now, before in zip(("observation_space", "action_space"), found, first, strict=True):
        same = now == before if name == "action_space" else form_of(now) == form_of(before)
        if not same:
            raise ValueError(
                f"{name} is {now}, and was {before} of the first environment when it was made: one policy is for one "
                "space, the same for all tasks"
            )


def note(error: BaseException, note: str) -> None:
    """Add a note to an error, as ``add_note`` does, which Python 3.10 has not."""
    error.__notes__ = [*getattr(error, "__notes__", []), note]


WHOLE = 2**53
"""Whole numbers up to here are exact as 64-bit floating-point numbers."""


def task_rows(tasks: ArrayLike, count: int, where: str) -> tuple[NDArray[np.float64], bool, str]:
    """Return tasks that an environment drew as rows (count, numbers), exact; and what they were.

    Returns:
        The rows; whether a task is one number and not a row; and the type of whole numbers or flags, empty for others.

    Raises:
        InputError: They are not numbers, not as many as were asked for, or not exact as 64-bit numbers.
    """
    if isinstance(tasks, Sequence) and tasks and isinstance(tasks[0], Mapping):
        keys = ", ".join(f"task[{key!r}]" for key in tasks[0])
        raise InputError(
            f"{where}: a task is a dict with the keys {', '.join(map(str, tasks[0]))}, as in pytorch-maml-rl and "
            f"rand_param_envs: give a row of numbers for each task, such as [[{keys}] for task in tasks], and make the "
            "dict of it again in set_task"
        )
    try:
        drawn = np.asarray(tasks)
        rows = drawn.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: the tasks are not numbers, a row for each: {error}") from None
    if drawn.dtype.kind not in "biuf":
        raise InputError(
            f"{where}: the tasks are {drawn.dtype}, {drawn.ravel()[:1].tolist()} ...: give numbers, a row for each task"
        )
    if drawn.dtype.kind in "iu" and rows.size and abs(rows).max() > WHOLE:
        raise InputError(
            f"{where}: a task holds {int(drawn.ravel()[abs(rows).argmax()])}, which is no number that can be kept "
            "exactly: draw whole numbers of up to 2**53, such as rng.integers(2**53)"
        )
    if not np.isfinite(rows).all():
        raise InputError(f"{where}: a task holds NaN or infinity: draw finite numbers")
    if rows.ndim == 0 or len(rows) != count:
        raise InputError(f"{where}: asked for {count} tasks, got an array of shape {rows.shape}: one row each")
    flat = rows.ndim == 1
    return rows[:, None] if flat else rows, flat, drawn.dtype.str if drawn.dtype.kind in "biu" else ""
