"""Few-shot tasks from a torch or torchvision dataset of examples with their labels."""

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from maml_envs import InputError
from maml_rl.supervised.labelled import LabelledTasks, as_tensor
from maml_rl.supervised.splits import Classes


class Dataset(Protocol):
    """A length, and an example with its label for each index: a map-style ``torch.utils.data.Dataset``."""

    def __len__(self) -> int:
        """The number of examples."""

    def __getitem__(self, index: int, /) -> Any:  # noqa: ANN401  checked below
        """Return an example with its label."""


def from_dataset(
    dataset: Dataset,
    ways: int = 5,
    shots: int = 1,
    queries: int = 15,
    classes: Classes = None,
    rotate: bool = False,
) -> LabelledTasks:
    """Make tasks from a map-style dataset, whose examples are all read, once.

    Examples are tensors or arrays of one shape, or Pillow's images of one size, which become (channels, height, width).
    Its transforms are applied once: random ones are not drawn anew. The other arguments are ``LabelledTasks``'.

    Raises:
        InputError: It does not give examples of one shape with a label each, or there are too few.
    """
    name, labels = type(dataset).__name__, []
    examples: list[Tensor] = []
    for index in range(len(dataset)):
        item = dataset[index]
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise InputError(f"{name}[{index}] is {item!r:.80}: it has to be an example with its label, a pair")
        example, label = _example(item[0], f"{name}[{index}]"), item[1]
        if examples and (example.shape, example.dtype) != (examples[0].shape, examples[0].dtype):
            first, here = (f"{one.dtype} {tuple(one.shape)}".removeprefix("torch.") for one in (examples[0], example))
            raise InputError(f"{name}[{index}] is {here} and the first is {first}: resize or convert in its transform")
        examples.append(example)
        labels.append(_label(label, f"{name}[{index}]"))
    if not examples:
        raise InputError(f"{name} is empty")
    return LabelledTasks(torch.stack(examples), labels, ways, shots, queries, classes, rotate)


def _label(value: object, where: str) -> object:
    label = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value)
    if label.size != 1:
        raise InputError(
            f"{where} has the label {value!r:.80}: it has to be one whole number or word; of a one-hot one, give the "
            "argmax in its target_transform"
        )
    return label.item()


def _example(value: object, where: str) -> Tensor:
    if hasattr(value, "getbands"):  # an image of Pillow's
        pixels = np.asarray(value)
        value = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return as_tensor(value, where)
