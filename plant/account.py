"""The running sum of one machine over one period: what `plant.oee.fold` gives, without folding again.

Owns: settled sums and the row of stops that is still open. Leaves to others: which events apply, and rebuilding after a
correction of the past (`feed` a timeline into a fresh account, keep the `parts`).

Rule: after the same events `elements(until)` equals `plant.oee.fold(..., until)`, field by field.
"""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field

from plant.calendar import Interval, Period, clipped, merged, minus, overlap_ns
from plant.events import Correction, DowntimeReason, MachineState, PartsProduced, PartsRejected
from plant.oee import Rating, TimeElements, rated
from plant.timeline import STOPS, Element, Segment, element_of, is_failure


@dataclass(slots=True)
class Parts:
    """Quantities so far; independent of the states, so a correction of states leaves them alone."""

    pq: float = 0.0
    pq_planned: float = 0.0
    rq: float = 0.0
    rework: float = 0.0
    startup_rq: float = 0.0
    ideal: float = 0.0
    unrated: float = 0.0
    corrected: float = 0.0


@dataclass(slots=True)
class _Times:
    """Settled sums in ns, and how the last settled stretch ended."""

    by_element: dict[Element, int] = field(default_factory=lambda: dict.fromkeys(Element, 0))
    micro_stop: int = 0
    micro_stops: int = 0
    unobserved: int = 0
    unplanned_run: int = 0
    failures: int = 0
    repair: int = 0
    last: Element | None = None
    last_failure: bool = False

    def copy(self) -> "_Times":
        return _Times(
            dict(self.by_element),
            self.micro_stop,
            self.micro_stops,
            self.unobserved,
            self.unplanned_run,
            self.failures,
            self.repair,
            self.last,
            self.last_failure,
        )


@dataclass(frozen=True, slots=True)
class _Stretch:
    """watched: an event says so; False before the first one."""

    began: int
    state: MachineState
    reason: DowntimeReason | None
    element: Element
    watched: bool = True


