"""The Gaussian policy: what it computes, how it starts, how its standard deviation is floored."""

import math

import pytest
import torch

from maml_rl.rl.policies import GaussianPolicy


def test_one_hidden_layer_by_hand() -> None:
    policy = GaussianPolicy(2, 1, hidden=(2,), activation="relu")
    params = {
        "0.weight": torch.tensor([[1.0, -1.0], [2.0, 0.0]]),
        "0.bias": torch.tensor([0.5, 0.0]),
        "1.weight": torch.tensor([[3.0], [7.0]]),
        "1.bias": torch.tensor([-1.0]),
        "log_std": torch.tensor([0.25]),
    }
    found = policy(params, torch.tensor([[1.0, 1.0], [-1.0, 0.0]]))
    # hidden (3.5, 0) and (0, 1)
    torch.testing.assert_close(found.mean, torch.tensor([[9.5], [6.0]]))
    torch.testing.assert_close(found.log_std, torch.full((2, 1), 0.25))


def test_any_leading_axes_stacked_parameters_and_vmap_agree() -> None:
    policy = GaussianPolicy(3, 2, hidden=(4, 4))
    rows = [policy.init(torch.Generator().manual_seed(i)) for i in range(2)]
    stacked = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    seen = torch.randn(2, 5, 6, 3, generator=torch.Generator().manual_seed(9))
    together = policy(stacked, seen)
    for field, mapped in zip(together, torch.func.vmap(policy)(stacked, seen), strict=True):
        torch.testing.assert_close(field, mapped)
    for k, row in enumerate(rows):
        torch.testing.assert_close(together.mean[k], policy(row, seen[k]).mean)
    torch.testing.assert_close(policy(rows[0], seen[0, 0, 0]).mean, together.mean[0, 0, 0])


@pytest.mark.parametrize("context", [0, 2])
def test_observations_are_divided_by_their_units_and_the_context_is_not(context: int) -> None:
    units = torch.tensor([2.0, 0.5, 10.0])
    plain = GaussianPolicy(3, 2, hidden=(4,), context=context)
    policy = GaussianPolicy(3, 2, hidden=(4,), context=context, units=units)
    rows = [plain.init(torch.Generator().manual_seed(i)) for i in range(2)]
    for row in rows:
        row |= {"context": torch.ones(2)} if context else {}
    stacked = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    seen = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(9))
    torch.testing.assert_close(policy(stacked, seen * units).mean, plain(stacked, seen).mean)
    assert not torch.allclose(policy(stacked, seen).mean, plain(stacked, seen).mean)


def test_initialisation() -> None:
    policy = GaussianPolicy(30, 6, hidden=(100, 50), init_std=0.5)
    params = policy.init(torch.Generator().manual_seed(0))
    assert list(params) == ["0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias", "log_std"]
    for name, (inputs, outputs) in {
        "0.weight": (30, 100),
        "1.weight": (100, 50),
        "2.weight": (50, 6),
    }.items():
        bound = math.sqrt(6 / (inputs + outputs))
        assert params[name].shape == (inputs, outputs)
        assert 0.95 * bound < params[name].abs().max() <= bound
    assert not params["0.bias"].any()
    torch.testing.assert_close(params["log_std"], torch.full((6,), math.log(0.5)))


@pytest.mark.parametrize(("log_std", "std", "slope"), [(-2.0, math.exp(-2.0), 1.0), (-9.0, 0.01, 0.0)])
def test_floor_of_the_standard_deviation(log_std: float, std: float, slope: float) -> None:
    policy = GaussianPolicy(1, 1, hidden=(), min_std=0.01)
    params = {"0.weight": torch.ones(1, 1), "0.bias": torch.zeros(1), "log_std": torch.tensor([log_std])}
    params["log_std"].requires_grad_()
    found = policy(params, torch.ones(1, 1))
    assert found.std().item() == pytest.approx(std)
    found.log_std.sum().backward()
    assert float(params["log_std"].grad) == slope
