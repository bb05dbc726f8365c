"""The meta-gradient of few-shot learning against finite differences, by-hand loops, and other ways to its value."""

import dataclasses
import threading
from typing import Any

import pytest
import torch
from alone import flatten, unflatten
from few_shot import in_double, learner_of, problem, slope_of
from torch import Tensor, nn

from maml_envs import InputError
from maml_rl.core.slices import Slice, slices_of
from maml_rl.core.tree import Params, map_tensors
from maml_rl.supervised import Examples, TaskBatch, models
from maml_rl.supervised.batch_norm import BatchNorm
from maml_rl.supervised.learner import FewShotLearner, loss_of, loss_with
from maml_rl.supervised.outer import query_loss

SMOOTH = {"hidden": [6], "batch_norm": False}
IMAGES = {"data": "few_shot:Blobs", "tasks": 2}
CONVOLUTIONAL = IMAGES | {"model": {"name": "convolutional", "hidden": [4, 4], "batch_norm": True}}
NORMED = IMAGES | {"model": {"hidden": [6], "batch_norm": True}}

VARIANTS = {
    "pretrained": {"method": "pretrained"},
    **{f"{steps} steps": {"inner": {"steps": steps, "lr": 0.1}} for steps in (1, 2, 3)},
    "learn_lr": {"inner": {"steps": 2, "lr": 0.1, "learn_lr": True}},
    "last": {"inner": {"steps": 2, "lr": 0.1, "adapt": "last"}},
    "last, learn_lr": {"inner": {"steps": 2, "lr": 0.1, "adapt": "last", "learn_lr": True}},
    "batch norm": NORMED | {"inner": {"steps": 2, "lr": 0.3}},
    "convolutional": CONVOLUTIONAL | {"inner": {"steps": 2, "lr": 0.3}},
    "convolutional, 3 steps": CONVOLUTIONAL | {"inner": {"steps": 3, "lr": 0.3}},
    "convolutional, learn_lr, last": CONVOLUTIONAL | {"inner": {"lr": 0.3, "learn_lr": True, "adapt": "last"}},
}


def task_of(batch: TaskBatch, k: int) -> TaskBatch:
    found: TaskBatch = map_tensors(lambda x: x[k], batch)
    return found


def slices(learner: FewShotLearner, batch: TaskBatch) -> list[Slice]:
    return slices_of(batch, count(batch), 1, learner.loop)


def count(batch: TaskBatch) -> int:
    return len(batch.query.targets)


def by_loop(learner: FewShotLearner, theta: Params, batch: TaskBatch) -> Tensor:
    """The meta-objective by plain autograd: a loop over tasks, a loop over steps."""
    names = [name for name in theta if not name.startswith("lr.")]
    inner, total = learner.config.inner, torch.zeros((), dtype=torch.float64)
    head = set(list(names)[-2:])
    for k in range(count(batch)):
        task, own = task_of(batch, k), {name: theta[name] for name in names}
        for _ in range(0 if learner.config.method == "pretrained" else inner.steps):
            loss = loss_of(models.predict(learner.module, own, task.support.inputs), task.support.targets)
            gradients = torch.autograd.grad(loss, list(own.values()), create_graph=not inner.first_order)
            for name, gradient in zip(names, gradients, strict=True):
                if inner.adapt == "all" or name in head:
                    own[name] = own[name] - theta.get(f"lr.{name}", inner.lr) * gradient
        total = total + loss_of(models.predict(learner.module, own, task.query.inputs), task.query.targets)
    return total / count(batch)


def difference(learner: FewShotLearner, theta: Params, batch: TaskBatch, direction: Tensor) -> float:
    """Derivative of the meta-objective along a direction by central differences."""
    at, step = flatten(theta), 1e-6
    ends = []
    for sign in (1, -1):
        moved = unflatten(at + sign * step * direction, theta)
        tasks = (task_of(batch, k) for k in range(count(batch)))
        ends.append(sum(float(query_loss(learner, moved, task)) for task in tasks) / count(batch))
    return (ends[0] - ends[1]) / (2 * step)


def directions(theta: Params) -> list[Tensor]:
    """One random direction in each parameter alone."""
    found = []
    for k, name in enumerate(theta):
        random = torch.Generator().manual_seed(k)
        found.append(
            flatten({
                each: torch.randn(v.shape, generator=random, dtype=v.dtype) * (each == name)
                for each, v in theta.items()
            })
        )  # fmt: skip
    return found


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_the_meta_gradient_is_that_of_finite_differences(changes: dict[str, Any]) -> None:
    learner = learner_of(**changes)
    theta, batch = problem(learner)
    loss, gradient = slope_of(learner, theta, batch)
    flat, size = flatten(gradient), float(flatten(gradient).norm())
    assert size > 1e-3
    for direction, name in zip(directions(theta), theta, strict=True):
        found = difference(learner, theta, batch, direction)
        assert float(flat @ direction) == pytest.approx(found, rel=1e-4, abs=1e-6 * size), name
    assert float(loss) == pytest.approx(float(by_loop(learner, leaves_of(theta), batch).detach()), rel=1e-10)


