"""The command line: each command is a thin layer over a Python call."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.table import Table

from envs import InputError, WorkerError
from maml_rl import config_file
from maml_rl.config import Config
from maml_rl.config_file import AnyConfig
from maml_rl.few_shot_config import FewShotConfig
from maml_rl.flags import (
    CheckEnv,
    CheckEstimators,
    CheckGradients,
    DownloadOmniglot,
    Evaluate,
    Plot,
    Render,
    Train,
    TrainFewShot,
    parse,
    with_config,
)

COMMANDS = """usage: maml-rl COMMAND ...

  train CONFIG [--out RUN] [--resume] [--KEY VALUE ...]   meta-train; writes a run folder
  evaluate RUN [--tasks N] [--steps K]                    return (or error) on held-out tasks after 0 ... K steps
  plot RUN [RUN ...]                                      learning and adaptation curves; paths for navigation
  render RUN [--tasks N] [--steps K]                      a video of held-out tasks before and after adaptation
  envs                                                    the environments
  check-env ENV [--preset P]                              what would break training with a name, module:Class,
                                                          gymnasium:ID or a TOML file's environment
  check-gradients CONFIG [--KEY VALUE ...]                finite differences of your meta-gradient and Fisher product
  check-estimators                                        every estimator against exact meta-gradients
  download-omniglot FOLDER                                the images of the few-shot experiments

CONFIG is a TOML file or one of: {experiments}

`maml-rl COMMAND --help` lists a command's options."""

EXIT_BAD_INPUT, EXIT_CANNOT_TELL = 2, 3


def _few_shot(arguments: Sequence[str | Path]) -> bool:
    """Whether the first run folder among the arguments, which flags may come before, is of few-shot learning."""
    from maml_rl.run_folder import read_config

    runs = [Path(argument) for argument in arguments if (Path(argument) / "config.toml").is_file()]
    return bool(runs) and isinstance(read_config(runs[0]), FewShotConfig)


def train(arguments: Sequence[str]) -> None:
    """``maml-rl train CONFIG ...``."""

    def options(config: AnyConfig) -> Train | TrainFewShot:
        return TrainFewShot(config) if isinstance(config, FewShotConfig) else Train(config)

    chosen = with_config(options, arguments, "train")
    stem = config_file.find(arguments[0]).stem
    out = chosen.out or Path("runs") / f"{stem}-s{chosen.config.seed}"
    if isinstance(chosen, TrainFewShot):
        from maml_rl.supervised.train import meta_train as train_few_shot

        run = train_few_shot(chosen.config, out, chosen.resume)
    else:
        from maml_rl.train import meta_train

        run = meta_train(chosen.config, out, chosen.resume)
    print(f"trained: {run}\nnext:    maml-rl evaluate {run}; maml-rl plot {run}; tensorboard --logdir {run}")


def evaluate(arguments: Sequence[str]) -> None:
    """``maml-rl evaluate RUN ...``."""
    from maml_rl.evaluate import evaluate as run_evaluation
    from maml_rl.published import adaptation
    from maml_rl.run_folder import read_config

    if _few_shot(arguments):
        from maml_rl.supervised.cli import evaluate as evaluate_few_shot

        evaluate_few_shot(arguments)
        return
    chosen = parse(Evaluate, arguments, "evaluate")
    result, path = run_evaluation(chosen.run, chosen.tasks, chosen.steps, chosen.episodes, chosen.split, chosen.which)
    config = config_file.of_kind(read_config(chosen.run), Config, str(chosen.run))
    known = adaptation(config.env, config.preset, config.horizon) if chosen.split == "in" else None
    table = Table(title=f"{chosen.run}: return on {len(result.tasks)} held-out tasks")
    success = result.mean_success()
    more = [*([known.source] if known else []), *(["success"] if success else [])]
    for column in ("gradient steps", "mean return", "95 % interval", *more):
        table.add_column(column, justify="right")
    for k, mean in enumerate(result.mean):
        half = f"± {result.ci95[k]:.2f}" if result.ci95 else ""
        published = [f"{known.returns[k]:.2f}" if k < len(known.returns) else ""] if known else []
        solved = [f"{100 * success[k]:.0f} %"] if success else []
        table.add_row(str(k), f"{mean:.2f}", half, *published, *solved)
    Console().print(table)
    if result.best is not None:
        print(f"best possible, knowing the task: {result.best:.2f}")
    print(f"written: {path}")


def environments(arguments: Sequence[str]) -> None:
    """``maml-rl envs``."""
    from envs import Row, catalogue

    table = Table(*Row._fields, box=None, padding=(0, 1, 0, 0))
    for row in catalogue():
        table.add_row(*row)
    Console().print(table)


