"""A trained agent adapts and acts."""

from pathlib import Path
from typing import Any

import numpy as np
import probes
import pytest
import torch
from tiny import tiny

import maml_rl
from maml_envs import InputError
from maml_envs.registry import single
from maml_rl import meta_train
from maml_rl.config.toml import agents
from maml_rl.rl.adapted import AdaptedPolicy
from maml_rl.runs import checkpoint

GOAL = [0.3, -0.2]
SOMEWHERE = np.array([0.1, 0.4], np.float32)


def act(policy: AdaptedPolicy) -> Any:
    """The most probable action there."""
    return policy.act(SOMEWHERE, deterministic=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return meta_train(tiny(), tmp_path_factory.mktemp("agent") / "run", quiet=True)


@pytest.fixture(scope="module")
def agent(run: Path) -> maml_rl.Agent:
    return maml_rl.load(run)


@pytest.mark.parametrize("task", [GOAL, tuple(GOAL), np.array(GOAL), torch.tensor(GOAL), [GOAL]])
def test_a_policy_acts(task: object, agent: maml_rl.Agent) -> None:
    policy = agent.adapt(task)
    action = act(policy)
    assert isinstance(action, np.ndarray)
    assert action.shape == (2,)
    assert action.dtype == np.float32
    assert np.isfinite(action).all()
    assert (action == act(agent.adapt(GOAL))).all()
    many = policy.act(np.stack([SOMEWHERE, 0 * SOMEWHERE, SOMEWHERE]), deterministic=True)
    assert many.shape == (3, 2)
    assert many[0] == pytest.approx(action, rel=1e-5)
    assert (many[1] != many[0]).all()


def test_no_steps_is_the_policy_before_adaptation(agent: maml_rl.Agent) -> None:
    before = agent.learner.policy(agent.theta, torch.from_numpy(SOMEWHERE)).mean.numpy()
    assert act(agent.adapt(GOAL, steps=0)) == pytest.approx(before, rel=1e-5)
    assert (act(agent.adapt(GOAL, steps=1)) != before).all()


def test_adapting_leaves_the_agent_as_it_was(agent: maml_rl.Agent) -> None:
    theta = {name: value.clone() for name, value in agent.theta.items()}
    first = act(agent.adapt(GOAL, steps=3))
    assert all(torch.equal(agent.theta[name], theta[name]) for name in theta)
    assert (act(agent.adapt(GOAL, steps=3)) == first).all()


def test_the_seed_the_task_and_the_counts_matter(agent: maml_rl.Agent) -> None:
    actions = [
        act(agent.adapt(GOAL)),
        act(agent.adapt(GOAL, seed=1)),
        act(agent.adapt(GOAL, episodes=9)),
        act(agent.adapt(GOAL, steps=2)),
        act(agent.adapt([-0.3, 0.2])),
    ]
    assert len({tuple(action) for action in actions}) == 5
    assert (act(agent.adapt(GOAL, episodes=2)) == actions[0]).all()  # the configuration's number


def test_a_checkpoint_alone_is_enough(run: Path, agent: maml_rl.Agent, tmp_path: Path) -> None:
    alone = tmp_path / "policy.pt"
    alone.write_bytes((run / "checkpoint.pt").read_bytes())
    with maml_rl.load(alone) as copy:
        assert (act(copy.adapt(GOAL)) == act(agent.adapt(GOAL))).all()


def test_the_best_can_be_loaded(run: Path) -> None:
    with maml_rl.load(run, which="best") as best:
        saved = checkpoint.load(run / "best.pt").theta
        assert all(torch.equal(best.theta[name], saved[name]) for name in saved)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"task": [1.0]}, r"a task of navigation has shape \(2,\), not \(1,\)"),
        ({"task": [GOAL, GOAL]}, r"a task of navigation has shape \(2,\), not \(2, 2\)"),
        ({"task": GOAL, "steps": -1}, "steps = -1, .*give at least 0 steps"),
        ({"task": GOAL, "episodes": 0}, "episodes = 0: give .* 1 episode"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, object], problem: str, agent: maml_rl.Agent) -> None:
    with pytest.raises(InputError, match=problem):
        agent.adapt(**arguments)


def test_what_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no run folder .*nothing: train first"):
        maml_rl.load(tmp_path / "nothing")
    (tmp_path / "policy.pt").write_bytes(b"x")
    with pytest.raises(InputError, match=r"policy\.pt is not a checkpoint of this package"):
        maml_rl.load(tmp_path / "policy.pt")


def test_leaving_it_closes_the_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = meta_train(tiny(env="probes:Probe", horizon=2, iterations=1), tmp_path / "run", quiet=True)
    closed: list[object] = []
    monkeypatch.setattr(probes.Probe, "close", lambda env: closed.append(env))
    with maml_rl.load(run) as agent:
        assert np.isfinite(agent.adapt([0.5]).act([1.0])).all()
        assert closed == []
    assert closed == list(agent.learner.sampler.envs)


TASKS = {
    "ant_dir": [1.0],
    "ant_goal": [1.5, 1.5],
    "finn2017_ant_dir": [1.0],
    "finn2017_ant_vel": [1.8],
    "finn2017_half_cheetah_dir": [1.0],
    "finn2017_half_cheetah_vel": [1.8],
    "half_cheetah_dir": [1.0],
    "half_cheetah_vel": [2.5],
}
"""A task of each agent whose adaptation shows; with random dynamics and the humanoid's directions it does not."""


@pytest.mark.parametrize("name", sorted(agents()))
def test_an_agent_of_this_package_acts(name: str) -> None:
    with maml_rl.load(name) as agent:
        policy = agent.adapt(agent.learner.env.held_out_tasks(1)[0], episodes=2)
        low, high = agent.learner.env.action_space.low, agent.learner.env.action_space.high
        action = policy.act(np.zeros(agent.learner.env.observation_space.shape))
    assert action.shape == low.shape == high.shape
    assert np.isfinite(action).all()


@pytest.mark.parametrize("name", TASKS)
def test_an_agent_of_this_package_adapts(name: str) -> None:
    """In the task that it adapts to it earns more than before: a step of gradient goes the right way."""
    with maml_rl.load(name) as agent:
        task = TASKS[name]
        env, returns = single(agent.learner.config.env, agent.learner.config.preset), []
        for steps in (0, 1):
            policy, total = agent.adapt(task, steps), 0.0
            for seed in range(3):
                observation, _ = env.reset(seed=seed, options={"task": np.array(task, np.float32)})
                for _ in range(agent.learner.env.horizon):
                    observation, reward, *_ = env.step(policy.act(observation))
                    total += float(reward)
            returns.append(total / 3)
        env.close()
    assert returns[1] > returns[0] + 20