def leaves_of(theta: Params) -> Params:
    return {name: value.clone().requires_grad_() for name, value in theta.items()}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_a_loop_over_tasks_and_steps_finds_the_same_gradient(changes: dict[str, Any]) -> None:
    learner = learner_of(**changes)
    theta, batch = problem(learner)
    leaves = leaves_of(theta)
    expected = torch.autograd.grad(by_loop(learner, leaves, batch), list(leaves.values()), materialize_grads=True)
    torch.testing.assert_close(slope_of(learner, theta, batch)[1], dict(zip(theta, expected, strict=True)))


@pytest.mark.parametrize("changes", [{}, NORMED, CONVOLUTIONAL], ids=["sinusoid", "batch norm", "convolutional"])
def test_first_order_is_the_query_gradient_at_the_adapted_parameters(changes: dict[str, Any]) -> None:
    inner = {"steps": 3, "lr": 0.2}
    learner = learner_of(**changes, inner=inner | {"first_order": True})
    theta, batch = problem(learner)
    total = dict.fromkeys(theta, torch.zeros((), dtype=torch.float64))
    for k in range(count(batch)):
        task, own = task_of(batch, k), theta
        for part in (*[task.support] * 3, task.query):
            own = leaves_of(own)
            gradients = torch.autograd.grad(learner.loss(own, part), list(own.values()))
            if part is not task.query:
                own = {n: (v - 0.2 * g).detach() for (n, v), g in zip(own.items(), gradients, strict=True)}
        total = {n: total[n] + g / count(batch) for n, g in zip(total, gradients, strict=True)}
    loss, gradient = slope_of(learner, theta, batch)
    torch.testing.assert_close(gradient, total)
    second = learner_of(**changes, inner=inner)
    torch.testing.assert_close(slope_of(second, theta, batch)[0], loss)
    off = flatten(slope_of(second, theta, batch)[1]) - flatten(gradient)
    assert off.norm() > 0.01 * flatten(gradient).norm()  # silent first order would be seen


@pytest.mark.parametrize("changes", [NORMED, CONVOLUTIONAL], ids=["perceptron", "convolutional"])
def test_tasks_mapped_and_tasks_in_a_loop_agree(changes: dict[str, Any]) -> None:
    """Batch norm is torch's fused one in the loop, and of plain operations where tasks are mapped."""
    found = []
    for one_by_one in (False, True):
        learner = learner_of(**changes, inner={"steps": 2, "lr": 0.3})
        learner.model.loop = one_by_one
        learner = dataclasses.replace(learner, module=learner.model.module(learner.outputs))
        inner = dataclasses.replace(learner.inner, loss=loss_with(learner.module), mapped=not one_by_one)
        learner = dataclasses.replace(learner, inner=inner)
        theta, batch = problem(learner)
        fused = {part.fused for part in learner.module.modules() if isinstance(part, BatchNorm)}
        assert fused == {one_by_one}
        assert len(slices(learner, batch)) == (count(batch) if one_by_one else 1)
        found.append(slope_of(learner, theta, batch))
    torch.testing.assert_close(*found)


def test_convolutions_of_one_task_are_not_mapped_on_a_cpu() -> None:
    """Weights of their own for each task make a mapped convolution slower there."""
    batch = learner_of(**CONVOLUTIONAL).training_tasks(0)
    assert [len(slices(learner_of(**changes), batch)) for changes in (CONVOLUTIONAL, NORMED)] == [2, 1]
    pieces = [map_tensors(lambda x, s=s: x[s.rows], batch) for s in slices(learner_of(**CONVOLUTIONAL), batch)]
    assert torch.equal(torch.cat([piece.query.inputs for piece in pieces]), batch.query.inputs)


