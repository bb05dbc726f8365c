"""The configuration of meta-reinforcement learning.

A hyper-parameter is one line: its key in a TOML file, flag, help and log entry.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, Strict

from maml_rl.config.base import (
    LOGGER,
    METHODS,
    NO_STEPS,
    NOT_EVALUATED,
    LoggerNames,
    Section,
    Stop,
    Whole,
    only,
    resumable,
    stands_in,
    unused,
)


class Policy(Section):
    """The policy: a perceptron, Gaussian or, for discrete actions, categorical."""

    hidden: tuple[PositiveInt, ...] = Field((64, 64), strict=False, description="Widths of the hidden layers")
    activation: Literal["tanh", "relu"] = Field("tanh", description="Non-linearity of the hidden layers")
    network: str | None = Field(
        None, description="A torch.nn.Module in place of the perceptron, 'my_module:MyNetwork'; None: the perceptron"
    )
    init_std: float = Field(1.0, gt=0, description="Standard deviation of actions at initialisation")
    min_std: float = Field(1e-6, gt=0, description="Floor of the standard deviation")
    action_scale: float | None = Field(
        None,
        gt=0,
        description="Unit: the environment gets actions divided by this; None: the preset's, of robots 10 in gymnasium "
        "and promp",
    )
    observation_units: tuple[PositiveFloat, ...] | None = Field(
        None,
        strict=False,
        description="The policy gets the numbers of an observation divided by these, a list of one for all or one for "
        "each; an oracle's task and the baseline's observations are not divided; None: 1",
    )
    context: int = Field(0, ge=0, description="Width of a vector of parameters that joins every observation")


class Inner(Section):
    """The inner loop: adaptation to one task."""

    lr: float = Field(0.1, gt=0, description="Step size")
    steps: int = Field(1, ge=0, description="Gradient steps, at least 1")
    estimator: Literal["log_prob", "lvc", "dice"] = Field(
        "lvc", description="How the loss is differentiated twice; log_prob: the MAML paper's code"
    )
    first_order: bool = Field(False, description="Treat the inner gradient as a constant in the outer step")
    adapt: Literal["all", "last", "context"] = Field(
        "all", description="What adapts: all parameters, the last layer (ANIL), or policy.context (CAVIA)"
    )
    learn_lr: bool = Field(
        False, description="Learn a step size for every number that adapts, of either sign (Meta-SGD); lr is the start"
    )


class Outer(Section):
    """The outer step on the initial parameters."""

    name: Literal["trpo", "promp", "adam"] = Field("trpo", description="The outer optimiser")
    exploration: float = Field(
        0.0,
        ge=0,
        description="Weight of the E-MAML term: credit the episodes before adaptation with what came of them; 1 is "
        "exact, less is biased and less noisy",
    )
    max_kl: float = only("trpo", default=0.1, gt=0, description="largest mean KL(old || new) of the adapted policies")
    cg_iterations: int = only("trpo", default=10, ge=1, description="conjugate-gradient iterations")
    damping: float = only("trpo", default=0.1, ge=0, description="added to the Fisher matrix's diagonal")
    backtracks: int = only("trpo", default=15, ge=1, description="points that the line search tries")
    backtrack_ratio: float = only("trpo", default=0.8, gt=0, lt=1, description="factor between two tries")
    fisher_subsample: int = only(
        "trpo", default=3, ge=1, description="use every n-th step of the data in Fisher products"
    )
    lr: float = only("promp", "adam", default=1e-3, gt=0, description="step size")
    epochs: int = only("promp", default=5, ge=1, description="steps on the same data")
    clip: float = only("promp", default=0.3, gt=0, description="clip the surrogate's ratio to 1 +- this")
    inner_kl: float = only("promp", default=5e-4, ge=0, description="coefficient of the KL penalty before adaptation")
    inner_kl_target: float | None = only(
        "promp", default=None, gt=0, description="adapt the coefficient towards this KL; None: keep it"
    )


class Baseline(Section):
    """The baseline that advantages are taken against."""

    name: Literal["linear", "time", "value_network", "none"] = Field(
        "linear",
        description="Fitted to each task and rollout; time: linear without observations, for wide ones; value_network: "
        "by L-BFGS to other episodes than its own",
    )


class Evaluation(Section):
    """Adaptation to held-out tasks."""

    tasks: int = Field(40, ge=1, description="Held-out tasks")
    episodes: int = Field(20, ge=1, description="Episodes for each task and step")
    steps: int = Field(3, ge=0, description="Gradient steps")
    every: int = Field(0, ge=0, description="Also evaluate every n iterations of training; 0: never")
    film: bool = Field(False, description="With every: also a film of adaptation, for the loggers that play one")
    lr_after_first_step: float = Field(
        0.5, gt=0, description="Factor on the inner rate after the first step, or after the steps trained with if more"
    )


class Vector(Section):
    """gymnasium environments: how they are stepped, and tasks for them."""

    workers: int | None = resumable(None, ge=0, description="Processes that step them; None: this one, as 0")
    worker_timeout: float | None = resumable(
        None, ge=0.01, description="Seconds that a worker may take for an answer; None: 60"
    )
    worker_python: str | None = resumable(
        None, description="Python of another virtual environment that runs the workers; None: this one"
    )
    vector_size: int | None = resumable(
        None, ge=1, description="Most at once; episodes come in waves; a film has as many of its own; None: 64"
    )
    task_ranges: dict[str, Annotated[tuple[float, float], Strict(False)]] = Field(
        {}, description="Attributes that make the task, each uniform in a range"
    )


class Config(Whole):
    """Meta-reinforcement learning with MAML."""

    method: Literal["maml", "pretrained", "oracle", "random"] = Field(
        "maml",
        description="maml, or a baseline with the same budget: pretrained, one policy trained on all tasks alike; "
        "oracle, one that observes the task; random, one that is not trained",
    )
    env: str = Field(description="Environment: a name, module:Class for your own, gymnasium:ID or metaworld:NAME")
    env_options: dict[str, Any] = Field({}, description="Arguments of the environment's constructor")
    preset: str | None = Field(None, description="Definition of the task family; None: the family's first")
    horizon: int | None = Field(None, ge=1, description="Control steps in an episode; None: the environment's own")
    vector: Vector = Field(Vector(), description="gymnasium environments: how they are stepped, and tasks for them")
    tasks: int = Field(10, ge=1, description="Tasks in an iteration")
    episodes: int = Field(20, ge=1, description="Episodes for each task and rollout")
    iterations: int = resumable(500, ge=1, description="Outer steps")
    seed: int = Field(1, ge=0, lt=2**62, description="Every random number follows from it")
    device: str = resumable("auto", description="auto, cpu or cuda; auto is a GPU where all of the run works on it")
    threads: int = resumable(0, ge=0, description="CPU threads; 0: the physical cores, or a rank's share of them")
    logger: LoggerNames = LOGGER
    discount: float = Field(0.99, ge=0, le=1, description="Discount of rewards, per step")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="Lambda of generalised advantage estimation")
    bootstrap_on_truncation: bool = Field(False, description="Value after a time limit: the baseline's, instead of 0")
    normalise_advantages: bool = Field(True, description="To mean 0 and standard deviation 1 in each task")
    advantage_floor: float = Field(
        0.001,
        ge=0,
        description="Normalised advantages are divided by no less than this share of the returns' root mean square: "
        "what a solved task leaves is noise; 0: by their standard deviation, whatever it is",
    )
    compare_gradients: int = resumable(
        0, ge=0, description="Every n iterations, log the meta-gradient's noise and its cosine with others; 0: never"
    )
    policy: Policy = Field(Policy(), description="The policy")
    inner: Inner = Field(Inner(), description="The inner loop: adaptation to one task")
    outer: Outer = Field(Outer(), description="The outer step on the initial parameters")
    baseline: Baseline = Field(Baseline(), description="The baseline that advantages are taken against")
    evaluation: Evaluation = resumable(Evaluation(), description="Adaptation to held-out tasks")
    stop: Stop = resumable(Stop(), description="What ends training before its iterations")

    @property
    def trained_steps(self) -> int:
        """Inner steps in training: the baselines take none."""
        return self.inner.steps if METHODS[self.method].adapts else 0

    @property
    def exploration(self) -> float:
        """Weight of the E-MAML term in training: the baselines have nothing to explore for."""
        return self.outer.exploration if self.trained_steps else 0.0

    @property
    def trained_episodes(self) -> int:
        """Episodes for each task and rollout in training: a baseline has those of all of MAML's rollouts in one."""
        return self.episodes * (1 + self.inner.steps - self.trained_steps)

    def contradictions(self) -> Iterator[tuple[bool, str, str]]:
        """See ``Whole``."""
        return _contradictions(self)


