"""A few-shot configuration made real: its tasks, model and loss; the meta-gradient, and how it is seeded."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.nn import functional

from maml_envs import InputError
from maml_rl.config.few_shot import FewShotConfig
from maml_rl.config.toml import with_seed
from maml_rl.core.adapt import Rates, adapt, inner_step
from maml_rl.core.streams import Purpose, key
from maml_rl.core.task_axis import TaskRows, check_gradient, mean_over_ranks
from maml_rl.core.tree import Params, Rate, Tree, map_tensors
from maml_rl.machine import ranks
from maml_rl.machine.device import set_up
from maml_rl.machine.threads import side_by_side
from maml_rl.supervised import models
from maml_rl.supervised.registry import make
from maml_rl.supervised.tasks import Examples, FewShotTasks, TaskBatch


def loss_of(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy for classes, mean squared error for values."""
    if targets.is_floating_point():
        return functional.mse_loss(outputs, targets)
    return functional.cross_entropy(outputs, targets)


@dataclass(frozen=True)
class FewShotLearner:
    """Everything that a configuration names, ready to adapt.

    Attributes:
        config: The configuration.
        data: The distribution of tasks.
        module: The model, whose own parameters are never used.
        trained: What theta is of: the model, or with method = "pretrained" a classifier of all training classes that
            is like it but for its last layer.
        rates: The inner rates in theta.
        device: Where it computes.
    """

    config: FewShotConfig
    data: FewShotTasks
    module: nn.Module
    trained: nn.Module
    rates: Rates
    device: torch.device

    def _generator(self, purpose: Purpose, iteration: int = 0) -> torch.Generator:
        return torch.Generator().manual_seed(int(key(self.config.seed, purpose, iteration)))

    def initial_params(self) -> Params:
        """Theta before training."""
        return self._initial(self.trained)

    def with_seed(self, seed: int) -> Self:
        """The same with another seed."""
        return replace(self, config=with_seed(self.config, seed))

    def _initial(self, module: nn.Module) -> Params:
        drawn = models.initial(module, self.config.model.init, self._generator(Purpose.INITIALISATION))
        return {name: value.to(self.device) for name, value in self.rates.init(drawn).items()}

    def start(self, theta: Params) -> Params:
        """Theta as a task adapts it: the last layer of a classifier of all training classes makes way for a new one."""
        if self.trained is self.module:
            return theta
        new = self._initial(self.module)
        return theta | {name: new[name] for name in models.head(self.module)}

    def training_tasks(self, iteration: int) -> TaskBatch:
        """This rank's tasks of an iteration; to pretrain a classifier, as many examples of all classes at once."""
        config, generator = self.config, self._generator(Purpose.TASKS, iteration)
        if self.trained is not self.module:
            size = config.ways * (config.shots + config.queries)
            examples = self.data.sample_examples((config.tasks, size), generator)
            drawn = TaskBatch(examples, examples)
        else:
            drawn = self.data.sample_tasks(config.tasks, generator)
        own = ranks.share(config.tasks)
        batch: TaskBatch = map_tensors(lambda x: x[own].to(self.device), drawn)
        return batch

    def loss(self, params: Params, examples: Examples) -> Tensor:
        """The loss of one task's examples."""
        return loss_of(models.predict(self.module, params, examples.inputs), examples.targets)

    def adaptation(self, params: Params, support: Examples, lr: Rate, steps: int) -> Iterator[Params]:
        """One task's parameters after 0, 1, ..., steps gradient steps on the same support set."""
        yield params
        for _ in range(steps):
            params = inner_step(self.loss, params, support, lr)
            yield params

    def close(self) -> None:
        """Hold nothing."""

    def objective(self, theta: Params, batch: TaskBatch) -> Tensor:
        """The query loss of one task after the inner loop."""
        params, lr = self.rates.split(theta)
        supports = [batch.support] * self.config.trained_steps
        return self.loss(adapt(self.loss, params, supports, lr, self.config.inner.first_order), batch.query)

    def gradient(self, theta: Params, batch: TaskBatch) -> tuple[Tensor, Params]:
        """Query loss after adaptation, mean over tasks, and its gradient in theta through the inner loop.

        For Reptile, theta minus the adapted parameters, mean over tasks (Nichol et al. 2018, equation 7), where all
        examples of a task, support and query, are what it adapts to.
        """

        def of_slice(tasks: TaskBatch) -> tuple[Tensor, Params]:
            leaves = {name: value.detach().requires_grad_() for name, value in theta.items()}
            total = self.each(lambda task: self.objective(leaves, task), tasks).sum()
            gradient = torch.autograd.grad(total, list(leaves.values()), materialize_grads=True)
            return total.detach(), dict(zip(leaves, gradient, strict=True))

        def reptile(tasks: TaskBatch) -> tuple[Tensor, Params]:
            params, lr = self.rates.split(theta)

            def one(task: TaskBatch) -> tuple[Tensor, Params]:
                joined = Examples(*(torch.cat(pair) for pair in zip(task.support, task.query, strict=True)))
                adapted = adapt(self.loss, params, [joined] * self.config.inner.steps, lr)
                return self.loss(adapted, joined), {name: params[name] - adapted[name] for name in params}

            with torch.no_grad():
                total: tuple[Tensor, Params] = map_tensors(lambda x: x.sum(0), self.each(one, tasks))
            return total

        chosen = reptile if self.config.outer.name == "reptile" else of_slice
        count = len(batch.query.targets)

        def of_task(task: int) -> Params:
            loss, gradient = chosen(map_tensors(lambda x: x[task : task + 1], batch))
            return gradient | {"the query loss": loss}

        def of_this_rank() -> tuple[Tensor, Params]:
            sums = side_by_side(chosen, self.slices(batch))
            loss, gradient = map_tensors(lambda *parts: sum(parts) / count, *sums)
            first = ranks.share(self.config.tasks).start
            try:
                check_gradient(gradient | {"the query loss": loss}, of_task, count, TaskRows(first))
            except FloatingPointError:
                _check_data(batch, first)
                raise
            return loss, gradient

        found: tuple[Tensor, Params] = mean_over_ranks(ranks.agreed(of_this_rank), count)
        return found

    @property
    def _one_by_one(self) -> bool:
        # On a CPU a convolution with weights of its own for each task is slower mapped over tasks than in a loop.
        return self.device.type == "cpu" and self.config.model.name == "convolutional"

    def slices(self, batch: TaskBatch) -> list[TaskBatch]:
        """The tasks in pieces to work on side by side."""
        if not self._one_by_one:
            return [batch]
        return [map_tensors(lambda x, k=k: x[k : k + 1], batch) for k in range(len(batch.query.targets))]

    def each(self, function: Callable[[TaskBatch], Tree], tasks: TaskBatch) -> Tree:
        """A function of one task, for each task of a slice."""
        if len(tasks.query.targets) == 1:
            one = function(map_tensors(lambda x: x[0], tasks))
            return map_tensors(lambda x: x.unsqueeze(0), one)
        return vmap(function)(tasks)


