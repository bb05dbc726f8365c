"""The meta-objective: finite differences through the inner loop, masks, permutations, slices."""

import dataclasses
import itertools
import math
from collections.abc import Callable

import alone
import pytest
import torch
from alone import adapt_stacked, flatten, stack, unflatten
from torch import Tensor

from maml_rl.config.rl import Baseline, Config
from maml_rl.core import slices as sliced
from maml_rl.core.adapt import InnerLoop, Rates
from maml_rl.core.task_axis import TaskAxis
from maml_rl.core.tree import Params, map_tensors
from maml_rl.rl.advantages import to_batch
from maml_rl.rl.data import Batch, Trajectory
from maml_rl.rl.distributions import Categorical, Normal
from maml_rl.rl.losses import ESTIMATORS, inner_loss
from maml_rl.rl.objective import MetaObjective, Terms
from maml_rl.rl.policies import CategoricalPolicy
from synthetic import POLICY, numbers, random_batch, random_mask, random_params

TASKS, LR = 3, 0.3


def problem(
    estimator: str, steps: int = 1, first_order: bool = False, importance_weighted: bool = False
) -> tuple[Params, MetaObjective]:
    loss, theta = inner_loss(POLICY, estimator, importance_weighted), random_params(0)
    params_by_step, batches = [stack(theta, TASKS)], []
    for k in range(steps + 1):
        batches.append(random_batch(params_by_step[-1], TASKS, seed=20 + k))
        if k < steps:
            params_by_step.append(adapt_stacked(loss, params_by_step[-1], [batches[-1]], LR))
    inner = InnerLoop(loss, Rates(LR), first_order)
    return theta, MetaObjective(POLICY, inner, TaskAxis(TASKS), batches, params_by_step)


def slope(objective: MetaObjective, theta: Params) -> Tensor:
    """The gradient as a vector."""
    return flatten(alone.gradient(objective, theta)[1])


def value_at(objective: MetaObjective, theta: Params, term: str = "objective") -> Callable[[Tensor], float]:
    """A term as a function of theta as a vector."""
    return lambda vector: float(getattr(alone.values(objective, unflatten(vector, theta)), term))


def finite_difference(function: object, at: Tensor, direction: Tensor) -> float:
    step = 1e-5
    return (function(at + step * direction) - function(at - step * direction)) / (2 * step)


