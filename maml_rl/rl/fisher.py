"""The Hessian of KL(old || new) at the old parameters, as a product with vectors, factored along the inner loop.

At the start of an outer step the gradient of the KL with respect to the distribution's parameters is zero, so its
Hessian in theta is exactly J'FJ: F the Fisher matrix of the adapted policy, J the Jacobian of theta -> adapted
parameters. With inner steps phi_{j+1} = phi_j - D g_j(phi_j), D = diag(lr), J is the product of the maps I - D H_j,
H_j the Hessian of the inner loss at phi_j; a learned rate adds the columns -diag(g_j), and first order takes H_j = 0.
No third derivatives are needed, and the graphs of H_j and F are built once for all products.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch.func import vmap

from maml_rl.core.adapt import PREFIX, Loss
from maml_rl.core.task_axis import Part, Runs, add_up, mean_over_ranks, parts, stack, sum_tasks
from maml_rl.core.tree import Params, Rate, map_tensors
from maml_rl.machine.threads import side_by_side
from maml_rl.rl.data import Batch
from maml_rl.rl.policies import Policy

LinearMap = Callable[[Params], Params]


def _leaves(params: Params) -> Params:
    return {name: value.detach().clone().requires_grad_() for name, value in params.items()}


class InnerStep(NamedTuple):
    """What one inner step contributes to J."""

    gradient: Params  # stacked
    hessian: LinearMap | None  # of the inner loss; None at first order


def linearise(loss: Loss[Batch], params: Params, batch: Batch, first_order: bool) -> InnerStep:
    """Gradient of each task's loss and the map v -> H v; the gradient's graph is kept for all products."""
    leaves = _leaves(params)
    with torch.enable_grad():
        total = vmap(loss)(leaves, batch).sum()
        gradient = torch.autograd.grad(total, list(leaves.values()), create_graph=not first_order)

    def product(vector: Params) -> Params:
        moved = torch.autograd.grad(
            gradient, list(leaves.values()), list(vector.values()), retain_graph=True, materialize_grads=True
        )
        return dict(zip(leaves, moved, strict=True))

    values = {name: value.detach() for name, value in zip(leaves, gradient, strict=True)}
    return InnerStep(values, None if first_order else product)


def fisher_matrix(policy: Policy, params: Params, batch: Batch) -> LinearMap:
    """The map v -> G v, G = mean over live steps of the policy's Fisher matrix in its parameters, for each task."""
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
    policy: Policy,
    loss: Loss[Batch],
    chain: Sequence[Params],
    pre: Sequence[Batch],
    post: Batch,
    lr: Rate,
    first_order: bool,
    runs: Runs = (),
) -> LinearMap:
    """The map v -> sum over each run's tasks of J'GJ v, for some tasks; no ``pre`` takes J = I.

    The rate is a number, or has a row for each task.
    """
    steps = [linearise(loss, params, batch, first_order) for params, batch in zip(chain[:-1], pre, strict=True)]
    metric = fisher_matrix(policy, chain[-1], post)
    rates = lr if isinstance(lr, dict) else dict.fromkeys(chain[-1], lr)

    def times(a: Params | dict[str, float], b: Params) -> Params:
        return {name: a[name] * value for name, value in b.items()}

    def minus(a: Params, b: Params) -> Params:
        return {name: value - b[name] if name in b else value for name, value in a.items()}

    def product(vector: Params) -> Params:
        spread = stack(vector, len(post.weights), runs)
        learned = {name: spread[f"{PREFIX}{name}"] for name in chain[-1] if f"{PREFIX}{name}" in spread}
        image = {name: spread[name] for name in chain[-1]}
        for step in steps:
            moved = minus(image, times(rates, step.hessian(image))) if step.hessian else image
            image = minus(moved, {name: value * step.gradient[name] for name, value in learned.items()})
        image = metric(image)
        pulled = {name: torch.zeros_like(value) for name, value in learned.items()}
        for step in reversed(steps):
            pulled = minus(pulled, {name: step.gradient[name] * image[name] for name in learned})
            image = minus(image, step.hessian(times(rates, image))) if step.hessian else image
        each = image | {f"{PREFIX}{name}": value for name, value in pulled.items()}
        return {name: sum_tasks(value, runs) for name, value in each.items()}

    return product


def fisher_vector_product(
    policy: Policy,
    loss: Loss[Batch],
    chain: Sequence[Params],
    batches: Sequence[Batch],
    lr: Rate,
    first_order: bool,
    runs: Runs = (),
) -> LinearMap:
    """Build v -> mean over tasks of J'GJ v, for a vector shaped like theta; of several runs each its own.

    Args:
        policy: The policy.
        loss: The inner loss.
        chain: Stacked parameters before each inner step and after the last.
        batches: The data of each of them: of the inner steps, then of the adapted policies.
        lr: Inner rate, as ``Rates.split`` has it of theta.
        first_order: The inner gradients are constants, as first-order MAML takes them.
        runs: The axes of runs that theta has.
    """
    tasks = len(batches[-1].weights) // math.prod(runs)

    def build(part: Part) -> LinearMap:
        params, (*pre, post) = map_tensors(lambda x: x[part.tasks], (list(chain), list(batches)))
        rates = stack(part.own(lr), len(post.weights), part.runs) if isinstance(lr, dict) else lr
        return chain_product(policy, loss, params, pre, post, rates, first_order, part.runs)

    pieces = parts(batches[-1].weights, runs)
    products = side_by_side(build, pieces)

    def product(vector: Params) -> Params:
        def of_part(each: tuple[Part, LinearMap]) -> Params:
            part, times = each
            return times(part.own(vector))

        sums = side_by_side(of_part, list(zip(pieces, products, strict=True)))
        pooled: Params = mean_over_ranks(map_tensors(lambda x: x / tasks, add_up(pieces, sums, runs)), tasks)
        return pooled

    return product
