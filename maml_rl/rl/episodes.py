"""One episode in each environment of a batch, on one copy of the environment."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from maml_envs import SUCCESS, InputError, TaskEnv
from maml_envs.physics.cuda_graph import NewSegment, cuda_segments
from maml_rl.core.tree import Params, map_tensors
from maml_rl.rl.data import Trajectory
from maml_rl.rl.distributions import Distribution
from maml_rl.rl.policies import Policy
from maml_rl.rl.scan import Changed, Scan


class Carry(NamedTuple):
    """State that one control step hands to the next, (K, B, ...)."""

    observation: Tensor
    live: Tensor  # bool: the episode has not ended
    final: Tensor  # the last observation of the episode so far
    truncated: Tensor  # bool: cut short from outside, and not by the horizon


class Transition(NamedTuple):
    """One control step, (K, B, ...)."""

    observation: Tensor  # before it
    action: Tensor
    reward: Tensor
    live: Tensor  # bool: the episode had not ended before it
    behaviour: Distribution
    success: Tensor | None  # bool: solved in it; None where the environment reports none


class Constants(NamedTuple):
    """Inputs that are the same in every control step."""

    params: Params  # stacked, one set a task
    task: Tensor | None  # (K, B, numbers of a task) that a policy observes which is told the task


@contextmanager
def _own_errors(env: TaskEnv) -> Iterator[None]:
    """Tell a FloatingPointError of an environment's code from ours, which are shown without where they were raised."""
    try:
        yield
    except FloatingPointError as error:
        raise RuntimeError(f"{type(env).__name__} raised FloatingPointError: {error}") from error


def with_task(observation: Tensor, task: Tensor | None) -> Tensor:
    """Join observations (..., obs) with the numbers of their tasks (..., n), if there are any to observe."""
    return observation if task is None else torch.cat([observation, task.to(observation)], -1)


def begin(env: TaskEnv, params: Params, tasks: Tensor, seeds: Tensor, observe_task: bool) -> tuple[Constants, Carry]:
    """Start an episode from each of (K, B) seeds, where the parameters are.

    Args:
        env: The environment.
        params: Stacked parameters, one set a task.
        tasks: (K, *task_shape).
        seeds: (K, B) int64.
        observe_task: Join every observation with the numbers of the task.
    """
    like, shape = next(iter(params.values())), seeds.shape
    rows = tasks.repeat_interleave(shape[1], 0)
    # Copies: an environment may write into what it is given.
    task = rows.to(like, copy=True).reshape(*shape, -1) if observe_task else None
    with _own_errors(env):
        first = env.reset(rows.to(env.device), seeds.flatten().to(env.device, copy=True))
    observation = with_task(first.to(like, copy=True).reshape(*shape, -1), task)
    live = torch.ones(shape, dtype=torch.bool, device=like.device)
    return Constants(params, task), Carry(observation, live, observation, ~live)


def control_step(
    env: TaskEnv, policy: Policy, constants: Constants, carry: Carry, noise: Tensor
) -> tuple[Carry, Transition]:
    """Act in every environment once, with standard normal noise (K, B, act)."""
    params, task = constants
    observation, live, final, cut = carry

    def shaped(value: Tensor) -> Tensor:
        # A copy: an environment may write its next step into the tensor that it returned.
        return value.to(observation, copy=True).reshape(*live.shape, *value.shape[1:])

    def flag(value: Tensor) -> Tensor:
        return value.to(live.device, torch.bool, copy=True).reshape(live.shape)

    behaviour = policy(params, observation)
    action = behaviour.sample(noise)
    with _own_errors(env):
        step = env.step(policy.control(action).flatten(0, 1).to(env.device))
    after = with_task(shaped(step.observation), task)
    terminated, truncated = flag(step.terminated), flag(step.truncated)
    success = flag(step.info[SUCCESS] > 0) if SUCCESS in step.info else None
    transition = Transition(observation, action, shaped(step.reward), live, behaviour, success)
    following = Carry(
        after,
        live & ~(terminated | truncated),
        torch.where(live.unsqueeze(-1), after, final),
        cut | (live & truncated & ~terminated),
    )
    return following, transition


def all_ended(carry: Carry) -> bool:
    """Tell whether no episode goes on."""
    return not carry.live.any()


def recorder(device: torch.device) -> NewSegment | None:
    """Return what records a control step on a device: a GPU alone can."""
    return cuda_segments(device) if device.type == "cuda" else None


class Episodes:
    """Plays episodes in one copy of an environment, in memory that is kept while the environment keeps its own.

    Args:
        env: The environment.
        policy: Acts in it.
        observe_task: Whether the policy observes the task.
    """

    def __init__(self, env: TaskEnv, policy: Policy, observe_task: bool) -> None:
        self.env, self._policy, self._observe_task = env, policy, observe_task
        self._scan: Scan | None = None
        self._memory: object = None

    def play(self, params: Params, tasks: Tensor, noise: Tensor, seeds: Tensor) -> Trajectory:
        """Play an episode in each of (K, B) environments, on the CPU until all have ended.

        The next call may overwrite what this one returns.

        Args:
            params: Stacked parameters, one set a task.
            tasks: (K, *task_shape).
            noise: (K, B, T, act) standard normal.
            seeds: (K, B) int64, for the start states.
        """
        if not noise.shape[2]:
            raise ValueError("noise for 0 steps: an episode has one or more")
        constants, carry = begin(self.env, params, tasks, seeds, self._observe_task)
        inputs = noise.movedim(2, 0)
        try:
            end, steps = self._scan_for(constants, inputs)(constants, carry, inputs)
        except Changed as changed:
            has, had = ("lacks", "had") if changed.fewer else ("has", "lacked")
            raise InputError(
                f"the info of step {changed.number} (counted from 0) {has} {SUCCESS!r}, which the steps before {had}: "
                "give it at every step, 0 where the task is not solved"
            ) from None
        self.env.raise_deferred()
        observations, actions, rewards, mask, behaviour, success = map_tensors(lambda x: x.movedim(0, 2), steps)
        return Trajectory(
            observations,
            actions,
            rewards,
            mask,
            end.truncated | end.live,
            end.final,
            behaviour,
            None if success is None else (success & mask).any(-1),
        )

    def _scan_for(self, constants: Constants, noise: Tensor) -> Scan:
        memory = self.env.graph_key
        if self._scan is None or memory is None or memory is not self._memory or not self._scan.fits(constants, noise):
            together = memory is not None and self.env.device.type == noise.device.type
            segment = recorder(noise.device) if together else None
            step = partial(control_step, self.env, self._policy)
            # To look on a GPU would be to wait for it.
            done = all_ended if self.env.device.type == noise.device.type == "cpu" else None
            self._scan = Scan(step, segment, f"a control step of {type(self.env).__name__}", done)
            self._memory = memory
        return self._scan
