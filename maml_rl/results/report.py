"""One HTML page of some runs, with everything in it: it opens without a network, and can be sent to somebody."""

import base64
import json
import shlex
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import jinja2

from maml_envs import InputError
from maml_rl.config.rl import Config
from maml_rl.config.toml import dotted
from maml_rl.machine.files import free_name, write
from maml_rl.results.comparison import Comparison, compare_groups, seconds
from maml_rl.results.film import render
from maml_rl.results.plot import plot
from maml_rl.results.runs import Group, Run, grouped, read_runs
from maml_rl.results.sentences import sentences
from maml_rl.results.table import Table, clock, count, tabulate

CAPTIONS = {
    "learning_curve": "Return in training before and after adaptation, over environment steps and wall clock.",
    "adaptation_curve": "Return on held-out tasks after each gradient step.",
    "before_after": "Every held-out task: its return before and after one step; below the diagonal it became worse.",
    "return_by_task": "Return over what the task asks for, before and after adaptation.",
    "paths": "Paths on held-out goals before and after adaptation.",
    "optimisation": "How the outer optimisation went.",
}
"""What the figures of ``plot`` show, in the order of the page."""

FILM = "held-out tasks, one a row, before adaptation and after each gradient step."

TABLE_NOTE = (
    "The oracle is told the task, random is a policy that was not trained, and pretrained adapts at the best of five "
    "rates, tried on training tasks. "
    "Mean return over held-out tasks and seeds. The normalised score is 0 for random parameters after as many steps "
    "and 1 for the oracle before any; the gap closed is the share of the way from the return before adaptation to the "
    "oracle's. Environment steps and wall clock are those of training, a seed's mean."
)


OTHER_EVALUATIONS = {
    "Parameters with the best training return": ("best", "in"),
    "Tasks beyond the training distribution": ("checkpoint", "out"),
}


class Embedded(NamedTuple):
    """A file as text in the page."""

    data: str
    caption: str


def _embed(file: Path, caption: str) -> Embedded:
    return Embedded(base64.b64encode(file.read_bytes()).decode(), caption)


def _configurations(runs: Sequence[Run[Config]]) -> tuple[dict[str, list[str]], str]:
    """The keys in which runs differ, with the value of each, and the lines that they share."""
    tables = [dotted(run.config.model_dump(mode="json", exclude_none=True)) for run in runs]
    # JSON writes these kinds of value as TOML does.
    each = [{key: json.dumps(value, ensure_ascii=False) for key, value in table} for table in tables]
    keys = dict.fromkeys(key for values in each for key in values)
    columns = {key: [values.get(key, "") for values in each] for key in keys}
    differ = {key: values for key, values in columns.items() if len(set(values)) > 1}
    return differ, "\n".join(f"{key} = {values[0]}" for key, values in columns.items() if key not in differ)


