"""Refusals of modules of a user's own that cannot be taken: each with its reason, before training."""

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from maml_envs import InputError
from maml_rl.core.adapt import PREFIX
from maml_rl.core.tree import Params


class Role(NamedTuple):
    """The use of a module.

    Attributes:
        key: The configuration's key that names it.
        arguments: What it is made with, as errors name them.
        inputs: What errors call its inputs.
        taken: Names that its parameters may not have.
        of_batch: It may look at a whole batch for each output, as batch norm does.
        at_once: It is mapped over tasks, and not run for one after the other.
    """

    key: str
    arguments: str
    inputs: str = "inputs"
    taken: tuple[str, ...] = ()
    of_batch: bool = False
    at_once: bool = True


class Network(Protocol):
    """A network as it is looked at here; see ``OwnModule``."""

    role: Role
    where: str
    width: int
    shape: tuple[int, ...]
    outputs: int
    idle: list[nn.Module]

    def made(self, generator: torch.Generator) -> nn.Module:
        """Make the user's module anew."""

    def of_rows(self, params: Params, inputs: Tensor) -> Tensor:
        """Return outputs for rows, by parameters of one task."""

    def shaped(self, rows: Tensor) -> Tensor:
        """Return what the module gets for rows."""


BATCH = "track_running_stats = False, which takes the batch's own"
"""Advice where a batch has statistics."""

TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-2}
"""Of second derivatives, in what they are compared in: the second where the first fails."""


def _close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    return bool((one - other).norm() <= tolerance * (other.norm() + 1e-12) + 1e-12)


def _refuse_another(network: Network, module: nn.Module, rows: Tensor, first: Tensor) -> None:
    """Refuse what is another network, or the same one again, when it is made anew with the same random numbers.

    Args:
        network: The network.
        module: One that was made.
        rows: Its inputs.
        first: Its outputs for them.
    """
    params = dict(module.named_parameters())
    other = network.made(torch.Generator().manual_seed(0))
    if other is module:
        raise InputError(f"{network.where} gives the same module each time it is called: make a new one")
    drawn = "draw it with torch, or from a generator with a fixed seed"
    others, buffers = dict(other.named_parameters()), dict(other.named_buffers())
    for kind, found, own in (("parameter", others, params), ("buffer", buffers, dict(module.named_buffers()))):
        if found.keys() != own.keys() or any(found[name].shape != own[name].shape for name in own):
            raise InputError(f"{network.where} has other {kind}s each time it is made: give it the same layers")
        for name, value in own.items():
            if not torch.equal(value, found[name]):
                raise InputError(f"{network.where}: the {kind} {name} is another one each time it is made: {drawn}")
    if not torch.equal(_tried(network, other, rows), first):
        raise InputError(
            f"{network.where}: with the same parameters it gives another output when it is made anew: it holds "
            f"random numbers that are neither parameters nor buffers; register_buffer them, and {drawn}"
        )


def _refuse_parameters(network: Network, module: nn.Module) -> None:
    """Refuse what cannot adapt, or has a name that is taken, and statistics that a module keeps."""
    params = dict(module.named_parameters())
    if not params:
        raise InputError(f"{network.where} has no parameters: there is nothing to adapt")
    for name, value in params.items():
        if isinstance(value, nn.parameter.UninitializedParameter):
            raise InputError(f"{network.where}: {name} is lazy: give its layer the width of its input")
        if value.dtype != torch.float32 or not value.requires_grad:
            what = value.dtype if value.dtype != torch.float32 else "not trained (requires_grad = False)"
            raise InputError(f"{network.where}: the parameter {name} is {what}: float32 and trained are what adapts")
        if name.partition(".")[0] in network.role.taken or name.startswith(PREFIX):
            raise InputError(f"{network.where}: a parameter is named {name!r}, which is another one's name: rename it")
    for name, part in module.named_modules():
        if getattr(part, "running_mean", None) is not None:
            raise InputError(
                f"{network.where}: {name} ({type(part).__name__}) keeps running statistics, which no task has of its "
                f"own: use LayerNorm or GroupNorm, or {BATCH if network.role.of_batch else 'leave it out'}"
            )


