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
    """Remembers where the ring stood, and how far the host has been told."""

    def __init__(self) -> None:
        self._positions: deque[tuple[int, int]] = deque(maxlen=POSITIONS_MAX)
        self.start: int | None = None
        """First reading that is owed; None = nothing is."""
        self.end: int | None = None
        """First reading after the backlog; None while it still grows, or while nothing is owed."""
        self.skipped = 0

    def committed(self, monotonic: int, next_seq: int) -> None:
        """Note where the ring stands now."""
        positions = self._positions
        if not positions or monotonic - positions[-1][0] >= POSITION_PERIOD_NS:
            positions.append((monotonic, next_seq))

    def position_before(self, monotonic: int) -> int | None:
        """Return where the ring stood at that time at the latest, None if nobody knows."""
        found = None
        for time, seq in self._positions:
            if time > monotonic and found is not None:
                break
            found = seq
        return found

    def lost(self, monotonic: int) -> None:
        """Owe everything since then. monotonic: ns, when the host was last known to hear us."""
        self.end = None
        if self.start is None:
            self.start = self.position_before(monotonic)

    def close(self, end: int, rows_max: int) -> None:
        """End the backlog where telling live began; of more than `rows_max` readings only the newest are owed."""
        if self.start is None:
            return
        if end - self.start > rows_max:
            self.skipped += end - rows_max - self.start
            self.start = end - rows_max
        self.end = end
        self.advance(self.start)

    def forgive(self) -> None:
        """Owe nothing any more."""
        self.start = self.end = None

    def advance(self, start: int) -> None:
        """Everything before `start` has been told."""
        self.start = start
        if self.end is not None and start >= self.end:
            self.start = self.end = None
