"""The Hessian of KL(old || new) at the old parameters, as a product with vectors, factored along the inner loop.

At the start of an outer step the gradient of the KL with respect to the distribution's parameters is zero, so its
Hessian in theta is exactly J'FJ: F the Fisher matrix of the adapted policy, J the Jacobian of theta -> adapted
parameters. With inner steps phi_{j+1} = phi_j - D g_j(phi_j), D = diag(lr), J is the product of the maps I - D H_j,
H_j the Hessian of the inner loss at phi_j; rates that follow from theta add the columns -diag(g_j) d lr / d theta, and
first order takes H_j = 0. No third derivatives are needed, and the graphs of H_j and F are built once for all products.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch.func import vmap

from maml_rl.core.adapt import InnerLoop, Rates
from maml_rl.core.task_axis import LinearMap, TaskAxis
from maml_rl.core.tree import Params, map_tensors
from maml_rl.rl.data import Batch
from maml_rl.rl.policies import Policy


def _leaves(params: Params) -> Params:
    return {name: value.detach().clone().requires_grad_() for name, value in params.items()}


class Jacobian(NamedTuple):
    """The Jacobian J of outputs in inputs, both sequences of tensors in an order of their own."""

    push: Callable[[Sequence[torch.Tensor]], Sequence[torch.Tensor]]  # v, like the inputs -> J v
    pull: Callable[[Sequence[torch.Tensor]], Sequence[torch.Tensor]]  # w, like the outputs -> J' w


def jacobian(outputs: Sequence[torch.Tensor], inputs: Sequence[torch.Tensor]) -> Jacobian:
    """Build the Jacobian of a graph that is there already, and is kept."""
    with torch.enable_grad():
        probes = [torch.zeros_like(field, requires_grad=True) for field in outputs]
        pulled = torch.autograd.grad(outputs, inputs, probes, create_graph=True, materialize_grads=True)

    # The vector-Jacobian product is linear in its probe, so its own derivative is the Jacobian-vector product.
    def push(vector: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        return torch.autograd.grad(pulled, probes, list(vector), retain_graph=True)

    def pull(cotangent: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        return torch.autograd.grad(outputs, inputs, list(cotangent), retain_graph=True, materialize_grads=True)

    return Jacobian(push, pull)


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
    with torch.enable_grad():
        distribution = policy(leaves, batch.observations)
    of_fields = jacobian(list(distribution), list(leaves.values()))
    at = map_tensors(torch.Tensor.detach, distribution)
    weights = batch.weights.unsqueeze(-1)

    def product(vector: Params) -> Params:
        pushed = of_fields.push(list(vector.values()))
        moved = of_fields.pull([field * weights for field in at.fisher(type(at)(*pushed))])
        return dict(zip(leaves, moved, strict=True))

    return product


class InnerRates(NamedTuple):
    """The inner rates of some tasks at theta, and how they follow from it."""

    values: Params  # stacked
    push: LinearMap  # a vector like theta -> the change of the rates
    pull: LinearMap  # of rates -> like theta


def rates_at(rates: Rates, theta: Params) -> InnerRates:
    """Take the rates and their Jacobian at stacked theta; rates that do not follow from it change by nothing."""
    leaves = _leaves(theta)
    with torch.enable_grad():
        params, lr = rates.split(leaves)
    values = lr if isinstance(lr, dict) else {name: torch.full_like(value, lr) for name, value in params.items()}
    moving = [name for name, value in values.items() if value.requires_grad]
    of_rates = jacobian([values[name] for name in moving], list(leaves.values())) if moving else None

    def push(vector: Params) -> Params:
        return dict(zip(moving, of_rates.push([vector[name] for name in leaves]), strict=True)) if of_rates else {}

    def pull(cotangent: Params) -> Params:
        if of_rates is None:
            return {}
        return dict(zip(leaves, of_rates.pull([cotangent[name] for name in moving]), strict=True))

    return InnerRates(map_tensors(torch.Tensor.detach, values), push, pull)


def chain_product(
    policy: Policy,
    inner: InnerLoop[Batch],
    batches: Sequence[Batch],
    params_by_step: Sequence[Params],
    theta: Params,
) -> LinearMap:
    """Build the map v -> J'GJ v of each of some tasks; no batch before the last takes J = I.

    Args:
        policy: The policy.
        inner: The inner loop.
        batches: The data of each inner step, then of the adapted policies.
        params_by_step: Stacked parameters that sampled each.
        theta: With a row for each task; its rates are the inner steps'.
    """
    steps = [linearise(inner, params, batch) for params, batch in zip(params_by_step[:-1], batches[:-1], strict=True)]
    metric = fisher_matrix(policy, params_by_step[-1], batches[-1])
    names, rates = list(params_by_step[-1]), rates_at(inner.rates, theta)

    def times(a: Params, b: Params) -> Params:
        return {name: a[name] * value for name, value in b.items()}

    def minus(a: Params, b: Params) -> Params:
        return {name: value - b[name] if name in b else value for name, value in a.items()}

    def product(vector: Params) -> Params:
        change = rates.push(vector)
        image = {name: vector[name] for name in names}
        for step in steps:
            moved = minus(image, times(rates.values, step.hessian(image))) if step.hessian else image
            image = minus(moved, times(step.gradient, change))
        image = metric(image)
        pulled = {name: torch.zeros_like(value) for name, value in change.items()}
        for step in reversed(steps):
            pulled = minus(pulled, {name: step.gradient[name] * image[name] for name in change})
            image = minus(image, step.hessian(times(rates.values, image))) if step.hessian else image
        through = rates.pull(pulled)
        return image | {name: value + image[name] if name in image else value for name, value in through.items()}

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

    def build(batches: Sequence[Batch], params_by_step: Sequence[Params], theta: Params) -> LinearMap:
        return chain_product(policy, inner, batches, params_by_step, theta)

    return axis.linear(build, list(batches), list(params_by_step), axis.spread(theta))
