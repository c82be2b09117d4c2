"""One condition on one channel of values, and the band within which it does not change. Pure arithmetic.

The comparison and the band use the same expressions, so that they agree to the last bit: a value is inside the band
exactly when judging it would change nothing.
"""

import math
from typing import Final, NamedTuple

Band = tuple[float, float]
"""Lowest and highest value, both inclusive."""
ANYTHING: Final[Band] = (-math.inf, math.inf)
NOTHING: Final[Band] = (math.inf, -math.inf)
"""The band of what is not known yet: the next value, whatever it is, must be looked at."""


class Edge(NamedTuple):
    """A condition began or ceased to hold.

    rule: index into the rules. suppression: it is the rule's suppress_when, not its own condition.
    value: the value that did it, NaN where there is none. time: its source time in ns UTC, 0 where there is none.
    """

    rule: int
    holds: bool
    value: float
    time: int
    suppression: bool = False


def _above(x: float) -> float:
    return math.nextafter(x, math.inf)


def _below(x: float) -> float:
    return math.nextafter(x, -math.inf)


class Watch:
    """One condition on one channel: `value op number`, with hysteresis where the operator has a deadband.

    op "away" is |value - centre| > number; its centre may be the value of another tag and is NaN until that is known.
    holds: None while nobody knows; a restart or reload sets it from what is known.
    """

    __slots__ = ("centre", "channel", "deadband", "holds", "number", "op", "rule", "suppression")

    def __init__(self, rule: int, channel: int, op: str, number: float, *, suppression: bool = False) -> None:
        self.rule = rule
        self.channel = channel
        self.op = op
        self.number = number
        self.deadband = 0.0
        self.centre = math.nan
        self.suppression = suppression
        self.holds: bool | None = None if suppression else False

    def judge(self, v: float) -> bool | None:
        """Return whether the condition holds at `v`, which is a number; unchanged where that cannot be said."""
        held = bool(self.holds)
        x = self.number
        match self.op:
            case ">":
                return v > (x - self.deadband if held else x)
            case "<":
                return v < (x + self.deadband if held else x)
            case "away":
                if math.isnan(self.centre):
                    return self.holds
                x = x - self.deadband if held else x
                return v > self.centre + x or v < self.centre - x
            case ">=":
                return v >= x
            case "<=":
                return v <= x
            case "==":
                return v == x
            case _:
                return v != x

    def band(self, v: float) -> Band:
        """Return the inclusive interval around `v` (the present value, NaN = unknown) at which nothing changes."""
        if self.holds is None:
            return NOTHING
        x, held = self.number, self.holds
        match self.op:
            case ">":
                return (_above(x - self.deadband), math.inf) if held else (-math.inf, x)
            case "<":
                return (-math.inf, _below(x + self.deadband)) if held else (x, math.inf)
            case ">=":
                return (x, math.inf) if held else (-math.inf, _below(x))
            case "<=":
                return (-math.inf, x) if held else (_above(x), math.inf)
            case "away":
                return self._band_away(v)
            case _:
                if held == (self.op == "=="):
                    return x, x
                if math.isnan(v):
                    return NOTHING
                return (-math.inf, _below(x)) if v < x else (_above(x), math.inf)

    def _band_away(self, v: float) -> Band:
        if math.isnan(self.centre):
            return ANYTHING
        if not self.holds:
            return self.centre - self.number, self.centre + self.number
        if math.isnan(v):
            return NOTHING
        x = self.number - self.deadband
        return (_above(self.centre + x), math.inf) if v > self.centre else (-math.inf, _below(self.centre - x))
