"""A stand-in for CUDA graphs on a CPU: the operations of a step are written down, and done again on the same memory."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

READS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "lift_fresh")
"""What would wait for a GPU, or bring a number to it from the host."""


class OpLog(TorchDispatchMode):
    """Writes down every operation instead of doing it, as a capture does.

    What makes a new tensor is done once, for its memory, on whatever numbers are there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Callable[[], None]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if name in READS:
            raise RuntimeError(f"{name}: a GPU could not record this")
        if func._schema.is_mutable:
            self.operations.append(lambda: func(*args, **kwargs))
            return args[0]
        made = func(*args, **kwargs)
        if not any(returned.alias_info for returned in func._schema.returns):  # a view has no memory of its own

            def again() -> None:
                found = iter(self._tensors(func(*args, **kwargs)))
                for tensor in self._tensors(made):
                    tensor.copy_(next(found))

            self.operations.append(again)
        return made

    @staticmethod
    def _tensors(tree: Any) -> list[Tensor]:
        found: list[Tensor] = []
        tree_map_only(Tensor, found.append, tree)
        return found

    def replay(self) -> None:
        for operation in self.operations:
            operation()


@contextmanager
def logged() -> Iterator[Callable[[], None]]:
    """A segment of a ``Recording``."""
    log = OpLog()
    with log:
        yield log.replay
    assert log.operations, "an empty graph"
