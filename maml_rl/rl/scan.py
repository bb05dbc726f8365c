"""``for t in range(T): carry, outputs[t] = step(constants, carry, inputs[t])``, plainly or recorded.

To be recorded, all that a step follows from, its own number too, lies in memory of the scan's own, on which a step does
the same operations every time: a GPU records it once and replays it. What a call returns may be a view of this memory,
which the next call overwrites.
"""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from maml_envs.physics.cuda_graph import NewSegment, Recording
from maml_rl.core.tree import Tree, leaves, map_tensors

Step = Callable[[Tree, Tree, Tensor], tuple[Tree, Tree]]
"""(constants, carry, input) -> (carry, output): trees of tensors of the same shapes every time; the carry that it hands
on is made of new tensors, and not of those that it was handed."""


class Changed(Exception):  # noqa: N818  the caller knows what it means
    """A step gives more or fewer tensors than the steps before."""

    def __init__(self, number: int, fewer: bool) -> None:
        super().__init__(f"step {number} gives {'fewer' if fewer else 'more'} tensors than the steps before")
        self.number, self.fewer = number, fewer


class Scan:
    """A loop over the leading axis of its inputs.

    Args:
        step: One turn of the loop.
        new_segment: Records a part of a step on a GPU; None for a plain loop.
        name: What a warning calls a step.
        done: Tells a plain loop, from what a step hands on, that the steps after it can be left out; None to take all.
    """

    def __init__(
        self,
        step: Step,
        new_segment: NewSegment | None = None,
        name: str = "a step",
        done: Callable[[Tree], bool] | None = None,
    ) -> None:
        self._step, self._new_segment, self._name, self._done = step, new_segment, name, done
        self._memory: tuple[Tree, Tree, Tensor] | None = None
        self._number = torch.zeros(0)
        self._outputs: Tree = None
        self._recording: Recording | None = None

    def fits(self, constants: Tree, inputs: Tensor) -> bool:
        """Tell whether a call with these has the shapes and types that the memory is for."""
        if self._memory is None:
            return True
        return _shapes((constants, inputs)) == _shapes((self._memory[0], self._memory[2]))

    @torch.no_grad()
    def __call__(self, constants: Tree, carry: Tree, inputs: Tensor) -> tuple[Tree, Tree]:
        """Run the loop.

        Args:
            constants: What every step sees.
            carry: What the first step is handed.
            inputs: (T, ...), one for each step.

        Returns:
            What the last step hands on, and the outputs, (steps taken, ...) each.

        Raises:
            Changed: A step gives more or fewer tensors than the steps before.
        """
        if self._new_segment is None and self._memory is None:
            return self._loop(constants, carry, inputs)
        if self._memory is None:
            self._memory = map_tensors(torch.empty_like, (constants, carry, inputs.contiguous()))
            self._number = torch.zeros(1, dtype=torch.int64, device=inputs.device)
        map_tensors(lambda own, given: own.copy_(given), self._memory, (constants, carry, inputs))
        self._number.zero_()
        for number in range(len(inputs)):
            if self._new_segment and self._recording is None and self._outputs is not None:
                self._recording = self._recorded(number)
            if self._recording is None:
                self._once(number)
            else:
                self._recording.replay()
        return self._memory[1], self._outputs

    def _loop(self, constants: Tree, carry: Tree, inputs: Tensor) -> tuple[Tree, Tree]:
        taken = 0
        for value in inputs.contiguous():
            carry, output = self._step(constants, carry, value)
            self._check(output, taken, len(inputs))
            map_tensors(lambda all_, x, at=taken: all_[at].copy_(x), self._outputs, output)
            taken += 1
            if self._done and self._done(carry):
                break
        return carry, map_tensors(lambda x: x[:taken], self._outputs)

    def _check(self, output: Tree, number: int, steps: int) -> None:
        """Check that a step gives what those before it gave; the first makes room for all."""
        if self._outputs is None:
            self._outputs = map_tensors(lambda x: x.new_empty(steps, *x.shape), output)
        given, kept = _count(output), _count(self._outputs)
        if given != kept:
            raise Changed(number, given < kept)

    def _recorded(self, number: int) -> Recording | None:
        """Record a step after the first of all, which has made what the recording needs."""
        assert self._new_segment is not None
        try:
            return Recording(self._new_segment, lambda: self._once(number))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._new_segment = None
            # What ends a capture raises over what broke it.
            message = f"{self._name} cannot be recorded, and is taken anew every time: {error.__context__ or error}"
            warnings.warn(message, RuntimeWarning, stacklevel=2)
            return None

    def _once(self, number: int) -> None:
        assert self._memory is not None
        constants, carry, inputs = self._memory
        following, output = self._step(constants, carry, inputs.index_select(0, self._number).squeeze(0))
        self._check(output, number, len(inputs))
        map_tensors(lambda all_, x: all_.index_copy_(0, self._number, x.unsqueeze(0)), self._outputs, output)
        map_tensors(lambda own, new: own.copy_(new), carry, following)
        self._number += 1


def _count(tree: Tree) -> int:
    return sum(1 for _ in leaves(tree))


def _shapes(tree: Tree) -> list[tuple[torch.Size, torch.dtype]]:
    return [(tensor.shape, tensor.dtype) for tensor in leaves(tree)]
