"""Meta-training: the loop of the MAML paper's algorithm 3."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from maml_rl.config.rl import Config
from maml_rl.core.task_axis import run_names
from maml_rl.core.tree import Params
from maml_rl.evaluate import evaluate_learner
from maml_rl.rl.learner import Learner, build
from maml_rl.rl.method import meta_iteration
from maml_rl.runs.loop import Log, Pictures, train


@dataclass(frozen=True)
class MetaRL:
    """Meta-reinforcement learning, as the training loop takes it."""

    learners: Sequence[Learner]
    stride = 1

    @property
    def label(self) -> str:
        """The environment."""
        return self.learners[0].config.env

    def iterate(
        self, runs: Sequence[int], starts: Sequence[tuple[Params, Params]], iteration: int
    ) -> list[tuple[Params, Params, Log]]:
        """One meta-iteration of these runs."""
        names = run_names([learner.config.seed for learner in self.learners])
        return meta_iteration(
            [self.learners[run] for run in runs], starts, iteration, [names[run] for run in runs if names]
        )

    def evaluate(self, run: int, theta: Params) -> tuple[Log, Pictures]:
        """Mean return, and share of successes, on held-out tasks after each gradient step, and pictures of these."""
        learner = self.learners[run]
        found = evaluate_learner(learner, theta)
        row = {f"evaluation/{k}": float(value) for k, value in enumerate(found.mean)}
        success = found.mean_success()
        if success is not None:
            row |= {f"evaluation/success/{k}": float(value) for k, value in enumerate(success)}
        from maml_rl.pictures import png  # only a run that is evaluated in training needs matplotlib

        pictures = {"evaluation/adaptation": png(found.plot())}
        if learner.config.evaluation.film:
            from maml_rl.results.film import gif

            pictures["evaluation/film"] = gif(learner, theta)
        return row, pictures

    def progress(self, row: Log) -> tuple[float, str]:
        """The training return after adaptation, and how it changed."""
        steps = self.learners[0].config.trained_steps
        score = row[f"return/{steps}"]
        return score, f"return {row['return/0']:.1f} -> {score:.1f}" if steps else f"return {score:.1f}"


def meta_train(config: Config, out: Path | str, resume: bool = False, quiet: bool = False) -> Path:
    """Train, and write the run folder; see ``meta_train_seeds``."""
    return train(partial(_build, config), MetaRL, {config.seed: out}, resume, quiet, f"--resume --out {out}")[0]


def meta_train_seeds(
    config: Config, outs: Mapping[int, Path | str], resume: bool = False, quiet: bool = False
) -> list[Path]:
    """Train several runs that differ in the seed alone, their episodes sampled as one batch.

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
    return train(partial(_build, config), MetaRL, outs, resume, quiet, "--resume")


def _build(config: Config) -> Learner:
    if config.evaluation.film:
        from maml_rl.results.film import refuse_undrawable

        refuse_undrawable(config)
    return build(config)
