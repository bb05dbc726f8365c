"""Checks that a TaskEnv keeps its contract; errors say what is wrong and how to mend it."""

import gymnasium
import torch
from torch import Tensor

from maml_envs.errors import InputError
from maml_envs.task_env import SUCCESS, GraphKey, Step, TaskEnv


class ContractError(InputError):
    """The error of a TaskEnv that breaks its contract."""


def _require(env: TaskEnv, holds: bool, problem: str, fix: str) -> None:
    if not holds:
        raise ContractError(f"{type(env).__name__}: {problem}. {fix}")


def _check_tensor(env: TaskEnv, name: str, value: object, shape: tuple[int, ...], kind: str) -> None:
    _require(env, isinstance(value, Tensor), f"{name} is a {type(value).__name__}", "Return a torch tensor")
    assert isinstance(value, Tensor)
    _require(env, tuple(value.shape) == shape, f"{name} has shape {tuple(value.shape)}", f"It must be {shape}")
    right = value.dtype == torch.bool if kind == "bool" else value.is_floating_point()
    _require(env, right, f"{name} has dtype {value.dtype}", f"It must be {kind}")
    if kind != "bool":
        _require(env, bool(value.isfinite().all()), f"{name} holds NaN or infinity", "Return finite numbers")


def _check_steps(env: TaskEnv, action: Tensor, obs: int) -> None:
    """Take two steps of two environments and check what they return."""
    success = None
    for _ in range(2):
        step = env.step(action.to(env.device))
        _require(env, isinstance(step, Step), f"step(...) is a {type(step).__name__}",
                 "Return maml_envs.Step(...) or Step.ongoing(...)")  # fmt: skip
        _check_tensor(env, "Step.observation", step.observation, (2, obs), "floating point")
        _check_tensor(env, "Step.reward", step.reward, (2,), "floating point")
        _check_tensor(env, "Step.terminated", step.terminated, (2,), "bool")
        _check_tensor(env, "Step.truncated", step.truncated, (2,), "bool")
        given = SUCCESS in step.info
        _require(env, success in (None, given), f"only one of two steps has {SUCCESS!r} in its info",
                 "Give it at every step, 0 where the task is not solved")  # fmt: skip
        success = given
        if given:
            value = step.info[SUCCESS]
            fits = isinstance(value, Tensor) and tuple(value.shape) == (2,)
            _require(env, fits, f"Step.info[{SUCCESS!r}] is {value!r:.200}",
                     "It must be a tensor of shape (2,), bool or 0 and 1")  # fmt: skip


def _attribute(env: TaskEnv, name: str) -> object:
    """Return an attribute, None if there is none; an error of one that is computed is the environment's own."""
    try:
        return getattr(env, name)
    except AttributeError as error:
        if hasattr(type(env), name):
            raise ContractError(f"{type(env).__name__}.{name}: {error}") from error
        return None


@torch.no_grad()  # as episodes are played
def check_contract(env: TaskEnv) -> None:
    """Run two environments for two steps and check shapes, dtypes and finiteness.

    Raises:
        ContractError: What is wrong, and the fix.
    """
    for name in ("observation_space", "action_space"):
        space = _attribute(env, name)
        flat_box = isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1
        discrete = name == "action_space" and isinstance(space, gymnasium.spaces.Discrete)
        _require(
            env,
            flat_box or discrete,
            f"{name} is {space}",
            "Set it to a one-dimensional gymnasium.spaces.Box in __init__"
            + (", or to Discrete(n)" if name == "action_space" else ""),
        )
    horizon = _attribute(env, "horizon")
    _require(
        env,
        isinstance(horizon, int) and horizon > 0,
        f"horizon is {horizon!r}",
        "Set it to a positive integer",
    )
    obs = env.observation_space.shape[0]
    _require(env, env.action_width > 0, "an action has no numbers: there is nothing to act with",
             "Give a model of MuJoCo actuators (a URDF has none), or make action_space wider")  # fmt: skip
    action = torch.zeros(2, env.action_width)
    if env.discrete:
        action[:, 0] = 1
    tasks = env.sample_tasks(2, torch.Generator().manual_seed(0))
    for count, drawn in ((2, tasks), (3, env.sample_tasks(3, torch.Generator().manual_seed(0)))):
        right = isinstance(drawn, Tensor) and drawn.shape[:1] == (count,)
        found = f"a tensor {tuple(drawn.shape)}" if isinstance(drawn, Tensor) else f"a {type(drawn).__name__}"
        _require(env, right, f"sample_tasks({count}, ...) returned {found}",
                 f"Return a torch tensor ({count}, *task_shape)")  # fmt: skip
    again = env.sample_tasks(2, torch.Generator().manual_seed(0))
    _require(env, bool(torch.equal(tasks, again)), "sample_tasks differs for the same generator seed",
             "Draw from the generator that is passed in")  # fmt: skip
    held_out = env.held_out_tasks(2)
    _require(env, isinstance(held_out, Tensor) and held_out.shape == tasks.shape,
             f"held_out_tasks(2) returned {held_out.shape if isinstance(held_out, Tensor) else held_out!r:.80}",
             f"Return a tensor {tuple(tasks.shape)}, as sample_tasks(2, ...) does")  # fmt: skip
    _check_tensor(
        env,
        "reset(...)",
        env.reset(tasks.to(env.device), torch.tensor([1, 2], device=env.device)),
        (2, obs),
        "floating point",
    )
    key = env.graph_key
    _require(env, key is None or isinstance(key, GraphKey), f"graph_key is {key!r:.200}",
             "Give a maml_envs.GraphKey() that you keep, or None")  # fmt: skip
    _check_steps(env, action, obs)
