"""The package's functions of several seeds, for one run: what they take and give has no axis of seeds here."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from maml_envs import TaskEnv
from maml_rl.core import adam, tree
from maml_rl.core.adapt import InnerLoop, Loss, Rates
from maml_rl.core.streams import Purpose
from maml_rl.core.task_axis import LinearMap, TaskAxis
from maml_rl.core.tree import Params, Rate, map_tensors, of_one_seed
from maml_rl.rl.data import Batch, Trajectory
from maml_rl.rl.explore import Draw, Exploration, explore, keys_at
from maml_rl.rl.fisher import fisher_vector_product
from maml_rl.rl.held_out import draw_for
from maml_rl.rl.learner import Learner
from maml_rl.rl.method import MetaRL
from maml_rl.rl.objective import MetaObjective, Terms
from maml_rl.rl.outer import OUTER
from maml_rl.rl.policies import Policy
from maml_rl.rl.rollout import Sampler


def first(values: Any) -> Any:
    """What the first seed has of a tree, (S, ...)."""
    return map_tensors(lambda x: x[0], values)


def flatten(params: Params) -> Tensor:
    """All parameters as one vector (n,)."""
    return tree.flatten(of_one_seed(params))[0]


def unflatten(vector: Tensor, like: Params) -> Params:
    """The inverse of ``flatten``."""
    return first(tree.unflatten(vector.unsqueeze(0), of_one_seed(like)))


def stack(params: Params, tasks: int) -> Params:
    """The same parameters for each of so many tasks."""
    return TaskAxis(tasks).spread(of_one_seed(params))


def adapt_stacked(loss: Loss[Any], params: Params, batches: Sequence[Any], lr: Rate) -> Params:
    """Stacked parameters after an inner step on each batch; the rate is a number, or has a row for each task."""
    inner = InnerLoop(loss, Rates(0.0))
    for batch in batches:
        axis, rates = TaskAxis(len(batch.weights)), lr if isinstance(lr, dict) else {}
        params = axis.map(lambda b, p, r: inner.step(p, b, r or lr), batch, params, rates)
    return params


def values(objective: MetaObjective, theta: Params) -> Terms:
    """The terms of an objective."""
    return first(objective.values(of_one_seed(theta)))


def gradient(objective: MetaObjective, theta: Params, term: str = "objective") -> tuple[Tensor, Params]:
    """An objective's value, or another term's, and its gradient."""
    return first(objective.gradient(of_one_seed(theta), term))


def fisher_product(
    policy: Policy, inner: InnerLoop[Batch], theta: Params, batches: Sequence[Batch], params_by_step: Sequence[Params]
) -> LinearMap:
    """The map v -> mean over tasks of J'GJ v."""
    axis = TaskAxis(len(batches[0].weights))
    product = fisher_vector_product(policy, inner, axis, of_one_seed(theta), batches, params_by_step)
    return lambda vector: first(product(of_one_seed(vector)))


def outer_step(name: str, theta: Params, state: Params, objective: MetaObjective, settings: Any) -> Any:
    """The next theta, state and metrics of an outer step, by its name."""
    outer = OUTER[name]
    return first(outer.step(of_one_seed(theta), of_one_seed(state), outer.objective(objective, settings), settings))


def adam_step(theta: Params, state: Params, slope: Params, lr: float, maximise: bool) -> tuple[Params, Params]:
    """One step of Adam."""
    return first(adam.adam_step(of_one_seed(theta), of_one_seed(state), of_one_seed(slope), lr, maximise))


def rollout(
    envs: Sequence[TaskEnv], policy: Policy, params: Params, tasks: Tensor, noise: Tensor, seeds: Tensor
) -> Trajectory:
    """Episodes of a policy, each task with parameters of its own, in copies of an environment."""
    return Sampler(envs, policy).rollout(params, tasks, noise, seeds, TaskAxis(len(tasks)))


def explore_tasks(
    learner: Learner, theta: Params, tasks: Tensor, episodes: int, factors: Sequence[float]
) -> Exploration:
    """What is sampled of given tasks, with an inner step for each factor on the rate."""
    return explore(learner, of_one_seed(theta), draw_for(learner, tasks, episodes, Purpose.TRAINING), factors)


def explore_training(learner: Learner, theta: Params, iteration: int) -> Exploration:
    """What an iteration of training samples."""
    draw = MetaRL([learner]).draw(iteration, [0])
    return explore(learner, of_one_seed(theta), draw, [1.0] * learner.config.trained_steps)


def meta_iteration(
    learners: Sequence[Learner], starts: Sequence[tuple[Params, Params]], iteration: int, names: Sequence[str] = ()
) -> list[tuple[Params, Params, dict[str, float]]]:
    """Theta, the outer optimiser's state and metrics of each run after an iteration of all of them as one batch."""
    method = MetaRL(learners, names or ([f"seed {one.config.seed}" for one in learners] if len(learners) > 1 else [""]))
    theta, state = (tree.stack([start[part] for start in starts]) for part in (0, 1))
    moved, after, rows = method.iterate(theta, state, iteration)
    return [(*map_tensors(lambda x, s=s: x[s].clone(), (moved, after)), row) for s, row in enumerate(rows)]


def sample_at(learner: Learner, params: Params, draw: Draw, k: int) -> Trajectory:
    """The episodes before inner step k, as ``explore`` samples them."""
    return learner.sampler.sample(params, draw.tasks, draw.episodes, keys_at(draw, k), draw.axis)