@pytest.mark.parametrize("changes", [{}, CONVOLUTIONAL], ids=["perceptron", "convolutional"])
@pytest.mark.parametrize("outer", ["adam", "reptile"])
def test_threads_change_no_bit(changes: dict[str, Any], outer: str) -> None:
    """Each has to work with parameters of its own: many times, since threads that share them meet by chance."""
    one, two = (
        learner_of(**changes | {"tasks": 8}, threads=threads, outer={"name": outer}, inner={"steps": 2})
        for threads in (1, 2)
    )
    try:
        torch.set_num_threads(1)
        theta, batch = one.initial_params(), one.training_tasks(0)
        loss, gradient = slope_of(one, theta, batch)
        torch.set_num_threads(4)
        for _ in range(12):
            found, other = slope_of(two, theta, batch)
            assert torch.equal(found, loss)
            assert all(torch.equal(other[name], gradient[name]) for name in gradient)
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(1)


def test_a_prediction_of_one_thread_is_not_of_anothers_parameters() -> None:
    learner = learner_of()
    inputs, entered, leave = torch.ones(2, 1), threading.Event(), threading.Event()

    class Waits(nn.Sequential):
        def forward(self, values: Tensor) -> Tensor:
            if threading.current_thread() is thread:
                entered.set()
                assert leave.wait(20)
            else:
                leave.set()
                thread.join()  # the other one runs on while this one is inside
            return super().forward(values)

    module = Waits(*learner.module)  # type: ignore[misc]
    theta = learner.initial_params()
    other = {name: value + 1 for name, value in theta.items()}
    expected = [models.predict(learner_of().module, params, inputs) for params in (theta, other)]
    found: list[Tensor] = []
    thread = threading.Thread(target=lambda: found.append(models.predict(module, other, inputs)))
    thread.start()
    assert entered.wait(20)
    mine = models.predict(module, theta, inputs)
    assert torch.equal(mine, expected[0])
    assert torch.equal(found[0], expected[1])


@pytest.mark.parametrize("changes", [{}, CONVOLUTIONAL], ids=["sinusoid", "convolutional"])
def test_reptile_by_hand(changes: dict[str, Any]) -> None:
    """Theta - adapted, mean over tasks, adapted by plain SGD on all examples of a task."""
    learner = learner_of(**changes, inner={"steps": 3, "lr": 0.2}, outer={"name": "reptile", "lr": 0.5})
    theta, batch = problem(learner)
    total, losses = dict.fromkeys(theta, torch.zeros((), dtype=torch.float64)), []
    for k in range(count(batch)):
        task = task_of(batch, k)
        examples = Examples(*(torch.cat(pair) for pair in zip(*task, strict=True)))
        own = leaves_of(theta)
        optimiser = torch.optim.SGD(own.values(), lr=0.2)
        for _ in range(3):
            optimiser.zero_grad()
            learner.loss(own, examples).backward()
            optimiser.step()
        losses.append(float(learner.loss(own, examples).detach()))
        total = {name: total[name] + (theta[name] - own[name].detach()) / count(batch) for name in theta}
    loss, gradient = slope_of(learner, theta, batch)
    torch.testing.assert_close(gradient, total)
    assert float(loss) == pytest.approx(sum(losses) / count(batch))


def test_the_loss_is_a_mean() -> None:
    """Of examples, whose number must not change the meaning of the inner rate."""
    outputs, targets = torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [0.0]])
    assert loss_of(outputs, targets) == 5
    logits = torch.tensor([[0.0, 0.0], [0.0, 2.0]])
    classes = torch.tensor([0, 1])
    expected = (torch.tensor(2.0).log() + (1 + torch.tensor(-2.0).exp()).log()) / 2
    torch.testing.assert_close(loss_of(logits, classes), expected)
    torch.testing.assert_close(loss_of(logits.repeat(3, 1), classes.repeat(3)), expected)


def test_with_no_step_it_is_the_query_loss_and_its_gradient() -> None:
    learner = learner_of(method="pretrained")
    theta, batch = problem(learner)
    leaves = leaves_of(theta)
    joined = Examples(*(x.flatten(0, 1) for x in batch.query))  # tasks are of one size: a mean of means
    expected = torch.autograd.grad(learner.loss(leaves, joined), list(leaves.values()))
    torch.testing.assert_close(slope_of(learner, theta, batch)[1], dict(zip(theta, expected, strict=True)))


@pytest.mark.parametrize(("adapt", "learned"), [("all", 4), ("last", 2)])
def test_learned_rates_start_at_lr_and_have_a_gradient(adapt: str, learned: int) -> None:
    learner = learner_of(inner={"lr": 0.05, "learn_lr": True, "adapt": adapt})
    theta = learner.initial_params()
    rates = {name: value for name, value in theta.items() if name.startswith("lr.")}
    assert len(rates) == learned
    assert all((value == 0.05).all() and value.shape == theta[name[3:]].shape for name, value in rates.items())
    _, gradient = slope_of(learner, *problem(learner))
    assert all(gradient[name].abs().max() > 0 for name in rates)


