"""Meta-training of a configuration, of either kind of learning."""

import math
import shlex
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from maml_rl.config.few_shot import FewShotConfig
from maml_rl.config.rl import Config
from maml_rl.config.toml import AnyConfig
from maml_rl.core.tree import Params
from maml_rl.evaluate import evaluate_learner
from maml_rl.machine.device import set_up
from maml_rl.rl import learner as rl
from maml_rl.rl.method import MetaRL
from maml_rl.runs.folders import Pictures, Row
from maml_rl.runs.loop import Training, train
from maml_rl.supervised import learner as few_shot
from maml_rl.supervised.measures import adapted_errors
from maml_rl.supervised.method import FewShot


def meta_train(config: AnyConfig, out: Path | str, resume: bool = False, quiet: bool = False) -> Path:
    """Train, and write the run folder; see ``meta_train_seeds``."""
    out = Path(out).expanduser()
    return train(_training(config), {config.seed: out}, resume, quiet, f"--resume --out {shlex.quote(str(out))}")[0]


def meta_train_seeds(
    config: AnyConfig, outs: Mapping[int, Path | str], resume: bool = False, quiet: bool = False
) -> list[Path]:
    """Train several runs that differ in the seed alone, in meta-reinforcement learning as one batch of episodes.

    Each is what it would be alone, up to the rounding of matrix products of another size.

    Args:
        config: What to train.
        outs: The run folder of each seed.
        resume: Continue from their checkpoints where they have one; runs that are behind catch up first.
        quiet: Show no progress.

    Returns:
        The run folders.

    Raises:
        InputError: The configuration, a seed or a folder cannot be used; nothing has been changed.
        FloatingPointError: Something became NaN or infinite in one of them, which ends all; the state of each before
            that iteration is in its failed.pt.
        WorkerError: A worker raised, died or stalled; the iterations before are saved.
        Stopped: By SIGINT or SIGTERM; everything is saved.
    """
    outs = {seed: Path(out).expanduser() for seed, out in outs.items()}
    return train(_training(config), outs, resume, quiet, "--resume")


def _training(config: AnyConfig) -> Training:
    if isinstance(config, FewShotConfig):
        return Training(partial(_few_shot_learner, config), FewShot, _validate)
    return Training(partial(_learner, config), MetaRL, _evaluate)


def _few_shot_learner(config: FewShotConfig) -> few_shot.FewShotLearner:
    set_up(config.device, config.threads)
    return few_shot.build(config)


def _learner(config: Config) -> rl.Learner:
    if config.evaluation.film:
        from maml_rl.rl.film import refuse_undrawable  # only a run that is filmed needs what draws

        refuse_undrawable(config)
    set_up(config.device, config.threads)
    return rl.build_and_try(config)


def _evaluate(learner: rl.Learner, theta: Params) -> tuple[Row, Pictures, None]:
    """Measure mean return, and share of successes, on held-out tasks after each gradient step; draw both."""
    result = evaluate_learner(learner, theta)
    row = {f"evaluation/{k}": float(value) for k, value in enumerate(result.mean)}
    success = result.mean_success()
    if success is not None:
        row |= {f"evaluation/success/{k}": float(value) for k, value in enumerate(success)}
    from maml_rl.pictures import png  # only a run that is evaluated in training needs matplotlib

    pictures = {"evaluation/adaptation": png(result.plot())}
    if learner.config.evaluation.film:
        from maml_rl.rl.film import gif

        pictures["evaluation/film"] = gif(learner, theta)
    return row, pictures, None


def _validate(learner: few_shot.FewShotLearner, theta: Params) -> tuple[Row, Pictures, float]:
    """Measure error or accuracy on validation tasks after each gradient step; what the last leads to is the score."""
    settings = learner.config.evaluation
    measured = adapted_errors(learner, theta, settings.tasks, settings.steps, "validation")
    steps = range(settings.steps + 1)
    row = {f"validation/{name}/{k}": float(x[:, k].mean()) for name, x in measured.items() for k in steps}
    last = float(next(iter(measured.values()))[:, -1].mean())
    worse = math.inf if math.isnan(last) else last
    return row, {}, last if "accuracy" in measured else -worse
