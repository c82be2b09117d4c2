"""Where the time went: the big losses in minutes, parts and money, and the Pareto of stops.

Owns: the split of planned busy time into losses that add up. Leaves to others: times and quantities (`plant.oee`).

The first six are Nakajima's six big losses. Four more hold what those have no place for (waiting, unplanned
maintenance, unknown, unobserved), so that losses + ideal time of good parts = planned busy time, exactly.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from plant.calendar import Period, overlap_ns
from plant.events import Event
from plant.instant import NS_PER_S
from plant.oee import Rating, TimeElements
from plant.timeline import Element, Judged, judged, timeline

NS_PER_MINUTE: Final = 60 * NS_PER_S
PARETO_EVENTS_MAX: Final = 1000
"""Event ids that one row of a Pareto carries at most; `count` stays exact."""


class Loss(StrEnum):
    """The six big losses in their order, then the rest of planned busy time."""

    BREAKDOWNS = "breakdowns"
    SETUP_AND_ADJUSTMENT = "setup_and_adjustment"
    MINOR_STOPS = "minor_stops"
    REDUCED_SPEED = "reduced_speed"
    PROCESS_DEFECTS = "process_defects"
    STARTUP_REJECTS = "startup_rejects"
    WAITING = "waiting"
    MAINTENANCE = "maintenance"
    UNKNOWN = "unknown"
    """Unknown, but its parts are counted."""
    UNOBSERVED = "unobserved"
    """Neither state nor parts are known: in no denominator, so no loss of OEE, but planned time all the same."""


FACTOR: Final[dict[Loss, Literal["availability", "performance", "quality", "none"]]] = {
    Loss.BREAKDOWNS: "availability",
    Loss.SETUP_AND_ADJUSTMENT: "availability",
    Loss.MINOR_STOPS: "performance",
    Loss.REDUCED_SPEED: "performance",
    Loss.PROCESS_DEFECTS: "quality",
    Loss.STARTUP_REJECTS: "quality",
    Loss.WAITING: "availability",
    Loss.MAINTENANCE: "availability",
    Loss.UNKNOWN: "availability",
    Loss.UNOBSERVED: "none",
}
"""The factor of OEE that each loss lowers."""


@dataclass(frozen=True, slots=True)
class LossRow:
    """One loss. parts: what could have been made in that time at the ideal cycle, None when it is not known.

    money: minutes at the cost per hour, None without one. Both are None for UNOBSERVED: nobody knows whether anything
    was lost. minutes of REDUCED_SPEED are negative when the machine was
    faster than its ideal cycle: the sign that the cycle is wrong.
    """

    loss: Loss
    minutes: float
    parts: float | None
    money: float | None


def big_losses(e: TimeElements, cost_per_hour: float | None = None) -> list[LossRow]:
    """Return every loss of time elements, in the order of `Loss`.

    Speed and quality losses need an ideal cycle; without one all production time counts as of full speed.
    """
    rated = not e.unrated and e.pq_planned > 0
    speed = e.apt - e.micro_stop - e.ideal if not e.unrated else 0.0
    per_part = e.ideal / e.pq_planned if rated else None
    rejects = e.ideal / e.pq if rated and e.pq > 0 else 0.0
    ns: dict[Loss, float] = {
        Loss.BREAKDOWNS: e.adet,
        Loss.SETUP_AND_ADJUSTMENT: e.aust,
        Loss.MINOR_STOPS: e.micro_stop,
        Loss.REDUCED_SPEED: speed,
        Loss.PROCESS_DEFECTS: rejects * (e.rq - e.startup_rq),
        Loss.STARTUP_REJECTS: rejects * e.startup_rq,
        Loss.WAITING: e.adot,
        Loss.MAINTENANCE: e.maintenance,
        Loss.UNKNOWN: e.unknown - e.unobserved,
        Loss.UNOBSERVED: e.unobserved,
    }
    return [
        LossRow(
            loss,
            lost / NS_PER_MINUTE,
            lost / per_part if per_part and loss is not Loss.UNOBSERVED else None,
            None if cost_per_hour is None or loss is Loss.UNOBSERVED else lost / NS_PER_MINUTE / 60 * cost_per_hour,
        )
        for loss, lost in ns.items()
    ]


@dataclass(frozen=True, slots=True)
class ParetoRow:
    """All stops of one cause. cause: the reason, or the state where no reason was given, or "micro_stop".

    minutes: planned busy time lost. count: how often. share: of the minutes (or counts) of all rows, cumulative: with
    the rows above. events: ids of the events behind it, the way back to the log.
    """

    cause: str
    minutes: float
    count: int
    share: float
    cumulative: float
    events: tuple[str, ...]


def pareto(
    events: Iterable[Event],
    asset: str,
    period: Period,
    rating: Rating,
    *,
    until: int | None = None,
    by: Literal["minutes", "count"] = "minutes",
) -> list[ParetoRow]:
    """Return the stops in planned busy time by cause, worst first, by minutes or by count (short stops hide in one)."""
    end = period.end if until is None else min(until, period.end)
    items = judged(timeline(events, asset, period.start, end), period.start, rating.micro_stop_ns)
    minutes: dict[str, float] = {}
    count: dict[str, int] = {}
    ids: dict[str, list[str]] = {}
    previous = ""
    for item in items:
        cause = _cause(item)
        planned = overlap_ns(period.busy, item.segment.start, item.segment.end)
        if cause and planned:
            minutes[cause] = minutes.get(cause, 0.0) + planned / NS_PER_MINUTE
            count[cause] = count.get(cause, 0) + (cause != previous)
            known = ids.setdefault(cause, [])
            if item.segment.event and len(known) < PARETO_EVENTS_MAX:
                known.append(item.segment.event)
        previous = cause
    weight: dict[str, float] = minutes if by == "minutes" else {cause: float(n) for cause, n in count.items()}
    return _rows(sorted(minutes, key=lambda cause: (-weight[cause], cause)), weight, minutes, count, ids)


def _cause(item: Judged) -> str:
    """Return what a stop is booked under, "" for production."""
    if item.micro_stop:
        return "micro_stop"
    if item.element is Element.APT:
        return ""
    return str(item.segment.reason or item.segment.state)


def _rows(
    order: Sequence[str],
    weight: dict[str, float],
    minutes: dict[str, float],
    count: dict[str, int],
    ids: dict[str, list[str]],
) -> list[ParetoRow]:
    total = sum(weight.values()) or 1.0
    cumulative = 0.0
    rows = []
    for cause in order:
        cumulative += weight[cause] / total
        rows.append(
            ParetoRow(cause, minutes[cause], count[cause], weight[cause] / total, cumulative, tuple(ids.get(cause, ())))
        )
    return rows
