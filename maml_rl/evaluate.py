"""Evaluation: return on held-out tasks after 0, 1, 2, ... gradient steps, with fresh episodes at each."""

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maml_envs import InputError
from maml_envs.own import announce_import
from maml_rl import checkpoint, run_folder
from maml_rl.config import Config
from maml_rl.config import Evaluation as EvaluationSettings
from maml_rl.config_file import of_kind, parse_toml, with_evaluation
from maml_rl.files import free_name, write
from maml_rl.learner import Learner, Purpose, build
from maml_rl.meta import Exploration
from maml_rl.rates import PREFIX
from maml_rl.types import Params

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RATE_FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)
"""What ``tune`` multiplies the configuration's inner rate with."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Returns of held-out tasks. Field by field what evaluation.json holds, but for ``file``."""

    tasks: Floats  # (tasks, numbers of a task)
    returns: Floats  # (tasks, k, episodes) undiscounted return
    mean: Floats  # (k,) over episodes, then tasks
    ci95: Floats | None  # (k,) half width of the 95 % interval, 1.96 s / sqrt(tasks); None for one task
    split: str  # "in" or "out" of the training distribution
    steps: int  # gradient steps
    which: str  # parameters: "checkpoint", "best" or "initial"
    iteration: int  # of training that they had
    lr: Floats  # (steps,) inner rate; where it is learned, the mean over the numbers that adapt
    env_steps: int  # environment steps that this evaluation took
    best: float | None  # expected return of the best policy that knows the task, mean over tasks, where it is known
    success: Floats | None  # (tasks, k) share of episodes that succeed; None where nothing reports success
    tuned: bool = False  # whether the rate was chosen on training tasks
    file: Path | None = None  # where it was written

    def mean_success(self) -> Floats | None:
        """(k,) over episodes, then tasks."""
        return None if self.success is None else np.asarray(self.success.mean(0))

    def plot(self) -> "Figure":
        """The adaptation curve, a matplotlib figure: mean return after each step, 95 % intervals over tasks."""
        from maml_rl.figures import adaptation_curve  # evaluation alone does not need matplotlib

        half = np.zeros_like(self.mean) if self.ci95 is None else self.ci95
        name = self.file.parent.name if self.file else "these parameters"
        points = [(float(mean), float(mean - by), float(mean + by)) for mean, by in zip(self.mean, half, strict=True)]
        return adaptation_curve({name: points}, average="mean")

    def to_json(self) -> str:
        """What evaluation.json holds."""
        fields = asdict(replace(self, file=None))
        del fields["file"]
        return json.dumps(fields, default=lambda array: array.tolist())


def rate_factors(config: Config, steps: int) -> list[float]:
    """What each step at test multiplies the inner rate with: 1, and less after the first, or after those trained."""
    trained = max(1, config.trained_steps)
    return [1.0 if step < trained else config.evaluation.lr_after_first_step for step in range(steps)]


def summarise(
    learner: Learner,
    exploration: Exploration,
    tasks: Tensor,
    split: str,
    lr: list[float],
    which: str = "checkpoint",
    iteration: int = 0,
) -> Evaluation:
    """Returns, their means and intervals, from the trajectories before and after each inner step."""
    returns = torch.stack([t.returns() for t in exploration.trajectories], 1).double()
    per_task = returns.mean(-1)
    best = learner.envs[0].best_return(tasks)
    reached = [t.success.double().mean(-1) for t in exploration.trajectories if t.success is not None]
    half = 1.96 * per_task.std(0) / math.sqrt(len(per_task)) if len(per_task) > 1 else None
    return Evaluation(
        tasks=tasks.flatten(1).double().cpu().numpy(),
        returns=returns.cpu().numpy(),
        mean=per_task.mean(0).cpu().numpy(),
        ci95=None if half is None else half.cpu().numpy(),
        split=split,
        which=which,
        iteration=iteration,
        steps=len(lr),
        lr=np.array(lr, dtype=float),
        env_steps=sum(int(t.mask.sum()) for t in exploration.trajectories),
        best=None if best is None else float(best.mean()),
        success=torch.stack(reached, 1).cpu().numpy() if reached else None,
    )


def explore_held_out(
    learner: Learner, theta: Params, tasks: int, episodes: int, steps: int, split: str
) -> tuple[Exploration, Tensor, list[float]]:
    """Adapt to the fixed held-out tasks: everything that was sampled, the tasks, and the rates."""
    held_out = learner.envs[0].held_out_tasks(tasks, split).to(learner.device)
    factors = rate_factors(learner.config, steps)
    exploration = learner.explore(theta, held_out, episodes, learner.key(Purpose.EVALUATION), factors)
    learned = [value.flatten() for name, value in theta.items() if name.startswith(PREFIX)]
    lr = float(torch.cat(learned).mean()) if learned else learner.rates.lr
    return exploration, held_out, [lr * factor for factor in factors]


