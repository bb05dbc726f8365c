"""The levers of MAML++ and the shared start of UNICORN, each beside a loop that is written out, in float64."""

import math
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from few_shot import BLOBS_RUN, blobs, in_double, learner_of, problem, slope_of, tiny
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

import maml_rl
from maml_rl import evaluate, meta_train
from maml_rl.core.tree import Params
from maml_rl.runs import checkpoint
from maml_rl.supervised import TaskBatch
from maml_rl.supervised.learner import FewShotLearner, step_weights
from maml_rl.supervised.models import head, norms, predict
from maml_rl.supervised.tasks import AtStep

CLASSES = {**BLOBS_RUN, "tasks": 2}


def of_task(batch: TaskBatch, k: int) -> list[tuple[Tensor, Tensor]]:
    return [(part.inputs[k], part.targets[k]) for part in batch]


def by_hand(
    learner: FewShotLearner, theta: Params, batch: TaskBatch, weights: tuple[float, ...], first: bool
) -> tuple[Tensor, Params]:
    """The weighted query loss, mean over tasks, and its gradient, written out with autograd."""
    leaves = {name: value.clone().requires_grad_() for name, value in theta.items()}
    steps, ways, total = len(weights), learner.outputs, torch.zeros((), dtype=torch.float64)
    judge = mse_loss if learner.of_values else cross_entropy
    last = head(learner.module)
    own = norms(learner.module) if learner.config.model.norm_per_step else frozenset()
    adapted = last if learner.config.inner.adapt == "last" else theta.keys() - own

    def outputs(params: Params, step: int, inputs: Tensor) -> Tensor:
        return predict(learner.module, {k: v[step] if k in own else v for k, v in params.items()}, inputs)

    for k in range(len(batch.support.inputs)):
        (x, y), (asked, answers) = of_task(batch, k)
        params = {name: value for name, value in leaves.items() if not name.startswith("lr.")}
        if learner.config.model.shared_head:
            params |= {name: torch.cat([params[name]] * ways) for name in last}
        for step in range(steps):
            loss = judge(outputs(params, step, x), y)
            moved, moving = dict(params), [name for name in params if name in adapted]
            slopes = torch.autograd.grad(loss, [params[name] for name in moving], create_graph=True)
            for name, slope in zip(moving, slopes, strict=True):
                slope = slope.detach() if first else slope
                rate: Any = 0.01
                if learner.config.inner.learn_lr:
                    rate = leaves.get(f"lr.{name}", torch.zeros(steps))
                    rate = rate[step] if learner.config.inner.lr_per_step else rate
                moved[name] = params[name] - rate * slope
            params = moved
            total = total + weights[step] * judge(outputs(params, step, asked), answers)
    total = total / len(batch.support.inputs)
    found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    return total, {k: torch.zeros_like(v) if g is None else g for (k, v), g in zip(leaves.items(), found, strict=True)}


CASES: dict[str, dict[str, Any]] = {
    "rates of layers": {"inner": {"steps": 2, "learn_lr": True, "lr_of": "layer"}},
    "rates of steps": {"inner": {"steps": 2, "learn_lr": True, "lr_per_step": True}},
    "rates of layers and steps": {"inner": {"steps": 3, "learn_lr": True, "lr_of": "layer", "lr_per_step": True}},
    "losses of all steps": {"inner": {"steps": 3}, "outer": {"multi_step": 10}},
    "all of it": {
        "inner": {"steps": 2, "learn_lr": True, "lr_of": "layer", "lr_per_step": True, "first_order_until": 2},
        "outer": {"multi_step": 10},
    },
    "batch norm of steps": {
        **CLASSES,
        "inner": {"steps": 3},
        "model": {"hidden": [5], "batch_norm": True, "norm_per_step": True},
    },
    "batch norm of steps, only the head adapts": {
        **CLASSES,
        "inner": {"steps": 2, "adapt": "last"},
        "model": {"hidden": [5], "batch_norm": True, "norm_per_step": True},
        "outer": {"multi_step": 5},
    },
    "MAML++ on images": {
        **CLASSES,
        "inner": {"steps": 2, "learn_lr": True, "lr_of": "layer", "lr_per_step": True, "first_order_until": 2},
        "model": {"name": "convolutional", "hidden": [3], "batch_norm": True, "norm_per_step": True},
        "outer": {"multi_step": 10},
    },
    "shared head": {**CLASSES, "inner": {"steps": 2}, "model": {"hidden": [5], "shared_head": True}},
    "shared head, rates of steps": {
        **CLASSES,
        "inner": {"steps": 2, "learn_lr": True, "lr_of": "layer", "lr_per_step": True},
        "model": {"hidden": [5], "shared_head": True},
        "outer": {"multi_step": 5},
    },
    "shared head of images": {
        **CLASSES,
        "inner": {"steps": 1, "learn_lr": True},
        "model": {"name": "convolutional", "hidden": [3], "shared_head": True, "batch_norm": True},
    },
}


