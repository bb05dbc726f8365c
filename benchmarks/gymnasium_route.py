"""HalfCheetah-v5 made directional, over worker processes, beside gymnasium's AsyncVectorEnv and the batched family.

All step the same robot with the same number of environments and with random actions; the rollouts have a policy too.
EnvPool's row is there where it is installed; it makes no tasks, so it is HalfCheetah-v4 as it comes.
"""

import statistics
from dataclasses import dataclass
from functools import partial

import gymnasium
import numpy as np
import torch
import tyro

from common import report, seconds
from maml_envs import GymnasiumTaskEnv, TaskEnv, VectorOptions, random
from maml_envs.robots.half_cheetah import HalfCheetahDirection
from maml_rl.core.task_axis import TaskAxis
from maml_rl.core.tree import of_one_seed
from maml_rl.rl.policies import GaussianPolicy
from maml_rl.rl.rollout import Sampler


class Directional(gymnasium.Wrapper):
    """HalfCheetah-v5 that is paid for running in the task's direction."""

    horizon = 200
    direction = 1.0  # where nobody sets a task

    def __init__(self) -> None:
        super().__init__(gymnasium.make("HalfCheetah-v5", disable_env_checker=True))

    def sample_tasks(self, count, rng):
        return rng.choice([-1.0, 1.0], (count, 1))

    def set_task(self, task):
        self.direction = float(task[0])

    def step(self, action):
        observation, _, terminated, truncated, info = self.env.step(action)
        reward = self.direction * info["x_velocity"] + info["reward_ctrl"]
        return observation, reward, terminated, truncated, info


@dataclass(frozen=True)
class Arguments:
    """Size of the problem."""

    workers: int = 2
    environments: int = 64  # at once; tasks x episodes of a rollout are as many
    steps: int = 200
    repeats: int = 5


def steps_of(env: TaskEnv, chosen: Arguments) -> None:
    """One batch of episodes with random actions."""
    tasks = env.sample_tasks(chosen.environments, torch.Generator().manual_seed(0))
    env.reset(tasks, torch.arange(chosen.environments))
    action = random.normal(torch.arange(chosen.environments), (env.action_width,)).float()
    for _ in range(chosen.steps):
        env.step(action)


def rollout_of(made: list[TaskEnv], chosen: Arguments) -> None:
    """The same episodes with a policy for each of 8 tasks."""
    policy = GaussianPolicy(made[0].observation_space.shape[0], made[0].action_width, hidden=(100, 100))
    axis = TaskAxis(8)
    params = axis.spread(of_one_seed(policy.init(torch.Generator().manual_seed(0))))
    seeds = random.fold_in(torch.arange(8).unsqueeze(-1), torch.arange(chosen.environments // 8))
    noise = random.normal(seeds, (chosen.steps, policy.actions)).float()
    tasks = made[0].sample_tasks(8, torch.Generator().manual_seed(0))
    Sampler(made, policy).rollout(params, tasks, noise, seeds, axis)


def vector_steps(env: gymnasium.vector.VectorEnv, chosen: Arguments) -> None:
    """As many steps of gymnasium's own vector of environments, of which there are fewer."""
    env.reset(seed=0)
    action = env.action_space.sample()
    for _ in range(chosen.steps * chosen.environments // env.num_envs):
        env.step(action)


def envpool_steps(pool, chosen: Arguments) -> None:
    """The same of EnvPool."""
    pool.reset()
    action = np.zeros((chosen.environments, 6))
    for _ in range(chosen.steps):
        pool.step(action, np.arange(chosen.environments))


def main() -> None:
    """Interleave them, so that a noisy machine disturbs all alike; medians over the repeats."""
    chosen = tyro.cli(Arguments, description=__doc__)
    torch.set_num_threads(1)
    route = GymnasiumTaskEnv(Directional, VectorOptions(chosen.workers, 60.0, chosen.environments))
    alone = GymnasiumTaskEnv(Directional, VectorOptions(0, 60.0, chosen.environments))
    batched = [HalfCheetahDirection(horizon=chosen.steps) for _ in range(HalfCheetahDirection.copies)]
    vector = gymnasium.vector.AsyncVectorEnv([Directional] * chosen.workers, context="spawn")
    ways = {
        "route": partial(steps_of, route, chosen),
        "in_process": partial(steps_of, alone, chosen),
        "async_vector_env": partial(vector_steps, vector, chosen),
        "batched": partial(steps_of, batched[0], chosen),
        "route_rollout": partial(rollout_of, [route], chosen),
        "batched_rollout": partial(rollout_of, batched, chosen),
    }
    try:
        import envpool
    except (ImportError, OSError) as error:
        print(f"EnvPool does not import here, so no row for it: {error}")
    else:
        pool = envpool.make_gymnasium("HalfCheetah-v4", num_envs=chosen.environments, num_threads=chosen.workers)
        ways["envpool"] = partial(envpool_steps, pool, chosen)
    for way in ways.values():
        way()
    count = chosen.environments * chosen.steps
    rates = [{name: count / seconds(way) for name, way in ways.items()} for _ in range(chosen.repeats)]
    rows = {f"{name}_steps_per_second": statistics.median(rate[name] for rate in rates) for name in ways}
    for name in set(ways) - {"route", "route_rollout", "batched_rollout"}:
        rows[f"ratio_to_{name}"] = statistics.median(rate["route"] / rate[name] for rate in rates)
    rows["rollout_ratio_to_batched"] = statistics.median(r["route_rollout"] / r["batched_rollout"] for r in rates)
    report(rows)
    for env in (route, alone, vector, *batched):
        env.close()


if __name__ == "__main__":
    main()
