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
    """The map from a policy's rows to the environment's actions; plain data, which another process can send.

    A Discrete action is a one-hot row. A dimension of a Box that is bounded on both sides is -1 ... 1 for the policy,
    clipped, spanning the bounds; any other is passed on as it is, clipped to the bound that it has.
    """

    choices: int  # of a Discrete space; 0 for a Box
    start: int  # the first of them
    dtype: str  # of a Box
    low: NDArray[Any]  # the Box, in its shape
    high: NDArray[Any]

    @classmethod
    def of(cls, space: gymnasium.Space[Any], where: str) -> "Actions":
        """Make it from the environment's action space; ``where`` names the environment in errors.

        Raises:
            InputError: It is neither a Box of floating-point numbers nor Discrete.
        """
        if isinstance(space, spaces.Discrete):
            return cls(int(space.n), int(space.start), "", np.zeros(0), np.zeros(0))
        if not isinstance(space, spaces.Box) or not np.issubdtype(space.dtype or np.int64, np.floating):
            raise InputError(
                f"{where}: action_space is {space}, and a policy gives a Box of floating-point numbers or Discrete: "
                "wrap the environment in gymnasium.wrappers.TransformAction to one of them"
            )
        return cls(0, 0, str(space.dtype), space.low, space.high)

    def _bounded(self) -> NDArray[np.bool_]:
        return np.asarray(np.isfinite(self.low) & np.isfinite(self.high)).ravel()

    def policy_space(self) -> spaces.Box | spaces.Discrete:
        """Return the space of the policy's actions."""
        if self.choices:
            return spaces.Discrete(self.choices)
        low, high = (np.where(self._bounded(), one, bound.ravel()) for one, bound in ((-1, self.low), (1, self.high)))
        return spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)

    def __call__(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Return the environment's actions, (batch, *shape), for rows (batch, act)."""
        if self.choices:
            return np.asarray(rows.argmax(-1) + self.start)
        low, high = self.low.astype(np.float64).ravel(), self.high.astype(np.float64).ravel()
        bounded, given = self._bounded(), rows.astype(np.float64)
        middle, half = np.zeros_like(low), np.ones_like(low)
        middle[bounded] = (high[bounded] + low[bounded]) / 2
        half[bounded] = (high[bounded] - low[bounded]) / 2
        unit = np.clip(given, np.where(bounded, -1.0, low), np.where(bounded, 1.0, high))
        shaped = (middle + half * unit).reshape(len(rows), *self.low.shape).astype(self.dtype)
        return np.asarray(np.clip(shaped, self.low, self.high))  # rounding may have left the bounds
