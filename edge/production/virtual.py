"""The virtual tags of a machine: which there are and what they hold."""

from collections.abc import Sequence
from typing import Final

from edge.production.options import MachineOptions
from plant.events import DowntimeReason, MachineState
from plant.instant import NS_PER_S
from plant.oee import Kpis, TimeElements

STATE_CODES: Final = {
    MachineState.UNKNOWN: 0,
    MachineState.RUNNING: 1,
    MachineState.IDLE: 2,
    MachineState.SETUP: 3,
    MachineState.DOWN: 4,
    MachineState.MAINTENANCE: 5,
}
REASON_CODES: Final = {None: 0} | {reason: code for code, reason in enumerate(DowntimeReason, start=1)}

_STATES: Final = ", ".join(f"{code} {state}" for state, code in STATE_CODES.items())
_REASONS: Final = ", ".join(f"{code} {reason or 'none'}" for reason, code in REASON_CODES.items())
VIRTUAL: Final[tuple[tuple[str, str, str], ...]] = (
    ("oee", "1", "OEE of the current shift so far, 0..1"),
    ("availability", "1", "availability of the current shift so far, 0..1"),
    ("performance", "1", "effectiveness of the current shift so far; over 1 is marked uncertain"),
    ("quality", "1", "quality ratio of the current shift so far, 0..1"),
    ("nee", "1", "net equipment effectiveness of the current shift so far, 0..1"),
    ("teep", "1", "OEE over all time of the current shift so far, 0..1"),
    ("utilisation", "1", "planned busy time over all time of the current shift so far, 0..1"),
    ("produced", "{part}", "parts of the current shift, good and bad"),
    ("rejected", "{part}", "rejected parts of the current shift"),
    ("rate_per_h", "/h", "parts per hour of production time in the current shift"),
    ("target_rate_per_h", "/h", "parts per hour at ideal speed, of the present product"),
    ("unknown_s", "s", "planned time of the current shift of which nobody knows the state"),
    ("unobserved_s", "s", "the part of unknown_s that no counter bridges; it leaves availability, OEE and NEE"),
    ("state", "1", f"machine state: {_STATES}"),
    ("reason", "1", f"reason of the stop: {_REASONS}"),
    ("stop_s", "s", "how long the present stop has lasted, 0 while running"),
)
"""Suffix, unit, description, in the order of `values`."""
SUSPECT_WITH_PERFORMANCE: Final = frozenset({"oee", "performance", "nee", "teep"})
DOUBTFUL_WHEN_UNKNOWN: Final = SUSPECT_WITH_PERFORMANCE | {"availability", "quality"}


def virtual_tags(machines: Sequence[MachineOptions]) -> list[tuple[str, str, str, str]]:
    """Return (name, asset, unit, description) of every virtual tag of the machines."""
    return [(f"{m.name}.{suffix}", m.asset, unit, what) for m in machines for suffix, unit, what in VIRTUAL]


def values(
    elements: TimeElements | None,
    kpis: Kpis | None,
    ideal_ns: float | None,
    state: MachineState,
    reason: DowntimeReason | None,
    stop_ns: int,
) -> list[float | None]:
    """Return the values in the order of VIRTUAL; None where nothing can be said."""
    hour_ns = 3600 * NS_PER_S
    target = None if ideal_ns is None else hour_ns / ideal_ns
    now: list[float | None] = [STATE_CODES[state], REASON_CODES[reason], stop_ns / NS_PER_S]
    if elements is None or kpis is None:
        return [None] * 10 + [target, None, None, *now]
    rate = elements.pq_planned * hour_ns / elements.apt if elements.apt else None
    return [
        kpis.oee,
        kpis.availability,
        kpis.performance,
        kpis.quality,
        kpis.nee,
        kpis.teep,
        kpis.utilisation,
        elements.pq,
        elements.rq,
        rate,
        target,
        elements.unknown / NS_PER_S,
        elements.unobserved / NS_PER_S,
        *now,
    ]
