"""Looks at few-shot tasks before anything is trained on them: errors say what was found and how to mend it."""

import torch
from torch import Tensor

from maml_envs import InputError
from maml_rl.core.tree import leaves
from maml_rl.supervised.tasks import Examples, FewShotTasks, TaskBatch

LOOKED_AT = 3
"""Tasks of each kind."""


def check_tasks(data: FewShotTasks, convolutional: bool) -> TaskBatch:
    """Draw a few training and held-out tasks twice, and check what they are.

    Args:
        data: The distribution.
        convolutional: Whether the model takes images, (channels, height, width).

    Returns:
        The training tasks.

    Raises:
        InputError: They are not what a model can adapt to, or not the same for the same seed.
    """
    name = type(data).__name__
    drawn = [data.sample_tasks(LOOKED_AT, torch.Generator().manual_seed(0)) for _ in range(2)]
    held_out = [data.held_out_tasks(LOOKED_AT, "test") for _ in range(2)]
    for batch, where in ((drawn[0], "sample_tasks"), (held_out[0], "held_out_tasks")):
        _check_batch(batch, f"{name}.{where}")
    _refuse(
        not _same(*drawn),
        f"{name}.sample_tasks gives other tasks for the same generator: draw every random number from it",
    )
    _refuse(
        not _same(*held_out),
        f"{name}.held_out_tasks gives other tasks each time: draw them from a generator with a fixed seed",
    )
    for part in ("inputs", "targets"):
        mine, theirs = (getattr(batch.support, part) for batch in (drawn[0], held_out[0]))
        fits = mine.shape[2:] == theirs.shape[2:] and mine.is_floating_point() == theirs.is_floating_point()
        _refuse(
            not fits,
            f"{name}: the {part} of held-out tasks are {_form(theirs)}, and those of training {_form(mine)}: make them "
            "alike",
        )
    if not drawn[0].support.targets.is_floating_point():
        ways = [len(batch.support.targets[0].unique()) for batch in (drawn[0], held_out[0])]
        _refuse(
            ways[0] != ways[1],
            f"{name}: held-out tasks have {ways[1]} classes, and those of training {ways[0]}: give them the same",
        )
    if convolutional:
        _check_images(drawn[0].support.inputs, name)
    return drawn[0]


def _refuse(wrong: bool, said: str) -> None:
    if wrong:
        raise InputError(said)


def _form(values: Tensor) -> str:
    return f"{values.dtype} {tuple(values.shape)}".removeprefix("torch.")


def _same(one: TaskBatch, other: TaskBatch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(leaves(one), leaves(other), strict=True))


def _check_batch(batch: object, where: str) -> None:
    right = isinstance(batch, TaskBatch) and all(isinstance(part, Examples) for part in batch)
    _refuse(not right, f"{where} returned {batch!r:.80}: return TaskBatch(Examples(...), Examples(...))")
    assert isinstance(batch, TaskBatch)
    for name, examples in zip(("support", "query"), batch, strict=True):
        _check_examples(examples, f"{where}: the {name} set")
    support, query = batch
    for part in ("inputs", "targets"):
        one, other = getattr(support, part), getattr(query, part)
        _refuse(
            one.shape[2:] != other.shape[2:] or one.dtype != other.dtype,
            f"{where}: {part} are {_form(one)} in the support set and {_form(other)} in the query set: make them alike",
        )
    if not support.targets.is_floating_point():
        _check_classes(support.targets, query.targets, where)


def _check_examples(examples: Examples, where: str) -> None:
    inputs, targets = examples
    for name, values in (("inputs", inputs), ("targets", targets)):
        _refuse(not isinstance(values, Tensor), f"{where} has {name} of type {type(values).__name__}: give a tensor")
    _refuse(
        inputs.dim() < 3 or inputs.shape[:2] != targets.shape[:2] or len(inputs) != LOOKED_AT or not inputs.shape[1],
        f"{where} has inputs {_form(inputs)} and targets {_form(targets)} for {LOOKED_AT} tasks: give inputs "
        "(tasks, examples, *shape), and targets (tasks, examples) of classes or (tasks, examples, outputs) of values",
    )
    _refuse(
        not inputs.is_floating_point(),
        f"{where} has inputs {_form(inputs)}: give floating-point numbers, such as bytes / 255",
    )
    of_values = targets.is_floating_point()
    wanted = "values as (tasks, examples, outputs), for one output targets.unsqueeze(-1)"
    _refuse(of_values and targets.dim() != 3, f"{where} has targets {_form(targets)}: give {wanted}")
    _refuse(
        not of_values and (targets.dim() != 2 or targets.dtype != torch.int64),
        f"{where} has targets {_form(targets)}: give classes as int64 (tasks, examples), or {wanted}",
    )
    for name, numbers in (("inputs", inputs), ("targets", targets)):
        _refuse(not bool(numbers.isfinite().all()), f"{where} has {name} of NaN or infinity")


def _check_classes(support: Tensor, query: Tensor, where: str) -> None:
    """Check that each task's labels are 0 ... ways - 1, in its support set all of them."""
    ways = len(support[0].unique())
    for own, asked in zip(support, query, strict=True):
        found = own.unique().tolist()
        _refuse(
            found == list(range(len(found))) and len(found) != ways,
            f"{where}: one task has {len(found)} classes and another {ways}: give all tasks of a draw the same number",
        )
        _refuse(
            found != list(range(ways)),
            f"{where}: the labels of a support set are {found[:12]}: number the classes of each task 0 ... ways - 1",
        )
        unknown = sorted(set(asked.tolist()) - set(found))
        _refuse(bool(unknown), f"{where}: a query has the label {unknown[:1]}, which its support set lacks")


def _check_images(inputs: Tensor, name: str) -> None:
    shape = tuple(inputs.shape[2:])
    _refuse(
        len(shape) != 3,
        f"model.name = 'convolutional' with inputs of shape {shape}: it takes images (channels, height, width); use "
        "model.name = 'perceptron'",
    )
    _refuse(
        shape[2] in (1, 3, 4) and shape[0] not in (1, 3, 4) and shape[0] == shape[1],
        f"{name}: images of shape {shape} have their channels last: give (channels, height, width), as "
        "images.permute(0, 3, 1, 2) does",
    )
