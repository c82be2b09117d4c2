"""The counting half of the loss ledger: per tag and interval, what was received, kept, bad and lost.

Counted with numpy over whole groups, never per reading, and written as rows into the ring.
"""

import threading
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from plant.instant import NS_PER_S

INTERVAL_NS: Final = 600 * NS_PER_S
INTERVALS_MAX: Final = 1_000
"""Intervals that wait for the disk, about a week; older ones are then lost."""
FLUSH_AFTER_S: Final = 60
FLUSH_SHARE: Final = 20
"""An unfinished interval is written early if it costs at most one row per this many readings."""
RECEIVED, KEPT, BAD, DROPPED = range(4)


class Counts:
    """Counts per (interval, tag). Used by the loop's thread (what is dropped) and the store's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._intervals: dict[int, NDArray[np.int64]] = {}
        self._written_at = 0

    def add(self, at: int, kind: int, tags: NDArray[np.uint32]) -> None:
        """Count one row per element of `tags`, at the time of their arrival `at` (ns UTC)."""
        if not len(tags):
            return
        fresh = np.bincount(tags)
        with self._lock:
            self._room(at - at % INTERVAL_NS, len(fresh))[kind, : len(fresh)] += fresh

    def take(self, now: int, *, everything: bool = False) -> dict[str, Any] | None:
        """Hand over the columns of the table `counts` if it is time, else None. now: ns UTC."""
        with self._lock:
            if not everything and not self._is_due(now):
                return None
            taken, self._intervals = self._intervals, {}
            self._written_at = now
        parts = [(start, np.flatnonzero(table.any(axis=0)), table) for start, table in sorted(taken.items())]
        parts = [part for part in parts if len(part[1])]
        if not parts:
            return None
        columns: dict[str, Any] = {
            "since": np.concatenate([np.full(len(tags), start // 1000, np.int64) for start, tags, _ in parts]).view(
                "M8[us]"
            ),
            "tag": np.concatenate([tags for _, tags, _ in parts]).astype(np.uint32),
        }
        for name, kind in (("received", RECEIVED), ("kept", KEPT), ("bad", BAD), ("dropped", DROPPED)):
            columns[name] = _column([table[kind, tags] for _, tags, table in parts])
        return columns

    def give_back(self, columns: dict[str, Any]) -> None:
        """Take back what could not be written."""
        with self._lock:
            since = columns["since"].view(np.int64) * 1000
            for start in np.unique(since):
                rows = since == start
                tags = columns["tag"][rows]
                table = self._room(int(start), int(tags.max()) + 1)
                for name, kind in (("received", RECEIVED), ("kept", KEPT), ("bad", BAD), ("dropped", DROPPED)):
                    table[kind, tags] += columns[name][rows]

    def _is_due(self, now: int) -> bool:
        if not self._intervals:
            return False
        current = now - now % INTERVAL_NS
        if any(start != current for start in self._intervals):
            return True
        if now - self._written_at < FLUSH_AFTER_S * NS_PER_S:
            return False
        table = self._intervals[current]
        return bool(table[RECEIVED].sum() >= FLUSH_SHARE * np.count_nonzero(table[RECEIVED]))

    def _room(self, start: int, size: int) -> NDArray[np.int64]:
        table = self._intervals.get(start)
        if table is None or table.shape[1] < size:
            wider = np.zeros((4, size), np.int64)
            if table is not None:
                wider[:, : table.shape[1]] = table
            self._intervals[start] = table = wider
            while len(self._intervals) > INTERVALS_MAX:
                del self._intervals[min(self._intervals)]
        return table


def _column(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.uint32]:
    return np.minimum(np.concatenate(parts), np.iinfo(np.uint32).max).astype(np.uint32)
