"""The estimators: same first gradient, different Hessians, each the one it claims."""

import math

import pytest
import torch
from alone import flatten, stack, unflatten
from torch import Tensor

from maml_rl.core.tree import Params
from maml_rl.rl.data import Batch
from maml_rl.rl.distributions import Categorical
from maml_rl.rl.losses import ESTIMATORS, drift, inner_loss, surrogate
from maml_rl.rl.policies import CategoricalPolicy
from synthetic import POLICY, random_batch, random_params, task

PARAMS = random_params(0)
BATCH = task(random_batch(stack(PARAMS, 1), 1, seed=3), 0)


def as_function(estimator: str, batch: Batch = BATCH, importance_weighted: bool = False):
    loss = inner_loss(POLICY, estimator, importance_weighted)
    return lambda vector: loss(unflatten(vector, PARAMS), batch)


def log_probs(vector: Tensor, batch: Batch = BATCH) -> Tensor:
    return POLICY(unflatten(vector, PARAMS), batch.observations).log_prob(batch.actions)


def score(batch: Batch = BATCH) -> Tensor:
    """Gradient of every log-probability, (B, T, parameters)."""
    return torch.autograd.functional.jacobian(log_probs, flatten(PARAMS))


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_first_gradient_is_the_policy_gradient(estimator: str) -> None:
    gradient = torch.autograd.functional.jacobian(as_function(estimator), flatten(PARAMS))
    expected = -torch.einsum("btp,bt,bt->p", score(), BATCH.advantages, BATCH.weights)
    torch.testing.assert_close(gradient, expected)


def plain_hessian() -> Tensor:
    return torch.autograd.functional.hessian(as_function("log_prob"), flatten(PARAMS))


def test_log_prob_hessian_lacks_the_outer_product() -> None:
    """It is the sum of A times the Hessians of log pi."""
    at = flatten(PARAMS)
    scale = BATCH.advantages * BATCH.weights

    def gradient(vector: Tensor) -> Tensor:
        found = torch.autograd.functional.jacobian(log_probs, vector, create_graph=True)
        return -torch.einsum("btp,bt->p", found, scale)

    torch.testing.assert_close(plain_hessian(), torch.autograd.functional.jacobian(gradient, at))


def test_lvc_adds_the_outer_product_of_each_step() -> None:
    s = score()
    outer = -torch.einsum("btp,btq,bt->pq", s, s, BATCH.advantages * BATCH.weights)
    hessian = torch.autograd.functional.hessian(as_function("lvc"), flatten(PARAMS))
    torch.testing.assert_close(hessian, plain_hessian() + outer)
    assert outer.abs().max() > 1e-3


def test_dice_adds_the_outer_products_with_all_earlier_steps() -> None:
    """Second derivative of box(<=t) - box(<t) is s_t s_t' + s_t S' + S s_t', S the scores before t."""
    s = score()
    live = (BATCH.weights > 0).unsqueeze(-1)
    before = (s * live).cumsum(1) - s * live
    scale = BATCH.advantages * BATCH.weights
    outer = torch.einsum("btp,btq,bt->pq", s, s, scale)
    cross = torch.einsum("btp,btq,bt->pq", s, before, scale)
    hessian = torch.autograd.functional.hessian(as_function("dice"), flatten(PARAMS))
    torch.testing.assert_close(hessian, plain_hessian() - outer - cross - cross.mT)
    assert cross.abs().max() > 1e-3


def test_lvc_and_dice_agree_on_one_step_episodes() -> None:
    short = task(random_batch(stack(PARAMS, 1), 1, seed=5, episodes=6, steps=1), 0)
    at = flatten(PARAMS)
    torch.testing.assert_close(
        torch.autograd.functional.hessian(as_function("lvc", short), at),
        torch.autograd.functional.hessian(as_function("dice", short), at),
    )


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_ended_steps_count_nowhere(estimator: str) -> None:
    ended = BATCH.weights == 0
    assert ended.any()
    changed = BATCH._replace(actions=torch.where(ended.unsqueeze(-1), 5.0, BATCH.actions))
    at = flatten(PARAMS)
    for order in (torch.autograd.functional.jacobian, torch.autograd.functional.hessian):
        torch.testing.assert_close(order(as_function(estimator), at), order(as_function(estimator, changed), at))


def test_surrogate_at_the_old_policy() -> None:
    """Ratio 1 gives the mean advantage, which normalisation makes 0; KL 0."""
    objective, kl = surrogate(POLICY, PARAMS, BATCH)
    assert float(objective) == pytest.approx(0, abs=1e-12)
    assert float(kl) == pytest.approx(0, abs=1e-12)


def test_kl_is_of_old_to_new_over_live_steps() -> None:
    new = random_params(1)
    per_step = BATCH.behaviour.kl(POLICY(new, BATCH.observations))
    expected = per_step[BATCH.weights > 0].mean()
    assert float(surrogate(POLICY, new, BATCH)[1]) == pytest.approx(float(expected))


COIN = CategoricalPolicy(observations=1, actions=2, hidden=())


