"""Published results, to print and draw beside ours. Summary values only, each with its source."""

from typing import NamedTuple


class Published(NamedTuple):
    """Mean returns over held-out tasks after 0, 1, 2, ... gradient steps; what was not published is empty."""

    source: str
    returns: tuple[float, ...]  # of MAML
    pretrained: tuple[float, ...] = ()
    random: tuple[float, ...] = ()
    oracle: float | None = None  # without a step

    def of(self, method: str) -> tuple[float, ...]:
        """The returns of a method."""
        oracle = () if self.oracle is None else (self.oracle,)
        return {"maml": self.returns, "pretrained": self.pretrained, "random": self.random, "oracle": oracle}[method]

    def curves(self) -> dict[str, tuple[float, ...]]:
        """What was published, by source and method."""
        names = {"MAML": "maml", "pretrained": "pretrained", "random": "random", "oracle": "oracle"}
        return {f"{self.source}: {name}": self.of(method) for name, method in names.items() if self.of(method)}

    def gap_closed(self, steps: int) -> float | None:
        """Share of the way from the return before adaptation to the oracle's that so many steps went."""
        if self.oracle is None or not 0 < steps < len(self.returns):
            return None
        return (self.returns[steps] - self.returns[0]) / (self.oracle - self.returns[0])

    def normalised(self, steps: int) -> float | None:
        """Where MAML's return is between random parameters' after as many steps, 0, and the oracle's, 1."""
        if self.oracle is None or not steps < min(len(self.returns), len(self.random)):
            return None
        return (self.returns[steps] - self.random[steps]) / (self.oracle - self.random[steps])


_MAML = "Finn et al. 2017"  # means over the 40 test tasks of the results released with the paper
_PEARL = "PEARL's MAML runs"

_ADAPTATION = {
    ("navigation", "finn2017"): Published(
        _MAML,
        (-40.41, -11.68, -3.33, -3.23),
        random=(-82.66, -57.96, -53.84, -46.81),
        oracle=-2.29,
    ),
    ("half-cheetah-vel", "finn2017"): Published(
        _MAML,
        (-129.53, -78.57, -66.62, -60.78),
        pretrained=(-158.0, -135.39, -128.47, -133.61),
        random=(-254.83, -254.33, -246.79, -230.83),
        oracle=-54.47,
    ),
    ("half-cheetah-dir", "finn2017"): Published(
        _MAML,
        (-50.69, 293.19, 313.48, 315.65),
        pretrained=(-43.03, -24.75, -12.85, 19.57),
        random=(-35.73, 21.83, 62.32, 86.18),
        oracle=442.69,
    ),
    ("ant-vel", "finn2017"): Published(
        _MAML,
        (30.58, 96.74, 100.06, 101.41),
        pretrained=(-1.83, 6.11, 8.47, 9.47),
        random=(-78.64, -62.81, -48.55, -35.56),
        oracle=107.89,
    ),
    ("ant-dir", "finn2017"): Published(
        _MAML,
        (8.66, 499.15, 500.68, 499.11),
        pretrained=(3.16, 1.27, 6.51, 6.86),
        random=(3.11, 9.25, 15.96, 26.11),
        oracle=524.80,
    ),
    ("half-cheetah-vel", "gymnasium"): Published(_PEARL, (-198.0, -140.0)),
    ("half-cheetah-dir", "gymnasium"): Published(_PEARL, (-42.0, 364.0)),
}

_HORIZON = {"navigation": 100, "half-cheetah-vel": 200, "half-cheetah-dir": 200, "ant-vel": 200, "ant-dir": 200}


def adaptation(env: str, preset: str | None, horizon: int | None) -> Published | None:
    """The published adaptation curve for an environment, preset and horizon (None: its default), if there is one."""
    if horizon not in (None, _HORIZON.get(env)):
        return None
    return _ADAPTATION.get((env, preset or ""))
