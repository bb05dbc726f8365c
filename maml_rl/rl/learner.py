"""A configuration made real: its environments, policy and losses; how they sample, adapt and are seeded."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

import torch
from torch import Tensor

import maml_envs
from maml_envs import InputError, TaskEnv, ToldTask, VectorOptions, random
from maml_rl.config.rl import Config
from maml_rl.config.toml import with_seed
from maml_rl.core.adapt import Loss, Rates, scaled
from maml_rl.core.streams import Purpose, key
from maml_rl.core.task_axis import ONE_RUN, TaskRows, stack
from maml_rl.core.tree import Params
from maml_rl.machine import ranks
from maml_rl.machine.device import set_up
from maml_rl.rl.advantages import to_batch
from maml_rl.rl.data import Batch, Trajectory
from maml_rl.rl.explore import Exploration, explore
from maml_rl.rl.losses import inner_loss
from maml_rl.rl.objective import MetaObjective
from maml_rl.rl.policies import CONTEXT, CategoricalPolicy, GaussianPolicy, Policy
from maml_rl.rl.rollout import sample


@dataclass(frozen=True)
class Learner:
    """Everything that a configuration names, ready to sample and adapt."""

    config: Config
    envs: Sequence[TaskEnv]
    policy: Policy
    loss: Loss[Batch]
    rates: Rates
    device: torch.device

    def key(self, purpose: Purpose, iteration: int = 0) -> Tensor:
        """The seed of a purpose in an iteration."""
        return key(self.config.seed, purpose, iteration).to(self.device)

    def generator(self, purpose: Purpose, iteration: int = 0) -> torch.Generator:
        """A torch generator (CPU) with that seed."""
        return torch.Generator().manual_seed(int(self.key(purpose, iteration)))

    def initial_params(self) -> Params:
        """Theta before training."""
        params = self.rates.init(self.policy.init(self.generator(Purpose.INITIALISATION)))
        return {name: value.to(self.device) for name, value in params.items()}

    def training_tasks(self, iteration: int) -> Tensor:
        """The tasks of an iteration."""
        tasks = self.envs[0].sample_tasks(self.config.tasks, self.generator(Purpose.TASKS, iteration))
        return tasks.to(self.device)

    def with_seed(self, seed: int) -> Self:
        """The same with another seed; both share the environments."""
        return replace(self, config=with_seed(self.config, seed))

    def with_rate(self, lr: float) -> "Learner":
        """The same, with another inner rate for what adapts."""
        return replace(self, rates=replace(self.rates, lr=lr))

    def sample(self, params: Params, tasks: Tensor, episodes: int, key: Tensor, first: int = 0) -> Trajectory:
        """Episodes of each task with its own parameters; task k's noise follows from the key and first + k alone."""
        return sample(self.envs, self.policy, params, tasks, episodes, key, TaskRows(first))

    def explore(
        self,
        theta: Params,
        tasks: Tensor,
        episodes: int,
        key: Tensor,
        factors: Sequence[float],
        rows: TaskRows = ONE_RUN,
    ) -> Exploration:
        """Sample and adapt in turn, one inner step for each factor on theta's rate; see ``meta.explore``.

        Args:
            theta: Of one run, or of several (R, ...).
            tasks: (K, *task_shape): as many of each run, one run's after the other's.
            episodes: Of each task before and after each inner step.
            key: Of all noise, (), or (R,).
            factors: On theta's rate.
            rows: Which tasks these are.
        """
        config, runs = self.config, tuple(key.shape)
        prepare = partial(
            to_batch,
            baseline=config.baseline.name,
            discount=config.discount,
            gae_lambda=config.gae_lambda,
            bootstrap_on_truncation=config.bootstrap_on_truncation,
            normalise_advantages=config.normalise_advantages,
            runs=runs,
        )

        def sample_at(params: Params, k: int) -> Trajectory:
            return sample(self.envs, self.policy, params, tasks, episodes, random.fold_in(key, k), rows)

        start, lr = self.rates.split(stack(theta, len(tasks), runs))
        rates = [scaled(lr, factor) for factor in factors]
        return explore(sample_at, prepare, self.loss, start, rates, rows)._replace(runs=runs)

    def explore_training(self, theta: Params, iteration: int) -> Exploration:
        """Sample and adapt to this rank's tasks of an iteration, with the rate as it is."""
        alone = {name: value.unsqueeze(0) for name, value in theta.items()}
        return explore_training([self], alone, iteration)._replace(runs=())

    def objective(self, exploration: Exploration) -> MetaObjective:
        """The meta-objective on what was explored."""
        config = self.config
        credit = None
        if config.outer.exploration:
            reached = exploration.trajectories[-1].returns().mean(-1).unflatten(0, (*exploration.runs, -1))
            every = ranks.gather(reached.movedim(-1, 0), config.tasks).movedim(0, -1)
            mean, std = every.mean(-1, keepdim=True), every.std(-1, correction=0, keepdim=True)
            credit = (config.outer.exploration * (reached - mean) / (std + 1e-8)).flatten()
        return MetaObjective(
            self.policy,
            self.loss,
            exploration.batches,
            self.rates,
            config.inner.first_order,
            whole_episodes=config.inner.estimator == "dice",
            credit=credit,
            runs=exploration.runs,
            rows=exploration.rows,
        )

    def close(self) -> None:
        """Release the environments."""
        for env in self.envs:
            env.close()


