"""A user's ``torch.nn.Module`` as the network of a policy: a pure function of its parameters, stacked over tasks."""

import gymnasium
import torch
from torch import Tensor, nn
from torch.func import vmap

from maml_rl.core.own_module import OwnModule
from maml_rl.core.tree import Params
from maml_rl.core.unfit_module import Role

POLICY = Role("policy.network", "observation_space, outputs", "observations", taken=("log_std", "context"))
"""A policy has parameters of its own beside its network's."""


class OwnNetwork(OwnModule):
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
        super().__init__(name, POLICY, space, tuple(space.shape), outputs, units if bool((units != 1).any()) else None)

    def to(self, device: torch.device) -> "OwnNetwork":
        """Move what it has beside parameters to a device."""
        self.template, self.idle = self.template.to(device), [module.to(device) for module in self.idle]
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

    def adapted(self, params: Params, task: Tensor | None = None) -> nn.Module:
        """Return a module of its own with these parameters, from rows (n, width), less those of a task it is told."""
        return _FromRows(self.restored(params), self.shape, self._units, task)


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
