"""Checks of an environment for what would break or spoil training, for ``maml-rl check-env``."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, Literal, NamedTuple

import gymnasium
import torch
from torch import Tensor

from maml_envs import random
from maml_envs.adapters.from_gymnasium import GymnasiumTaskEnv
from maml_envs.adapters.spaces import in_brief, units_of
from maml_envs.contract import ContractError, check_contract
from maml_envs.errors import InputError, WorkerError
from maml_envs.played import MOST_STEPS, Episodes, first_difference, play, random_actions, row_of
from maml_envs.task_env import TaskEnv

BATCH = 8
COMPARED = 10
"""Steps within which batches of different sizes differ by rounding alone; later, chaos amplifies it."""


WIDE = 1000
"""Numbers of an observation from which on the linear baseline's system of equations is large."""

SHOWN = 5
"""Numbers of an observation that a finding lists."""

LARGE = 30.0
"""Root mean square of a number of the observation from which on a network learns badly."""


WHOLE_RESET = (
    "Set everything that an episode changes, and all of the task, in reset (in a gymnasium.Env: set_task); or make a "
    "simulator anew that is not yours and keeps something"
)


class Finding(NamedTuple):
    """A line of the report."""

    level: Literal["ok", "warning", "error"]  # error: training would break, or learn something else
    subject: str
    said: str
    fix: str = ""


class Asked(NamedTuple):
    """The choices of a configuration that decide whether an observation is fit."""

    own_network: bool = False  # the policy is a network of the user's own, which gets bytes of pictures divided by 255
    solves: bool = True  # the baseline solves a system of equations as wide as the observation
    units: tuple[float, ...] = (1.0,)  # the policy gets an observation divided by these: one for all, or one for each


def _own_space(env: TaskEnv) -> gymnasium.Space[Any]:
    return env.own_space if isinstance(env, GymnasiumTaskEnv) else env.observation_space


def _repeatable(make: Callable[[], TaskEnv], tasks: Tensor, actions: Tensor) -> Iterator[Finding]:
    """Check that a seed and a task give the same episode in another copy, after other tasks, and beside others."""
    seeds = random.fold_in(torch.arange(len(tasks)), 1)
    with closing(make()) as copy:
        first = play(copy, tasks, seeds, actions)
    with closing(make()) as fresh:
        difference = first_difference(first, play(fresh, tasks, seeds, actions))
        fix = "Draw every random number from the seeds given to reset (in a gymnasium.Env: self.np_random, after "
        fix += "super().reset(seed=seed))"
        yield (
            Finding(
                "error", "determinism", f"the same seeds, tasks and actions give another episode: {difference}", fix
            )
            if difference
            else Finding("ok", "determinism", "same seeds, tasks and actions: same starts, observations and rewards")
        )
        if difference:
            return
        play(fresh, tasks.flip(0), random.fold_in(seeds, 2), actions[:3])
        difference = first_difference(first, play(fresh, tasks, seeds, actions))
        yield (
            Finding("error", "independence", f"an episode depends on those before it: {difference}", WHOLE_RESET)
            if difference
            else Finding("ok", "independence", "an episode does not depend on those before it")
        )
        if difference:
            return
        alone = [play(fresh, tasks[i : i + 1], seeds[i : i + 1], actions[:, i : i + 1]) for i in range(len(tasks))]
        pairs = [(i, first_difference(row_of(first, i), one, COMPARED, 1e-4)) for i, one in enumerate(alone)]
        differences = [(i, f"environment {i}: {difference}") for i, difference in pairs if difference]
    if not differences:
        yield Finding("ok", "neighbours", "an episode does not depend on what else is in the batch")
        return
    i, difference = differences[0]
    with closing(make()) as unused:
        one = play(unused, tasks[i : i + 1], seeds[i : i + 1], actions[:, i : i + 1])
    if first_difference(row_of(first, i), one, COMPARED, 1e-4):
        fix = "Keep the task and the state in rows of the batch or in self, not in the class or the module"
        yield Finding("error", "neighbours", f"an episode alone is another one than in a batch; {difference}", fix)
    else:
        yield Finding("error", "independence", f"an episode depends on those before it; {difference}", WHOLE_RESET)


def _tasks(env: TaskEnv, tasks: Tensor, actions: Tensor) -> Iterator[Finding]:
    shape = tuple(tasks.shape[1:])
    if bool((tasks == tasks[0]).all()):
        yield Finding("warning", "tasks", f"{len(tasks)} drawn tasks are all {tasks[0].tolist()}", "Let tasks differ")
        return
    one_seed, action = torch.zeros(len(tasks), dtype=torch.int64), actions[:, :1].expand_as(actions)
    episodes = play(env, tasks, one_seed, action)
    if not any(first_difference(row_of(episodes, 0), row_of(episodes, i)) for i in range(1, len(tasks))):
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


def _actions(env: TaskEnv, tasks: Tensor, actions: Tensor) -> Iterator[Finding]:
    """Check that actions make a difference, and name what is unusual about them."""
    seeds = random.fold_in(torch.arange(len(tasks)), 1)
    first, other = (play(env, tasks, seeds, chosen) for chosen in (actions, actions.flip(0).roll(1, 1)))
    if first_difference(first, other) is None:
        fix = "Use the action in step; in a MuJoCo model, look at the actuators' gear, gain and ctrlrange"
        yield Finding("error", "actions", "other actions give the same observations, rewards and endings", fix)
    else:
        yield Finding("ok", "actions", "they change what is seen or earned")
    yield from (Finding("ok", "note", note) for note in env.notes())
    yield from (Finding("warning", "asked for", said, "Look whether that is meant") for said in env.warnings())


