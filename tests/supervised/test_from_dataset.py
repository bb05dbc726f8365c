"""Few-shot tasks from torch's and torchvision's kind of dataset."""

from typing import Any

import numpy as np
import pytest
import torch
from few_shot import blobs
from PIL import Image
from torch.utils.data import Dataset, TensorDataset

from maml_envs import InputError
from maml_rl.core.tree import leaves
from maml_rl.supervised import LabelledTasks, from_dataset


class Listed(Dataset[Any]):
    """Whatever is in a list."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def same(one: LabelledTasks, other: LabelledTasks) -> bool:
    batches = [tasks.sample_tasks(3, torch.Generator().manual_seed(0)) for tasks in (one, other)]
    return all(torch.equal(a, b) for a, b in zip(*map(leaves, batches), strict=True))


def test_a_tensor_dataset_is_its_tensors() -> None:
    examples, labels = blobs()
    assert same(from_dataset(TensorDataset(examples, labels), 3, 2, 3), LabelledTasks(examples, labels, 3, 2, 3))


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_images_become_channels_height_width(mode: str) -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (60, 5, 7, *([3] * (mode == "RGB"))), dtype=np.uint8)
    names = [f"class {k // 6}" for k in range(60)]
    tasks = from_dataset(
        Listed([(Image.fromarray(one), name) for one, name in zip(pixels, names, strict=True)]), 2, 1, 2, (6, 2, 2)
    )
    arrays = pixels.transpose(0, 3, 1, 2) if mode == "RGB" else pixels[:, None]
    assert same(tasks, LabelledTasks(arrays, names, 2, 1, 2, (6, 2, 2)))
    assert tasks.sample_tasks(1, torch.Generator()).support.inputs.max() <= 1


@pytest.mark.parametrize("label", [int, np.int64, torch.tensor, str], ids=["int", "numpy", "tensor", "word"])
def test_labels_of_any_kind(label: Any) -> None:
    examples, labels = blobs()
    items = [(one, label(int(which))) for one, which in zip(examples, labels, strict=True)]
    assert len(from_dataset(Listed(items), 3, 2, 3).split["training"]) == 21


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([], "Listed is empty"),
        ([torch.zeros(3)], r"Listed\[0\] is tensor.*has to be an example with its label, a pair"),
        (
            [(torch.zeros(3), 0), (torch.zeros(4), 1)],
            r"Listed\[1\] is float32 \(4,\) and the first is float32 \(3,\)",
        ),
        ([(torch.zeros(3), torch.tensor([0, 1]))], r"Listed\[0\] has the label tensor.*give the argmax in its target"),
        ([(torch.zeros(3), ["a", "b"])], r"Listed\[0\] has the label \['a', 'b'\]: it has to be one whole number or"),
        ([("text", 0)], r"Listed\[0\] are 'text', which is not an array of numbers"),
    ],
)
def test_what_is_no_labelled_dataset_is_refused(items: list[Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        from_dataset(Listed(items))
