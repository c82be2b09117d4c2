"""A moment as the line sees it: wall time for stamps, monotonic time for durations."""

from dataclasses import dataclass

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Instant:
    """One reading of both clocks.

    utc: nanoseconds since 1970-01-01T00:00:00Z; may step when the clock is set. Only for stamps.
    monotonic: nanoseconds since an arbitrary start; never steps back. For every delay, time-out and shelf.
    """

    utc: int
    monotonic: int