def _listed(indices: list[int]) -> str:
    """Return indices, the first of many."""
    return f"{indices[:SHOWN]}" if len(indices) <= SHOWN else f"{indices[:SHOWN]} and {len(indices) - SHOWN:,} more"


def _numbers(env: TaskEnv, episodes: Episodes, asked: Asked) -> Iterator[Finding]:
    later = torch.cat((torch.ones_like(episodes.live[:1]), episodes.live))
    observations, rewards = episodes.observations[later], episodes.rewards[episodes.live]
    for name, value in (("observations", observations), ("rewards", rewards)):
        if not bool(value.isfinite().all()):
            yield Finding("error", name, "NaN or infinity under random actions", "End or clip before it diverges")
        else:
            yield Finding("ok", name, f"finite, from {float(value.min()):.3g} to {float(value.max()):.3g}")
    units = torch.tensor(asked.units)
    if len(units) not in (1, observations.shape[-1]):
        said = f"{len(units)} numbers, and an observation has {observations.shape[-1]}"
        yield Finding("error", "policy.observation_units", said, "Give one number for all, or one for each")
        units = torch.ones(1)
    scaled = torch.from_numpy(units_of(_own_space(env))) if asked.own_network else 1.0
    size = (observations / scaled / units).square().mean(0).sqrt()
    large = (size > LARGE).nonzero().flatten().tolist()
    if large:
        fix = "Give policy.observation_units their usual size: a network learns badly from large numbers"
        if bool((torch.from_numpy(units_of(_own_space(env)))[size > LARGE] != 1).all()):
            fix = (
                "Give policy.network a network for pictures, which gets them divided by 255; the perceptron gets bytes"
            )
        said = f"numbers {_listed(large)} of the observation are as large as {float(size[large].max()):.3g}"
        yield Finding("warning", "observation scale", said, fix)
    space, width = env.observation_space, env.observation_space.shape[0]
    if width > WIDE and asked.solves:
        system = 8 * (2 * width + 4) ** 2 / 1e9
        said = f"{width:,} numbers, for which the linear baseline solves a system of {system:.1f} GB for each task"
        yield Finding("warning", "baseline", said, "Use baseline.name = 'time', or fewer numbers")
    low, high = torch.from_numpy(space.low), torch.from_numpy(space.high)
    outside = ((observations < low) | (observations > high)).any(0).nonzero().flatten().tolist()
    if outside:
        fix = "Widen observation_space, or clip"
        yield Finding(
            "warning", "observation space", f"numbers {_listed(outside)} of the observation leave their bounds", fix
        )


def _endings(env: TaskEnv, episodes: Episodes) -> Iterator[Finding]:
    lengths, both = episodes.live.sum(0), episodes.terminated & episodes.truncated
    ended = int(episodes.terminated.sum()), int((episodes.truncated & ~both).sum())
    summary = f"of {len(lengths)} episodes of random actions {ended[0]} terminated, {ended[1]} were truncated"
    summary += f", after {int(lengths.min())} to {int(lengths.max())} steps (horizon {env.horizon})"
    same_length = len(lengths) > 1 and bool((lengths == lengths[0]).all())
    if bool(both.any()):
        summary += f"; {int(both.sum())} were both, and are taken as terminated"
    if bool(episodes.terminated.all()) and same_length and int(lengths[0]) > 1:
        fix = "If it is a time limit, return truncated instead: a time limit ends the episode, not its value"
        yield Finding("warning", "endings", f"every episode terminated after exactly {int(lengths[0])} steps", fix)
    elif int(lengths.max()) == 1 and env.horizon > 1:
        yield Finding("warning", "endings", "every episode ends in its first step", "Check what ends an episode")
    else:
        yield Finding("ok", "endings", summary)


def examine(make: Callable[[], TaskEnv], asked: Asked = Asked()) -> Iterator[Finding]:  # noqa: B008  it never changes
    """Examine an environment and yield the findings, the important first.

    Args:
        make: Makes it; called again for a fresh copy.
        asked: The choices that decide whether its observations are fit.
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
        actions_of = env.own_actions.space() if isinstance(env, GymnasiumTaskEnv) else env.action_space
        said = f"observation {in_brief(_own_space(env))}, action {in_brief(actions_of)}, horizon {env.horizon}"
        yield Finding("ok", "contract", said)
        batch = min(BATCH, env.max_batch or BATCH)
        tasks = env.sample_tasks(batch, torch.Generator().manual_seed(0))
        actions = random_actions(env, min(env.horizon, MOST_STEPS), batch)
        yield from _repeatable(make, tasks, actions[: 10 * COMPARED])
        yield from _tasks(env, tasks, actions[: 10 * COMPARED])
        yield from _actions(env, tasks, actions[: 10 * COMPARED])
        episodes = play(env, tasks, random.fold_in(torch.arange(batch), 1), actions)
        yield from _numbers(env, episodes, asked)
        yield from _endings(env, episodes)
        seconds = episodes.seconds / int(episodes.live.sum())
        yield Finding("ok", "speed", f"{1e6 * seconds:.0f} microseconds a step, {1 / seconds:,.0f} steps a second")
    except WorkerError as error:
        yield Finding("error", "episodes", str(error))
    except InputError:
        raise
    except Exception:
        yield Finding(
            "error", "episodes", f"the environment raised an error. Its own traceback:\n{traceback.format_exc()}"
        )
    finally:
        env.close()
