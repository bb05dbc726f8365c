"""The estimators: same first gradient, different Hessians, each the one it claims."""

import pytest
import torch
from torch import Tensor

from maml_rl.losses import ESTIMATORS, inner_loss, surrogate
from maml_rl.types import Batch, flatten, stack, unflatten
from synthetic import POLICY, random_batch, random_params, task

PARAMS = random_params(0)
BATCH = task(random_batch(stack(PARAMS, 1), 1, seed=3), 0)


def as_function(estimator: str, batch: Batch = BATCH):
    loss = inner_loss(POLICY, estimator)
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
