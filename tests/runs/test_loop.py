"""Which runs make which iterations, where some are behind."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maml_rl.runs.loop import stages


@pytest.mark.parametrize(
    ("starts", "iterations", "expected"),
    [
        ([5, 7, 7], 10, [([0], 5, 7), ([0, 1, 2], 7, 10)]),
        ([7, 5, 7], 10, [([1], 5, 7), ([0, 1, 2], 7, 10)]),
        ([3, 3, 3], 10, [([0, 1, 2], 3, 10)]),
        ([0], 4, [([0], 0, 4)]),
        ([2, 12, 5], 10, [([0], 2, 5), ([0, 2], 5, 10)]),
        ([10, 8], 10, [([1], 8, 10)]),
        ([0, 1, 2], 3, [([0], 0, 1), ([0, 1], 1, 2), ([0, 1, 2], 2, 3)]),
        ([10, 10], 10, []),
        ([12, 10], 10, []),
        ([0, 0], 0, []),
    ],
    ids=[
        "one is behind", "whichever it is", "all equal", "one alone", "one beyond the end", "one at the end",
        "each further", "none left", "none left and one beyond", "nothing to do",
    ],
)  # fmt: skip
def test_runs_that_are_behind_catch_up_first(
    starts: Sequence[int], iterations: int, expected: list[tuple[list[int], int, int]]
) -> None:
    assert stages(starts, iterations) == expected


@given(starts=st.lists(st.integers(0, 12), min_size=1, max_size=5), iterations=st.integers(0, 10))
def test_every_run_makes_each_iteration_that_it_lacks_once_and_in_order(starts: list[int], iterations: int) -> None:
    made: list[list[int]] = [[] for _ in starts]
    for stage in stages(starts, iterations):
        assert stage.first < stage.last
        for seed in stage.seeds:
            made[seed] += range(stage.first, stage.last)
    assert made == [list(range(start, iterations)) for start in starts]
