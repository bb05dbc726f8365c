"""One HTML page of some runs, with everything in it: it opens without a network, and can be sent to somebody."""

import base64
import json
import shlex
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import jinja2

from maml_envs import InputError
from maml_rl.config.base import METHODS
from maml_rl.config.rl import Config
from maml_rl.config.toml import dotted
from maml_rl.machine.files import free_name, write
from maml_rl.pictures import png
from maml_rl.pictures.curves import seconds
from maml_rl.results.comparison import comparisons
from maml_rl.results.film import render
from maml_rl.results.plot import CAPTIONS, FEW_SHOT_CAPTIONS, Results, draw, gather
from maml_rl.results.runs import Group, Run
from maml_rl.results.sentences import sentences
from maml_rl.results.table import Table, clock, count, wide_table
from maml_rl.runs.evaluation import Evaluation

FILM = "held-out tasks, one a row, before adaptation and after each gradient step."

RETURNS_NOTE = "Returns are undiscounted sums over an episode. "

TABLE_NOTE = (
    "The oracle is told the task, random is a policy that was not trained, and pretrained adapts at the best of five "
    "rates, tried on training tasks. "
    "Mean return over held-out tasks and seeds. The normalised score is 0 for random parameters after as many steps "
    "and 1 for the oracle before any; the gap closed is the share of the way from the return before adaptation to the "
    "oracle's. Environment steps and wall clock are those of training, a seed's mean."
)

FEW_SHOT_NOTE = (
    "Random is a model that was not trained, and pretrained adapts at the rate that serves validation tasks best. Mean "
    "over held-out tasks and seeds; the trimmed mean leaves out 5 % of the tasks at each end. A task has diverged if "
    "its error ends ten times as large as it began. Iterations and wall clock are those of training, a seed's mean."
)

PARTS = {"sampling": "sampling", "inner": "inner step", "outer": "outer step"}
"""What the wall clock of an iteration is made of, in metrics and on the page."""

OTHER_EVALUATIONS = {
    "Parameters that were best in training": ("best", "in"),
    "Tasks beyond the training distribution": ("checkpoint", "out"),
    "Validation tasks": ("checkpoint", "validation"),
}


class Embedded(NamedTuple):
    """A file in the page."""

    content: bytes
    caption: str

    @property
    def data(self) -> str:
        """Return it as text."""
        return base64.b64encode(self.content).decode()


def _configurations(runs: Sequence[Run]) -> tuple[dict[str, list[str]], str]:
    """The keys in which runs differ, with the value of texts, and the lines that they share."""
    tables = [dotted(run.config.model_dump(mode="json", exclude_none=True)) for run in runs]
    # JSON writes these kinds of value as TOML does.
    texts = [{key: json.dumps(value, ensure_ascii=False) for key, value in table} for table in tables]
    keys = dict.fromkeys(key for values in texts for key in values)
    columns = {key: [values.get(key, "") for values in texts] for key in keys}
    differ = {key: values for key, values in columns.items() if len(set(values)) > 1}
    return differ, "\n".join(f"{key} = {values[0]}" for key, values in columns.items() if key not in differ)


def _clock(groups: Sequence[Group]) -> Table:
    """Return the wall clock of a seed of each group that was trained, by its parts where metrics have them."""
    is_rl = isinstance(groups[0].runs[0].config, Config)
    parts = PARTS if is_rl else {}
    rows = []
    for group in groups:
        runs = [run for run in group.runs if run.metrics]
        if runs:
            spent = [sum(float(seconds(run.metrics, part).sum()) for run in runs) / len(runs) for part in ("", *parts)]
            shares = [f"{clock(part)} ({100 * part / spent[0]:.0f} %)" for part in spent[1:]]
            done = sum(run.metrics[-1]["env_steps"] if is_rl else _iterations(run) for run in runs) / len(runs)
            rows.append((group.label, *shares, clock(spent[0]), count(done / spent[0])))
    header = ("", *parts.values(), "together", f"{'environment steps' if is_rl else 'iterations'} a second")
    return Table(header, tuple(rows))


def _iterations(run: Run) -> int:
    return len(run.metrics) * int(getattr(run.config, "log_every", 1))


