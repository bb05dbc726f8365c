"""The loop of every training run: iterate, log, save, stop when asked to, and keep the state before a failure."""

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Protocol, Self, TypeVar

import torch

from maml_envs import InputError, WorkerError
from maml_rl.config.toml import AnyConfig, to_toml
from maml_rl.core.tree import Params, map_tensors
from maml_rl.machine import launch, ranks
from maml_rl.machine.progress import ProgressLine
from maml_rl.runs.checkpoint import Checkpoint
from maml_rl.runs.folder import Elsewhere, RunFolder, refuse_unusable
from maml_rl.runs.provenance import made_with

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

    def with_seed(self, seed: int) -> Self:
        """The same with another seed; both share what they hold."""

    def initial_params(self) -> Params:
        """Theta before training."""

    def close(self) -> None:
        """Release what it holds."""


Learner = TypeVar("Learner", bound=Learns)


class Trainee(Protocol):
    """What is trained: runs that differ in the seed alone, and what an iteration of them does and shows."""

    @property
    def learners(self) -> Sequence[Learns]:
        """Of each run, meta-reinforcement learning's or few-shot learning's; they share what they hold."""

    @property
    def label(self) -> str:
        """What the progress line calls it."""

    @property
    def stride(self) -> int:
        """Iterations in one call of ``iterate``."""

    def iterate(
        self, runs: Sequence[int], starts: Sequence[tuple[Params, Params]], iteration: int
    ) -> list[tuple[Params, Params, Log]]:
        """Of each of these runs theta, the outer optimiser's state and a row of metrics after ``stride`` iterations.

        Args:
            runs: Their numbers.
            starts: Of each, theta and the outer optimiser's state before.
            iteration: The first of the iterations.
        """

    def evaluate(self, run: int, theta: Params) -> tuple[Log, Pictures]:
        """Metrics on held-out tasks, and pictures of them for TensorBoard."""

    def progress(self, row: Log) -> tuple[float, str]:
        """A score of the theta that the iteration began with, the higher the better, and a message."""


class Stopped(Exception):  # noqa: N818  a request that was met, and not an error
    """Training was asked to stop by a signal; the run is saved and can be resumed."""

    def __init__(self, signum: int, go_on: str) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}; continue with {go_on}")
        self.signum = signum


@contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying from them; a second one interrupts at once.

    Not so under torchrun, which passes on what a scheduler may have sent to its ranks as well.
    """
    received: list[int] = []

    def handler(signum: int, frame: FrameType | None) -> None:
        alone = ranks.size() == 1
        if received and alone:
            raise KeyboardInterrupt(signum)
        if not received and ranks.is_main():
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


@dataclass
class _Run:
    folder: RunFolder | Elsewhere
    state: Checkpoint

    def advance(self, theta: Params, outer: Params, row: Log, pictures: Pictures, score: float, stride: int) -> None:
        """Take and record the state after some iterations; the best theta is the one that they began with."""
        before, done = self.state, self.state.iteration + stride
        env_steps = before.env_steps + int(row.get("env_steps", 0))
        self.state = Checkpoint(theta, done, env_steps, max(score, before.best_return), before.config, outer)
        logged = {"iteration": before.iteration} | row | ({"env_steps": env_steps} if "env_steps" in row else {})
        best = before if score > before.best_return else None
        ranks.on_main(partial(self.folder.record, logged, pictures, self.state, best), None)


@contextmanager
def _keeping(runs: Sequence[_Run], stride: int, go_on: str) -> Iterator[None]:
    """Say of a failure in which iterations it was, and where the states before them are."""
    first = runs[0].state.iteration
    where = f"iteration {first}" if stride == 1 else f"iterations {first} to {first + stride - 1}"
    saved = f"what came before is saved; continue with {go_on}"
    try:
        yield
    except FloatingPointError as error:
        for run in runs:
            run.folder.save("failed.pt", run.state)
        kept = ", ".join(str(run.folder.path / "failed.pt") for run in runs)
        raise FloatingPointError(f"{where}: {error}; the state before iteration {first} is in {kept}") from error
    except WorkerError as error:
        raise WorkerError(f"{where}: {error}\n{saved}") from error
    except Exception as error:  # such as one of a user's environment
        if ranks.is_main():
            error.add_note(f"in {where}; {saved}")
        raise


def _start(learner: Learns, folder: RunFolder | Elsewhere, first: Params) -> Checkpoint:
    """The state to go on from, the same on every rank."""
    found = ranks.from_main(lambda: folder.checkpoint)
    state = found or Checkpoint(first, 0, 0, -float("inf"), "", {})
    theta, outer = map_tensors(lambda value: value.to(learner.device), [state.theta, state.outer])
    return state._replace(theta=theta, outer=outer, config=to_toml(learner.config))


def _of_seeds(build: Callable[[], Learner], outs: Mapping[int, Path]) -> list[Learner]:
    """A learner of each seed, where each has a run folder of its own."""
    if not outs or len({out.resolve() for out in outs.values()}) < len(outs):
        raise InputError(f"the run folders of the seeds are {list(map(str, outs.values()))}: give each seed its own")
    built = build()
    return [built.with_seed(seed) for seed in outs]


def _open(
    stack: ExitStack,
    learners: Sequence[Learns],
    outs: Sequence[Path],
    resume: bool,
    first: Sequence[Params],
    iterations: int,
) -> list[RunFolder | Elsewhere]:
    """The run folders, all looked at before one is written, and closed with the stack."""
    about = made_with(torch.get_num_threads(), learners[0].device)

    def open_all() -> list[RunFolder | Elsewhere]:
        for out in outs:
            refuse_unusable(out, resume)
        with ExitStack() as opened:
            folders = [
                opened.enter_context(closing(RunFolder(out, learner.config, resume, about, params)))
                for out, learner, params in zip(outs, learners, first, strict=True)
            ]
            for folder in folders:
                if folder.checkpoint is None or folder.checkpoint.iteration < iterations:  # else it stays as it is
                    folder.begin()
            stack.enter_context(opened.pop_all())
        return [*folders]

    return ranks.on_main(open_all, [Elsewhere(out) for out in outs])


def _iterate(
    trainee: Trainee, runs: Mapping[int, _Run], iteration: int, evaluates: bool
) -> list[tuple[Params, Params, Log, Pictures]]:
    """Of each of these runs what it comes to: theta, the outer optimiser's state, a row of metrics and pictures."""
    found = trainee.iterate(list(runs), [(run.state.theta, run.state.outer) for run in runs.values()], iteration)
    results = []
    for number, (theta, outer, row) in zip(runs, found, strict=True):
        more: tuple[Log, Pictures] = ({}, {})
        if evaluates:
            more = ranks.on_main(partial(trainee.evaluate, number, theta), more)
        results.append((theta, outer, row | more[0], more[1]))
    return results


