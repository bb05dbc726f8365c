"""The run folders of several seeds, written by rank 0 alone; an error there ends every rank."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import torch

from maml_envs import WorkerError
from maml_rl.config.few_shot import FewShotConfig
from maml_rl.config.toml import AnyConfig, parse_toml, to_toml
from maml_rl.core.slices import CPU_STEPS, GPU_STEPS
from maml_rl.core.tree import Params, map_tensors
from maml_rl.machine import ranks
from maml_rl.machine.device import first_line, memory_is_full
from maml_rl.runs.checkpoint import Checkpoint
from maml_rl.runs.folder import RunFolder, refuse_unusable

Row = dict[str, float]
Pictures = dict[str, bytes]
"""Pictures, png or gif, by name."""


class Learns(Protocol):
    """A configuration made real, as far as every training run needs it."""

    @property
    def config(self) -> AnyConfig:
        """Its configuration, with everything that was left to a default of the environment."""

    @property
    def device(self) -> torch.device:
        """Device that it computes on."""

    def with_seed(self, seed: int) -> Self:
        """Return the same with another seed; both share what they hold."""

    def initial_params(self) -> Params:
        """Return theta before training."""

    def notes(self) -> list[str]:
        """Return what is to be known of where its data come from, for config.toml."""

    def close(self) -> None:
        """Release what it holds."""


class Result(NamedTuple):
    """Result of some iterations of a run."""

    theta: Params
    outer: Params  # the outer optimiser's state
    row: Row  # metrics
    score: float  # of the theta that they began with, the higher the better
    held_out: float | None = None  # of the theta after them, where held-out tasks say which is the best
    pictures: Pictures = {}  # noqa: RUF012  for the loggers; never changed


Evaluate = Callable[[Any, Params], tuple[Row, Pictures, float | None]]
"""A learner and its theta to metrics on held-out tasks, pictures of them, and the score that ``best.pt`` goes by.

