"""A few-shot configuration made real: its tasks, model and loss; the meta-gradient, and how it is seeded."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from maml_envs import InputError
from maml_rl.config.base import METHODS
from maml_rl.config.few_shot import FewShotConfig
from maml_rl.config.toml import with_seed
from maml_rl.core.adapt import InnerLoop, Loss, Rates
from maml_rl.core.streams import Purpose, key
from maml_rl.core.task_axis import TaskAxis
from maml_rl.core.tree import Params, Rate, map_tensors
from maml_rl.machine.device import choose_device
from maml_rl.supervised import models
from maml_rl.supervised.contract import check_tasks
from maml_rl.supervised.models import StandardModel
from maml_rl.supervised.own_model import OwnModel
from maml_rl.supervised.registry import make, with_classes
from maml_rl.supervised.tasks import AtStep, Examples, FewShotTasks, TaskBatch

Model = StandardModel | OwnModel

LEAST = 0.03
"""Share of an earlier step's first weight that MAML++ keeps."""


def step_weights(steps: int, iteration: int, fading: int) -> tuple[float, ...]:
    """Weights of the query losses after each of the inner steps (Antoniou et al. 2019, equation 4); empty: the last.

    They are equal at first; those of earlier steps fade to 3 % of that in ``fading`` iterations, and are left out then.
    """
    if iteration >= fading or steps < 2:
        return ()
    earlier = max(1 - iteration / fading, LEAST) / steps
    return (*[earlier] * (steps - 1), 1 - (steps - 1) * earlier)


