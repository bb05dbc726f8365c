"""Metrics of one meta-iteration."""

import torch
from torch import Tensor

from maml_rl.core.task_axis import sum_tasks
from maml_rl.rl.distributions import Normal
from maml_rl.rl.explore import Exploration, inner_kl
from maml_rl.rl.learner import Learner
from maml_rl.rl.outer import Measures


def describe(learner: Learner, exploration: Exploration) -> Measures:
    """What an exploration shows of each run, (*runs): returns, successes, the policy's spread, how adaptation moved it.

    Means over tasks, and the environment steps.
    """

    def mean(per_task: Tensor) -> Tensor:
        each: Tensor = per_task.unflatten(0, (*exploration.runs, -1)).mean(-1)
        return each

    row: Measures = {}
    reached: list[Tensor] = []
    for k, trajectory in enumerate(exploration.trajectories):
        reached.append(trajectory.returns().mean(-1))
        row[f"return/{k}"] = mean(reached[k])
        if k > 0:
            row[f"gain/{k}"] = mean(reached[k] - reached[k - 1])
        if trajectory.success is not None:
            row[f"success/{k}"] = mean(trajectory.success.float().mean(-1))
        row[f"entropy/{k}"] = mean((trajectory.behaviour.entropy() * exploration.batches[k].weights).sum((-2, -1)))
        if isinstance(trajectory.behaviour, Normal):
            row[f"std/{k}"] = mean(trajectory.behaviour.std()[:, 0, 0].mean(-1))
    row["share_worse"] = mean((reached[-1] < reached[0]).float())
    row["kl/inner"] = mean(inner_kl(learner.policy, exploration))
    live = torch.stack([trajectory.mask.sum((-2, -1)) for trajectory in exploration.trajectories], -1).sum(-1)
    row["env_steps"] = sum_tasks(live, exploration.runs)
    return row


def logs(measures: Measures) -> list[dict[str, float]]:
    """A row for each run of what each of R runs has measured, (R,); read at once from each device that it is on."""
    found: dict[str, list[float]] = {}
    for device in {values.device for values in measures.values()}:
        there = {name: values.double() for name, values in measures.items() if values.device == device}
        found |= zip(there, torch.stack(list(there.values())).tolist(), strict=True)
    columns = zip(*(found[name] for name in measures), strict=True)
    return [dict(zip(measures, column, strict=True)) for column in columns]
