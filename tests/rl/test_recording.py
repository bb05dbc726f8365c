"""A control step that is recorded once and replayed is the step itself; on a CPU, by writing its operations down."""

import gc
import math
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from alone import meta_iteration
from op_log import logged
from probes import Numbered
from robots import Make
from tiny import tiny
from torch import Tensor

from maml_envs import GraphKey, InputError, Step, TaskEnv, random
from maml_envs.physics.cuda_graph import Recording, cuda_segments
from maml_envs.robots.ant import AntDirection
from maml_envs.robots.half_cheetah import HalfCheetahDirection, HalfCheetahVelocity
from maml_envs.robots.hopper import HopperRandomDynamics
from maml_rl.core.task_axis import TaskAxis
from maml_rl.core.tree import Params, map_tensors
from maml_rl.rl import episodes
from maml_rl.rl.data import Trajectory
from maml_rl.rl.learner import build
from maml_rl.rl.policies import GaussianPolicy
from maml_rl.rl.rollout import Sampler
from maml_rl.rl.scan import Scan

EPISODES, STEPS = 3, 6


class Walk(Numbered):
    """Pure torch, with memory of its own: a walk that ends beyond 1, with success above 0.5."""

    horizon = STEPS

    def __init__(self) -> None:
        super().__init__()
        self.place, self._key = torch.zeros(0), GraphKey()

    @property
    def graph_key(self) -> GraphKey:
        return self._key

    def reset(self, tasks: Tensor, seeds: Tensor) -> Tensor:
        if len(self.place) != len(seeds):
            self.place, self.task, self._key = torch.zeros(len(seeds)), tasks[:, 0].clone(), GraphKey()
        self.task.copy_(tasks[:, 0])
        self.place.copy_(random.uniform(seeds, ()))
        return self.place.unsqueeze(1)

    def step(self, action: Tensor) -> Step:
        self.place += 0.3 * action[:, 0]
        success = (self.place > 0.5).float()
        seen, reward = self.place.unsqueeze(1), self.place * (1 + self.task)
        return Step(seen, reward, self.place > 1, self.place < -1, {"success": success})


class CountsInPython(Walk):
    """Breaks its promise: the reward depends on a number that is not in its memory."""

    def step(self, action: Tensor) -> Step:
        self.now += 1
        return super().step(action)._replace(reward=self.place + self.now)


class Looks(Walk):
    """Breaks its promise: it looks at a number."""

    def step(self, action: Tensor) -> Step:
        step = super().step(action)
        return step if self.now == 0 or float(self.place.max()) < 9 else super().step(action)

    def reset(self, tasks: Tensor, seeds: Tensor) -> Tensor:
        self.now = 1
        return super().reset(tasks, seeds)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Recording]:
    """Records control steps on the CPU too, and collects the recordings."""
    made: list[Recording] = []
    start = Recording.__init__

    def note(self: Recording, *arguments: object) -> None:
        made.append(self)
        start(self, *arguments)

    monkeypatch.setattr(Recording, "__init__", note)
    monkeypatch.setattr(episodes, "recorder", lambda device: logged)
    return made


def sampler_of(env: TaskEnv, observe_task: bool = False) -> Sampler:
    observed = env.observation_space.shape[0] + observe_task * env.held_out_tasks(1).numel()
    return Sampler([env], GaussianPolicy(observed, env.action_width, (5,)), observe_task)


def problem(sampler: Sampler, seed: int, tasks: int = 2) -> tuple[Params, Tensor, Tensor, Tensor, TaskAxis]:
    (env,) = sampler.envs
    rows = [sampler.policy.init(torch.Generator().manual_seed(seed + k)) for k in range(tasks)]
    params = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    seeds = random.fold_in(torch.arange(tasks).unsqueeze(-1) + 100 * seed, torch.arange(EPISODES))
    noise = random.normal(random.fold_in(seeds, 0), (STEPS, env.action_width)).float()
    return params, env.sample_tasks(tasks, torch.Generator().manual_seed(seed)), noise, seeds, TaskAxis(tasks)


def played(sampler: Sampler, seed: int, tasks: int = 2) -> Trajectory:
    return sampler.rollout(*problem(sampler, seed, tasks))


def same(one: Trajectory, other: Trajectory) -> bool:
    found: list[bool] = []
    map_tensors(lambda a, b: found.append(torch.equal(a, b)) or a, one, other)
    assert len(found) >= 8
    return all(found)


