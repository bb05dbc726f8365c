"""The meta-objective: finite differences through the inner loop, masks, permutations, slices."""

import pytest
import torch
from torch import Tensor

from maml_rl import parallel
from maml_rl.adapt import inner_step
from maml_rl.distributions import Normal
from maml_rl.losses import ESTIMATORS, inner_loss
from maml_rl.meta import MetaObjective, adapt_stacked, to_batch
from maml_rl.rates import Rates
from maml_rl.types import Batch, Params, Trajectory, flatten, map_tensors, stack, unflatten
from synthetic import POLICY, random_batch, random_mask, random_params

TASKS, LR = 3, 0.3


def problem(estimator: str, steps: int = 1, first_order: bool = False) -> tuple[Params, MetaObjective]:
    loss, theta = inner_loss(POLICY, estimator), random_params(0)
    params, batches = stack(theta, TASKS), []
    for k in range(steps + 1):
        batches.append(random_batch(params, TASKS, seed=20 + k))
        params = adapt_stacked(loss, params, [batches[-1]], LR)
    return theta, MetaObjective(POLICY, loss, batches, Rates(LR), first_order)


def finite_difference(function: object, at: Tensor, direction: Tensor) -> float:
    step = 1e-5
    return (function(at + step * direction) - function(at - step * direction)) / (2 * step)


