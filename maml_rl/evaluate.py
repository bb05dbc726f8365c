"""Evaluation: held-out tasks after 0, 1, 2, ... gradient steps, of meta-RL with fresh episodes at each."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch

from maml_envs import InputError
from maml_envs.user_code import warn_foreign_import
from maml_rl.config.base import METHODS
from maml_rl.config.elsewhere import Elsewhere, moved
from maml_rl.config.few_shot import FewShotConfig
from maml_rl.config.rl import Config
from maml_rl.config.rl import Evaluation as EvaluationSettings
from maml_rl.config.toml import AnyConfig, agents, of_kind, parse, parse_toml, with_evaluation
from maml_rl.core.statistics import Floats
from maml_rl.core.tree import Params
from maml_rl.machine.device import set_up
from maml_rl.machine.files import free_name, write
from maml_rl.rl import held_out
from maml_rl.rl.agent import Agent
from maml_rl.rl.learner import Learner
from maml_rl.rl.learner import build as build_rl
from maml_rl.runs import checkpoint
from maml_rl.runs.evaluation import Evaluation
from maml_rl.runs.folder import parameters_of, read_config
from maml_rl.supervised import measures
from maml_rl.supervised.agent import FewShotAgent
from maml_rl.supervised.learner import FewShotLearner
from maml_rl.supervised.learner import build as build_few_shot
from maml_rl.supervised.registry import sizes_of


class Options(Elsewhere, total=False):
    """Keys of a few-shot evaluation in place of the run's, and of how a run is read; None: the run's own."""

    shots: int | None  # support examples, of each class where there are classes
    seed: int | None  # another one draws other held-out tasks
    permutations: int | None  # of the labels of each task, whose spread is measured
    backtracks: int | None  # halvings of a step that would raise the support loss


OF_FEW_SHOT = Options.__annotations__.keys() - Elsewhere.__annotations__.keys()

AnyLearner = Learner | FewShotLearner


def evaluate(
    run: Path | str,
    tasks: int | None = None,
    steps: int | None = None,
    episodes: int | None = None,
    split: str = "in",
    which: str = "checkpoint",
    tune_lr: bool | None = None,
    **options: Unpack[Options],
) -> Evaluation:
    """Evaluate a run and write evaluation.json into its folder; a second evaluation gets a number.

    Args:
        run: The run folder, of meta-RL or of few-shot learning.
        tasks: Held-out tasks; None for the configuration's number, as for the next two and shots.
        steps: Gradient steps; None is 0 for the oracle, which needs none.
        episodes: Meta-RL: episodes for each task and step.
        split: "in" for held-out tasks of the training distribution; meta-RL: "out" for tasks beyond it,
            "validation" for others of it to choose settings by.
        which: "checkpoint" for the last parameters, "best" for those with the best training return or, in few-shot
            learning, the best on validation tasks (the lowest training loss without evaluation.every), "initial" for
            those before training: with these, learning each task from scratch.
        tune_lr: Adapt at the rate that serves other tasks best, those of training or, in few-shot learning, of
            validation; None for where method = "pretrained".
        **options: Few-shot learning: shots, seed, permutations and backtracks in place of [evaluation]'s; and keys that
            are others here than where it was trained, such as device; see ``Options``.

    Returns:
        The evaluation, with the file it is in.

    Raises:
        InputError: The run cannot be read, a number is out of range or does nothing, or there is no such split.
    """
    run = Path(run).expanduser()
    if run.is_file():
        raise InputError(f"{run} is a file: give the run folder that it is in")
    config = read = _config_of(run)
    own: Any = {key: value for key, value in options.items() if key in OF_FEW_SHOT and value is not None}
    elsewhere: Any = {key: value for key, value in options.items() if key not in OF_FEW_SHOT}
    _refuse_idle(config, split, episodes, own)
    which = parameters_of(config, which)
    config = with_evaluation(config, f"evaluate {run}", tasks=tasks, steps=steps, episodes=episodes, **own)
    changes: dict[str, object] = {"evaluation": config.evaluation.model_dump()}
    if isinstance(config, FewShotConfig):
        changes["shots"] = config.evaluation.shots or config.shots
    learner, theta, iteration = _load(run, read, which, changes, elsewhere)
    with closing(learner):
        if tune_lr and learner.inner.rates.learned:
            raise InputError(f"{run} has learned its rates: there is none to tune")
        tuned = config.evaluation.steps > 0 and (METHODS[config.method].tunes if tune_lr is None else tune_lr)
        if isinstance(learner, Learner):
            evaluation = _of_episodes(learner, theta, learner.config.evaluation, split, tuned)
        else:
            evaluation = _of_examples(learner, theta, tuned, own)
    return _written(replace(evaluation, which=which, iteration=iteration, tuned=tuned), run)


def _written(evaluation: Evaluation, run: Path) -> Evaluation:
    with free_name(run, "evaluation", ".json") as file:
        write(file, evaluation.to_json())
    return replace(evaluation, file=file)


def _refuse_idle(config: AnyConfig, split: str, episodes: int | None, of_few_shot: Mapping[str, int]) -> None:
    if isinstance(config, Config):
        for key, value in of_few_shot.items():
            raise InputError(f"--{key} {value} has no effect on meta-RL, which adapts to episodes: leave it out")
        return
    if episodes is not None:
        raise InputError(f"--episodes {episodes} has no effect on few-shot learning: leave it out, or give --shots")
    if split != "in":
        raise InputError(
            f"--split {split} has no effect on few-shot learning, whose tasks are of one kind: leave it out"
        )


def _of_episodes(
    learner: Learner, theta: Params, options: EvaluationSettings, split: str, tuned: bool = False
) -> Evaluation:
    if tuned:
        learner = learner.with_rate(held_out.tune(learner, theta, options.tasks, options.episodes))
    adaptation = held_out.explore_held_out(learner, theta, options.tasks, options.episodes, options.steps, split)
    return summarise(learner, adaptation, split)


def _of_examples(learner: FewShotLearner, theta: Params, tuned: bool, given: Mapping[str, int]) -> Evaluation:
    wanted = given.get("shots")
    config, options = learner.config, learner.config.evaluation
    shots = config.shots if "shots" in sizes_of(config.data) else None
    if wanted is not None and shots is None:
        raise InputError(
            f"--shots {wanted} has no effect: data = {config.data!r} takes no argument `shots`. Add one to what makes "
            "it, or leave --shots out"
        )
    measures.draw_from(learner, options.seed)
    rate = measures.tune(learner, theta, options.tasks, options.steps) if tuned else None
    values = measures.adapted_errors(learner, theta, options.tasks, options.steps, "test", rate)
    references = measures.references(learner, options.tasks)
    evaluation = summarise_few_shot(values, references, rate or config.inner.lr, shots)
    return replace(evaluation, seed=options.seed, backtracks=options.backtracks)


def summarise(learner: Learner, adaptation: held_out.HeldOut, split: str) -> Evaluation:
    """Return the evaluation of what was sampled before and after each inner step, by the last parameters."""
    outcomes, tasks = adaptation.exploration.outcomes, adaptation.draw.tasks
    values = {"return": torch.stack([outcome.returns for outcome in outcomes], 1).double().cpu().numpy()}
    success = [outcome.success.double().mean(-1) for outcome in outcomes if outcome.success is not None]
    if success:
        values["success"] = torch.stack(success, 1).cpu().numpy()
    best = learner.env.best_return(tasks)
    return Evaluation(
        values=values,
        which="checkpoint",
        iteration=0,
        split=split,
        lr=np.array(adaptation.lr, dtype=float),
        tasks=tasks.flatten(1).double().cpu().numpy(),
        env_steps=sum(int(outcome.steps.sum()) for outcome in outcomes),
        best=None if best is None else float(best.mean()),
    )


def summarise_few_shot(
    values: Mapping[str, Floats], references: dict[str, float], lr: float, shots: int | None
) -> Evaluation:
    """Evaluation of last parameters from each measure (tasks, k). NaN has diverged: it is the worst, not unknown."""
    or_infinite = {name: np.where(np.isnan(numbers), np.inf, numbers) for name, numbers in values.items()}
    steps = next(iter(or_infinite.values())).shape[1] - 1
    return Evaluation(or_infinite, "checkpoint", 0, "in", np.full(steps, lr), shots=shots, references=references)


def evaluate_learner(learner: Learner, theta: Params) -> Evaluation:
    """Evaluate parameters with the configuration's own [evaluation] settings."""
    return _of_episodes(learner, theta, with_evaluation(learner.config, "evaluation").evaluation, "in")


