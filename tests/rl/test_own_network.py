"""A torch.nn.Module of one's own is trained, adapted, saved and exported like the perceptron, or refused in words."""

from pathlib import Path
from typing import Any

import numpy as np
import own_networks
import pytest
import torch
from tiny import tiny
from torch.func import functional_call

import maml_rl
from maml_envs import InputError
from maml_rl import meta_train
from maml_rl.checks.gradients import check_gradients
from maml_rl.config.rl import Config
from maml_rl.core.tree import Params
from maml_rl.rl.learner import Learner, build
from maml_rl.runs import checkpoint
from maml_rl.runs.folder import read_metrics

NETWORKS: dict[str, dict[str, Any]] = {
    "Layered": {},
    "Scaled": {},
    "Convolutions": {"env": "own_networks:Pictures", "horizon": 5, "baseline": {"name": "time"}},
    "Grouped": {"env": "own_networks:Pictures", "horizon": 5, "baseline": {"name": "time"}},
    "Layered last": {"inner": {"adapt": "last"}},
    "Layered choices": {"env": "bandit"},
    "Attention": {},
    "Acting": {},
    "Layered told": {"method": "oracle"},
}


def config(name: str, **changes: Any) -> Config:
    settings = NETWORKS.get(name, {"inner": {"adapt": "last"}} if name.endswith(" last") else {}) | changes
    network = {"network": f"own_networks:{name.split()[0]}", "hidden": (64, 64)}
    return tiny(**settings | {"policy": settings.get("policy", {}) | network})


def outputs_by_hand(learner: Learner, params: Params, rows: torch.Tensor) -> torch.Tensor:
    module = learner.policy.own.made(torch.Generator().manual_seed(5))  # type: ignore[union-attr]
    names = dict(module.named_parameters())
    space = learner.env
    shape = getattr(space, "own_space", space.observation_space).shape
    scale = 255.0 if len(shape) == 3 else 1.0
    if learner.sampler.observe_task:
        shape = (rows.shape[1],)
    return functional_call(module, {name: params[name] for name in names}, (rows.reshape(-1, *shape) / scale,))


