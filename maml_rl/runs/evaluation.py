"""Evaluations of a run: what evaluation.json holds."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maml_envs import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Returns of held-out tasks. Field by field what evaluation.json holds, but for ``file``."""

    tasks: Floats  # (tasks, numbers of a task)
    returns: Floats  # (tasks, k, episodes) undiscounted return
    mean: Floats  # (k,) over episodes, then tasks
    ci95: Floats | None  # (k,) half width of the 95 % interval, 1.96 s / sqrt(tasks); None for one task
    split: str  # "in" or "out" of the training distribution
    steps: int  # gradient steps
    which: str  # parameters: "checkpoint", "best" or "initial"
    iteration: int  # of training that they had
    lr: Floats  # (steps,) inner rate; where it is learned, the mean over the numbers that adapt
    env_steps: int  # environment steps that this evaluation took
    best: float | None  # expected return of the best policy that knows the task, mean over tasks, where it is known
    success: Floats | None  # (tasks, k) share of episodes that succeed; None where nothing reports success
    tuned: bool = False  # whether the rate was chosen on training tasks
    file: Path | None = None  # where it was written

    def mean_success(self) -> Floats | None:
        """(k,) over episodes, then tasks."""
        return None if self.success is None else np.asarray(self.success.mean(0))

    def plot(self) -> "Figure":
        """The adaptation curve, a matplotlib figure: mean return after each step, 95 % intervals over tasks."""
        from maml_rl.pictures import adaptation_curve  # evaluation alone does not need matplotlib

        half = np.zeros_like(self.mean) if self.ci95 is None else self.ci95
        name = self.file.parent.name if self.file else "these parameters"
        points = [(float(mean), float(mean - by), float(mean + by)) for mean, by in zip(self.mean, half, strict=True)]
        return adaptation_curve({name: points}, average="mean")

    def to_json(self) -> str:
        """What evaluation.json holds."""
        fields = asdict(replace(self, file=None))
        del fields["file"]
        return json.dumps(fields, default=lambda array: array.tolist())


def latest_evaluation(run: Path, which: str = "checkpoint", split: str = "in") -> dict[str, Any] | None:
    """The newest evaluation of a run folder, of these parameters on that split, if it has one.

    Raises:
        InputError: A newer file is damaged, or not an evaluation.
    """
    written = [file for file in run.glob("evaluation*.json") if file.stat().st_size]  # not one that is on its way
    for file in sorted(written, key=lambda file: file.stat().st_mtime_ns, reverse=True):
        found = read_evaluation(file)
        if (found.get("which", "checkpoint"), found.get("split", "in")) == (which, split):
            return found
    return None


def read_evaluation(file: Path) -> dict[str, Any]:
    """The content of an evaluation file.

    Raises:
        InputError: It is damaged, or not an evaluation.
    """
    try:
        content = json.loads(file.read_text())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is damaged: {error}; evaluate the run again") from error
    if not isinstance(content, dict):
        raise InputError(f"{file} is not an evaluation of this package")
    return content
