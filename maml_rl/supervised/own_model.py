"""A user's ``torch.nn.Module`` as the model that adapts in few-shot learning."""

from functools import lru_cache

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from maml_envs import InputError
from maml_rl.core.own_module import OwnModule
from maml_rl.core.tree import Params
from maml_rl.core.unfit_module import Role
from maml_rl.supervised import models

ROLE = Role("model.network", "shape, outputs", of_batch=True)


class OwnModel:
    """The models of ``model.network = "module:Class"``, which are made as ``Class(shape, outputs)``.

    They get inputs (n, *shape), float32, and give (n, outputs): logits, or values. Unlike a policy, they may look at
    all inputs of a batch, as batch norm does.

    Args:
        name: "module:Class".
        shape: Of one input.
        outputs: Of the model that is looked at first.
        device: Where it computes.

    Attributes:
        loop: Tasks are looped over: on a CPU convolutions with weights of each task are slower mapped, and some
            modules cannot be mapped.
        of_batch: An output depends on the other inputs of its batch.
        norms: Names of batch norm's scales and shifts.

    Raises:
        InputError: It cannot be taken: the message says why.
    """

    def __init__(self, name: str, shape: tuple[int, ...], outputs: int, device: torch.device) -> None:
        self._name, self._shape, self._device = name, shape, device
        self.loop, self._own = False, lru_cache(maxsize=None)(self._made)
        try:
            self._first = self._own(outputs)
            convolves = any(isinstance(part, _ConvNd) for part in self._first.template.modules())
            self.loop = convolves and device.type == "cpu"
        except InputError:
            self.loop = True
        if self.loop:
            self._own.cache_clear()
            self._first = self._own(outputs)
        self.of_batch, self.norms = self._first.of_batch, models.norms(self._first.template)

    def _made(self, outputs: int) -> OwnModule:
        return OwnModule(self._name, ROLE._replace(at_once=not self.loop), self._shape, self._shape, outputs)

    @property
    def head(self) -> frozenset[str]:
        """Names of the last layer's parameters."""
        return self._first.head

    def module(self, outputs: int) -> nn.Module:
        """Return one of so many outputs, whose parameters are never used."""
        return self._own(outputs).template.to(self._device)

    def init(self, outputs: int, generator: torch.Generator) -> Params:
        """Return the parameters of one that is made anew, with random numbers from the generator."""
        return self._own(outputs).init(generator)

    def restored(self, outputs: int, params: Params) -> nn.Module:
        """Return a module of its own with these parameters, of layers as the user has them."""
        return self._own(outputs).restored(params)
