"""The queue between the event loop and the store thread: bounded by bytes, readings give way, events do not.

What is dropped is counted per tag (`Counts`) and told as one `Loss` per stretch of trouble.
"""

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge.store.counts import BAD, DROPPED, KEPT, RECEIVED, Counts
from edge.tick import Tick
from plant.batch import EMPTY, UNCERTAIN, Batch
from plant.events import Event

EVENTS_MAX: Final = 100_000
"""Events that may wait for the journal; only beyond that are events lost, the oldest first, and a Gap says so."""
GROUP_ROWS_MAX: Final = 500_000
"""Readings that one commit takes at most."""
KEPT_ROW_BYTES: Final = 21
COUNTED_ROW_BYTES: Final = 5

Text = tuple[int, int, str]


@dataclass(frozen=True, slots=True)
class Entry:
    """The readings of one tick. at: ns UTC of the step. tags, quality: of all that was received, for the ledger.

    history: readings from before, which are stored and not counted as received: their own event tells of them.
    """

    at: int
    kept: Batch
    tags: NDArray[np.uint32]
    quality: NDArray[np.uint8]
    history: Batch = EMPTY

    @property
    def rows(self) -> int:
        """Readings to store."""
        return len(self.kept) + len(self.history)

    @property
    def size(self) -> int:
        return self.rows * KEPT_ROW_BYTES + len(self.tags) * COUNTED_ROW_BYTES

    def count(self, counts: Counts, outcome: int) -> None:
        """Enter the tick into the ledger; outcome: KEPT or DROPPED."""
        counts.add(self.at, RECEIVED, self.tags)
        counts.add(self.at, BAD, self.tags[self.quality < UNCERTAIN])
        counts.add(self.at, outcome, self.kept.tag)


@dataclass(slots=True)
class Loss:
    """Readings (or events) that were lost for one reason. start, end: ns UTC of their arrival."""

    reason: str
    start: int
    end: int
    count: int


@dataclass(slots=True)
class Group:
    """What one commit takes."""

    entries: list[Entry] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)

    @property
    def for_journal(self) -> bool:
        return bool(self.events or self.texts or self.state)


class Intake:
    """Filled by the loop's thread, emptied by the store thread."""

    def __init__(self, bytes_max: int, counts: Counts) -> None:
        self.bytes_max = bytes_max
        self.counts = counts
        self.reason = "queue_overflow"
        self.dropped = 0
        self._lock = threading.Lock()
        self._entries: deque[Entry] = deque()
        self._size = 0
        self._in_hand = 0
        self._events: deque[Event] = deque()
        self._texts: list[Text] = []
        self._state: dict[str, Any] = {}
        self._losses: dict[str, Loss] = {}

    def offer(self, tick: Tick, texts: Sequence[Text], state: Mapping[str, Any]) -> bool:
        """Take a tick; return whether there was anything in it. Never blocks for longer than a few appends."""
        readings = len(tick.readings) or len(tick.kept) or len(tick.history)
        if not (readings or tick.events or texts or state):
            return False
        with self._lock:
            self._events.extend(tick.events)
            while len(self._events) > EVENTS_MAX:
                self._lose("events_dropped", self._events.popleft().time, 1)
            self._texts.extend(texts)
            self._state.update(state)
            if readings:
                entry = Entry(tick.now.utc, tick.kept, tick.readings.tag, tick.readings.quality, tick.history)
                self._entries.append(entry)
                self._size += entry.size
                self._drop()
        return True

    def take(self, *, readings: bool) -> Group:
        """Hand over what waits; without `readings` only what the journal takes."""
        group = Group()
        with self._lock:
            group.events.extend(self._events)
            self._events.clear()
            group.texts, self._texts = self._texts, []
            group.state, self._state = self._state, {}
            rows = 0
            while readings and self._entries and rows < GROUP_ROWS_MAX:
                entry = self._entries.popleft()
                rows += entry.rows
                group.entries.append(entry)
            self._in_hand = sum(entry.size for entry in group.entries)
            self._size -= self._in_hand
        return group

    def kept(self, group: Group) -> None:
        """The readings of the group are committed."""
        self._in_hand = 0
        for entry in group.entries:
            entry.count(self.counts, KEPT)

    def give_back_readings(self, group: Group) -> None:
        """The readings of the group could not be committed: they go back to the head of the queue."""
        with self._lock:
            self._entries.extendleft(reversed(group.entries))
            self._size += self._in_hand
            self._in_hand = 0
            self._drop()

    def give_back_journal(self, group: Group) -> None:
        """Events, texts and state of the group could not be committed: they go back to the head of the queue."""
        with self._lock:
            self._events.extendleft(reversed(group.events))
            self._texts = group.texts + self._texts
            self._state = {**group.state, **self._state}

    def take_losses(self) -> list[Loss]:
        """Hand over what was lost since the last call."""
        with self._lock:
            losses, self._losses = list(self._losses.values()), {}
        return losses

    @property
    def waiting(self) -> bool:
        """There is something to commit."""
        return bool(self._entries or self._events or self._texts or self._state)

    @property
    def size(self) -> int:
        """Bytes of readings in memory."""
        return self._size + self._in_hand

    def _drop(self) -> None:
        while self._size + self._in_hand > self.bytes_max and self._entries:
            entry = self._entries.popleft()
            self._size -= entry.size
            entry.count(self.counts, DROPPED)
            self.dropped += entry.rows
            if entry.rows:
                self._lose(self.reason, entry.at, entry.rows)

    def _lose(self, reason: str, at: int, count: int) -> None:
        loss = self._losses.get(reason)
        if loss is None:
            self._losses[reason] = Loss(reason, at, at, count)
        else:
            loss.start, loss.end = min(loss.start, at), max(loss.end, at)
            loss.count += count
