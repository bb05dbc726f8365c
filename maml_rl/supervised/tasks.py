"""Few-shot tasks: what a task batch is, and the two methods of a distribution of them."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from maml_envs import InputError

VALIDATION_SEED, TEST_SEED = 20_170_810, 20_170_811
"""Held-out tasks are the same whatever the seed of training."""

SEEDS_APART = 1_000_003
"""Between the generator's seeds of two ``held_out_seed``."""


class Examples(NamedTuple):
    """Inputs with their targets. Integer targets are classes; others are values to regress on."""

    inputs: Tensor  # (K, n, *shape)
    targets: Tensor  # (K, n) int64, or (K, n, outputs)


class AtStep(NamedTuple):
    """One task's examples, and the inner step that they are for, counted from 0."""

    examples: Examples
    step: int


class TaskBatch(NamedTuple):
    """K tasks: the model adapts to the support set and is judged on the query set."""

    support: Examples
    query: Examples

    def joined(self) -> Examples:
        """All examples of each task, (K, n, ...)."""
        return Examples(*(torch.cat(pair, 1) for pair in zip(self.support, self.query, strict=True)))


class FewShotTasks(ABC):
    """A distribution of few-shot tasks; a user's own class has to define the first two methods.

    Attributes:
        training_classes: How many classes ``sample_examples`` tells apart; 0 where there are none.
        held_out_seed: ``evaluation.seed``, which ``held_out_generator`` goes by.
    """

    training_classes: int = 0
    held_out_seed: int = 0

    @abstractmethod
    def sample_tasks(self, count: int, generator: torch.Generator) -> TaskBatch:
        """Draw ``count`` training tasks, of the same sizes, from the generator."""

    @abstractmethod
    def held_out_tasks(self, count: int, split: str = "test") -> TaskBatch:
        """Draw ``count`` fixed tasks that training never sees; ``split`` is "test", or "validation" to choose by.

        Draw them from ``self.held_out_generator(split)``.
        """

    def held_out_generator(self, split: str) -> torch.Generator:
        """Make the generator of a split's tasks; test tasks are others for another ``held_out_seed``.

        Raises:
            ValueError: The split is neither "validation" nor "test".
        """
        seeds = {"validation": VALIDATION_SEED, "test": TEST_SEED + SEEDS_APART * self.held_out_seed}
        if split not in seeds:
            raise ValueError(f"split = {split!r}: use 'validation' or 'test'")
        return torch.Generator().manual_seed(seeds[split])

    def held_out_pieces(self, count: int, split: str = "test") -> Iterator[TaskBatch]:
        """Yield the tasks of ``held_out_tasks`` in pieces: a class whose tasks are large draws one after the other."""
        yield self.held_out_tasks(count, split)

    def sample_examples(self, shape: tuple[int, int], generator: torch.Generator) -> Examples:
        """Training examples, inputs (*shape, ...), each with its class among all of training: to pretrain on."""
        raise InputError(
            f"{type(self).__name__} does not tell its training classes apart, which method = 'pretrained' learns: "
            "define sample_examples and training_classes, or use LabelledTasks"
        )

    def references(self, batch: TaskBatch) -> dict[str, float]:
        """Return what can be had on these tasks without meta-learning, by name; a class may know of something."""
        return {}
