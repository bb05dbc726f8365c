"""Published results, to print and draw beside ours. Summary values only, each with its source."""

from typing import NamedTuple


class Published(NamedTuple):
    """Mean return over held-out tasks after 0, 1, 2, ... gradient steps."""

    source: str
    returns: tuple[float, ...]


_MAML = "Finn et al. 2017"
_PEARL = "PEARL's MAML runs"

_ADAPTATION = {
    ("navigation", "finn2017"): Published(_MAML, (-40.41, -11.68, -3.33, -3.23)),
    ("half-cheetah-vel", "finn2017"): Published(_MAML, (-129.5, -78.6, -66.6, -60.8)),
    ("half-cheetah-dir", "finn2017"): Published(_MAML, (-50.7, 293.2, 313.5, 315.7)),
    ("half-cheetah-vel", "gymnasium"): Published(_PEARL, (-198.0, -140.0)),
    ("half-cheetah-dir", "gymnasium"): Published(_PEARL, (-42.0, 364.0)),
}


_HORIZON = {"navigation": 100, "half-cheetah-vel": 200, "half-cheetah-dir": 200}


def adaptation(env: str, preset: str | None, horizon: int | None) -> Published | None:
    """The published adaptation curve for an environment, preset and horizon (None: its default), if there is one."""
    if horizon not in (None, _HORIZON.get(env)):
        return None
    return _ADAPTATION.get((env, preset or ""))
