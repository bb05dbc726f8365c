"""Rollouts of an environment whose every number is known."""

import gymnasium
import numpy as np
import pytest
import torch
from alone import rollout
from torch import Tensor

import maml_envs
from maml_envs import SUCCESS, Step, TaskEnv, random
from maml_rl.core.task_axis import TaskAxis
from maml_rl.core.tree import Params
from maml_rl.rl.data import Trajectory
from maml_rl.rl.policies import GaussianPolicy
from maml_rl.rl.rollout import Sampler, _waves


class Counter(TaskEnv):
    """Observes (task, seed, steps taken, last action); ends after ``task`` steps, or is cut after ``cut``."""

    def __init__(self, horizon: int = 6, cut: int = 99, max_batch: int | None = None, poison: str = "") -> None:
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        self.horizon, self.cut, self.max_batch, self.poison = horizon, cut, max_batch, poison
        self.largest = 0

    def sample_tasks(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randint(1, 9, (count, 1), generator=generator).float()

    def reset(self, tasks: Tensor, seeds: Tensor) -> Tensor:
        self.largest = max(self.largest, len(tasks))
        self.tasks, self.seeds, self.count = tasks[:, 0], (seeds % 1000).float(), 0
        return self.see(torch.zeros(len(tasks)))

    def see(self, action: Tensor) -> Tensor:
        return torch.stack([self.tasks, self.seeds, torch.full_like(self.tasks, self.count), action], -1)

    def step(self, action: Tensor) -> Step:
        self.count += 1
        reward = self.tasks * self.count + action[:, 0]
        observation = self.see(action[:, 0])
        if self.count == 3 and self.poison:
            target = reward if self.poison == "rewards" else observation
            target[self.tasks == 5] = torch.nan
        ended = self.tasks <= self.count
        return Step(observation, reward, ended, torch.full_like(ended, self.count >= self.cut), {})


POLICY = GaussianPolicy(4, 1, hidden=(3,))
TASKS = torch.tensor([[2.0], [9.0], [5.0]])


def stacked(tasks: int = 3, policy: GaussianPolicy = POLICY) -> Params:
    rows = [policy.init(torch.Generator().manual_seed(i)) for i in range(tasks)]
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def run(
    made: list[TaskEnv], episodes: int = 4, steps: int = 6, tasks: Tensor = TASKS
) -> tuple[Trajectory, Tensor, Tensor]:
    seeds = random.fold_in(torch.arange(3).unsqueeze(-1), torch.arange(episodes))
    noise = random.normal(random.fold_in(seeds, 0), (steps, 1)).float()
    return rollout(made, POLICY, stacked(), tasks, noise, seeds), noise, seeds


def test_masks_ends_and_final_observations() -> None:
    trajectory, _, seeds = run([Counter()])
    lengths = trajectory.mask.sum(-1)
    assert torch.equal(lengths, torch.tensor([[2] * 4, [6] * 4, [5] * 4]))
    assert not (trajectory.mask[..., 1:] & ~trajectory.mask[..., :-1]).any()
    assert torch.equal(trajectory.truncated, torch.tensor([[False] * 4, [True] * 4, [False] * 4]))
    assert torch.equal(trajectory.final_observations[..., 2], lengths.float())
    assert torch.equal(trajectory.observations[..., 2], torch.arange(6.0).expand(3, 4, 6))
    assert torch.equal(trajectory.observations[..., 0, 1], (seeds % 1000).float())


def test_an_environments_own_time_limit_is_truncation() -> None:
    trajectory, *_ = run([Counter(cut=3)])
    assert torch.equal(trajectory.mask.sum(-1), torch.tensor([[2] * 4, [3] * 4, [3] * 4]))
    assert torch.equal(trajectory.truncated[:, 0], torch.tensor([False, True, True]))


def test_each_task_acts_with_its_own_parameters() -> None:
    trajectory, noise, _ = run([Counter()])
    for k in range(3):
        own = {name: value[k] for name, value in stacked().items()}
        behaviour = POLICY(own, trajectory.observations[k])
        torch.testing.assert_close(trajectory.behaviour.mean[k], behaviour.mean)
        torch.testing.assert_close(trajectory.actions[k], behaviour.sample(noise[k]))
    torch.testing.assert_close(trajectory.observations[:, :, 1:, 3], trajectory.actions[:, :, :-1, 0])
    torch.testing.assert_close(
        trajectory.rewards, TASKS.unsqueeze(-1) * torch.arange(1.0, 7) + trajectory.actions[..., 0]
    )


@pytest.mark.parametrize(("copies", "max_batch"), [(2, None), (3, None), (5, None), (1, 4), (1, 1), (2, 5), (2, 7)])
def test_waves_and_copies_change_nothing(copies: int, max_batch: int | None) -> None:
    whole, *_ = run([Counter()])
    made = [Counter(max_batch=max_batch) for _ in range(copies)]
    parts, *_ = run(made)
    of_steps = (whole.observations, whole.actions, whole.rewards, *whole.behaviour)
    also = (parts.observations, parts.actions, parts.rewards, *parts.behaviour)
    for one, two in zip(of_steps, also, strict=True):
        torch.testing.assert_close(one[whole.mask], two[whole.mask])
    for one, two in zip(whole[3:6], parts[3:6], strict=True):
        torch.testing.assert_close(one, two)
    assert max(env.largest for env in made) <= (max_batch or 12)
    assert sum(env.largest > 0 for env in made) >= min(copies, 2)


@pytest.mark.parametrize("shape", [(20, 20), (1, 1), (7, 3), (3, 7)])
@pytest.mark.parametrize("copies", [1, 2, 3])
@pytest.mark.parametrize("max_batch", [None, 1, 5, 1000])
def test_waves_cover_everything_once(shape: tuple[int, int], copies: int, max_batch: int | None) -> None:
    covered = torch.zeros(shape)
    for rows, columns in _waves(*shape, copies, max_batch):
        assert covered[rows, columns].numel() <= (max_batch or 1e9)
        covered[rows, columns] += 1
    assert torch.equal(covered, torch.ones(shape))


@pytest.mark.parametrize("poison", ["rewards", "observations"])
def test_nan_is_named_by_quantity_task_episode_and_step(poison: str) -> None:
    step = 2 if poison == "rewards" else 3
    with pytest.raises(FloatingPointError, match=rf"{poison} of task 2, episode 0, step {step} "):
        run([Counter(poison=poison)])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_a_policy_makes_of_nan_is_named_before_what_follows_from_it(bad: float) -> None:
    params = stacked()
    params["1.bias"][1] = bad
    seeds = torch.zeros(3, 2, dtype=torch.int64)
    with pytest.raises(FloatingPointError, match=r"actions of task 11, episode 0, step 0 .* the policy's parameters"):
        Sampler([Counter()], POLICY).rollout(params, TASKS, torch.zeros(3, 2, 6, 1), seeds, TaskAxis(3, first=10))


def test_nan_after_the_end_is_no_error() -> None:
    seeds = torch.zeros(1, 2, dtype=torch.int64)
    params = {name: value[:1] for name, value in stacked().items()}
    env = Counter(poison="observations")
    env.cut = 2
    trajectory = rollout([env], POLICY, params, torch.tensor([[5.0]]), torch.zeros(1, 2, 6, 1), seeds)
    assert trajectory.rewards[trajectory.mask].isfinite().all()


class Solved(Counter):
    """Reports success at one step alone: ``late`` steps after the one that the task ends with, or at step ``at``."""

    def __init__(self, late: int | None = None, at: int | None = None, **options: int) -> None:
        super().__init__(**options)
        self.late, self.at = late, at

    def step(self, action: Tensor) -> Step:
        step = super().step(action)
        now = torch.full_like(self.tasks, self.count)
        solved = now == (self.tasks + self.late if self.late is not None else self.at)
        # not a number where there is nothing to report, as of a gymnasium environment that left it out
        return step._replace(info={SUCCESS: torch.where(solved, 1.0, 0.0 if self.count % 2 else torch.nan)})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"late": 0}, [True, False, True]),  # the last live step counts
        ({"late": 1}, [False, False, False]),  # what comes after the end does not
        ({"at": 1}, [True, True, True]),  # once is enough
        ({"at": 4}, [False, True, True]),
        ({"at": 6}, [False, True, False]),  # task 9 lives to the horizon
    ],
)
@pytest.mark.parametrize("max_batch", [None, 5])
def test_success_is_that_of_any_live_step(options: dict[str, int], expected: list[bool], max_batch: int | None) -> None:
    trajectory, *_ = run([Solved(**options, max_batch=max_batch)])
    assert trajectory.success is not None
    assert trajectory.success.tolist() == [[each] * 4 for each in expected]


