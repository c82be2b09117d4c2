"""A recording as a source: a Parquet or CSV file played at its own pace, faster, or as fast as it can be read.

Owns the pace and the turning of cells into readings; leaves the file to `replay_recording`. `connect` copies what is
needed of it, in order of time, into a temporary file; `read` takes it from there chunk by chunk, so memory is bounded
however long the recording is. DuckDB works in threads, the event loop never waits for it.

A cell without a value is no reading. A value that is no number, where a number is due, is a BAD reading.
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge import clock as edge_clock
from edge.errors import Disconnected, Unreachable
from edge.sources.replay_recording import Recording, ReplayOptions, ReplayPoint
from plant.batch import BAD, EMPTY, GOOD, Batch, concat
from plant.instant import NS_PER_S, Instant
from plant.texts import Texts

__all__ = ["ReplayOptions", "ReplayPoint", "ReplaySource"]


class ReplaySource:
    """See edge.sources.Source. folder: what a relative path is relative to. `ended`: the recording is over.
    lost: rows without a readable time.
    """

    lost_reason: Final = "no_time"

    deadline_s: Final = None
    """A recording may be silent for as long as the recorded device was."""

    def __init__(
        self,
        options: ReplayOptions,
        points: Sequence[ReplayPoint],
        texts: Texts,
        folder: Path = Path(),
        clock: Callable[[], Instant] = edge_clock.now,
    ) -> None:
        self.name = options.name
        self.tags: NDArray[np.uint32] = np.array([point.tag for point in points], np.uint32)
        self.problems: dict[int, str] = {}
        self.lost = 0
        self.ended = asyncio.Event()
        self._options = options
        self._points = tuple(points)
        self._texts = texts
        self._path = folder / options.path
        self._clock = clock
        self._recording: Recording | None = None
        self._chunk = EMPTY
        self._row = 0
        self._started = Instant(0, 0)
        self._closed = asyncio.Event()

    async def connect(self) -> None:
        """Open the recording. Raises Unreachable (no such file, cannot be read) or Refused (not the right columns)."""
        await self.close()
        if not self._path.is_file():
            raise Unreachable(f"device {self.name}: there is no recording {self._path}; check its path")
        recording = Recording(self._options, self._points, self._path)
        try:
            self.problems = await asyncio.to_thread(recording.open)
        except BaseException:
            await asyncio.to_thread(recording.close)
            raise
        self.lost += recording.rows_without_time
        self._closed.clear()
        self.ended.clear()
        self._recording = recording
        self._begin()

    async def read(self) -> Batch:
        """Wait until a row is due and return every row that is. Raises Disconnected once closed."""
        while True:
            recording = self._recording
            if recording is None:
                raise Disconnected(f"device {self.name}: the recording {self._path} is not open")
            if not len(self._chunk):
                await self._next_chunk(recording)
                continue
            due = self._due()
            if due:
                return self._take(due)
            await self._sleep(self._wait_s())

    async def close(self) -> None:
        """Close the recording and remove the temporary file; idempotent."""
        self._closed.set()
        recording, self._recording = self._recording, None
        self._chunk = EMPTY
        if recording is not None:
            await asyncio.to_thread(recording.close)

    def _begin(self) -> None:
        self._row = 0
        self._chunk = EMPTY
        self._started = self._clock()

    async def _next_chunk(self, recording: Recording) -> None:
        """Fetch rows; at the end of the recording begin again, or wait until somebody closes."""
        first = self._row
        self._row = last = min(first + self._options.rows_per_read_max, recording.rows)
        if first < last:
            columns = await asyncio.to_thread(recording.fetch, first, last)
            if self._recording is recording:
                self._chunk = self._to_batch(columns)
        elif self._options.loop and recording.rows:
            await self._sleep(self._loop_wait_s(recording))
            self._begin()
        else:
            self.ended.set()
            await self._closed.wait()

    def _loop_wait_s(self, recording: Recording) -> float:
        """The last row is followed by the first after the mean distance of two rows, at least a millisecond."""
        step = (recording.last - recording.first) / max(1, recording.rows - 1)
        return max(step / NS_PER_S / self._options.speed, 0.001)

    def _due(self) -> int:
        """How many rows of the chunk are due now."""
        if self._options.speed == 0:
            return len(self._chunk)
        return int(np.searchsorted(self._chunk.time, self._position(), side="right"))

    def _position(self) -> float:
        """The time in the recording that is played now, ns."""
        assert self._recording is not None
        played = (self._clock().monotonic - self._started.monotonic) * self._options.speed
        return self._recording.first + played

    def _wait_s(self) -> float:
        behind = float(self._chunk.time[0]) - self._position()
        return max(behind / self._options.speed / NS_PER_S, 0.0)

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._closed.wait()
        except TimeoutError:
            return

    def _take(self, rows: int) -> Batch:
        batch, self._chunk = _cut(self._chunk, 0, rows), _cut(self._chunk, rows, len(self._chunk))
        if self._options.times == "original":
            return batch
        assert self._recording is not None
        if self._options.speed == 0:
            return Batch(batch.tag, batch.time + (self._started.utc - self._recording.last), batch.value, batch.quality)
        since = (batch.time - self._recording.first) / self._options.speed
        return Batch(batch.tag, self._started.utc + since.astype(np.int64), batch.value, batch.quality)

    def _to_batch(self, columns: dict[str, NDArray[Any]]) -> Batch:
        """Turn the columns of a chunk into readings in order of time."""
        time = np.asarray(columns["t"], np.int64)
        if self._options.layout == "long":
            return self._from_long(time, columns)
        parts = [
            part
            for i, point in enumerate(self._points)
            if f"c{i}" in columns and len(part := self._column(point, time, columns[f"c{i}"]))
        ]
        rows = concat(parts)
        return rows.select(np.argsort(rows.time, kind="stable"))

    def _from_long(self, time: NDArray[np.int64], columns: dict[str, NDArray[Any]]) -> Batch:
        which = np.asarray(columns["p"], np.intp)
        tag = self.tags[which]
        value = np.ma.filled(np.ma.asarray(columns["v"], np.float64), np.nan)
        for i in {int(k) for k in np.unique(which)}:
            if self._points[i].text:
                rows = which == i
                value[rows] = self._intern(self._points[i].tag, np.ma.filled(columns["s"][rows], ""))
        quality = np.asarray(columns["q"], np.uint8)
        return Batch(tag, time, value, np.where(np.isfinite(value), quality, BAD).astype(np.uint8))

    def _column(self, point: ReplayPoint, time: NDArray[np.int64], cells: NDArray[Any]) -> Batch:
        present = ~np.ma.getmaskarray(cells)
        found = np.ma.getdata(cells)[present]
        value = self._intern(point.tag, found) if point.text else found.astype(np.float64)
        good = np.isfinite(value)
        return Batch(
            np.full(len(value), point.tag, np.uint32),
            time[present],
            np.where(good, value, np.nan),
            np.where(good, GOOD, BAD).astype(np.uint8),
        )

    def _intern(self, tag: int, cells: NDArray[Any]) -> NDArray[np.float64]:
        """Return the code of each text; each distinct text of a chunk is looked up once."""
        distinct, which = np.unique(cells.astype(np.str_), return_inverse=True)
        codes = np.array([self._texts.code(tag, str(text)) for text in distinct], np.float64)
        return codes[which] if len(codes) else np.empty(0)


def _cut(batch: Batch, first: int, last: int) -> Batch:
    """Return the rows first..last-1 without a copy."""
    rows = slice(first, last)
    return Batch(batch.tag[rows], batch.time[rows], batch.value[rows], batch.quality[rows])
