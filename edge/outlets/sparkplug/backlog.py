"""What the host is owed: the stretch of the ring that was not told live.

Positions are numbers of readings in the ring. Readings travel with QoS 0, so nobody says what arrived: after a loss the
backlog begins a little before it. A reading may therefore be told twice, once live and once as historical, with the
same time; none is left out.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any, Final, Protocol

from plant.batch import Batch
from plant.instant import NS_PER_S

STATE_KEY: Final = "sparkplug"
POSITION_PERIOD_NS: Final = NS_PER_S
POSITIONS_MAX: Final = 8_000
"""One per second covers two of the longest keep-alives."""
CHUNK_ROWS_MAX: Final = 5_000


class History(Protocol):
    """Ring and journal as this outlet needs them. Every method raises StorageError."""

    async def recall(self, key: str) -> Mapping[str, Any] | None: ...
    async def keep(self, key: str, value: Mapping[str, Any]) -> None: ...
    async def position(self) -> int:
        """Return the number that the next reading will get; all that was offered so far is in the ring."""

    async def read(self, seq: int, limit: int) -> tuple[int, Batch]:
        """Return (number of the first reading, up to `limit` of them in order) from number `seq` on."""


class Backlog:
    """Remembers how far the host had been told at which time, and what it is owed. Times are monotonic, in ns."""

    def __init__(self) -> None:
        self._marks: deque[tuple[int, int]] = deque(maxlen=POSITIONS_MAX)
        self._last: tuple[int, int] | None = None
        self.start: int | None = None
        """First reading that is owed; None = nothing is."""
        self.end: int | None = None
        """First reading after the backlog; None while it still grows, or while nothing is owed."""
        self.skipped = 0

    def committed(self, monotonic: int, next_seq: int) -> None:
        """Note where the ring stands now: all before it is told, or about to be."""
        if self.start is None:
            self._mark(monotonic, next_seq)

    def _mark(self, monotonic: int, seq: int) -> None:
        self._last = (monotonic, seq)
        if not self._marks or monotonic - self._marks[-1][0] >= POSITION_PERIOD_NS:
            self._marks.append(self._last)

    def told_until(self, monotonic: int) -> int | None:
        """Return the first reading that was not told at that time, or one before it; None if nobody knows."""
        if self._last is not None and self._last[0] <= monotonic:
            return self._last[1]
        found = None
        for time, seq in self._marks:
            if time > monotonic and found is not None:
                break
            found = seq
        return self.start if found is None else found

    def lost(self, monotonic: int) -> None:
        """Owe everything since then: when the host was last known to hear us."""
        self.start, self.end = self.told_until(monotonic), None
        self._marks.clear()
        self._last = None
        if self.start is not None:
            self._mark(monotonic, self.start)

    def close(self, monotonic: int, end: int, rows_max: int) -> None:
        """End the backlog where telling live began; of more than `rows_max` readings only the newest are owed."""
        if self.start is None:
            return
        if end - self.start > rows_max:
            self.skipped += end - rows_max - self.start
            self.start = end - rows_max
        self.end = end
        self.advance(monotonic, self.start)

    def advance(self, monotonic: int, start: int) -> None:
        """Note that everything before `start` has been told."""
        self._mark(monotonic, start)
        self.start = start
        if self.end is not None and start >= self.end:
            self.forgive()

    def forgive(self) -> None:
        """Owe nothing any more."""
        self.start = self.end = None
