"""The models: shapes, initial weights, batch norm by hand, and the last layer."""

import math

import pytest
import torch
from torch import Tensor, nn

from maml_rl.supervised import models
from maml_rl.supervised.batch_norm import BatchNorm


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_sinusoid_network_of_the_paper() -> None:
    module = models.network("perceptron", (1,), 1, (40, 40), False)
    shapes = [tuple(value.shape) for value in module.parameters()]
    assert shapes == [(40, 1), (40,), (40, 40), (40,), (1, 40), (1,)]


def test_the_convolutional_network_of_the_paper() -> None:
    module = models.network("convolutional", (1, 28, 28), 5, (64,) * 4, True)
    sizes, seen = [], torch.rand(2, 1, 28, 28)
    for layer in module:  # type: ignore[attr-defined]
        seen = layer(seen)
        if isinstance(layer, nn.Conv2d):
            sizes.append(tuple(seen.shape))
            assert (layer.kernel_size, layer.stride, layer.bias) == ((3, 3), (2, 2), None)
    assert sizes == [(2, 64, side, side) for side in (14, 7, 4, 2)]
    assert seen.shape == (2, 5)
    counted = sum(value.numel() for value in module.parameters())
    assert counted == 64 * 9 + 3 * 64 * 64 * 9 + 4 * 2 * 64 + 64 * 5 + 5


def test_images_are_flattened_for_a_perceptron() -> None:
    module = models.network("perceptron", (1, 28, 28), 5, (256, 128, 64, 64), True)
    assert next(module.parameters()).shape == (256, 784)
    assert models.network("perceptron", (2,), 3, (), False)[1].weight.shape == (3, 2)  # type: ignore[index]
    params = models.initial(module, "glorot", seeded())
    assert models.predict(module, params, torch.rand(7, 1, 28, 28)).shape == (7, 5)


@pytest.mark.parametrize("bias", [True, False], ids=["batch norm", "bias"])
def test_a_shift_before_batch_norm_would_do_nothing_and_is_left_out(bias: bool) -> None:
    names = [name for name, _ in models.network("perceptron", (1,), 1, (4,), bias).named_parameters()]
    assert len(names) == (5 if bias else 4)


@pytest.mark.parametrize("kind", ["perceptron", "convolutional"])
def test_glorot_weights_have_their_bounds_and_the_rest_starts_at_zero_or_one(kind: str) -> None:
    module = models.network(kind, (3, 8, 8), 5, (50, 60), True)
    params = models.initial(module, "glorot", seeded())
    assert list(params) == [name for name, _ in module.named_parameters()]
    for name, value in params.items():
        if value.dim() > 1:
            field = value[0, 0].numel()
            bound = math.sqrt(6 / (field * (value.shape[0] + value.shape[1])))
            assert 0.9 * bound < value.abs().max() <= bound
            assert value.std() == pytest.approx(bound / math.sqrt(3), rel=0.1)
        else:
            assert (value == (1 if name.endswith("weight") else 0)).all()


def test_truncated_normal_weights() -> None:
    params = models.initial(models.network("perceptron", (1,), 1, (200, 200), False), "truncated_normal", seeded())
    weights = params["3.weight"]
    assert weights.abs().max() <= 0.02
    assert weights.mean() == pytest.approx(0, abs=2e-4)
    # cut at two deviations: variance 1 - 4 phi(2) / (2 Phi(2) - 1) of the whole
    density, inside = math.exp(-2) / math.sqrt(2 * math.pi), math.erf(2 / math.sqrt(2))
    assert weights.std() == pytest.approx(0.01 * math.sqrt(1 - 4 * density / inside), rel=0.02)
    assert all((params[f"{k}.bias"] == 0).all() for k in (1, 3, 5))


def test_the_generator_decides_and_the_modules_own_parameters_do_not_count() -> None:
    first, second = (models.network("perceptron", (1,), 1, (4,), False) for _ in range(2))
    one, same = models.initial(first, "glorot", seeded()), models.initial(second, "glorot", seeded())
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["1.weight"], models.initial(first, "glorot", seeded(1))["1.weight"])
    inputs = torch.rand(5, 1)
    torch.testing.assert_close(models.predict(first, one, inputs), models.predict(second, one, inputs))


def test_a_perceptron_with_batch_norm_by_hand() -> None:
    module = models.network("perceptron", (2,), 3, (4,), True)
    params = {
        name: torch.randn(value.shape, generator=seeded(k), dtype=torch.float64)
        for k, (name, value) in enumerate(module.named_parameters())
    }
    weight, scale, shift, head, bias = params.values()
    inputs = torch.randn(6, 2, generator=seeded(9), dtype=torch.float64)
    values = inputs @ weight.T
    values = (values - values.mean(0)) / (values.var(0, correction=0) + 1e-5).sqrt() * scale + shift
    torch.testing.assert_close(models.predict(module, params, inputs), values.relu() @ head.T + bias)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("shape", [(6, 4), (3, 4, 5, 2)], ids=["values", "images"])
