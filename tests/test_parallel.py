"""Slices of the task axis, and functions run side by side."""

import threading

import pytest
import torch

from maml_rl import parallel


@pytest.mark.parametrize(
    ("shape", "count"), [((20, 20, 200), 20), ((20, 20, 100), 10), ((3, 1, 1), 1), ((5, 1, 2000), 3)]
)
def test_slices_cover_the_tasks_in_order(shape: tuple[int, int, int], count: int) -> None:
    slices = parallel.task_slices(torch.zeros(shape))
    assert len(slices) == count
    assert [i for rows in slices for i in range(rows.start, rows.stop)] == list(range(shape[0]))


@pytest.mark.parametrize("threads", [1, 2])
def test_results_are_in_order_and_one_torch_thread_works_on_each(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = parallel.side_by_side(lambda i: (i, torch.get_num_threads(), threading.get_ident()), range(6))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert [row[0] for row in found] == list(range(6))
    assert {row[1] for row in found} == {1}
    assert (len({row[2] for row in found}) > 1 or found[0][2] != threading.get_ident()) == (threads > 1)


def test_an_error_comes_out() -> None:
    with pytest.raises(ZeroDivisionError):
        parallel.side_by_side(lambda i: 1 / i, [1, 0])
    assert torch.get_num_threads() >= 1
