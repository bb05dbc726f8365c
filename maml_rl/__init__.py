"""Model-agnostic meta-learning for reinforcement learning."""

from maml_envs import InputError, Step, TaskEnv
from maml_rl.agent import Agent, load
from maml_rl.config import Config
from maml_rl.evaluate import Evaluation, evaluate
from maml_rl.render import render
from maml_rl.train import meta_train, meta_train_seeds
from maml_rl.training import Stopped

__all__ = [
    "Agent",
    "Config",
    "Evaluation",
    "InputError",
    "Step",
    "Stopped",
    "TaskEnv",
    "evaluate",
    "load",
    "meta_train",
    "meta_train_seeds",
    "render",
]
