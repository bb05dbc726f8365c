"""A batch of gymnasium environments: whatever the workers and waves, the episodes that each alone would play."""

import gym_probes
import gymnasium
import numpy as np
import pytest
import torch
from alone import rollout, stack
from torch import Tensor

import maml_envs
from maml_envs import GymnasiumTaskEnv, InputError, VectorOptions, WorkerError, random
from maml_envs.adapters.actions import Actions
from maml_envs.adapters.named import Named
from maml_envs.task_env import HELD_OUT_SEED
from maml_rl.rl.data import Trajectory
from maml_rl.rl.policies import GaussianPolicy

GOALS = torch.tensor([[2.0], [-3.0], [9.0], [4.0], [-5.0]])


PENDULUM = Named("gymnasium:Pendulum-v1", None, {"g": (5, 15), "m": (0.5, 2)})
HOPPER = Named("gymnasium:Hopper-v5", None, {"gravity": (-12, -6), "body_mass.torso": (2, 6)})


def run(env: GymnasiumTaskEnv, tasks: Tensor, episodes: int = 4, steps: int = 6) -> Trajectory:
    policy = GaussianPolicy(env.observation_space.shape[0], env.action_width, hidden=(8,))
    params = stack(policy.init(torch.Generator().manual_seed(0)), len(tasks))
    seeds = random.fold_in(torch.arange(len(tasks)).unsqueeze(-1), torch.arange(episodes))
    noise = random.normal(random.fold_in(seeds, 0), (steps, env.action_width)).float()
    try:
        return rollout([env], policy, params, tasks, noise, seeds)
    finally:
        env.close()


def by_hand(goal: float, seed: int, actions: list[float]) -> list[tuple[list[float], float, bool, bool]]:
    """One episode of Counted in gymnasium's own way."""
    env, steps = gym_probes.Counted(), []
    env.set_task(np.array([goal], np.float32))
    env.reset(seed=seed & 0x7FFFFFFF)
    for action in actions:
        scaled = 2 + 4 * np.clip(np.array([action], np.float32), -1, 1)
        observation, reward, terminated, truncated, _ = env.step(scaled)
        steps.append((observation.tolist(), float(reward), terminated, truncated))
        if terminated or truncated:
            break
    return steps


@pytest.mark.parametrize(("workers", "size"), [(0, 64), (0, 1), (0, 3), (2, 64), (3, 5)])
def test_episodes_are_those_of_the_environment_alone(workers: int, size: int) -> None:
    found = run(GymnasiumTaskEnv(gym_probes.Counted, VectorOptions(workers, 60.0, size)), GOALS)
    seeds = random.fold_in(torch.arange(5).unsqueeze(-1), torch.arange(4))
    for k in range(5):
        for b in range(4):
            steps = by_hand(GOALS[k].item(), int(seeds[k, b]), found.actions[k, b, :, 0].tolist())
            assert found.mask[k, b].tolist() == [t < len(steps) for t in range(6)]
            for t, (observation, reward, *_) in enumerate(steps):
                after = found.observations[k, b, t + 1] if t + 1 < len(steps) else found.final_observations[k, b]
                np.testing.assert_allclose(after, observation, rtol=1e-6)
                assert found.rewards[k, b, t].item() == pytest.approx(reward, rel=1e-6)
            # 9 goes on to the horizon; -3 and -5 are truncated by the environment, 2 and 4 terminate
            assert found.truncated[k, b].item() == (GOALS[k].item() in (-3, 9, -5))


