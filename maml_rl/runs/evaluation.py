"""Evaluations of a run: what evaluation.json holds."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from maml_envs import InputError
from maml_rl.core.statistics import Floats, half_width, in_words, mean, strata, trimmed_mean
from maml_rl.runs.measures import MEASURES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VERSION = 2

DIVERGED = 10.0
"""A task has diverged where its error after the last step is not finite, or this many times the one before adapting."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Measures of held-out tasks after 0, 1, ... gradient steps. Field by field what evaluation.json holds.

    What summarises them, ``mean``, ``ci95``, ``median`` and ``trimmed_mean``, is of the leading measure: the return,
    the error or the accuracy. ``of`` gives the others.
    """

    values: dict[str, Floats]  # (tasks, k) of each measure, the leading one first; of "return" (tasks, k, episodes)
    which: str  # parameters: "checkpoint", "best" or "initial"
    iteration: int | None  # of training that they had; None in a file that does not say
    split: str  # "in" or "out" of the training distribution, or "validation"
    lr: Floats  # (steps,) inner rate; where it is learned, the mean over the numbers that adapt, or where they start
    tuned: bool = False  # whether the rate was chosen on other tasks
    tasks: Floats | None = None  # (tasks, numbers of a task), where a task is numbers
    env_steps: int = 0  # environment steps that this evaluation took
    best: float | None = None  # expected return of the best policy that knows the task, mean over tasks, where known
    seed: int = 0  # of the held-out tasks, in few-shot learning
    backtracks: int = 0  # halvings of a step that would raise the support loss, in few-shot learning
    shots: int | None = None  # support examples (of each class); None where there are none, or where data do not say
    references: dict[str, float] = field(default_factory=dict)  # had on the same tasks without meta-learning
    file: Path | None = None  # where it was written; not in the file

    @property
    def measure(self) -> str:
        """The name of the leading measure."""
        return next(iter(self.values))

    @property
    def steps(self) -> int:
        """Gradient steps."""
        return int(self.per_task.shape[1]) - 1

    @property
    def per_task(self) -> Floats:
        """The leading measure (tasks, k), mean over episodes."""
        values = self.values[self.measure]
        return mean(values) if values.ndim == 3 else values

    @property
    def mean(self) -> Floats:
        """Mean (k,) over episodes, then tasks."""
        return mean(self.per_task.T)

    @property
    def ci95(self) -> Floats | None:
        """Half width (k,) of the 95 % interval over tasks, within equal ones; see ``half_width``. None for one task."""
        values = self.per_task
        of = strata(self.tasks, len(values))
        return None if min(np.unique(of, return_counts=True)[1]) == 1 else half_width(values, of)

    @property
    def tasks_in_words(self) -> str:
        """Number of tasks in words, and of adaptations to each where they repeat."""
        return in_words(self.tasks, len(self.per_task), "held-out ")

    @property
    def median(self) -> Floats:
        """Median (k,) over tasks."""
        return np.asarray(np.median(self.per_task, 0))

    @property
    def trimmed_mean(self) -> Floats:
        """Mean (k,) over tasks without the lowest and the highest 5 %."""
        return trimmed_mean(self.per_task.T)

    @property
    def diverged(self) -> float:
        """Share of tasks whose error grew without bound; 0 where no error is measured."""
        if "error" not in self.values:
            return 0.0
        error = self.values["error"]
        return float((~(error[:, -1] <= DIVERGED * np.maximum(error[:, 0], 1e-6))).mean())

    @property
    def returns(self) -> Floats:
        """Undiscounted returns (tasks, k, episodes).

        Raises:
            KeyError: It is of few-shot learning.
        """
        return self.values["return"]

    @property
    def success(self) -> Floats | None:
        """Share of episodes (tasks, k) that succeed; None where nothing reports success."""
        return self.values.get("success")

    def mean_success(self) -> Floats | None:
        """Share of episodes (k,) that succeed, mean over tasks."""
        return None if self.success is None else mean(self.success.T)

    def of(self, measure: str) -> Self:
        """The same evaluation by one of its measures alone."""
        return replace(self, values={measure: self.values[measure]})

    def plot(self) -> "Figure":
        """Draw the adaptation curve, a matplotlib figure: the mean after each step, 95 % intervals over tasks."""
        from maml_rl.pictures import adaptation_curve  # evaluation alone does not need matplotlib

        half = np.zeros_like(self.mean) if self.ci95 is None else self.ci95
        name = self.file.parent.name if self.file else "these parameters"
        points = np.stack([self.mean, self.mean - half, self.mean + half], 1)
        return adaptation_curve({name: points.tolist()}, average="mean", of=MEASURES[self.measure].label)

    def to_json(self) -> str:
        """Return what evaluation.json holds."""
        fields = {"version": VERSION} | asdict(replace(self, file=None))
        del fields["file"]
        return json.dumps(fields, default=lambda array: array.tolist())

    @classmethod
    def from_json(cls, text: str, source: str, file: Path | None = None) -> Self:
        """Read what ``to_json`` or an earlier version of it wrote; ``source`` names it in errors.

        Raises:
            InputError: It is damaged, or not an evaluation.
        """
        again = "evaluate the run again and remove it"
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{source} is damaged: {error}; {again}") from error
        if not isinstance(content, dict) or not content.keys() & {"values", "returns"}:
            raise InputError(f"{source} is not an evaluation of this package; {again}")
        version = content.get("version", 1)
        if version not in (1, VERSION):
            raise InputError(f"{source} has version {version}, this package reads up to {VERSION}: update maml_rl")
        try:
            return cls(**_checked(content if version == VERSION else _converted(content)), file=file)
        except (KeyError, TypeError, ValueError) as error:
            problem = f"it has no {error.args[0]}" if isinstance(error, KeyError) else error
            raise InputError(f"{source} does not hold an evaluation: {problem}; {again}") from error


def _converted(old: Mapping[str, Any]) -> dict[str, Any]:
    """Name the fields of version 1 as version 2 does: it had a form for returns and one for few-shot learning."""
    shared = {"split": "in", "which": "checkpoint", "iteration": None}
    if "returns" in old:
        success = {"success": old["success"]} if old.get("success") is not None else {}
        return shared | dict(old) | {"values": {"return": old["returns"]} | success}
    try:
        steps = len(next(iter(old["values"].values()))[0]) - 1
    except (AttributeError, StopIteration, TypeError, KeyError, IndexError):
        raise ValueError("values are not those of each measure, task and step") from None
    return shared | dict(old) | {"lr": [old["lr"]] * steps}


def _checked(content: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an evaluation, each of the type and shape that it should have.

    Raises:
        KeyError: One is missing.
        ValueError: One is something else.
    """
    if not isinstance(content["values"], dict) or not content["values"]:
        raise ValueError("values are not those of each measure")
    values = {}
    for name, numbers in content["values"].items():
        if name not in MEASURES:
            raise ValueError(f"{name} is none of the measures {', '.join(MEASURES)}")
        axes = ("tasks", "steps", "episodes") if MEASURES[name].per_episode else ("tasks", "steps")
        values[name] = _array(numbers, name, axes)
    shape = next(iter(values.values())).shape[:2]
    if any(array.shape[:2] != shape for array in values.values()):
        raise ValueError(f"{' and '.join(values)} are not of the same tasks and steps")
    numbered = "return" in values or content.get("tasks") is not None
    tasks = _array(content["tasks"], "tasks", ("tasks", "numbers")) if numbered else None
    lr = _array(content["lr"], "lr", ("steps",)) if shape[1] > 1 else np.zeros(0)
    if len(lr) != shape[1] - 1 or (tasks is not None and len(tasks) != shape[0]):
        raise ValueError(f"lr or tasks are not those of {shape[0]} tasks and {shape[1] - 1} steps")
    fields: dict[str, Any] = {"values": values, "lr": lr, "tasks": tasks}
    for name, kind in _KINDS.items():
        if name in content or name in _REQUIRED:
            if not isinstance(content[name], kind):
                raise ValueError(f"{name} is {content[name]!r:.80}")
            fields[name] = content[name]
    if not all(isinstance(value, float | int) for value in fields.get("references", {}).values()):
        raise ValueError("references are not numbers")
    return fields


