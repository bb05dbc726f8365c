"""Spaces of a gymnasium environment as a policy sees them: flat rows of numbers."""

from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from maml_envs.errors import InputError


def observation_box(space: gymnasium.Space[Any], where: str) -> spaces.Box:
    """Return the space of flattened observations, float32.

    Args:
        space: A Box of any shape, or a Dict or Tuple of such spaces: what ``gymnasium.spaces.flatten`` flattens.
        where: Names the environment in errors.

    Raises:
        InputError: It does not flatten to a row of numbers.
    """
    flat = spaces.flatten_space(space) if space.is_np_flattenable else None
    if not isinstance(flat, spaces.Box):
        raise InputError(
            f"{where}: observation_space is {space}, which does not flatten to a row of numbers: "
            "wrap the environment in gymnasium.wrappers.TransformObservation to a Box"
        )
    with np.errstate(over="ignore"):  # a float64 bound that float32 cannot hold is infinite
        low, high = np.asarray(flat.low, np.float32), np.asarray(flat.high, np.float32)
    return spaces.Box(low, high, dtype=np.float32)


class Actions(NamedTuple):
    """The map from a policy's rows to the environment's actions.

    A Discrete action is a one-hot row. A dimension of a Box that is bounded on both sides is -1 ... 1 for the policy,
    clipped, spanning the bounds; any other is passed on as it is, clipped to the bound that it has.
    """

    space: spaces.Box | spaces.Discrete  # the environment's
    low: NDArray[np.float64]  # (act,) the policy's bounds
    high: NDArray[np.float64]
    middle: NDArray[np.float64]  # (act,) the environment's action is middle + half * the policy's
    half: NDArray[np.float64]

    @classmethod
    def of(cls, space: gymnasium.Space[Any], where: str) -> "Actions":
        """Make it from the environment's action space; ``where`` names the environment in errors.

        Raises:
            InputError: It is neither a Box of floating-point numbers nor Discrete.
        """
        nothing = np.zeros(0)
        if isinstance(space, spaces.Discrete):
            return cls(space, nothing, nothing, nothing, nothing)
        if not isinstance(space, spaces.Box) or not np.issubdtype(space.dtype or np.int64, np.floating):
            raise InputError(
                f"{where}: action_space is {space}, and a policy gives a Box of floating-point numbers or Discrete: "
                "wrap the environment in gymnasium.wrappers.TransformAction to one of them"
            )
        low, high = (bound.astype(np.float64).ravel() for bound in (space.low, space.high))
        finite = np.isfinite(low) & np.isfinite(high)
        middle, half = np.zeros_like(low), np.ones_like(low)
        middle[finite], half[finite] = (high[finite] + low[finite]) / 2, (high[finite] - low[finite]) / 2
        return cls(space, np.where(finite, -1.0, low), np.where(finite, 1.0, high), middle, half)

    def policy_space(self) -> spaces.Box | spaces.Discrete:
        """Return the space of the policy's actions."""
        if isinstance(self.space, spaces.Discrete):
            return spaces.Discrete(int(self.space.n))
        return spaces.Box(self.low.astype(np.float32), self.high.astype(np.float32), dtype=np.float32)

    def __call__(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Return the environment's actions, (batch, *shape), for rows (batch, act)."""
        if isinstance(self.space, spaces.Discrete):
            return np.asarray(rows.argmax(-1) + self.space.start)
        actions = self.middle + self.half * np.clip(rows.astype(np.float64), self.low, self.high)
        shaped = actions.reshape(len(rows), *self.space.shape).astype(self.space.dtype)
        return np.asarray(np.clip(shaped, self.space.low, self.space.high))  # rounding may have left the bounds