ROBOTS: dict[str, Callable[[Make], Sampler]] = {
    "half-cheetah": lambda make: sampler_of(make(HalfCheetahDirection)),
    "half-cheetah-vel of finn2017": lambda make: sampler_of(make(HalfCheetahVelocity, "finn2017")),
    "ant": lambda make: sampler_of(make(AntDirection)),
    "ant of finn2017": lambda make: sampler_of(make(AntDirection, "finn2017")),
    "hopper with random dynamics": lambda make: sampler_of(make(HopperRandomDynamics)),
    "told": lambda make: sampler_of(make(HalfCheetahVelocity), observe_task=True),
}


@pytest.mark.parametrize("name", ROBOTS)
def test_a_replayed_step_of_a_robot_is_the_step(name: str, on_warp: Make, recorded: list[Recording]) -> None:
    """For other parameters, tasks, noise and start states than it was recorded with, and after other shapes."""
    sampler = ROBOTS[name](on_warp)
    found = {(seed, tasks): played(sampler, seed, tasks) for seed, tasks in ((1, 2), (2, 2), (3, 2), (2, 3), (1, 2))}
    assert 3 <= len(recorded) <= 4  # one for each change of the shape; random dynamics may vary in more than at first
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(episodes, "recorder", lambda device: None)
        fresh = ROBOTS[name](on_warp)
        for (seed, tasks), trajectory in found.items():
            assert trajectory.observations.isfinite().all()
            assert same(trajectory, played(fresh, seed, tasks)), (seed, tasks)


def test_a_replayed_step_of_torch_alone_is_the_step(recorded: list[Recording]) -> None:
    sampler = sampler_of(Walk())
    found = [played(sampler, seed) for seed in (1, 2, 3)]
    assert len(recorded) == 1
    assert all(not trajectory.mask.all() and trajectory.success.any() for trajectory in found)
    assert any(trajectory.truncated.any() and not trajectory.truncated.all() for trajectory in found)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(episodes, "recorder", lambda device: None)
        for seed, trajectory in zip((1, 2, 3), found, strict=True):
            assert same(trajectory, played(sampler_of(Walk()), seed))


