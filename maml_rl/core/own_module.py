"""A user's ``torch.nn.Module``: a pure function of its parameters, made anew from a seed."""

import copy
import inspect
from collections.abc import Callable
from functools import cached_property
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from maml_envs import InputError
from maml_envs.adapters.named import own_object
from maml_rl.core.plain_layers import PLAIN
from maml_rl.core.tree import Params
from maml_rl.core.unfit_module import Role, refuse_unfit


def constructor(name: str, role: Role) -> Callable[..., Any]:
    """Import what makes a user's module, "my_module:MyNetwork", a class or a function of two arguments.

    Raises:
        InputError: There is none, or it takes other arguments.
    """
    module, _, kind = name.partition(":")
    where = f"{role.key} = {name!r}"
    found = own_object(name, where, f"{where}: write 'my_module:MyNetwork'")
    if not callable(found):
        raise InputError(f"{where}: {module} has no {kind!r}")
    try:
        inspect.signature(found).bind(None, None)
    except TypeError as error:
        raise InputError(f"{where} is made as {kind}({role.arguments}): {error}") from None
    made: Callable[..., Any] = found
    return made


class OwnModule:
    """A module from inputs (n, *shape), float32, to (n, outputs), which a user wrote.

    Args:
        name: "module:Class", made as ``Class(first, outputs)``.
        role: What it is for.
        first: The first argument that it is made with.
        shape: Of an input.
        outputs: Numbers of an output.
        units: What each number of an input as a row is divided by, (width,); None for nothing.

    Attributes:
        where: Names it in errors.
        idle: Modules that no thread works with, all alike.

    Raises:
        InputError: It cannot be taken: the message says why.
    """

    def __init__(
        self, name: str, role: Role, first: object, shape: tuple[int, ...], outputs: int, units: Tensor | None = None
    ) -> None:
        self.where, self.role, self.shape, self.outputs = f"{role.key} = {name!r}", role, shape, outputs
        self.width = torch.Size(shape).numel()
        self._units = units
        kind = constructor(name, role)
        self._make: Callable[[int], object] = lambda wide: kind(first, wide)
        module = self.made(torch.Generator().manual_seed(0))
        try:
            self.template, self.idle = module, [copy.deepcopy(module)]
        except Exception as error:
            raise InputError(
                f"{self.where} cannot be copied: {error}; of weight norms, take the one of "
                "torch.nn.utils.parametrizations"
            ) from error
        self.of_batch = refuse_unfit(self, module)
        self._dims = {name: value.dim() for name, value in module.named_parameters()}

    def made(self, generator: torch.Generator, outputs: int | None = None) -> nn.Module:
        """Make the user's module, with torch's random numbers from a seed of the generator's; None: of its own outputs.

        Raises:
            InputError: It is no module, or a compiled one.
        """
        seed = int(torch.randint(2**62, (), generator=generator))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = self._make(self.outputs if outputs is None else outputs)
        if not isinstance(module, nn.Module):
            raise InputError(f"{self.where} makes a {type(module).__name__}: it has to be a torch.nn.Module")
        for part in module.modules():
            if hasattr(part, "_orig_mod"):
                raise InputError(f"{self.where} is compiled: leave torch.compile out, as several tasks run it at once")
            if self.role.at_once and type(part) in PLAIN:
                part.forward = MethodType(PLAIN[type(part)], part)
        return module

    def init(self, generator: torch.Generator) -> Params:
        """Return the parameters of one that is made anew, with random numbers from the generator."""
        return {name: value.detach().clone() for name, value in self.made(generator).named_parameters()}

    def _of_outputs(self) -> set[str]:
        """Return the names of the parameters whose shapes go with the number of outputs."""
        try:
            wider = self.made(torch.Generator().manual_seed(0), self.outputs + 1)
        except Exception:  # it takes no other number than its own
            return set()
        shapes = {name: value.shape for name, value in wider.named_parameters()}
        return {name for name, value in self.template.named_parameters() if shapes.get(name) != value.shape}

    @cached_property
    def head(self) -> frozenset[str]:
        """Names of the parameters of the last layer.

        It is the one whose shapes go with the number of outputs, wherever it is registered; of several, and where no
        shape does, the last that is registered.

        Raises:
            InputError: One of them is a parameter of another layer too.
        """
        layers = {name: name.partition(".parametrizations.")[0] for name in self._dims}
        layers = {name: at if at != name else name.rpartition(".")[0] for name, at in layers.items()}
        wanted = self._of_outputs() or self._dims.keys()
        last = [at for name, at in layers.items() if name in wanted][-1]
        found = frozenset(name for name, at in layers.items() if at == last)
        parts = dict(self.template.named_parameters(prefix="", remove_duplicate=False))
        if shared := [name for name in parts if name.rpartition(".")[0] == last and name not in self._dims]:
            raise InputError(
                f"{self.where}: {shared[0]} of the last layer is a parameter of another one too, which would change "
                "with it: inner.adapt = 'last' (and in few-shot learning model.shared_head and method = 'pretrained') "
                "needs a last layer of its own"
            )
        return found

    def of_rows(self, params: Params, inputs: Tensor) -> Tensor:
        """Return outputs (..., outputs) for rows (..., width), by parameters of one task."""
        try:  # a call puts the parameters into the module while it runs: one for each thread
            module = self.idle.pop()
        except IndexError:
            module = copy.deepcopy(self.template)
        try:
            outputs: Tensor = functional_call(module, params, (self.shaped(inputs.reshape(-1, self.width)),))
        finally:
            self.idle.append(module)
        return outputs.reshape(*inputs.shape[:-1], self.outputs)

    def shaped(self, rows: Tensor) -> Tensor:
        """Return what the module gets for rows (n, width): in its units, (n, *shape)."""
        scaled = rows if self._units is None else rows / self._units.to(rows)
        return scaled.reshape(len(rows), *self.shape)

    def restored(self, params: Params) -> nn.Module:
        """Return a module of its own with these parameters, of layers as the user has them."""
        module = self.made(torch.Generator().manual_seed(0))
        for part in module.modules():
            if self.role.at_once and type(part) in PLAIN:
                del part.forward  # theirs again, where no derivatives are taken
        module.load_state_dict({name: params[name] for name in self._dims}, strict=False)
        return module
