"""Sinusoid regression: the curves, their floors by exact integration, and which tasks are held out."""

import math

import numpy as np
import pytest
import torch

from maml_rl.core.tree import map_tensors
from maml_rl.supervised import Sinusoid, TaskBatch
from maml_rl.supervised.sinusoid import MEAN_AMPLITUDE

MANY = 20_000


@pytest.fixture(scope="module")
def many() -> TaskBatch:
    return Sinusoid(10, 10).sample_tasks(MANY, torch.Generator().manual_seed(0))


def curves(batch: TaskBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Amplitude and phase of each task, by least squares on y = a sin x + b cos x in float64."""
    x, y = (torch.cat(pair, 1).double() for pair in zip(*batch, strict=True))
    a, b = torch.linalg.lstsq(torch.cat([x.sin(), x.cos()], -1), y).solution.squeeze(-1).unbind(-1)
    return (a.square() + b.square()).sqrt(), torch.atan2(-b, a)


def exact_floors() -> tuple[float, float, float]:
    """Error of 0, the coefficient of the best blind function, and its error, from E over A, phase and x.

    E[y | x] = E[A] E[sin(x - phase)] = E[A] (sin x E[cos phase] - cos x E[sin phase]) = -(2 / pi) E[A] cos x.
    """
    mean, square = 5.1 / 2, (5.0**3 - 0.1**3) / (3 * 4.9)
    sine_squared = 1 / 2  # over a phase uniform in (0, pi), for every x
    cosine_squared = 1 / 2 + math.sin(10) / 20  # over x uniform in (-5, 5)
    coefficient = 2 / math.pi * mean
    return square * sine_squared, coefficient, square * sine_squared - coefficient**2 * cosine_squared


def test_the_floors_are_those_of_the_docstring() -> None:
    assert exact_floors() == pytest.approx((4.2517, 1.6234, 3.0057), abs=5e-5)
    assert exact_floors()[1] == pytest.approx(MEAN_AMPLITUDE * 2 / math.pi)


def test_sampled_tasks_have_these_floors(many: TaskBatch) -> None:
    zero, coefficient, blind = exact_floors()
    found = Sinusoid().references(many)
    assert list(found) == ["predicting 0", "the best function blind to the task"]
    x, y = many.query
    guess = -coefficient * x.cos()
    for value, expected, error in ((found["predicting 0"], zero, y), (list(found.values())[1], blind, y - guess)):
        noise = float(error.square().mean((1, 2)).std()) / MANY**0.5  # tasks are independent, points of a task are not
        assert noise < 0.05
        assert value == pytest.approx(expected, abs=4 * noise)
    slope = float((y * x.cos()).mean() / x.cos().square().mean())  # least squares: no other multiple is better
    assert slope == pytest.approx(-coefficient, abs=0.04)


def test_references_are_of_the_query_points_by_hand() -> None:
    batch = Sinusoid(2, 2).held_out_tasks(1)
    query = batch.query._replace(inputs=torch.tensor([[[0.0], [math.pi]]]), targets=torch.tensor([[[1.0], [2.0]]]))
    c = 2.55 * 2 / math.pi
    found = list(Sinusoid().references(batch._replace(query=query)).values())
    assert found == pytest.approx([(1 + 4) / 2, ((1 + c) ** 2 + (2 - c) ** 2) / 2])


def test_every_task_is_one_curve_in_range(many: TaskBatch) -> None:
    amplitude, phase = curves(many)
    for part in many:
        fit = amplitude[:, None, None] * torch.sin(part.inputs.double() - phase[:, None, None])
        torch.testing.assert_close(fit, part.targets.double(), atol=1e-4, rtol=0)
        assert part.inputs.abs().max() <= 5
    for found, low, high in ((amplitude, 0.1, 5), (phase, 0, math.pi), (many.query.inputs, -5, 5)):
        assert low - 1e-3 <= found.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < found.max() <= high + 1e-3
        quarters = np.quantile(found.numpy(), [0.25, 0.5, 0.75])
        assert quarters == pytest.approx([low + q * (high - low) for q in (0.25, 0.5, 0.75)], abs=0.02 * (high - low))


def test_the_shapes_are_the_contract() -> None:
    batch = Sinusoid(3, 7).sample_tasks(4, torch.Generator().manual_seed(0))
    assert [x.shape for x in batch.support] == [(4, 3, 1)] * 2
    assert [x.shape for x in batch.query] == [(4, 7, 1)] * 2
    assert all(x.dtype == torch.float32 for part in batch for x in part)


def test_support_and_query_points_are_different(many: TaskBatch) -> None:
    both = torch.cat([many.support.inputs, many.query.inputs], 1).squeeze(-1)
    gaps = both[:100].sort(-1).values.diff(dim=-1)
    assert (gaps > 0).all()


def test_held_out_tasks_are_fixed_and_no_ones_else() -> None:
    tasks = Sinusoid()
    same = map_tensors(torch.equal, tasks.held_out_tasks(50), Sinusoid().held_out_tasks(50))
    assert all(found for part in same for found in part)
    drawn = {
        "test": tasks.held_out_tasks(50, "test"),
        "validation": tasks.held_out_tasks(50, "validation"),
        **{f"seed {seed}": tasks.sample_tasks(50, torch.Generator().manual_seed(seed)) for seed in range(3)},
    }
    amplitudes = torch.cat([curves(batch)[0] for batch in drawn.values()])
    assert len(amplitudes.unique()) == 50 * len(drawn)
    assert torch.equal(tasks.held_out_tasks(50).query.inputs, drawn["test"].query.inputs)
    with pytest.raises(ValueError, match="split = 'train': use 'validation' or 'test'"):
        tasks.held_out_tasks(1, "train")


def test_the_held_out_curves_do_not_depend_on_the_number_of_examples() -> None:
    few, many = (curves(Sinusoid(shots, queries).held_out_tasks(20)) for shots, queries in ((5, 10), (20, 200)))
    for one, other in zip(few, many, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_the_generator_decides() -> None:
    one, same, other = (Sinusoid().sample_tasks(3, torch.Generator().manual_seed(s)).support.inputs for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