def coin(heads: float) -> Params:
    """Heads, the first action, with this probability."""
    logits = torch.tensor([heads, 1 - heads], dtype=torch.float64).log()
    return {"0.weight": torch.zeros(1, 2, dtype=torch.float64), "0.bias": logits}


def tosses(advantages: tuple[float, float]) -> Batch:
    """One episode of a fair coin: heads, tails, and a step after its end."""
    actions = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]], dtype=torch.float64)
    weights = torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64)
    gains = torch.tensor([[*advantages, 0.0]], dtype=torch.float64)
    return Batch(torch.ones(1, 3, 1, dtype=torch.float64), actions, gains, weights, Categorical(0 * actions))


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_where_the_data_was_sampled_both_references_have_the_same_derivatives(estimator: str) -> None:
    at = flatten(PARAMS)
    for order in (torch.autograd.functional.jacobian, torch.autograd.functional.hessian):
        one, two = (order(as_function(estimator, importance_weighted=weighted), at) for weighted in (False, True))
        torch.testing.assert_close(one, two)
    elsewhere = at + 0.1
    one, two = (
        torch.autograd.functional.jacobian(as_function(estimator, importance_weighted=weighted), elsewhere)
        for weighted in (False, True)
    )
    assert torch.allclose(one, two, rtol=1e-3) == (estimator == "log_prob")


@pytest.mark.parametrize(
    ("estimator", "importance_weighted", "value"),
    [
        # ratios 3/2 and 1/2, advantages 2 and -4, weights 1/2
        ("log_prob", False, -math.log(0.75) + 2 * math.log(0.25)),
        ("log_prob", True, -math.log(0.75) + 2 * math.log(0.25)),
        ("lvc", False, 1.0),  # ratios 1
        ("lvc", True, -0.5),
        ("dice", False, 0.0),  # every box is 1
        ("dice", True, -2.0),  # boxes 1, 3/2, 3/4: -(1/2 * 2 + -3/4 * -4) / 2
    ],
)
def test_away_from_where_the_data_was_sampled(estimator: str, importance_weighted: bool, value: float) -> None:
    loss = inner_loss(COIN, estimator, importance_weighted)(coin(0.75), tosses((2.0, -4.0)))
    assert float(loss) == pytest.approx(value)


def test_an_importance_weighted_lvc_has_the_weighted_policy_gradient() -> None:
    """The gradient of r A in the logits is r A (one-hot - p): p = (3/4, 1/4), r = (3/2, 1/2), A = (2, -4)."""
    gradient = torch.func.grad(inner_loss(COIN, "lvc", True))(coin(0.75), tosses((2.0, -4.0)))["0.bias"]
    expected = -(3 * torch.tensor([0.25, -0.25]) - 2 * torch.tensor([-0.75, 0.75])) / 2
    torch.testing.assert_close(gradient, expected.double())


@pytest.mark.parametrize(
    ("heads", "advantage", "clip", "gain", "slope"),
    [
        # r = 2 p(heads) = 2 h; the gain's derivative in the logit of heads is r (1 - h) A, or 0
        (0.75, 2.0, None, 3.0, 0.75),
        (0.75, 2.0, 0.3, 2.6, 0.0),
        (0.75, -2.0, 0.3, -3.0, -0.75),
        (0.25, 2.0, 0.3, 1.0, 0.75),
        (0.25, -2.0, 0.3, -1.4, 0.0),
        (0.6, 2.0, 0.3, 2.4, 0.96),
        (0.6, -2.0, 0.3, -2.4, -0.96),
        (0.4, 2.0, 0.3, 1.6, 0.96),
        (0.4, -2.0, 0.3, -1.6, -0.96),
    ],
)
def test_a_clipped_surrogate_takes_the_lower_gain(
    heads: float, advantage: float, clip: float | None, gain: float, slope: float
) -> None:
    batch = tosses((advantage, 0.0))
    assert float(surrogate(COIN, coin(heads), batch, clip)[0]) == pytest.approx(gain / 2)
    gradient = torch.func.grad(lambda params: surrogate(COIN, params, batch, clip)[0])(coin(heads))["0.bias"]
    assert gradient.tolist() == pytest.approx([slope / 2, -slope / 2])


def test_drift_has_the_score_of_the_data() -> None:
    moved, kl = drift(COIN, coin(0.25), tosses((0.0, 0.0)))
    assert float(moved) == pytest.approx(0.5 + 1.5 - 2)
    moved, kl = drift(COIN, coin(0.75), tosses((0.0, 0.0)))
    assert float(moved) == pytest.approx(0.0)
    assert float(kl) == pytest.approx(math.log(4 / 3) / 2)  # of (1/2, 1/2) to (3/4, 1/4)
    moved, kl = drift(POLICY, PARAMS, BATCH)
    assert (float(moved), float(kl)) == pytest.approx((0, 0), abs=1e-12)
    gradient = torch.func.grad(lambda params: drift(POLICY, params, BATCH)[0])(PARAMS)
    torch.testing.assert_close(flatten(gradient), score()[BATCH.weights > 0].sum(0))
