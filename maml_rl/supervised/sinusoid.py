"""Sinusoid regression (MAML paper, section 5.1)."""

import math

import torch

from maml_rl.supervised.tasks import Examples, FewShotTasks, TaskBatch

AMPLITUDE, PHASE, REACH = (0.1, 5.0), math.pi, 5.0
MEAN_AMPLITUDE = sum(AMPLITUDE) / 2


class Sinusoid(FewShotTasks):
    """y = A sin(x - phase): a task is an amplitude A, uniform in (0.1, 5), and a phase, uniform in (0, pi).

    x is uniform in (-5, 5), for support and query alike; inputs and targets are (K, n, 1). Predicting 0 has mean
    squared error 4.2517, and the best function that does not know the task, -1.6234 cos x, has 3.0057.

    Args:
        shots: Support examples.
        queries: Query examples.
    """

    def __init__(self, shots: int = 10, queries: int = 10) -> None:
        self.shots, self.queries = shots, queries

    def sample_tasks(self, count: int, generator: torch.Generator) -> TaskBatch:
        """Support and query examples of ``count`` curves."""
        low, high = AMPLITUDE
        amplitude = low + (high - low) * torch.rand(count, 1, 1, generator=generator)
        phase = PHASE * torch.rand(count, 1, 1, generator=generator)
        x = REACH * (2 * torch.rand(count, self.shots + self.queries, 1, generator=generator) - 1)
        y = amplitude * torch.sin(x - phase)
        cut = self.shots
        return TaskBatch(Examples(x[:, :cut], y[:, :cut]), Examples(x[:, cut:], y[:, cut:]))

    def references(self, batch: TaskBatch) -> dict[str, float]:
        """Mean squared error of predicting 0, and of the best function that does not know the task."""
        x, y = batch.query
        blind = -MEAN_AMPLITUDE * 2 / math.pi * torch.cos(x)
        return {
            "predicting 0": float(y.square().mean()),
            "the best function blind to the task": float((y - blind).square().mean()),
        }

    def held_out_tasks(self, count: int, split: str = "test") -> TaskBatch:
        """Fixed curves of the same distribution."""
        return self.sample_tasks(count, self.held_out_generator(split))