@pytest.mark.parametrize("name", NETWORKS)
def test_stacked_over_tasks_it_is_each_task_by_itself(name: str) -> None:
    learner = build(config(name))
    one = learner.initial_params()
    tasks = [{key: value + 0.1 * k for key, value in one.items()} for k in range(3)]
    stacked = {key: torch.stack([task[key] for task in tasks]) for key in one}
    rows = torch.rand(3, 4, 2, learner.policy.observations)
    together = learner.policy.outputs(stacked, rows)
    for k, params in enumerate(tasks):
        expected = outputs_by_hand(learner, params, rows[k].flatten(0, 1)).reshape(4, 2, -1)
        torch.testing.assert_close(together[k], expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(learner.policy.outputs(params, rows[k]), expected, rtol=1e-4, atol=1e-5)
    learner.close()


@pytest.mark.parametrize("name", ["Layered", "Scaled", "Layered last", "Convolutions", "Grouped"])
def test_its_derivatives_are_right(name: str) -> None:
    rows = check_gradients(config(name))
    assert all(row.agrees for row in rows), [row for row in rows if not row.agrees]


def test_a_linear_one_trains_as_the_perceptron_without_hidden_layers() -> None:
    """From the same parameters: the same numbers, up to rounding."""
    own, plain = build(config("Twice")), build(tiny(policy={"hidden": []}))
    ours = own.initial_params()
    theirs = {"0.weight": ours["weight"].T, "0.bias": ours["bias"], "log_std": ours["log_std"]}
    rows = torch.rand(5, 2)
    torch.testing.assert_close(own.policy.outputs(ours, rows), plain.policy.outputs(theirs, rows))


@pytest.mark.parametrize("name", NETWORKS)
def test_it_trains_and_goes_on_where_it_stopped(name: str, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    meta_train(config(name, iterations=3), whole, quiet=True)
    for iterations in (1, 3):
        meta_train(config(name, iterations=iterations), parts, resume=True, quiet=True)
    one, two = (checkpoint.load(run / "checkpoint.pt").theta for run in (whole, parts))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert len(read_metrics(whole)) == 3
    assert maml_rl.evaluate(whole).mean.shape[0] >= 1


@pytest.mark.filterwarnings("ignore")  # torch's own, of what it will change in itself
@pytest.mark.parametrize("name", ["Layered", "Convolutions", "Grouped", "Layered told"])
def test_what_it_adapts_to_acts_and_is_exported(name: str, tmp_path: Path) -> None:
    run = meta_train(config(name, iterations=1), tmp_path / "run", quiet=True)
    with maml_rl.load(run) as agent:
        policy = agent.adapt([0.3, -0.2])
        rows = torch.rand(4, agent.learner.env.observation_space.shape[0])
        told = torch.tensor([[0.3, -0.2]] * 4) if name == "Layered told" else torch.zeros(4, 0)
        with torch.no_grad():
            mean = outputs_by_hand(agent.learner, policy.parameters, torch.cat([rows, told], 1)).clamp(-1, 1)
    torch.testing.assert_close(policy.module(rows), mean, rtol=1e-4, atol=1e-5)
    loaded = torch.export.load(policy.save(tmp_path / "policy.pt2")).module()
    torch.testing.assert_close(loaded(rows), mean, rtol=1e-4, atol=1e-5)
    if "Layered" not in name:
        picture = np.zeros((16, 16, 1), np.uint8)
        assert policy.act(picture).shape == (2,)
        assert policy.act(np.stack([picture] * 3)).shape == (3, 2)


@pytest.mark.filterwarnings("ignore")  # torch's own, that weight norms are slow under vmap
def test_the_last_layer_is_the_one_that_is_made_last() -> None:
    assert build(config("Layered")).policy.head == {"end.weight", "end.bias"}
    assert build(config("Normed")).policy.head == {
        "end.bias",
        "end.parametrizations.weight.original0",
        "end.parametrizations.weight.original1",
    }


def test_another_seed_is_another_network() -> None:
    one, other = (build(config("Layered", seed=seed)).initial_params() for seed in (1, 2))
    assert one.keys() == other.keys()
    assert not torch.equal(one["start.weight"], other["start.weight"])
    assert torch.equal(one["start.weight"], build(config("Layered", seed=1)).initial_params()["start.weight"])


def test_making_it_does_not_disturb_other_random_numbers() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    build(config("Layered")).initial_params()
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("RunningStatistics", r"norm \(BatchNorm1d\) keeps running statistics, .* use LayerNorm"),
        ("BatchStatistics", "an output depends on the other observations of the batch"),
        ("Dropping", "gives another output for the same input: dropout, noise or state inside"),
        ("Counting", "changes its buffer seen as it runs"),
        ("TooManyOutputs", r"gives \(3, 3\) for observations \(3, 2\): it has to give \(3, 2\)"),
        ("Unused", "value.weight, value.bias takes no part in its outputs"),
        ("RandomBuffer", "the buffer chance is another one each time it is made"),
        ("Infinite", "gives NaN or infinity for observations in 0 ... 1"),
        ("NotCopied", "cannot be copied"),
        ("NoParameters", "has no parameters: there is nothing to adapt"),
        ("Frozen", r"the parameter start.weight is not trained \(requires_grad = False\)"),
        ("Lazy", "end.weight is lazy: give its layer the width of its input"),
        ("NamedAsOurs", "a parameter is named 'log_std', which is another one's name: rename it"),
        ("OneArgument", r"is made as OneArgument\(observation_space, outputs\): too many positional"),
        ("Fails", r"fails for observations \(3, 2\): RuntimeError"),
        ("FunctionalNorm", "torch differentiates it wrongly twice for several tasks at once, in start.weight"),
        ("Branches", "cannot be taken for several tasks at once and differentiated twice"),
        ("Recurrent", "cannot be taken for several tasks at once and differentiated twice"),
        ("Closure", "block.0.weight, block.0.bias takes no part in its outputs"),
        ("PlainNumbers", "with the same parameters it gives another output when it is made anew"),
        ("WhenTraining", r"gives another output after eval\(\) than after train\(\)"),
        ("NumpyWeights", "the parameter end.weight is another one each time it is made"),
        ("OtherLayers", "has other parameters each time it is made"),
        ("same_again", "gives the same module each time it is called: make a new one"),
        ("compiled", "is compiled: leave torch.compile out"),
        ("InPlace", "changes its input in place"),
        ("Tied last", "last.weight of the last layer is a parameter of another one too"),
        ("not_a_module", "makes a int: it has to be a torch.nn.Module"),
        ("Missing", "own_networks has no 'Missing'"),
    ],
)
def test_what_cannot_be_a_policy_is_refused_with_the_reason(name: str, said: str) -> None:
    with pytest.raises(InputError, match=f"policy.network = 'own_networks:{name.split()[0]}'.*{said}"):
        build(config(name))


