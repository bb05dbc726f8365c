"""The package works in a project that has an ``envs`` package of its own, whose classes it finds by name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

MINE = '''
import numpy as np
import gymnasium

from maml_rl import Step, TaskEnv


class Mine(gymnasium.Env):
    """Stand on a point."""

    observation_space = gymnasium.spaces.Box(-9.0, 9.0, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def sample_tasks(self, count, rng):
        return rng.uniform(-1, 1, (count, 1))

    def set_task(self, task):
        self.goal = task

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = np.zeros(1, np.float32)
        return self.place.copy(), {}

    def step(self, action):
        self.place = np.clip(self.place + action, -9, 9).astype(np.float32)
        return self.place.copy(), -float(abs(self.place - self.goal).sum()), False, False, {}
'''
CONFIG = """
env = "envs.mine:Mine"
horizon = 3
tasks = 2
episodes = 2
iterations = 1
vector.workers = 1
device = "cpu"
"""
RUN = ["train", "mine.toml", "--out", "run"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs/__init__.py").write_text("")
    (tmp_path / "envs/mine.py").write_text(MINE)
    (tmp_path / "mine.toml").write_text(CONFIG)
    return tmp_path


def run(project: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(Path(sys.executable).parent / command[0]), *command[1:]],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "command",
    [
        ["python", "-m", "maml_rl", *RUN],
        ["maml-rl", *RUN],
        ["torchrun", "--nproc-per-node", "2", "-m", "maml_rl", *RUN],
    ],
    ids=["python -m", "maml-rl", "torchrun -m"],
)
def test_a_project_with_an_envs_package_trains_its_own_environment(project: Path, command: list[str]) -> None:
    done = run(project, *command)
    assert done.returncode == 0, done.stderr
    assert (project / "run/checkpoint.pt").is_file()


def test_a_notebook_in_such_a_project_imports_both(project: Path) -> None:
    """A kernel, as ``python -c``, has the current folder first on its path."""
    code = """
import envs.mine, maml_rl
from maml_rl import Step, TaskEnv
print(envs.mine.__file__, maml_rl.load(maml_rl.meta_train(maml_rl.Config(
    env="envs.mine:Mine", horizon=3, tasks=2, episodes=2, iterations=1, device="cpu"), "run", quiet=True)).learner.env)
"""
    done = run(project, "python", "-c", code)
    assert done.returncode == 0, done.stderr
    assert str(project / "envs/mine.py") in done.stdout


@pytest.mark.parametrize("top", ["maml_rl", "maml_envs"])
def test_step_and_task_env_come_from_either_name(project: Path, top: str) -> None:
    done = run(project, "python", "-c", f"from {top} import Step, TaskEnv; print(Step.__module__, TaskEnv.__module__)")
    assert done.stdout.split() == ["maml_envs.task_env"] * 2, done.stderr


def test_no_package_is_named_envs_after_import(project: Path) -> None:
    (project / "envs/__init__.py").write_text("raise RuntimeError('not asked for')")
    done = run(project, "python", "-c", "import maml_rl, sys; assert 'envs' not in sys.modules")
    assert done.returncode == 0, done.stderr
