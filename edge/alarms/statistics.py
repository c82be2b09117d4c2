"""How the alarm system itself does: floods and the key figures of ISA-18.2 §16 / IEC 62682 §16.

Counts annunciated alarms on the monotonic clock. The operator position is the gateway.
"""

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from edge.alarms.entry import Entry
from plant.instant import NS_PER_S, Instant

WINDOW_EVENTS_MAX: Final = 10_000
"""Annunciations remembered for the flood window; a flood beyond that counts as this many."""
BUCKET_NS: Final = 600 * NS_PER_S
BUCKETS_MAX: Final = 144
"""24 h of ten-minute buckets."""
TOP: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmStatistics:
    """Figures since `since` (ns UTC, the start of the process); those per 10 min over the last 24 h at most.

    Targets of ISA-18.2 Table 7: about 1 alarm per 10 min on average (2 at most), under 1 % of ten-minute periods with
    more than 10, under 1 % of the time in flood, top ten 1-5 % of all, fewer than 5 stale, none chattering.
    """

    since: int
    annunciated: int
    per_10_min: float
    per_10_min_max: int
    busy_share: float
    """Share of ten-minute periods with more than 10 annunciated alarms, 0..1."""
    floods: int
    in_flood: bool
    flood_share: float
    top: tuple[tuple[str, int], ...]
    top_share: float
    by_priority: Mapping[str, int]
    fleeting: int
    chattering: int
    stale: int
    shelved: int
    suppressed: int
    out_of_service: int
    active: int
    unacknowledged: int


@dataclass(slots=True)
class Flood:
    """One flood. start: ns UTC; started: the same on the monotonic clock. alarms: all of it; peak: most in a window."""

    start: int
    started: int
    alarms: int
    peak: int


@dataclass(slots=True)
class Annunciations:
    """The annunciated alarms: the flood window and the counts.

    A flood begins when more than `start_count` come within `window_ns` and ends when fewer than `end_count` did.
    """

    start_count: int
    end_count: int
    window_ns: int
    flood: Flood | None = None
    floods: int = 0
    flood_ns: int = 0
    total: int = 0
    fleeting: int = 0
    by_alarm: Counter[str] = field(default_factory=Counter)
    by_priority: Counter[str] = field(default_factory=Counter)
    window: deque[int] = field(default_factory=lambda: deque(maxlen=WINDOW_EVENTS_MAX))
    buckets: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=BUCKETS_MAX))

    def add(self, alarm: str, priority: str, now: Instant) -> bool:
        """Count one annunciation; True when it begins a flood."""
        self.total += 1
        self.by_alarm[alarm] += 1
        self.by_priority[priority] += 1
        bucket = now.monotonic // BUCKET_NS
        if self.buckets and self.buckets[-1][0] == bucket:
            self.buckets[-1] = (bucket, self.buckets[-1][1] + 1)
        else:
            self.buckets.append((bucket, 1))
        self.window.append(now.monotonic)
        self._slide(now.monotonic)
        count = len(self.window)
        if self.flood is not None:
            self.flood.alarms += 1
            self.flood.peak = max(self.flood.peak, count)
        elif count > self.start_count:
            self.flood = Flood(now.utc, now.monotonic, count, count)
            self.floods += 1
            return True
        return False

    def ends_at(self) -> int:
        """Return when the flood ends if nothing more comes (monotonic ns)."""
        excess = len(self.window) - self.end_count
        return self.window[excess] + self.window_ns if excess >= 0 else 0

    def ended(self, monotonic: int) -> Flood | None:
        """Return the flood if it is over now, and forget it."""
        self._slide(monotonic)
        flood = self.flood
        if flood is None or len(self.window) >= self.end_count:
            return None
        self.flood = None
        self.flood_ns += monotonic - flood.started
        return flood

    def _slide(self, monotonic: int) -> None:
        while self.window and self.window[0] <= monotonic - self.window_ns:
            self.window.popleft()

    def recent(self, started: int, monotonic: int) -> tuple[float, int, float]:
        """Return (average per 10 min, most in 10 min, share of periods above 10) since `started`, 24 h at most."""
        bucket = monotonic // BUCKET_NS
        counts = [n for b, n in self.buckets if b > bucket - BUCKETS_MAX]
        periods = min(BUCKETS_MAX, bucket - started // BUCKET_NS + 1)
        return sum(counts) / periods, max(counts, default=0), sum(n > 10 for n in counts) / periods


def key_figures(
    counts: Annunciations, entries: Iterable[Entry], started: Instant, now: Instant, stale_ns: int
) -> AlarmStatistics:
    """Put the figures together. stale_ns: how long an alarm may be active before it counts as stale."""
    average, most, busy = counts.recent(started.monotonic, now.monotonic)
    flood_ns = counts.flood_ns + (now.monotonic - counts.flood.started if counts.flood else 0)
    top = tuple(counts.by_alarm.most_common(TOP))
    every = list(entries)
    active = [e for e in every if e.state.active]
    return AlarmStatistics(
        since=started.utc,
        annunciated=counts.total,
        per_10_min=average,
        per_10_min_max=most,
        busy_share=busy,
        floods=counts.floods,
        in_flood=counts.flood is not None,
        flood_share=flood_ns / max(1, now.monotonic - started.monotonic),
        top=top,
        top_share=sum(n for _, n in top) / max(1, counts.total),
        by_priority=dict(counts.by_priority),
        fleeting=counts.fleeting,
        chattering=sum(e.chattering for e in every),
        stale=sum(now.monotonic - e.activated_monotonic > stale_ns for e in active),
        shelved=sum(e.state.shelved for e in every),
        suppressed=sum(e.state.suppressed for e in every),
        out_of_service=sum(e.state.out_of_service for e in every),
        active=len(active),
        unacknowledged=sum(not e.state.acknowledged for e in every),
    )