def test_only_the_last_layer_adapts() -> None:
    learner = learner_of(inner={"adapt": "last", "steps": 2})
    params, rate = learner.inner.rates.split(learner.initial_params())
    assert isinstance(rate, dict)
    for name, value in rate.items():
        torch.testing.assert_close(value, torch.full_like(params[name], 0.01 if name.startswith("3.") else 0.0))
    assert {name: value.shape for name, value in params.items()} == {name: r.shape for name, r in rate.items()}


def test_nan_and_infinity_raise() -> None:
    learner = learner_of(inner={"steps": 1})
    theta, batch = problem(learner)
    for bad in (float("nan"), float("inf")):
        targets = batch.query.targets.clone()
        targets[1] *= bad
        broken = batch._replace(query=batch.query._replace(targets=targets))
        with pytest.raises(FloatingPointError, match="targets in the query set of task 1 hold NaN or infinity"):
            slope_of(learner, theta, broken)
    huge = batch._replace(
        query=batch.query._replace(
            targets=batch.query.targets * torch.tensor([1, 1e200, 1], dtype=torch.float64)[:, None, None]
        )
    )
    with pytest.raises(FloatingPointError, match=r"the meta-gradient of task 1 is NaN or infinite in .*the query loss"):
        slope_of(learner, theta, huge)
    for name in theta:  # in one parameter alone
        with pytest.raises(FloatingPointError):
            slope_of(learner, theta | {name: theta[name] * float("nan")}, batch)


class Root(nn.Module):
    """The root of a square: 0 at weight 0, where its gradient is 0 times infinity."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, values: Tensor) -> Tensor:
        return (values * self.weight).square().sqrt()


def test_a_gradient_that_is_nan_where_the_loss_is_not_raises() -> None:
    root = Root()
    learner = learner_of(method="pretrained")
    inner = dataclasses.replace(learner.inner, loss=loss_with(root))
    learner = dataclasses.replace(learner, module=root, trained=root, inner=inner)
    theta, batch = {"weight": torch.zeros(1)}, learner.training_tasks(0)
    assert query_loss(learner, theta, task_of(batch, 0)).isfinite()
    with pytest.raises(FloatingPointError, match="the meta-gradient of task 0 is NaN or infinite in weight"):
        slope_of(learner, theta, batch)


def test_the_seed_decides_parameters_and_tasks() -> None:
    one, same, other = (learner_of(seed=seed) for seed in (1, 1, 2))
    for function in (lambda x: flatten(x.initial_params()), lambda x: x.training_tasks(3).query.inputs):
        assert torch.equal(function(one), function(same))
        assert not torch.equal(function(one), function(other))
    assert not torch.equal(one.training_tasks(3).query.inputs, one.training_tasks(4).query.inputs)
    assert one.training_tasks(0).support.inputs.shape == (3, 4, 1)


def test_a_learner_takes_its_sizes_from_the_data() -> None:
    learner = learner_of(**CONVOLUTIONAL)
    assert flatten(learner.initial_params()).numel() == 4 * 9 + 8 + 4 * 4 * 9 + 8 + 3 * 4 + 3
    assert learner.loss(learner.initial_params(), task_of(learner.training_tasks(0), 0).query).dim() == 0
    assert in_double(learner.initial_params())["0.weight"].dtype == torch.float64


def test_convolutions_need_images() -> None:
    with pytest.raises(InputError, match=r"'convolutional' with inputs of shape \(1,\): it takes images"):
        learner_of(model={"name": "convolutional"})


@pytest.mark.parametrize("most", [1, 2])
def test_a_bound_on_tasks_at_once_changes_memory_alone(most: int) -> None:
    usual, bounded = (learner_of(tasks=5, tasks_at_once=n) for n in (0, most))
    theta, batch = problem(usual)
    torch.testing.assert_close(slope_of(usual, theta, batch), slope_of(bounded, theta, batch))
    assert [len(slices_of(batch, 5, 1, False, n)) for n in (0, 1, 2, 5, 9)] == [1, 5, 3, 1, 1]


def test_several_outputs_are_regressed_on() -> None:
    """Targets (tasks, examples, 2): the loss is the mean over both."""
    learner = learner_of(data="few_shot:Turns", shots=4, queries=3)
    theta, batch = problem(learner)
    assert (learner.outputs, learner.of_values) == (2, True)
    task = task_of(batch, 0)
    outputs = models.predict(learner.module, theta, task.query.inputs)
    torch.testing.assert_close(learner.loss(theta, task.query), (outputs - task.query.targets).square().mean())
    assert all(bool(slope.isfinite().all()) for slope in slope_of(learner, theta, batch)[1].values())
