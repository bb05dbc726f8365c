"""Closed-loop rollouts beside open-loop replay of the same live steps and beside gymnasium stepping one environment."""

import itertools
import statistics

import gymnasium
import mujoco
import numpy as np
import torch
from mujoco.batch import Batch
from torch import Tensor

from common import Arguments, arguments, episodes_of, learner_for, report, seconds
from maml_envs.cores import cores
from maml_envs.physics.model_fields import expand
from maml_envs.robots.mujoco_task import MujocoTask
from maml_rl.core.streams import Purpose
from maml_rl.core.task_axis import TaskAxis
from maml_rl.core.tree import of_one_seed
from maml_rl.rl.data import Trajectory
from maml_rl.rl.learner import Learner
from maml_rl.rl.policies import Policy


def closed_loop(learner: Learner, chosen: Arguments) -> Trajectory:
    """A rollout with a policy for each task."""
    return episodes_of(learner, learner.training_tasks(0), chosen.episodes)


def seeds_of(learner: Learner, chosen: Arguments) -> Tensor:
    """The seeds of the start states of that rollout."""
    axis = TaskAxis(chosen.tasks)
    params = axis.spread(of_one_seed(learner.initial_params()))
    return learner.sampler.draw(params, chosen.episodes, learner.key(Purpose.TRAINING).unsqueeze(0), axis)[1]


class OpenLoop:
    """``Batch.rollout`` over the same worlds, starts and controls on all cores: the physics of the live steps alone."""

    def __init__(self, env: MujocoTask, policy: Policy, trajectory: Trajectory, tasks: Tensor, seeds: Tensor) -> None:
        low, high = env.model.actuator_ctrlrange.T
        share = policy.control(trajectory.actions).flatten(0, 1).double().clamp(-1, 1).numpy()
        control = (low + high) / 2 + (high - low) / 2 * share
        rows = tasks.repeat_interleave(trajectory.mask.shape[1], 0)
        env.reset(rows, seeds.flatten())
        self.start = env.state.clone()
        self.batch = Batch(env.model, len(control), cores())
        expand(self.batch, env.task_parameters(rows))
        length = trajectory.mask.sum(-1).flatten().numpy()
        ends = [0, *np.unique(length)]
        self.parts = []  # worlds that live on, and their controls until the next of them ends
        for begin, end in itertools.pairwise(ends):
            live = np.flatnonzero(length > begin).astype(np.int32)
            self.parts.append((live, np.repeat(control[live, begin:end], env.frame_skip, axis=1)))

    def __call__(self) -> None:
        """Replay every episode."""
        self.batch.reset(stage=int(mujoco.mjtStage.mjSTAGE_NONE))
        self.batch.qpos[:], self.batch.qvel[:] = self.start.qpos, self.start.qvel
        for worlds, control in self.parts:
            self.batch.rollout(control.shape[1], control, record=(), ids=worlds)


ROBOTS = {"half": "HalfCheetah", "ant": "Ant", "humanoid": "Humanoid", "walker": "Walker2d", "hopper": "Hopper"}


def gymnasium_steps_per_second(name: str, frame_skip: int, controls: np.ndarray) -> float:
    """One robot as gymnasium makes it, no policy, with the controls of some episodes (episodes, steps, act)."""
    robot = ROBOTS[name.partition("-")[0]]
    env = gymnasium.make(f"{robot}-v5", max_episode_steps=controls.shape[1], frame_skip=frame_skip)

    def play() -> None:
        for episode in controls:
            env.reset(seed=0)
            for control in episode:
                env.step(control)

    elapsed = seconds(play)
    env.close()
    return controls.shape[0] * controls.shape[1] / elapsed


def main() -> None:
    """Interleave the three, so that a noisy machine disturbs all alike; medians over the repeats."""
    chosen = arguments(__doc__)
    learner = learner_for(chosen)
    trajectory = closed_loop(learner, chosen)
    steps = int(trajectory.mask.sum())
    env = learner.env
    assert isinstance(env, MujocoTask), "this benchmark is for MuJoCo environments"
    replay = OpenLoop(env, learner.policy, trajectory, learner.training_tasks(0), seeds_of(learner, chosen))
    controls = learner.policy.control(trajectory.actions).flatten(0, 1)[:20].clamp(-1, 1).numpy()
    torch.set_num_threads(1)
    rows = [
        (
            steps / seconds(lambda: closed_loop(learner, chosen)),
            steps / seconds(replay),
            gymnasium_steps_per_second(chosen.env, env.frame_skip, controls),
        )
        for _ in range(chosen.repeats)
    ]
    closed, opened, single = (statistics.median(column) for column in zip(*rows, strict=True))
    ratios = [row[0] / row[1] for row in rows]
    report(
        {
            "live_share": steps / (trajectory.mask[..., 0].numel() * chosen.horizon),
            "steps_per_second": closed,
            "open_loop_steps_per_second": opened,
            "ratio": statistics.median(ratios),
            "ratio_lowest": min(ratios),
            "ratio_highest": max(ratios),
            "gymnasium_steps_per_second": single,
            "ratio_to_gymnasium": statistics.median(row[0] / row[2] for row in rows),
        }
    )
    learner.close()


if __name__ == "__main__":
    main()
