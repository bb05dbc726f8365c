"""One episode in each environment of a batch, on one copy of the environment."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from maml_envs import SUCCESS, GraphKey, InputError, TaskEnv
from maml_envs.physics.cuda_graph import NewSegment, Recording, cuda_segments
from maml_rl.core.tree import Params, map_tensors
from maml_rl.rl.data import Trajectory
from maml_rl.rl.distributions import Distribution
from maml_rl.rl.policies import Policy


class Moment(NamedTuple):
    """One control step of (K, B) environments."""

    observation: Tensor  # (K, B, obs) before it
    action: Tensor  # (K, B, act)
    reward: Tensor  # (K, B)
    live: Tensor  # (K, B) bool: the episode had not ended before it
    behaviour: Distribution  # fields (K, B, act)
    after: Tensor  # (K, B, obs) the observation after it
    terminated: Tensor  # (K, B) bool: the task itself ended in it
    cut: Tensor  # (K, B) bool: cut short from outside in it, and not by the horizon
    success: Tensor | None  # (K, B) bool: solved in it; None where the environment reports none

    def goes_on(self) -> Tensor:
        """(K, B) bool: the episode has not ended after it."""
        return self.live & ~(self.terminated | self.cut)


@contextmanager
def _own_errors(env: TaskEnv) -> Iterator[None]:
    """Tell a FloatingPointError of an environment's code from ours, which are shown without where they were raised."""
    try:
        yield
    except FloatingPointError as error:
        raise RuntimeError(f"{type(env).__name__} raised FloatingPointError: {error}") from error


def begin(env: TaskEnv, params: Params, tasks: Tensor, seeds: Tensor) -> Tensor:
    """Start an episode from each of (K, B) seeds: first observations (K, B, obs), where the parameters are."""
    like = next(iter(params.values()))
    rows = tasks.repeat_interleave(seeds.shape[1], 0).to(env.device)
    with _own_errors(env):
        observation = env.reset(rows, seeds.flatten().to(env.device))
    return observation.to(like, copy=True).reshape(*seeds.shape, -1)


def control_step(
    env: TaskEnv, policy: Policy, params: Params, observation: Tensor, noise: Tensor, live: Tensor
) -> Moment:
    """Act in every environment once, with standard normal noise (K, B, act)."""
    shape = live.shape

    def taken(value: Tensor) -> Tensor:
        # A copy: an environment may write its next step into the tensor that it returned.
        return value.to(observation, copy=True).reshape(*shape, *value.shape[1:])

    def flag(value: Tensor) -> Tensor:
        return value.to(observation.device, torch.bool, copy=True).reshape(shape)

    behaviour = policy(params, observation)
    action = behaviour.sample(noise)
    with _own_errors(env):
        step = env.step(action.flatten(0, 1).to(env.device))
    after, terminated, cut = taken(step.observation), flag(step.terminated), flag(step.truncated)
    success = flag(step.info[SUCCESS] > 0) if SUCCESS in step.info else None
    return Moment(observation, action, taken(step.reward), live, behaviour, after, terminated, cut, success)


@torch.no_grad()
def act(env: TaskEnv, policy: Policy, params: Params, observation: Tensor, noise: Tensor) -> Iterator[Moment]:
    """Act in every environment after ``begin``, a control step at a time, with noise (K, B, T, act)."""
    live = torch.ones(noise.shape[:2], dtype=torch.bool, device=observation.device)
    for t in range(noise.shape[2]):
        moment = control_step(env, policy, params, observation, noise[:, :, t], live)
        yield moment
        observation, live = moment.after, moment.goes_on()
    env.raise_deferred()


class Sampled(NamedTuple):
    """What is kept of every control step, (T, K, B, ...)."""

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    mask: Tensor
    behaviour: Distribution


def kind_of(policy: Policy, params: Params, noise: Tensor) -> tuple[object, ...]:
    """What episodes must have in common to be played in the same memory."""
    return (policy, noise.shape, noise.dtype, *((name, value.shape, value.dtype) for name, value in params.items()))


