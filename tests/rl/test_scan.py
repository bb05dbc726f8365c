"""A loop in memory of its own, against what it says by hand."""

from typing import NamedTuple

import pytest
import torch
from op_log import logged
from torch import Tensor

from maml_rl.core.tree import Tree, map_tensors
from maml_rl.rl.scan import Scan

INPUTS = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
ZEROS = {"sum": torch.zeros(2)}


def add(constants: list[Tensor], carry: dict[str, Tensor], value: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Adds to a sum, and puts out the sum so far times a constant."""
    total = carry["sum"] + value
    return {"sum": total}, constants[0] * total


@pytest.mark.parametrize("segment", [None, logged])
def test_a_cumulative_sum_by_hand(segment: object) -> None:
    scan, constants = Scan(add, segment), [torch.tensor(10.0)]
    carry, outputs = scan(constants, ZEROS, INPUTS)
    assert carry["sum"].tolist() == [9, 12]
    assert outputs.tolist() == [[10, 20], [40, 60], [90, 120]]
    assert (ZEROS["sum"].tolist(), constants[0].item()) == ([0, 0], 10)  # what is given stays as it is
    carry, outputs = scan([torch.tensor(-1.0)], {"sum": torch.ones(2)}, -INPUTS)  # and nothing stays of it
    assert carry["sum"].tolist() == [-8, -11]
    assert outputs.tolist() == [[0, 1], [3, 5], [8, 11]]


class Put(NamedTuple):
    """What a step puts out."""

    before: Tensor
    whole: Tensor  # of another type
    nothing: None


def test_outputs_are_trees_of_any_shapes_and_types() -> None:
    def step(constants: None, carry: tuple[Tensor, ...], value: Tensor) -> tuple[tuple[Tensor, ...], Put]:
        count, last = carry
        return (count + 1, value.sum()), Put(last, torch.stack([count, 2 * count]), None)

    (count, last), put = Scan(step)(None, (torch.tensor(3), torch.tensor(0.5)), INPUTS)
    assert (count.item(), last.item()) == (6, 11)
    assert isinstance(put, Put)
    assert put.before.tolist() == [0.5, 3, 7]
    assert (put.whole.tolist(), put.whole.dtype) == ([[3, 6], [4, 8], [5, 10]], torch.int64)
    assert put.nothing is None


def test_what_a_recording_returns_is_a_view_that_the_next_one_overwrites() -> None:
    scan, constants = Scan(add, logged), [torch.tensor(1.0)]
    first = scan(constants, ZEROS, INPUTS)
    kept = map_tensors(torch.clone, first)
    second = scan(constants, ZEROS, 2 * INPUTS)
    for one, two, before in zip((first[0]["sum"], first[1]), (second[0]["sum"], second[1]), (kept[0]["sum"], kept[1]),
                                strict=True):  # fmt: skip
        assert one.data_ptr() == two.data_ptr()
        assert torch.equal(one, 2 * before)


def test_a_step_may_put_out_what_it_was_handed() -> None:
    """Which is kept before it is overwritten."""

    def step(constants: None, carry: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        return carry + value, carry

    carry, outputs = Scan(step)(None, torch.tensor([1.0, 2.0]), INPUTS)
    assert carry.tolist() == [10, 14]
    assert outputs.tolist() == [[1, 2], [2, 4], [5, 8]]


def test_a_plain_loop_can_be_done_early() -> None:
    def full(carry: dict[str, Tensor]) -> bool:
        return bool((carry["sum"] >= 4).all())

    carry, outputs = Scan(add, done=full)([torch.tensor(10.0)], ZEROS, INPUTS)
    assert carry["sum"].tolist() == [4, 6]
    assert outputs.tolist() == [[10, 20], [40, 60]]


def test_no_gradient_flows_through_it() -> None:
    inputs = INPUTS.clone().requires_grad_()
    carry, outputs = Scan(add)([torch.tensor(1.0, requires_grad=True)], ZEROS, inputs)
    assert not carry["sum"].requires_grad
    assert not outputs.requires_grad


@pytest.mark.parametrize(
    ("constants", "inputs", "fits"),
    [
        ([torch.tensor(7.0)], -INPUTS, True),
        ([torch.tensor(7.0)], INPUTS.T.contiguous().T, True),  # other strides
        ([torch.tensor(7.0)], INPUTS[:2], False),
        ([torch.tensor(7.0)], INPUTS[:, :1], False),
        ([torch.tensor(7.0)], INPUTS.double(), False),
        ([torch.tensor([7.0])], INPUTS, False),
        ([torch.tensor(7)], INPUTS, False),
        ([torch.tensor(7.0), torch.tensor(7.0)], INPUTS, False),
    ],
    ids=["same", "strides", "fewer steps", "width", "type", "shape of a constant", "type of a constant", "one more"],
)
def test_what_fits_its_memory(constants: Tree, inputs: Tensor, fits: bool) -> None:
    scan = Scan(add, logged)
    assert scan.fits(constants, inputs)  # there is none yet
    scan([torch.tensor(1.0)], ZEROS, INPUTS)
    assert scan.fits(constants, inputs) == fits
    if fits:
        _, outputs = scan(constants, ZEROS, inputs)
        assert torch.equal(outputs, 7 * inputs.cumsum(0))


def test_a_step_that_cannot_be_recorded_is_taken_anew() -> None:
    def look(constants: None, carry: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        return carry + (value if float(value.sum()) > 0 else 0), carry

    scan = Scan(look, logged, "a look")
    with pytest.warns(RuntimeWarning, match="a look cannot be recorded, and is taken anew every time: .*dense"):
        carry, _ = scan(None, torch.zeros(2), INPUTS)
    assert carry.tolist() == [9, 12]
    assert scan(None, torch.zeros(2), -INPUTS)[0].tolist() == [0, 0]  # and is not warned of again


def test_one_step_alone_records_nothing() -> None:
    def never() -> None:
        raise AssertionError

    carry, outputs = Scan(add, never)([torch.tensor(2.0)], ZEROS, INPUTS[:1])
    assert (carry["sum"].tolist(), outputs.tolist()) == ([1, 2], [[2, 4]])
