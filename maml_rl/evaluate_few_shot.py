"""Few-shot evaluation: error or accuracy on held-out tasks after 0, 1, 2, ... gradient steps."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maml_envs import InputError
from maml_envs.user_code import warn_foreign_import
from maml_rl.config.few_shot import FewShotConfig
from maml_rl.config.toml import of_kind, parse, with_evaluation
from maml_rl.core.tree import Params
from maml_rl.machine.device import set_up
from maml_rl.machine.files import free_name, write
from maml_rl.runs import checkpoint
from maml_rl.runs.folder import parameters_of, read_config
from maml_rl.supervised.learner import FewShotLearner, build
from maml_rl.supervised.measures import DIVERGED, adapted_errors, trimmed_mean, tune
from maml_rl.supervised.registry import sizes_of


class FewShotEvaluation(NamedTuple):
    """Held-out tasks after each gradient step. Field by field what evaluation.json holds, but for ``file``."""

    values: dict[str, list[list[float]]]  # [task][k] of each measure: "error", or "accuracy" and "accuracy_one_by_one"
    mean: dict[str, list[float]]  # [k]
    ci95: dict[str, list[float]] | None  # [k] half width over tasks, 1.96 s / sqrt(tasks); None for one task
    median: dict[str, list[float]]  # [k]
    trimmed_mean: dict[str, list[float]]  # [k] without the lowest and the highest 5 % of tasks
    diverged: float  # share of tasks whose error grew without bound; 0 where accuracy is measured
    references: dict[str, float]  # what can be had on the same tasks without meta-learning
    lr: float  # inner rate, or where a learned one starts
    shots: int | None  # None for data of a user's own that do not say
    which: str  # parameters: "checkpoint", "best" or "initial"
    iteration: int  # of training that they had
    file: Path | None = None  # where it was written

    def to_json(self) -> str:
        """What evaluation.json holds."""
        fields = self._asdict()
        del fields["file"]
        return json.dumps(fields)


def summarise(
    values: dict[str, NDArray[np.float64]],
    references: dict[str, float],
    lr: float,
    shots: int | None,
    which: str,
    iteration: int = 0,
) -> FewShotEvaluation:
    """Means, intervals and what stands up to outliers."""
    count = len(next(iter(values.values())))
    # A task that became NaN has diverged: it is the worst, and not unknown.
    values = {name: np.where(np.isnan(each), np.inf, each) for name, each in values.items()}
    error = values.get("error")
    lost = 0.0
    if error is not None:
        lost = float((~(error[:, -1] <= DIVERGED * np.maximum(error[:, 0], 1e-6))).mean())
    with np.errstate(over="ignore", invalid="ignore"):  # of a task that has diverged, nothing is known
        mean = {name: each.mean(0).tolist() for name, each in values.items()}
        ci95 = {name: (1.96 * each.std(0, ddof=1) / count**0.5).tolist() for name, each in values.items() if count > 1}
    return FewShotEvaluation(
        values={name: each.tolist() for name, each in values.items()},
        mean=mean,
        ci95=ci95 or None,
        median={name: np.median(each, 0).tolist() for name, each in values.items()},
        trimmed_mean={name: trimmed_mean(each).tolist() for name, each in values.items()},
        diverged=lost,
        references=references,
        lr=lr,
        shots=shots,
        which=which,
        iteration=iteration,
    )


def load_learner(
    run: Path | str, which: str = "checkpoint", changes: Mapping[str, object] | None = None
) -> tuple[FewShotLearner, Params]:
    """The learner and parameters of a run folder; ``changes`` replace keys of its configuration.

    Raises:
        InputError: There is no such run, it is damaged, not of few-shot learning, or not of the model.
    """
    learner, theta, _ = _load(run, which, changes or {})
    return learner, theta


def _load(run: Path | str, which: str, changes: Mapping[str, object]) -> tuple[FewShotLearner, Params, int]:
    """The same, and the iterations that the parameters come from."""
    path = Path(run)
    config = of_kind(read_config(path), FewShotConfig, str(path))
    which = parameters_of(config, which)
    file = path / f"{'checkpoint' if which == 'initial' else which}.pt"
    saved = checkpoint.load(file)
    warn_foreign_import(config.data, path)
    values = config.model_dump() | dict(changes)
    config = of_kind(parse(values, str(path)), FewShotConfig, str(path))
    set_up(config.device, config.threads)
    learner = build(config)
    return learner, *checkpoint.select_parameters(file, saved, which, learner.initial_params())


def evaluate(
    run: Path | str,
    tasks: int | None = None,
    steps: int | None = None,
    shots: int | None = None,
    which: str = "checkpoint",
    tune_lr: bool | None = None,
) -> FewShotEvaluation:
    """Evaluate a run and write evaluation.json into its folder; a second evaluation gets a number.

    Args:
        run: The run folder.
        tasks: Held-out tasks; None for the configuration's number, as for the next two.
        steps: Gradient steps.
        shots: Support examples (of each class).
        which: "checkpoint" for the last parameters, "best" for those with the lowest training loss, "initial" for
            those before training: with these, learning each task from scratch.
        tune_lr: Take the step size that serves validation tasks best instead of the configuration's; None for where
            method = "pretrained".

    Raises:
        InputError: The run cannot be read, or a number is out of range.
    """
    first = of_kind(read_config(Path(run)), FewShotConfig, str(run))
    which = parameters_of(first, which)
    chosen = with_evaluation(first, f"evaluate {run}", tasks=tasks, steps=steps, shots=shots).evaluation
    warn_foreign_import(first.data, Path(run))
    by_shots = "shots" in sizes_of(first.data)
    if shots is not None and not by_shots:
        raise InputError(
            f"--shots {shots} with data = {first.data!r}: they have the shots that they are made with; what makes "
            "them may take the argument `shots`"
        )
    support = (chosen.shots or first.shots) if by_shots else None
    learner, theta, iteration = _load(run, which, {"shots": support or first.shots})
    if tune_lr and learner.inner.rates.learned:
        raise InputError(f"{run} has learned its rates: there is none to tune")
    tuned = first.method == "pretrained" if tune_lr is None else tune_lr
    lr = tune(learner, theta, chosen.tasks, chosen.steps) if tuned else first.inner.lr
    values = adapted_errors(learner, theta, chosen.tasks, chosen.steps, "test", lr if tuned else None)
    references = learner.data.references(learner.data.held_out_tasks(chosen.tasks))
    result = summarise(values, references, lr, support, which, iteration)
    with free_name(Path(run), "evaluation", ".json") as file:
        write(file, result.to_json())
    return result._replace(file=file)
