"""What run folders hold, to compare and to draw: configuration, metrics, the newest evaluation."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple

from maml_envs import InputError
from maml_rl import run_folder
from maml_rl.config_file import Kind, of_kind


class Run(NamedTuple, Generic[Kind]):
    """One run folder."""

    name: str  # as it was given
    config: Kind
    metrics: list[dict[str, float]]  # rows of metrics.jsonl
    evaluation: dict[str, Any] | None  # the newest of the kind that was asked for, if there is one
    made_with: dict[str, Any]  # versions and hardware


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


def read_runs(
    folders: Sequence[Path | str], kind: type[Kind], which: str = "checkpoint", split: str = "in"
) -> list[Run[Kind]]:
    """Read run folders of one kind of learning, each once, in their order, with evaluations of one kind.

    Args:
        folders: The run folders.
        kind: Of their configurations.
        which: The parameters whose evaluation counts: "checkpoint", "best" or "initial". A policy that is not trained
            has one kind only.
        split: The held-out tasks of that evaluation: "in" or "out" of the training distribution.

    Raises:
        InputError: There is none, or one that is not of that kind or is damaged.
    """
    if not folders:
        raise InputError("nothing to plot: give one or more run folders")
    found = []
    for folder in dict.fromkeys(map(Path, folders)):
        config = of_kind(run_folder.read_config(folder), kind, str(folder))
        found.append(
            Run(
                str(folder),
                config,
                run_folder.read_metrics(folder),
                latest_evaluation(folder, run_folder.parameters_of(config, which), split),
                run_folder.read_made_with(folder),
            )
        )
    return found


def refuse_untrained(runs: Sequence[Run[Kind]], row: str) -> None:
    """Refuse runs without metrics; ``row`` names a row of them.

    Raises:
        InputError: A run has none yet.
    """
    for run in runs:
        if not run.metrics:
            raise InputError(f"{run.name} has no finished {row} yet: train on with --resume --out {run.name}")