def load_learner(
    run: Path | str,
    which: str = "checkpoint",
    changes: Mapping[str, object] | None = None,
    **elsewhere: Unpack[Elsewhere],
) -> tuple[AnyLearner, Params]:
    """Load the learner and parameters of a run folder, or of a checkpoint file alone.

    Args:
        run: A run folder, or a checkpoint file.
        which: "checkpoint" for the last, "best" for the best in training, "initial" for those before training.
        changes: Keys of its configuration to replace.
        **elsewhere: Those that are others here than where it was trained.

    Raises:
        InputError: There is no such run, it is damaged, or its parameters are not the model's.
    """
    path = Path(run).expanduser()
    if not path.exists():
        path = agents().get(str(run), path)
    learner, theta, _ = _load(path, None if path.is_file() else _config_of(path), which, changes or {}, elsewhere)
    return learner, theta


def _config_of(path: Path) -> AnyConfig:
    if not path.exists():
        if str(path) in agents():
            raise InputError(
                f"{path} is an agent that comes with this package, and no run folder: render, export and maml_rl.load "
                f"take it. To evaluate one, train it first: maml-rl train {path} --out runs/{path}"
            )
        own = ", ".join(agents())
        hint = f" (agents of this package, which load, render and export take by name: {own})" if own else ""
        raise InputError(f"there is no run folder {path}: train first, with `maml-rl train CONFIG --out {path}`{hint}")
    return read_config(path)


