"""A trained few-shot model: adapt it to a few examples, and predict."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from maml_envs import InputError
from maml_rl.core.tree import Params
from maml_rl.machine.export import save_module
from maml_rl.supervised.labelled import as_classes, as_tensor, scaled
from maml_rl.supervised.learner import FewShotLearner
from maml_rl.supervised.tasks import Examples


def _checked(inputs: ArrayLike | Tensor, shape: tuple[int, ...], what: str) -> Tensor:
    """Return inputs (n, *shape) as floating-point numbers.

    Raises:
        InputError: They are of another shape, none, or not finite.
    """
    given = as_tensor(inputs, "inputs")
    given = scaled(given) if len(shape) > 1 else given.float()
    if tuple(given.shape[1:]) != shape or not len(given):
        raise InputError(f"inputs have shape {tuple(given.shape)}: give ({what}, {', '.join(map(str, shape))})")
    if not bool(given.isfinite().all()):
        raise InputError("inputs hold NaN or infinity")
    return given


class AdaptedModel:
    """A model that has adapted to a few examples.

    Attributes:
        module: The network as a plain ``torch.nn.Module``, from inputs (n, *shape), float32, to logits or values.
        classes: What the labels of the examples call the classes, in the order of the logits; empty for values.
        shape: Of one input.
    """

    def __init__(self, learner: FewShotLearner, params: Params, support: Tensor, classes: Sequence[object]) -> None:
        wide = len(classes) if learner.config.model.shared_head and classes else learner.outputs
        self.module = learner.model.restored(wide, params)
        self.classes = list(classes)
        self.shape = learner.shape
        self._support = support if learner.model.of_batch else None

    def _outputs(self, inputs: ArrayLike | Tensor) -> Tensor:
        given = _checked(inputs, self.shape, "n")
        with torch.no_grad():
            if self._support is None:
                outputs: Tensor = self.module(given)
                return outputs
            return torch.stack([self.module(torch.cat([self._support, one.unsqueeze(0)]))[-1] for one in given])

    def predict(self, inputs: ArrayLike | Tensor) -> Any:  # noqa: ANN401  labels as they were given, or values
        """Return a label for each input, of those of the examples; or values (n, outputs), as a numpy array.

        With batch norm each input is seen beside the examples alone, so that it does not matter what else is asked.
        """
        outputs = self._outputs(inputs)
        if not self.classes:
            return outputs.numpy()
        return [self.classes[k] for k in outputs[:, : len(self.classes)].argmax(-1).tolist()]

    def probabilities(self, inputs: ArrayLike | Tensor) -> NDArray[np.float32]:
        """Return the probability of each class (n, classes), in the order of ``classes``.

        Raises:
            InputError: It predicts values.
        """
        if not self.classes:
            raise InputError("probabilities of values: this run is regression, use predict")
        found: NDArray[np.float32] = self._outputs(inputs)[:, : len(self.classes)].softmax(-1).numpy()
        return found

    def save(self, path: Path | str) -> Path:
        """Write the module to a file: PATH.pt2 by ``torch.export``, PATH.onnx as ONNX (extra ``onnx``).

        With batch norm its statistics are those of the batch that it is given.

        Raises:
            InputError: The name ends otherwise, the file is there already, or a package is missing.
        """
        return save_module(self.module, torch.zeros(2, *self.shape), path, ("inputs", "outputs"))


class FewShotAgent:
    """Meta-trained parameters that adapt to a few examples.

    Attributes:
        learner: What they are of.
        theta: The parameters.
    """

    def __init__(self, learner: FewShotLearner, theta: Params) -> None:
        self.learner, self.theta = learner, theta

    def adapt(self, inputs: ArrayLike | Tensor, targets: ArrayLike | Tensor, steps: int | None = None) -> AdaptedModel:
        """Take gradient steps on the examples of one task.

        Args:
            inputs: (n, *shape), a tensor or array, scaled as the training data were; bytes of pictures are divided by
                255, as ``LabelledTasks`` does.
            targets: (n,) labels, whole numbers or words, of at most as many classes as in training (with
                ``model.shared_head`` of any number); or values (n, outputs), for one output also (n,).
            steps: Gradient steps; None for ``evaluation.steps``.

        Raises:
            InputError: They do not fit the model.
        """
        steps = self.learner.config.evaluation.steps if steps is None else steps
        if steps < 0:
            raise InputError(f"steps = {steps}: give 0 or more")
        given = _checked(inputs, self.learner.shape, "examples")
        wanted, classes = self._targets(targets)
        if len(wanted) != len(given):
            raise InputError(f"{len(given)} inputs with {len(wanted)} targets: give one target for each")
        device = self.learner.device
        support = Examples(given.to(device), wanted.to(device))
        params, rate = self.learner.inner.rates.split(self.learner.start(self.theta, len(classes) or None))
        *_, adapted = self.learner.adaptation(params, support, rate, steps, self.learner.config.evaluation.backtracks)
        own = {name: value.detach().cpu() for name, value in adapted.items()}
        return AdaptedModel(self.learner, own, given, classes)

    def _targets(self, targets: ArrayLike | Tensor) -> tuple[Tensor, list[object]]:
        outputs = self.learner.outputs
        if not self.learner.of_values:
            which, kinds = as_classes(targets)
            if len(kinds) > outputs and not self.learner.config.model.shared_head:
                raise InputError(f"the targets are {len(kinds)} classes: this model tells at most {outputs} apart")
            return which, kinds
        values = as_tensor(targets, "targets").float()
        values = values.unsqueeze(-1) if values.dim() == 1 and outputs == 1 else values
        if values.dim() != 2 or values.shape[1] != outputs:
            raise InputError(f"targets have shape {tuple(values.shape)}: give (examples, {outputs})")
        if not bool(values.isfinite().all()):
            raise InputError("targets hold NaN or infinity")
        return values, []

    def close(self) -> None:
        """Hold nothing."""

    def __enter__(self) -> "FewShotAgent":
        """The agent."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Hold nothing."""