def test_without_success_in_its_info_there_is_none() -> None:
    assert run([Counter(max_batch=5)])[0].success is None


def test_torch_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    run([Counter(), Counter()])
    assert torch.get_num_threads() == before


class InPlace(Counter):
    """Returns the same tensors at every step and writes into them."""

    def reset(self, tasks: Tensor, seeds: Tensor) -> Tensor:
        self.buffer = super().reset(tasks, seeds)
        self.rewards = torch.zeros(len(tasks))
        return self.buffer

    def step(self, action: Tensor) -> Step:
        step = super().step(action)
        self.buffer.copy_(step.observation)
        self.rewards.copy_(step.reward)
        return step._replace(observation=self.buffer, reward=self.rewards)


def test_an_environment_may_reuse_its_tensors() -> None:
    one, two = run([Counter()])[0], run([InPlace()])[0]
    assert torch.equal(one.observations, two.observations)
    assert torch.equal(one.rewards, two.rewards)


def half_cheetah(threads: int) -> Trajectory:
    made = [maml_envs.make("half-cheetah-dir") for _ in range(2)]
    for env in made:
        env._threads = threads
    policy = GaussianPolicy(17, 6)
    seeds = random.fold_in(torch.arange(3).unsqueeze(-1), torch.arange(4))
    noise = random.normal(seeds, (20, 6)).float()
    found = rollout(made, policy, stacked(3, policy), torch.tensor([[1.0], [-1.0], [1.0]]), noise, seeds)
    for env in made:
        env.close()
    return found


