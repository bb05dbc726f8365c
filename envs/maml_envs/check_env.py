"""What would break or spoil training with an environment, and how to mend it, for ``maml-rl check-env``."""

import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from maml_envs import random
from maml_envs.contract import ContractError, check_contract
from maml_envs.errors import InputError, WorkerError
from maml_envs.task_env import TaskEnv

BATCH = 8
MOST_STEPS = 1000
COMPARED = 10
"""Steps in which a batch of another size may differ by rounding alone: afterwards chaos has its way."""


class Finding(NamedTuple):
    """One line of the report."""

    level: Literal["ok", "warning", "error"]  # error: training would break, or learn something else
    subject: str
    said: str
    fix: str = ""


class Episodes(NamedTuple):
    """What a batch of episodes gave, until the last has ended."""

    observations: Tensor  # (T + 1, batch, obs)
    rewards: Tensor  # (T, batch)
    live: Tensor  # (T, batch) bool: the step was one of the episode
    terminated: Tensor  # (batch,) bool
    truncated: Tensor  # (batch,) bool
    seconds: float


def actions(env: TaskEnv, steps: int, batch: int) -> Tensor:
    """What a policy before training does, (steps, batch, act): standard normal numbers, or one-hot rows."""
    drawn = random.normal(random.fold_in(torch.arange(batch), 7), (steps, env.action_width)).float().transpose(0, 1)
    if env.discrete:
        drawn = torch.nn.functional.one_hot(drawn.argmax(-1), env.action_width).float()
    return drawn.to(env.device)


def play(env: TaskEnv, tasks: Tensor, seeds: Tensor, chosen: Tensor) -> Episodes:
    """Episodes with given actions (steps, batch, act)."""
    observations = [env.reset(tasks.to(env.device), seeds.to(env.device)).cpu().clone()]
    ended = torch.zeros(2, len(seeds), dtype=torch.bool)
    rewards, live = [], []
    began = time.perf_counter()
    for action in chosen:
        live.append(~ended.any(0))
        step = env.step(action)
        ended = torch.where(live[-1], torch.stack((step.terminated.cpu(), step.truncated.cpu())), ended)
        observations.append(step.observation.cpu().clone())
        rewards.append(step.reward.cpu().clone())
        if ended.any(0).all():
            break
    seconds = time.perf_counter() - began
    terminated, truncated = ended
    stacked = (torch.stack(observations), torch.stack(rewards), torch.stack(live))
    return Episodes(*stacked, terminated, truncated, seconds)


def _first_difference(one: Episodes, other: Episodes, steps: int | None = None, rounding: float = 0.0) -> str | None:
    """Where two batches that should be the same part: in words, or None."""
    if not torch.allclose(one.observations[0], other.observations[0], rounding, rounding, equal_nan=True):
        return "the first observation differs"
    none = torch.zeros_like(one.live[0])
    for t in range(min(max(len(one.live), len(other.live)), steps or MOST_STEPS)):
        live, others = (each.live[t] if t < len(each.live) else none for each in (one, other))
        if not torch.equal(live, others):
            return f"at step {t} (counted from 0) other episodes have ended"
        if not live.any():
            break
        for name, a, b in (
            ("reward", one.rewards[t], other.rewards[t]),
            ("observation", one.observations[t + 1], other.observations[t + 1]),
        ):
            if not torch.allclose(a[live], b[live], rounding, rounding, equal_nan=True):
                return f"the {name} of step {t} (counted from 0) differs"
    return None


def _row(episodes: Episodes, i: int) -> Episodes:
    one = slice(i, i + 1)
    seen, rewards, live = (part[:, one] for part in (episodes.observations, episodes.rewards, episodes.live))
    return Episodes(seen, rewards, live, episodes.terminated[one], episodes.truncated[one], episodes.seconds)


def _repeatable(make: Callable[[], TaskEnv], tasks: Tensor, chosen: Tensor) -> Iterator[Finding]:
    """Same seed and task, same episode: in another copy, after other tasks, and beside other neighbours."""
    seeds = random.fold_in(torch.arange(len(tasks)), 1)
    with closing(make()) as copy:
        first = play(copy, tasks, seeds, chosen)
    with closing(make()) as fresh:
        parts = _first_difference(first, play(fresh, tasks, seeds, chosen))
        fix = "Draw every random number from the seeds given to reset (in a gymnasium.Env: self.np_random, after "
        fix += "super().reset(seed=seed))"
        yield (
            Finding("error", "determinism", f"the same seeds, tasks and actions give another episode: {parts}", fix)
            if parts
            else Finding("ok", "determinism", "same seeds, tasks and actions: same starts, observations and rewards")
        )
        if parts:
            return
        play(fresh, tasks.flip(0), random.fold_in(seeds, 2), chosen[:3])
        parts = _first_difference(first, play(fresh, tasks, seeds, chosen))
        fix = "Set everything that an episode changes in reset, and all of the task in set_task"
        yield (
            Finding("error", "independence", f"an episode depends on those before it: {parts}", fix)
            if parts
            else Finding("ok", "independence", "an episode does not depend on those before it")
        )
        if parts:
            return
        alone = [play(fresh, tasks[i : i + 1], seeds[i : i + 1], chosen[:, i : i + 1]) for i in range(len(tasks))]
        pairs = [(i, _first_difference(_row(first, i), one, COMPARED, 1e-4)) for i, one in enumerate(alone)]
        found = [f"environment {i}: {parts}" for i, parts in pairs if parts]
        fix = "Keep the task and the state in rows of the batch or in self, not in the class or the module"
        yield (
            Finding("error", "neighbours", f"an episode alone is another one than in a batch; {found[0]}", fix)
            if found
            else Finding("ok", "neighbours", "an episode does not depend on what else is in the batch")
        )