def test_an_environment_that_breaks_its_promise_shows(
    recorded: list[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that these tests would find it in ours."""
    wrong = played(sampler_of(CountsInPython()), 1)
    with pytest.warns(
        RuntimeWarning, match="step of Looks cannot be recorded, and is taken anew .*_local_scalar_dense"
    ):
        looked = played(sampler_of(Looks()), 1)
    monkeypatch.setattr(episodes, "recorder", lambda device: None)
    right = played(sampler_of(CountsInPython()), 1)
    assert torch.equal(right.observations, wrong.observations)
    assert not torch.equal(right.rewards, wrong.rewards)
    assert getattr(Recording._here, "recording", None) is None
    assert same(looked, played(sampler_of(Looks()), 1))


def test_what_is_returned_is_not_overwritten_by_the_next_episodes(recorded: list[Recording]) -> None:
    env = Walk()
    sampler = sampler_of(env)
    first = played(sampler, 1)
    copy = map_tensors(torch.clone, first)
    played(sampler, 2)
    assert same(first, copy)
    env.max_batch = 2  # several batches in turn, each in the memory of the one before
    one, whole = played(sampler, 1, 3), played(sampler_of(Walk()), 1, 3)
    assert torch.equal(one.mask, whole.mask)
    torch.testing.assert_close(one.observations[one.mask], whole.observations[one.mask], rtol=1e-6, atol=1e-6)


def test_another_policy_is_recorded_anew(recorded: list[Recording]) -> None:
    sampler = sampler_of(Walk())
    params, tasks, noise, *rest = problem(sampler, 1)
    first = sampler.rollout(params, tasks, noise, *rest)
    narrow = GaussianPolicy(1, 1, (5,), activation="relu")
    relu = Sampler(sampler.envs, narrow).rollout(params, tasks, noise, *rest)
    assert len(recorded) == 2
    assert same(relu, Sampler([Walk()], narrow).rollout(params, tasks, noise, *rest))
    assert not torch.equal(relu.actions, first.actions)
    assert same(first, sampler.rollout(params, tasks, noise, *rest))  # and in the same environment the one before
    double = sampler.rollout(*map_tensors(torch.Tensor.double, [params]), tasks, noise.double(), *rest)
    assert double.observations.dtype == torch.float64


def test_memory_is_freed_with_the_sampler(on_warp: Make, recorded: list[Recording]) -> None:
    sampler = sampler_of(on_warp(HalfCheetahDirection))
    played(sampler, 1)
    kept, recording = weakref.ref(sampler._episodes[0]._scan), weakref.ref(recorded.pop())
    assert None not in (kept(), recording())
    sampler.envs[0].close()
    del sampler
    gc.collect()
    assert (kept(), recording()) == (None, None)


def test_what_torch_cannot_record_keeps_its_place() -> None:
    value, seen = torch.zeros(2), []

    def step() -> None:
        value.add_(1)
        Recording.between(lambda: seen.append(value.tolist()))
        value.mul_(2)
        Recording.between(lambda: seen.append(value.tolist()))
        value.sub_(1)

    recording = Recording(logged, step)
    assert (value.tolist(), seen) == ([0, 0], [])
    recording.replay()
    recording.replay()
    assert value.tolist() == [3, 3]
    assert seen == [[1, 1], [2, 2], [2, 2], [4, 4]]
    step()
    assert value.tolist() == [7, 7]


def test_what_another_thread_launches_is_not_recorded() -> None:
    seen: list[str] = []

    def step() -> None:
        other = threading.Thread(target=Recording.between, args=(lambda: seen.append("now"),))
        other.start()
        other.join()
        torch.zeros(1).add_(1)
        Recording.between(lambda: seen.append("replayed"))
        torch.zeros(1).add_(1)

    recording = Recording(logged, step)
    assert seen == ["now"]
    recording.replay()
    assert seen == ["now", "replayed"]


class OwnStep(HalfCheetahDirection):
    def step(self, action: Tensor) -> Step:
        return super().step(action)


def test_a_robot_with_a_step_of_its_own_promises_nothing(on_warp: Make, recorded: list[Recording]) -> None:
    env = on_warp(OwnStep)
    played(sampler_of(env), 1)
    assert (env.graph_key, recorded) == (None, [])


def test_parameters_that_are_trained_are_no_part_of_the_recording(recorded: list[Recording]) -> None:
    sampler = sampler_of(Walk())
    params, *data = problem(sampler, 1)
    leaves = {name: value.requires_grad_() for name, value in params.items()}
    for _ in range(2):
        assert not sampler.rollout(leaves, *data).observations.requires_grad
    assert len(recorded) == 1


def test_a_function_that_fails_leaves_no_recording_behind() -> None:
    with pytest.raises(ZeroDivisionError):
        Recording(logged, lambda: print(1 / int("0")))
    seen: list[int] = []
    Recording.between(lambda: seen.append(1))
    assert seen == [1]


def test_success_in_some_steps_only_is_named_where_steps_are_recorded(recorded: list[Recording]) -> None:
    class Sometimes(Walk):
        def step(self, action: Tensor) -> Step:
            self.now += 1
            step = super().step(action)
            return step if self.now < 2 else step._replace(info={})

    with pytest.raises(InputError, match=r"the info of step 1 \(counted from 0\) lacks 'success'"):
        played(sampler_of(Sometimes()), 1)


def test_training_of_several_seeds_is_the_same_with_recorded_steps(
    recorded: list[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(env="test_recording:Walk", tasks=2, episodes=3, horizon=None)
    rows = []
    for record in (True, False):
        if not record:
            monkeypatch.setattr(episodes, "recorder", lambda device: None)
        learner = build(config)
        learners = [learner, learner.with_seed(7)]
        starts = [(each.initial_params(), {}) for each in learners]
        for iteration in range(3):
            found = meta_iteration(learners, starts, iteration)
            starts = [(theta, state) for theta, state, _ in found]
        rows.append([{k: v for k, v in row.items() if not k.startswith("seconds")} for *_, row in found])
    assert rows[0] == rows[1]
    assert all(math.isfinite(value) for row in rows[0] for value in row.values())
    assert len(recorded) == len(set(map(id, recorded))) == 1


def test_a_step_that_cannot_be_recorded_is_named_by_what_broke_it() -> None:
    """CUDA's end of a capture raises over the error of the operation that it refused."""

    @contextmanager
    def segment() -> Iterator[Callable[[], None]]:
        try:
            yield lambda: None
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")

    def step(constants: None, carry: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if recording:
            raise RuntimeError("operation not permitted when stream is capturing: .item()")
        recording.append(True)
        return carry, value

    recording: list[bool] = []
    scan = Scan(step, segment, "a control step of Mine", None)
    said = r"Mine cannot be recorded, and is taken anew .*: operation not permitted"
    with pytest.warns(RuntimeWarning, match=said), pytest.raises(RuntimeError, match="not permitted"):
        scan(None, torch.zeros(1), torch.zeros(3, 1))


def test_each_recording_has_a_stream_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: made.append(object()) or made[-1])
    for _ in range(2):
        cuda_segments(torch.device("cuda"))
    assert len(set(map(id, made))) == 2
