"""Networks as people bring them: some are right, and some cannot be a policy."""

from types import MethodType
from typing import Any

import brought
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn


class Layered(nn.Module):
    """A residual block between layer norms."""

    def __init__(self, observation_space: Any, outputs: int) -> None:
        super().__init__()
        self.start, self.norm = nn.Linear(observation_space.shape[0], 16), nn.LayerNorm(16)
        self.block, self.end = nn.Sequential(nn.Linear(16, 16), nn.Tanh()), nn.Linear(16, outputs)

    def forward(self, observations: Tensor) -> Tensor:
        hidden = self.norm(self.start(observations))
        return self.end(hidden + self.block(hidden))


class Convolutions(nn.Module):
    """For pictures (n, height, width, channels)."""

    def __init__(self, observation_space: Any, outputs: int) -> None:
        super().__init__()
        height, width, channels = observation_space.shape
        self.layers = nn.Sequential(nn.Conv2d(channels, 4, 4, 4), nn.ReLU(), nn.Flatten())
        with torch.no_grad():
            wide = self.layers(torch.zeros(1, channels, height, width)).shape[1]
        self.end = nn.Linear(wide, outputs)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.end(self.layers(pictures.movedim(-1, 1)))


class Grouped(nn.Module):
    """Convolutions with a group norm."""

    def __init__(self, observation_space: Any, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 4, 4), nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten())
        self.end = nn.Linear(64, outputs)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.end(self.layers(pictures.movedim(-1, 1)))


class FunctionalNorm(Layered):
    """What torch differentiates wrongly twice under vmap, out of our reach."""

    def forward(self, observations: Tensor) -> Tensor:
        hidden = nn.functional.layer_norm(self.start(observations), (16,), self.norm.weight, self.norm.bias)
        return self.end(hidden + self.block(hidden))


class Twice(nn.Linear):
    """What the perceptron without hidden layers is."""

    def __init__(self, observation_space: Any, outputs: int) -> None:
        super().__init__(observation_space.shape[0], outputs)


class Scaled(Layered):
    """A constant buffer is fine."""

    def __init__(self, observation_space: Any, outputs: int) -> None:
        super().__init__(observation_space, outputs)
        self.register_buffer("scale", torch.full((observation_space.shape[0],), 0.5))

    def forward(self, observations: Tensor) -> Tensor:
        return super().forward(observations * self.scale)


class RunningStatistics(Layered):
    def __init__(self, observation_space: Any, outputs: int) -> None:
        super().__init__(observation_space, outputs)
        self.norm = nn.BatchNorm1d(16)  # type: ignore[assignment]


class BatchStatistics(Layered):
    def __init__(self, observation_space: Any, outputs: int) -> None:
        super().__init__(observation_space, outputs)
        self.norm = nn.BatchNorm1d(16, track_running_stats=False)  # type: ignore[assignment]


class Dropping(Layered):
    def __init__(self, observation_space: Any, outputs: int) -> None:
        super().__init__(observation_space, outputs)
        self.block = nn.Sequential(nn.Linear(16, 16), nn.Dropout(0.5))


class Counting(Layered):
    def __init__(self, observation_space: Any, outputs: int) -> None:
        super().__init__(observation_space, outputs)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, observations: Tensor) -> Tensor:
        self.seen += 1
        return super().forward(observations)


class TooManyOutputs(Layered):
    def __init__(self, observation_space: Any, outputs: int) -> None:
        super().__init__(observation_space, outputs + 1)


class Unused(Layered):
    def __init__(self, observation_space: Any, outputs: int) -> None:
        super().__init__(observation_space, outputs)
        self.value = nn.Linear(16, 1)


class RandomBuffer(Scaled):
    def __init__(self, observation_space: Any, outputs: int) -> None:
        super().__init__(observation_space, outputs)
        self.register_buffer("chance", torch.tensor(np.random.default_rng().random(3)))


class Infinite(Layered):
    def __init__(self, observation_space: Any, outputs: int) -> None:
        super().__init__(observation_space, outputs)
        self.register_buffer("high", torch.full((2,), torch.inf))

    def forward(self, observations: Tensor) -> Tensor:
        return super().forward((observations + self.high) / (2 * self.high))


class NotCopied(Layered):
    def __init__(self, observation_space: Any, outputs: int) -> None:
        super().__init__(observation_space, outputs)
        self.twice = 2 * self.start.weight


class Normed(Layered):
    def __init__(self, observation_space: Any, outputs: int) -> None:
        super().__init__(observation_space, outputs)
        self.end = nn.utils.parametrizations.weight_norm(self.end)  # type: ignore[assignment]


class NoParameters(nn.Module):
    def __init__(self, observation_space: Any, outputs: int) -> None:
        super().__init__()


class Frozen(Layered):
    def __init__(self, observation_space: Any, outputs: int) -> None:
        super().__init__(observation_space, outputs)
        self.start.weight.requires_grad_(False)


class Lazy(nn.Module):
    def __init__(self, observation_space: Any, outputs: int) -> None:
        super().__init__()
        self.end = nn.LazyLinear(outputs)


class NamedAsOurs(Layered):
    def __init__(self, observation_space: Any, outputs: int) -> None:
        super().__init__(observation_space, outputs)
        self.log_std = nn.Parameter(torch.zeros(outputs))


class OneArgument(nn.Module):
    def __init__(self, observation_space: Any) -> None:
        super().__init__()


class Fails(Layered):
    def forward(self, observations: Tensor) -> Tensor:
        return self.end(observations)