def _clock(groups: Sequence[Group]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for group in groups:
        trained = [run.metrics for run in group.runs if run.metrics]
        if trained:
            parts = [
                sum(row[f"seconds/{part}"] for metrics in trained for row in metrics) / len(trained)
                for part in ("sampling", "inner", "outer")
            ]
            together = sum(float(seconds(metrics).sum()) for metrics in trained)
            rate = sum(metrics[-1]["env_steps"] for metrics in trained) / together
            shares = (f"{clock(part)} ({100 * part / sum(parts):.0f} %)" for part in parts)
            rows.append((group.label, *shares, clock(sum(parts)), count(rate)))
    return rows


def _runs(runs: Sequence[Run[Config]]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for run in runs:
        made = run.made_with
        machine = made.get("machine", {})
        gpu = f", {machine['gpu']}" if "gpu" in machine else ""
        threads = machine.get("threads", "?")
        about = f"{machine.get('platform', 'unknown')}, {threads} thread{'s' * (threads != 1)}{gpu}"
        packages = ", ".join(f"{name} {version}" for name, version in made.get("packages", {}).items())
        done = str(len(run.metrics))
        rows.append((run.name, str(run.config.seed), done, about, str(made.get("git_commit", ""))[:10], packages))
    return rows


def _commands(runs: Sequence[Run[Config]]) -> str:
    lines = []
    for run in runs:
        lines.append(str(run.made_with.get("command") or f"# {run.name} was trained from Python"))
        if run.evaluation:
            found = run.evaluation
            lines.append(
                f"maml-rl evaluate {shlex.quote(run.name)} --tasks {len(found['tasks'])} "
                f"--episodes {len(found['returns'][0][0])} "
                f"--steps {found['steps']} --split {found['split']} --which {found.get('which', 'checkpoint')} "
                f"--tune-lr {str(found.get('tuned', False)).lower()}"
            )
    return "\n".join([*lines, shlex.join(["maml-rl", "report", *(run.name for run in runs)])])


def _tables(runs: Sequence[Path | str], comparison: Comparison | None) -> tuple[list[tuple[str, Table]], list[str]]:
    """Of the last parameters; of the best ones and beyond the distribution where these compare; and why not."""
    tables, missing = [("", tabulate(comparison))] if comparison else [], []
    for heading, (which, split) in OTHER_EVALUATIONS.items():
        groups = grouped(read_runs(runs, Config, which, split))
        if any(run.evaluation for group in groups if group.method != "random" for run in group.runs):
            try:
                tables.append((heading, tabulate(compare_groups(groups))))
            except InputError as error:
                missing.append(f"{heading}: {error}")
    return tables, missing


def _films(groups: Sequence[Group], draw: bool) -> tuple[list[Embedded], list[str]]:
    """The newest film of the first run of each meta-trained group, made if there is none; and what went wrong."""
    shown, missing = [], []
    for group in groups:
        if group.method != "maml":
            continue
        run = Path(group.runs[0].name)
        # Not those of other parameters or another split: adaptation-best.mp4.
        files = sorted(run.glob("videos/adaptation*.mp4"), key=lambda file: file.stat().st_mtime_ns)
        files = [file for file in files if "-" not in file.stem]
        if not files and draw:
            try:
                files = [file for file in render(run) if file.suffix == ".mp4"]
            except InputError as error:
                missing.append(f"no film of {run}: {error}")
        if files:
            shown.append(_embed(files[-1], f"{group.label}, seed {group.runs[0].config.seed}: {FILM}"))
    return shown, missing


def report(runs: Sequence[Path | str], out: Path | str | None = None, films: bool = True) -> Path:
    """Write one HTML page about runs of one environment: words, tables, figures, videos, configurations, commands.

    Args:
        runs: Run folders; methods and seeds are put together as ``maml_rl.results.plot`` does.
        out: The file; None for report.html in the first run, or a numbered one.
        films: Film the first run of each meta-trained group, if it has no film yet.

    Returns:
        The page.

    Raises:
        InputError: A folder is not a run or has nothing to draw, the runs do not compare, or the file is there already.
    """
    found = read_runs(runs, Config)
    if out and Path(out).exists():
        raise InputError(f"{out} is there already: give another --out, or remove it")
    groups = grouped(found)
    with tempfile.TemporaryDirectory() as folder:
        pictures = plot(runs, folder)
        drawn = {file.stem: file for file in pictures.files}
        figures = [_embed(drawn[name], caption) for name, caption in CAPTIONS.items() if name in drawn]
    comparison = pictures.comparison
    shown, missing = _films(groups, films)
    tables, others = _tables(runs, comparison)
    differences, shared = _configurations(found)
    config = found[0].config
    parts = [
        config.env,
        f"preset {config.preset}",
        f"{config.horizon} steps",
        f"{len(found)} run{'s' * (len(found) > 1)}",
    ]
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        (Path(__file__).parent / "report.html").read_text()
    )
    text = page.render(
        title=f"{config.env}: {', '.join(group.label for group in groups)}",
        subtitle=", ".join(parts),
        words=sentences(comparison, groups) if comparison else [],
        missing=[*pictures.missing, *missing, *others],
        tables=tables,
        table_note=TABLE_NOTE,
        films=shown,
        figures=figures,
        clock=_clock(groups),
        runs=_runs(found),
        names=[Path(run.name).name for run in found],
        differences=differences,
        shared=shared,
        commands=_commands(found),
    )
    with nullcontext(Path(out)) if out else free_name(Path(found[0].name), "report", ".html") as target:
        target.parent.mkdir(parents=True, exist_ok=True)
        write(target, text)
    return target
