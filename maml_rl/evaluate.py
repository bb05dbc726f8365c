"""Evaluation: return on held-out tasks after 0, 1, 2, ... gradient steps, with fresh episodes at each."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from maml_envs import InputError
from maml_envs.user_code import warn_foreign_import
from maml_rl.config.rl import Config
from maml_rl.config.rl import Evaluation as EvaluationSettings
from maml_rl.config.toml import of_kind, parse_toml, with_evaluation
from maml_rl.core.tree import Params
from maml_rl.machine.device import set_up
from maml_rl.machine.files import free_name, write
from maml_rl.rl.agent import Agent
from maml_rl.rl.held_out import HeldOut, explore_held_out, tune
from maml_rl.rl.learner import Learner, build
from maml_rl.runs import checkpoint
from maml_rl.runs.evaluation import Evaluation
from maml_rl.runs.folder import parameters_of, read_config


def summarise(
    learner: Learner, adaptation: HeldOut, split: str, which: str = "checkpoint", iteration: int = 0
) -> Evaluation:
    """Return the evaluation of what was sampled before and after each inner step."""
    outcomes, tasks = adaptation.exploration.outcomes, adaptation.draw.tasks
    returns = torch.stack([outcome.returns for outcome in outcomes], 1).double()
    per_task = returns.mean(-1)
    best = learner.env.best_return(tasks)
    success = [outcome.success.double().mean(-1) for outcome in outcomes if outcome.success is not None]
    half = 1.96 * per_task.std(0) / math.sqrt(len(per_task)) if len(per_task) > 1 else None
    return Evaluation(
        tasks=tasks.flatten(1).double().cpu().numpy(),
        returns=returns.cpu().numpy(),
        mean=per_task.mean(0).cpu().numpy(),
        ci95=None if half is None else half.cpu().numpy(),
        split=split,
        which=which,
        iteration=iteration,
        steps=len(adaptation.lr),
        lr=np.array(adaptation.lr, dtype=float),
        env_steps=sum(int(outcome.steps.sum()) for outcome in outcomes),
        best=None if best is None else float(best.mean()),
        success=torch.stack(success, 1).cpu().numpy() if success else None,
    )


def evaluate_learner(learner: Learner, theta: Params) -> Evaluation:
    """Evaluate parameters with the configuration's own [evaluation] settings."""
    chosen = settings(learner.config, "evaluation")
    adaptation = explore_held_out(learner, theta, chosen.tasks, chosen.episodes, chosen.steps, "in")
    return summarise(learner, adaptation, "in")


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
    folder = read_config(path) if path.is_dir() else None
    which = parameters_of(folder, which) if folder else which
    file = path / f"{'checkpoint' if which == 'initial' else which}.pt" if folder else path
    saved = checkpoint.load(file)
    config = of_kind(folder or parse_toml(saved.config, str(path)), Config, str(path))
    warn_foreign_import(config.env, path)
    config = config.model_copy(update={"device": device or config.device})
    set_up(config.device, config.threads)
    learner = build(config)
    try:
        return learner, *checkpoint.select_parameters(file, saved, which, learner.initial_params())
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
    which = parameters_of(learner.config, which)
    try:
        chosen = settings(learner.config, f"evaluate {run}", tasks=tasks, episodes=episodes, steps=steps)
        if tune_lr and learner.inner.rates.learned:
            raise InputError(f"{run} has learned its rates: there is none to tune")
        tunes = chosen.steps > 0 and (learner.config.method == "pretrained" if tune_lr is None else tune_lr)
        if tunes:
            learner = learner.with_rate(tune(learner, theta, chosen.tasks, chosen.episodes))
        adaptation = explore_held_out(learner, theta, chosen.tasks, chosen.episodes, chosen.steps, split)
    finally:
        learner.close()
    result = replace(summarise(learner, adaptation, split, which, iteration), tuned=tunes)
    with free_name(Path(run), "evaluation", ".json") as file:
        write(file, result.to_json())
    return replace(result, file=file)


def load(run: Path | str, which: str = "checkpoint", device: str | None = None) -> Agent:
    """The agent of a run folder, or of a checkpoint file alone.

    Args:
        run: A run folder, or a checkpoint file.
        which: "checkpoint" for the last parameters, "best" for those with the best training return.
        device: Where to compute; None for the configuration's own device.

    Raises:
        InputError: There is no such run, or it is damaged.
    """
    return Agent(*load_learner(run, which, device))