def _contradictions(config: Config) -> Iterator[tuple[bool, str, str]]:
    inner, outer, policy, vector = config.inner, config.outer, config.policy, config.vector
    yield inner.steps == 0, *NO_STEPS
    yield config.stop.at is not None and not config.evaluation.every, *NOT_EVALUATED
    yield (
        config.evaluation.film and not config.evaluation.every,
        "evaluation.film with evaluation.every = 0",
        "there is no evaluation in training to film; give evaluation.every, or use `maml-rl render` on the run",
    )
    yield (
        config.exploration > 0 and config.tasks % 2 == 1,
        f"outer.exploration with tasks = {config.tasks}",
        "each task is explored twice, and what one reached is compared with the other; give an even number of tasks",
    )
    yield (
        config.exploration > 0 and inner.estimator != "log_prob" and not inner.first_order,
        f"outer.exploration with inner.estimator = {inner.estimator!r}",
        "its second derivatives have the effect of theta on the episodes before adaptation already, which would count "
        "twice; use inner.estimator = 'log_prob', or leave exploration out",
    )
    yield (
        config.bootstrap_on_truncation and config.baseline.name == "none",
        "bootstrap_on_truncation with baseline.name = 'none'",
        "the value after a time limit is the baseline's; use baseline.name = 'linear', or leave it out",
    )
    alone = [name for name, n in (("", config.trained_episodes), ("evaluation.", config.evaluation.episodes)) if n < 2]
    yield (
        bool(alone) and config.baseline.name == "value_network",
        f"baseline.name = 'value_network' with {''.join(alone[:1])}episodes = 1",
        "a task's episodes are predicted from its others; give at least 2, or use baseline.name = 'linear'",
    )
    yield (
        policy.min_std > policy.init_std,
        f"policy.min_std = {policy.min_std!r} above policy.init_std = {policy.init_std!r}",
        "the standard deviation would start below its floor and never move; give a lower min_std",
    )
    yield (
        vector.worker_python is not None and vector.workers == 0,
        f"vector.worker_python = {vector.worker_python!r} with vector.workers = 0",
        "another Python is another process; give 1 or more workers, or leave workers out",
    )
    yield (
        vector.worker_timeout is not None and not vector.workers and vector.worker_python is None,
        f"vector.worker_timeout = {vector.worker_timeout} with vector.workers = {vector.workers or 0}",
        "no worker could take that long; leave it out, or give workers",
    )
    theirs = ("hidden", "activation", "context")
    yield from stands_in(policy, "policy", "network", theirs, "it is the perceptron's, which there is not")
    yield (
        inner.adapt == "last" and not policy.hidden,
        "inner.adapt = 'last' with policy.hidden = []",
        "the last layer is the whole policy; use inner.adapt = 'all', or add a hidden layer",
    )
    yield (
        inner.adapt == "context" and not policy.context,
        "inner.adapt = 'context' with policy.context = 0",
        "give the context a width, such as policy.context = 5",
    )
    yield (
        inner.adapt == "last" and policy.context > 0,
        "inner.adapt = 'last' with policy.context > 0",
        "the context would never change; use inner.adapt = 'context' or policy.context = 0",
    )
    yield (
        outer.inner_kl_target is not None and outer.inner_kl == 0,
        "outer.inner_kl_target with outer.inner_kl = 0",
        "doubling and halving keep 0; give inner_kl a value to start from",
    )
    yield from unused(outer, "outer", outer.name)
