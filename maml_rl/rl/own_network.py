"""A user's ``torch.nn.Module`` as the network of a policy: a pure function of its parameters, stacked over tasks."""

import copy
import inspect
from collections.abc import Callable, Mapping
from types import MethodType
from typing import Any

import gymnasium
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from maml_envs import InputError
from maml_envs.adapters.named import import_own
from maml_rl.core.adapt import PREFIX
from maml_rl.core.tree import Params
from maml_rl.rl.plain_layers import PLAIN

TAKEN = ("log_std", "context")
"""Names of parameters that a policy has beside its network's."""

TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-2}
"""Of second derivatives, in what they are compared in: the second where the first fails."""


def _close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    return bool((one - other).norm() <= tolerance * (other.norm() + 1e-12) + 1e-12)


class OwnNetwork:
    """The network of ``policy.network = "module:Class"``, which is made as ``Class(observation_space, outputs)``.

    It gets observations (n, *shape), float32, in the shape of the space; bytes in 0 ... 1 where they are a
    picture. It gives (n, outputs): means of actions, or logits.

    Args:
        name: "module:Class".
        space: What it is made with: a space of observations, of any shape.
        units: What each number of an observation as a row is divided by, (width,).
        outputs: Width of an action.

    Raises:
        InputError: It cannot be a policy: the message says why.
    """

    def __init__(self, name: str, space: gymnasium.spaces.Box, units: Tensor, outputs: int) -> None:
        self._where, self._width, self._outputs = f"policy.network = {name!r}", len(units), outputs
        self._shape = tuple(space.shape)
        self._units = units if bool((units != 1).any()) else None
        kind = self._class(name)
        self._make: Callable[[], nn.Module] = lambda: kind(space, outputs)
        module = self._made(torch.Generator().manual_seed(0))
        try:
            self._template, self._idle = module, [copy.deepcopy(module)]
        except Exception as error:
            raise InputError(
                f"{self._where} cannot be copied: {error}; of weight norms, take the one of "
                "torch.nn.utils.parametrizations"
            ) from error
        self._refuse(module)
        self._dims = {name: value.dim() for name, value in module.named_parameters()}

    def _class(self, name: str) -> Callable[..., Any]:
        module, _, kind = name.partition(":")
        if not kind or not all(part.isidentifier() for part in module.split(".")):
            raise InputError(f"{self._where}: write 'my_module:MyNetwork'")
        found = getattr(import_own(module, self._where), kind, None)
        if not callable(found):
            raise InputError(f"{self._where}: {module} has no {kind!r}")
        try:
            inspect.signature(found).bind(None, None)
        except TypeError as error:
            raise InputError(f"{self._where} is made as {kind}(observation_space, outputs): {error}") from None
        made: Callable[..., Any] = found
        return made

    def _made(self, generator: torch.Generator) -> nn.Module:
        seed = int(torch.randint(2**62, (), generator=generator))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = self._make()
        if not isinstance(module, nn.Module):
            raise InputError(f"{self._where} makes a {type(module).__name__}: it has to be a torch.nn.Module")
        for part in module.modules():
            if hasattr(part, "_orig_mod"):
                raise InputError(f"{self._where} is compiled: leave torch.compile out, as several tasks run it at once")
            if type(part) in PLAIN:
                part.forward = MethodType(PLAIN[type(part)], part)
        return module

    def _refuse_another(self, module: nn.Module, params: Mapping[str, Tensor], rows: Tensor, first: Tensor) -> None:
        """Refuse what is another network, or the same one again, when it is made anew with the same random numbers."""
        other = self._made(torch.Generator().manual_seed(0))
        if other is module:
            raise InputError(f"{self._where} gives the same module each time it is called: make a new one")
        drawn = "draw it with torch, or from a generator with a fixed seed"
        others, buffers = dict(other.named_parameters()), dict(other.named_buffers())
        for kind, found, own in (("parameter", others, params), ("buffer", buffers, dict(module.named_buffers()))):
            if found.keys() != own.keys() or any(found[name].shape != own[name].shape for name in own):
                raise InputError(f"{self._where} has other {kind}s each time it is made: give it the same layers")
            for name, value in own.items():
                if not torch.equal(value, found[name]):
                    raise InputError(f"{self._where}: the {kind} {name} is another one each time it is made: {drawn}")
        if not torch.equal(self._tried(other, rows), first):
            raise InputError(
                f"{self._where}: with the same parameters it gives another output when it is made anew: it holds "
                f"random numbers that are neither parameters nor buffers; register_buffer them, and {drawn}"
            )

    def _refuse(self, module: nn.Module) -> None:
        """Refuse what cannot be a pure function of parameters and one observation."""
        params = dict(module.named_parameters())
        if not params:
            raise InputError(f"{self._where} has no parameters: there is nothing to adapt")
        for name, value in params.items():
            if isinstance(value, nn.parameter.UninitializedParameter):
                raise InputError(f"{self._where}: {name} is lazy: give its layer the width of its input")
            if value.dtype != torch.float32 or not value.requires_grad:
                what = value.dtype if value.dtype != torch.float32 else "not trained (requires_grad = False)"
                raise InputError(f"{self._where}: the parameter {name} is {what}: float32 and trained are what adapts")
            if name.partition(".")[0] in TAKEN or name.startswith(PREFIX):
                raise InputError(f"{self._where}: a parameter is named {name!r}, which is a policy's own: rename it")
        for name, part in module.named_modules():
            if getattr(part, "running_mean", None) is not None:
                raise InputError(
                    f"{self._where}: {name} ({type(part).__name__}) keeps running statistics, which no task has of its "
                    "own: use LayerNorm or GroupNorm, or leave it out"
                )
        buffers = {name: value.clone() for name, value in module.named_buffers()}
        rows = torch.rand(3, self._width, generator=torch.Generator().manual_seed(0))
        first, again = self._tried(module, rows), self._tried(module, rows)
        if not isinstance(first, Tensor) or first.shape != (3, self._outputs):
            given = tuple(first.shape) if isinstance(first, Tensor) else f"a {type(first).__name__}"
            raise InputError(
                f"{self._where} gives {given} for observations (3, {', '.join(map(str, self._shape))}): it has to give "
                f"(3, {self._outputs}), a number for each action"
            )
        if not first.isfinite().all():
            raise InputError(
                f"{self._where} gives NaN or infinity for observations in 0 ... 1: bounds of a space may be infinite"
            )
        changed = [name for name, value in module.named_buffers() if not torch.equal(value, buffers[name])]
        if changed:
            raise InputError(f"{self._where} changes its buffer {changed[0]} as it runs: a policy has no state")
        if not torch.equal(first, again):
            raise InputError(
                f"{self._where} gives another output for the same input: dropout, noise or state inside; a policy's "
                "noise is its standard deviation's"
            )
        self._refuse_another(module, params, rows, first)
        if not torch.equal(self._tried(module.eval(), rows), first):
            raise InputError(
                f"{self._where} gives another output after eval() than after train(): training and acting have to be "
                "by the same network"
            )
        module.train()
        others = torch.cat([rows[:2], rows[:1]])
        if not torch.allclose(self._tried(module, others)[:2], first[:2], rtol=1e-4, atol=1e-5):
            raise InputError(
                f"{self._where}: an output depends on the other observations of the batch, as with batch "
                "normalisation: use LayerNorm"
            )
        taken = {name: value.detach().clone().requires_grad_() for name, value in params.items()}
        outputs = functional_call(self._idle[0], taken, (self._shaped(rows),))
        slopes = torch.autograd.grad(outputs.square().sum(), list(taken.values()), allow_unused=True)
        unused = [name for name, slope in zip(params, slopes, strict=True) if slope is None]
        if unused:
            raise InputError(f"{self._where}: {', '.join(unused)} takes no part in its outputs: leave it out")
        self._try_derivatives(rows)

    def _tried(self, module: nn.Module, rows: Tensor) -> Any:  # noqa: ANN401  whatever it returns
        given = self._shaped(rows.clone())
        kept = given.clone()
        try:
            with torch.no_grad():
                outputs = module(given)
        except Exception as error:
            raise InputError(
                f"{self._where} fails for observations ({len(rows)}, {', '.join(map(str, self._shape))}): "
                f"{type(error).__name__}: {error}"
            ) from error
        if not torch.equal(given, kept):
            raise InputError(
                f"{self._where} changes its input in place, which others see too: write x = x - 0.5, and not x -= 0.5"
            )
        return outputs

    def _try_derivatives(self, rows: Tensor) -> None:
        """Hold second derivatives of two tasks at once, which training takes, against those of each alone."""
        generator = torch.Generator().manual_seed(1)
        for dtype, tolerance in TOLERANCES.items():
            params = {
                name: value.detach().to(dtype) + 0.1 * torch.randn(2, *value.shape, generator=generator, dtype=dtype)
                for name, value in self._idle[0].named_parameters()
            }
            try:
                together, alone = (self._second(params, rows.to(dtype), at_once) for at_once in (True, False))
                wrong = [name for name in together if not _close(together[name], alone[name], tolerance)]
                break
            except Exception as error:  # of a network that is for float32 alone, at first
                failed = error
        else:
            raise InputError(
                f"{self._where} cannot be taken for several tasks at once and differentiated twice, which MAML needs: "
                f"{type(failed).__name__}: {str(failed).splitlines()[0]}"
            ) from failed
        if wrong:
            raise InputError(
                f"{self._where}: torch differentiates it wrongly twice for several tasks at once, in "
                f"{', '.join(wrong)}: write what it is made of in plain operations; of norms, take torch.nn.LayerNorm"
            )

    def _second(self, params: Params, rows: Tensor, at_once: bool) -> Params:
        """Gradient of the sum of squared gradients of two tasks, at once or one by one."""

        def steepness(params: Params) -> Tensor:
            gradient = grad(lambda params: self._of_rows(params, rows).square().sum())(params)
            return torch.stack([value.square().sum() for value in gradient.values()]).sum()

        leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
        tasks = [{name: value[k] for name, value in leaves.items()} for k in range(2)]
        each = vmap(steepness)(leaves) if at_once else torch.stack([steepness(task) for task in tasks])
        found = torch.autograd.grad(each.sum(), list(leaves.values()), materialize_grads=True)
        return dict(zip(leaves, found, strict=True))

    def init(self, generator: torch.Generator) -> Params:
        """Return the parameters of one that is made anew, with random numbers from the generator."""
        return {name: value.detach().clone() for name, value in self._made(generator).named_parameters()}

    @property
    def head(self) -> frozenset[str]:
        """Names of the parameters of the last layer that has some."""
        layers = {name: name.partition(".parametrizations.")[0] for name in self._dims}
        layers = {name: at if at != name else name.rpartition(".")[0] for name, at in layers.items()}
        last = list(layers.values())[-1]
        found = frozenset(name for name, at in layers.items() if at == last)
        parts = dict(self._template.named_parameters(prefix="", remove_duplicate=False))
        if shared := [name for name in parts if name.rpartition(".")[0] == last and name not in self._dims]:
            raise InputError(
                f"inner.adapt = 'last' with {self._where}: {shared[0]} of the last layer is a parameter of another one "
                "too, which would adapt with it; use inner.adapt = 'all', or give it its own"
            )
        return found

    def to(self, device: torch.device) -> "OwnNetwork":
        """Move what it has beside parameters to a device."""
        self._template, self._idle = self._template.to(device), [module.to(device) for module in self._idle]
        self._units = None if self._units is None else self._units.to(device)
        return self

    def __call__(self, params: Params, inputs: Tensor) -> Tensor:
        """Outputs (..., outputs) for rows (..., width); parameters of one task, or stacked, rows (K, ..., width)."""
        own = {name: params[name] for name in self._dims}
        name, dims = next(iter(self._dims.items()))
        return self._of_rows_each(own, inputs) if own[name].dim() > dims else self._of_rows(own, inputs)

    def _of_rows_each(self, params: Params, inputs: Tensor) -> Tensor:
        outputs: Tensor = vmap(self._of_rows)(params, inputs)
        return outputs

    def _of_rows(self, params: Params, inputs: Tensor) -> Tensor:
        try:  # a call puts the parameters into the module while it runs: one for each thread
            module = self._idle.pop()
        except IndexError:
            module = copy.deepcopy(self._template)
        try:
            outputs: Tensor = functional_call(module, params, (self._shaped(inputs.reshape(-1, self._width)),))
        finally:
            self._idle.append(module)
        return outputs.reshape(*inputs.shape[:-1], self._outputs)

    def _shaped(self, rows: Tensor) -> Tensor:
        scaled = rows if self._units is None else rows / self._units.to(rows)
        return scaled.reshape(len(rows), *self._shape)

    def adapted(self, params: Params, task: Tensor | None = None) -> nn.Module:
        """Return a module of its own with these parameters, from rows (n, width), less those of a task it is told."""
        module = self._made(torch.Generator().manual_seed(0))
        for part in module.modules():
            if type(part) in PLAIN:
                del part.forward  # theirs again, where no derivatives are taken
        module.load_state_dict({name: params[name] for name in self._dims}, strict=False)
        return _FromRows(module, self._shape, self._units, task)


class _FromRows(nn.Module):
    """A network behind what makes its input of rows."""

    task: Tensor
    units: Tensor

    def __init__(self, module: nn.Module, shape: tuple[int, ...], units: Tensor | None, task: Tensor | None) -> None:
        super().__init__()
        self.module, self.shape = module, shape
        self.register_buffer("units", torch.ones(1) if units is None else units.cpu())
        self.register_buffer("task", torch.zeros(0) if task is None else task.cpu().float())

    def forward(self, rows: Tensor) -> Tensor:
        rows = torch.cat([rows, self.task.expand(rows.shape[0], -1)], 1)
        outputs: Tensor = self.module((rows / self.units).reshape(rows.shape[0], *self.shape))
        return outputs
