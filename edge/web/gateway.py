"""What the web needs from the gateway: the `Gateway` protocol and the values that cross it.

The composition root implements it; nothing here knows how. Light on purpose: the command line imports it too.
"""

from bisect import bisect_left
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from edge.tick import Command, Reply
from edge.view import Snapshot, TagView

STEP_BOUNDS_S: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1)
COMMIT_BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


@dataclass(frozen=True, slots=True)
class QueryResult:
    """columns and types: one per column, types in SQL's words. rows: at most as many as were asked for.

    truncated: there were more rows than that.
    """

    columns: list[str]
    types: list[str]
    rows: list[Sequence[Any]]
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Reloaded:
    """The configuration was read again. changed: what was touched, in words ("device press", "alarm hot"); may be
    empty. sentence: the outcome for a person.
    """

    sentence: str
    changed: tuple[str, ...] = ()


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A machine was in one state for one reason from start to end (ns UTC). by: who said so afterwards, "" the machine.

    open: it goes on.
    """

    start: int
    end: int
    state: str
    reason: str | None = None
    by: str = ""
    open: bool = False


class StateHistory(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine did in [start, now], ns UTC; end: when the shift will be over, now without one.

    spans: ascending, without holes; the first may begin before start. pauses: when nothing was planned.
    """

    machine: str
    asset: str
    shift: str
    start: int
    now: int
    end: int
    spans: list[Span]
    pauses: list[tuple[int, int]] = []


@dataclass(frozen=True, slots=True)
class Histogram:
    """bounds: upper bounds in ascending order. counts: one per bound and one for everything above, not cumulative."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float


class Durations:
    """Counts durations into buckets: the cheap recorder behind a `Histogram`."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds

    def histogram(self) -> Histogram:
        return Histogram(self.bounds, tuple(self.counts), self.sum)

    def quantile(self, q: float) -> float:
        """Return the upper bound of the bucket that holds the q-quantile, 0.0 before the first observation.

        Above the highest bound the highest bound is returned: the figure is then a lower limit.
        """
        rank = q * sum(self.counts)
        seen = 0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            seen += count
            if count and seen >= rank:
                return bound
        return self.bounds[-1] if seen < sum(self.counts) else 0.0


NO_STEPS: Final = Histogram(STEP_BOUNDS_S, (0,) * (len(STEP_BOUNDS_S) + 1), 0.0)
NO_COMMITS: Final = Histogram(COMMIT_BOUNDS_S, (0,) * (len(COMMIT_BOUNDS_S) + 1), 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """Counters since the start that the snapshot does not carry. Read once per scrape of /metrics.

    dropped: readings lost on the way, by reason (the reasons of the loss ledger). events: kept events by kind.
    inbox_readings: readings that wait for the line now, inbox_readings_max: room for them.
    loop_lag_s: how late the event loop last was.
    """

    dropped: Mapping[str, int] = field(default_factory=dict)
    events: Mapping[str, int] = field(default_factory=dict)
    steps: Histogram = NO_STEPS
    commits: Histogram = NO_COMMITS
    inbox_readings: int = 0
    inbox_readings_max: int = 0
    loop_lag_s: float = 0.0
    revision: str = ""


class Gateway(Protocol):
    """The gateway as its page and its command line see it.

    Every asynchronous method raises a subclass of `edge.errors.AndonError`, whose text is one sentence for the person
    who asked, or `TimeoutError`.
    """

    def snapshot(self) -> Snapshot:
        """Return the present state. Called at most four times a second, whatever the number of readers."""
        ...

    def stats(self) -> Stats:
        """Return the counters. Called once per scrape of /metrics."""
        ...

    def tags(self, offset: int, limit: int, search: str) -> list[TagView]:
        """Return up to `limit` tags from `offset` on whose name contains `search` (any case), in order of name."""
        ...

    async def query(self, sql: str, rows_max: int, timeout_s: float) -> QueryResult:
        """Run one read-only statement over ring and journal."""
        ...

    async def export(self, start_ns: int, end_ns: int) -> Path:
        """Write the readings of [start_ns, end_ns) (ns UTC) to a new Parquet file; the caller removes it."""
        ...

    def command(self, command: Command) -> Awaitable[Reply]:
        """Put the command into the next step of the line and return its reply."""
        ...

    async def states(self, machine: str, hours: int) -> StateHistory:
        """Return what a machine did in the last `hours`, 0: in the running shift (the last 8 h between shifts)."""
        ...

    def audit(self, user: str, action: str, outcome: str, detail: Mapping[str, Any]) -> None:
        """Put what somebody did or tried into the log of events."""
        ...

    async def reload(self) -> Reloaded:
        """Read the configuration again. Raises ConfigError, and nothing has changed then."""
        ...
