"""The Hessian of KL(old || new) at the old parameters, as a product with vectors, factored along the inner loop.

At the start of an outer step the gradient of the KL with respect to the distribution's parameters is zero, so its
Hessian in theta is exactly J'FJ: F the Fisher matrix of the adapted policy, J the Jacobian of theta -> adapted
parameters. With inner steps phi_{j+1} = phi_j - D g_j(phi_j), D = diag(lr), J is the product of the maps I - D H_j,
H_j the Hessian of the inner loss at phi_j. No third derivatives are needed, and the graphs of H_j and F are built
once for all products.
"""

from collections.abc import Callable, Sequence

import torch
from torch.func import vmap

from maml_rl.adapt import Loss
from maml_rl.distributions import Normal
from maml_rl.parallel import side_by_side, task_slices
from maml_rl.policies import GaussianPolicy
from maml_rl.types import Batch, Params, Rate, map_tensors, stack

LinearMap = Callable[[Params], Params]


def every(batch: Batch, stride: int, whole_episodes: bool = False) -> Batch:
    """Every ``stride``-th step of each episode, or every ``stride``-th episode, from the first; weights sum to 1."""
    if stride == 1:
        return batch
    thin: Batch = map_tensors(lambda x: x[:, ::stride] if whole_episodes else x[:, :, ::stride], batch)
    return thin._replace(weights=thin.weights / thin.weights.sum((-2, -1), keepdim=True))


def _leaves(params: Params) -> Params:
    return {name: value.detach().clone().requires_grad_() for name, value in params.items()}


def hessian(loss: Loss[Batch], params: Params, batch: Batch) -> LinearMap:
    """The map v -> H v, H the Hessian of each task's loss; the gradient's graph is kept for all products."""
    leaves = _leaves(params)
    with torch.enable_grad():
        total = vmap(loss)(leaves, batch).sum()
        gradient = torch.autograd.grad(total, list(leaves.values()), create_graph=True)

    def product(vector: Params) -> Params:
        moved = torch.autograd.grad(
            gradient, list(leaves.values()), list(vector.values()), retain_graph=True, materialize_grads=True
        )
        return dict(zip(leaves, moved, strict=True))

    return product


def fisher_matrix(policy: GaussianPolicy, params: Params, batch: Batch) -> LinearMap:
    """The map v -> G v, G = mean over live steps of the policy's Fisher matrix in its parameters, for each task."""
    leaves = _leaves(params)
    inputs = list(leaves.values())
    with torch.enable_grad():
        outputs = policy(leaves, batch.observations)
        probes = [torch.zeros_like(field, requires_grad=True) for field in outputs]
        pulled = torch.autograd.grad(outputs, inputs, probes, create_graph=True)
    at = Normal(*(field.detach() for field in outputs))
    weights = batch.weights.unsqueeze(-1)

    def product(vector: Params) -> Params:
        # The vector-Jacobian product is linear in its probe, so its own derivative is the Jacobian-vector product.
        pushed = torch.autograd.grad(pulled, probes, list(vector.values()), retain_graph=True)
        cotangent = [field * weights for field in at.fisher(Normal(*pushed))]
        moved = torch.autograd.grad(outputs, inputs, cotangent, retain_graph=True)
        return dict(zip(leaves, moved, strict=True))

    return product


def chain_product(
    policy: GaussianPolicy,
    loss: Loss[Batch],
    chain: Sequence[Params],
    pre: Sequence[Batch],
    post: Batch,
    lr: Rate,
) -> LinearMap:
    """The map v -> sum over tasks of J'GJ v for one slice of tasks; no ``pre`` takes J = I."""
    hessians = [hessian(loss, params, batch) for params, batch in zip(chain[:-1], pre, strict=True)]
    metric = fisher_matrix(policy, chain[-1], post)
    rates = lr if isinstance(lr, dict) else dict.fromkeys(chain[-1], lr)
    tasks = len(post.weights)

    def scaled(tree: Params) -> Params:
        return {name: rates[name] * value for name, value in tree.items()}

    def minus(a: Params, b: Params) -> Params:
        return {name: value - b[name] for name, value in a.items()}

    def product(vector: Params) -> Params:
        image = stack(vector, tasks)
        for h in hessians:
            image = minus(image, scaled(h(image)))
        image = metric(image)
        for h in reversed(hessians):
            image = minus(image, h(scaled(image)))
        return {name: value.sum(0) for name, value in image.items()}

    return product


def fisher_vector_product(
    policy: GaussianPolicy,
    loss: Loss[Batch],
    chain: Sequence[Params],
    batches: Sequence[Batch],
    lr: Rate,
    first_order: bool,
) -> LinearMap:
    """Build v -> mean over tasks of J'GJ v, for a vector shaped like theta.

    Args:
        policy: The policy.
        loss: The inner loss.
        chain: Stacked parameters before each inner step and after the last.
        batches: The data of each of them: of the inner steps, then of the adapted policies.
        lr: Inner rate.
        first_order: Take J = I, as first-order MAML does.
    """
    kept = slice(len(batches) - 1, None) if first_order else slice(None)

    def build(rows: slice) -> LinearMap:
        params, (*pre, post) = map_tensors(lambda x: x[rows], (list(chain[kept]), list(batches[kept])))
        return chain_product(policy, loss, params, pre, post, lr)

    products = side_by_side(build, task_slices(batches[-1].weights))
    tasks = len(batches[-1].weights)

    def product(vector: Params) -> Params:
        sums = side_by_side(lambda part: part(vector), products)
        mean: Params = map_tensors(lambda *parts: sum(parts[1:], parts[0]) / tasks, *sums)
        return mean

    return product
