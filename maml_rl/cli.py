"""The command line: each command is a thin layer over a Python call."""

import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.table import Table

from envs import InputError, WorkerError
from maml_rl import config_file
from maml_rl.cli_checks import check_env, check_estimators, check_gradients
from maml_rl.cli_results import compare, evaluate, plot, render, report
from maml_rl.config_file import AnyConfig
from maml_rl.few_shot_config import FewShotConfig
from maml_rl.flags import DownloadOmniglot, Train, TrainFewShot, parse, with_config

COMMANDS = """usage: maml-rl COMMAND ...

  train CONFIG [--out RUN] [--resume] [--KEY VALUE ...]   meta-train; writes a run folder
  evaluate RUN [RUN ...] [--tasks N] [--steps K]          return (or error) on held-out tasks after 0 ... K steps
  compare RUN [RUN ...]                                   evaluated runs side by side, in a table and in words
  plot RUN [RUN ...]                                      curves of learning and adaptation, tasks, paths
  render RUN [--tasks N] [--steps K]                      a film of held-out tasks before and after adaptation
  report RUN [RUN ...]                                    all of it in one HTML page
  envs                                                    the environments
  check-env ENV [--preset P]                              what would break training with a name, module:Class,
                                                          gymnasium:ID or a TOML file's environment
  check-gradients CONFIG [--KEY VALUE ...]                finite differences of your meta-gradient and Fisher product
  check-estimators                                        every estimator against exact meta-gradients
  download-omniglot FOLDER                                the images of the few-shot experiments

CONFIG is a TOML file or one of: {experiments}

`maml-rl COMMAND --help` lists a command's options."""

EXIT_BAD_INPUT = 2


def _to_train(arguments: Sequence[str]) -> tuple[AnyConfig, dict[int, Path], bool]:
    """The configuration, the run folder of each seed, and whether to resume."""

    def options(config: AnyConfig) -> Train | TrainFewShot:
        return TrainFewShot(config) if isinstance(config, FewShotConfig) else Train(config)

    chosen = with_config(options, arguments, "train")
    stem = config_file.find(arguments[0]).stem
    if not chosen.seeds:
        seed = chosen.config.seed
        return chosen.config, {seed: chosen.out or Path("runs") / f"{stem}-s{seed}"}, chosen.resume
    if len(set(chosen.seeds)) < len(chosen.seeds):
        raise InputError(f"--seeds {' '.join(map(str, chosen.seeds))}: give each once")
    outs = {seed: (chosen.out or Path("runs") / stem) / f"s{seed}" for seed in chosen.seeds}
    return chosen.config, outs, chosen.resume


def train(arguments: Sequence[str]) -> None:
    """``maml-rl train CONFIG ...``."""
    from maml_rl import distributed, torchrun

    with torchrun.joined():
        config, outs, resume = distributed.from_main(lambda: _to_train(arguments))
        if isinstance(config, FewShotConfig):
            from maml_rl.supervised.train import meta_train_seeds as train_few_shot

            runs = train_few_shot(config, outs, resume)
        else:
            from maml_rl.train import meta_train_seeds

            runs = meta_train_seeds(config, outs, resume)
    if distributed.is_main():
        which, log = shlex.join(map(str, runs)), runs[0] if len(runs) == 1 else runs[0].parent
        print(f"trained: {which}\nnext:    maml-rl evaluate {which}; maml-rl plot {which}; tensorboard --logdir {log}")


def environments(arguments: Sequence[str]) -> None:
    """``maml-rl envs``."""
    from envs import Row, catalogue

    table = Table(*Row._fields, box=None, padding=(0, 1, 0, 0))
    for row in catalogue():
        table.add_row(*row)
    Console().print(table)


def download_omniglot(arguments: Sequence[str]) -> None:
    """``maml-rl download-omniglot FOLDER``."""
    from maml_rl.supervised.omniglot import download

    for path in download(parse(DownloadOmniglot, arguments, "download-omniglot").folder):
        print(path)


def _fail(error: Exception, code: int = EXIT_BAD_INPUT, speaks: bool = True) -> NoReturn:
    if speaks:
        print("\n".join([f"error: {error}", *getattr(error, "__notes__", [])]), file=sys.stderr)
    sys.exit(code)


def main() -> None:
    """Run a command; exit with 0, 2 for bad input, or 128 + the signal that stopped it.

    Of torchrun's ranks, 0 says what all have to say and exits with its code. The others then exit with 0, as torchrun
    would end rank 0 in the middle of that if they failed first.
    """
    commands: dict[str, Callable[[Sequence[str]], None]] = {
        "train": train,
        "evaluate": evaluate,
        "plot": plot,
        "render": render,
        "compare": compare,
        "report": report,
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
    from maml_rl.distributed import Echo, is_main
    from maml_rl.training import Stopped

    try:
        commands[name](arguments)
    except (InputError, FloatingPointError, OSError) as error:
        _fail(error)
    except WorkerError as error:  # every rank may miss one that is gone
        _fail(error, 1, is_main())
    except Echo:
        return
    except Stopped as stopped:
        if is_main():
            print(stopped, file=sys.stderr)
            sys.exit(128 + stopped.signum)
    except KeyboardInterrupt as interrupt:  # training says by which signal
        sys.exit(128 + (interrupt.args[0] if interrupt.args else signal.SIGINT))
