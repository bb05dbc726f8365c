"""A user's ``torch.nn.Module`` as the network of a policy: a pure function of its parameters, stacked over tasks."""

import copy
import inspect
from collections.abc import Callable
from types import MethodType
from typing import Any

import gymnasium
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from maml_envs import InputError
from maml_envs.adapters.named import import_own
from maml_rl.core.tree import Params
from maml_rl.rl.plain_layers import PLAIN
from maml_rl.rl.unfit_network import refuse_unfit


class OwnNetwork:
    """The network of ``policy.network = "module:Class"``, which is made as ``Class(observation_space, outputs)``.

    It gets observations (n, *shape), float32, in the shape of the space; bytes in 0 ... 1 where they are a
    picture. It gives (n, outputs): means of actions, or logits.

    Args:
        name: "module:Class".
        space: What it is made with: a space of observations, of any shape.
        units: What each number of an observation as a row is divided by, (width,).
        outputs: Width of an action.

    Attributes:
        where: Names it in errors.
        width: Numbers of an observation as a row.
        shape: Of an observation.
        outputs: Width of an action.
        idle: Modules that no thread works with, all alike.

    Raises:
        InputError: It cannot be a policy: the message says why.
    """

    def __init__(self, name: str, space: gymnasium.spaces.Box, units: Tensor, outputs: int) -> None:
        self.where, self.width, self.outputs = f"policy.network = {name!r}", len(units), outputs
        self.shape = tuple(space.shape)
        self._units = units if bool((units != 1).any()) else None
        kind = self._class(name)
        self._make: Callable[[], nn.Module] = lambda: kind(space, outputs)
        module = self.made(torch.Generator().manual_seed(0))
        try:
            self._template, self.idle = module, [copy.deepcopy(module)]
        except Exception as error:
            raise InputError(
                f"{self.where} cannot be copied: {error}; of weight norms, take the one of "
                "torch.nn.utils.parametrizations"
            ) from error
        refuse_unfit(self, module)
        self._dims = {name: value.dim() for name, value in module.named_parameters()}

    def _class(self, name: str) -> Callable[..., Any]:
        module, _, kind = name.partition(":")
        if not kind or not all(part.isidentifier() for part in module.split(".")):
            raise InputError(f"{self.where}: write 'my_module:MyNetwork'")
        found = getattr(import_own(module, self.where), kind, None)
        if not callable(found):
            raise InputError(f"{self.where}: {module} has no {kind!r}")
        try:
            inspect.signature(found).bind(None, None)
        except TypeError as error:
            raise InputError(f"{self.where} is made as {kind}(observation_space, outputs): {error}") from None
        made: Callable[..., Any] = found
        return made

    def made(self, generator: torch.Generator) -> nn.Module:
        """Make the user's module, with torch's random numbers from a seed of the generator's.

        Raises:
            InputError: It is no module, or a compiled one.
        """
        seed = int(torch.randint(2**62, (), generator=generator))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = self._make()
        if not isinstance(module, nn.Module):
            raise InputError(f"{self.where} makes a {type(module).__name__}: it has to be a torch.nn.Module")
        for part in module.modules():
            if hasattr(part, "_orig_mod"):
                raise InputError(f"{self.where} is compiled: leave torch.compile out, as several tasks run it at once")
            if type(part) in PLAIN:
                part.forward = MethodType(PLAIN[type(part)], part)
        return module

    def init(self, generator: torch.Generator) -> Params:
        """Return the parameters of one that is made anew, with random numbers from the generator."""
        return {name: value.detach().clone() for name, value in self.made(generator).named_parameters()}

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
                f"inner.adapt = 'last' with {self.where}: {shared[0]} of the last layer is a parameter of another one "
                "too, which would adapt with it; use inner.adapt = 'all', or give it its own"
            )
        return found

    def to(self, device: torch.device) -> "OwnNetwork":
        """Move what it has beside parameters to a device."""
        self._template, self.idle = self._template.to(device), [module.to(device) for module in self.idle]
        self._units = None if self._units is None else self._units.to(device)
        return self

    def __call__(self, params: Params, inputs: Tensor) -> Tensor:
        """Outputs (..., outputs) for rows (..., width); parameters of one task, or stacked, rows (K, ..., width)."""
        own = {name: params[name] for name in self._dims}
        name, dims = next(iter(self._dims.items()))
        return self._of_rows_each(own, inputs) if own[name].dim() > dims else self.of_rows(own, inputs)

    def _of_rows_each(self, params: Params, inputs: Tensor) -> Tensor:
        outputs: Tensor = vmap(self.of_rows)(params, inputs)
        return outputs

    def of_rows(self, params: Params, inputs: Tensor) -> Tensor:
        """Return outputs (..., outputs) for rows (..., width), by parameters of one task."""
        try:  # a call puts the parameters into the module while it runs: one for each thread
            module = self.idle.pop()
        except IndexError:
            module = copy.deepcopy(self._template)
        try:
            outputs: Tensor = functional_call(module, params, (self.shaped(inputs.reshape(-1, self.width)),))
        finally:
            self.idle.append(module)
        return outputs.reshape(*inputs.shape[:-1], self.outputs)

    def shaped(self, rows: Tensor) -> Tensor:
        """Return what the module gets for rows (n, width): in its units, (n, *shape)."""
        scaled = rows if self._units is None else rows / self._units.to(rows)
        return scaled.reshape(len(rows), *self.shape)

    def adapted(self, params: Params, task: Tensor | None = None) -> nn.Module:
        """Return a module of its own with these parameters, from rows (n, width), less those of a task it is told."""
        module = self.made(torch.Generator().manual_seed(0))
        for part in module.modules():
            if type(part) in PLAIN:
                del part.forward  # theirs again, where no derivatives are taken
        module.load_state_dict({name: params[name] for name in self._dims}, strict=False)
        return _FromRows(module, self.shape, self._units, task)


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
