"""The command line: each command is a thin layer over a Python call."""

import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.table import Table

from maml_envs import InputError, WorkerError
from maml_rl.cli.checks import check_env, check_estimators, check_gradients
from maml_rl.cli.parse import DownloadOmniglot, Train, TrainFewShot, parse, with_config
from maml_rl.cli.results import compare, evaluate, plot, render, report
from maml_rl.config import toml
from maml_rl.config.few_shot import FewShotConfig
from maml_rl.config.toml import AnyConfig

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
FOLLOWS_AFTER_S = 5


def _to_train(arguments: Sequence[str]) -> tuple[AnyConfig, Path | dict[int, Path], bool]:
    """The configuration, the run folder, or that of each of several seeds, and whether to resume."""

    def options(config: AnyConfig) -> Train | TrainFewShot:
        return TrainFewShot(config=config) if isinstance(config, FewShotConfig) else Train(config=config)

    chosen = with_config(options, arguments, "train")
    stem = toml.find(arguments[0]).stem
    if chosen.seeds is None:
        return chosen.config, chosen.out or Path("runs") / f"{stem}-s{chosen.config.seed}", chosen.resume
    flags = [argument.split("=")[0] for argument in arguments]
    if not chosen.seeds or len(set(chosen.seeds)) < len(chosen.seeds):
        raise InputError(" ".join(["--seeds", *map(str, chosen.seeds)]) + ": give one or more, each once")
    if flags.count("--seed") + flags.count("--seeds") > 1:
        raise InputError("give --seeds once, and then no --seed: --seeds 1 2 3")
    out = chosen.out or Path("runs") / stem
    return chosen.config, {seed: out / f"s{seed}" for seed in chosen.seeds}, chosen.resume


def train(arguments: Sequence[str]) -> None:
    """``maml-rl train CONFIG ...``."""
    from maml_rl.machine import launch, ranks

    with launch.joined():
        config, out, resume = ranks.from_main(lambda: _to_train(arguments))
        kind = import_module("maml_rl.train_few_shot" if isinstance(config, FewShotConfig) else "maml_rl.train")
        if isinstance(out, Path):
            which = log = shlex.quote(str(kind.meta_train(config, out, resume)))
        else:
            runs = kind.meta_train_seeds(config, out, resume)
            which, log = shlex.join(map(str, runs)), shlex.quote(str(runs[0].parent))
    if ranks.is_main():
        print(f"trained: {which}\nnext:    maml-rl evaluate {which}; maml-rl plot {which}; tensorboard --logdir {log}")


def environments(arguments: Sequence[str]) -> None:
    """``maml-rl envs``."""
    from maml_envs.catalogue import Preset, catalogue

    table = Table(*Preset._fields, box=None, padding=(0, 1, 0, 0))
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


def _follow(code: int) -> NoReturn:
    """Fail after rank 0: torchrun takes the first failure for the cause, and ends the other ranks of the machine.

    Its agents on other machines do not hear of it, and would take a rank that exits with 0 for one that is done.
    """
    time.sleep(FOLLOWS_AFTER_S)
    sys.exit(code)


def main() -> None:
    """Run a command; exit with 0, 2 for bad input, or 128 + the signal that stopped it.

    Of torchrun's ranks, 0 says what all have to say and exits with its code; the others fail after it.
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
    usage = COMMANDS.format(experiments=", ".join(toml.experiments()))
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(usage)
        return
    if name not in commands:
        _fail(InputError(f"there is no command {name!r}\n{usage}"))
    from maml_rl.machine.ranks import Echo, is_main
    from maml_rl.runs.loop import Stopped

    try:
        commands[name](arguments)
    except (InputError, FloatingPointError, OSError) as error:
        _fail(error)
    except WorkerError as error:  # every rank may miss one that is gone
        _fail(error, 1, is_main())
    except Echo:
        _follow(1)
    except Stopped as stopped:
        if not is_main():
            _follow(128 + stopped.signum)
        print(stopped, file=sys.stderr)
        sys.exit(128 + stopped.signum)
    except KeyboardInterrupt as interrupt:  # training says by which signal
        sys.exit(128 + (interrupt.args[0] if interrupt.args else signal.SIGINT))