def tune(learner: Learner, theta: Params, tasks: int, episodes: int) -> float:
    """The inner rate whose first step gives the highest mean return on tasks of the training distribution.

    Of the configuration's rate times each of ``RATE_FACTORS``; what a baseline that was not trained for any rate is
    granted.
    """
    drawn = learner.envs[0].sample_tasks(tasks, learner.generator(Purpose.TUNING)).to(learner.device)
    reached = {}
    for rate in (learner.config.inner.lr * factor for factor in RATE_FACTORS):
        found = learner.with_rate(rate).explore(theta, drawn, episodes, learner.key(Purpose.TUNING), [1.0])
        reached[rate] = float(found.trajectories[-1].returns().mean())
    return max(reached, key=lambda rate: reached[rate])


def evaluate_learner(learner: Learner, theta: Params) -> Evaluation:
    """Evaluate parameters with the configuration's own [evaluation] settings."""
    chosen = settings(learner.config, "evaluation")
    exploration, tasks, lr = explore_held_out(learner, theta, chosen.tasks, chosen.episodes, chosen.steps, "in")
    return summarise(learner, exploration, tasks, "in", lr)


def settings(config: Config, where: str, **given: int | None) -> EvaluationSettings:
    """The [evaluation] settings of a configuration, with those that are given in their place; no steps for an oracle.

    Raises:
        InputError: A number is out of range; ``where`` says whose.
    """
    if config.method == "oracle" and given.get("steps") is None:
        given["steps"] = 0
    return with_evaluation(config, where, **given).evaluation


def load_learner(run: Path | str, which: str = "checkpoint", device: str | None = None) -> tuple[Learner, Params]:
    """The learner and parameters of a run folder, or of a checkpoint file alone.

    Args:
        run: A run folder, or a checkpoint file.
        which: "checkpoint" for the last, "best" for the best training return, "initial" for those before training.
        device: Where to compute; None for the configuration's own device.

    Raises:
        InputError: There is no such run, it is damaged, or its parameters are not the model's.
    """
    learner, theta, _ = _load(run, which, device)
    return learner, theta


def _load(run: Path | str, which: str, device: str | None = None) -> tuple[Learner, Params, int]:
    """The same, and the iterations that the parameters come from."""
    path = Path(run)
    if not path.exists():
        raise InputError(f"there is no run folder {path}: train first, with `maml-rl train CONFIG --out {path}`")
    folder = run_folder.read_config(path) if path.is_dir() else None
    which = run_folder.parameters_of(folder, which) if folder else which
    file = path / f"{'checkpoint' if which == 'initial' else which}.pt" if folder else path
    saved = checkpoint.load(file)
    config = of_kind(folder or parse_toml(saved.config, str(path)), Config, str(path))
    announce_import(config.env, path)
    learner = build(config.model_copy(update={"device": device or config.device}))
    try:
        return learner, *checkpoint.meant(file, saved, which, learner.initial_params())
    except InputError:
        learner.close()
        raise


def evaluate(
    run: Path | str,
    tasks: int | None = None,
    steps: int | None = None,
    episodes: int | None = None,
    split: str = "in",
    which: str = "checkpoint",
    tune_lr: bool | None = None,
) -> Evaluation:
    """Evaluate a run and write evaluation.json into its folder; a second evaluation gets a number.

    Args:
        run: The run folder.
        tasks: Held-out tasks; None for the configuration's number, as for the next two.
        steps: Gradient steps; None is 0 for the oracle, which needs none.
        episodes: Episodes for each task and step.
        split: "in" for held-out tasks of the training distribution, "out" for tasks beyond it.
        which: "checkpoint" for the last parameters, "best" for those with the best training return, "initial" for
            those before training: the same policy, randomly initialised.
        tune_lr: Adapt at the rate that ``tune`` finds on training tasks; None for where method = "pretrained".

    Returns:
        The evaluation, with the file it is in.

    Raises:
        InputError: The run cannot be read, a number is out of range, or the environment has no such split.
    """
    if Path(run).is_file():
        raise InputError(f"{run} is a file: give the run folder that it is in")
    learner, theta, iteration = _load(run, which)
    which = run_folder.parameters_of(learner.config, which)
    try:
        chosen = settings(learner.config, f"evaluate {run}", tasks=tasks, episodes=episodes, steps=steps)
        if tune_lr and learner.rates.learned:
            raise InputError(f"{run} has learned its rates: there is none to tune")
        tunes = chosen.steps > 0 and (learner.config.method == "pretrained" if tune_lr is None else tune_lr)
        if tunes:
            learner = learner.with_rate(tune(learner, theta, chosen.tasks, chosen.episodes))
        exploration, held_out, lr = explore_held_out(learner, theta, chosen.tasks, chosen.episodes, chosen.steps, split)
    finally:
        learner.close()
    result = replace(summarise(learner, exploration, held_out, split, lr, which, iteration), tuned=tunes)
    with free_name(Path(run), "evaluation", ".json") as file:
        write(file, result.to_json())
    return replace(result, file=file)
