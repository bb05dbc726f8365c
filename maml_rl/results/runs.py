"""What run folders hold, to compare and to draw: configuration, metrics, the newest evaluation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple

from maml_envs import InputError
from maml_rl.config.base import resumable_keys
from maml_rl.config.rl import Config
from maml_rl.config.toml import Kind, dotted, of_kind
from maml_rl.runs.evaluation import latest_evaluation
from maml_rl.runs.folder import parameters_of, read_config, read_made_with, read_metrics


class Run(NamedTuple, Generic[Kind]):
    """One run folder."""

    name: str  # as it was given
    config: Kind
    metrics: list[dict[str, float]]  # rows of metrics.jsonl
    evaluation: dict[str, Any] | None  # the newest of the kind that was asked for, if there is one
    made_with: dict[str, Any]  # versions and hardware


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
        config = of_kind(read_config(folder), kind, str(folder))
        found.append(
            Run(
                str(folder),
                config,
                read_metrics(folder),
                latest_evaluation(folder, parameters_of(config, which), split),
                read_made_with(folder),
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


METHODS = {"maml": "MAML", "pretrained": "pretrained", "oracle": "oracle", "random": "random"}
"""What each method is called in labels."""


ENVIRONMENT = ("env", "preset", "horizon", "vector")
"""Keys that say what a return is of, but for those of [vector] that are resumable."""


class Group(NamedTuple):
    """Runs that differ in their seed only."""

    label: str  # the shortest that tells it from the other groups
    method: str
    runs: tuple[Run[Config], ...]


def _refuse_other_environments(runs: Sequence[Run[Config]]) -> None:
    def environment(run: Run[Config]) -> str:
        values = run.config.model_dump(include=set(ENVIRONMENT), exclude=resumable_keys(Config))
        return ", ".join(f"{key} = {value!r}" for key, value in dotted(values) if value is not None)

    first = environment(runs[0])
    for run in runs[1:]:
        if environment(run) != first:
            raise InputError(
                f"returns compare only within an environment: {runs[0].name} is of {first}, "
                f"{run.name} of {environment(run)}; give runs of one at a time"
            )


def grouped(runs: Sequence[Run[Config]]) -> list[Group]:
    """Put runs that differ in their seed only together, in the order of their first.

    A group is called by its method, and by the keys in which the groups of that method differ, if there are several.
    Keys in which a resumed run may differ from the one that began tell nothing apart, but for iterations.

    Raises:
        InputError: The runs are of different environments, or one seed of a group is there twice.
    """
    _refuse_other_environments(runs)
    found: dict[tuple[tuple[str, str], ...], list[Run[Config]]] = {}
    same = resumable_keys(Config) | dict.fromkeys(("seed", *ENVIRONMENT), True)
    del same["iterations"]
    for run in runs:
        keys = dotted(run.config.model_dump(exclude=same))
        found.setdefault(tuple((key, _said(value)) for key, value in keys), []).append(run)
    groups = []
    for keys_of, members in found.items():
        _refuse_a_seed_twice(members)
        method = members[0].config.method
        rivals = [dict(other) for other in found if dict(other)["method"] == method]
        differ = [f"{key} = {value}" for key, value in keys_of if any(rival[key] != value for rival in rivals)]
        groups.append(Group(", ".join([METHODS[method], *differ]), method, tuple(members)))
    return groups


def _refuse_a_seed_twice(runs: Sequence[Run[Config]]) -> None:
    names: dict[int, str] = {}
    for run in runs:
        other = names.setdefault(run.config.seed, run.name)
        if other != run.name:
            raise InputError(
                f"{other} and {run.name} are of the same configuration and seed, {run.config.seed}: leave one out"
            )


def _said(value: object) -> str:
    """A value as a TOML file has it."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_said, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
