"""Counter-based random numbers: each number is a pure function of a seed and a position.

A batch that is split, reordered or moved to another device keeps its numbers, because no stream is consumed:
row i of the output depends on ``seeds[i]`` alone. The generator is SplitMix64 (Steele, Lea and Flood, "Fast
splittable pseudorandom number generators", OOPSLA 2014), evaluated at the counters 1, 2, 3, ... of each seed.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def _shift_right(value: Tensor, bits: int) -> Tensor:
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _wrapped(value: int) -> int:
    """Return the integer as a signed 64-bit one; as a tensor it would have to be copied to the GPU."""
    return (value + 2**63) % 2**64 - 2**63


def _mix(value: Tensor) -> Tensor:
    value = (value ^ _shift_right(value, 30)) * _MIX_1
    value = (value ^ _shift_right(value, 27)) * _MIX_2
    return value ^ _shift_right(value, 31)


def fold_in(seeds: Tensor, data: int | Tensor) -> Tensor:
    """Derive new seeds from seeds and a number, such as a purpose, an iteration or a task index.

    Args:
        seeds: int64 tensor of any shape.
        data: An integer, or an int64 tensor that broadcasts with ``seeds``.

    Returns:
        int64 seeds of the broadcast shape, unrelated to those for any other ``data``.
    """
    other = data * _MIX_2 + _GOLDEN
    return _mix(_mix(seeds + _GOLDEN) ^ (_wrapped(other) if isinstance(other, int) else other.to(seeds.device)))


def uniform(seeds: Tensor, shape: Sequence[int]) -> Tensor:
    """Return uniform numbers in the open interval (0, 1), float64.

    Args:
        seeds: int64 seeds, any shape.
        shape: Shape of the numbers of each seed.

    Returns:
        float64 tensor of shape ``(*seeds.shape, *shape)``.
    """
    counters = torch.arange(1, math.prod(shape) + 1, device=seeds.device) * _GOLDEN
    # 52 bits and the half below them fill a float64: with 53 the largest number would round to 1.
    bits = _shift_right(_mix(seeds.unsqueeze(-1) + counters), 12)
    return ((bits.double() + 0.5) * 2.0**-52).reshape(*seeds.shape, *shape)


def normal(seeds: Tensor, shape: Sequence[int]) -> Tensor:
    """Return standard normal numbers, float64, by the inverse of the normal distribution function.

    Args:
        seeds: int64 seeds, any shape.
        shape: Shape of the numbers of each seed.

    Returns:
        float64 tensor of shape ``(*seeds.shape, *shape)``.
    """
    numbers: Tensor = torch.special.ndtri(uniform(seeds, shape))
    return numbers
