"""A configuration made real: its environments, policy and losses; how they sample, adapt and are seeded."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import partial

import torch
from torch import Tensor

import envs
from envs import InputError, TaskEnv, random
from maml_rl.adapt import Loss
from maml_rl.config import Config
from maml_rl.losses import inner_loss
from maml_rl.meta import Exploration, explore, to_batch
from maml_rl.parallel import keep_freed_memory
from maml_rl.policies import GaussianPolicy
from maml_rl.rollout import rollout
from maml_rl.types import Batch, Params, Rate, Trajectory


class Purpose(IntEnum):
    """What random numbers are for: each purpose has streams of its own."""

    INITIALISATION = 0
    TASKS = 1
    TRAINING = 2
    EVALUATION = 3


@dataclass(frozen=True)
class Learner:
    """Everything that a configuration names, ready to sample and adapt."""

    config: Config
    envs: Sequence[TaskEnv]
    policy: GaussianPolicy
    loss: Loss[Batch]
    device: torch.device

    def key(self, purpose: Purpose, iteration: int = 0) -> Tensor:
        """The seed of a purpose in an iteration."""
        seed = torch.tensor(self.config.seed, device=self.device)
        return random.fold(random.fold(seed, purpose), iteration)

    def generator(self, purpose: Purpose, iteration: int = 0) -> torch.Generator:
        """A torch generator (CPU) with that seed."""
        return torch.Generator().manual_seed(int(self.key(purpose, iteration)))

    def initial_params(self) -> Params:
        """Theta before training."""
        params = self.policy.init(self.generator(Purpose.INITIALISATION))
        return {name: value.to(self.device) for name, value in params.items()}

    def training_tasks(self, iteration: int) -> Tensor:
        """The tasks of an iteration."""
        tasks = self.envs[0].sample_tasks(self.config.tasks, self.generator(Purpose.TASKS, iteration))
        return tasks.to(self.device)

    def sample(self, params: Params, tasks: Tensor, episodes: int, key: Tensor) -> Trajectory:
        """Episodes of each task with its own parameters; task k's noise follows from the key and k alone."""
        seeds = random.fold(key, torch.arange(len(tasks), device=self.device)).unsqueeze(-1)
        seeds = random.fold(seeds, torch.arange(episodes, device=self.device))
        like = next(iter(params.values()))
        noise = random.normal(random.fold(seeds, 0), (self.envs[0].horizon, self.policy.actions)).to(like)
        return rollout(self.envs, self.policy, params, tasks, noise, random.fold(seeds, 1))

    def explore(self, theta: Params, tasks: Tensor, episodes: int, key: Tensor, rates: Sequence[Rate]) -> Exploration:
        """Sample and adapt in turn, one inner step for each rate; see ``meta.explore``."""
        config = self.config
        prepare = partial(
            to_batch,
            baseline=config.baseline.name,
            discount=config.discount,
            gae_lambda=config.gae_lambda,
            bootstrap_on_truncation=config.bootstrap_on_truncation,
        )
        return explore(
            lambda params, k: self.sample(params, tasks, episodes, random.fold(key, k)),
            prepare,
            self.loss,
            theta,
            len(tasks),
            rates,
        )

    def close(self) -> None:
        """Release the environments."""
        for env in self.envs:
            env.close()


def choose_device(name: str) -> torch.device:
    """The torch device of ``device = name``.

    Raises:
        InputError: The name is unknown, or asks for a GPU that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device = {name!r} is not a device: use auto, cpu or cuda") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device = {name!r}, but torch finds no CUDA GPU here: use device = 'cpu'")
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device = {name!r} is not supported: use auto, cpu or cuda")
    return device


def build(config: Config) -> Learner:
    """Make the environments, policy and losses that a configuration names, and give torch its threads.

    The learner's configuration has the preset and horizon that were left to the environment.

    Raises:
        InputError: Something it names does not exist or breaks its contract.
    """
    device = choose_device(config.device)
    torch.set_num_threads(config.threads or os.cpu_count() or 1)
    keep_freed_memory()
    made = envs.make(config.env, config.preset, config.horizon)
    observations, actions = made[0].observation_space.shape[0], made[0].action_space.shape[0]
    policy = GaussianPolicy(
        observations,
        actions,
        config.policy.hidden,
        config.policy.activation,
        config.policy.init_std,
        config.policy.min_std,
    )
    preset = config.preset or next(iter(made[0].presets), None)
    config = config.model_copy(update={"preset": preset, "horizon": made[0].horizon})
    return Learner(config, made, policy, inner_loss(policy, config.inner.estimator), device)
