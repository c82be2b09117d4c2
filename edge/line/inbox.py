"""The inbox: the one bounded place where everything that enters the gateway waits for the line."""

import asyncio
from collections import deque

from edge.tick import Signal
from plant.batch import EMPTY, Batch

SIGNALS_MAX = 10_000
"""More unprocessed signals than this means that the line stands still; then the oldest are dropped and counted."""

HISTORY_MAX = 4
"""Batches of history that wait; sources make them of at most some thousand readings."""


class Inbox:
    """Bounded by rows. `put` waits when it is full, so back-pressure reaches the PLC instead of filling memory."""

    def __init__(self, rows_max: int = 1_000_000) -> None:
        self.rows_max = rows_max
        self.rows = 0
        self.waits = 0
        self.signals_dropped = 0
        self._batches: list[Batch] = []
        self._signals: deque[Signal] = deque(maxlen=SIGNALS_MAX)
        self._history: deque[Batch] = deque()
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._history_room = asyncio.Event()

    async def put(self, batch: Batch) -> None:
        """Add a batch; waits until there is room. A batch larger than the inbox is taken when the inbox is empty."""
        n = len(batch)
        if not n:
            return
        while self.rows and self.rows + n > self.rows_max:
            self.waits += 1
            self._room.clear()
            await self._room.wait()
        self._batches.append(batch)
        self.rows += n
        self._arrived.set()

    async def history(self, batch: Batch) -> None:
        """Add readings from a device's history; waits while others wait, so that live readings come first."""
        while len(self._history) >= HISTORY_MAX:
            self._history_room.clear()
            await self._history_room.wait()
        self._history.append(batch)
        self._arrived.set()

    def take_history(self) -> Batch:
        """Take the next batch of history: one per step."""
        self._history_room.set()
        if not self._history:
            return EMPTY
        batch = self._history.popleft()
        if self._history:
            self._arrived.set()
        return batch

    def signal(self, signal: Signal) -> None:
        """Add a command, a condition or an event; never waits."""
        if len(self._signals) == SIGNALS_MAX:
            self.signals_dropped += 1
        self._signals.append(signal)
        self._arrived.set()

    async def wait(self, timeout_s: float) -> None:
        """Return when something has arrived, or after `timeout_s`."""
        if self._arrived.is_set():
            return
        loop = asyncio.get_running_loop()
        alarm = loop.call_later(timeout_s, self._arrived.set)
        try:
            await self._arrived.wait()
        finally:
            alarm.cancel()

    def take(self) -> tuple[list[Batch], list[Signal]]:
        """Take all that has arrived."""
        batches, self._batches = self._batches, []
        signals = list(self._signals)
        self._signals.clear()
        self.rows = 0
        self._arrived.clear()
        self._room.set()
        return batches, signals
