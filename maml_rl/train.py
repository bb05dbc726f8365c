"""Meta-training: the loop of the MAML paper's algorithm 3."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor

from envs import WorkerError
from maml_rl.checkpoint import Checkpoint
from maml_rl.config import Config
from maml_rl.config_file import to_toml
from maml_rl.diagnostics import compare_gradients
from maml_rl.distributions import Normal
from maml_rl.evaluate import evaluate_learner
from maml_rl.learner import Learner, build
from maml_rl.meta import Exploration, inner_kl
from maml_rl.outer import OUTER
from maml_rl.progress import ProgressLine
from maml_rl.run_folder import RunFolder, made_with
from maml_rl.types import Params, map_tensors


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


def describe(learner: Learner, exploration: Exploration) -> dict[str, float]:
    """What one exploration shows: returns, successes, the policy's spread, how far and how well adaptation moved it."""
    row: dict[str, float] = {}
    reached: list[Tensor] = []
    for k, trajectory in enumerate(exploration.trajectories):
        per_task = trajectory.returns().mean(-1)
        row[f"return/{k}"] = float(per_task.mean())
        if k > 0:
            row[f"gain/{k}"] = float((per_task - reached[-1]).mean())
        reached.append(per_task)
        if trajectory.success is not None:
            row[f"success/{k}"] = float(trajectory.success.float().mean())
        row[f"entropy/{k}"] = float(
            (trajectory.behaviour.entropy() * exploration.batches[k].weights).sum(-1).sum(-1).mean()
        )
        if isinstance(trajectory.behaviour, Normal):
            row[f"std/{k}"] = float(trajectory.behaviour.std()[:, 0, 0].mean())
    row["share_worse"] = float((reached[-1] < reached[0]).float().mean())
    row["kl/inner"] = inner_kl(learner.policy, exploration)
    return row


def meta_iteration(
    learner: Learner, theta: Params, state: Params, iteration: int
) -> tuple[Params, Params, dict[str, float]]:
    """Sample tasks, adapt to each, and step theta: one turn of algorithm 3.

    Args:
        learner: What to sample and adapt with.
        theta: The initial parameters.
        state: The outer optimiser's state; empty at first.
        iteration: Its number, which its random numbers follow from.

    Returns:
        The next theta and state, and the iteration's metrics.
    """
    config = learner.config
    began = time.perf_counter()
    exploration = learner.explore_training(theta, iteration)
    row = describe(learner, exploration)
    explored = time.perf_counter()
    objective = learner.objective(exploration)
    moved, state, log = OUTER[config.outer.name](theta, state, exploration, objective, config.outer)
    outer = time.perf_counter() - explored
    sampling = exploration.sampling_seconds
    seconds = {"sampling": sampling, "inner": explored - began - sampling, "outer": outer}
    live = sum(int(trajectory.mask.sum()) for trajectory in exploration.trajectories)
    row |= log | {"env_steps": live} | {f"seconds/{name}": value for name, value in seconds.items()}
    every = config.compare_gradients
    if every and (iteration + 1) % every == 0:
        row |= compare_gradients(learner, theta, exploration)
    return moved, state, row


def meta_train(config: Config, out: Path | str, resume: bool = False, quiet: bool = False) -> Path:
    """Train, and write the run folder.

    Args:
        config: What to train.
        out: The run folder.
        resume: Continue from its checkpoint, if it has one.
        quiet: Show no progress.

    Returns:
        The run folder.

    Raises:
        InputError: The configuration or the folder cannot be used; nothing has been changed.
        FloatingPointError: Something became NaN or infinite; the state before that iteration is in failed.pt.
        WorkerError: A worker raised, died or stalled; the iterations before are saved.
        Stopped: By SIGINT or SIGTERM; everything is saved.
    """
    every = config.evaluation.every
    with (
        closing(build(config)) as learner,
        closing(
            RunFolder(Path(out), learner.config, resume, made_with(torch.get_num_threads(), learner.device))
        ) as folder,
        _stop_requests() as stop,
    ):
        state = folder.checkpoint or Checkpoint(learner.initial_params(), 0, 0, -float("inf"), "", {})
        theta, outer = map_tensors(lambda value: value.to(learner.device), [state.theta, state.outer])
        state = state._replace(theta=theta, outer=outer, config=to_toml(learner.config))
        with ProgressLine(config.env, config.iterations, state.iteration, quiet) as progress:
            for iteration in range(state.iteration, config.iterations):
                try:
                    theta, outer, row = meta_iteration(learner, state.theta, state.outer, iteration)
                    if every and (iteration + 1) % every == 0:
                        found = evaluate_learner(learner, theta)
                        row |= {f"evaluation/{k}": value for k, value in enumerate(found.mean)}
                        row |= {f"evaluation/success/{k}": value for k, value in enumerate(found.mean_success() or ())}
                except FloatingPointError as error:
                    folder.save("failed.pt", state)
                    kept = folder.path / "failed.pt"
                    raise FloatingPointError(
                        f"iteration {iteration}: {error}; the state before it is in {kept}"
                    ) from error
                except WorkerError as error:
                    raise WorkerError(
                        f"iteration {iteration}: {error}\nwhat came before is saved; continue with --resume --out {out}"
                    ) from error
                score = row[f"return/{config.inner.steps}"]
                env_steps = state.env_steps + int(row["env_steps"])
                best_return = max(score, state.best_return)
                before, state = state, Checkpoint(theta, iteration + 1, env_steps, best_return, state.config, outer)
                folder.log({"iteration": iteration} | row | {"env_steps": env_steps})
                if score > before.best_return:
                    folder.save("best.pt", before)
                folder.save("checkpoint.pt", state)
                progress.advance(f"return {row['return/0']:.1f} -> {score:.1f}")
                if stop and state.iteration < config.iterations:
                    raise Stopped(stop[0], folder.path)
    return folder.path