The score is None where it goes by training.
"""


class Folders:
    """Open run folders, and the state of each run after what they hold.

    Args:
        paths: The folder of each seed.
        learners: Of each seed.
        resume: Continue from their checkpoints where they have one.
        about: Written into config.toml beside the configuration.
        iterations: Of each run when it is complete; one that is complete stays as it is.
        resume_flags: The flags that continue all of them, for errors.

    Raises:
        InputError: A folder or a logger cannot be used: nothing has been written, unless a logger fails to start.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        learners: Sequence[Learns],
        resume: bool,
        about: dict[str, Any],
        iterations: int,
        resume_flags: str,
    ) -> None:
        self.paths, self._learners, self._resume_flags = list(paths), learners, resume_flags
        first = [learner.initial_params() for learner in learners]
        self._opened = ExitStack()
        self._folders: list[RunFolder] = []

        def open_all() -> None:
            for path in paths:
                refuse_unusable(path, resume)
            with ExitStack() as opened:
                folders = [
                    opened.enter_context(closing(RunFolder(path, learner.config, resume, about, params)))
                    for path, learner, params in zip(paths, learners, first, strict=True)
                ]
                for folder in folders:
                    if folder.checkpoint is None or folder.checkpoint.iteration < iterations:
                        folder.begin()
                self._opened, self._folders = opened.pop_all(), folders

        try:
            ranks.on_main(open_all, None)
            saved = ranks.from_main(lambda: [folder.checkpoint for folder in self._folders])
            self.states = [
                _on_device(checkpoint or Checkpoint(params, 0, 0, -float("inf"), "", {}), learner)
                for checkpoint, params, learner in zip(saved, first, learners, strict=True)
            ]
            if not iterations:
                new = [seed for seed, checkpoint in enumerate(saved) if checkpoint is None]
                ranks.on_main(partial(self._save, "checkpoint.pt", new), None)
        except BaseException:
            self.close()
            raise

    def evaluated(self, evaluate: Evaluate, seeds: Sequence[int], results: Sequence[Result]) -> list[Result]:
        """Add metrics on held-out tasks, and pictures of them, to the results of some runs."""

        def of_run(seed: int, result: Result) -> Result:
            row, pictures, score = evaluate(self._learners[seed], result.theta)
            return result._replace(row=result.row | row, pictures=pictures, held_out=score)

        return [
            ranks.on_main(partial(of_run, seed, result), result) for seed, result in zip(seeds, results, strict=True)
        ]

    def record(self, seeds: Sequence[int], results: Sequence[Result], iterations: int) -> None:
        """Take and record the state of some runs after some iterations.

        The best theta is the one they began with, or where held-out tasks have judged it, the one after them.
        """
        for seed, (theta, outer, row, score, held_out, pictures) in zip(seeds, results, strict=True):
            before = self.states[seed]
            env_steps = before.env_steps + int(row.get("env_steps", 0))
            reached = score if held_out is None else held_out
            best = max(reached, before.best_return)
            state = Checkpoint(theta, before.iteration + iterations, env_steps, best, before.config, outer)
            logged = {"iteration": before.iteration} | row | ({"env_steps": env_steps} if "env_steps" in row else {})
            new_best = (before if held_out is None else state) if reached > before.best_return else None
            self.states[seed] = state
            ranks.on_main(partial(self._record, seed, logged, pictures, state, new_best), None)

    def _record(self, seed: int, row: Row, pictures: Pictures, state: Checkpoint, best: Checkpoint | None) -> None:
        self._folders[seed].record(row, pictures, state, best)

    @contextmanager
    def keep(self, seeds: Sequence[int], iterations: int) -> Iterator[None]:
        """Say of a failure in which iterations it was; if something was not finite, keep the states before them."""
        first = self.states[seeds[0]].iteration
        where = f"iteration {first}" if iterations == 1 else f"iterations {first} to {first + iterations - 1}"
        saved = f"what came before is saved; continue with {self._resume_flags}"
        try:
            yield
        except FloatingPointError as error:
            self._save("failed.pt", seeds)
            kept = ", ".join(str(self.paths[seed] / "failed.pt") for seed in seeds)
            raise FloatingPointError(f"{where}: {error}; the state before iteration {first} is in {kept}") from error
        except WorkerError as error:
            raise WorkerError(f"{where}: {error}\n{saved}") from error
        except Exception as error:  # such as one of a user's environment
            if memory_is_full(error):
                size, fix = _size_of(self._learners[seeds[0]], len(seeds))
                raise WorkerError(f"{where}: memory is full, {size}: {first_line(error)}\n{fix}; {saved}") from error
            if ranks.is_main():
                error.add_note(f"in {where}; {saved}")
            raise

    def _save(self, name: str, seeds: Sequence[int]) -> None:
        for seed in seeds if self._folders else ():
            self._folders[seed].save(name, self.states[seed])

    def close(self) -> None:
        """Flush everything and let others in."""
        self._opened.close()


def _size_of(learner: Learns, seeds: int) -> tuple[str, str]:
    """Say what takes memory in an iteration, and how to take less."""
    config, on_cpu = learner.config, learner.device.type == "cpu"
    several = f" and {seeds} seeds" if seeds > 1 else ""
    elsewhere = "" if on_cpu else ", or --device cpu"
    if isinstance(config, FewShotConfig):
        return f"with {config.tasks} tasks{several}", f"Continue with --tasks-at-once, as few as 1{elsewhere}"
    limit = CPU_STEPS if on_cpu else GPU_STEPS
    size = f"{config.tasks} tasks of {config.episodes} episodes{several}"
    at_once = f"of which {limit:,} steps at most are worked on at once"
    return f"with {size}, {at_once}", f"Use fewer of them in another run{elsewhere}"


def _on_device(state: Checkpoint, learner: Learns) -> Checkpoint:
    theta, outer = map_tensors(lambda value: value.to(learner.device), [state.theta, state.outer])
    same = not state.config or parse_toml(state.config, "its checkpoint").judge == learner.config.judge
    best = state.best_return if same else -math.inf  # scores of other tasks, steps or losses are not compared
    return state._replace(theta=theta, outer=outer, best_return=best, config=to_toml(learner.config))
