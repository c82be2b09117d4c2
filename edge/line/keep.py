"""Keep: which readings are worth storing. A deadband per tag, a heartbeat, and every change of quality."""

import numpy as np
from numpy.typing import NDArray

from edge.line.columns import grown
from plant.batch import Batch
from plant.tags import TagTable


class Deadband:
    """Remembers what was kept last per tag.

    A reading is kept when its value differs from the last kept one by more than the tag's deadband (any change
    for 0, always for a negative deadband), when its quality differs, or when the tag's heartbeat has passed
    since the last kept time. The first reading of a tag is always kept.
    """

    def __init__(self, table: TagTable) -> None:
        size = table.size
        self._deadband = table.deadband
        self._heartbeat = table.heartbeat_ns
        self._value = np.full(size, np.nan)
        self._quality = np.full(size, 255, np.uint8)  # 255 is no quality, so the first reading differs
        self._time: NDArray[np.int64] = np.zeros(size, np.int64)
        self._row: NDArray[np.int64] = np.zeros(size, np.int64)

    def use(self, table: TagTable) -> None:
        """Take another tag table; what was kept last of a tag stays, since its index does."""
        size = max(table.size, len(self._value))
        self._deadband = table.deadband
        self._heartbeat = table.heartbeat_ns
        self._value = grown(self._value, size, np.nan)
        self._quality = grown(self._quality, size, 255)
        self._time = grown(self._time, size, 0)
        self._row = grown(self._row, size, 0)

    def apply(self, batch: Batch) -> Batch:
        """Return the kept rows in their order."""
        n = len(batch)
        if not n:
            return batch
        rows = np.arange(n)
        self._row[batch.tag] = rows
        if (self._row[batch.tag] == rows).all():
            keep = self._round(batch)
            return batch if keep.all() else batch.select(keep)
        return batch.select(self._rounds(batch))

    def _rounds(self, batch: Batch) -> NDArray[np.bool_]:
        """Take tags with several readings one reading per tag at a time, so each is compared with the last kept."""
        n = len(batch)
        order = np.argsort(batch.tag, kind="stable")
        tag = batch.tag[order]
        first = np.flatnonzero(np.r_[True, tag[1:] != tag[:-1]])
        count = np.diff(np.r_[first, n])
        keep = np.zeros(n, np.bool_)
        for i in range(int(count.max())):
            rows = order[first[count > i] + i]
            keep[rows] = self._round(batch.select(rows))
        return keep

    def _round(self, batch: Batch) -> NDArray[np.bool_]:
        """Decide for a batch in which no tag occurs twice."""
        tag, value = batch.tag, batch.value
        with np.errstate(invalid="ignore"):
            moved = np.abs(value - self._value[tag]) > self._deadband[tag]
        keep: NDArray[np.bool_] = moved | (batch.quality != self._quality[tag])
        keep |= batch.time - self._time[tag] >= self._heartbeat[tag]
        if keep.all():
            self._value[tag], self._quality[tag], self._time[tag] = value, batch.quality, batch.time
        else:
            kept = tag[keep]
            self._value[kept] = value[keep]
            self._quality[kept] = batch.quality[keep]
            self._time[kept] = batch.time[keep]
        return keep