def test_batch_norm_is_torchs_to_the_second_derivative(shape: tuple[int, ...], fused: bool) -> None:
    """Of one task, where torch's own is right."""
    values, weight, bias, direction = (
        torch.randn(size, generator=seeded(k), dtype=torch.float64, requires_grad=True)
        for k, size in enumerate((shape, (4,), (4,), shape))
    )
    module, found = BatchNorm(4, fused), []
    for own in (True, False):
        if own:
            out = models.predict(module, {"weight": weight, "bias": bias}, values)
        else:
            out = torch.nn.functional.batch_norm(values, None, None, weight, bias, True)
        first = torch.autograd.grad((out**3 * direction).sum(), [values, weight, bias], create_graph=True)
        second = torch.autograd.grad(sum(each.square().sum() for each in first), [values, weight, bias, direction])
        found.append([out, *first, *second])
    torch.testing.assert_close(*found)


def test_batch_norm_keeps_no_state_and_makes_no_difference_between_training_and_test() -> None:
    module = models.network("convolutional", (1, 8, 8), 3, (4, 4), True)
    assert not list(module.buffers())
    params, inputs = models.initial(module, "glorot", seeded()), torch.rand(5, 1, 8, 8, generator=seeded())
    first = models.predict(module, params, inputs)
    models.predict(module, params, 100 * inputs)
    assert torch.equal(models.predict(module, params, inputs), first)
    assert torch.equal(models.predict(module.eval(), params, inputs), first)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["channels first", "last"])
def test_the_fused_derivatives_are_finite_differences(layout: torch.memory_format) -> None:
    sizes = ((3, 4, 2, 3), (4,), (4,))
    given = [torch.randn(size, dtype=torch.float64, generator=seeded(k)) for k, size in enumerate(sizes)]
    given = [each.requires_grad_() for each in given]

    def normal(values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        own = {"weight": weight, "bias": bias}
        return models.predict(BatchNorm(4, fused=True).double(), own, values.contiguous(memory_format=layout))

    assert torch.autograd.gradcheck(normal, given)
    assert torch.autograd.gradgradcheck(normal, given)


def test_channels_last_cost_no_digits() -> None:
    """Torch's own kernel loses two here."""
    values = 1 + torch.randn(20, 64, 14, 14, generator=seeded()) / 3
    exact = BatchNorm(64).double()(values.double())
    last = values.to(memory_format=torch.channels_last)
    ours, theirs = BatchNorm(64, fused=True)(last), torch.nn.functional.batch_norm(last, None, None, None, None, True)
    off = [float((each - exact).detach().norm() / exact.detach().norm()) for each in (ours, theirs)]
    assert off[0] < 5e-7
    assert off[0] < off[1]


def test_many_images_and_few_are_the_same_to_the_model() -> None:
    module = models.network("convolutional", (2, 8, 8), 3, (4, 4), False, fused=True)
    params = models.initial(module, "glorot", seeded())
    images = torch.rand(2 * models.MANY, 2, 8, 8, generator=seeded())
    parts = [models.predict(module, params, few) for few in images.split(models.MANY - 1)]
    torch.testing.assert_close(models.predict(module, params, images), torch.cat(parts))


def test_a_third_derivative_is_refused_and_not_wrong() -> None:
    values = torch.randn(3, 2, generator=seeded(), requires_grad=True)
    (slope,) = torch.autograd.grad((BatchNorm(2, fused=True)(values) ** 3).sum(), values, create_graph=True)
    with pytest.raises(NotImplementedError, match="batch norm has no third derivative here: take fused = False"):
        torch.autograd.grad(slope.square().sum(), values, create_graph=True)


def test_one_value_of_a_channel_is_its_own_mean() -> None:
    for fused in (False, True):
        assert BatchNorm(4, fused)(torch.randn(1, 4, 1, 1)).abs().max() < 1e-4  # not refused, as torch's is


@pytest.mark.parametrize("kind", ["perceptron", "convolutional"])
def test_the_head_is_the_last_linear_layer(kind: str) -> None:
    module = models.network(kind, (1, 8, 8), 3, (4, 4), True)
    names = [name for name, _ in module.named_parameters()]
    assert models.head(module) == set(names[-2:])

    def shapes(found: frozenset[str]) -> list[tuple[int, ...]]:
        values: dict[str, Tensor] = dict(module.named_parameters())
        return sorted(tuple(values[name].shape) for name in found)

    assert shapes(models.head(module)) == [(3,), (3, 4)]
