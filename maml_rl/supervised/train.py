"""Meta-training of few-shot regression and classification (MAML paper, algorithm 2)."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from maml_rl import distributed, torchrun
from maml_rl.ascent import adam_step
from maml_rl.few_shot_config import FewShotConfig
from maml_rl.supervised.evaluate import adapted_errors
from maml_rl.supervised.learner import FewShotLearner, build
from maml_rl.training import Log, Pictures, train
from maml_rl.types import Params, flatten


@dataclass(frozen=True)
class FewShot:
    """Few-shot learning, as the training loop takes it."""

    learner: FewShotLearner

    @property
    def label(self) -> str:
        """The data."""
        return self.learner.config.data

    @property
    def stride(self) -> int:
        """The iterations of a row."""
        return self.learner.config.log_every

    def iterate(self, theta: Params, state: Params, iteration: int) -> tuple[Params, Params, Log]:
        """A row's worth of iterations: draw tasks, adapt to each, and step theta on their query loss."""
        outer, began = self.learner.config.outer, time.perf_counter()
        total = torch.zeros((), device=self.learner.device)
        gradient: Params = {}
        for at in range(iteration, iteration + self.stride):
            try:
                loss, gradient = self.learner.gradient(theta, self.learner.training_tasks(at))
            except FloatingPointError as error:
                raise FloatingPointError(f"in {at}, {error}") from error
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

    def evaluate(self, theta: Params) -> tuple[Log, Pictures]:
        """Error or accuracy on validation tasks after each gradient step."""
        chosen = self.learner.config.evaluation
        found = adapted_errors(self.learner, theta, chosen.tasks, chosen.steps, "validation")
        row = {
            f"validation/{name}/{k}": float(values[:, k].mean())
            for name, values in found.items()
            for k in range(chosen.steps + 1)
        }
        return row, {}

    def progress(self, row: Log) -> tuple[float, str]:
        """Minus the query loss after adaptation."""
        return -row["loss"], f"loss {row['loss']:.4f}"


@torchrun.joined()
def meta_train(config: FewShotConfig, out: Path | str, resume: bool = False, quiet: bool = False) -> Path:
    """Train, and write the run folder; see ``maml_rl.training.train``."""
    return train(FewShot(distributed.agreed(lambda: build(config))), out, resume, quiet)
