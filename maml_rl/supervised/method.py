"""Meta-training of few-shot regression and classification (MAML paper, algorithm 2)."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from maml_rl.core.adam import adam_step
from maml_rl.core.task_axis import run_names
from maml_rl.core.tree import Params, flatten
from maml_rl.supervised.learner import FewShotLearner
from maml_rl.supervised.measures import adapted_errors


@dataclass(frozen=True)
class FewShot:
    """Few-shot learning, as the training loop takes it."""

    learners: Sequence[FewShotLearner]

    @property
    def label(self) -> str:
        """The data."""
        return self.learners[0].config.data

    @property
    def stride(self) -> int:
        """The iterations of a row."""
        return self.learners[0].config.log_every

    def iterate(
        self, runs: Sequence[int], starts: Sequence[tuple[Params, Params]], iteration: int
    ) -> list[tuple[Params, Params, dict[str, float]]]:
        """A row's worth of iterations of each of these runs."""
        results, names = [], run_names([learner.config.seed for learner in self.learners])
        for run, start in zip(runs, starts, strict=True):
            try:
                results.append(self._iterate(self.learners[run], *start, iteration))
            except FloatingPointError as error:
                if not names:
                    raise
                raise FloatingPointError(f"{names[run]}: {error}") from error
        return results

    def _iterate(
        self, learner: FewShotLearner, theta: Params, state: Params, iteration: int
    ) -> tuple[Params, Params, dict[str, float]]:
        """Draw tasks, adapt to each, and step theta on their query loss."""
        outer, began = learner.config.outer, time.perf_counter()
        total = torch.zeros((), device=learner.device)
        gradient: Params = {}
        for at in range(iteration, iteration + self.stride):
            try:
                loss, gradient = learner.gradient(theta, learner.training_tasks(at))
            except FloatingPointError as error:
                raise FloatingPointError(f"in iteration {at}, {error}") from error
            total += loss
            if outer.name == "adam":
                theta, state = adam_step(theta, state, gradient, outer.lr, maximise=False)
            else:
                theta = {name: value - outer.lr * gradient[name] for name, value in theta.items()}
        row = {
            "loss": float(total) / self.stride,
            "grad/norm": float(flatten(gradient).norm()),
            "seconds": time.perf_counter() - began,
        }
        return theta, state, row

    def evaluate(self, run: int, theta: Params) -> tuple[dict[str, float], dict[str, bytes]]:
        """Error or accuracy on validation tasks after each gradient step."""
        learner = self.learners[run]
        chosen = learner.config.evaluation
        found = adapted_errors(learner, theta, chosen.tasks, chosen.steps, "validation")
        row = {
            f"validation/{name}/{k}": float(values[:, k].mean())
            for name, values in found.items()
            for k in range(chosen.steps + 1)
        }
        return row, {}

    def progress(self, row: dict[str, float]) -> tuple[float, str]:
        """Minus the query loss after adaptation."""
        return -row["loss"], f"loss {row['loss']:.4f}"
