"""The Hessian of KL(old || new) at the old parameters, as a product with vectors, factored along the inner loop.

At the start of an outer step the gradient of the KL with respect to the distribution's parameters is zero, so its
Hessian in theta is exactly J'FJ: F the Fisher matrix of the adapted policy, J the Jacobian of theta -> adapted
parameters. With inner steps phi_{j+1} = phi_j - D g_j(phi_j), D = diag(lr), J is the product of the maps I - D H_j,
H_j the Hessian of the inner loss at phi_j; a learned rate adds the columns -diag(g_j), and first order takes H_j = 0.
No third derivatives are needed, and the graphs of H_j and F are built once for all products.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.func import vmap

from maml_rl.core.adapt import PREFIX, InnerLoop
from maml_rl.core.task_axis import LinearMap, TaskAxis
from maml_rl.core.tree import Params, Rate, map_tensors
from maml_rl.rl.data import Batch
from maml_rl.rl.policies import Policy


def _leaves(params: Params) -> Params:
    return {name: value.detach().clone().requires_grad_() for name, value in params.items()}


class InnerStep(NamedTuple):
    """One inner step's contribution to J."""

    gradient: Params  # stacked
    hessian: LinearMap | None  # of the inner loss; None at first order


def linearise(inner: InnerLoop[Batch], params: Params, batch: Batch) -> InnerStep:
    """Return each task's gradient and the map v -> H v; the gradient's graph is kept for all products."""
    leaves = _leaves(params)
    with torch.enable_grad():
        total = vmap(inner.loss)(leaves, batch).sum()
        gradient = torch.autograd.grad(total, list(leaves.values()), create_graph=not inner.first_order)

    def product(vector: Params) -> Params:
        moved = torch.autograd.grad(
            gradient, list(leaves.values()), list(vector.values()), retain_graph=True, materialize_grads=True
        )
        return dict(zip(leaves, moved, strict=True))

    values = {name: value.detach() for name, value in zip(leaves, gradient, strict=True)}
    return InnerStep(values, None if inner.first_order else product)


def fisher_matrix(policy: Policy, params: Params, batch: Batch) -> LinearMap:
    """Build v -> G v, G = mean over live steps of the policy's Fisher matrix in its parameters, for each task."""
    leaves = _leaves(params)
    inputs = list(leaves.values())
    with torch.enable_grad():
        distribution = policy(leaves, batch.observations)
        outputs = list(distribution)
        probes = [torch.zeros_like(field, requires_grad=True) for field in outputs]
        pulled = torch.autograd.grad(outputs, inputs, probes, create_graph=True)
    at = map_tensors(torch.Tensor.detach, distribution)
    weights = batch.weights.unsqueeze(-1)

    def product(vector: Params) -> Params:
        # The vector-Jacobian product is linear in its probe, so its own derivative is the Jacobian-vector product.
        pushed = torch.autograd.grad(pulled, probes, list(vector.values()), retain_graph=True)
        cotangent = [field * weights for field in at.fisher(type(at)(*pushed))]
        moved = torch.autograd.grad(outputs, inputs, cotangent, retain_graph=True)
        return dict(zip(leaves, moved, strict=True))

    return product


def chain_product(
    policy: Policy, inner: InnerLoop[Batch], batches: Sequence[Batch], params_by_step: Sequence[Params], lr: Rate
) -> LinearMap:
    """Build the map v -> J'GJ v of each of some tasks; no batch before the last takes J = I.

    Args:
        policy: The policy.
        inner: The inner loop.
        batches: The data of each inner step, then of the adapted policies.
        params_by_step: Stacked parameters that sampled each.
        lr: A number, or a tree with a row for each task.
    """
    steps = [linearise(inner, params, batch) for params, batch in zip(params_by_step[:-1], batches[:-1], strict=True)]
    metric = fisher_matrix(policy, params_by_step[-1], batches[-1])
    names = list(params_by_step[-1])
    rates = lr if isinstance(lr, dict) else dict.fromkeys(names, lr)

    def times(a: Params | dict[str, float], b: Params) -> Params:
        return {name: a[name] * value for name, value in b.items()}

    def minus(a: Params, b: Params) -> Params:
        return {name: value - b[name] if name in b else value for name, value in a.items()}

    def product(vector: Params) -> Params:
        learned = {name: vector[f"{PREFIX}{name}"] for name in names if f"{PREFIX}{name}" in vector}
        image = {name: vector[name] for name in names}
        for step in steps:
            moved = minus(image, times(rates, step.hessian(image))) if step.hessian else image
            image = minus(moved, {name: value * step.gradient[name] for name, value in learned.items()})
        image = metric(image)
        pulled = {name: torch.zeros_like(value) for name, value in learned.items()}
        for step in reversed(steps):
            pulled = minus(pulled, {name: step.gradient[name] * image[name] for name in learned})
            image = minus(image, step.hessian(times(rates, image))) if step.hessian else image
        return image | {f"{PREFIX}{name}": value for name, value in pulled.items()}

    return product


def fisher_vector_product(
    policy: Policy,
    inner: InnerLoop[Batch],
    axis: TaskAxis,
    theta: Params,
    batches: Sequence[Batch],
    params_by_step: Sequence[Params],
) -> LinearMap:
    """Build v -> mean over each seed's tasks of J'GJ v, for a vector shaped like theta, (S, ...).

    Args:
        policy: The policy.
        inner: The inner loop.
        axis: Which tasks the data is of.
        theta: Where J is taken; what sampled the first batch.
        batches: The data of each inner step, then of the adapted policies.
        params_by_step: Stacked parameters that sampled each.
    """
    _, lr = inner.rates.split(axis.spread(theta))

    def build(batches: Sequence[Batch], params_by_step: Sequence[Params], rates: Params) -> LinearMap:
        return chain_product(policy, inner, batches, params_by_step, rates or lr)

    return axis.linear(build, list(batches), list(params_by_step), lr if isinstance(lr, dict) else {})
