"""Model-agnostic meta-learning for reinforcement learning."""

from maml_envs import InputError, Step, TaskEnv
from maml_rl.config.rl import Config
from maml_rl.config.toml import load as load_config
from maml_rl.evaluate import evaluate, load
from maml_rl.results.film import render
from maml_rl.rl.agent import Agent
from maml_rl.runs.evaluation import Evaluation
from maml_rl.runs.loop import Stopped
from maml_rl.train import meta_train, meta_train_seeds

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
    "load_config",
    "meta_train",
    "meta_train_seeds",
    "render",
]
