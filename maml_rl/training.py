"""The loop of every training run: iterate, log, save, stop when asked to, and keep the state before a failure."""

import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Protocol

import torch

from envs import WorkerError
from maml_rl import distributed
from maml_rl.checkpoint import Checkpoint
from maml_rl.config_file import AnyConfig, to_toml
from maml_rl.progress import ProgressLine
from maml_rl.provenance import made_with
from maml_rl.run_folder import Elsewhere, RunFolder
from maml_rl.types import Params, map_tensors

Log = dict[str, float]
Pictures = dict[str, bytes]
"""A png or gif by its name."""


class Learns(Protocol):
    """What a configuration makes, as far as every training run needs it."""

    @property
    def config(self) -> AnyConfig:
        """Where it comes from, with everything that was left to a default of the environment."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    def initial_params(self) -> Params:
        """Theta before training."""

    def close(self) -> None:
        """Release what it holds."""


class Trainee(Protocol):
    """What is trained: a learner, and what an iteration of it does and shows."""

    @property
    def learner(self) -> Learns:
        """Meta-reinforcement learning's or few-shot learning's."""

    @property
    def label(self) -> str:
        """What the progress line calls it."""

    @property
    def stride(self) -> int:
        """Iterations in one call of ``iterate``."""

    def iterate(self, theta: Params, state: Params, iteration: int) -> tuple[Params, Params, Log]:
        """Theta, the outer optimiser's state and a row of metrics after ``stride`` iterations from this one on."""

    def evaluate(self, theta: Params) -> tuple[Log, Pictures]:
        """Metrics on held-out tasks, and pictures of them for TensorBoard."""

    def progress(self, row: Log) -> tuple[float, str]:
        """A score of the theta that the iteration began with, the higher the better, and a message."""


class Stopped(Exception):  # noqa: N818  a request that was met, and not an error
    """Training was asked to stop by a signal; the run is saved and can be resumed."""

    def __init__(self, signum: int, run: Path) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}; continue with --resume --out {run}")
        self.signum = signum


@contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying from them; a second one interrupts at once.

    Not so under torchrun, which passes on what a scheduler may have sent to its ranks as well.
    """
    received: list[int] = []

    def handler(signum: int, frame: FrameType | None) -> None:
        alone = distributed.size() == 1
        if received and alone:
            raise KeyboardInterrupt(signum)
        if not received and distributed.is_main():
            name, more = signal.Signals(signum).name, "; once more stops at once" if alone else ""
            os.write(2, f"\n{name}: stopping after this iteration{more}\n".encode())
        received.append(signum)

    try:
        before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: signals are not ours to handle
        before = {}
    try:
        yield received
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def _keeping(folder: RunFolder | Elsewhere, state: Checkpoint, stride: int) -> Iterator[None]:
    """Say of a failure in which iterations it was, and where the state before them is."""
    first = state.iteration
    where = f"iteration {first}" if stride == 1 else f"iterations {first} to {first + stride - 1}"
    saved = f"what came before is saved; continue with --resume --out {folder.path}"
    try:
        yield
    except FloatingPointError as error:
        folder.save("failed.pt", state)
        kept = folder.path / "failed.pt"
        raise FloatingPointError(f"{where}: {error}; the state before iteration {first} is in {kept}") from error
    except WorkerError as error:
        raise WorkerError(f"{where}: {error}\n{saved}") from error
    except Exception as error:  # such as one of a user's environment
        error.add_note(f"in {where}; {saved}")
        raise


def _start(learner: Learns, folder: RunFolder | Elsewhere, first: Params) -> Checkpoint:
    """The state to go on from, the same on every rank."""
    found = distributed.from_main(lambda: folder.checkpoint)
    state = found or Checkpoint(first, 0, 0, -float("inf"), "", {})
    theta, outer = map_tensors(lambda value: value.to(learner.device), [state.theta, state.outer])
    return state._replace(theta=theta, outer=outer, config=to_toml(learner.config))


def train(trainee: Trainee, out: Path | str, resume: bool = False, quiet: bool = False) -> Path:
    """Train, and write the run folder; the learner is closed at the end.

    Args:
        trainee: What to train.
        out: The run folder.
        resume: Continue from its checkpoint, if it has one.
        quiet: Show no progress.

    Returns:
        The run folder.

    Raises:
        InputError: The folder cannot be used; nothing has been changed.
        FloatingPointError: Something became NaN or infinite; the state before that iteration is in failed.pt.
        WorkerError: A process that steps environments is lost; the iterations before are saved.
        Stopped: By SIGINT or SIGTERM; everything is saved.
        Echo: Under torchrun, on ranks other than 0, where rank 0 raises one of these.
    """
    learner, stride = trainee.learner, trainee.stride
    config, every = learner.config, learner.config.evaluation.every
    iterations = 0 if config.method == "random" else config.iterations
    about = made_with(torch.get_num_threads(), learner.device)
    distributed.refuse_idle(config.tasks)
    first = learner.initial_params()
    open_folder = partial(RunFolder, Path(out), config, resume, about, first)
    with (
        closing(learner),
        closing(distributed.on_main(open_folder, Elsewhere(Path(out)))) as folder,
        _stop_requests() as stop,
    ):
        state = _start(learner, folder, first)
        if not iterations and folder.checkpoint is None:
            distributed.on_main(partial(folder.save, "checkpoint.pt", state), None)
        with ProgressLine(trainee.label, iterations, state.iteration, quiet or not distributed.is_main()) as progress:
            for iteration in range(state.iteration, iterations, stride):
                done = iteration + stride
                pictures: Pictures = {}
                with _keeping(folder, state, stride):
                    theta, outer, row = trainee.iterate(state.theta, state.outer, iteration)
                    if every and done % every == 0:
                        found, pictures = distributed.on_main(partial(trainee.evaluate, theta), ({}, {}))
                        row |= found
                score, message = trainee.progress(row)
                env_steps = state.env_steps + int(row.get("env_steps", 0))
                best_return = max(score, state.best_return)
                before, state = state, Checkpoint(theta, done, env_steps, best_return, state.config, outer)
                logged = {"iteration": iteration} | row | ({"env_steps": env_steps} if "env_steps" in row else {})
                best = before if score > before.best_return else None
                distributed.on_main(partial(folder.record, logged, pictures, state, best), None)
                progress.advance(message, stride)
                signum = distributed.any_rank(stop[0] if stop else 0)
                if signum and state.iteration < iterations:
                    raise Stopped(signum, folder.path)
    return folder.path
