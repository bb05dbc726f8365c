"""Slices of the task axis, and functions run side by side."""

import math
import threading

import pytest
import torch

from maml_rl.core import task_axis
from maml_rl.machine.threads import side_by_side


@pytest.mark.parametrize(
    ("shape", "count"), [((20, 20, 200), 20), ((20, 20, 100), 10), ((3, 1, 1), 1), ((5, 1, 2000), 3)]
)
def test_slices_cover_the_tasks_in_order(shape: tuple[int, int, int], count: int) -> None:
    slices = task_axis.task_slices(torch.zeros(shape))
    assert len(slices) == count
    assert [i for rows in slices for i in range(rows.start, rows.stop)] == list(range(shape[0]))


@pytest.mark.parametrize("runs", [(), (1,), (3,), (7,)])
@pytest.mark.parametrize("tasks", [1, 2, 5])
@pytest.mark.parametrize("size", [700, 2000, 5000])
def test_parts_are_some_tasks_of_one_run_or_all_of_several(runs: tuple[int, ...], tasks: int, size: int) -> None:
    count = math.prod(runs)
    pieces = task_axis.parts(torch.zeros(count * tasks, 1, size), runs)
    rows = [row for part in pieces for row in range(count * tasks)[part.tasks]]
    assert rows == list(range(count * tasks))
    owners = torch.arange(count).reshape(runs)
    for part in pieces:
        held = owners[part.of].reshape(part.runs).reshape(-1).tolist()
        assert sorted({row // tasks for row in range(count * tasks)[part.tasks]}) == held
        assert len(held) == 1 or len(range(count * tasks)[part.tasks]) == len(held) * tasks
        assert len(range(count * tasks)[part.tasks]) <= max(1, task_axis.CPU_STEPS // size)
    each = [torch.tensor(rows)[part.tasks].unflatten(0, (*part.runs, -1)).sum(-1) for part in pieces]
    expected = torch.arange(count * tasks).unflatten(0, (*runs, -1)).sum(-1)
    assert torch.equal(task_axis.add_up(pieces, each, runs), expected)


@pytest.mark.parametrize("threads", [1, 2])
def test_results_are_in_order_and_one_torch_thread_works_on_each(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = side_by_side(lambda i: (i, torch.get_num_threads(), threading.get_ident()), range(6))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert [row[0] for row in found] == list(range(6))
    assert {row[1] for row in found} == {1}
    assert (len({row[2] for row in found}) > 1 or found[0][2] != threading.get_ident()) == (threads > 1)


def test_an_error_comes_out() -> None:
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda i: 1 / i, [1, 0])
    assert torch.get_num_threads() >= 1
