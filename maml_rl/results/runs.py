"""Run folders, read to compare and to draw, and grouped where they differ in their seed only."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from maml_envs import InputError
from maml_rl.config.base import METHODS, resumable_keys
from maml_rl.config.rl import Config
from maml_rl.config.toml import AnyConfig, dotted, of_kind
from maml_rl.runs.evaluation import Evaluation, evaluations, latest
from maml_rl.runs.folder import parameters_of, read_config, read_made_with, read_metrics


class Run(NamedTuple):
    """One run folder."""

    name: str  # as it was given
    config: AnyConfig
    metrics: list[dict[str, float]]  # rows of metrics.jsonl
    evaluations: tuple[Evaluation, ...]  # the newest first
    made_with: dict[str, Any]  # versions and hardware

    def evaluation(self, which: str = "checkpoint", split: str = "in") -> Evaluation | None:
        """Return the newest evaluation of these parameters on that split, if there is one.

        A policy that is not trained has one kind of parameters, which counts for any.
        """
        return latest(self.evaluations, parameters_of(self.config, which), split)


def read_runs(folders: Sequence[Path | str]) -> list[Run]:
    """Read run folders of one kind of learning, each once, in their order.

    Raises:
        InputError: There is none, or one that is damaged or of another kind than the first.
    """
    if not folders:
        raise InputError("nothing to plot: give one or more run folders")
    runs: list[Run] = []
    for folder in dict.fromkeys(map(Path, folders)):
        config = read_config(folder)
        of_kind(config, type(runs[0].config if runs else config), str(folder))
        runs.append(Run(str(folder), config, read_metrics(folder), evaluations(folder), read_made_with(folder)))
    return runs


def refuse_untrained(runs: Sequence[Run], row: str) -> None:
    """Refuse runs without metrics; ``row`` names a row of them.

    Raises:
        InputError: A run has none yet.
    """
    for run in runs:
        if not run.metrics:
            raise InputError(f"{run.name} has no finished {row} yet: train on with --resume --out {run.name}")


SUBJECT = ("env", "preset", "horizon", "vector", "data", "ways")
"""Keys that say what a return, an error or an accuracy is of, but for those in which a resumed run may differ."""


class Group(NamedTuple):
    """Runs that differ in their seed only."""

    label: str  # the shortest that tells it from the other groups
    method: str  # of METHODS
    runs: tuple[Run, ...]


def _subject(run: Run) -> str:
    values = run.config.model_dump(include=set(SUBJECT), exclude=resumable_keys(type(run.config)))
    return ", ".join(f"{key} = {value!r}" for key, value in dotted(values) if value is not None)


def grouped(runs: Sequence[Run]) -> list[Group]:
    """Put runs that differ in their seed only together, in the order of their first.

    A group is called by its method, and by the keys in which the groups of that method differ, if there are several.
    Keys in which a resumed run may differ from the one that began tell nothing apart, but for iterations.

    Raises:
        InputError: The runs are of different environments or data, or one seed of a group is there twice.
    """
    for run in runs[1:]:
        if _subject(run) != _subject(runs[0]):
            what, within = (
                ("returns", "an environment") if isinstance(run.config, Config) else ("errors", "the same data")
            )
            raise InputError(
                f"{what} compare only within {within}: {runs[0].name} is of {_subject(runs[0])}, "
                f"{run.name} of {_subject(run)}; give runs of one at a time"
            )
    by_keys: dict[tuple[tuple[str, str], ...], list[Run]] = {}
    for run in runs:
        same = resumable_keys(type(run.config)) | dict.fromkeys(("seed", *SUBJECT), True)
        del same["iterations"]
        keys = dotted(run.config.model_dump(exclude=same))
        by_keys.setdefault(tuple((key, _in_toml(value)) for key, value in keys), []).append(run)
    groups = []
    for keys_of, members in by_keys.items():
        _refuse_a_seed_twice(members)
        method = members[0].config.method
        rivals = [dict(other) for other in by_keys if dict(other)["method"] == method]
        differ = [f"{key} = {value}" for key, value in keys_of if any(rival[key] != value for rival in rivals)]
        groups.append(Group(", ".join([METHODS[method].label, *differ]), method, tuple(members)))
    return groups


def _refuse_a_seed_twice(runs: Sequence[Run]) -> None:
    names: dict[int, str] = {}
    for run in runs:
        other = names.setdefault(run.config.seed, run.name)
        if other != run.name:
            raise InputError(
                f"{other} and {run.name} are of the same configuration and seed, {run.config.seed}: leave one out"
            )


def _in_toml(value: object) -> str:
    """Write a value as a TOML file has it."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_in_toml, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
