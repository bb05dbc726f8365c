"""Closed-loop rollouts beside open-loop replay of the same controls and beside gymnasium stepping one environment."""

import os
import statistics

import gymnasium
import mujoco
import numpy as np
import torch
from mujoco.rollout import Rollout
from torch import Tensor

from common import Arguments, arguments, episodes_of, learner_for, report, seconds
from maml_envs.robots.mujoco_task import MujocoTask
from maml_rl.rl.data import Trajectory
from maml_rl.rl.learner import Learner


def closed_loop(learner: Learner, chosen: Arguments) -> Trajectory:
    """A rollout with a policy for each task."""
    return episodes_of(learner, learner.training_tasks(0), chosen.episodes)


class OpenLoop:
    """mujoco.rollout over the same models and controls, in one call for the whole episode, on all cores."""

    def __init__(self, env: MujocoTask, trajectory: Trajectory, tasks: Tensor) -> None:
        model, scale = env.model, float(env.action_space.high[0])
        low, high = model.actuator_ctrlrange.T
        share = (trajectory.actions.flatten(0, 1).double() / scale).clamp(-1, 1).numpy()
        self.control = np.repeat((low + high) / 2 + (high - low) / 2 * share, env.frame_skip, axis=1)
        batch, self.steps, _ = self.control.shape
        size = mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_FULLPHYSICS)
        episodes = batch // len(tasks)
        env.reset(tasks.repeat_interleave(episodes, 0), torch.arange(batch))
        self.start = np.zeros((batch, size))
        self.start[:, 1 : 1 + model.nq + model.nv] = torch.cat(env.state, -1)
        self.state = np.empty((batch, self.steps, size))
        self.sensors = np.empty((batch, self.steps, model.nsensordata))
        threads = os.cpu_count() or 1
        self.models = [own for own in map(env.task_model, tasks) for _ in range(episodes)]
        self.data = [mujoco.MjData(model) for _ in range(threads)]
        self.pool = Rollout(nthread=threads)

    def __call__(self) -> None:
        """Replay every episode."""
        self.pool.rollout(
            self.models, self.data, self.start, self.control, nstep=self.steps, state=self.state,
            sensordata=self.sensors, skip_checks=True,
        )  # fmt: skip


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
    steps = trajectory.rewards.numel()
    env = learner.env
    assert isinstance(env, MujocoTask), "this benchmark is for MuJoCo environments"
    replay = OpenLoop(env, trajectory, learner.training_tasks(0))
    controls = replay.control[:20, :: env.frame_skip].astype(np.float32)
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
