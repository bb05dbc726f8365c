"""Messages between processes whose Python and numpy may differ: builtin types alone, arrays as their bytes."""

import pickle
from typing import Any

import numpy as np

ARRAY = "__array__"
PROTOCOL = 4
"""Of pickle; every Python since 3.8 has it."""


def packed(value: object) -> bytes:
    """Return a message of numbers, texts, arrays, and tuples, lists and dictionaries of them."""
    return pickle.dumps(_plain(value), PROTOCOL)


def unpacked(message: bytes) -> Any:  # noqa: ANN401  whatever was packed
    """Return what a message holds; named tuples have become tuples."""
    return _own(pickle.loads(message))


def _plain(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, np.ndarray):
        return {ARRAY: (value.dtype.str, value.shape, value.tobytes())}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (tuple, list)):
        parts = [_plain(part) for part in value]
        return parts if isinstance(value, list) else tuple(parts)
    return {key: _plain(part) for key, part in value.items()} if isinstance(value, dict) else value


def _own(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, (tuple, list)):
        parts = [_own(part) for part in value]
        return parts if isinstance(value, list) else tuple(parts)
    if not isinstance(value, dict):
        return value
    if ARRAY in value:
        dtype, shape, content = value[ARRAY]
        return np.frombuffer(content, dtype).reshape(shape).copy()
    return {key: _own(part) for key, part in value.items()}
