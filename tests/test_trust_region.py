"""Conjugate gradient and line search on problems with known solutions."""

import pytest
import torch
from torch import Tensor

from maml_rl.trust_region import conjugate_gradient, line_search


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


def search(evaluate: object, step: float = 1.0, limit: float = 1.0, backtracks: int = 15) -> object:
    start = torch.zeros(1, dtype=torch.float64)
    return line_search(evaluate, start, 0.0, torch.tensor([step], dtype=torch.float64), limit, 0.5, backtracks)


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
    found = line_search(lambda x: (value, 0.0), start, 0.0, torch.ones(1), 1.0, 0.5, 4)
    assert found.x is start
    assert (found.accepted, found.backtracks, found.objective, found.constraint) == (False, 4, 0.0, 0.0)


def test_a_constraint_that_is_nan_is_refused() -> None:
    assert not search(lambda x: (1.0, float("nan"))).accepted