def check_env(arguments: Sequence[str]) -> None:
    """``maml-rl check-env ENV``; exits with 1 where training would break."""
    from envs.examine import examine
    from maml_rl.learner import environments

    chosen = parse(CheckEnv, arguments, "check-env")
    named = config_file.load(chosen.env) if chosen.env.endswith(".toml") else Config(env=chosen.env)
    config = config_file.of_kind(named, Config, chosen.env)
    config = config.model_copy(update={"preset": chosen.preset or config.preset})
    broken = False
    for found in examine(lambda: environments(config, copies=1)[0]):
        broken |= found.level == "error"
        print(f"{found.level:<8} {found.subject}: {found.said}{f'. {found.fix}' if found.fix else ''}", flush=True)
    sys.exit(int(broken))


def check_gradients(arguments: Sequence[str]) -> None:
    """``maml-rl check-gradients CONFIG ...``; exits with 1 where they disagree."""
    from maml_rl.check_gradients import TOLERANCE, check_gradients

    def few(config: AnyConfig) -> CheckGradients:
        mine = config_file.of_kind(config, Config, arguments[0])
        return CheckGradients(mine.model_copy(update={"tasks": 2, "episodes": 4}))

    chosen = with_config(few, arguments, "check-gradients")
    rows = check_gradients(chosen.config)
    table = Table(title=f"{chosen.config.env}: derivatives along random directions")
    for column in ("quantity", "direction", "computed", "finite difference", "relative difference"):
        table.add_column(column, justify="left" if column in ("quantity", "direction") else "right")
    for row in rows:
        mark = "" if row.agrees else "  <- differs"
        numbers = (f"{row.computed:.6g}", f"{row.difference:.6g}", f"{row.relative:.1e}{mark}")
        table.add_row(row.quantity, row.direction, *numbers)
    Console().print(table)
    bad = [f"{row.quantity} along {row.direction}" for row in rows if not row.agrees]
    if bad:
        print(f"more than {TOLERANCE:g} apart: {', '.join(bad)}", file=sys.stderr)
        sys.exit(1)


def check_estimators(arguments: Sequence[str]) -> None:
    """``maml-rl check-estimators ...``; exits with 1 where a gradient is not what it should be, 3 if too noisy."""
    from maml_rl.check_estimators import check_estimators, problem

    chosen = parse(CheckEstimators, arguments, "check-estimators")
    random_task = problem(chosen.seed, chosen.states, chosen.actions, chosen.horizon, chosen.lr)
    rows = check_estimators(random_task, chosen.episodes, chosen.repetitions, chosen.seed)
    table = Table(title=f"meta-gradient, {chosen.states} states, {chosen.actions} actions, {chosen.horizon} steps")
    for column in ("estimator", "own value off the exact one", "sampled off its own value", "noise of one", "verdict"):
        table.add_column(column, justify="left" if column == "estimator" else "right")
    for row in rows:
        sampled = f"{100 * row.error:.1f} % ± {100 * row.standard_error:.1f} %"
        table.add_row(row.name, f"{100 * row.bias:.2f} %", sampled, f"{100 * row.noise:.0f} %", row.verdict)
    Console().print(table)
    bad, noisy = ([row.name for row in rows if row.verdict == verdict] for verdict in ("differs", "too noisy"))
    if bad:
        print(f"sampled gradients are not near their own value: {', '.join(bad)}", file=sys.stderr)
    if noisy:
        print(f"too noisy to tell: {', '.join(noisy)}; more --repetitions or --episodes", file=sys.stderr)
    if bad or noisy:
        sys.exit(1 if bad else EXIT_CANNOT_TELL)


def plot(arguments: Sequence[str]) -> None:
    """``maml-rl plot RUN ...``."""
    chosen = parse(Plot, arguments, "plot")
    if _few_shot(chosen.runs):
        from maml_rl.supervised.plot import plot as draw
    else:
        from maml_rl.plot import plot as draw
    for path in draw(chosen.runs, chosen.out):
        print(path)


def render(arguments: Sequence[str]) -> None:
    """``maml-rl render RUN ...``."""
    from maml_rl.render import render as film

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


def download_omniglot(arguments: Sequence[str]) -> None:
    """``maml-rl download-omniglot FOLDER``."""
    from maml_rl.supervised.omniglot import download

    for path in download(parse(DownloadOmniglot, arguments, "download-omniglot").folder):
        print(path)


def _fail(error: Exception) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(EXIT_BAD_INPUT)


def main() -> None:
    """Run a command; exit with 0, 2 for bad input, or 128 + the signal that stopped it."""
    commands: dict[str, Callable[[Sequence[str]], None]] = {
        "train": train,
        "evaluate": evaluate,
        "plot": plot,
        "render": render,
        "envs": environments,
        "check-env": check_env,
        "check-gradients": check_gradients,
        "check-estimators": check_estimators,
        "download-omniglot": download_omniglot,
    }
    usage = COMMANDS.format(experiments=", ".join(config_file.experiments()))
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(usage)
        return
    if name not in commands:
        _fail(InputError(f"there is no command {name!r}\n{usage}"))
    from maml_rl.training import Stopped

    try:
        commands[name](arguments)
    except (InputError, FloatingPointError, OSError) as error:
        _fail(error)
    except WorkerError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(128 + stopped.signum)
    except KeyboardInterrupt:
        sys.exit(130)