def _check_data(batch: TaskBatch, first: int) -> None:
    """Refuse examples that are not finite; errors call the first of these tasks ``first``."""
    for part, examples in batch._asdict().items():
        for name, values in examples._asdict().items():
            bad = ~values.isfinite().flatten(1).all(1)
            if bad.any():
                raise FloatingPointError(
                    f"{name} in the {part} set of task {first + int(bad.nonzero()[0])} hold NaN or infinity: look at "
                    "what makes the data"
                )


def build(config: FewShotConfig) -> FewShotLearner:
    """Make the tasks and the model that a configuration names, and give torch its threads.

    Raises:
        InputError: Something it names does not exist or is not what it should be.
    """
    device = set_up(config.device, config.threads)
    data = make(config)
    inputs, targets = data.sample_tasks(1, torch.Generator().manual_seed(0)).support
    outputs = targets.shape[-1] if targets.is_floating_point() else int(targets.max()) + 1
    chosen = config.model
    if chosen.name == "convolutional" and inputs.dim() != 5:
        raise InputError(
            f"model.name = 'convolutional' with inputs of shape {tuple(inputs.shape[2:])}: it takes images (channels, "
            "height, width); use model.name = 'perceptron'"
        )

    def network(outputs: int) -> nn.Module:
        return models.network(chosen.name, inputs.shape[2:], outputs, chosen.hidden, chosen.batch_norm)

    module = trained = network(outputs)
    if config.method == "pretrained" and not targets.is_floating_point():
        data.sample_examples((1, 1), torch.Generator())  # says what is missing
        if data.training_classes < 2:
            raise InputError(
                f"{type(data).__name__}.training_classes = {data.training_classes}: give the number of classes that "
                "its sample_examples tells apart"
            )
        trained = network(data.training_classes)
    adapted = models.head(module) if config.inner.adapt == "last" else None
    rates = Rates(config.inner.lr, adapted, config.inner.learn_lr and config.trained_steps > 0)
    return FewShotLearner(config, data, module, trained, rates, device)
