"""Modules of a user's own for few-shot learning, and what cannot be one."""

import torch
from torch import Tensor, nn


class Plain(nn.Module):
    """The package's perceptron of 6 units, as a user would write it."""

    def __init__(self, shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.start, self.end = nn.Linear(torch.Size(shape).numel(), 6), nn.Linear(6, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.end(self.start(inputs.flatten(1)).relu())


class Normed(Plain):
    """With layer norm, and a constant buffer."""

    def __init__(self, shape: tuple[int, ...], outputs: int) -> None:
        super().__init__(shape, outputs)
        self.norm = nn.LayerNorm(6)
        self.register_buffer("share", torch.tensor(0.5))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.end(torch.tanh(self.share * self.norm(self.start(inputs.flatten(1)))))


def convolutions(shape: tuple[int, ...], outputs: int) -> nn.Module:
    """Batch norm by the batch's own statistics, a pooling, a pair of linear layers."""
    return nn.Sequential(
        nn.Conv2d(shape[0], 4, 3, padding=1),
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * (shape[1] // 2) * (shape[2] // 2), outputs),
    )


def batch_normed(shape: tuple[int, ...], outputs: int) -> nn.Module:
    """Without convolutions: it is mapped over tasks."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(torch.Size(shape).numel(), 6),
        nn.BatchNorm1d(6, track_running_stats=False),
        nn.Tanh(),
        nn.Linear(6, outputs),
    )


class Series(nn.Module):
    """Rows of a picture as a series: a recurrent network, which cannot be mapped over tasks."""

    def __init__(self, shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.start, self.end = nn.GRU(shape[-1], 5, batch_first=True), nn.Linear(5, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.end(self.start(inputs.flatten(1, -2))[0][:, -1])


class Running(Plain):
    """Batch norm that keeps running statistics."""

    def __init__(self, shape: tuple[int, ...], outputs: int) -> None:
        super().__init__(shape, outputs)
        self.norm = nn.BatchNorm1d(6)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.end(self.norm(self.start(inputs.flatten(1))))


class HeadFirst(Plain):
    """The last layer is registered before the others."""

    def __init__(self, shape: tuple[int, ...], outputs: int) -> None:
        super().__init__(shape, outputs)
        self.start = self._modules.pop("start")


class WideInside(Plain):
    """Another layer than the last is as wide as the outputs too."""

    def __init__(self, shape: tuple[int, ...], outputs: int) -> None:
        super().__init__(shape, outputs)
        self.start = nn.Linear(torch.Size(shape).numel(), 2 * outputs)
        self.end = nn.Linear(2 * outputs, outputs)


class Tied(Plain):
    """A last layer whose weights are another's too."""

    def __init__(self, shape: tuple[int, ...], outputs: int) -> None:
        super().__init__(shape, outputs)
        self.middle, self.last = nn.Linear(outputs, outputs), nn.Linear(outputs, outputs)
        self.last.weight = self.middle.weight

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(self.middle(super().forward(inputs)).tanh())


def wide(shape: tuple[int, ...], outputs: int) -> nn.Module:
    """One output too many."""
    return Plain(shape, outputs + 1)


class Transposed(Plain):
    """Ends with a layer that has a column for each class, and a number for all of them."""

    def __init__(self, shape: tuple[int, ...], outputs: int) -> None:
        super().__init__(shape, outputs)
        self.end = nn.Module()
        self.end.weight, self.end.unit = nn.Parameter(torch.rand(6, outputs)), nn.Parameter(torch.ones(()))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.start(inputs.flatten(1)).relu() @ self.end.weight * self.end.unit