def _array(numbers: object, name: str, axes: Sequence[str]) -> Floats:
    try:
        values = np.asarray(numbers)
    except (ValueError, OverflowError):  # lists of several lengths, or too deep
        values = np.zeros(0, bool)
    if values.dtype.kind not in "if" or values.ndim != len(axes) or not values.size:
        raise ValueError(f"{name} is not a number for each of its {', '.join(axes)}")
    return values.astype(float)


_REQUIRED = ("which", "iteration", "split")
_KINDS: dict[str, Any] = {
    "which": str,
    "iteration": int | None,
    "split": str,
    "tuned": bool,
    "env_steps": int,
    "best": float | int | None,
    "shots": int | None,
    "seed": int,
    "backtracks": int,
    "references": dict,
}


def evaluations(run: Path) -> tuple[Evaluation, ...]:
    """Read the evaluations of a run folder, the newest first.

    Raises:
        InputError: A file is damaged, or not an evaluation.
    """
    written = [file for file in run.glob("evaluation*.json") if file.stat().st_size]  # not one that is on its way
    newest = sorted(written, key=lambda file: file.stat().st_mtime_ns, reverse=True)
    return tuple(read_evaluation(file) for file in newest)


def latest(candidates: Sequence[Evaluation], which: str = "checkpoint", split: str = "in") -> Evaluation | None:
    """Return the first evaluation of these parameters on that split, if there is one."""
    return next((one for one in candidates if (one.which, one.split) == (which, split)), None)


def read_evaluation(file: Path) -> Evaluation:
    """Read an evaluation file.

    Raises:
        InputError: It is damaged, or not an evaluation.
    """
    return Evaluation.from_json(file.read_text(errors="replace"), str(file), file)