def _tasks(env: TaskEnv, tasks: Tensor, chosen: Tensor) -> Iterator[Finding]:
    shape = tuple(tasks.shape[1:])
    if bool((tasks == tasks[0]).all()):
        yield Finding("warning", "tasks", f"{len(tasks)} drawn tasks are all {tasks[0].tolist()}", "Let tasks differ")
        return
    one_seed, action = torch.zeros(len(tasks), dtype=torch.int64), chosen[:, :1].expand_as(chosen)
    seen = play(env, tasks, one_seed, action)
    if not any(_first_difference(_row(seen, 0), _row(seen, i)) for i in range(1, len(tasks))):
        fix = "Use the task in the reward or the dynamics; ignore this if it shows only to a better policy"
        yield Finding(
            "warning", "tasks", "different tasks give the same observations and rewards to random actions", fix
        )
    else:
        yield Finding("ok", "tasks", f"rows of shape {shape}; they change what random actions see or earn")
    held_out = env.held_out_tasks(len(tasks))
    fixed = held_out.shape == tasks.shape and torch.equal(held_out, env.held_out_tasks(len(tasks)))
    yield (
        Finding("ok", "held-out tasks", "fixed")
        if fixed
        else Finding("error", "held-out tasks", "two calls differ, or the shape is another", "Draw from a fixed seed")
    )


def _numbers(env: TaskEnv, seen: Episodes) -> Iterator[Finding]:
    later = torch.cat((torch.ones_like(seen.live[:1]), seen.live))
    observations, rewards = seen.observations[later], seen.rewards[seen.live]
    for name, value in (("observations", observations), ("rewards", rewards)):
        if not bool(value.isfinite().all()):
            yield Finding("error", name, "NaN or infinity under random actions", "End or clip before it diverges")
        else:
            yield Finding("ok", name, f"finite, from {float(value.min()):.3g} to {float(value.max()):.3g}")
    space = env.observation_space
    low, high = torch.from_numpy(space.low), torch.from_numpy(space.high)
    outside = ((observations < low) | (observations > high)).any(0).nonzero().flatten().tolist()
    if outside:
        fix = "Widen observation_space, or clip"
        yield Finding("warning", "observation space", f"numbers {outside} of the observation leave their bounds", fix)


def _endings(env: TaskEnv, seen: Episodes) -> Iterator[Finding]:
    lengths, both = seen.live.sum(0), seen.terminated & seen.truncated
    ended = int((seen.terminated & ~both).sum()), int(seen.truncated.sum())
    said = f"of {len(lengths)} episodes of random actions {ended[0]} terminated, {ended[1]} were truncated"
    said += f", after {int(lengths.min())} to {int(lengths.max())} steps (horizon {env.horizon})"
    same_length = len(lengths) > 1 and bool((lengths == lengths[0]).all())
    if bool(both.any()):
        fix = "terminated: the task ended; truncated: cut from outside. Give one of them"
        yield Finding("warning", "endings", f"both flags at once in {int(both.sum())} episodes", fix)
    elif bool(seen.terminated.all()) and same_length and int(lengths[0]) > 1:
        fix = "If it is a time limit, return truncated instead: a time limit ends the episode, not its value"
        yield Finding("warning", "endings", f"every episode terminated after exactly {int(lengths[0])} steps", fix)
    elif int(lengths.max()) == 1 and env.horizon > 1:
        yield Finding("warning", "endings", "every episode ends in its first step", "Check what ends an episode")
    else:
        yield Finding("ok", "endings", said)


def examine(make: Callable[[], TaskEnv]) -> Iterator[Finding]:
    """What there is to say about an environment, the important first.

    Args:
        make: Makes it; called again for a fresh copy.
    """
    try:
        env = make()
        check_contract(env)
    except ContractError as error:
        yield Finding("error", "contract", str(error))
        return
    except InputError:
        raise
    except Exception as error:
        yield Finding("error", "contract", str(error) if isinstance(error, WorkerError) else traceback.format_exc())
        return
    try:
        width = env.observation_space.shape[0]
        yield Finding("ok", "contract", f"observation ({width},), action {env.action_space}, horizon {env.horizon}")
        batch = min(BATCH, env.max_batch or BATCH)
        tasks = env.sample_tasks(batch, torch.Generator().manual_seed(0))
        chosen = actions(env, min(env.horizon, MOST_STEPS), batch)
        yield from _repeatable(make, tasks, chosen[: 10 * COMPARED])
        yield from _tasks(env, tasks, chosen[: 10 * COMPARED])
        seen = play(env, tasks, random.fold_in(torch.arange(batch), 1), chosen)
        yield from _numbers(env, seen)
        yield from _endings(env, seen)
        each = seen.seconds / int(seen.live.sum())
        yield Finding("ok", "speed", f"{1e6 * each:.0f} microseconds a step, {1 / each:,.0f} steps a second")
    except WorkerError as error:
        yield Finding("error", "episodes", str(error))
    finally:
        env.close()