@pytest.mark.parametrize("iteration", [0, 3, 20])
@pytest.mark.parametrize("name", CASES)
def test_the_gradient_is_that_of_the_loop_written_out(name: str, iteration: int) -> None:
    learner = learner_of(**CASES[name])
    theta, batch = problem(learner)
    steps = learner.config.inner.steps
    weights = step_weights(steps, iteration, learner.config.outer.multi_step) or (*[0.0] * (steps - 1), 1.0)
    first = iteration < learner.config.inner.first_order_until
    expected, slopes = by_hand(learner, theta, batch, weights, first)
    loss, found = slope_of(learner.at(iteration), theta, batch)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)
    for key, slope in slopes.items():
        torch.testing.assert_close(found[key], slope, rtol=1e-8, atol=1e-12, msg=key)
    assert any(float(slope.abs().max()) > 0 for slope in found.values())


def test_weights_are_those_of_the_paper() -> None:
    """Of 5 steps 1 / 5 each, then (1 - t) / 5 for the earlier ones, no less than 0.03 / 5, the rest for the last."""
    assert step_weights(5, 0, 100) == pytest.approx([0.2] * 5)
    assert step_weights(5, 50, 100) == pytest.approx([0.1] * 4 + [0.6])
    assert step_weights(5, 99, 100) == pytest.approx([0.006] * 4 + [0.976])
    assert step_weights(5, 100, 100) == step_weights(1, 0, 100) == step_weights(5, 0, 0) == ()


def test_the_outer_rate_goes_down_a_cosine() -> None:
    learner = learner_of(iterations=101, log_every=101, outer={"lr": 0.01, "schedule": "cosine", "final_lr": 0.002})
    assert learner.outer_lr(0) == pytest.approx(0.01)
    assert learner.outer_lr(50) == pytest.approx(0.006)
    assert learner.outer_lr(25) == pytest.approx(0.002 + 0.008 * (1 + math.cos(math.pi / 4)) / 2)
    assert learner.outer_lr(100) == learner.outer_lr(1000) == pytest.approx(0.002)
    assert learner_of().outer_lr(3) == 1e-3


def test_more_steps_than_were_trained_go_on_at_the_last_rate() -> None:
    learner = learner_of(inner={"steps": 2, "learn_lr": True, "lr_of": "layer", "lr_per_step": True})
    theta, batch = problem(learner)
    sizes = torch.tensor([0.01, 0.1], dtype=torch.float64)
    theta |= {k: sizes.reshape(2, *[1] * (v.dim() - 1)) for k, v in theta.items() if k.startswith("lr.")}
    params, rate = learner.inner.rates.split(theta)
    support = type(batch.support)(*(part[0] for part in batch.support))
    chain = list(learner.adaptation(params, support, rate, 4))
    for step, size in enumerate((0.01, 0.1, 0.1, 0.1)):
        expected = learner.inner.step(chain[step], AtStep(support, step), size)
        for name, value in expected.items():
            torch.testing.assert_close(chain[step + 1][name], value)