@pytest.mark.parametrize(("key", "value"), [("hidden", [8]), ("activation", "relu"), ("context", 3)])
def test_what_is_the_perceptrons_is_refused_beside_it(key: str, value: Any) -> None:
    settings = {"network": "own_networks:Layered", "hidden": (64, 64)} | {key: value}
    with pytest.raises(InputError, match=f"policy.{key} with policy.network = 'own_networks:Layered'"):
        tiny(policy=settings)


def test_an_unknown_module_is_named() -> None:
    with pytest.raises(InputError, match=r"policy.network = 'nobodys:Net': no module 'nobodys'"):
        build(tiny(policy={"network": "nobodys:Net", "hidden": (64, 64)}))
    with pytest.raises(InputError, match=r"policy.network = 'net.py': write 'my_module:MyNetwork'"):
        build(tiny(policy={"network": "net.py", "hidden": (64, 64)}))
    assert own_networks


def test_torchs_own_layer_norm_would_be_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it is not, torch has mended its second derivatives under vmap, and ``PLAIN`` may go."""
    monkeypatch.setattr("maml_rl.core.own_module.PLAIN", {})
    with pytest.raises(InputError, match="torch differentiates it wrongly twice"):
        build(config("Layered"))


@pytest.mark.parametrize(
    ("env", "method", "expected"),
    [
        ("Pictures", "maml", [1.0]),
        ("Pictures", "oracle", [1.0]),
        ("Board", "maml", [1.0]),
        ("PictureAndPlace", "maml", [1.0] * 9 + [255.0] * 2),
        ("PictureAndPlace", "oracle", [1.0] * 9 + [255.0] * 4),
    ],
)
def test_bytes_of_a_picture_are_one_unit_and_others_as_they_are(env: str, method: str, expected: list[float]) -> None:
    """Rows of 255, and for the board of 1, with whatever is beside them in the same row."""
    name = "Convolutions" if (env, method) == ("Pictures", "maml") else "Flat"
    chosen = config(name, env=f"own_networks:{env}", method=method, horizon=5, baseline={"name": "time"})
    learner = build(chosen)
    own = learner.policy.own
    assert own is not None
    rows = torch.full((1, learner.policy.observations), 1.0 if env == "Board" else 255.0)
    if (env, method) == ("Pictures", "oracle"):
        rows[:, -2:], expected = 1.0, [1.0]
    params = learner.initial_params()
    seen = []
    for module in (own.idle[0], own.adapted(params).module):
        module.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    own(params, rows)
    own.adapted(params)
    module = own.adapted(params)
    module.module.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    module(rows)
    for given in seen:
        assert given.flatten().tolist() == pytest.approx(expected * (given.numel() // len(expected)))
    assert len(seen) == 2
    learner.close()


def test_it_gets_observations_in_their_units() -> None:
    units = torch.tensor([0.5, 4.0])
    own, plain = (build(config("Layered", policy=given)) for given in ({"observation_units": units.tolist()}, {}))
    params, rows = own.initial_params(), torch.rand(3, 2)
    expected = plain.policy.outputs(params, rows)
    torch.testing.assert_close(own.policy.outputs(params, rows * units), expected)
    assert own.policy.own is not None
    torch.testing.assert_close(own.policy.own.adapted(params)(rows * units), expected)


def test_a_forward_of_a_layers_own_stays() -> None:
    learner = build(config("OwnForward"))
    own, params = learner.policy.own, learner.initial_params()
    assert own is not None
    rows = torch.rand(3, 2)
    torch.testing.assert_close(own.adapted(params)(rows), own(params, rows))
