"""Live values, the lossy way out: newest value wins, at a bounded rate, grouped per asset.

Owns the last value of every tag as columns and which of them changed since they were published. Costs a few array
operations per tick, whatever its size; text is made only for what is due. What a newer value replaced before it was
published is counted, not kept.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.outlets import payloads
from edge.outlets.topics import Topics
from plant.batch import Batch
from plant.tags import Tag, TagTable
from plant.texts import Texts

VALUES_PER_MESSAGE_MAX = 500
_NEVER = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True)
class LiveMessage:
    topic: str
    payload: bytes


class LiveValues:
    """The newest value of each tag and what of it the broker has not been told."""

    def __init__(self, gateway: str, topics: Topics, table: TagTable, texts: Texts, refresh_ns: int) -> None:
        self._gateway = gateway
        self._topics = topics
        self._texts = texts
        self._refresh_ns = refresh_ns
        self.offered = 0
        self.published = 0
        self.superseded = 0
        self.unchanged = 0
        self._columns(table)

    def _columns(self, table: TagTable) -> None:
        size = table.size
        self._table = table
        self._time: NDArray[np.int64] = np.full(size, _NEVER, np.int64)
        self._value = np.full(size, np.nan)
        self._quality: NDArray[np.uint8] = np.zeros(size, np.uint8)
        self._due = np.zeros(size, np.bool_)
        self._told_value = np.full(size, np.nan)
        self._told_quality: NDArray[np.int16] = np.full(size, -1, np.int16)
        assets = sorted({tag.asset for tag in table.tags})
        self._members = {
            asset: np.array(sorted(tag.index for tag in table.tags if tag.asset == asset), np.intp) for asset in assets
        }
        self._refreshed = dict.fromkeys(assets, _NEVER)

    def use(self, table: TagTable) -> None:
        """Take another tag table; the values of tags that stay are kept."""
        time, value, quality = self._time, self._value, self._quality
        self._columns(table)
        kept = min(len(time), table.size)
        stays = np.flatnonzero(table.known[:kept])
        self._time[stays] = time[stays]
        self._value[stays] = value[stays]
        self._quality[stays] = quality[stays]

    def offer(self, readings: Batch) -> None:
        """Take the readings of a step."""
        n = len(readings)
        if n == 0:
            return
        tag = readings.tag
        self.offered += n
        if int(tag.max()) >= self._table.size:
            readings = readings.select(tag < self._table.size)
            tag = readings.tag
        newer = readings.time >= self._time[tag]
        if not newer.all():
            readings = readings.select(newer)
            tag = readings.tag
        before = np.count_nonzero(self._due)
        self._time[tag] = readings.time
        self._value[tag] = readings.value
        self._quality[tag] = readings.quality
        self._due[tag] = True
        self.superseded += n - int(np.count_nonzero(self._due) - before)

    def refresh(self) -> None:
        """Make every value due, as if nobody had been told anything."""
        self._refreshed = dict.fromkeys(self._refreshed, _NEVER)

    def messages(self, utc: int, monotonic: int) -> Iterator[LiveMessage]:
        """Yield what is due now, asset by asset; what was yielded counts as told.

        A consumer that stops early leaves the rest due.
        """
        for asset, members in self._members.items():
            complete = monotonic - self._refreshed[asset] >= self._refresh_ns
            if complete:
                due = members[self._time[members] != _NEVER]
                if not len(due):
                    continue
                # Told nothing: what the consumer does not take now stays due.
                self._due[due] = True
                self._told_quality[due] = -1
                self._refreshed[asset] = monotonic
            else:
                due = self._changed(members)
            for first in range(0, len(due), VALUES_PER_MESSAGE_MAX):
                part = due[first : first + VALUES_PER_MESSAGE_MAX]
                yield self._message(asset, part, utc, complete=complete)

    def _changed(self, members: NDArray[np.intp]) -> NDArray[np.intp]:
        due = members[self._due[members]]
        if not len(due):
            return due
        value, told = self._value[due], self._told_value[due]
        same = (self._quality[due] == self._told_quality[due]) & ((value == told) | (np.isnan(value) & np.isnan(told)))
        self._due[due[same]] = False
        self.unchanged += int(np.count_nonzero(same))
        different: NDArray[np.intp] = due[~same]
        return different

    def _message(self, asset: str, part: NDArray[np.intp], utc: int, *, complete: bool) -> LiveMessage:
        by_index = self._table.by_index
        times = payloads.rfc3339_column(self._time[part])
        rows = zip(part.tolist(), self._value[part].tolist(), self._quality[part].tolist(), times, strict=True)
        by_tag = {}
        for index, value, quality, time in rows:
            tag = by_index[index]
            shown = self._shown(tag, value)
            by_tag[tag.name] = payloads.Value(shown, quality, time, tag.unit if complete else "")
        self._due[part] = False
        self._told_value[part] = self._value[part]
        self._told_quality[part] = self._quality[part]
        self.published += len(part)
        payload = payloads.values(self._gateway, time=utc, complete=complete, by_tag=by_tag)
        return LiveMessage(self._topics.value(asset), payload)

    def _shown(self, tag: Tag, value: float) -> float | str | None:
        if not math.isfinite(value):
            return None
        return self._texts.text(tag.index, int(value)) if tag.text else value