def _mean(rows: Sequence[Log]) -> Log:
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


@launch.joined()
def train(
    build: Callable[[], Learner],
    kind: Callable[[list[Learner]], Trainee],
    outs: Mapping[int, Path | str],
    resume: bool,
    quiet: bool,
    go_on: str,
) -> list[Path]:
    """Train, and write the run folders; the learners are closed at the end.

    Args:
        build: Makes a learner.
        kind: Makes what is trained of the learners of all seeds.
        outs: The run folder of each seed.
        resume: Continue from their checkpoints, where they have one. Runs that are behind go first.
        quiet: Show no progress.
        go_on: The flags that continue all of them.

    Returns:
        The run folders.

    Raises:
        InputError: The configuration, a seed or a folder cannot be used; nothing has been changed.
        FloatingPointError: Something became NaN or infinite; the state before that iteration is in failed.pt.
        WorkerError: A process that steps environments is lost; the iterations before are saved.
        Stopped: By SIGINT or SIGTERM; everything is saved.
        Echo: Under torchrun, on ranks other than 0, where rank 0 raises one of these.
    """
    folders_of = {seed: Path(out) for seed, out in outs.items()}
    trainee = kind(ranks.agreed(lambda: _of_seeds(build, folders_of)))
    learners, stride = trainee.learners, trainee.stride
    config, every = learners[0].config, learners[0].config.evaluation.every
    iterations = 0 if config.method == "random" else config.iterations
    ranks.refuse_idle(config.tasks)
    first = [learner.initial_params() for learner in learners]
    with closing(learners[0]), ExitStack() as stack, _stop_requests() as stop:
        folders = _open(stack, learners, list(folders_of.values()), resume, first, iterations)
        runs = [
            _Run(folder, _start(learner, folder, params))
            for learner, folder, params in zip(learners, folders, first, strict=True)
        ]
        for run in runs:
            if not iterations and run.folder.checkpoint is None:
                ranks.on_main(partial(run.folder.save, "checkpoint.pt", run.state), None)
        silent = quiet or not ranks.is_main()
        start = min(run.state.iteration for run in runs)
        with ProgressLine(trainee.label, iterations, start, silent) as progress:
            for iteration in range(start, iterations, stride):
                behind = {number: run for number, run in enumerate(runs) if run.state.iteration == iteration}
                with _keeping(list(behind.values()), stride, go_on):
                    evaluates = every > 0 and (iteration + stride) % every == 0
                    results = _iterate(trainee, behind, iteration, evaluates)
                for run, (theta, outer, row, pictures) in zip(behind.values(), results, strict=True):
                    run.advance(theta, outer, row, pictures, trainee.progress(row)[0], stride)
                progress.advance(trainee.progress(_mean([row for _, _, row, _ in results]))[1], stride)
                signum = ranks.any_rank(stop[0] if stop else 0)
                if signum and iteration + stride < iterations:
                    raise Stopped(signum, go_on)
    return [run.folder.path for run in runs]
