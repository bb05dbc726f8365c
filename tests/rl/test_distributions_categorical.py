"""The categorical distribution by hand and against its definitions; its policy; the context vector."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from maml_rl.core.tree import Params
from maml_rl.rl.distributions import Categorical, Normal
from maml_rl.rl.policies import CONTEXT, CategoricalPolicy, GaussianPolicy, Policy

LN2, LN3 = math.log(2), math.log(3)
# p = (1/2, 1/4, 1/4) and the uniform distribution; a constant added to logits changes nothing.
P = Categorical(torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64).log() + 7)
UNIFORM = Categorical(torch.full((3,), -2.0, dtype=torch.float64))
ROWS = torch.eye(3, dtype=torch.float64)


def close(found: Tensor, expected: float | list[float]) -> None:
    torch.testing.assert_close(found, torch.tensor(expected, dtype=found.dtype))


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_log_prob_entropy_and_kl_by_hand() -> None:
    close(Categorical(P.logits.expand(3, 3)).log_prob(ROWS), [-LN2, -2 * LN2, -2 * LN2])
    close(P.entropy(), 1.5 * LN2)
    close(UNIFORM.entropy(), LN3)
    # sum p log(p / q), in either direction
    close(P.kl(UNIFORM), LN3 - 1.5 * LN2)
    close(UNIFORM.kl(P), 5 / 3 * LN2 - LN3)


def test_two_actions_are_a_sigmoid() -> None:
    coin = Categorical(torch.tensor([LN3, 0.0]))
    close(coin.log_prob(torch.tensor([[1.0, 0.0], [0.0, 1.0]])), [math.log(3 / 4), math.log(1 / 4)])
    close(coin.entropy(), 2 * LN2 - 0.75 * LN3)


def test_a_row_of_zeros_has_log_probability_zero_and_no_gradient() -> None:
    logits = normals(2, 4).requires_grad_()
    value = torch.stack([torch.zeros(4), torch.eye(4)[2]]).double()
    found = Categorical(logits).log_prob(value)
    assert found[0] == 0
    assert found[1] < 0
    found.sum().backward()
    assert not logits.grad[0].any()
    assert logits.grad[1].all()


def test_kl_is_its_definition_directed_and_zero_with_itself() -> None:
    one, two = Categorical(normals(6, 4)), Categorical(normals(6, 4, seed=1))
    p, q = one.logits.softmax(-1), two.logits.softmax(-1)
    torch.testing.assert_close(one.kl(two), (p * (p / q).log()).sum(-1))
    assert (one.kl(two) > 0).all()
    assert not torch.allclose(one.kl(two), two.kl(one))
    assert torch.equal(one.kl(one), torch.zeros(6, dtype=torch.float64))


def test_what_never_happens_costs_nothing() -> None:
    sure = Categorical(torch.tensor([500.0, 0.0]))
    assert sure.entropy() == 0
    close(sure.kl(Categorical(torch.zeros(2))), LN2)
    close(sure.log_prob(torch.tensor([0.0, 1.0])), -500.0)


def test_fisher_is_the_hessian_of_the_kl() -> None:
    old, vectors = Categorical(normals(4)), normals(4, 4, seed=2)
    hessian = torch.autograd.functional.hessian(lambda logits: old.kl(Categorical(logits)), old.logits)
    found = Categorical(old.logits.expand(4, 4)).fisher(Categorical(vectors)).logits
    torch.testing.assert_close(found, vectors @ hessian)
    # A constant added to the logits changes nothing.
    close(old.fisher(Categorical(torch.ones(4, dtype=torch.float64))).logits, [0.0] * 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_samples_have_the_probabilities(dtype: torch.dtype) -> None:
    n, chances = 200_000, torch.tensor([0.7, 0.2, 0.08, 0.02], dtype=torch.float64)
    drawn = Categorical((chances.log() - 1).to(dtype).expand(n, -1)).sample(normals(n, 4).to(dtype))
    assert drawn.dtype == dtype
    assert torch.equal(drawn.sum(-1), torch.ones(n, dtype=dtype))
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    deviation = (drawn.double().mean(0) - chances) / (chances * (1 - chances) / n).sqrt()
    assert deviation.abs().max() < 4.5


def test_a_constant_added_to_the_logits_changes_no_sample_and_more_noise_favours_an_action() -> None:
    logits, noise = normals(50, 3), normals(50, 3, seed=1)
    drawn = Categorical(logits).sample(noise)
    assert torch.equal(Categorical(logits + 4).sample(noise), drawn)
    raised = Categorical(logits).sample(noise + 3 * torch.tensor([1.0, 0.0, 0.0]))
    assert (raised[:, 0] >= drawn[:, 0]).all()
    assert raised[:, 0].sum() > drawn[:, 0].sum()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_rarest_noise_still_gives_one_action(dtype: torch.dtype) -> None:
    noise = torch.tensor([[8.3, -8.3], [-8.3, 8.3], [-8.3, -8.3], [8.3, 8.3]], dtype=dtype)
    drawn = Categorical(torch.tensor([[0.0, 1.0]], dtype=dtype).expand(4, 2)).sample(noise)
    assert drawn.tolist() == [[1, 0], [0, 1], [0, 1], [0, 1]]


def test_mode_is_the_most_probable_action() -> None:
    logits = torch.tensor([[[0.0, 2.0, 1.0], [-1.0, -3.0, -2.0]]])
    assert Categorical(logits).mode().tolist() == [[[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]]
    mean = torch.tensor([[0.5, -3.0]])
    assert torch.equal(Normal(mean, torch.ones(1, 2)).mode(), mean)


def perturbed(policy: Policy, seed: int) -> Params:
    """Parameters of which none is zero."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: value.double() + 0.3 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
        for name, value in policy.init(generator).items()
    }


