"""`Frames`: the snapshot as bytes, computed once for all who look, and only while somebody looks.

Owns the cache of the encoded snapshot and the beat of the live stream. A slow client misses beats, it never queues
them: every client sends the newest frame or waits for the next.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Final

import msgspec

from edge import clock
from edge.view import Snapshot
from plant.instant import NS_PER_MS

FRAME_AGE_MAX_NS: Final = 250 * NS_PER_MS
"""A request that comes sooner after the last one gets the same snapshot."""

RETRY_MS: Final = 2000
"""How long a browser waits before it opens a broken stream again."""


class Frames:
    """Snapshots for requests (`latest`) and for streams (`follow`). One event loop, no threads."""

    def __init__(self, snapshot: Callable[[], Snapshot], period_s: float, streams_max: int) -> None:
        self._snapshot = snapshot
        self._period_s = period_s
        self._streams_max = streams_max
        self._encoder = msgspec.json.Encoder()
        self._cached: tuple[Snapshot, bytes] | None = None
        self._cached_at = 0
        self._beat = asyncio.Event()
        self._beating: asyncio.Task[None] | None = None
        self._closed = False
        self.streams = 0
        self.refused = 0

    def latest(self) -> tuple[Snapshot, bytes]:
        """Return the present snapshot and its JSON, at most FRAME_AGE_MAX_NS old."""
        now = clock.now().monotonic
        if self._cached is None or now - self._cached_at > FRAME_AGE_MAX_NS:
            snapshot = self._snapshot()
            self._cached = snapshot, self._encoder.encode(snapshot)
            self._cached_at = now
        return self._cached

    def admit(self) -> bool:
        """Take a place for one stream; False if all are taken. Whoever is admitted must iterate `follow`."""
        if self._closed or self.streams >= self._streams_max:
            self.refused += 1
            return False
        self.streams += 1
        return True

    def leave(self) -> None:
        """Give back the place; the last one out stops the beat."""
        self.streams -= 1
        if self.streams == 0 and self._beating is not None:
            self._beating.cancel()
            self._beating = None

    async def follow(self) -> AsyncGenerator[bytes, None]:
        """Yield server-sent events until `close`: one at once, then one per beat."""
        if self._beating is None:
            self._beating = asyncio.create_task(self._run(), name="web beat")
        yield b"retry: %d\n\n" % RETRY_MS
        while not self._closed:
            beat = self._beat
            yield b"data: " + self.latest()[1] + b"\n\n"
            await beat.wait()

    def close(self) -> None:
        """End every stream after its present frame."""
        self._closed = True
        self._strike()

    def _strike(self) -> None:
        beat, self._beat = self._beat, asyncio.Event()
        beat.set()

    async def _run(self) -> None:
        while not self._closed:
            await asyncio.sleep(self._period_s)
            self._strike()
