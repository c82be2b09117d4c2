"""What a machine did, when: the log of state events and corrections as an unbroken row of segments.

Owns: which event holds at which instant, which ISO 22400-2 time element it counts into, what a micro-stop and a failure
is. Leaves to others: planned time (`plant.calendar`), sums and figures (`plant.oee`, `plant.losses`).

Rules:
- Events come in log order. States hold from their time to the next; of two at the same time the later in the log holds.
- A correction with a state overlays its interval; of two corrections the later in the log wins where both apply.
- Segments cover the period without holes and without overlap, so no sum of them can be negative or exceed it.
- Where no event tells the state it is UNKNOWN.
- UNKNOWN time is unobserved where no counter tells either how much was made in it: before the first state in the log,
  and between the two readings of a counter that could not be continued from one to the other.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from plant.calendar import Interval, clipped, merged
from plant.events import Correction, CounterAnomaly, DowntimeReason, Event, MachineState, StateChanged


class Element(StrEnum):
    """Where time inside planned busy time goes. The first four are elements of ISO 22400-2 for a work unit."""

    APT = "apt"
    """Actual production time: the machine runs. Micro-stops are in it: they cost performance, not availability."""
    AUST = "aust"
    """Actual unit set-up time."""
    ADET = "adet"
    """Actual unit delay time: stopped by a malfunction or a quality problem while it should produce."""
    ADOT = "adot"
    """Actual unit down time: able to produce but without work, material or operator."""
    MAINTENANCE = "maintenance"
    """Maintenance that the calendar does not plan."""
    UNKNOWN = "unknown"
    """Nobody knows. Never counted as production."""


_BY_STATE: Final = {
    MachineState.RUNNING: Element.APT,
    MachineState.IDLE: Element.ADOT,
    MachineState.SETUP: Element.AUST,
    MachineState.DOWN: Element.ADET,
    MachineState.MAINTENANCE: Element.MAINTENANCE,
    MachineState.UNKNOWN: Element.UNKNOWN,
}
_BY_REASON: Final = {
    DowntimeReason.PLANNED_MAINTENANCE: Element.MAINTENANCE,
    DowntimeReason.BREAKDOWN: Element.ADET,
    DowntimeReason.CHANGEOVER: Element.AUST,
    DowntimeReason.NO_OPERATOR: Element.ADOT,
    DowntimeReason.NO_MATERIAL: Element.ADOT,
    DowntimeReason.QUALITY_ISSUE: Element.ADET,
}
STOPS: Final = frozenset({Element.ADET, Element.ADOT})
"""Elements of which a short stay between production is a micro-stop."""


def element_of(state: MachineState, reason: DowntimeReason | None) -> Element:
    """Return the time element; a reason refines a stop, it never changes running or unknown time."""
    if reason is None or state in {MachineState.RUNNING, MachineState.UNKNOWN}:
        return _BY_STATE[state]
    return _BY_REASON[reason]


def is_failure(element: Element, reason: DowntimeReason | None) -> bool:
    """Tell whether a stop (not a micro-stop) is a failure event of the machine, as MTBF and MTTR count them."""
    return element is Element.ADET and reason is not DowntimeReason.QUALITY_ISSUE


@dataclass(frozen=True, slots=True)
class Segment:
    """One state from `start` to `end` (ns UTC, inside the period). began: its true start, maybe before the period.

    event: id of the event that says so, "" where none does: nobody watched yet.
    """

    start: int
    end: int
    began: int
    state: MachineState
    reason: DowntimeReason | None
    event: str


def timeline(events: Iterable[Event], asset: str, start: int, end: int) -> list[Segment]:
    """Return the segments of `asset` that cover [start, end); empty when end <= start.

    events: in log order; anything that is not about the states of `asset` is passed over. It must hold the last
    StateChanged at or before `start`, otherwise the period begins UNKNOWN.
    """
    states: list[StateChanged] = []
    corrections: list[Correction] = []
    for event in events:
        if event.asset != asset:
            continue
        if isinstance(event, StateChanged) and event.time < end:
            states.append(event)
        elif isinstance(event, Correction) and event.state is not None:
            corrections.append(event)
    states.sort(key=lambda event: event.time)
    opening = max((i for i, event in enumerate(states) if event.time <= start), default=-1)
    row: list[Segment] = []
    if opening < 0:
        first = states[0].time if states else end
        row.append(Segment(start, first, start, MachineState.UNKNOWN, None, ""))
        opening = 0
    chosen = states[opening:]
    for event, until in zip(chosen, [*(later.time for later in chosen[1:]), end], strict=False):
        row.append(Segment(event.time, until, event.time, event.state, event.reason, event.id))
    for correction in corrections:
        row = _overlaid(row, correction)
    return [
        replace(segment, start=max(segment.start, start), end=min(segment.end, end))
        for segment in row
        if max(segment.start, start) < min(segment.end, end)
    ]


def blind(events: Iterable[Event], asset: str) -> tuple[Interval, ...]:
    """Return when a counter of `asset` went on unseen, ascending and disjoint: what was made then is lost."""
    return merged(
        (event.start, event.time)
        for event in events
        if isinstance(event, CounterAnomaly) and event.asset == asset and event.start > 0
    )


def unobserved(segment: Segment, blinds: Sequence[Interval], *, counted: bool) -> tuple[Interval, ...]:
    """Return the parts of a segment in which neither its state nor what was made is known.

    counted: the machine has a counter at all; without one nothing bridges unknown time.
    """
    if segment.state is not MachineState.UNKNOWN:
        return ()
    if not (counted and segment.event):
        return ((segment.start, segment.end),)
    return clipped(blinds, segment.start, segment.end)


def _overlaid(row: Sequence[Segment], correction: Correction) -> list[Segment]:
    """Put a correction over the segments that it touches; it never lengthens the row."""
    if correction.end <= correction.start or correction.state is None:
        return list(row)
    result: list[Segment] = []
    for segment in row:
        low, high = max(segment.start, correction.start), min(segment.end, correction.end)
        if low >= high:
            result.append(segment)
            continue
        if segment.start < low:
            result.append(replace(segment, end=low))
        result.append(Segment(low, high, correction.start, correction.state, correction.reason, correction.id))
        if high < segment.end:
            result.append(replace(segment, start=high, began=high))
    return result


@dataclass(frozen=True, slots=True)
class Judged:
    """A segment and what it counts as. failed: it opens a failure event."""

    segment: Segment
    element: Element
    micro_stop: bool
    failure: bool
    failed: bool


def judged(segments: Sequence[Segment], start: int, micro_stop_ns: int) -> list[Judged]:
    """Decide for each segment of a period that begins at `start` what it counts as.

    A micro-stop is an unbroken row of delay and down time that follows production (or the start of the period) and is
    shorter than `micro_stop_ns` as a whole. A failure is counted in the period in which it begins.
    """
    result: list[Judged] = []
    for first, last in _runs(segments):
        run = segments[first:last]
        elements = [element_of(s.state, s.reason) for s in run]
        follows = result[-1].element if result else None
        short = elements[0] in STOPS and follows in {None, Element.APT} and run[-1].end - run[0].began < micro_stop_ns
        for segment, element in zip(run, elements, strict=True):
            if short:
                result.append(Judged(segment, Element.APT, True, False, False))
                continue
            failure = is_failure(element, segment.reason)
            failed = failure and segment.began >= start and not (result and result[-1].failure)
            result.append(Judged(segment, element, False, failure, failed))
    return result


def _runs(segments: Sequence[Segment]) -> list[tuple[int, int]]:
    """Return [first, last) index pairs: consecutive stops together, every other segment by itself."""
    runs: list[tuple[int, int]] = []
    stopped = False
    for i, segment in enumerate(segments):
        is_stop = element_of(segment.state, segment.reason) in STOPS
        if is_stop and stopped:
            runs[-1] = (runs[-1][0], i + 1)
        else:
            runs.append((i, i + 1))
        stopped = is_stop
    return runs
