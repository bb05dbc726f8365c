"""Classification tasks from labelled examples: N ways, K shots."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from maml_envs import InputError
from maml_rl.core.tree import map_tensors
from maml_rl.supervised.splits import Classes, split_classes
from maml_rl.supervised.tasks import Examples, FewShotTasks, TaskBatch

PIECE = 1 << 25
"""Most numbers in the examples of held-out tasks that are in memory at once, unless one task has more: 128 MiB."""


class _Draw(NamedTuple):
    """The random choices that K tasks are made of."""

    rows: Tensor  # (K, ways, shots + queries) of the examples
    turns: Tensor | None  # (K, ways) quarter turns
    order: Tensor  # (K, ways * queries) in which the queries come


BYTES = {torch.bool: 1, torch.uint8: 255, torch.uint16: 65535}
"""Types of pixels, and their largest value."""


def _refuse_unknown_range(inputs: Tensor) -> None:
    if not inputs.is_floating_point() and inputs.dtype not in BYTES:
        raise InputError(
            f"examples are {str(inputs.dtype).removeprefix('torch.')}, whose largest value is not a pixel's: "
            "give bytes (uint8), or floating-point numbers, such as pixels / 255"
        )


def scaled(inputs: Tensor) -> Tensor:
    """Return inputs as floating-point numbers of 32 bits; pixels in 0 ... 1.

    Raises:
        InputError: They are whole numbers that are no pixels.
    """
    _refuse_unknown_range(inputs)
    return inputs.float() / BYTES[inputs.dtype] if inputs.dtype in BYTES else inputs.float()


def as_tensor(values: object, what: str) -> Tensor:
    """Return an array as a tensor.

    Raises:
        InputError: It is not one of numbers.
    """
    if isinstance(values, Tensor):
        return values
    try:
        array = np.ascontiguousarray(np.asarray(values))
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        return torch.from_numpy(array if array.flags.writeable else array.copy())
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} are {values!r:.80}, which is not an array of numbers: {error}") from None


def as_classes(labels: ArrayLike | Tensor | Sequence[object]) -> tuple[Tensor, list[object]]:
    """Return the class (n,) of each example, and what labels of any kind, numbers or words, call the classes."""
    array = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.dtype == object and all(isinstance(each, str) for each in array.ravel()):  # such as a column of pandas
        array = array.astype(str)
    if array.ndim != 1 or array.dtype.kind not in "biuUS":
        raise InputError(f"labels are {array.dtype} {array.shape}: give one for each example, a whole number or a word")
    kinds, which = np.unique(array, return_inverse=True)
    return torch.from_numpy(which), kinds.tolist()


def _turned(inputs: Tensor, turns: Tensor) -> Tensor:
    """Images, in place, by quarter turns: ``turns`` has their leading axes."""
    for quarter in (1, 2, 3):
        inputs[turns == quarter] = inputs[turns == quarter].rot90(quarter, (-2, -1))
    return inputs


class LabelledTasks(FewShotTasks):
    """Each task draws ``ways`` classes, gives them the labels 0 ... ways - 1 by chance, and draws examples of each.

    Classes, not examples, are split: training, validation and test tasks share none. Support and query share no
    example, and the order of the queries says nothing about their labels.

    Args:
        examples: (n, *shape), a tensor or array. Bytes, 16-bit pixels and flags are scaled to [0, 1] by their type's
            maximum; other numbers are taken as they are, and have to be floating-point.
        labels: (n,) whole numbers or words; equal ones are a class.
        ways: Classes in a task.
        shots: Support examples of each class.
        queries: Query examples of each class.
        classes: Of training, validation and test: how many, drawn by chance, the same in every run; or three lists of
            labels, or the name of a TOML file with lists ``training``, ``validation`` and ``test``; None for about 70,
            10 and 20 % of them.
        rotate: Turn each class of a task by a multiple of 90 degrees, drawn for the task; images (channels, s, s).

    Raises:
        InputError: There are too few classes, or too few examples of one, for such tasks.
    """

    def __init__(
        self,
        examples: ArrayLike | Tensor,
        labels: ArrayLike | Tensor | Sequence[object],
        ways: int = 5,
        shots: int = 1,
        queries: int = 15,
        classes: Classes = None,
        rotate: bool = False,
    ) -> None:
        examples, (which, kinds) = as_tensor(examples, "examples"), as_classes(labels)
        if len(examples) != len(which):
            raise InputError(f"{len(examples)} examples with {len(which)} labels: give one label for each example")
        _refuse_unknown_range(examples)
        if examples.is_floating_point() and not bool(examples.isfinite().all()):
            raise InputError("examples hold NaN or infinity: leave those out")
        if rotate and (examples.dim() != 4 or examples.shape[2] != examples.shape[3]):
            raise InputError(
                f"rotate with examples of shape {tuple(examples.shape[1:])}: give square images (channels, s, s)"
            )
        self.ways, self.shots, self.queries, self.rotate = ways, shots, queries, rotate
        self._examples = examples
        sizes = which.bincount()
        needed = shots + queries
        small = [kind for kind, size in zip(kinds, sizes.tolist(), strict=True) if size < needed]
        if small:
            raise InputError(
                f"{len(small)} classes, such as {small[0]}, have fewer than the {needed} examples of shots = {shots} "
                f"and queries = {queries}: ask for fewer, or leave those classes out"
            )
        self.split = split_classes(classes, kinds, ways)
        # Where the examples of each class are: a table of rows, the short ones filled up by a repetition of 0.
        ranked, starts = which.argsort(stable=True), sizes.cumsum(0) - sizes
        at = torch.arange(int(sizes.max()))
        self._rows = ranked[(starts.unsqueeze(1) + at).clamp(max=len(ranked) - 1)]
        self._sizes = sizes

    def _draw(self, count: int, split: str, generator: torch.Generator) -> _Draw:
        kinds = self.split[split]
        chosen = kinds[torch.rand(count, len(kinds), generator=generator).argsort(-1)[:, : self.ways]]
        lottery = torch.rand(count, self.ways, self._rows.shape[1], generator=generator)
        lottery[torch.arange(self._rows.shape[1]) >= self._sizes[chosen].unsqueeze(-1)] = 2  # not drawn: there is none
        picked = lottery.argsort(-1)[..., : self.shots + self.queries]
        turns = torch.randint(4, (count, self.ways), generator=generator) if self.rotate else None
        order = torch.rand(count, self.ways * self.queries, generator=generator).argsort(-1)
        return _Draw(self._rows[chosen].gather(-1, picked), turns, order)

    def _tasks(self, draw: _Draw) -> TaskBatch:
        def examples(rows: Tensor) -> Tensor:
            inputs = scaled(self._examples[rows])
            return (inputs if draw.turns is None else _turned(inputs, draw.turns)).flatten(1, 2)

        def labels(each: int) -> Tensor:
            return torch.arange(self.ways).repeat_interleave(each).expand(len(draw.rows), -1)

        support, query = draw.rows.split([self.shots, self.queries], 2)
        tasks = torch.arange(len(draw.rows)).unsqueeze(-1)
        return TaskBatch(
            Examples(examples(support), labels(self.shots)),
            Examples(examples(query)[tasks, draw.order], labels(self.queries)[tasks, draw.order]),
        )

    @property
    def training_classes(self) -> int:  # type: ignore[override]
        """The training classes, each turn of one being a class of its own."""
        return len(self.split["training"]) * (4 if self.rotate else 1)

    def sample_examples(self, shape: tuple[int, int], generator: torch.Generator) -> Examples:
        """Examples of the training classes, each class and example equally likely."""
        kinds = self.split["training"]
        turns = torch.randint(4 if self.rotate else 1, shape, generator=generator)
        which = torch.randint(len(kinds), shape, generator=generator)
        place = torch.rand(shape, generator=generator) * self._sizes[kinds[which]]
        inputs = scaled(self._examples[self._rows[kinds[which], place.long()]])
        return Examples(_turned(inputs, turns) if self.rotate else inputs, which + len(kinds) * turns)

    def references(self, batch: TaskBatch) -> dict[str, float]:
        """Accuracy of giving each query the class of the nearest support example, by Euclidean distance."""
        support, queries = (part.inputs.flatten(2) for part in batch)
        nearest = torch.cdist(queries, support).argmin(-1)
        right = batch.support.targets.gather(1, nearest) == batch.query.targets
        return {"nearest neighbour": float(right.double().mean())}

    def sample_tasks(self, count: int, generator: torch.Generator) -> TaskBatch:
        """Tasks from the training classes."""
        return self._tasks(self._draw(count, "training", generator))

    def held_out_tasks(self, count: int, split: str = "test") -> TaskBatch:
        """Fixed tasks from the validation or test classes."""
        return self._tasks(self._draw(count, split, self.held_out_generator(split)))

    def held_out_pieces(self, count: int, split: str = "test") -> Iterator[TaskBatch]:
        """Yield the same tasks, a few at a time; those of a class that changes them, at once."""
        if type(self).held_out_tasks is not LabelledTasks.held_out_tasks:
            yield from super().held_out_pieces(count, split)
            return
        draw = self._draw(count, split, self.held_out_generator(split))
        at_once = max(1, PIECE // (draw.rows[0].numel() * self._examples[0].numel()))
        for start in range(0, count, at_once):
            rows = slice(start, start + at_once)
            yield self._tasks(map_tensors(lambda x, rows=rows: x[rows], draw))
