"""Actions of a policy as a gymnasium environment takes them."""

from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from maml_envs.errors import InputError

UNBOUNDED = 1e18
"""A bound of an action this large or larger is none."""


class Affine(NamedTuple):
    """A map of rows: middle + reach clip(row, least, most)."""

    least: NDArray[np.float64]  # (act,)
    most: NDArray[np.float64]
    middle: NDArray[np.float64]
    reach: NDArray[np.float64]


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
    spans: bool = True  # -1 ... 1 spans the bounds; otherwise actions are passed on, clipped

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
        return np.asarray(self.spans & (self.low > -UNBOUNDED) & (self.high < UNBOUNDED)).ravel()

    def space(self) -> spaces.Box | spaces.Discrete:
        """Return the environment's own action space."""
        if self.choices:
            return spaces.Discrete(self.choices, start=self.start)
        return spaces.Box(self.low, self.high, dtype=np.dtype(self.dtype).type)

    def affine(self) -> Affine:
        """Return the map from a policy's rows to a Box."""
        low, high, bounded = self.low.astype(np.float64).ravel(), self.high.astype(np.float64).ravel(), self._bounded()
        middle, reach = np.zeros_like(low), np.ones_like(low)
        middle[bounded] = (high[bounded] + low[bounded]) / 2
        reach[bounded] = (high[bounded] - low[bounded]) / 2
        return Affine(np.where(bounded, -1.0, low), np.where(bounded, 1.0, high), middle, reach)

    def exact(self, actions: NDArray[Any]) -> NDArray[Any]:
        """Return actions (n, *shape) as the space has them: of its type, and within bounds that rounding may leave."""
        return actions if self.choices else np.asarray(np.clip(actions.astype(self.dtype), self.low, self.high))

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
        least, most, middle, reach = self.affine()
        unit = np.clip(rows.astype(np.float64), least, most)
        return self.exact((middle + reach * unit).reshape(len(rows), *self.low.shape))


def passed_on(space: gymnasium.Space[Any]) -> Actions:
    """Return the map of a space that a policy's actions are in as they are, but for its bounds: a TaskEnv's."""
    return Actions.of(space, "a TaskEnv")._replace(spans=False)