def _code_of(config: AnyConfig) -> list[str]:
    """Return what a configuration names that may be a user's code."""
    if isinstance(config, FewShotConfig):
        return [config.data, config.model.network or ""]
    return [config.env, config.policy.network or ""]


def _load(
    path: Path,
    folder: AnyConfig | None,
    which: str,
    changes: Mapping[str, object],
    elsewhere: Elsewhere,
) -> tuple[AnyLearner, Params, int]:
    """Load learner, parameters, and iterations behind them, from a run folder with its configuration or from a file."""
    which = parameters_of(folder, which) if folder else which
    file = path / f"{'checkpoint' if which == 'initial' else which}.pt" if folder else path
    saved = checkpoint.load(file)
    before = folder or parse_toml(saved.config, str(path))
    config = parse(before.model_dump() | dict(changes) | moved(before, elsewhere), str(path))
    for name in _code_of(config):
        warn_foreign_import(name, path)
    set_up(config.device, config.threads)
    learner: AnyLearner = build_rl(config) if isinstance(config, Config) else build_few_shot(config)
    try:
        return learner, *checkpoint.select_parameters(file, saved, which, learner.initial_params())
    except InputError:
        learner.close()
        raise


def load(run: Path | str, which: str = "checkpoint", **elsewhere: Unpack[Elsewhere]) -> Any:  # noqa: ANN401  see below
    """Load the agent of a run folder, or of a checkpoint file alone.

    Args:
        run: A run folder, a checkpoint file, or the name of an agent of this package, such as "half_cheetah_dir".
        which: "checkpoint" for the last parameters, "best" for those with the best training return (few-shot learning:
            the best on validation tasks, or the lowest training loss without evaluation.every).
        **elsewhere: Keys that are others here than where it was trained, such as device; see ``Elsewhere``.

    Returns:
        An ``Agent``, or of few-shot learning a ``FewShotAgent``.

    Raises:
        InputError: There is no such run, or it is damaged.
    """
    learner, theta = load_learner(run, which, **elsewhere)
    return Agent(learner, theta) if isinstance(learner, Learner) else FewShotAgent(learner, theta)


def load_agent(run: Path | str, which: str = "checkpoint", **elsewhere: Unpack[Elsewhere]) -> Agent:
    """Load the agent of a run of meta-RL.

    Args:
        run: A run folder, or a checkpoint file.
        which: "checkpoint" for the last parameters, "best" for those with the best training return.
        **elsewhere: Keys that are others here than where it was trained, such as device; see ``Elsewhere``.

    Raises:
        InputError: There is no such run, it is damaged, or of few-shot learning.
    """
    learner, theta = load_learner(run, which, **elsewhere)
    of_kind(learner.config, Config, str(run))
    assert isinstance(learner, Learner)
    return Agent(learner, theta)
