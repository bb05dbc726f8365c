"""Conjugate gradient and line search on problems with known solutions."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from maml_rl.core.trust_region import conjugate_gradient, line_search


def spd(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(n, n, generator=generator, dtype=torch.float64)
    return root @ root.mT + torch.eye(n), torch.randn(n, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("n", [1, 3, 8])
def test_exact_in_n_iterations(n: int) -> None:
    matrix, b = spd(n)
    solution = conjugate_gradient(lambda v: matrix @ v, b, n)
    torch.testing.assert_close(solution.x, torch.linalg.solve(matrix, b), atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(solution.product, matrix @ solution.x, atol=1e-8, rtol=1e-8)
    assert solution.residual < 1e-8


def test_residual_is_what_is_left() -> None:
    matrix, b = spd(8)
    solution = conjugate_gradient(lambda v: matrix @ v, b, 3)
    assert solution.residual == pytest.approx(float((b - matrix @ solution.x).norm() / b.norm()))
    assert solution.residual > 1e-3


def test_one_product_for_each_iteration() -> None:
    matrix, b = spd(8)
    calls = []
    conjugate_gradient(lambda v: calls.append(v) or matrix @ v, b, 5)
    assert len(calls) == 5


def test_zero_gradient_gives_zero() -> None:
    solution = conjugate_gradient(lambda v: v, torch.zeros(3), 5)
    assert torch.equal(solution.x, torch.zeros(3))
    assert solution.residual == 0


def test_negative_curvature_stops_it() -> None:
    matrix = torch.diag(torch.tensor([1.0, -1.0], dtype=torch.float64))
    solution = conjugate_gradient(lambda v: matrix @ v, torch.tensor([0.1, 1.0], dtype=torch.float64), 5)
    assert solution.x.isfinite().all()
    assert torch.equal(solution.x, torch.zeros(2, dtype=torch.float64))


def tensors(evaluate: Callable[[Tensor], tuple[float, float]]) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """One problem's objective and constraint as the line search takes them."""
    return lambda x: tuple(torch.tensor(value, dtype=torch.float64) for value in evaluate(x))


def search(evaluate: object, step: float = 1.0, limit: float = 1.0, backtracks: int = 15) -> object:
    start, full = torch.zeros(1, dtype=torch.float64), torch.tensor([step], dtype=torch.float64)
    return line_search(tensors(evaluate), start, start.sum(), full, limit, 0.5, backtracks)


def test_the_full_step_is_tried_first() -> None:
    found = search(lambda x: (float(x), 0.0))
    assert (found.accepted, found.backtracks, float(found.x)) == (True, 0, 1.0)


def test_the_constraint_is_inclusive_and_backtracks() -> None:
    found = search(lambda x: (float(x), float(x)), limit=0.25)
    assert (found.accepted, found.backtracks, float(found.x), found.constraint) == (True, 2, 0.25, 0.25)


def test_the_objective_must_rise() -> None:
    found = search(lambda x: (float(x * (0.6 - x)), 0.0))
    assert (found.accepted, found.backtracks, float(found.x)) == (True, 1, 0.5)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_a_refused_search_returns_the_very_start(value: float) -> None:
    start = torch.tensor([3.0])
    found = line_search(tensors(lambda x: (value, 0.0)), start, torch.zeros(()), torch.ones(1), 1.0, 0.5, 4)
    assert found.x is start
    assert (found.accepted, found.backtracks, found.objective, found.constraint) == (False, 4, 0.0, 0.0)


def test_a_constraint_that_is_nan_is_refused() -> None:
    assert not search(lambda x: (1.0, float("nan"))).accepted


def test_a_batch_is_solved_as_each_alone() -> None:
    """With a system that needs more products than others, one whose right side is 0 and one that is indefinite."""
    systems = [spd(6, seed) for seed in range(3)] + [(torch.eye(6).double(), torch.zeros(6).double())]
    systems.append((torch.diag(torch.tensor([1.0, 1, 1, 1, 1, -100])).double(), torch.ones(6).double()))
    matrices, b = (torch.stack(parts) for parts in zip(*systems, strict=True))
    together = conjugate_gradient(lambda v: (matrices @ v.unsqueeze(-1)).squeeze(-1), b, 4)
    for k, (matrix, right) in enumerate(systems):
        alone = conjugate_gradient(lambda v, matrix=matrix: matrix @ v, right, 4)
        for found, expected in zip(together, alone, strict=True):
            torch.testing.assert_close(found[k], expected, rtol=1e-10, atol=1e-12)
    assert (together.residual[3:] == torch.tensor([0.0, 1.0])).all()


@pytest.mark.parametrize("garbage", [torch.nan, torch.inf])
def test_a_batch_is_searched_as_each_alone_and_what_is_found_is_not_looked_at_again(garbage: float) -> None:
    """Of four: accepted at once, after two backtracks, never, and not tried as its step is zero."""
    searching = [[True, True, True, False]] + [[False, True, True, False]] * 2 + [[False, False, True, False]]
    rows = iter(torch.tensor(searching))

    def evaluate(x: Tensor) -> tuple[Tensor, Tensor]:
        value = x.squeeze(-1)
        return torch.where(next(rows), value * torch.tensor([1.0, 1.0, -1.0, 1.0]), garbage), value

    start, step = torch.zeros(4, 1), torch.tensor([[0.2], [1.0], [1.0], [0.0]])
    found = line_search(evaluate, start, torch.zeros(4), step, 0.25, 0.5, 4)
    assert found.x.squeeze(-1).tolist() == pytest.approx([0.2, 0.25, 0.0, 0.0])
    assert found.accepted.tolist() == [True, True, False, False]
    assert found.backtracks.tolist() == [0, 2, 4, 0]
    assert found.objective.tolist() == pytest.approx([0.2, 0.25, 0.0, 0.0])
    assert found.constraint.tolist() == pytest.approx([0.2, 0.25, 0.0, 0.0])
    assert next(rows, None) is None
