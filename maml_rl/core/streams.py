"""Streams of random numbers: a seed for each purpose and iteration of a run."""

from enum import IntEnum

import torch
from torch import Tensor

from maml_envs import random


class Purpose(IntEnum):
    """Purposes of random numbers: each has streams of its own."""

    INITIALISATION = 0
    TASKS = 1
    TRAINING = 2
    EVALUATION = 3
    TUNING = 4


def key(seed: int, purpose: Purpose, iteration: int = 0) -> Tensor:
    """Return the seed of a purpose in an iteration of the run with a seed."""
    return random.fold_in(random.fold_in(torch.tensor(seed), purpose), iteration)