def loss_of(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy for classes, mean squared error for values."""
    if targets.is_floating_point():
        return functional.mse_loss(outputs, targets)
    return functional.cross_entropy(outputs, targets)


def at_step(params: Params, step: int, of_steps: frozenset[str]) -> Params:
    """Return a model's parameters of an inner step: row ``step`` of those that each step has its own of, or the last.

    Args:
        params: One task's.
        step: Counted from 0.
        of_steps: Names of those that have a row for each step.
    """
    return params | {name: params[name][min(step, len(params[name]) - 1)] for name in of_steps}


def loss_with(module: nn.Module, of_steps: frozenset[str] = frozenset()) -> Loss[AtStep]:
    """Return the loss of one task's examples at an inner step as a function of parameters; see ``at_step``."""

    def loss(params: Params, batch: AtStep) -> Tensor:
        own = at_step(params, batch.step, of_steps)
        return loss_of(models.predict(module, own, batch.examples.inputs), batch.examples.targets)

    return loss


@dataclass(frozen=True)
class FewShotLearner:
    """Everything that a configuration names, ready to adapt.

    Attributes:
        config: The configuration.
        data: The distribution of tasks.
        model: Makes models of any number of outputs.
        module: The one that adapts, whose own parameters are never used.
        trained: What theta is of: the model, or with method = "pretrained" a classifier of all training classes that
            is like it but for its last layer.
        inner: The inner loop.
        device: Where it computes.
        shape: Of one input.
        outputs: Width of the model's output: values, or classes of a task.
        of_values: True for regression.
        of_steps: Names of the parameters that have a row for each inner step: MAML++'s batch norm.
        weights: Of the query losses after each inner step in training; empty for the last one alone.
    """

    config: FewShotConfig
    data: FewShotTasks
    model: Model
    module: nn.Module
    trained: nn.Module
    inner: InnerLoop[AtStep]
    device: torch.device
    shape: tuple[int, ...]
    outputs: int
    of_values: bool
    of_steps: frozenset[str] = frozenset()
    weights: tuple[float, ...] = ()

    def _generator(self, purpose: Purpose, iteration: int = 0) -> torch.Generator:
        return torch.Generator().manual_seed(int(key(self.config.seed, purpose, iteration)))

    @property
    def pretrains(self) -> bool:
        """Return whether theta is of a classifier of all training classes."""
        return METHODS[self.config.method].tunes and not self.of_values

    def initial_params(self) -> Params:
        """Theta before training."""
        return self._initial(self.data.training_classes if self.pretrains else self.outputs)

    def with_seed(self, seed: int) -> Self:
        """The same with another seed."""
        return replace(self, config=with_seed(self.config, seed))

    def _initial(self, outputs: int) -> Params:
        drawn = self.model.init(outputs, self._generator(Purpose.INITIALISATION))
        if self.config.model.shared_head and not self.of_values:
            drawn |= {name: drawn[name][:1] for name in self.model.head}
        drawn |= {name: drawn[name].repeat(self.config.trained_steps, 1) for name in self.of_steps}
        return {name: value.to(self.device) for name, value in self.inner.rates.init(drawn).items()}

    def at(self, iteration: int) -> Self:
        """Return the same as it trains in an iteration: MAML++'s first order at first, and weights of its losses."""
        config = self.config
        first = config.inner.first_order or iteration < config.inner.first_order_until
        weights = step_weights(config.trained_steps, iteration, config.outer.multi_step)
        return replace(self, inner=replace(self.inner, first_order=first), weights=weights)

    def outer_lr(self, iteration: int) -> float:
        """Return the outer step size of an iteration: as it is, or down a cosine to the last of all."""
        outer, last = self.config.outer, max(1, self.config.iterations - 1)
        if outer.schedule == "constant":
            return outer.lr
        return outer.final_lr + (outer.lr - outer.final_lr) * (1 + math.cos(math.pi * min(1, iteration / last))) / 2

    def spread(self, theta: Params, ways: int | None = None) -> Params:
        """Theta with a last layer for each class, which all have the same start if it is shared."""
        if not self.config.model.shared_head or self.of_values:
            return theta
        ways = ways or self.outputs
        return theta | {name: theta[name].expand(ways, *theta[name].shape[1:]) for name in self.model.head}

    def start(self, theta: Params, ways: int | None = None) -> Params:
        """Theta as a task adapts it: the last layer of a classifier of all training classes makes way for a new one."""
        if not self.pretrains:
            return self.spread(theta, ways)
        new = self._initial(self.outputs)
        return theta | {name: new[name] for name in self.model.head}

    def training_tasks(self, iteration: int) -> TaskBatch:
        """This rank's tasks of an iteration; to pretrain, all their examples, or as many of all classes at once."""
        config, generator = self.config, self._generator(Purpose.TASKS, iteration)
        if self.pretrains:
            size = config.ways * (config.shots + config.queries)
            examples = self.data.sample_examples((config.tasks, size), generator)
            drawn = TaskBatch(examples, examples)
        else:
            drawn = self.data.sample_tasks(config.tasks, generator)
            if not config.trained_steps:
                drawn = TaskBatch(drawn.support, drawn.joined())
        own = TaskAxis.of_this_rank(config.tasks).own
        return self.here(map_tensors(lambda x: x[own], drawn))

    def here(self, batch: TaskBatch) -> TaskBatch:
        """Return tasks as the model takes them: on its device, floating-point numbers in 32 bits."""
        found: TaskBatch = map_tensors(
            lambda x: x.to(self.device, torch.float32) if x.is_floating_point() else x.to(self.device), batch
        )
        return found

    def adaptation(
        self, params: Params, support: Examples, lr: Rate, steps: int, backtracks: int = 0
    ) -> Iterator[Params]:
        """Yield a model's parameters for one task after 0, 1, ..., steps gradient steps on the same support set.

        The steps are careful ones (``InnerLoop.careful_step``) where there are ``backtracks``. Parameters that each
        step has its own of are those of the last step that was taken (Antoniou et al. 2019).
        """
        path = self.inner.path(params, [AtStep(support, step) for step in range(steps)], lr, backtracks)
        for taken, own in enumerate(path):
            yield at_step(own, max(0, taken - 1), self.of_steps)

    def loss(self, params: Params, examples: Examples) -> Tensor:
        """Return the loss of one task's examples with a model's parameters."""
        return loss_of(models.predict(self.module, params, examples.inputs), examples.targets)

    @property
    def loop(self) -> bool:
        """True where tasks are looped over."""
        return self.model.loop

    def notes(self) -> list[str]:
        """Return nothing."""
        return []

    def close(self) -> None:
        """Hold nothing."""


def _model(config: FewShotConfig, shape: tuple[int, ...], outputs: int, device: torch.device) -> Model:
    """Make what makes models, and see that it can what is asked of it.

    Raises:
        InputError: It cannot.
    """
    chosen, name = config.model, f"model.network = {config.model.network!r}"
    if chosen.network is None:
        return StandardModel(chosen, shape, device)
    model = OwnModel(chosen.network, shape, outputs, device)
    if chosen.norm_per_step and not model.norms:
        raise InputError(f"model.norm_per_step = true with {name}: it has no batch norm with a scale; leave it out")
    parameters = dict(model.module(outputs).named_parameters())
    if chosen.shared_head and {parameters[key].shape[:1] for key in model.head} != {(outputs,)}:
        raise InputError(
            f"model.shared_head = true with {name}: its last layer ({', '.join(sorted(model.head))}) does not have a "
            "row for each class; end it with torch.nn.Linear(..., outputs), or leave shared_head out"
        )
    return model


def _refuse_kept(name: str | None, head: frozenset[str], module: nn.Module, trained: nn.Module, classes: int) -> None:
    """Refuse to pretrain a model of which more than its last layer is of so many classes."""
    new, old = ({key: x.shape for key, x in each.named_parameters()} for each in (module, trained))
    kept = sorted(key for key in (new.keys() | old.keys()) - head if new.get(key) != old.get(key))
    if kept:
        raise InputError(
            f"method = 'pretrained' with model.network = {name!r}: {', '.join(kept)} would keep the shape of {classes} "
            f"training classes, as the last layer alone ({', '.join(sorted(head))}) is made anew for a task: let no "
            "other layer's shape go with outputs"
        )


def _refuse_permutations(config: FewShotConfig, outputs: int, of_values: bool) -> None:
    count = config.evaluation.permutations
    if count > 1 and of_values:
        raise InputError(f"evaluation.permutations = {count} with values to predict: they have no labels; leave it out")
    if count > math.factorial(outputs):
        raise InputError(
            f"evaluation.permutations = {count} with {outputs} ways: their labels have {math.factorial(outputs)} "
            "orders; ask for at most as many"
        )


def build(config: FewShotConfig) -> FewShotLearner:
    """Make the tasks and the model that a configuration names.

    Raises:
        InputError: Something it names does not exist or is not what it should be.
    """
    device, config = choose_device(config.device), with_classes(config)
    data = make(config)
    inputs, targets = check_tasks(data, config.model.name == "convolutional").support
    outputs = targets.shape[-1] if targets.is_floating_point() else int(targets.max()) + 1
    shape, of_values = tuple(inputs.shape[2:]), targets.is_floating_point()
    if of_values and config.model.shared_head:
        raise InputError("model.shared_head = true with values to predict: it is for classes; leave it out")
    _refuse_permutations(config, outputs, of_values)
    model = _model(config, shape, outputs, device)
    module = trained = model.module(outputs)
    if METHODS[config.method].tunes and not of_values:
        data.sample_examples((1, 1), torch.Generator())  # says what is missing
        if data.training_classes < 2:
            raise InputError(
                f"{type(data).__name__}.training_classes = {data.training_classes}: give the number of classes that "
                "its sample_examples tells apart"
            )
        trained = model.module(data.training_classes)
        _refuse_kept(config.model.network, model.head, module, trained, data.training_classes)
    of_steps = model.norms if config.model.norm_per_step and config.trained_steps else frozenset()
    adapted = model.head if config.inner.adapt == "last" else None
    if of_steps and adapted is None:
        adapted = frozenset(name for name, _ in module.named_parameters()) - of_steps
    inner_steps = config.trained_steps if config.inner.lr_per_step else 0
    learned, whole = config.inner.learn_lr and config.trained_steps > 0, config.inner.lr_of == "layer"
    rates = Rates(config.inner.lr, adapted, learned, whole, inner_steps)

    inner = InnerLoop(loss_with(module, of_steps), rates, config.inner.first_order, mapped=not model.loop)
    return FewShotLearner(
        config, data, model, module, trained, inner, device, shape, outputs, of_values, of_steps=of_steps
    )
