"""The task axis against a Python loop over the tasks of each seed, however the rows are cut into slices."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from maml_rl.core import slices as sliced
from maml_rl.core.seeds import to_rows
from maml_rl.core.task_axis import LinearMap, TaskAxis
from maml_rl.core.tree import Params, leaves, map_tensors
from maml_rl.machine import ranks

TASKS, STEPS = 4, 6
NAMES = ("seed 1", "seed 3", "seed 7")
CUTS = {
    "one slice": 1000,
    "one task": 1,
    "three tasks": 3 * STEPS,
    "a seed": TASKS * STEPS,
    "two seeds": 2 * TASKS * STEPS,
}
"""What is in a slice, to the most steps in it."""


class Data(NamedTuple):
    """Of one task, or of all rows."""

    x: Tensor  # (2, 3, 5): 6 steps
    more: dict[str, Tensor]  # "y" (2, 3)


class Result(NamedTuple):
    number: Tensor
    rest: list[Tensor]


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def data(seeds: int) -> Data:
    return Data(draw(0, seeds * TASKS, 2, 3, 5), {"y": draw(1, seeds * TASKS, 2, 3)})


def theta(seeds: int) -> Params:
    return {"w": draw(2, seeds, 5), "b": draw(3, seeds), "unused": draw(4, seeds, 2)}


def function(params: Params, task: Data, scale: Tensor) -> Tensor:
    return ((task.x @ params["w"] + params["b"]).tanh() * task.more["y"]).sum() * scale


def several(params: Params, task: Data, scale: Tensor) -> Result:
    value = function(params, task, scale)
    return Result(value, [params["w"] * value, task.x.mean((0, 1)).outer(params["w"])])


def rows(seeds: int) -> list[list[int]]:
    """The rows of each seed."""
    return [list(range(seed * TASKS, (seed + 1) * TASKS)) for seed in range(seeds)]


def at(tree: object, index: int) -> object:
    return map_tensors(lambda x: x[index], tree)


def loop_mean(of: Callable[..., object], params: Params, seeds: int, *given: object) -> object:
    means = [
        map_tensors(lambda *x: sum(x) / TASKS, *(of(at(params, seed), *at(given, row)) for row in own))
        for seed, own in enumerate(rows(seeds))
    ]
    return map_tensors(lambda *x: torch.stack(x), *means)


def assert_same(found: object, expected: object) -> None:
    assert type(found) is type(expected)
    for one, other in zip(leaves(found), leaves(expected), strict=True):
        torch.testing.assert_close(one, other)
        assert not one.requires_grad


@pytest.fixture(params=CUTS)
def cut(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(sliced, "CPU_STEPS", CUTS[request.param])
    return request.param


@pytest.fixture(params=[1, 2, 3], ids="{} seeds".format)
def seeds(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture(params=[False, True], ids=["mapped", "looped"])
def axis(seeds: int, request: pytest.FixtureRequest) -> TaskAxis:
    return TaskAxis(TASKS, NAMES[:seeds], loop=request.param)


def test_cuts_are_what_they_say(cut: str) -> None:
    counts = {
        "one slice": [12],
        "one task": [1] * 12,
        "three tasks": [3, 1] * 3,
        "a seed": [4] * 3,
        "two seeds": [8, 4],
    }
    pieces = TaskAxis(TASKS, NAMES).slices(data(3))
    assert [piece.rows.stop - piece.rows.start for piece in pieces] == counts[cut]
    pieces = TaskAxis(TASKS, NAMES, loop=True).slices(data(3))
    assert [piece.rows.stop - piece.rows.start for piece in pieces] == [1] * 12


def test_a_loop_takes_a_function_of_numbers() -> None:
    x = draw(0, 6, 2)
    found = TaskAxis(3, NAMES[:2], loop=True).map(lambda x: torch.tensor([float(x.sum())]), x)
    assert found.tolist() == x.sum(1, keepdim=True).float().tolist()


def test_map_is_a_loop_over_the_rows(cut: str, seeds: int, axis: TaskAxis) -> None:
    given, scale, params = data(seeds), draw(5, seeds * TASKS), axis.spread(theta(seeds))

    def of_task(task: Data, params: Params, scale: Tensor) -> Result:
        return several(params, task, scale)

    each = [of_task(*at((given, params, scale), row)) for row in range(seeds * TASKS)]
    assert_same(axis.map(of_task, given, params, scale), map_tensors(lambda *x: torch.stack(x), *each))


def test_mean_is_a_loop_over_the_tasks_of_each_seed(cut: str, seeds: int, axis: TaskAxis) -> None:
    given, scale, params = data(seeds), draw(5, seeds * TASKS), theta(seeds)
    expected = loop_mean(several, params, seeds, given, scale)
    assert_same(axis.mean(several, {name: x.requires_grad_() for name, x in params.items()}, given, scale), expected)


def test_value_and_grad_are_those_of_the_loop(cut: str, seeds: int, axis: TaskAxis) -> None:
    given, scale, params = data(seeds), draw(5, seeds * TASKS), theta(seeds)
    inputs = {name: x.clone().requires_grad_() for name, x in params.items()}
    value = loop_mean(function, inputs, seeds, given, scale)
    slopes = torch.autograd.grad(value.sum(), list(inputs.values()), materialize_grads=True)
    expected = value.detach(), dict(zip(inputs, slopes, strict=True))
    assert_same(axis.value_and_grad(function, params, given, scale), expected)
    assert not any(x.requires_grad for x in params.values())
    assert not expected[1]["unused"].any()


def test_linear_is_a_loop_and_builds_each_slice_once(cut: str, seeds: int, axis: TaskAxis) -> None:
    matrices, given = {"w": draw(6, seeds * TASKS, 5, 5), "b": draw(7, seeds * TASKS, 1, 1)}, data(seeds)
    vectors = [{"w": draw(8 + k, seeds, 5), "b": draw(18 + k, seeds, 1)} for k in range(2)]
    built = []

    def build(task: Data, own: Params) -> LinearMap:
        built.append(len(task.x))
        return lambda vector: {name: (own[name] @ x.unsqueeze(-1)).squeeze(-1) for name, x in vector.items()}

    product = axis.linear(build, given, matrices)
    for vector in vectors:
        expected = loop_mean(lambda v, own: {name: own[name] @ v[name] for name in v}, vector, seeds, matrices)
        assert_same(product(vector), expected)
    assert built == [piece.rows.stop - piece.rows.start for piece in axis.slices(given)]


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_no_bit(cut: str, axis: TaskAxis, seeds: int, threads: int) -> None:
    given, scale, params = data(seeds), draw(5, seeds * TASKS), theta(seeds)
    once = axis.value_and_grad(function, params, given, scale)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        again = axis.value_and_grad(function, params, given, scale)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(once[0], again[0])
    assert all(torch.equal(once[1][name], again[1][name]) for name in params)


@pytest.mark.parametrize("seeds", [3], indirect=True)
def test_no_seed_sees_the_numbers_of_another(cut: str, axis: TaskAxis) -> None:
    given, scale, params = data(3), draw(5, 3 * TASKS), theta(3)
    before = axis.mean(function, params, given, scale)
    scale[TASKS + 1] = torch.nan
    params["w"][1] = torch.inf
    after = axis.mean(function, params, given, scale)
    assert after.isnan().tolist() == [False, True, False]
    assert torch.equal(after[[0, 2]], before[[0, 2]])


@pytest.mark.parametrize("seeds", [2], indirect=True)
def test_the_first_task_that_is_not_finite_is_named(cut: str, axis: TaskAxis) -> None:
    given, scale, params = data(2), draw(5, 2 * TASKS), theta(2)
    scale[[TASKS + 1, TASKS + 2]] = torch.nan
    with pytest.raises(FloatingPointError) as caught:
        axis.value_and_grad(function, params, given, scale, value="the loss")
    assert str(caught.value) == "the meta-gradient of task 1 of seed 3 is NaN or infinite in w, b, the loss"
    with pytest.raises(FloatingPointError, match=r"of task 11 of seed 3 is NaN or infinite in w, b, its value$"):
        axis._replace(first=10).value_and_grad(function, params, given, scale)
    with pytest.raises(FloatingPointError, match=r"of task 5 is NaN or infinite in w, b, its value$"):
        TaskAxis(2 * TASKS, loop=axis.loop).value_and_grad(function, at_first(params), given, scale)


def at_first(params: Params) -> Params:
    return {name: x[:1] for name, x in params.items()}


@pytest.mark.parametrize("seeds", [2], indirect=True)
def test_a_gradient_that_is_not_finite_where_the_value_is_is_named(cut: str, axis: TaskAxis) -> None:
    x = draw(0, 2 * TASKS, 2, 3, 5).abs() + 1
    x[TASKS + 3] = 0
    with pytest.raises(FloatingPointError, match=r"of task 3 of seed 3 is NaN or infinite in w$"):
        axis.value_and_grad(lambda params, x: (x @ params["w"].exp()).sqrt().sum(), theta(2), x)


def test_what_is_not_finite_in_no_task_alone_is_that_of_all_together() -> None:
    x = torch.ones(2 * TASKS, 1, 1, 1, dtype=torch.float64)
    x[TASKS:] = 1e308
    for names, which in ((NAMES[:2], " of seed 3"), (("", ""), "")):
        with pytest.raises(FloatingPointError, match=rf"of all tasks together{which} is NaN or infinite in its value$"):
            TaskAxis(TASKS, names).value_and_grad(lambda params, x: x.sum() + 0 * params["b"], theta(2), x)


@pytest.mark.parametrize(
    ("shape", "count"), [((20, 20, 200), 20), ((20, 20, 100), 10), ((3, 1, 1), 1), ((5, 1, 2000), 3)]
)
def test_slices_cover_the_tasks_in_order(shape: tuple[int, int, int], count: int) -> None:
    slices = TaskAxis(shape[0]).slices(torch.zeros(*shape, 3))
    assert len(slices) == count
    assert [i for _, rows in slices for i in range(rows.start, rows.stop)] == list(range(shape[0]))


@pytest.mark.parametrize("count", [1, 3, 7])
@pytest.mark.parametrize("tasks", [1, 2, 5])
@pytest.mark.parametrize("size", [700, 2000, 5000])
@pytest.mark.parametrize("loop", [False, True])
def test_slices_are_some_tasks_of_one_seed_or_all_of_several(count: int, tasks: int, size: int, loop: bool) -> None:
    axis = TaskAxis(tasks, ("",) * count, loop=loop)
    pieces = axis.slices(torch.zeros(count * tasks, 1, size, 2))
    rows = [row for piece in pieces for row in range(count * tasks)[piece.rows]]
    assert rows == list(range(count * tasks))
    for piece in pieces:
        held = list(range(count)[piece.seeds])
        assert sorted({row // tasks for row in range(count * tasks)[piece.rows]}) == held
        assert len(held) == 1 or len(range(count * tasks)[piece.rows]) == len(held) * tasks
        assert len(range(count * tasks)[piece.rows]) <= (1 if loop else max(1, sliced.CPU_STEPS // size))
    sums = [
        torch.tensor(rows)[piece.rows].unflatten(0, (len(range(count)[piece.seeds]), -1)).sum(-1) for piece in pieces
    ]
    expected = torch.arange(count * tasks).unflatten(0, (count, -1)).sum(-1)
    assert torch.equal(axis._total(pieces, sums), expected)


def test_rows_have_the_names_of_their_task_and_seed() -> None:
    alone, both = TaskAxis(4, first=8), TaskAxis(4, NAMES[:2], first=8)
    assert [alone.name(row) for row in (0, 3)] == ["task 8", "task 11"]
    assert [both.name(row) for row in (0, 3, 4, 5)] == [
        "task 8 of seed 1", "task 11 of seed 1", "task 8 of seed 3", "task 9 of seed 3"
    ]  # fmt: skip
    assert [axis.of_seed(0) for axis in (alone, both)] == ["", " of seed 1"]
    assert alone.of_seeds([0, 3]) == ""
    assert both.of_seeds([1, 2]) == ", of seed 1"
    assert both.of_seeds([6]) == ", of seed 3"
    assert both.of_seeds([7, 1, 2]) == ", of seed 1, seed 3"
    assert both.own == slice(8, 12)


def test_each_task_gets_its_seeds_parameters() -> None:
    spread = TaskAxis(2, NAMES).spread({"w": torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])})
    assert spread["w"].tolist() == [[1, 2], [1, 2], [3, 4], [3, 4], [5, 6], [5, 6]]
    one = torch.zeros(1, 3)
    assert TaskAxis(5).spread({"w": one})["w"].data_ptr() == one.data_ptr()
    assert TaskAxis(2, NAMES).by_seed(torch.arange(6)).tolist() == [[0, 1], [2, 3], [4, 5]]


def test_gather_has_the_values_of_every_ranks_tasks_by_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = torch.arange(10.0).reshape(2, 5)
    assert torch.equal(TaskAxis(5, NAMES[:2]).gather(whole.flatten(), 5), whole)
    monkeypatch.setattr(ranks, "size", lambda: 2)
    monkeypatch.setattr(ranks, "_sum", lambda values: values)
    shares, owns = [], []
    for rank in (0, 1):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        axis = TaskAxis.of_this_rank(5, NAMES[:2])
        owns.append(axis.own)
        shares.append(axis.gather(whole[:, axis.own].flatten(), 5))
    assert owns == [slice(0, 2), slice(2, 5)]
    assert torch.equal(sum(shares), whole)


def test_a_bad_seed_is_refused_by_name() -> None:
    axis = TaskAxis(4, NAMES)
    axis.refuse(torch.tensor([False, False, False]), "the product")
    with pytest.raises(FloatingPointError, match=r"^the product of seed 3 is NaN or infinite$"):
        axis.refuse(torch.tensor([False, True, True]), "the product")
    with pytest.raises(FloatingPointError, match=r"^the product is NaN or infinite$"):
        TaskAxis(4).refuse(torch.tensor([True]), "the product")


def test_metrics_become_a_row_for_each_seed() -> None:
    metrics = {"a": torch.tensor([0.5, 1.5]), "b": torch.tensor([True, False]), "n": torch.tensor([3, 4])}
    expected = [{"a": 0.5, "b": 1.0, "n": 3.0}, {"a": 1.5, "b": 0.0, "n": 4.0}]
    assert TaskAxis(4, NAMES[:2]).average(metrics, ("n",)) == expected
    assert to_rows(metrics) == expected