def actions_of(env: GymnasiumTaskEnv, tasks: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """All observations and rewards of fixed actions, in waves of the environment's size."""
    drawn = random.normal(torch.arange(len(tasks)), (steps, env.action_width)).float()
    seeds, waves = random.fold_in(torch.arange(len(tasks)), 1), range(0, len(tasks), env.max_batch or 1)
    parts = []
    for rows in [slice(start, start + env.max_batch) for start in waves]:
        seen = [env.reset(tasks[rows], seeds[rows])]
        taken = [env.step(drawn[rows, t]) for t in range(steps)]
        seen += [step.observation for step in taken]
        parts.append((torch.stack(seen, 1), torch.stack([step.reward for step in taken], 1)))
    env.close()
    observations, rewards = zip(*parts, strict=True)
    return torch.cat(observations), torch.cat(rewards)


@pytest.mark.parametrize(
    ("make", "ways"),
    [(PENDULUM, ((1, 64), (2, 64), (4, 64), (0, 2))), (HOPPER, ((2, 5), (0, 2)))],
    ids=["pendulum", "hopper"],
)
def test_workers_and_waves_change_no_bit(make, ways: tuple[tuple[int, int]]) -> None:
    tasks, steps = GymnasiumTaskEnv(make).sample_tasks(9, torch.Generator().manual_seed(5)), 60
    whole = actions_of(GymnasiumTaskEnv(make), tasks, steps)
    assert whole[0].std(0).mean() > 0.05  # the tasks and seeds make a difference
    for workers, size in ways:
        parts = actions_of(GymnasiumTaskEnv(make, VectorOptions(workers, 60.0, size)), tasks, steps)
        assert all(torch.equal(one, other) for one, other in zip(whole, parts, strict=True)), (workers, size)


def test_a_policys_episodes_do_not_depend_on_workers() -> None:
    tasks = GymnasiumTaskEnv(PENDULUM).sample_tasks(3, torch.Generator().manual_seed(5))
    one, two = (run(GymnasiumTaskEnv(PENDULUM, VectorOptions(n, 60.0, 8)), tasks, steps=30) for n in (0, 2))
    for a, b in zip([*one[:6], *one.behaviour], [*two[:6], *two.behaviour], strict=True):
        assert torch.equal(a, b)
    waves = run(GymnasiumTaskEnv(PENDULUM, VectorOptions(0, 60.0, 5)), tasks, steps=30)
    torch.testing.assert_close(one.observations, waves.observations, rtol=1e-3, atol=1e-4)  # the policy's rounding


@pytest.mark.parametrize("workers", [0, 2])
def test_an_ended_environment_keeps_its_row(workers: int) -> None:
    env = GymnasiumTaskEnv(gym_probes.Counted, VectorOptions(workers))
    env.reset(GOALS[:3], torch.arange(3))
    steps = [env.step(torch.zeros(3, 1)) for _ in range(5)]  # Counted raises where one is stepped after its end
    env.close()
    assert [step.terminated.tolist() for step in steps] == [[False] * 3, *[[True, False, False]] * 4]
    assert [step.truncated.tolist() for step in steps] == [[False] * 3, [False] * 3, *[[False, True, False]] * 3]
    assert steps[4].reward.tolist() == [0, 0, 9 * 5 + 2]
    assert steps[4].observation[:, 1].tolist() == [2, 3, 5]
    assert set(steps[0].info) == {"success", "counted"}
    assert steps[1].info["success"].tolist() == [1, 0, 0]
    assert steps[0].observation.dtype == steps[0].reward.dtype == torch.float32
    assert steps[0].observation.data_ptr() != steps[1].observation.data_ptr()


def test_an_environment_may_keep_the_action_that_it_was_given() -> None:
    env = GymnasiumTaskEnv(gym_probes.Keeps)
    env.reset(GOALS[2:3], torch.arange(1))
    rewards = [env.step(torch.tensor([[a]])).reward.item() for a in (0.5, -0.5, 0.25)]
    assert rewards == pytest.approx([4, -4, 3])  # 2 + 4 a: from 0 to 4 to 0 to 3


def test_tasks_that_are_numbers_dict_observations_and_discrete_actions() -> None:
    env = GymnasiumTaskEnv(gym_probes.Coin)
    tasks = env.sample_tasks(3, torch.Generator().manual_seed(0))
    assert tasks.shape == (3, 1)
    assert env.observation_space.shape == (4,)  # place (2), side (2, one-hot)
    assert (env.discrete, env.action_width) == (True, 2)
    first = env.reset(tasks, torch.arange(3))
    torch.testing.assert_close(first, torch.cat((tasks.float(), torch.zeros(3, 1), torch.tensor([[1.0, 0.0]] * 3)), 1))
    step = env.step(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]))
    torch.testing.assert_close(step.observation[:, 1:], torch.tensor([[5.0, 0, 1], [6.0, 0, 1], [5.0, 0, 1]]))
    assert env.held_out_tasks(2).tolist() == [[3.0]] * 2
    assert env.held_out_tasks(2, "out").tolist() == [[4.0]] * 2


def test_held_out_tasks_are_fixed() -> None:
    env = GymnasiumTaskEnv(gym_probes.Counted)
    held_out = env.held_out_tasks(20)
    assert torch.equal(held_out, GymnasiumTaskEnv(gym_probes.Counted).held_out_tasks(20))
    assert torch.equal(held_out, env.sample_tasks(20, torch.Generator().manual_seed(HELD_OUT_SEED)))
    assert not torch.equal(held_out, env.sample_tasks(20, torch.Generator().manual_seed(1)))
    with pytest.raises(InputError, match="no held-out tasks with split='out'"):
        env.held_out_tasks(2, "out")


