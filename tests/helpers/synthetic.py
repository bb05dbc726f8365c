"""Small problems with known answers, in float64."""

from collections.abc import Iterable

import torch
from torch import Tensor

from maml_rl.core.tree import Params
from maml_rl.rl.advantages import normalise
from maml_rl.rl.data import Batch
from maml_rl.rl.distributions import Normal
from maml_rl.rl.policies import GaussianPolicy

POLICY = GaussianPolicy(observations=3, actions=2, hidden=(5, 4), activation="tanh", init_std=0.7)


def random_params(seed: int, policy: GaussianPolicy = POLICY) -> Params:
    """Parameters with non-zero biases and unequal standard deviations."""
    generator = torch.Generator().manual_seed(seed)
    params = policy.init(generator)
    return {
        name: value.double() + 0.3 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
        for name, value in params.items()
    }


def random_mask(tasks: int, episodes: int, steps: int, seed: int) -> Tensor:
    """Episodes of different lengths, at least one step each."""
    length = torch.randint(1, steps + 1, (tasks, episodes, 1), generator=torch.Generator().manual_seed(seed))
    return torch.arange(steps) < length


def random_batch(
    params: Params, tasks: int, seed: int, episodes: int = 3, steps: int = 4, policy: GaussianPolicy = POLICY
) -> Batch:
    """A batch whose actions come from the policy with these stacked parameters; ended steps are zero."""
    generator = torch.Generator().manual_seed(seed)
    shape = (tasks, episodes, steps)
    mask = random_mask(*shape, seed)
    observations = torch.randn(*shape, policy.observations, generator=generator, dtype=torch.float64)
    observations = torch.where(mask.unsqueeze(-1), observations, 0.0)
    behaviour = torch.func.vmap(policy)(params, observations)
    actions = behaviour.sample(torch.randn(*shape, policy.actions, generator=generator, dtype=torch.float64))
    actions = torch.where(mask.unsqueeze(-1), actions, 0.0)
    advantages, _ = normalise(torch.randn(shape, generator=generator, dtype=torch.float64), mask)
    weights = mask.double() / mask.sum((-2, -1), keepdim=True)
    return Batch(observations, actions, advantages, weights, Normal(*(field.detach() for field in behaviour)))


def task(batch: Batch, index: int) -> Batch:
    """One task's data."""
    behaviour = Normal(*(field[index] for field in batch.behaviour))
    return Batch(*(field[index] for field in batch[:4]), behaviour)


def numbers(terms: Iterable[Tensor]) -> tuple[float, ...]:
    """What one run's objective gives, as numbers."""
    return tuple(map(float, terms))
