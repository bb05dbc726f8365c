"""The loop of every training run: iterate, record, and stop when asked to."""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, Protocol

import torch

from maml_envs import InputError
from maml_rl.config.base import METHODS
from maml_rl.core.tree import Params, map_tensors, stack
from maml_rl.machine import launch, ranks
from maml_rl.machine.progress import ProgressLine
from maml_rl.runs.checkpoint import Checkpoint
from maml_rl.runs.ending import Ending
from maml_rl.runs.folders import Evaluate, Folders, Learns, Result, Row
from maml_rl.runs.provenance import made_with


class Method(Protocol):
    """A way of learning, applied to several seeds of one configuration."""

    @property
    def title(self) -> str:
        """Its name in the progress line."""

    @property
    def iterations_per_call(self) -> int:
        """Iterations in one call of ``iterate``."""

    def iterate(
        self, theta: Params, state: Params, iteration: int, seeds: Sequence[int]
    ) -> tuple[Params, Params, list[Row]]:
        """Advance theta and the outer optimiser's state, (S, ...), of some seeds; return them and a row of each."""

    def score(self, row: Row) -> float:
        """Score the theta that the iteration began with, the higher the better."""

    def message(self, row: Row) -> str:
        """Say how it goes, for the progress line."""


class Training(NamedTuple):
    """Makers of what is trained, and its evaluation meanwhile."""

    make_learner: Callable[[], Learns]
    make_method: Callable[[Any, list[str]], Method]  # of a learner for each seed, and what errors call them
    evaluate: Evaluate  # while it trains


class Stopped(Exception):  # noqa: N818  a request that was met, and not an error
    """Training was asked to stop by a signal; the run is saved and can be resumed."""

    def __init__(self, signum: int, resume_flags: str) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}; continue with {resume_flags}")
        self.signum = signum


class _StopRequests:
    """SIGINT and SIGTERM, collected instead of dying from them; a second one interrupts at once.

    Not so under torchrun, which passes on what a scheduler may have sent to its ranks as well.
    """

    def __init__(self) -> None:
        self._received: list[int] = []

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        alone = ranks.size() == 1
        if self._received and alone:
            raise KeyboardInterrupt(signum)
        if not self._received and ranks.is_main():
            name, more = signal.Signals(signum).name, "; once more stops at once" if alone else ""
            os.write(2, f"\n{name}: stopping after this iteration{more}\n".encode())
        self._received.append(signum)

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Handle the signals while this lasts."""
        try:
            before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not the main thread: signals are not ours to handle
            before = {}
        try:
            yield
        finally:
            for number, old in before.items():
                signal.signal(number, old)

    def heed(self, flags: str) -> None:
        """Stop if any rank was asked to; ``flags`` continue the run.

        Raises:
            Stopped: It was.
        """
        if signum := ranks.any_rank(self._received[0] if self._received else 0):
            raise Stopped(signum, flags)


class Stage(NamedTuple):
    """Iterations that some runs make together."""

    seeds: list[int]
    first: int
    last: int  # one past it


def stages(starts: Sequence[int], iterations: int) -> list[Stage]:
    """Divide the iterations so that runs that are behind catch up first: [5, 7, 7] to 10 is 0 from 5, all from 7."""
    edges = [*sorted({start for start in starts if start < iterations}), iterations]
    return [
        Stage([seed for seed, start in enumerate(starts) if start <= first], first, last)
        for first, last in pairwise(edges)
    ]


@launch.joined()
def train(
    training: Training, out_by_seed: Mapping[int, Path | str], resume: bool, quiet: bool, flags: str
) -> list[Path]:
    """Train, and write the run folders; the learners are closed at the end.

    Args:
        training: What to train.
        out_by_seed: The run folder of each seed.
        resume: Continue from checkpoints, where there are any; runs that are behind go first.
        quiet: Show no progress.
        flags: Flags that continue all of them.

    Returns:
        The run folders.

    Raises:
        InputError: The configuration, a seed or a folder cannot be used.
        FloatingPointError: Something became NaN or infinite; the state before that iteration is in failed.pt.
        WorkerError: A process that steps environments is lost; the iterations before are saved.
        Stopped: By SIGINT or SIGTERM; everything is saved.
        Echo: Under torchrun, on ranks other than 0, where rank 0 raises one of these.
    """
    paths = [Path(out) for out in out_by_seed.values()]
    learners = ranks.agreed(lambda: _learners(training.make_learner, list(out_by_seed), paths))
    config, stop = learners[0].config, _StopRequests()
    with ExitStack() as opened:
        opened.enter_context(closing(learners[0]))
        ranks.refuse_idle(config.tasks)
        names = [f"seed {seed}" for seed in out_by_seed] if len(paths) > 1 else [""]
        method = training.make_method(learners, names)
        iterations, stride = config.iterations if METHODS[config.method].trains else 0, method.iterations_per_call
        about = made_with(torch.get_num_threads(), learners[0].device, learners[0].notes())
        opened.enter_context(stop.collected())
        folders = opened.enter_context(closing(Folders(paths, learners, resume, about, iterations, flags)))
        starts, ending = [state.iteration for state in folders.states], Ending(config, len(paths))
        with ProgressLine(method.title, iterations, min(starts), quiet or not ranks.is_main()) as progress:
            for seeds, first, last in stages(starts, iterations):
                theta, state = _joined([folders.states[seed] for seed in seeds])
                for iteration in range(first, last, stride):
                    with folders.keep(seeds, stride):
                        theta, state, rows = method.iterate(theta, state, iteration, seeds)
                        after = _taken_apart(theta, state, len(seeds))
                        results = [Result(*own, row, method.score(row)) for own, row in zip(after, rows, strict=True)]
                        if config.evaluation.every and (iteration + stride) % config.evaluation.every == 0:
                            results = folders.evaluated(training.evaluate, seeds, results)
                    folders.record(seeds, results, stride)
                    progress.advance(method.message(_mean(rows)), stride)
                    ending.note(seeds, [result.row for result in results])
                    if ending.asked and (reason := ranks.from_main(ending.reason)):
                        if ranks.is_main() and not quiet:
                            print(f"ended: {reason}", file=sys.stderr)
                        return paths
                    if iteration + stride < iterations:
                        stop.heed(flags)
    return paths


def _learners(make_learner: Callable[[], Learns], seeds: Sequence[int], paths: Sequence[Path]) -> list[Learns]:
    """Make a learner of each seed, where each has a run folder of its own."""
    if not paths or len({path.resolve() for path in paths}) < len(paths):
        raise InputError(f"the run folders of the seeds are {list(map(str, paths))}: give each seed its own")
    learner = make_learner()
    return [learner.with_seed(seed) for seed in seeds]


def _joined(states: Sequence[Checkpoint]) -> tuple[Params, Params]:
    """Stack theta and the outer optimiser's state of several runs, (S, ...).

    Raises:
        InputError: One has what another has not.
    """
    if any(state.outer.keys() != states[0].outer.keys() for state in states):
        raise InputError("the checkpoints of the runs hold different states of the optimiser: continue them one by one")
    return stack([state.theta for state in states]), stack([state.outer for state in states])


def _taken_apart(theta: Params, state: Params, seeds: int) -> list[tuple[Params, Params]]:
    """Copy what each seed has: a view would keep, and a checkpoint hold, the memory of all."""
    return [map_tensors(lambda x, seed=seed: x[seed].clone(), (theta, state)) for seed in range(seeds)]


def _mean(rows: Sequence[Row]) -> Row:
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