def direction_like(theta: Params) -> Tensor:
    return torch.randn(flatten(theta).numel(), generator=torch.Generator().manual_seed(7), dtype=torch.float64)


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_log_prob_gradient_is_the_finite_difference(steps: int) -> None:
    theta, objective = problem("log_prob", steps)
    direction = direction_like(theta)
    _, gradient = objective.gradient(theta)
    expected = finite_difference(lambda v: objective.values(unflatten(v, theta))[0], flatten(theta), direction)
    assert float(flatten(gradient).dot(direction)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("estimator", ["lvc", "dice"])
def test_ratio_estimators_are_finite_differences_with_old_log_probs_held(estimator: str) -> None:
    """Their stopped log-probabilities are constants at theta: held there, one inner step can be differenced."""
    theta, objective = problem(estimator)
    held = POLICY(theta, objective.batches[0].observations).log_prob(objective.batches[0].actions)

    def loss(params: Params, data: tuple[Batch, Tensor]) -> Tensor:
        batch, old = data
        log_probs = POLICY(params, batch.observations).log_prob(batch.actions)
        if estimator == "lvc":
            ratio = (log_probs - old).exp()
        else:
            live = batch.weights > 0
            until = ((log_probs - old) * live).cumsum(-1)
            ratio = until.exp() - (until - (log_probs - old) * live).exp()
        return -(ratio * batch.advantages * batch.weights).sum()

    pre, post = objective.batches

    def value(vector: Tensor) -> float:
        theta_moved = stack(unflatten(vector, theta), TASKS)
        params = torch.func.vmap(lambda p, data: inner_step(loss, p, data, LR))(theta_moved, (pre, held))
        new = torch.func.vmap(POLICY)(params, post.observations)
        ratio = (new.log_prob(post.actions) - post.behaviour.log_prob(post.actions)).exp()
        return float((ratio * post.advantages * post.weights).sum() / TASKS)

    direction = direction_like(theta)
    _, gradient = objective.gradient(theta)
    expected = finite_difference(value, flatten(theta), direction)
    assert float(flatten(gradient).dot(direction)) == pytest.approx(expected, rel=1e-6)


def test_the_estimators_differ() -> None:
    gradients = [flatten(problem(estimator)[1].gradient(random_params(0))[1]) for estimator in ESTIMATORS]
    for one in range(3):
        for two in range(one):
            assert (gradients[one] - gradients[two]).norm() > 1e-3 * gradients[one].norm()


def test_first_order_gives_log_prob_and_lvc_the_same_update() -> None:
    theta, one = problem("log_prob", first_order=True)
    _, two = problem("lvc", first_order=True)
    torch.testing.assert_close(flatten(one.gradient(theta)[1]), flatten(two.gradient(theta)[1]))
    _, second = problem("log_prob")
    assert not torch.allclose(flatten(one.gradient(theta)[1]), flatten(second.gradient(theta)[1]), rtol=1e-3)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_at_the_old_parameters_the_kl_is_zero_and_the_surrogate_is_the_mean_advantage(estimator: str) -> None:
    theta, objective = problem(estimator, steps=2)
    surrogate, kl, _ = objective.values(theta)
    assert surrogate == pytest.approx(0, abs=1e-12)
    assert kl == pytest.approx(0, abs=1e-12)
    assert objective.gradient(theta)[0] == pytest.approx(surrogate, abs=1e-12)


def test_permuting_tasks_changes_nothing() -> None:
    theta, objective = problem("lvc", steps=2)
    order = torch.tensor([2, 0, 1])
    shuffled = MetaObjective(
        POLICY, objective.loss, map_tensors(lambda x: x[order], list(objective.batches)), Rates(LR), False
    )
    torch.testing.assert_close(flatten(objective.gradient(theta)[1]), flatten(shuffled.gradient(theta)[1]))


def test_slices_of_tasks_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    theta, objective = problem("lvc", steps=2)
    whole, gradient = objective.values(theta), flatten(objective.gradient(theta)[1])
    monkeypatch.setattr(parallel, "CPU_STEPS", 1)
    assert len(parallel.task_slices(objective.batches[0].weights)) == TASKS
    assert objective.values(theta) == pytest.approx(whole, abs=1e-12)
    torch.testing.assert_close(flatten(objective.gradient(theta)[1]), gradient)


def trajectory(mask: Tensor, garbage: float) -> Trajectory:
    generator = torch.Generator().manual_seed(4)

    def draw(*width: int) -> Tensor:
        value = torch.randn(*mask.shape, *width, generator=generator, dtype=torch.float64)
        return torch.where(mask.reshape(*mask.shape, *[1] * len(width)), value, garbage)

    observations, actions, rewards = draw(3), draw(2), draw()
    final = torch.randn(*mask.shape[:2], 3, generator=generator, dtype=torch.float64)
    behaviour = Normal(draw(2), draw(2))
    return Trajectory(observations, actions, rewards, mask, mask[..., -1], final, behaviour)


@pytest.mark.parametrize("garbage", [1e20, float("nan"), float("inf")])
@pytest.mark.parametrize("bootstrap", [False, True])
def test_what_comes_after_an_end_changes_nothing(garbage: float, bootstrap: bool) -> None:
    mask = random_mask(2, 6, 9, seed=3)
    assert not mask.all()
    clean, dirty = (to_batch(trajectory(mask, g), "linear", 0.99, 0.95, bootstrap) for g in (0.0, garbage))
    for one, two in zip([*clean[:4], *clean.behaviour], [*dirty[:4], *dirty.behaviour], strict=True):
        assert torch.equal(one, two)
    torch.testing.assert_close(clean.weights.sum((1, 2)), torch.ones(2, dtype=torch.float64))


def test_bootstrap_reaches_truncated_episodes_only() -> None:
    mask = torch.ones(1, 4, 3, dtype=torch.bool)
    one = trajectory(mask, 0.0)._replace(truncated=torch.tensor([[True, False, False, False]]))
    plain = to_batch(one, "none", 1.0, 1.0, False)
    same = to_batch(one, "none", 1.0, 1.0, True)
    assert torch.equal(plain.advantages, same.advantages)  # without a baseline the value ahead is 0
    fitted = to_batch(one, "linear", 1.0, 1.0, False).advantages
    ahead = to_batch(one, "linear", 1.0, 1.0, True).advantages
    moved = (ahead - fitted)[0].diff(dim=0).abs().sum(-1)
    assert moved[0] > 1e-6