def direction_like(theta: Params) -> Tensor:
    return torch.randn(flatten(theta).numel(), generator=torch.Generator().manual_seed(7), dtype=torch.float64)


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_log_prob_gradient_is_the_finite_difference(steps: int) -> None:
    theta, objective = problem("log_prob", steps)
    direction = direction_like(theta)
    gradient = slope(objective, theta)
    expected = finite_difference(value_at(objective, theta), flatten(theta), direction)
    assert float(gradient.dot(direction)) == pytest.approx(expected, rel=1e-6)


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
        params = torch.func.vmap(lambda p, data: InnerLoop(loss, Rates(LR)).step(p, data, LR))(theta_moved, (pre, held))
        new = torch.func.vmap(POLICY)(params, post.observations)
        ratio = (new.log_prob(post.actions) - post.behaviour.log_prob(post.actions)).exp()
        return float((ratio * post.advantages * post.weights).sum() / TASKS)

    direction = direction_like(theta)
    gradient = slope(objective, theta)
    expected = finite_difference(value, flatten(theta), direction)
    assert float(gradient.dot(direction)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("away", [0.0, 0.02])
def test_importance_weighted_every_gradient_is_the_finite_difference(estimator: str, steps: int, away: float) -> None:
    """With clipping, the penalty and the E-MAML term, at the old parameters and elsewhere."""
    theta, objective = problem(estimator, steps, importance_weighted=True)
    credit = torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64)
    objective = dataclasses.replace(
        objective, clip=0.3, inner_kl=torch.tensor([0.7], dtype=torch.float64), credit=credit
    )
    direction = direction_like(theta)
    at = flatten(theta) + away * direction.flip(0)
    gradient = slope(objective, unflatten(at, theta))
    expected = finite_difference(value_at(objective, theta), at, direction)
    assert float(gradient.dot(direction)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("term", Terms._fields)
def test_a_term_alone_has_the_gradient_of_its_finite_difference(term: str) -> None:
    theta, objective = problem("lvc", 2, importance_weighted=True)
    objective = dataclasses.replace(objective, inner_kl=torch.tensor([0.7], dtype=torch.float64))
    direction = direction_like(theta)
    at = flatten(theta) + 0.02 * direction.flip(0)
    value, gradient = alone.gradient(objective, unflatten(at, theta), term)
    assert float(value) == pytest.approx(float(getattr(alone.values(objective, unflatten(at, theta)), term)))
    expected = finite_difference(value_at(objective, theta, term), at, direction)
    assert float(flatten(gradient).dot(direction)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_without_importance_weights_a_ratio_estimator_has_no_finite_differences(steps: int) -> None:
    theta, objective = problem("lvc", steps)
    direction = direction_like(theta)
    expected = finite_difference(value_at(objective, theta), flatten(theta), direction)
    assert float(slope(objective, theta).dot(direction)) != pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("first_order", [False, True])
def test_a_learned_rate_has_the_gradient_of_the_finite_difference(steps: int, first_order: bool) -> None:
    """At first order, the rate's own part of it, for one inner step: after that it too depends on a Hessian."""
    start, plain = problem("log_prob", steps, first_order)
    rates = Rates(LR, learned=True)
    theta, inner = rates.init(start), dataclasses.replace(plain.inner, rates=rates)
    objective = dataclasses.replace(plain, inner=inner)
    assert numbers(alone.values(objective, theta)) == pytest.approx(numbers(alone.values(plain, start)), abs=1e-12)
    direction = direction_like(theta)
    if first_order:
        direction[: flatten(start).numel()] = 0
    gradient = slope(objective, theta)
    found = float(gradient.dot(direction))
    expected = finite_difference(value_at(objective, theta), flatten(theta), direction)
    assert (found == pytest.approx(expected, rel=1e-6)) == (not first_order or steps == 1)
    torch.testing.assert_close(gradient[: flatten(start).numel()], slope(plain, start))


COIN = CategoricalPolicy(observations=1, actions=2, hidden=())


def coin(heads: float) -> Params:
    """Heads, the first action, with this probability."""
    logits = torch.tensor([heads, 1 - heads], dtype=torch.float64).log()
    return {"0.weight": torch.zeros(1, 2, dtype=torch.float64), "0.bias": logits}


def tosses(heads: float, advantages: list[list[float]]) -> Batch:
    """For each task one episode of heads, tails, from a coin with this probability of heads."""
    actions = torch.eye(2, dtype=torch.float64).expand(len(advantages), 1, 2, 2)
    gains = torch.tensor(advantages, dtype=torch.float64).unsqueeze(1)
    logits = coin(heads)["0.bias"].expand_as(actions)
    return Batch(torch.ones_like(actions)[..., :1], actions, gains, torch.full_like(gains, 0.5), Categorical(logits))


def test_every_term_by_hand() -> None:
    """Two tasks whose two inner steps have no advantages, so that the policy stays (3/4, 1/4)."""
    zero = [[0.0, 0.0]] * 2
    batches = [tosses(0.5, zero), tosses(0.25, zero), tosses(0.5, [[2.0, -4.0], [4.0, 4.0]])]
    plain = MetaObjective(COIN, InnerLoop(inner_loss(COIN, "lvc", True), Rates(LR)), TaskAxis(2), batches, [])
    kl = math.log(4 / 3) / 2  # of (1/2, 1/2) to (3/4, 1/4)
    before = (kl + math.log(3) / 2) / 2  # and of (1/4, 3/4), mean of the two steps
    # ratios 3/2 and 1/2: (3 - 2) / 2 and (6 + 2) / 2; clipped to 0.8 ... 1.2: (2.4 - 3.2) / 2 and (4.8 + 2) / 2
    # the E-MAML term: the ratios less 1 add up to 1/2 - 1/2 in the first step and to 2 - 2/3 in the second
    cases = [
        ({}, (0.5 + 4) / 2, 0),
        ({"clip": 0.2}, (-0.4 + 3.4) / 2, 0),
        ({"inner_kl": torch.tensor([2.0])}, (0.5 + 4) / 2 - 2 * before, before),
        ({"credit": torch.tensor([3.0, -6.0]).double()}, (0.5 + 4) / 2 + (3 - 6) / 2 * 4 / 3, before),
    ]
    for changes, value, inner_kl in cases:
        objective = dataclasses.replace(plain, **changes)
        assert numbers(alone.values(objective, coin(0.75))) == pytest.approx((value, kl, inner_kl)), changes
        assert alone.gradient(objective, coin(0.75))[0] == pytest.approx(value), changes


def test_a_clipped_ratio_has_no_gradient() -> None:
    batches = [tosses(0.5, [[2.0, -2.0], [2.0, -2.0]])]
    inner = InnerLoop(inner_loss(COIN, "lvc", True), Rates(LR))
    for clip, still in ((0.2, True), (0.6, False)):  # ratios 3/2 and 1/2
        objective = MetaObjective(COIN, inner, TaskAxis(1), batches, [], clip=clip)
        gradient = slope(objective, coin(0.75))
        assert (gradient.abs().max() == 0) == still


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_penalty_is_of_each_steps_policy_to_the_one_that_sampled(steps: int) -> None:
    """All are the old policies at the old parameters, where the penalty is 0 and has no gradient."""
    theta, objective = problem("lvc", steps, importance_weighted=True)
    penalised = dataclasses.replace(objective, inner_kl=torch.tensor([5.0]))
    assert numbers(alone.values(penalised, theta))[2] == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(slope(penalised, theta), slope(objective, theta))
    moved = {name: value + 0.05 for name, value in theta.items()}
    value, _, kl = numbers(alone.values(penalised, moved))
    assert kl > 1e-3
    assert value == pytest.approx(numbers(alone.values(objective, moved))[0] - 5 * kl)


@pytest.mark.parametrize(("steps", "episodes"), [(1, 1), (1, 2), (2, 1)])
def test_with_the_e_maml_term_the_gradient_is_that_of_the_return_after_adaptation(steps: int, episodes: int) -> None:
    """Grad sum p(D) J(D) = sum p(D) (grad J(D) + J(D) grad log p(D)), over every data set D of a bandit.

    With grad log pi = one-hot - p, an inner step on arms a, in both the weights and the bias of logits w + b, moves the
    logits by 2 lr mean(r(a) (one-hot(a) - p)). A task is a data set; p(D) and J(D) go into advantages and credit.
    """
    rewards, lr = torch.tensor([1.0, 0.2, -0.5], dtype=torch.float64), 0.8
    policy = CategoricalPolicy(observations=1, actions=3, hidden=())
    theta = {
        "0.weight": torch.tensor([[0.3, -0.2, 0.1]], dtype=torch.float64),
        "0.bias": torch.tensor([0.1, 0.4, -0.3], dtype=torch.float64),
    }
    arms = torch.tensor(list(itertools.product(range(3), repeat=steps * episodes))).reshape(-1, steps, episodes)
    pulled = torch.eye(3, dtype=torch.float64)[arms]  # (D, steps, episodes, 3)

    def walk(vector: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Probability and return after adaptation of each data set, and the logits on the way."""
        logits = [vector.reshape(2, 3).sum(0).expand(len(arms), 3)]
        chance = torch.ones(len(arms), dtype=torch.float64)
        for k in range(steps):
            p = logits[-1].softmax(-1)
            chance = chance * (p.unsqueeze(1) * pulled[:, k]).sum(-1).prod(-1)
            score = pulled[:, k] - p.unsqueeze(1)
            logits.append(logits[-1] + 2 * lr * (rewards[arms[:, k]].unsqueeze(-1) * score).mean(1))
        return chance, logits[-1].softmax(-1) @ rewards, logits

    chance, reached, logits = walk(flatten(theta))
    assert float(chance.sum()) == pytest.approx(1)

    def batch(actions: Tensor, logits: Tensor, scale: Tensor, weights: Tensor) -> Batch:
        """One-step episodes: (D, episodes, 1, ...)."""
        actions = actions.unsqueeze(2)
        behaviour = Categorical(logits[:, None, None].expand_as(actions))
        return Batch(torch.ones_like(actions)[..., :1], actions, (actions @ rewards) * scale, weights, behaviour)

    count, one = len(arms), torch.ones(len(arms), 1, 1, dtype=torch.float64)
    pre = [batch(pulled[:, k], logits[k], one, one.expand(-1, episodes, 1) / episodes) for k in range(steps)]
    every_arm = torch.eye(3, dtype=torch.float64).expand(count, 3, 3)
    scale = count * chance[:, None, None]
    post = batch(every_arm, logits[-1], scale, logits[-1].softmax(-1).unsqueeze(-1))
    inner = InnerLoop(inner_loss(policy, "log_prob"), Rates(lr))
    without = MetaObjective(policy, inner, TaskAxis(count), [*pre, post], [])
    whole = dataclasses.replace(without, credit=count * chance * reached)

    expected = torch.autograd.functional.jacobian(
        lambda vector: (walk(vector)[0] * walk(vector)[1]).sum(), flatten(theta)
    )
    torch.testing.assert_close(slope(whole, theta), expected, atol=1e-12, rtol=1e-10)
    assert numbers(alone.values(without, theta))[0] == pytest.approx(float((chance * reached).sum()))
    with_ratios = InnerLoop(inner_loss(policy, "lvc"), Rates(lr))  # has a part of the term in its Hessian
    ratios = dataclasses.replace(whole, inner=with_ratios)
    for wrong in (without, ratios):
        assert (slope(wrong, theta) - expected).norm() > 0.1 * expected.norm()


def test_the_estimators_differ() -> None:
    gradients = [slope(problem(estimator)[1], random_params(0)) for estimator in ESTIMATORS]
    for one in range(3):
        for two in range(one):
            assert (gradients[one] - gradients[two]).norm() > 1e-3 * gradients[one].norm()


def test_first_order_gives_log_prob_and_lvc_the_same_update() -> None:
    theta, one = problem("log_prob", first_order=True)
    _, two = problem("lvc", first_order=True)
    torch.testing.assert_close(slope(one, theta), slope(two, theta))
    _, second = problem("log_prob")
    assert not torch.allclose(slope(one, theta), slope(second, theta), rtol=1e-3)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_at_the_old_parameters_the_kl_is_zero_and_the_surrogate_is_the_mean_advantage(estimator: str) -> None:
    theta, objective = problem(estimator, steps=2)
    surrogate, kl, _ = numbers(alone.values(objective, theta))
    assert surrogate == pytest.approx(0, abs=1e-12)
    assert kl == pytest.approx(0, abs=1e-12)
    assert alone.gradient(objective, theta)[0] == pytest.approx(surrogate, abs=1e-12)


def test_permuting_tasks_changes_nothing() -> None:
    theta, objective = problem("lvc", steps=2)
    order = torch.tensor([2, 0, 1])
    shuffled = dataclasses.replace(objective, batches=map_tensors(lambda x: x[order], list(objective.batches)))
    torch.testing.assert_close(slope(objective, theta), slope(shuffled, theta))


def test_slices_of_tasks_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    theta, objective = problem("lvc", steps=2)
    whole, gradient = numbers(alone.values(objective, theta)), slope(objective, theta)
    monkeypatch.setattr(sliced, "CPU_STEPS", 1)
    assert len(objective.axis.slices(objective.batches)) == TASKS
    assert numbers(alone.values(objective, theta)) == pytest.approx(whole, abs=1e-12)
    torch.testing.assert_close(slope(objective, theta), gradient)


def config(baseline: str, discount: float, gae_lambda: float, bootstrap: bool) -> Config:
    """Not validated: without a baseline there is no value ahead to configure."""
    changes = {"discount": discount, "gae_lambda": gae_lambda, "bootstrap_on_truncation": bootstrap}
    return Config(env="navigation").model_copy(update={"baseline": Baseline(name=baseline), **changes})


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
    clean, dirty = (to_batch(trajectory(mask, g), config("linear", 0.99, 0.95, bootstrap))[0] for g in (0.0, garbage))
    for one, two in zip([*clean[:4], *clean.behaviour], [*dirty[:4], *dirty.behaviour], strict=True):
        assert torch.equal(one, two)
    torch.testing.assert_close(clean.weights.sum((1, 2)), torch.ones(2, dtype=torch.float64))


def test_bootstrap_reaches_truncated_episodes_only() -> None:
    mask = torch.ones(1, 4, 3, dtype=torch.bool)
    one = trajectory(mask, 0.0)._replace(truncated=torch.tensor([[True, False, False, False]]))
    plain, _ = to_batch(one, config("none", 1.0, 1.0, False))
    same, _ = to_batch(one, config("none", 1.0, 1.0, True))
    assert torch.equal(plain.advantages, same.advantages)  # without a baseline the value ahead is 0
    fitted = to_batch(one, config("linear", 1.0, 1.0, False))[0].advantages
    ahead = to_batch(one, config("linear", 1.0, 1.0, True))[0].advantages
    moved = (ahead - fitted)[0].diff(dim=0).abs().sum(-1)
    assert moved[0] > 1e-6
