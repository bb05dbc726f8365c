"""A configuration made real: its environments, policy and inner loop, and how it is seeded."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Self

import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor

import maml_envs
from maml_envs import GymnasiumTaskEnv, InputError, TaskEnv, VectorOptions
from maml_envs.adapters.spaces import units_of
from maml_rl.config.base import METHODS
from maml_rl.config.rl import Config
from maml_rl.config.toml import with_seed
from maml_rl.core.adapt import InnerLoop, Rates
from maml_rl.core.streams import Purpose, key
from maml_rl.core.task_axis import TaskAxis
from maml_rl.core.tree import Params
from maml_rl.machine import ranks
from maml_rl.machine.device import CPU, choose_device, fall_back, first_line, set_up
from maml_rl.rl.data import Batch
from maml_rl.rl.linear_baseline import refuse_wide
from maml_rl.rl.losses import inner_loss
from maml_rl.rl.outer import OUTER
from maml_rl.rl.own_network import OwnNetwork
from maml_rl.rl.policies import CONTEXT, CategoricalPolicy, GaussianPolicy, Policy
from maml_rl.rl.rollout import Sampler


@dataclass(frozen=True)
class Learner:
    """Everything that a configuration names, ready to sample and adapt."""

    config: Config
    sampler: Sampler
    inner: InnerLoop[Batch]
    device: torch.device

    @property
    def policy(self) -> Policy:
        """The policy."""
        return self.sampler.policy

    @property
    def env(self) -> TaskEnv:
        """One of the copies of the environment."""
        return self.sampler.envs[0]

    def key(self, purpose: Purpose, iteration: int = 0) -> Tensor:
        """Return the seed of a purpose in an iteration."""
        return key(self.config.seed, purpose, iteration).to(self.device)

    def generator(self, purpose: Purpose, iteration: int = 0) -> torch.Generator:
        """Return a torch generator (CPU) with that seed."""
        return torch.Generator().manual_seed(int(self.key(purpose, iteration)))

    def initial_params(self) -> Params:
        """Return theta before training."""
        params = self.inner.rates.init(self.policy.init(self.generator(Purpose.INITIALISATION)))
        return {name: value.to(self.device) for name, value in params.items()}

    def training_tasks(self, iteration: int) -> Tensor:
        """Draw the tasks of an iteration; where exploration is credited, each twice, one after the other."""
        twice = 2 if self.config.exploration else 1
        drawn = self.env.sample_tasks(self.config.tasks // twice, self.generator(Purpose.TASKS, iteration))
        return drawn.repeat_interleave(twice, 0).to(self.device)

    def with_seed(self, seed: int) -> Self:
        """Return the same with another seed; both share the environments."""
        return replace(self, config=with_seed(self.config, seed))

    def with_rate(self, lr: float) -> Self:
        """Return the same with another inner rate for what adapts."""
        return replace(self, inner=replace(self.inner, rates=replace(self.inner.rates, lr=lr)))

    def notes(self) -> list[str]:
        """Return what is to be known of the environment, for config.toml."""
        return self.env.notes()

    def close(self) -> None:
        """Release the environments."""
        self.sampler.close()


def _units(config: Config, env: TaskEnv, observed: int) -> Tensor:
    """Return what each number that a policy observes is divided by: those of the task by 1."""
    given, width = config.policy.observation_units, env.observation_space.shape[0]
    if given is None:
        return torch.ones(observed)
    if len(given) not in (1, width):
        raise InputError(
            f"policy.observation_units has {len(given)} numbers, and an observation of env = {config.env!r} {width}: "
            "give one number for all, or one for each"
        )
    units = torch.ones(observed)
    units[:width] = torch.tensor(given)
    if not bool((units.isfinite() & units.reciprocal().isfinite()).all()):
        raise InputError(f"policy.observation_units from {min(given):g} to {max(given):g}: beyond what float32 holds")
    return units


def _own_network(name: str, env: TaskEnv, units: Tensor) -> OwnNetwork:
    """Make a user's network for the environment's own shape of observations; one that is told the task gets a row."""
    space = env.own_space if isinstance(env, GymnasiumTaskEnv) else env.observation_space
    told = len(units) - env.observation_space.shape[0]
    units = units * torch.cat([torch.from_numpy(units_of(space)), torch.ones(told)])
    if told or not isinstance(space, Box):
        space = Box(-np.inf, np.inf, (len(units),), np.float32)
    return OwnNetwork(name, space, units, env.action_width)


def _policy(config: Config, env: TaskEnv, observed: int, device: torch.device) -> Policy:
    settings, units = config.policy, _units(config, env, observed)
    own = None if settings.network is None else _own_network(settings.network, env, units)
    divided = units.to(device) if own is None and bool((units != 1).any()) else None
    shared = (observed, env.action_width, settings.hidden, settings.activation, settings.context, own, divided)
    if not env.discrete:
        assert settings.action_scale is not None
        return GaussianPolicy(*shared, settings.init_std, settings.min_std, settings.action_scale)
    for name in ("init_std", "min_std", "action_scale"):
        if getattr(settings, name) != type(settings).model_fields[name].default:
            raise InputError(
                f"policy.{name} = {getattr(settings, name)!r} with env = {config.env!r}: its actions are discrete, "
                "which have no standard deviation and no unit; leave it out"
            )
    return CategoricalPolicy(*shared)


def environments(
    config: Config, copies: int | None = None, drawn: bool = False, device: torch.device | None = None
) -> list[TaskEnv]:
    """Make the copies of the environment that a configuration names.

    One that is ``drawn`` is made so that it can draw itself, in this process. Without a device it is on the CPU.
    """
    vector = VectorOptions(**config.vector.model_dump())
    mode = None
    if drawn:
        workers = None if vector.worker_python is None else 1
        vector, mode = vector._replace(workers=workers, worker_timeout=None), "rgb_array"
    make = partial(
        maml_envs.make,
        config.env,
        config.preset,
        config.horizon,
        vector,
        mode,
        device,
        config.threads,
        config.env_options,
    )
    return maml_envs.make_copies(make, copies)


def build(config: Config) -> Learner:
    """Make the environments, policy and inner loop that a configuration names.

    The learner's configuration has the preset, horizon and policy.action_scale that were left to the environment. With
    ``device = "auto"`` all is on the CPU where a GPU is there but something is missing for it; one line on standard
    error says what.

    Raises:
        InputError: Something it names does not exist or breaks its contract.
    """
    device = choose_device(config.device)
    if config.device == "auto" and device.type != "cpu":
        kind = maml_envs.family(config.env, config.vector.worker_python is not None)
        if missing := kind.lacks(device):
            return _on_the_cpu(config, missing)
    return _built(config, device)


def build_and_try(config: Config) -> Learner:
    """Make a learner to train; with ``device = "auto"`` on the CPU if the first steps on a GPU fail.

    Raises:
        InputError: Something it names does not exist or breaks its contract.
    """
    learner = build(config)
    if config.device != "auto" or learner.env.device.type == "cpu" or ranks.size() > 1:  # ranks fall back together
        return learner
    try:
        _try_out(learner)
    except RuntimeError as error:  # of torch, warp or the driver: no memory, a kernel that does not compile
        learner.close()
        torch.cuda.empty_cache()
        return _on_the_cpu(config, f"its first steps failed ({first_line(error)})")
    return learner


def _on_the_cpu(config: Config, reason: str) -> Learner:
    fall_back(reason)
    set_up("cpu", config.threads)
    return _built(config, CPU)


def _try_out(learner: Learner) -> None:
    """Take two steps in as many environments as an iteration has: it compiles, makes room, and records."""
    config = learner.config
    tasks = learner.training_tasks(0)
    params = {name: value.expand(len(tasks), *value.shape) for name, value in learner.initial_params().items()}
    shape = (len(tasks), config.episodes)
    noise = torch.zeros(*shape, min(2, learner.env.horizon), learner.policy.actions, device=learner.device)
    seeds = torch.zeros(shape, dtype=torch.int64, device=learner.device)
    learner.sampler.rollout(params, tasks, noise, seeds, TaskAxis(len(tasks)))


def _built(config: Config, device: torch.device) -> Learner:
    elsewhere = config.vector.worker_python is not None
    envs = environments(config, device=device)
    preset = config.preset or next(iter(maml_envs.family(config.env, elsewhere).presets), None)
    config = config.model_copy(update={"preset": preset, "horizon": envs[0].horizon})
    if config.policy.action_scale is None and not envs[0].discrete:
        settings = config.policy.model_copy(update={"action_scale": envs[0].action_scale})
        config = config.model_copy(update={"policy": settings})
    observe_task = METHODS[config.method].told
    task_width = envs[0].held_out_tasks(1)[0].numel() if observe_task else 0
    if config.baseline.name in ("linear", "value_network"):
        refuse_wide(envs[0].observation_space.shape[0] + task_width, config.tasks)
    policy = _policy(config, envs[0], envs[0].observation_space.shape[0] + task_width, device)
    if policy.own is not None:
        policy.own.to(device)
    adapted = {"all": None, "last": policy.head, "context": frozenset({CONTEXT})}[config.inner.adapt]
    rates = Rates(config.inner.lr, adapted, config.inner.learn_lr and config.trained_steps > 0)
    loss = inner_loss(policy, config.inner.estimator, OUTER[config.outer.name].importance_weighted)
    inner = InnerLoop(loss, rates, config.inner.first_order)
    return Learner(config, Sampler(envs, policy, observe_task), inner, device)