def test_a_shared_start_does_not_see_how_labels_are_permuted() -> None:
    """Whatever the classes are called, each is told as well as it was; a start of their own is not so."""
    spreads = {}
    for shared in (True, False):
        learner = learner_of(**CLASSES, model={"hidden": [8], "shared_head": shared})
        theta, batch = problem(learner)
        (x, y), (asked, answers) = of_task(batch, 0)
        params, rate = learner.inner.rates.split(learner.start(theta))
        losses = []
        for order in permutations(range(3)):
            renamed = torch.tensor(order)
            support = type(batch.support)(x, renamed[y])
            *_, adapted = learner.adaptation(params, support, rate, 3)
            losses.append(float(cross_entropy(predict(learner.module, adapted, asked), renamed[answers])))
        spreads[shared] = max(losses) - min(losses)
    assert spreads[True] < 1e-12 < 1e-4 < spreads[False]


def test_all_of_it_trains_goes_on_and_adapts_to_more_ways(tmp_path: Path) -> None:
    settings = {
        **BLOBS_RUN, "iterations": 8, "log_every": 2,
        "inner": {"steps": 2, "learn_lr": True, "lr_of": "layer", "lr_per_step": True, "first_order_until": 2},
        "outer": {"schedule": "cosine", "multi_step": 4, "lr": 0.01},
        "model": {"name": "convolutional", "hidden": [6], "batch_norm": True, "shared_head": True},
    }  # fmt: skip
    whole = meta_train(tiny(**settings), tmp_path / "whole", quiet=True)
    stopped = tiny(**settings, stop={"minutes": 1e-9})
    meta_train(stopped, tmp_path / "parts", quiet=True)
    assert checkpoint.load(tmp_path / "parts/checkpoint.pt").iteration == 2
    parts = meta_train(tiny(**settings), tmp_path / "parts", resume=True, quiet=True)
    one, other = (checkpoint.load(run / "checkpoint.pt").theta for run in (whole, parts))
    assert all(torch.equal(one[name], other[name]) for name in one)
    weight = [name for name in one if one[name].dim() == 2 and not name.startswith("lr.")][-1]
    assert one[weight].shape == (1, 6)
    assert evaluate(whole).values["accuracy"].shape == (6, 3)
    examples, labels = blobs()
    chosen = torch.cat([torch.where(labels == k)[0][:2] for k in range(7)])
    with maml_rl.load(whole) as agent:
        model = agent.adapt(examples[chosen], labels[chosen])
    assert model.probabilities(examples[:5]).shape == (5, 7)
    assert sorted(set(model.predict(examples[chosen]))) == sorted(set(model.predict(examples[chosen])) & set(range(7)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"inner": {"first_order": True, "first_order_until": 5}}, "it is of first order in all iterations"),
        ({"inner": {"lr_per_step": True}}, "inner.lr_per_step with inner.learn_lr = false: no rate is learned"),
        ({"inner": {"lr_of": "layer"}}, "inner.lr_of with inner.learn_lr = false: no rate is learned"),
        ({"outer": {"multi_step": 5}}, "outer.multi_step with inner.steps = 1: there is no earlier step"),
        ({"outer": {"final_lr": 0.1}}, "outer.final_lr with outer.schedule = 'constant': the rate stays as it is"),
        ({"outer": {"name": "reptile", "multi_step": 5}, "inner": {"steps": 2}}, "outer.multi_step with outer.name"),
        ({"outer": {"name": "reptile"}, "inner": {"first_order_until": 2}}, "inner.first_order_until with outer.name"),
        (
            {"outer": {"name": "reptile"}, "model": {"shared_head": True}},
            "model.shared_head with outer.name = ",
        ),
        ({"method": "pretrained", "model": {"shared_head": True}}, "and method = 'pretrained': its last layer"),
    ],
)
def test_what_makes_no_sense_together_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said.replace(".", r"\.")):
        tiny(**changes)
    assert in_double
