"""An adapted policy acts in the environment's own spaces and units, and can be taken along."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import brought
import gymnasium
import numpy as np
import pytest
import torch
from tiny import tiny

from maml_envs import InputError
from maml_envs.adapters.spaces import rows_of
from maml_envs.registry import single
from maml_rl.config.rl import Config
from maml_rl.core.streams import Purpose
from maml_rl.rl.adapted import AdaptedPolicy
from maml_rl.rl.agent import Agent
from maml_rl.rl.held_out import draw_for
from maml_rl.rl.learner import build

HORIZON = 10
TASKS: dict[str, Any] = {
    "navigation": [0.3, -0.2],
    "half-cheetah-dir": [1.0],
    "bandit": None,
    "brought:Point": [0.5, -0.5],
    "brought:Wide": [0.5, -0.5],
    "brought:Choices": [0.5, -0.5],
    "brought:Named": [0.5, -0.5],
    "brought:ManyChoices": [0.5, -0.5],
}


def agent_of(env: str, **changes: Any) -> Agent:
    return agent(tiny(env=env, horizon=HORIZON, **changes))


def agent(config: Config) -> Agent:
    learner = build(config)
    return Agent(learner, {name: 3 * value for name, value in learner.initial_params().items()})


def task_of(agent: Agent, env: str) -> Any:
    given = TASKS[env]
    return agent.learner.env.sample_tasks(1, torch.Generator().manual_seed(0))[0] if given is None else given


def view(env: str, task: Any) -> tuple[gymnasium.Env[Any, Any], dict[str, Any] | None]:
    """The environment by itself, and options of its reset."""
    if ":" not in env:
        return single(env, horizon=HORIZON), {"task": np.asarray(task, np.float32)}
    own = getattr(brought, env.partition(":")[2])()
    own.set_task(np.asarray(task))
    return own, None


def returns(policy: AdaptedPolicy, env: str, task: Any, episodes: int) -> np.ndarray[Any, Any]:
    own, options = view(env, task)
    totals = []
    for seed in range(episodes):
        observation, _ = own.reset(seed=seed, options=options)
        total = 0.0
        for _ in range(HORIZON):
            action = policy.act(observation)
            assert own.action_space.contains(action)
            observation, reward, terminated, truncated, _ = own.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        totals.append(total)
    own.close()
    return np.array(totals)


@pytest.mark.parametrize("env", TASKS)
def test_what_it_earns_by_itself_is_what_evaluation_says(env: str) -> None:
    with agent_of(env) as trained:
        task = task_of(trained, env)
        policy = trained.adapt(task)
        alone = returns(policy, env, task, 150)
        row = torch.as_tensor(task, dtype=trained.learner.env.sample_tasks(1, torch.Generator()).dtype).unsqueeze(0)
        draw = draw_for(trained.learner, row, 300, Purpose.EVALUATION, 9)
        stacked = {name: value.unsqueeze(0) for name, value in policy.parameters.items()}
        together = trained.learner.sampler.sample(stacked, row, 300, draw.keys, draw.axis).returns().numpy().ravel()
    noise = (alone.var() / len(alone) + together.var() / len(together)) ** 0.5
    assert abs(alone.mean() - together.mean()) < 4 * noise + 1e-6


@pytest.mark.parametrize("env", TASKS)
def test_a_batch_is_what_each_alone_is(env: str) -> None:
    with agent_of(env) as trained:
        task = task_of(trained, env)
        policy, (own, options) = trained.adapt(task), view(env, task)
        seen = [own.reset(seed=seed, options=options)[0] for seed in range(3)]
        own.close()
    batch = (
        {key: np.stack([one[key] for one in seen]) for key in seen[0]} if isinstance(seen[0], dict) else np.stack(seen)
    )
    together = policy.act(batch, deterministic=True)
    for one, action in zip(seen, together, strict=True):
        np.testing.assert_allclose(policy.act(one, deterministic=True), action, rtol=1e-5, atol=1e-6)
    assert len(policy.act(batch)) == 3


def test_units_by_hand() -> None:
    """Box(-2, 2) x Box(0, 10): -1, 0, 1 of the policy are the lower bounds, the middles and the upper bounds."""
    with agent_of("brought:Wide") as trained:
        policy = trained.adapt([0.5, -0.5], steps=0)
    outputs = torch.tensor([[-1.0, -1.0], [0.0, 0.0], [0.5, 2.0]])
    assert policy.module.own(outputs).tolist() == [[-2, 0], [0, 5], [1, 10]]
    assert policy.action_space == brought.Wide.action_space


def test_the_unit_of_the_policy_is_inside() -> None:
    with agent_of("half-cheetah-dir") as trained:
        policy = trained.adapt([1.0], steps=0)
        mean = trained.learner.policy(trained.theta, torch.ones(17)).mode()
    scale = trained.learner.config.policy.action_scale
    assert scale == 10
    expected = (mean / scale).clamp(-1, 1)
    torch.testing.assert_close(policy.module(torch.ones(1, 17))[0], expected)


CONFIGS: dict[str, Callable[[], Agent]] = {
    "box": lambda: agent_of("brought:Wide"),
    "choices": lambda: agent_of("brought:Choices"),
    "context": lambda: agent_of("navigation", policy={"context": 3}, inner={"adapt": "context"}),
    "told the task": lambda: agent_of("navigation", method="oracle"),
    "units": lambda: agent_of("half-cheetah-dir", policy={"observation_units": [*[1.0] * 8, *[5.0] * 9]}),
    "units, context": lambda: agent_of("navigation", policy={"context": 3, "observation_units": [0.1, 3.0]}),
    "units, told the task": lambda: agent_of("navigation", method="oracle", policy={"observation_units": [0.1]}),
    "relu": lambda: agent_of("half-cheetah-dir", policy={"activation": "relu", "hidden": [8, 8]}),
    "linear": lambda: agent_of("navigation", policy={"hidden": []}),
}


@pytest.fixture(params=CONFIGS)
def taken(request: pytest.FixtureRequest) -> tuple[AdaptedPolicy, torch.Tensor, np.ndarray[Any, Any]]:
    """A policy, rows of observations, and its most probable actions there by the package's own policy."""
    with CONFIGS[request.param]() as trained:
        env, learner = trained.learner.config.env, trained.learner
        policy = trained.adapt(TASKS[env])
        rows = torch.randn(5, learner.env.observation_space.shape[0], generator=torch.Generator().manual_seed(0))
        told = torch.tensor([TASKS[env]] * 5) if learner.sampler.observe_task else torch.zeros(5, 0)
        mode = learner.policy(policy.parameters, torch.cat([rows, told], 1)).mode()
        control = learner.policy.control(mode)
        own = getattr(learner.env, "own_actions", None)
        expected = own(control.numpy()) if own else control.clamp(-1, 1).numpy()
    return policy, rows, expected