CATEGORICAL = CategoricalPolicy(3, 4, hidden=(5, 4), context=2)
GAUSSIAN = GaussianPolicy(3, 4, hidden=(5, 4), context=2)
BOTH = pytest.mark.parametrize("policy", [CATEGORICAL, GAUSSIAN], ids=["categorical", "gaussian"])


@BOTH
@pytest.mark.parametrize("context", [0, 2])
@pytest.mark.parametrize("hidden", [(), (5, 4)])
def test_stacked_parameters_vmap_and_one_task_at_a_time_agree(
    policy: Policy, context: int, hidden: tuple[int, ...]
) -> None:
    policy = dataclasses.replace(policy, context=context, hidden=hidden)
    rows = [perturbed(policy, seed) for seed in range(3)]
    stacked = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    seen = normals(3, 2, 6, 3)
    together, mapped = policy(stacked, seen), torch.func.vmap(policy)(stacked, seen)
    alone = [policy(row, seen[k]) for k, row in enumerate(rows)]
    assert next(iter(together)).shape == (3, 2, 6, 4)
    for field, other, parts in zip(together, mapped, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(field, other)
        torch.testing.assert_close(field, torch.stack(parts))
    assert not torch.allclose(*(next(iter(found)) for found in (alone[0], policy(rows[1], seen[0]))))


def test_logits_by_hand() -> None:
    params = {"0.weight": torch.tensor([[1.0, -1.0], [0.0, 2.0]]), "0.bias": torch.tensor([0.5, 0.0])}
    found = CategoricalPolicy(2, 2, hidden=())(params, torch.tensor([[3.0, 1.0]]))
    assert isinstance(found, Categorical)
    assert found.logits.tolist() == [[3.5, -1.0]]


@BOTH
def test_a_context_is_two_more_columns_of_the_observation(policy: Policy) -> None:
    params, seen = perturbed(policy, 0), normals(5, 6, 3)
    wide = dataclasses.replace(policy, observations=5, context=0)
    columns = params[CONTEXT].expand(5, 6, 2)
    without = {name: value for name, value in params.items() if name != CONTEXT}
    found = policy(params, seen)
    for field, expected in zip(found, wide(without, torch.cat([seen, columns], -1)), strict=True):
        torch.testing.assert_close(field, expected)
    moved = policy(params | {CONTEXT: params[CONTEXT] + 1}, seen)
    assert not torch.allclose(next(iter(found)), next(iter(moved)))


@BOTH
def test_a_context_starts_at_zero_and_widens_the_first_layer(policy: Policy) -> None:
    params = policy.init(torch.Generator().manual_seed(0))
    assert params["0.weight"].shape == (5, 5)
    assert torch.equal(params[CONTEXT], torch.zeros(2))
    plain = dataclasses.replace(policy, context=0).init(torch.Generator().manual_seed(0))
    assert plain["0.weight"].shape == (3, 5)
    assert params.keys() - plain.keys() == {CONTEXT}
    assert ("log_std" in params) == isinstance(policy, GaussianPolicy)


@BOTH
@pytest.mark.parametrize(("hidden", "last"), [((), 0), ((8,), 1), ((8, 8, 8), 3)])
def test_the_head_is_the_last_layer(policy: Policy, hidden: tuple[int, ...], last: int) -> None:
    policy = dataclasses.replace(policy, hidden=hidden)
    assert policy.head == {f"{last}.weight", f"{last}.bias"}
    params = policy.init(torch.Generator())
    assert params[f"{last}.bias"].shape == (4,)
    assert f"{last + 1}.bias" not in params