def test_same_bits_whatever_the_simulators_threads() -> None:
    one, two = half_cheetah(1), half_cheetah(2)
    assert torch.equal(one.observations, two.observations)
    assert torch.equal(one.rewards, two.rewards)


def test_permuting_tasks_permutes_trajectories() -> None:
    order = torch.tensor([2, 0, 1])
    seeds = random.fold_in(torch.arange(3).unsqueeze(-1), torch.arange(4))
    noise = random.normal(seeds, (6, 1)).float()
    one = rollout([Counter()], POLICY, stacked(), TASKS, noise, seeds)
    params = {name: value[order] for name, value in stacked().items()}
    two = rollout([Counter()], POLICY, params, TASKS[order], noise[order], seeds[order])
    torch.testing.assert_close(one.actions[order], two.actions)
    assert torch.equal(one.mask[order], two.mask)


@pytest.mark.parametrize("method", ["reset", "step"])
def test_a_floating_point_error_of_an_environments_own_is_no_news_of_ours(method: str) -> None:
    """Such as numpy's with ``seterr(all="raise")``: its traceback is wanted, and not a message without."""

    def fail(*_: object) -> None:
        raise FloatingPointError("divide by zero")

    env = Counter()
    setattr(env, method, fail)
    with pytest.raises(RuntimeError, match="Counter raised FloatingPointError: divide by zero") as caught:
        run([env])
    assert isinstance(caught.value.__cause__, FloatingPointError)


SHORT = torch.tensor([[2.0], [1.0], [4.0]])


def test_a_rollout_ends_when_all_its_episodes_have() -> None:
    env = Counter()
    trajectory, *_ = run([env], tasks=SHORT)
    assert env.count == 4
    assert trajectory.steps == 4
    assert trajectory.mask.sum(-1).tolist() == [[2] * 4, [1] * 4, [4] * 4]


def test_shorter_batches_are_padded_to_the_longest() -> None:
    whole, *_ = run([Counter()], tasks=SHORT)
    parts, *_ = run([Counter(max_batch=4)], tasks=SHORT)
    assert (parts.steps, parts.observations.shape) == (4, whole.observations.shape)
    assert torch.equal(parts.mask, whole.mask)
    assert (parts.rewards[1, :, 1:] == 0).all()
    assert torch.equal(parts.rewards[parts.mask], whole.rewards[whole.mask])
    assert torch.equal(parts.truncated, whole.truncated)
    assert not parts.truncated.any()
