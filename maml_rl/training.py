"""The loop of every training run: iterate, log, save, stop when asked to, and keep the state before a failure."""

import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import Protocol

import torch

from envs import WorkerError
from maml_rl.checkpoint import Checkpoint
from maml_rl.config_file import AnyConfig, to_toml
from maml_rl.progress import ProgressLine
from maml_rl.run_folder import RunFolder, made_with
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
    """Collect SIGINT and SIGTERM instead of dying from them; a second SIGINT interrupts at once."""
    received: list[int] = []

    def handler(signum: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(signum)
        name = signal.Signals(signum).name
        os.write(2, f"\n{name}: stopping after this iteration; once more stops at once\n".encode())

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
def _keeping(folder: RunFolder, state: Checkpoint, iteration: int) -> Iterator[None]:
    """Say of a failure in which iteration it was, and where the state before it is."""
    try:
        yield
    except FloatingPointError as error:
        folder.save("failed.pt", state)
        kept = folder.path / "failed.pt"
        raise FloatingPointError(f"iteration {iteration}: {error}; the state before it is in {kept}") from error
    except WorkerError as error:
        raise WorkerError(
            f"iteration {iteration}: {error}\nwhat came before is saved; continue with --resume --out {folder.path}"
        ) from error


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
    """
    learner, stride = trainee.learner, trainee.stride
    config, every = learner.config, learner.config.evaluation.every
    iterations = 0 if config.method == "random" else config.iterations
    about = made_with(torch.get_num_threads(), learner.device)
    with closing(learner), closing(RunFolder(Path(out), config, resume, about)) as folder, _stop_requests() as stop:
        state = folder.checkpoint or Checkpoint(learner.initial_params(), 0, 0, -float("inf"), "", {})
        theta, outer = map_tensors(lambda value: value.to(learner.device), [state.theta, state.outer])
        state = state._replace(theta=theta, outer=outer, config=to_toml(config))
        if not iterations and folder.checkpoint is None:
            folder.save("checkpoint.pt", state)
        with ProgressLine(trainee.label, iterations, state.iteration, quiet) as progress:
            for iteration in range(state.iteration, iterations, stride):
                done = iteration + stride
                pictures: Pictures = {}
                with _keeping(folder, state, iteration):
                    theta, outer, row = trainee.iterate(state.theta, state.outer, iteration)
                    if every and done % every == 0:
                        found, pictures = trainee.evaluate(theta)
                        row |= found
                score, message = trainee.progress(row)
                env_steps = state.env_steps + int(row.get("env_steps", 0))
                best_return = max(score, state.best_return)
                before, state = state, Checkpoint(theta, done, env_steps, best_return, state.config, outer)
                folder.log({"iteration": iteration} | row | ({"env_steps": env_steps} if "env_steps" in row else {}))
                for name, encoded in pictures.items():
                    folder.events.picture(name, encoded, iteration)
                if score > before.best_return:
                    folder.save("best.pt", before)
                folder.save("checkpoint.pt", state)
                progress.advance(message, stride)
                if stop and state.iteration < iterations:
                    raise Stopped(stop[0], folder.path)
    return folder.path