def refuse_unfit(network: Network, module: nn.Module) -> bool:
    """Refuse what cannot be a pure function of parameters and one input, or where it may, a batch of them.

    Returns:
        Whether an output depends on the other inputs of a batch.
    """
    inputs = network.role.inputs
    _refuse_parameters(network, module)
    params = dict(module.named_parameters())
    buffers = {name: value.clone() for name, value in module.named_buffers()}
    rows = torch.rand(3, network.width, generator=torch.Generator().manual_seed(0))
    first, again = _tried(network, module, rows), _tried(network, module, rows)
    if not isinstance(first, Tensor) or first.shape != (3, network.outputs):
        given = tuple(first.shape) if isinstance(first, Tensor) else f"a {type(first).__name__}"
        raise InputError(
            f"{network.where} gives {given} for {inputs} (3, {', '.join(map(str, network.shape))}): it has to give "
            f"(3, {network.outputs})"
        )
    if not first.isfinite().all():
        raise InputError(
            f"{network.where} gives NaN or infinity for {inputs} in 0 ... 1: is it divided by bounds that are infinite?"
        )
    changed = [name for name, value in module.named_buffers() if not torch.equal(value, buffers[name])]
    if changed:
        raise InputError(f"{network.where} changes its buffer {changed[0]} as it runs: it has to be without state")
    if not torch.equal(first, again):
        raise InputError(
            f"{network.where} gives another output for the same input: dropout, noise or state inside; take it out"
        )
    _refuse_another(network, module, rows, first)
    modes = {part: part.training for part in module.modules()}
    module.eval()
    acting = _tried(network, module, rows)
    for part, mode in modes.items():
        part.training = mode
    if not torch.allclose(acting, first, rtol=1e-4, atol=1e-5):
        raise InputError(
            f"{network.where} gives another output after eval() than after train(): training and its use have to be "
            "by the same network"
        )
    others = torch.cat([rows[:2], rows[:1]])
    of_batch = not torch.allclose(_tried(network, module, others)[:2], first[:2], rtol=1e-4, atol=1e-5)
    if of_batch and not network.role.of_batch:
        raise InputError(
            f"{network.where}: an output depends on the other {inputs} of the batch, as with batch "
            "normalisation: use LayerNorm"
        )
    taken = {name: value.detach().clone().requires_grad_() for name, value in params.items()}
    outputs = functional_call(network.idle[0], taken, (network.shaped(rows),))
    slopes = torch.autograd.grad(outputs.square().sum(), list(taken.values()), allow_unused=True)
    unused = [name for name, slope in zip(params, slopes, strict=True) if slope is None]
    if unused:
        raise InputError(f"{network.where}: {', '.join(unused)} takes no part in its outputs: leave it out")
    _try_derivatives(network, rows)
    return of_batch


def _tried(network: Network, module: nn.Module, rows: Tensor) -> Any:  # noqa: ANN401  whatever it returns
    given = network.shaped(rows.clone())
    kept = given.clone()
    try:
        with torch.no_grad():
            outputs = module(given)
    except Exception as error:
        raise InputError(
            f"{network.where} fails for {network.role.inputs} ({len(rows)}, {', '.join(map(str, network.shape))}): "
            f"{type(error).__name__}: {error}"
        ) from error
    if not torch.equal(given, kept):
        raise InputError(
            f"{network.where} changes its input in place, which others see too: write x = x - 0.5, and not x -= 0.5"
        )
    return outputs


def _try_derivatives(network: Network, rows: Tensor) -> None:
    """Hold second derivatives of two tasks at once, which training takes, against those of each alone."""
    generator, rows = torch.Generator().manual_seed(1), torch.stack([rows, rows.flip(0)])
    for dtype, tolerance in TOLERANCES.items():
        params = {
            name: value.detach().to(dtype) + 0.1 * torch.randn(2, *value.shape, generator=generator, dtype=dtype)
            for name, value in network.idle[0].named_parameters()
        }
        try:
            if network.role.at_once:  # layers may have derivatives of several tasks, and no outputs
                vmap(network.of_rows)(params, rows.to(dtype))
            alone, together = (
                _second(network, params, rows.to(dtype), at_once) for at_once in (False, network.role.at_once)
            )
            wrong = [name for name in together if not _close(together[name], alone[name], tolerance)]
            break
        except Exception as error:  # of a network that is for float32 alone, at first
            failed = error
    else:
        several = "taken for several tasks at once and " if network.role.at_once else ""
        raise InputError(
            f"{network.where} cannot be {several}differentiated twice, which MAML needs: "
            f"{type(failed).__name__}: {str(failed).splitlines()[0]}"
        ) from failed
    if wrong:
        raise InputError(
            f"{network.where}: torch differentiates it wrongly twice for several tasks at once, in "
            f"{', '.join(wrong)}: write what it is made of in plain operations; of norms, take torch.nn.LayerNorm"
        )


def _second(network: Network, params: Params, rows: Tensor, at_once: bool) -> Params:
    """Gradient of the sum of squared gradients of two tasks, (2, ...) of each, at once or one by one."""

    def steepness(params: Params, rows: Tensor) -> Tensor:
        gradient = grad(lambda params: network.of_rows(params, rows).square().sum())(params)
        return torch.stack([value.square().sum() for value in gradient.values()]).sum()

    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    tasks = [({name: value[k] for name, value in leaves.items()}, rows[k]) for k in range(2)]
    each = vmap(steepness)(leaves, rows) if at_once else torch.stack([steepness(*task) for task in tasks])
    found = torch.autograd.grad(each.sum(), list(leaves.values()), materialize_grads=True)
    return dict(zip(leaves, found, strict=True))