def test_how_long_an_episode_is() -> None:
    assert GymnasiumTaskEnv(gym_probes.Counted).horizon == 6
    assert GymnasiumTaskEnv(gym_probes.Counted, horizon=3).horizon == 3
    assert GymnasiumTaskEnv(PENDULUM).horizon == 200  # gymnasium's time limit
    env = maml_envs.make("gymnasium:Pendulum-v1", horizon=250, vector=VectorOptions(task_ranges={"g": (5, 15)}))
    assert env.horizon == 250
    env.reset(torch.tensor([[9.0]]), torch.arange(1))
    ends = [env.step(torch.zeros(1, 1)).truncated.item() for _ in range(250)]
    assert ends.index(True) == 249

    class Endless(gym_probes.Counted):
        horizon = None

    with pytest.raises(InputError, match=r"Endless: nothing says how long an episode is, .*; give horizon = 200"):
        GymnasiumTaskEnv(Endless)


def test_what_cannot_be_a_batch() -> None:
    with pytest.raises(InputError, match=r"vector_size = 2 with vector.workers = 3: .* use a multiple of the workers"):
        GymnasiumTaskEnv(gym_probes.Counted, VectorOptions(3, 60.0, 2))

    class Short(gym_probes.Counted):
        def sample_tasks(self, count, rng):
            return np.zeros((1, 1))

    with pytest.raises(InputError, match=r"Short: asked for 3 tasks, got an array of shape \(1, 1\): one row each"):
        GymnasiumTaskEnv(Short).sample_tasks(3, torch.Generator())

    class Words(gym_probes.Counted):
        def sample_tasks(self, count, rng):
            return ["left"] * count

    with pytest.raises(InputError, match="Words: the tasks are not numbers, a row for each"):
        GymnasiumTaskEnv(Words)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda o, r: (o[:3], r), r"has the shape \(3,\), and observation_space \(4,\)"),
        (lambda o, r: (o[0], r), r"has the shape \(\), and observation_space \(4,\)"),  # it would fill the row
        (lambda o, r: (o, np.array([r, r])), "reward is array.*: return one number"),
    ],
)
def test_what_a_step_returns_is_checked_and_located(change, said: str) -> None:
    class Wrong(gym_probes.Counted):
        def step(self, action):
            observation, reward, *rest = super().step(action)
            if self.goal == 9 and self.count == 2:
                observation, reward = change(observation, reward)
            return observation, reward, *rest

    env = GymnasiumTaskEnv(Wrong)
    env.reset(GOALS[1:4], torch.arange(3))
    env.step(torch.zeros(3, 1))
    with pytest.raises(WorkerError, match=said) as caught:
        env.step(torch.zeros(3, 1))
    assert "in environment 1 of the batch, with task [9.0], step 1 (counted from 0)" in str(caught.value)


def test_actions_of_a_box_that_is_bounded_here_and_there() -> None:
    low, high = np.array([-2, -np.inf, 0], np.float32), np.array([6, np.inf, np.inf], np.float32)
    actions = Actions.of(gymnasium.spaces.Box(low, high), "here")
    assert actions.policy_space() == gymnasium.spaces.Box(
        np.array([-1, -np.inf, 0], np.float32), np.array([1, np.inf, np.inf], np.float32)
    )
    assert actions(np.array([[0.5, 50, 50], [-3, -50, -50]])).tolist() == [[4, 50, 50], [-2, -50, 0]]
    image = gymnasium.spaces.Box(0, 0.3, (2, 2), np.float32)
    taken = Actions.of(image, "here")(np.ones((5, 4)))
    assert taken.shape == (5, 2, 2)
    assert all(row in image for row in taken)


@pytest.mark.parametrize(
    ("name", "space", "said"),
    [
        ("action_space", gymnasium.spaces.MultiDiscrete([2, 2]), "gymnasium.wrappers.TransformAction"),
        ("action_space", gymnasium.spaces.Box(0, 255, (2,), np.uint8), "gymnasium.wrappers.TransformAction"),
        ("observation_space", gymnasium.spaces.Sequence(gymnasium.spaces.Discrete(2)), "TransformObservation"),
    ],
)
def test_spaces_that_cannot_be_used_name_the_wrapper(name: str, space: gymnasium.Space, said: str) -> None:
    kind = type("Odd", (gym_probes.Counted,), {name: space})
    with pytest.raises(InputError, match=rf"Odd: {name} is .*{said}"):
        GymnasiumTaskEnv(kind)