class Episodes:
    """Memory for a batch of episodes, and the control step that fills it.

    What the step follows from, its own number too, is in this memory, and it does the same operations on it every time:
    a GPU records it once and replays it for all episodes of this shape. What ``play`` returns is a view of it.

    Args:
        policy: The policy.
        params: Stacked parameters like those of the episodes.
        observation: (K, B, obs), like their first.
        noise: (K, B, T, act), like theirs.
        new_segment: Records a part of a step; None to take every step anew.
    """

    def __init__(
        self,
        policy: Policy,
        params: Params,
        observation: Tensor,
        noise: Tensor,
        new_segment: NewSegment | None = None,
    ) -> None:
        tasks, episodes, horizon, width = noise.shape
        self.kind = kind_of(policy, params, noise)
        self._policy, self._new_segment = policy, new_segment
        self._params = {name: value.new_empty(value.shape) for name, value in params.items()}
        self._noise = noise.new_empty(horizon, tasks, episodes, width)
        self._step_number = torch.zeros(1, dtype=torch.int64, device=noise.device)
        self._observation, self._final = torch.empty_like(observation), torch.empty_like(observation)
        self._live = torch.ones(tasks, episodes, dtype=torch.bool, device=noise.device)
        self._truncated = torch.zeros_like(self._live)
        self._success: Tensor | None = None
        self._sampled: Sampled | None = None
        self._recording: Recording | None = None

    @torch.no_grad()
    def play(self, env: TaskEnv, params: Params, observation: Tensor, noise: Tensor) -> Trajectory:
        """Act in every environment from its first observation on, until the horizon."""
        self._begin(params, observation, noise)
        for number in range(len(self._noise)):
            self._advance(env, number)
        env.raise_deferred()
        if self._sampled is None:
            raise ValueError(f"noise for {len(self._noise)} steps: an episode has one or more")
        observations, actions, rewards, mask, behaviour = map_tensors(lambda x: x.movedim(0, 2), self._sampled)
        cut_short = self._truncated | self._live
        return Trajectory(observations, actions, rewards, mask, cut_short, self._final, behaviour, self._success)

    def _begin(self, params: Params, observation: Tensor, noise: Tensor) -> None:
        for name, value in params.items():
            self._params[name].copy_(value)
        self._noise.copy_(noise.movedim(2, 0))
        self._observation.copy_(observation)
        self._final.copy_(observation)
        self._step_number.zero_()
        self._live.fill_(True)
        self._truncated.fill_(False)
        if self._success is not None:
            self._success.fill_(False)

    def _advance(self, env: TaskEnv, number: int) -> None:
        """Take a step, or replay it: the first of all makes what the recording needs."""
        if self._new_segment is not None and self._recording is None and self._sampled is not None:
            try:
                self._recording = Recording(self._new_segment, lambda: self._step(env, number))
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                self._new_segment = None
                said = (
                    f"a control step of {type(env).__name__} cannot be recorded, and is taken anew every time: {error}"
                )
                warnings.warn(said, RuntimeWarning, stacklevel=2)
        if self._recording is None:
            self._step(env, number)
        else:
            self._recording.replay()

    def _step(self, env: TaskEnv, number: int) -> None:
        noise = self._noise.index_select(0, self._step_number).squeeze(0)
        moment = control_step(env, self._policy, self._params, self._observation, noise, self._live)
        sampled = Sampled(moment.observation, moment.action, moment.reward, moment.live, moment.behaviour)
        if self._sampled is None:
            self._sampled = map_tensors(lambda x: x.new_empty(len(self._noise), *x.shape), sampled)
            self._success = None if moment.success is None else torch.zeros_like(moment.success)
        map_tensors(lambda all_, x: all_.index_copy_(0, self._step_number, x.unsqueeze(0)), self._sampled, sampled)
        self._final.copy_(torch.where(self._live.unsqueeze(-1), moment.after, self._final))
        self._truncated |= self._live & moment.cut & ~moment.terminated
        self._note_success(moment, number)
        self._live.copy_(moment.goes_on())
        self._observation.copy_(moment.after)
        self._step_number += 1

    def _note_success(self, moment: Moment, number: int) -> None:
        if (moment.success is None) != (self._success is None):
            has, had = ("lacks", "had") if moment.success is None else ("has", "lacked")
            raise InputError(
                f"the info of step {number} (counted from 0) {has} {SUCCESS!r}, which the steps before {had}: give "
                "it at every step, 0 where the task is not solved"
            )
        if self._success is not None and moment.success is not None:
            self._success |= self._live & moment.success


_KEPT: WeakKeyDictionary[GraphKey, Episodes] = WeakKeyDictionary()
"""The last episodes in each environment's memory."""


def recorder(device: torch.device) -> NewSegment | None:
    """What records a control step on a device: a GPU alone can."""
    return cuda_segments(device) if device.type == "cuda" else None


def play(env: TaskEnv, policy: Policy, params: Params, tasks: Tensor, noise: Tensor, seeds: Tensor) -> Trajectory:
    """One episode in each of (K, B) environments; the next call may overwrite what this one returns."""
    first = begin(env, params, tasks, seeds)
    memory = env.graph_key
    if memory is None:
        return Episodes(policy, params, first, noise).play(env, params, first, noise)
    episodes = _KEPT.get(memory)
    if episodes is None or episodes.kind != kind_of(policy, params, noise):
        together = env.device.type == noise.device.type
        episodes = _KEPT[memory] = Episodes(policy, params, first, noise, recorder(noise.device) if together else None)
    return episodes.play(env, params, first, noise)
