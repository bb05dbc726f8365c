"""The task axis: what is written for one task is mapped over all of them and averaged here.

An iteration holds K tasks of each of S seeds, one seed's after the other's: K S rows. What a seed has of its own, such
as theta, is (S, ...). The rows are worked on in slices, side by side in threads; with torchrun this process holds a
share of each seed's tasks. A task's objective and its inner step know nothing of slices, threads or ranks, and no seed
sees another's numbers.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import vmap

from maml_rl.core.seeds import over_ranks, repeat, sum_of_each, to_rows
from maml_rl.core.slices import Slice, slices_of, width
from maml_rl.core.tree import Params, Tree, map_tensors
from maml_rl.machine import ranks
from maml_rl.machine.threads import side_by_side, spans

LinearMap = Callable[[Params], Params]


class TaskAxis(NamedTuple):
    """The tasks that the rows are of.

    Attributes:
        tasks: K, of each seed in this process.
        names: Names of the seeds in errors, such as ("seed 1", "seed 3"); ("",) for a run that is alone.
        first: Number of each seed's first task here in the whole iteration.
        loop: Take tasks one by one instead of mapping over a slice of them.
        most: Tasks in a slice; 0 for as many as suit the machine.
    """

    tasks: int
    names: tuple[str, ...] = ("",)
    first: int = 0
    loop: bool = False
    most: int = 0

    @classmethod
    def of_this_rank(cls, total: int, names: Sequence[str] = ("",), loop: bool = False, most: int = 0) -> "TaskAxis":
        """Make the axis of this rank's share of ``total`` tasks of each seed."""
        share = ranks.share(total)
        return cls(share.stop - share.start, tuple(names), share.start, loop, most)

    @property
    def own(self) -> slice:
        """This rank's share of a seed's tasks."""
        return slice(self.first, self.first + self.tasks)

    def name(self, row: int) -> str:
        """Name of a row in errors: "task 7", or "task 7 of seed 3"."""
        seed, task = divmod(row, self.tasks)
        return f"task {self.first + task}{self.of_seed(seed)}"

    def of_seed(self, seed: int) -> str:
        """Suffix for error messages, such as " of seed 3"; empty for a run that is alone."""
        return f" of {self.names[seed]}" if self.names[seed] else ""

    def of_seeds(self, rows: Sequence[int]) -> str:
        """Suffix for error messages about several rows, such as ", of seed 1, seed 3"."""
        names = [self.names[seed] for seed in sorted({row // self.tasks for row in rows})]
        return f", of {', '.join(names)}" if any(names) else ""

    def spread(self, params: Params) -> Params:
        """Give each task its seed's parameters, (S, ...) -> (K S, ...), without a copy for one seed."""
        return repeat(params, self.tasks)

    def by_seed(self, values: Tensor) -> Tensor:
        """Values of rows, (K S, ...), as (S, K, ...)."""
        by_seed: Tensor = values.unflatten(0, (len(self.names), self.tasks))
        return by_seed

    def together(self) -> AbstractContextManager[None]:
        """Run a block that works on this rank's tasks; an error on any rank ends all of them."""
        return ranks.agreement()

    def refuse(self, bad: Tensor, what: str) -> None:
        """Refuse what is bad, (S,) bool and the same on every rank.

        Raises:
            FloatingPointError: One is; the first such seed is named.
        """
        if bad.any():
            seed = int(bad.int().argmax())
            raise ranks.of_all(FloatingPointError(f"{what}{self.of_seed(seed)} is NaN or infinite"))

    def average(self, metrics: dict[str, Tensor], sums: tuple[str, ...] = ()) -> list[dict[str, float]]:
        """Average metrics, (S,) means over this rank's tasks, over all ranks; see ``ranks.mean_rows``."""
        return ranks.mean_rows(to_rows(metrics), self.tasks, sums)

    def gather(self, values: Tensor, total: int) -> Tensor:
        """Values of all ranks' tasks, (S, total), from those of this rank's rows, (K S,)."""
        whole: Tensor = ranks.gather(self.by_seed(values).movedim(-1, 0), total).movedim(0, -1)
        return whole

    def slices(self, data: Tree) -> list[Slice]:
        """Cut the rows into what is worked on at once."""
        return slices_of(data, self.tasks, len(self.names), self.loop, self.most)

    def map(self, function: Callable[..., Tree], *data: Tree) -> Tree:
        """Map a function of one task over all rows, (K S, ...); no gradient flows through the result."""

        @torch.no_grad()
        def of_slice(rows: slice) -> Tree:
            return self._each(function, *_take(data, rows))

        pieces = side_by_side(of_slice, spans(self.tasks * len(self.names), width(data, self.loop, self.most)))
        return map_tensors(lambda *parts: torch.cat(parts), *pieces)

    def mean(self, function: Callable[..., Tree], theta: Params, *data: Tree) -> Tree:
        """Mean over each seed's tasks, (S, ...), of a function of theta and one task's data; no gradient flows."""
        return over_ranks(self._add_up(self._mean_of(function, theta, data), data), self.tasks)

    def finite_mean(
        self, function: Callable[..., tuple[Tensor, Params]], theta: Params, *data: Tree, value: str = "its value"
    ) -> tuple[Tensor, Params]:
        """Take the mean of a value and a tree like theta, and refuse what is not finite; see ``value_and_grad``."""
        return self._checked(self._mean_of(function, theta, data), data, value)

    def value_and_grad(
        self, function: Callable[..., Tensor], theta: Params, *data: Tree, value: str = "its value"
    ) -> tuple[Tensor, Params]:
        """Mean over each seed's tasks, (S,), of a function of theta and one task's data, and its gradient in theta.

        Args:
            function: (theta, *data) -> number, of one task.
            theta: (S, ...).
            *data: Trees of rows, (K S, ...).
            value: What errors call the number.

        Raises:
            FloatingPointError: The value or the gradient is not finite; the first task that makes it so is named.
        """

        def of_slice(piece: Slice) -> tuple[Tensor, Params]:
            own = {name: x[piece.seeds].detach().requires_grad_() for name, x in theta.items()}
            mean: Tensor = self._sums(function, own, piece.rows, data) / self.tasks
            gradient = torch.autograd.grad(mean.sum(), list(own.values()), materialize_grads=True)
            return mean.detach(), dict(zip(own, gradient, strict=True))

        return self._checked(of_slice, data, value)

    def linear(self, build: Callable[..., LinearMap], *data: Tree) -> LinearMap:
        """Build v -> mean over each seed's tasks of M v, (S, ...) to (S, ...).

        Args:
            build: Data of some rows -> the map of each row's vector to M v, made once for all products.
            *data: Trees of rows, (K S, ...).
        """
        pieces = self.slices(data)
        maps = side_by_side(lambda piece: build(*_take(data, piece.rows)), pieces)

        def product(vector: Params) -> Params:
            def of_map(number: int) -> Params:
                seeds, rows = pieces[number]
                own = {name: x[seeds] for name, x in vector.items()}
                count = len(next(iter(own.values())))
                image = maps[number](repeat(own, (rows.stop - rows.start) // count))
                return {name: sum_of_each(x, count) for name, x in image.items()}

            sums = side_by_side(of_map, range(len(maps)))
            total = map_tensors(lambda x: x / self.tasks, self._total(pieces, sums))
            result: Params = over_ranks(total, self.tasks)
            return result

        return product

    def _mean_of(self, function: Callable[..., Tree], theta: Params, data: Tree) -> Callable[[Slice], Tree]:
        @torch.no_grad()
        def of_slice(piece: Slice) -> Tree:
            own = {name: x[piece.seeds] for name, x in theta.items()}
            return map_tensors(lambda x: x / self.tasks, self._sums(function, own, piece.rows, data))

        return of_slice

    def _checked(
        self, of_slice: Callable[[Slice], tuple[Tensor, Params]], data: Tree, value: str
    ) -> tuple[Tensor, Params]:
        """Add up a value and its gradient over slices, refuse what is not finite, and average over ranks."""
        with self.together():
            total: tuple[Tensor, Params] = self._add_up(of_slice, data)
            self.check(total, lambda row: of_slice(self._slice_of(row)), value)
        result: tuple[Tensor, Params] = over_ranks(total, self.tasks)
        return result

    def check(
        self, total: tuple[Tensor, Params], of_row: Callable[[int], tuple[Tensor, Params]], value: str = "its value"
    ) -> None:
        """Refuse a mean over tasks, a value (S,) and its gradient (S, ...), that is not finite.

        Args:
            total: The mean.
            of_row: The same of one row alone.
            value: What the error calls the value.

        Raises:
            FloatingPointError: It is not finite; the seed's first task that makes it so is named.
        """

        def bad(one: tuple[Tensor, Params]) -> list[list[str]]:
            """List for each seed what is not finite."""
            numbers = one[1] | {value: one[0]}
            finite = torch.stack([x.reshape(len(x), -1).isfinite().all(-1) for x in numbers.values()], -1)
            return [[name for name, fine in zip(numbers, seed, strict=True) if not fine] for seed in finite.tolist()]

        for seed, names in enumerate(bad(total)):
            if names:
                rows = range(seed * self.tasks, (seed + 1) * self.tasks)
                together = f"all tasks together{self.of_seed(seed)}"
                alone = next((self.name(row) for row in rows if any(bad(of_row(row)))), together)
                raise FloatingPointError(f"the meta-gradient of {alone} is NaN or infinite in {', '.join(names)}")

    def _each(self, function: Callable[..., Tree], *data: Tree) -> Tree:
        if not self.loop:
            return vmap(function)(*data)
        one = function(*map_tensors(lambda x: x[0], data))
        return map_tensors(lambda x: x.unsqueeze(0), one)

    def _sums(self, function: Callable[..., Tree], theta: Params, rows: slice, data: Tree) -> Tree:
        """Sum over some rows, of as many tasks of each of the seeds that theta is of."""
        seeds = len(next(iter(theta.values())))
        each = self._each(function, repeat(theta, (rows.stop - rows.start) // seeds), *_take(data, rows))
        return map_tensors(lambda x: sum_of_each(x, seeds), each)

    def _add_up(self, of_slice: Callable[[Slice], Tree], data: Tree) -> Tree:
        pieces = self.slices(data)
        return self._total(pieces, side_by_side(of_slice, pieces))

    def _total(self, pieces: Sequence[Slice], sums: Sequence[Tree]) -> Tree:
        total: Tree = map_tensors(lambda x: x.new_zeros(len(self.names), *x.shape[1:]), sums[0])
        for piece, part in zip(pieces, sums, strict=True):
            map_tensors(lambda whole, own, seeds=piece.seeds: whole[seeds].add_(own), total, part)
        return total

    def _slice_of(self, row: int) -> Slice:
        seed = row // self.tasks
        return Slice(slice(seed, seed + 1), slice(row, row + 1))


def _take(data: Tree, rows: slice) -> Tree:
    return map_tensors(lambda x: x[rows], data)
