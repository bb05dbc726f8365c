"""Functions run side by side."""

import threading

import pytest
import torch

from maml_rl.machine.threads import side_by_side


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
