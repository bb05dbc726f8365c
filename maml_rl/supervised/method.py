"""Few-shot regression and classification (MAML paper, algorithm 2)."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from maml_rl.core.tree import Params, flatten
from maml_rl.supervised.learner import FewShotLearner
from maml_rl.supervised.outer import OUTER, gradient


@dataclass(frozen=True)
class FewShot:
    """Few-shot learning of several seeds, one after the other.

    Attributes:
        learners: Of each seed.
        names: What errors call them.
    """

    learners: Sequence[FewShotLearner]
    names: Sequence[str] = ("",)

    @property
    def title(self) -> str:
        """The data's name, for the progress line."""
        return self.learners[0].config.data

    @property
    def iterations_per_call(self) -> int:
        """The iterations of a row."""
        return self.learners[0].config.log_every

    def iterate(
        self, theta: Params, state: Params, iteration: int, seeds: Sequence[int]
    ) -> tuple[Params, Params, list[dict[str, float]]]:
        """Take a row's worth of iterations of some seeds.

        Args:
            theta: The initial parameters, (S, ...).
            state: Adam's state, (S, ...); empty at first, and for Reptile.
            iteration: The first of the iterations.
            seeds: Which of the learners take part.

        Returns:
            The next theta and state, and a row of metrics for each seed.
        """
        results = []
        for number, seed in enumerate(seeds):
            own, own_state = ({name: x[number : number + 1] for name, x in each.items()} for each in (theta, state))
            results.append(self._iterate(self.learners[seed], self.names[seed], own, own_state, iteration))
        thetas, states, rows = zip(*results, strict=True)
        return _joined(thetas), _joined(states), list(rows)

    def _iterate(
        self, learner: FewShotLearner, name: str, theta: Params, state: Params, iteration: int
    ) -> tuple[Params, Params, dict[str, float]]:
        """Draw tasks of one seed, adapt to each, and step theta, (1, ...), on their query loss."""
        outer, began = learner.config.outer, time.perf_counter()
        total = torch.zeros((), device=learner.device)
        slope: Params = {}
        for at in range(iteration, iteration + self.iterations_per_call):
            try:
                loss, slope = gradient(learner.at(at), theta, learner.training_tasks(at), name)
            except FloatingPointError as error:
                raise FloatingPointError(f"in iteration {at}, {error}") from error
            total += loss[0]
            theta, state = OUTER[outer.name].step(theta, state, slope, learner.outer_lr(at))
        row = {
            "loss": float(total) / self.iterations_per_call,
            "grad/norm": float(flatten(slope).norm()),
            "seconds": time.perf_counter() - began,
        }
        return theta, state, row

    def score(self, row: dict[str, float]) -> float:
        """Score the theta that the iterations began with: minus the query loss, unless validation tasks judge."""
        return -math.inf if self.learners[0].config.evaluation.every else -row["loss"]

    def message(self, row: dict[str, float]) -> str:
        """Say the loss, for the progress line."""
        return f"loss {row['loss']:.4f}"


def _joined(parts: Sequence[Params]) -> Params:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