def explore_training(
    learners: Sequence[Learner], theta: Params, iteration: int, names: Sequence[str] = ()
) -> Exploration:
    """What ``Learner.explore_training`` does, for several learners that differ in the seed alone, as one batch.

    Args:
        learners: Of each run.
        theta: Theirs, (R, ...).
        iteration: Which one.
        names: What errors call the runs, where there are several.
    """
    config = learners[0].config
    own = ranks.share(config.tasks)
    tasks = torch.cat([learner.training_tasks(iteration)[own] for learner in learners])
    keys = torch.stack([learner.key(Purpose.TRAINING, iteration) for learner in learners])
    rows = TaskRows(own.start, own.stop - own.start, tuple(names))
    return learners[0].explore(theta, tasks, config.trained_episodes, keys, [1.0] * config.trained_steps, rows)


def _policy(config: Config, env: TaskEnv) -> Policy:
    settings = config.policy
    shared = (
        env.observation_space.shape[0],
        env.action_width,
        settings.hidden,
        settings.activation,
        settings.context,
    )
    if env.discrete:
        for key in ("init_std", "min_std"):
            if getattr(settings, key) != type(settings).model_fields[key].default:
                raise InputError(
                    f"policy.{key} = {getattr(settings, key)!r} with env = {config.env!r}: its actions are discrete, "
                    "which have no standard deviation; leave it out"
                )
        return CategoricalPolicy(*shared)
    return GaussianPolicy(*shared, settings.init_std, settings.min_std)


def environments(
    config: Config, copies: int | None = None, drawn: bool = False, device: torch.device | None = None
) -> list[TaskEnv]:
    """Make the copies of the environment that a configuration names; for the oracle they tell the task.

    One that is ``drawn`` is made so that it can draw itself, in this process. Without a device it is on the CPU.
    """
    vector = VectorOptions(**config.vector.model_dump())
    mode = None
    if drawn:
        vector, mode = vector._replace(workers=None, worker_timeout=None), "rgb_array"
    make = partial(maml_envs.make, config.env, config.preset, config.horizon, vector, mode, device)
    made = maml_envs.make_copies(make, copies)
    return [ToldTask(env) for env in made] if config.method == "oracle" else made


def build(config: Config) -> Learner:
    """Make the environments, policy and losses that a configuration names, and give torch its threads.

    The learner's configuration has the preset and horizon that were left to the environment.

    Raises:
        InputError: Something it names does not exist or breaks its contract.
    """
    device = set_up(config.device, config.threads)
    # A GPU that was asked for simulates too, or says what to install; one that was found does what it can.
    where = maml_envs.device_of(config.env, device) if config.device == "auto" else device
    made = environments(config, device=where)
    policy = _policy(config, made[0])
    adapted = {"all": None, "last": policy.head, "context": frozenset({CONTEXT})}[config.inner.adapt]
    rates = Rates(config.inner.lr, adapted, config.inner.learn_lr and config.trained_steps > 0)
    # A clipped step moves theta several times: its ratios are to the policy that sampled (ProMP, section 6).
    loss = inner_loss(policy, config.inner.estimator, recorded=config.outer.name == "promp")
    preset = config.preset or next(iter(maml_envs.family(config.env).presets), None)
    config = config.model_copy(update={"preset": preset, "horizon": made[0].horizon})
    return Learner(config, made, policy, loss, rates, device)