class Branches(Layered):
    """Looks at a number, which several tasks at once do not have."""

    def forward(self, observations: Tensor) -> Tensor:
        return super().forward(observations) if self.start.weight.sum() > -1e9 else observations


class Recurrent(Layered):
    """Has derivatives of several tasks at once, and no outputs."""

    def __init__(self, observation_space: Any, outputs: int) -> None:
        super().__init__(observation_space, outputs)
        self.cell = nn.GRU(outputs, outputs, batch_first=True)

    def forward(self, observations: Tensor) -> Tensor:
        return self.cell(super().forward(observations).unsqueeze(1))[0][:, -1]


def not_a_module(observation_space: Any, outputs: int) -> int:
    return 1


class Attention(nn.Module):
    """Whose outputs are rounded in another way after eval()."""

    def __init__(self, observation_space: Any, outputs: int) -> None:
        super().__init__()
        self.start = nn.Linear(1, 8)
        self.attention, self.end = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, outputs)

    def forward(self, observations: Tensor) -> Tensor:
        tokens = self.start(observations.unsqueeze(-1))
        return self.end(self.attention(tokens, tokens, tokens)[0].mean(1))


class Acting(Layered):
    """Its dropout is off, as it is made for acting."""

    def __init__(self, observation_space: Any, outputs: int) -> None:
        super().__init__(observation_space, outputs)
        self.block = nn.Sequential(nn.Linear(16, 16), nn.Dropout(0.5))
        self.eval()


class PlainNumbers(Layered):
    """Random numbers that are neither parameters nor buffers, as of Fourier features."""

    def __init__(self, observation_space: Any, outputs: int) -> None:
        super().__init__(observation_space, outputs)
        self.frequencies = torch.tensor(np.random.default_rng().normal(size=2), dtype=torch.float32)

    def forward(self, observations: Tensor) -> Tensor:
        return super().forward(torch.sin(observations * self.frequencies))


class WhenTraining(Layered):
    def forward(self, observations: Tensor) -> Tensor:
        outputs = super().forward(observations)
        return outputs if self.training else outputs.softmax(-1)


class NumpyWeights(Layered):
    def __init__(self, observation_space: Any, outputs: int) -> None:
        super().__init__(observation_space, outputs)
        self.end.weight.data = torch.tensor(np.random.default_rng().normal(size=(outputs, 16)), dtype=torch.float32)


class OtherLayers(Layered):
    made = 0

    def __init__(self, observation_space: Any, outputs: int) -> None:
        super().__init__(observation_space, outputs)
        type(self).made += 1
        self.block = nn.Sequential(nn.Linear(16, 15 + self.made), nn.Linear(15 + self.made, 16))


_SAME: dict[str, nn.Module] = {}


def same_again(observation_space: Any, outputs: int) -> nn.Module:
    return _SAME.setdefault("module", Layered(observation_space, outputs))


def compiled(observation_space: Any, outputs: int) -> Any:
    return torch.compile(Layered(observation_space, outputs))


class InPlace(Layered):
    def forward(self, observations: Tensor) -> Tensor:
        observations -= 0.5
        return super().forward(observations)


class Tied(Layered):
    """Its last layer shares its weight with the one before."""

    def __init__(self, observation_space: Any, outputs: int) -> None:
        super().__init__(observation_space, outputs)
        self.middle, self.last = nn.Linear(outputs, outputs), nn.Linear(outputs, outputs)
        self.last.weight = self.middle.weight

    def forward(self, observations: Tensor) -> Tensor:
        return self.last(self.middle(super().forward(observations)).tanh())


def _sine(layer: Any, x: Tensor) -> Tensor:
    return nn.functional.linear(x, layer.weight, layer.bias).sin()


class OwnForward(Layered):
    """A layer whose ``forward`` is an attribute of its own."""

    def __init__(self, observation_space: Any, outputs: int) -> None:
        super().__init__(observation_space, outputs)
        self.block[0].forward = MethodType(_sine, self.block[0])


class Closure(Layered):
    """The same by a closure, which goes on to use the weights that the layer was made with."""

    def __init__(self, observation_space: Any, outputs: int) -> None:
        super().__init__(observation_space, outputs)
        own = self.block[0]
        own.forward = lambda x: _sine(own, x)


class Flat(nn.Module):
    """Takes observations of any shape."""

    def __init__(self, observation_space: Any, outputs: int) -> None:
        super().__init__()
        self.end = nn.Linear(int(np.prod(observation_space.shape)), outputs)

    def forward(self, observations: Tensor) -> Tensor:
        return self.end(observations.flatten(1))


class Board(brought.Point):
    """Bytes that are no picture: their largest is 1."""

    observation_space = spaces.Box(0, 1, (4, 4), np.uint8)

    def seen(self) -> Any:
        return np.eye(4, dtype=np.uint8)


class PictureAndPlace(brought.Point):
    """A picture of bytes beside two numbers."""

    observation_space = spaces.Dict(
        {"image": spaces.Box(0, 255, (3, 3), np.uint8), "place": spaces.Box(-10, 10, (2,), np.float32)}
    )

    def seen(self) -> Any:
        return {"image": np.full((3, 3), 255, np.uint8), "place": self.x.astype(np.float32)}


class Pictures(brought.Point):
    """Shows where it is as a picture of bytes."""

    observation_space = spaces.Box(0, 255, (16, 16, 1), np.uint8)

    def seen(self) -> Any:
        picture = np.zeros((16, 16, 1), np.uint8)
        row, column = np.clip((8 + 4 * self.x).astype(int), 0, 15)
        picture[row, column] = 255
        return picture
