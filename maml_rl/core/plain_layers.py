"""Layers by their plain operations, where torch differentiates its own wrongly twice under ``vmap``."""

from collections.abc import Callable

from torch import Tensor, nn


def _layer_norm(layer: nn.LayerNorm, values: Tensor) -> Tensor:
    axes = tuple(range(-len(layer.normalized_shape), 0))
    return _affine(_standard(values, axes, layer.eps), layer.weight, layer.bias)


def _group_norm(layer: nn.GroupNorm, values: Tensor) -> Tensor:
    groups = values.reshape(values.shape[0], layer.num_groups, -1)
    plain = _standard(groups, (-1,), layer.eps).reshape(values.shape)
    shape = (-1, *[1] * (values.dim() - 2))
    weight, bias = (None if each is None else each.reshape(shape) for each in (layer.weight, layer.bias))
    return _affine(plain, weight, bias)


def _batch_norm(layer: nn.BatchNorm2d, values: Tensor) -> Tensor:
    axes = tuple(axis for axis in range(values.dim()) if axis != 1)
    shape = (-1, *[1] * (values.dim() - 2))
    weight, bias = (None if each is None else each.reshape(shape) for each in (layer.weight, layer.bias))
    return _affine(_standard(values, axes, layer.eps), weight, bias)


def _standard(values: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    centred = values - values.mean(axes, keepdim=True)
    return centred * (centred.square().mean(axes, keepdim=True) + eps).rsqrt()


def _affine(values: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    scaled = values if weight is None else values * weight
    return scaled if bias is None else scaled + bias


PLAIN: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.LayerNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.BatchNorm3d: _batch_norm,
}
"""Layers by their plain operations: under ``vmap``, torch 2.13 has their own second derivatives wrong, by a percent.

Batch norm takes the statistics of the batch: one that keeps its own is not taken.
"""