class Account:
    """One machine, one period. States must come in ascending time; one at the time of the last replaces it."""

    def __init__(self, period: Period, rating: Rating, parts: Parts | None = None) -> None:
        self.period = period
        self.rating = rating
        self.parts = Parts() if parts is None else parts
        self._times = _Times()
        self._stops: list[_Stretch] = []
        self._open = _Stretch(period.start, MachineState.UNKNOWN, None, Element.UNKNOWN, watched=False)
        # Both ascending and disjoint: unknown time that is over and that a counter may bridge, and where none did.
        self._unknown: list[Interval] = []
        self._blind: list[Interval] = []

    @property
    def began(self) -> int:
        """When the present state began, ns UTC."""
        return self._open.began

    def feed(self, segments: Iterable[Segment]) -> None:
        """Take the states of a timeline of this period."""
        for segment in segments:
            self.state(
                segment.began if segment.start == self.period.start else segment.start,
                segment.state,
                segment.reason,
                watched=bool(segment.event),
            )

    def state(self, time: int, state: MachineState, reason: DowntimeReason | None, *, watched: bool = True) -> None:
        """Take the next state; one after the period changes nothing. watched: an event says so.

        Raises ValueError when it is earlier than the present one began.
        """
        if time >= self.period.end:
            return
        present = self._open
        following = _Stretch(time, state, reason, element_of(state, reason), watched)
        if time <= self.period.start or time == present.began:
            # Nothing of the present state lies inside the period.
            self._open = following
            return
        if time < present.began:
            raise ValueError(f"states go forward in time: {time} comes after {present.began}")
        self._stops = self._settled(self._times, time)
        if present.state is MachineState.UNKNOWN and self._bridged(present):
            self._unknown.append((max(present.began, self.period.start), time))
        self._open = following

    def _bridged(self, stretch: _Stretch) -> bool:
        """Tell whether a counter can bridge this stretch of unknown time at all."""
        return stretch.watched and self.rating.counted

    def blind(self, start: int, end: int) -> None:
        """Take that a counter went on unseen from `start` to `end` (ns UTC): no parts will be told for that time."""
        pieces = minus([(start, end)], self._blind[self._first_blind(start) :]) if start > 0 else ()
        for low, high in pieces:
            for begun, ended in reversed(self._unknown):
                if ended <= low:
                    break
                self._times.unobserved += overlap_ns(self.period.busy, max(low, begun), min(high, ended))
        if pieces and (not self._blind or pieces[0][0] > self._blind[-1][1]):
            self._blind += pieces
        elif pieces:
            self._blind = list(merged([*self._blind, *pieces]))

    def _first_blind(self, time: int) -> int:
        """Return the index of the first blind interval that ends after `time`."""
        return bisect_right(self._blind, time, key=lambda interval: interval[1])

    def _unobserved(self, stretch: _Stretch, end: int) -> int:
        """Return how much planned time of a stretch until `end` nobody can know."""
        if stretch.state is not MachineState.UNKNOWN:
            return 0
        busy, start = self.period.busy, max(stretch.began, self.period.start)
        end = min(end, self.period.end)
        if not self._bridged(stretch):
            return overlap_ns(busy, start, end)
        pieces = clipped(self._blind[self._first_blind(start) :], start, end)
        return sum(overlap_ns(busy, low, high) for low, high in pieces)

    def _settled(self, times: _Times, end: int) -> list[_Stretch]:
        """Add to `times` what is decided when the present state lasts until `end`; return the stops that are not."""
        if self._open.element in STOPS:
            return [*self._stops, self._open]
        if self._stops:
            _settle_stops(times, self._stops, self._open.began, self.period, self.rating.micro_stop_ns)
        _settle(times, self._open, end, self.period)
        times.unobserved += self._unobserved(self._open, end)
        return []

    def produced(self, event: PartsProduced) -> None:
        """Count produced parts; those of other periods are passed over."""
        if not self.period.start <= event.time < self.period.end:
            return
        parts = self.parts
        parts.pq += event.count
        if overlap_ns(self.period.busy, event.time, event.time + 1):
            pri = self.rating.ideal(event.product)
            parts.pq_planned += event.count
            parts.ideal += event.count * (pri or 0.0)
            parts.unrated += event.count if pri is None else 0.0

    def rejected(self, event: PartsRejected, *, startup: bool) -> None:
        """Count rejected parts; those of other periods are passed over."""
        if not self.period.start <= event.time < self.period.end:
            return
        self.parts.rq += event.count
        self.parts.rework += event.count if event.rework else 0.0
        self.parts.startup_rq += event.count if startup else 0.0

    def corrected(self, event: Correction) -> None:
        """Add the parts of a correction that starts in this period. Its state needs a rebuild."""
        if self.period.start <= event.start < self.period.end:
            self.parts.pq += event.produced
            self.parts.corrected += event.produced
            self.parts.rq += event.rejected

    def elements(self, until: int) -> TimeElements:
        """Return the time elements up to `until` (ns UTC), not before the last state nor after the period."""
        period, parts = self.period, self.parts
        end = min(max(until, period.start, self._open.began), period.end)
        times = self._times.copy()
        present = end > max(self._open.began, period.start)
        stops = self._settled(times, end) if present else self._stops
        if stops:
            _settle_stops(times, stops, end, period, self.rating.micro_stop_ns)
        by = times.by_element
        pbt = overlap_ns(period.busy, period.start, end)
        pq_planned, ideal, unrated = rated(
            parts.pq_planned, parts.corrected, parts.ideal, parts.unrated, self.rating.ideal_ns
        )
        return TimeElements(
            calendar=end - period.start,
            pbt=pbt,
            apt=by[Element.APT],
            aust=by[Element.AUST],
            adet=by[Element.ADET],
            adot=by[Element.ADOT],
            maintenance=by[Element.MAINTENANCE],
            unknown=by[Element.UNKNOWN],
            unobserved=times.unobserved,
            uncounted=0 if self.rating.counted or parts.pq else pbt,
            micro_stop=times.micro_stop,
            micro_stops=times.micro_stops,
            unplanned_run=times.unplanned_run,
            failures=times.failures,
            repair=times.repair,
            pq=parts.pq,
            pq_planned=pq_planned,
            rq=parts.rq,
            rework=parts.rework,
            startup_rq=parts.startup_rq,
            ideal=ideal,
            unrated=unrated,
        )


def _settle(times: _Times, stretch: _Stretch, end: int, period: Period) -> None:
    """Add a stretch that is no stop."""
    start = max(stretch.began, period.start)
    end = min(end, period.end)
    if end <= start:
        return
    planned = overlap_ns(period.busy, start, end)
    times.by_element[stretch.element] += planned
    if stretch.state is MachineState.RUNNING:
        times.unplanned_run += end - start - planned
    times.last, times.last_failure = stretch.element, False


def _settle_stops(times: _Times, stops: list[_Stretch], end: int, period: Period, micro_stop_ns: int) -> None:
    """Add an unbroken row of stops that ends at `end`: as one micro-stop or each by its own element."""
    end = min(end, period.end)
    micro = times.last in {None, Element.APT} and end - stops[0].began < micro_stop_ns
    for i, stretch in enumerate(stops):
        start = max(stretch.began, period.start)
        stop = stops[i + 1].began if i + 1 < len(stops) else end
        planned = overlap_ns(period.busy, start, stop)
        if micro:
            times.by_element[Element.APT] += planned
            times.micro_stop += planned
            continue
        times.by_element[stretch.element] += planned
        failure = is_failure(stretch.element, stretch.reason)
        if failure:
            times.repair += planned
            times.failures += stretch.began >= period.start and not times.last_failure
        times.last_failure = failure
    times.micro_stops += micro
    times.last = Element.APT if micro else stops[-1].element
    if micro:
        times.last_failure = False