def test_the_module_is_the_policy(taken: tuple[AdaptedPolicy, torch.Tensor, Any]) -> None:
    policy, rows, expected = taken
    with torch.no_grad():
        np.testing.assert_allclose(policy.module(rows).numpy(), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(policy.act(rows.numpy(), deterministic=True), expected, rtol=1e-5, atol=1e-6)


def test_it_pickles_and_goes_on_with_its_random_numbers(taken: tuple[AdaptedPolicy, torch.Tensor, Any]) -> None:
    policy, rows, _ = taken
    policy.act(rows.numpy())
    copy = pickle.loads(pickle.dumps(policy))
    np.testing.assert_array_equal(copy.act(rows.numpy()), policy.act(rows.numpy()))


@pytest.mark.filterwarnings("ignore")  # torch's own, of what it will change in itself
def test_it_is_exported(taken: tuple[AdaptedPolicy, torch.Tensor, Any], tmp_path: Path) -> None:
    policy, rows, expected = taken
    path = policy.save(tmp_path / "policy.pt2")
    loaded = torch.export.load(path).module()
    np.testing.assert_allclose(loaded(rows).detach().numpy(), expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match="is there already: give another name"):
        policy.save(path)
    with pytest.raises(InputError, match=r"give a name that ends in \.pt2"):
        policy.save(tmp_path / "policy.pth")


def test_it_goes_to_onnx(taken: tuple[AdaptedPolicy, torch.Tensor, Any], tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    policy, rows, expected = taken
    path = policy.save(tmp_path / "policy.onnx")
    (actions,) = onnxruntime.InferenceSession(path).run(None, {"observations": rows.numpy()})
    np.testing.assert_allclose(actions, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("env", "observation"),
    [("brought:Point", [1.0, 2.0, 3.0]), ("brought:Named", {"place": [0.0, 0.0]}), ("brought:Point", "left")],
)
def test_what_is_no_observation_is_named(env: str, observation: Any) -> None:
    with agent_of(env) as trained, pytest.raises(InputError, match=r"the observation .* is not of "):
        trained.adapt([0.5, -0.5], steps=0).act(observation)


def placed(env: brought.Point) -> brought.Point:
    env.set_task([0.9, 0.0])
    return env


def test_it_adapts_within_a_users_environment() -> None:
    """Which has its task already, and is neither told one nor closed."""
    with agent_of("brought:Choices") as trained:
        env = placed(brought.Choices())
        policy = trained.adapt(env, episodes=50)
        assert env.goal.tolist() == [0.9, 0.0]
        env.reset(seed=0)
        other = trained.adapt([0.9, 0.0], episodes=50)
    for name, value in policy.parameters.items():
        assert float((value - other.parameters[name]).norm()) < 0.2 * float(value.norm()) + 0.05
    rows = np.zeros((1, 2), np.float32)
    assert policy.act(rows)[0] in range(5, 9)


def test_episodes_there_are_as_long_as_in_training() -> None:
    env, steps = placed(brought.Point()), []
    env.step = lambda action, step=env.step: (steps.append(env.t), step(action))[1]  # type: ignore[method-assign]
    with agent_of("brought:Point") as trained:
        trained.adapt(gymnasium.wrappers.TimeLimit(env, 25), episodes=2)
    assert max(steps) == HORIZON - 1


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((3, 4, 4), r"\(3, 4, 4\), and observation_space \(4, 4, 3\)"),
        ((2, 48), r"its shape is \(2, 48\), and that of the space \(4, 4, 3\)"),
        ((48,), r"its shape is \(48,\), and that of the space \(4, 4, 3\)"),
        ((2, 3, 4, 4), r"\(3, 4, 4\), and observation_space \(4, 4, 3\)"),
    ],
)
def test_a_picture_in_another_layout_is_refused(shape: tuple[int, ...], said: str) -> None:
    space = gymnasium.spaces.Box(0, 255, (4, 4, 3), np.uint8)
    with pytest.raises(InputError, match=said):
        rows_of(space, np.ones(shape, np.uint8))
    for right in ((4, 4, 3), (5, 4, 4, 3)):
        rows, alone = rows_of(space, np.ones(right, np.uint8))
        assert (rows.shape[1], alone) == (48, len(right) == 3)


def test_an_observation_of_nan_is_refused() -> None:
    with agent_of("brought:Point") as trained, pytest.raises(InputError, match="it holds NaN or infinity"):
        trained.adapt([0.5, -0.5], steps=0).act([np.nan, 0.0])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: gymnasium.make("Pendulum-v1"), r"adapt\(PendulumEnv\): its observations have shape \(3,\)"),
        (lambda: placed(brought.Choices()), r"adapt\(Choices\): its actions have shape"),
        (lambda: single("navigation"), r"adapt\(SingleEnv\): it draws a new task at every reset"),
    ],
)
def test_an_environment_that_does_not_fit_is_refused(make: Callable[[], Any], said: str) -> None:
    with agent_of("brought:Point") as trained, pytest.raises(InputError, match=said):
        trained.adapt(make())
