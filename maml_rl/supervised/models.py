"""Models that adapt: plain torch modules, called as functions of their parameters."""

import copy
import itertools
import math
import threading
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from maml_rl.config.few_shot import Model
from maml_rl.core.tree import Params
from maml_rl.supervised.batch_norm import BatchNorm

MANY = 12
"""Images in a batch from which channels last take less time (64 filters, 28 x 28, 2 CPU cores)."""


class ChannelsLast(nn.Sequential):
    """Layers that see images with the channels last in memory, which a CPU is faster with if they are not few."""

    def forward(self, images: Tensor) -> Tensor:
        """Return the outputs for images (n, channels, height, width)."""
        if len(images) >= MANY:
            images = images.to(memory_format=torch.channels_last)
        outputs: Tensor = super().forward(images)  # type: ignore[no-untyped-call]
        return outputs


def network(
    name: str, shape: Sequence[int], outputs: int, hidden: Sequence[int], batch_norm: bool, fused: bool = False
) -> nn.Module:
    """A perceptron, or the MAML paper's convolutional network (section 5.2), with ReLU.

    Batch norm, where there is one, takes the statistics of the batch it is given, in training and at test, keeps no
    running ones, and its scale and shift are parameters like every other.

    Args:
        name: "perceptron", or "convolutional": 3x3 filters of stride 2, then the mean over the image that is left.
        shape: Of one input; images are (channels, height, width).
        outputs: Width of the output.
        hidden: Widths of the layers, or their filters.
        batch_norm: Normalise before each ReLU.
        fused: For one task at a time on a CPU: see ``BatchNorm``, and ``ChannelsLast``.
    """
    layers: list[nn.Module] = []
    if name == "perceptron":
        layers.append(nn.Flatten())
        for before, width in itertools.pairwise((math.prod(shape), *hidden)):
            norm: list[nn.Module] = [BatchNorm(width, fused)] if batch_norm else []
            layers += [nn.Linear(before, width, bias=not batch_norm), *norm, nn.ReLU()]
    else:
        for before, width in itertools.pairwise((shape[0], *hidden)):
            norm = [BatchNorm(width, fused)] if batch_norm else []
            layers += [nn.Conv2d(before, width, 3, stride=2, padding=1, bias=not batch_norm), *norm, nn.ReLU()]
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    last = hidden[-1] if hidden else math.prod(shape)
    kind = ChannelsLast if fused and name == "convolutional" else nn.Sequential
    return kind(*layers, nn.Linear(last, outputs))


def initial(module: nn.Module, name: str, generator: torch.Generator) -> Params:
    """Weights by ``name``, zero biases, and batch norm's scale 1 and shift 0.

    Args:
        module: Whose parameters.
        name: "glorot" for uniform within sqrt(6 / (fan in + fan out)), "truncated_normal" for a normal of deviation
            0.01 cut at two deviations.
        generator: Where they are drawn from.
    """
    params: Params = {}
    for key, value in module.named_parameters():
        drawn = torch.zeros_like(value)
        if value.dim() > 1 and name == "glorot":
            nn.init.xavier_uniform_(drawn, generator=generator)
        elif value.dim() > 1:
            nn.init.trunc_normal_(drawn, std=0.01, a=-0.02, b=0.02, generator=generator)
        elif key.endswith("weight"):
            drawn.fill_(1.0)
        params[key] = drawn
    return params


def head(module: nn.Module) -> frozenset[str]:
    """Names of the last layer's parameters."""
    names = [name for name, _ in module.named_parameters()]
    return frozenset(name for name in names if name.rpartition(".")[0] == names[-1].rpartition(".")[0])


def norms(module: nn.Module) -> frozenset[str]:
    """Names of the scales and shifts of batch norm."""
    layers = {name for name, part in module.named_modules() if isinstance(part, BatchNorm | _BatchNorm)}
    return frozenset(name for name, _ in module.named_parameters() if name.rpartition(".")[0] in layers)


class StandardModel:
    """The models that come with the package; attributes and methods as of ``OwnModel``."""

    def __init__(self, chosen: Model, shape: tuple[int, ...], device: torch.device) -> None:
        self.loop, self.of_batch = device.type == "cpu" and chosen.name == "convolutional", chosen.batch_norm
        self._chosen, self._shape = chosen, shape
        any_one = self.module(2)
        self.head, self.norms = head(any_one), norms(any_one)

    def module(self, outputs: int) -> nn.Module:
        """Return one of so many outputs, whose parameters are never used."""
        return self._network(outputs, fused=self.loop)

    def _network(self, outputs: int, fused: bool) -> nn.Module:
        chosen = self._chosen
        return network(chosen.name, self._shape, outputs, chosen.hidden, chosen.batch_norm, fused)

    def init(self, outputs: int, generator: torch.Generator) -> Params:
        """Return parameters drawn from the generator; see ``initial``."""
        return initial(self.module(outputs), self._chosen.init, generator)

    def restored(self, outputs: int, params: Params) -> nn.Module:
        """Return a module of its own with these parameters, of plain operations, which can be exported."""
        own = self._network(outputs, fused=False)
        own.load_state_dict(params, strict=False)
        return own


class _Copies(threading.local):
    """This thread's copies of modules: functional_call puts parameters into a module for as long as it runs."""

    def __init__(self) -> None:
        self.of: WeakKeyDictionary[nn.Module, nn.Module] = WeakKeyDictionary()


_COPIES = _Copies()


def predict(module: nn.Module, params: Params, inputs: Tensor) -> Tensor:
    """The module's outputs (n, outputs) for one task's inputs (n, *shape); threads may call it side by side."""
    if module not in _COPIES.of:
        _COPIES.of[module] = copy.deepcopy(module)
    outputs: Tensor = torch.func.functional_call(_COPIES.of[module], params, (inputs,))
    return outputs
