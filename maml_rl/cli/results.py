"""The commands that look at run folders: evaluate, compare, plot, render, report."""

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from maml_envs import InputError
from maml_rl.cli.parse import Compare, Evaluate, Plot, Render, Report, parse
from maml_rl.config.few_shot import FewShotConfig


def _few_shot(arguments: Sequence[str | Path]) -> bool:
    """Whether the first run folder among the arguments, which flags may come before, is of few-shot learning."""
    from maml_rl.runs.folder import read_config

    runs = [Path(argument) for argument in arguments if (Path(argument) / "config.toml").is_file()]
    return bool(runs) and isinstance(read_config(runs[0]), FewShotConfig)


def _refuse_none(runs: Sequence[Path], command: str) -> None:
    if not runs:
        raise InputError(f"which run? maml-rl {command} RUN [RUN ...], the folders that training wrote")


def evaluate(arguments: Sequence[str]) -> None:
    """``maml-rl evaluate RUN ...``."""
    if _few_shot(arguments):
        from maml_rl.cli.few_shot import evaluate as evaluate_few_shot

        few_shot = evaluate_few_shot(arguments)
        if len(few_shot.runs) > 1:
            print_comparison(few_shot.runs, few_shot.which)
        return
    chosen = parse(Evaluate, arguments, "evaluate")
    _refuse_none(chosen.runs, "evaluate")
    for run in chosen.runs:
        _evaluate(run, chosen)
    if len(chosen.runs) > 1:
        print_comparison(chosen.runs, chosen.which, chosen.split)


def _evaluate(run: Path, chosen: Evaluate) -> None:
    from maml_rl.evaluate import evaluate as run_evaluation
    from maml_rl.results.published import published
    from maml_rl.runs.folder import read_config

    result = run_evaluation(
        run, chosen.tasks, chosen.steps, chosen.episodes, chosen.split, chosen.which, chosen.tune_lr
    )
    config = read_config(run)
    found = published(config, result, "return")
    known = found.of(config.method) if found else ()
    table = Table(title=f"{run}: return on {len(result.returns)} held-out tasks")
    success = result.mean_success()
    more = [*([found.source] if found and known else []), *([] if success is None else ["success"])]
    for column in ("gradient steps", "mean return", "95 % interval", *more):
        table.add_column(column, justify="right")
    for k, mean in enumerate(result.mean):
        half = "" if result.ci95 is None else f"± {result.ci95[k]:.2f}"
        theirs = [f"{known[k]:.2f}" if k < len(known) else ""] if known else []
        solved = [] if success is None else [f"{100 * success[k]:.0f} %"]
        table.add_row(str(k), f"{mean:.2f}", half, *theirs, *solved)
    Console().print(table)
    if result.best is not None:
        print(f"best possible, knowing the task: {result.best:.2f}")
    if result.tuned:
        print(f"inner rate of the first step: {result.lr[0]:g}, chosen on training tasks")
    print(f"written: {result.file}")


def print_comparison(runs: Sequence[Path], which: str, split: str = "in", markdown: bool = False) -> None:
    """Print evaluated runs side by side, in a table for each measure and in words."""
    from maml_rl.results.comparison import comparisons
    from maml_rl.results.runs import grouped, read_runs
    from maml_rl.results.sentences import sentences
    from maml_rl.results.table import long_table, wide_table
    from maml_rl.runs.measures import MEASURES

    found = comparisons(grouped(read_runs(runs)), which, split)
    if markdown:
        print("\n\n".join(wide_table(comparison).markdown() for comparison in found))
        return
    of = {"checkpoint": "", "best": ", best parameters", "initial": ", before training"}[which]
    beyond = " beyond the training distribution" if split == "out" else ""
    for comparison in found:
        label = MEASURES[comparison.measure].label
        title = f"{comparison.subject}: {label} on {comparison.tasks} held-out tasks{beyond}{of}, 95 % intervals"
        long_table(comparison).show(title)
    for sentence in sentences(found[0]):
        print(f"- {sentence}")


def compare(arguments: Sequence[str]) -> None:
    """``maml-rl compare RUN ...``."""
    chosen = parse(Compare, arguments, "compare")
    _refuse_none(chosen.runs, "compare")
    print_comparison(chosen.runs, chosen.which, chosen.split, chosen.markdown)


def plot(arguments: Sequence[str]) -> None:
    """``maml-rl plot RUN ...``."""
    from maml_rl.results.plot import plot as draw

    chosen = parse(Plot, arguments, "plot")
    drawn = draw(chosen.runs, chosen.out)
    print(*drawn.files, sep="\n")
    if drawn.missing:
        print(*drawn.missing, sep="\n", file=sys.stderr)


def render(arguments: Sequence[str]) -> None:
    """``maml-rl render RUN ...``."""
    from maml_rl.results.film import render as film

    chosen = parse(Render, arguments, "render")
    if _few_shot([chosen.run]):
        raise InputError(f"{chosen.run} is few-shot learning, which has no episodes to film: use maml-rl plot")
    paths = film(
        chosen.run,
        chosen.steps,
        chosen.tasks,
        chosen.episodes,
        chosen.split,
        chosen.which,
        chosen.out,
        chosen.fps,
    )
    for path in paths:
        print(path)


def report(arguments: Sequence[str]) -> None:
    """``maml-rl report RUN ...``."""
    from maml_rl.results.report import report as write

    chosen = parse(Report, arguments, "report")
    _refuse_none(chosen.runs, "report")
    print(write(chosen.runs, chosen.out, chosen.films))
