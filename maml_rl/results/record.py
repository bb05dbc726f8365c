"""Environment steps and seconds until runs reached a score, from their own metrics."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from maml_envs import InputError
from maml_rl.config.rl import Config
from maml_rl.results.runs import Run, read_runs
from maml_rl.runs.ending import LAST, lately

PARTS = ("seconds/sampling", "seconds/inner", "seconds/outer")
"""The time of training; evaluations in it are not counted."""


class Moment(NamedTuple):
    """When a run reached a score."""

    env_steps: float
    seconds: float


def moment(rows: Sequence[dict[str, float]], at: float, key: str) -> Moment | None:
    """Return the first moment at which the mean of three evaluations was ``at`` or more; None where there is none.

    Args:
        rows: Metrics, one row an iteration, some of them with an evaluation.
        at: The score.
        key: Of the evaluation, such as "evaluation/1": fresh episodes of held-out tasks after one gradient step.
    """
    seen: list[float] = []
    seconds = 0.0
    for row in rows:
        seconds += sum(row.get(part, 0.0) for part in PARTS)
        if key in row:
            seen.append(row[key])
            if lately(seen) >= at:
                return Moment(row["env_steps"], seconds)
    return None


def record_table(folders: Sequence[Path], targets: Sequence[float], steps: int) -> str:
    """Return a table in Markdown: a row for each run, how soon it reached each score after ``steps`` gradient steps.

    "Last three" is the mean of the last three evaluations, "unit" the policy's ``action_scale``, "load" the machine's
    in the minute before.
    """
    runs = read_runs(folders)
    header = ["seed"]
    for target in targets:
        header += [f"to {target:g}", "seconds"]
    header += ["steps in all", "last three", "unit", "date", "commit", "threads", "load"]
    lines = [header, ["---"] * len(header)]
    found: list[list[Moment | None]] = []
    for run in runs:
        if not isinstance(run.config, Config) or not any(f"evaluation/{steps}" in row for row in run.metrics):
            raise InputError(f"{run.name} was not evaluated after {steps} steps in training: give evaluation.every")
        found.append([moment(run.metrics, target, f"evaluation/{steps}") for target in targets])
        lines.append([str(run.config.seed), *_cells(found[-1]), *_made(run, steps)])
    means = [_mean([moments[k] for moments in found]) for k in range(len(targets))]
    lines.append(["mean", *_cells(means), *[""] * 7])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(moments: Sequence[Moment | None]) -> list[str]:
    cells = []
    for each in moments:
        cells += ["never", ""] if each is None else [f"{each.env_steps / 1e6:.2f} M", f"{each.seconds:.0f}"]
    return cells


def _mean(moments: Sequence[Moment | None]) -> Moment | None:
    reached = [each for each in moments if each is not None]
    if len(reached) < len(moments):
        return None
    return Moment(*(sum(values) / len(reached) for values in zip(*reached, strict=True)))


def _made(run: Run, steps: int) -> list[str]:
    assert isinstance(run.config, Config)
    machine = run.made_with.get("machine", {})
    last = [row[f"evaluation/{steps}"] for row in run.metrics if f"evaluation/{steps}" in row][-LAST:]
    return [
        f"{run.metrics[-1]['env_steps'] / 1e6:.1f} M",
        f"{sum(last) / len(last):.0f}",
        f"{run.config.policy.action_scale:g}",
        str(run.made_with.get("date", "")),
        str(run.made_with.get("git_commit", ""))[:7],
        str(machine.get("threads", "?")),
        str(machine.get("load", "?")),
    ]
