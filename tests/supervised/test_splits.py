"""Classes of training, validation and test: by number, by name, by a file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maml_envs import InputError
from maml_rl.supervised import LabelledTasks
from maml_rl.supervised.splits import split_classes

KINDS = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu"]
LISTS = [["bee", "ant", "dog"], ["cat", "gnu"], ["fox", "eel"]]


def names(split: dict[str, torch.Tensor]) -> list[list[str]]:
    return [[KINDS[k] for k in part.tolist()] for part in split.values()]


def test_by_name_and_by_a_file_are_the_same(tmp_path: Path) -> None:
    file = tmp_path / "split.toml"
    file.write_text(
        "".join(f"{name} = {part}\n" for name, part in zip(("training", "validation", "test"), LISTS, strict=True))
    )
    assert names(split_classes(LISTS, KINDS, 2)) == LISTS
    assert names(split_classes(str(file), KINDS, 2)) == LISTS
    assert names(split_classes(file, KINDS, 2)) == LISTS


def test_tasks_are_of_the_named_classes() -> None:
    examples = torch.arange(28.0).reshape(28, 1)
    tasks = LabelledTasks(examples, [kind for kind in KINDS for _ in range(4)], 2, 1, 3, LISTS)
    drawn = tasks.held_out_tasks(20, "validation").joined().inputs
    assert {KINDS[int(row) // 4] for row in drawn.flatten().tolist()} == {"cat", "gnu"}


def test_numbers_are_drawn_by_chance_and_the_same_each_time() -> None:
    one, other = (split_classes((3, 2, 2), KINDS, 2) for _ in range(2))
    assert names(one) == names(other)
    assert sorted(kind for part in names(one) for kind in part) == KINDS
    assert [len(part) for part in names(one)] == [3, 2, 2]


def test_numpys_numbers_are_numbers() -> None:
    assert names(split_classes(np.array([3, 2, 2]), KINDS, 2)) == names(split_classes((3, 2, 2), KINDS, 2))
    by_label = split_classes([np.array([1, 0]), np.array([2, 3]), np.array([5, 4])], range(6), 2)
    assert [part.tolist() for part in by_label.values()] == [[1, 0], [2, 3], [5, 4]]


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ([["bee", "ant"], ["cat", "gnu"], ["fox", "yak"]], "classes for test name 'yak', which no example has"),
        ([["bee", "ant"], ["cat", "ant"], ["fox", "eel"]], "'ant' is for training and for validation"),
        ([["bee", "ant"], ["cat"], ["fox", "eel"]], "classes: 1 for validation, where a task has ways = 2"),
        ([["bee", "ant"], ["cat", "gnu"]], "give three numbers or lists"),
        ([["bee", "ant"], "cat", ["fox", "eel"]], "classes for validation are 'cat': give a list of labels"),
        (
            [[["bee"], "ant"], ["cat", "gnu"], ["fox", "eel"]],
            r"classes for training name \['bee'\], which no example has",
        ),
        ((True, 2, 2), "classes for training are True: give a list of labels"),
        ("nowhere.toml", "classes = 'nowhere.toml' cannot be read"),
        ((3, 3, 3), "7 classes in parts of 3, 3, 3"),
    ],
)
def test_what_is_no_split_is_refused(classes: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        split_classes(classes, KINDS, 2)


@pytest.mark.parametrize("text", ["training = ['ant']\n", "a = 1\n", "training = 3\nvalidation = 1\ntest = 1\n"])
def test_a_file_without_the_lists_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "split.toml"
    file.write_text(text)
    with pytest.raises(InputError, match="give it lists called training, validation, test"):
        split_classes(file, KINDS, 1)
