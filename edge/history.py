"""What a machine did over the last hours, as a person reads it: unbroken spans of state and reason.

Owns: joining the journal with what is not committed yet, and joining neighbours that say the same. Leaves to others:
which event holds when (`plant.timeline`), and who asks.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

from edge.web.gateway import Span, StateHistory
from plant.calendar import Shift
from plant.events import Correction, Event, StateChanged
from plant.instant import NS_PER_S
from plant.timeline import timeline

BETWEEN_SHIFTS_HOURS = 8
"""What is shown where no shift runs."""
HOUR_NS = 3600 * NS_PER_S
OPERATOR = "operator:"


def start_of(shift: Shift | None, hours: int, now: int) -> int:
    """Return when the history begins: `hours` ago, or with the shift for 0. Times are ns UTC."""
    if hours == 0 and shift is not None:
        return shift.start
    return now - (hours or BETWEEN_SHIFTS_HOURS) * HOUR_NS


def joined(kept: Sequence[Event], fresh: Iterable[Event]) -> list[Event]:
    """Return the journal's events and after them those that it does not have yet."""
    known = {event.id for event in kept}
    return [*kept, *(event for event in fresh if event.id not in known)]


def history(
    events: Sequence[Event], machine: str, asset: str, shift: Shift | None, hours: int, now: int
) -> StateHistory:
    """Return the states of a machine from its events (see `edge.journal.read_states`). now: ns UTC."""
    start = start_of(shift, hours, now)
    spans = _spans(events, asset, start, now)
    of_shift = shift if hours == 0 else None
    return StateHistory(
        machine=machine,
        asset=asset,
        shift=of_shift.name if of_shift else "",
        start=start,
        now=now,
        end=of_shift.end if of_shift else now,
        spans=spans,
        pauses=_pauses(of_shift) if of_shift else [],
    )


def _spans(events: Sequence[Event], asset: str, start: int, now: int) -> list[Span]:
    """Return the spans that touch [start, now]; a stop is shown from its true beginning."""
    states = [event.time for event in events if isinstance(event, StateChanged)]
    began = max((time for time in states if time <= start), default=start)
    said = {
        event.id: event.user if isinstance(event, Correction) else event.origin.removeprefix(OPERATOR)
        for event in events
        if isinstance(event, Correction) or (isinstance(event, StateChanged) and event.origin.startswith(OPERATOR))
    }
    spans: list[Span] = []
    for segment in timeline(events, asset, began, now):
        span = Span(
            start=segment.start,
            end=segment.end,
            state=str(segment.state),
            reason=None if segment.reason is None else str(segment.reason),
            by=said.get(segment.event, ""),
            open=segment.end == now,
        )
        last = spans[-1] if spans else None
        if last is not None and (last.state, last.reason, last.by) == (span.state, span.reason, span.by):
            spans[-1] = Span(
                start=last.start, end=span.end, state=last.state, reason=last.reason, by=last.by, open=span.open
            )
        else:
            spans.append(span)
    return [span for span in spans if span.end > start]


def _pauses(shift: Shift) -> list[tuple[int, int]]:
    """Return the breaks and planned stops inside a shift."""
    edges = [(shift.start, shift.start), *shift.busy, (shift.end, shift.end)]
    return [(before[1], after[0]) for before, after in pairwise(edges) if before[1] < after[0]]
