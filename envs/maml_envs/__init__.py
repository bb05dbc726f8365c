"""Task distributions for meta-reinforcement learning: batches of environments, by name or of a user's class."""

from maml_envs import drawing_later as drawing_later  # isort: skip  before anything imports MuJoCo
from maml_envs.adapters.from_gymnasium import GymnasiumTaskEnv, VectorOptions
from maml_envs.contract import check_contract
from maml_envs.errors import InputError, WorkerError
from maml_envs.registry import family, make, make_copies, names, register
from maml_envs.robots.model import ResetNoise, State
from maml_envs.robots.mujoco_task import MujocoTask
from maml_envs.task_env import SUCCESS, GraphKey, Step, TaskEnv

__all__ = [
    "SUCCESS",
    "GraphKey",
    "GymnasiumTaskEnv",
    "InputError",
    "MujocoTask",
    "ResetNoise",
    "State",
    "Step",
    "TaskEnv",
    "VectorOptions",
    "WorkerError",
    "check_contract",
    "family",
    "make",
    "make_copies",
    "names",
]

register()