def _runs(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for run in runs:
        made = run.made_with
        machine = made.get("machine", {})
        gpu = f", {machine['gpu']}" if "gpu" in machine else ""
        threads = machine.get("threads", "?")
        about = f"{machine.get('platform', 'unknown')}, {threads} thread{'s' * (threads != 1)}{gpu}"
        packages = ", ".join(f"{name} {version}" for name, version in made.get("packages", {}).items())
        done = str(_iterations(run))
        rows.append((run.name, str(run.config.seed), done, about, str(made.get("git_commit", ""))[:10], packages))
    return rows


def _evaluate(run: Run, evaluation: Evaluation) -> str:
    """Write the command that made an evaluation."""
    if isinstance(run.config, Config):
        flags: dict[str, object] = {"tasks": len(evaluation.returns), "episodes": evaluation.returns.shape[2]}
    else:
        flags = {"tasks": len(evaluation.per_task), **({} if evaluation.shots is None else {"shots": evaluation.shots})}
    flags |= {"steps": evaluation.steps} | ({"split": evaluation.split} if isinstance(run.config, Config) else {})
    flags |= {"which": evaluation.which, "tune-lr": str(evaluation.tuned).lower()}
    return " ".join(["maml-rl evaluate", shlex.quote(run.name), *(f"--{key} {value}" for key, value in flags.items())])


def _commands(runs: Sequence[Run]) -> str:
    lines = []
    for run in runs:
        lines.append(str(run.made_with.get("command") or f"# {run.name} was trained from Python"))
        evaluation = run.evaluation()
        lines += [_evaluate(run, evaluation)] if evaluation else []
    return "\n".join([*dict.fromkeys(lines), shlex.join(["maml-rl", "report", *(run.name for run in runs)])])


def _tables(results: Results) -> tuple[list[tuple[str, Table]], list[str]]:
    """Return tables of the last parameters and, where these compare, of others and beyond the distribution; why not."""
    tables, missing = [("", wide_table(comparison)) for comparison in results.comparisons], []
    trained = [run for run in results.runs if METHODS[run.config.method].trains]
    for heading, (which, split) in OTHER_EVALUATIONS.items():
        if any(run.evaluation(which, split) for run in trained):
            try:
                tables += [(heading, wide_table(one)) for one in comparisons(results.groups, which, split)]
            except InputError as error:
                missing.append(f"{heading}: {error}")
    return tables, missing


def _films(groups: Sequence[Group], draw: bool) -> tuple[list[Embedded], list[str]]:
    """The newest film of the first run of each meta-trained group, made if there is none; and what went wrong."""
    shown, missing = [], []
    for group in groups:
        if not (METHODS[group.method].adapts and isinstance(group.runs[0].config, Config)):
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
            shown.append(Embedded(files[-1].read_bytes(), f"{group.label}, seed {group.runs[0].config.seed}: {FILM}"))
    return shown, missing


def _subtitle(results: Results) -> str:
    config, count = results.runs[0].config, len(results.runs)
    if isinstance(config, Config):
        parts = [config.env, f"preset {config.preset}", f"{config.horizon} steps"]
    else:
        shots = dict.fromkeys(evaluation.shots for run in results.runs if (evaluation := run.evaluation()))
        parts = [config.data, *(f"evaluated with {number} shots" for number in shots if number)]
    return ", ".join([*parts, f"{count} run{'s' * (count > 1)}"])


def report(runs: Sequence[Path | str], out: Path | str | None = None, films: bool = True) -> Path:
    """Write one HTML page about runs of one environment, or of the same data.

    It has words, tables, figures, configurations and commands, and of meta-RL films.

    Args:
        runs: Run folders; methods and seeds are put together as ``maml_rl.results.plot`` does.
        out: The file; None for report.html in the first run, or a numbered one.
        films: Film the first run of each meta-trained group, if it has no film yet.

    Returns:
        The page.

    Raises:
        InputError: A folder is not a run or has nothing to draw, the runs do not compare, or the file is there already.
    """
    results = gather(runs)
    if out and Path(out).exists():
        raise InputError(f"{out} is there already: give another --out, or remove it")
    drawn, first = draw(results), results.runs[0]
    is_rl = isinstance(first.config, Config)
    captions = CAPTIONS if is_rl else FEW_SHOT_CAPTIONS
    shown, missing = _films(results.groups, films)
    tables, others = _tables(results)
    differences, shared = _configurations(results.runs)
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        (Path(__file__).parent / "report.html").read_text()
    )
    subtitle = _subtitle(results)
    text = page.render(
        title=f"{subtitle.partition(',')[0]}: {', '.join(group.label for group in results.groups)}",
        subtitle=subtitle,
        words=sentences(results.comparisons[0]) if results.comparisons else [],
        words_note=RETURNS_NOTE if is_rl else "",
        missing=[*results.missing, *missing, *others],
        tables=tables,
        table_note=TABLE_NOTE if is_rl else FEW_SHOT_NOTE,
        films=shown,
        figures=[Embedded(png(drawn[name], dpi=200), caption) for name, caption in captions.items() if name in drawn],
        clock=_clock(results.groups),
        runs=_runs(results.runs),
        names=[Path(run.name).name for run in results.runs],
        differences=differences,
        shared=shared,
        commands=_commands(results.runs),
    )
    with nullcontext(Path(out)) if out else free_name(Path(first.name), "report", ".html") as target:
        target.parent.mkdir(parents=True, exist_ok=True)
        write(target, text)
    return target
