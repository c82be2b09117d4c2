"""What is known of each tag and what the host was told of it, as columns; and the readings that wait to be told.

Costs a few array operations per tick and per message, whatever the size.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.outlets.sparkplug.plan import UNPUBLISHED, Plan
from plant.batch import BAD, EMPTY, GOOD, Batch, concat
from plant.instant import NS_PER_MS
from plant.tags import TagTable

WAITING_ROWS_MAX: Final = 500_000
"""Readings that wait for the next message, e.g. while the socket takes nothing."""


class Values:
    """Columns by tag index: `time`, `value`, `quality` newest known; `seen`: there is one."""

    def __init__(self, plan: Plan) -> None:
        self._columns(plan.size)
        self._plan = plan
        self._waiting: list[Batch] = []
        self._past: list[Batch] = []
        self.waiting_rows = 0
        self.offered = 0
        self.unchanged = 0

    def _columns(self, size: int) -> None:
        self.seen: NDArray[np.bool_] = np.zeros(size, np.bool_)
        self.time: NDArray[np.int64] = np.zeros(size, np.int64)
        self.value = np.full(size, np.nan)
        self.quality: NDArray[np.uint8] = np.zeros(size, np.uint8)
        self._told_value = np.full(size, np.nan)
        self._told_quality: NDArray[np.int16] = np.full(size, -1, np.int16)

    def use(self, plan: Plan, table: TagTable) -> None:
        """Take another plan; the values of tags that stay are kept, what was told is to be told again."""
        seen, time, value, quality = self.seen, self.time, self.value, self.quality
        self._columns(plan.size)
        self._plan = plan
        kept = min(len(seen), plan.size)
        stays = np.flatnonzero(table.known[:kept] & seen[:kept])
        self.seen[stays], self.time[stays] = True, time[stays]
        self.value[stays], self.quality[stays] = value[stays], quality[stays]

    @property
    def good(self) -> NDArray[np.bool_]:
        """Per tag: it has a value that is not bad."""
        good: NDArray[np.bool_] = self.seen & (self.quality != BAD)
        return good

    def note(self, readings: Batch) -> None:
        """Take the readings of a step as the newest."""
        if len(readings) == 0:
            return
        if int(readings.tag.max()) >= len(self.seen):
            readings = readings.select(readings.tag < len(self.seen))
        tag = readings.tag
        newer = readings.time >= self.time[tag]
        if not newer.all():
            readings = readings.select(newer)
            tag = readings.tag
        self.seen[tag] = True
        self.time[tag] = readings.time
        self.value[tag] = readings.value
        self.quality[tag] = readings.quality

    def queue(self, kept: Batch, past: Batch = EMPTY) -> bool:
        """Let readings wait to be told, those of the past as such; False when too many wait, and then none does."""
        for rows, queue in ((kept, self._waiting), (past, self._past)):
            if len(rows):
                self.offered += len(rows)
                queue.append(rows)
                self.waiting_rows += len(rows)
        if self.waiting_rows > WAITING_ROWS_MAX:
            self.drop()
            return False
        return True

    def drop(self) -> None:
        """Forget what waits."""
        self._waiting, self._past, self.waiting_rows = [], [], 0

    def take(self) -> Batch:
        """Hand over what waits, without tags that are not published."""
        rows, self._waiting = concat(self._waiting), []
        self.waiting_rows -= len(rows)
        return self.published(rows)

    def take_past(self) -> Batch:
        """Hand over what waits of the past."""
        rows, self._past = concat(self._past), []
        self.waiting_rows -= len(rows)
        return self.published(rows)

    def published(self, rows: Batch) -> Batch:
        """Return the rows of published tags."""
        if len(rows) == 0:
            return rows
        known = rows.tag < self._plan.size
        if not known.all():
            rows = rows.select(known)
        return rows.select(self._plan.device_of[rows.tag] != UNPUBLISHED)

    def told(self, tags: NDArray[np.intp]) -> None:
        """Note that a birth told the newest of these tags."""
        self._told_value[tags] = self.value[tags]
        self._told_quality[tags] = np.where(self.seen[tags], self.quality[tags], BAD)

    def changes(self, rows: Batch) -> tuple[Batch, NDArray[np.bool_]]:
        """Return the rows that say something new, and for each whether its quality must be stated; all count as told.

        A row that repeats value and quality says nothing new; of two rows of a tag in one millisecond the later
        one holds. A quality is stated as long as it is not good, and when it becomes so.
        """
        rows = rows.select(np.lexsort((rows.time, rows.tag)))
        tag = rows.tag
        first = np.ones(len(rows), np.bool_)
        first[1:] = tag[1:] != tag[:-1]
        value = np.where(first, self._told_value[tag], np.concatenate(([np.nan], rows.value[:-1])))
        before = np.concatenate(([0], rows.quality[:-1].astype(np.int16)))
        quality = np.where(first, self._told_quality[tag], before)
        same = (rows.quality == quality) & ((rows.value == value) | (np.isnan(rows.value) & np.isnan(value)))
        time_ms = rows.time // NS_PER_MS
        overtaken = np.zeros(len(rows), np.bool_)
        overtaken[:-1] = ~first[1:] & (time_ms[1:] == time_ms[:-1])
        self._told_value[tag] = rows.value
        self._told_quality[tag] = rows.quality
        says = ~(same | overtaken)
        self.unchanged += int(np.count_nonzero(~says))
        state = (rows.quality != quality) | (rows.quality & 0xC0 != GOOD)
        return rows.select(says), self._marked(tag, state)[says]

    def _marked(self, tag: NDArray[np.uint32], state: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Every row of a tag of which one row must state its quality does so."""
        marks = np.zeros(self._plan.size, np.bool_)
        marks[tag[state]] = True
        marked: NDArray[np.bool_] = marks[tag]
        return marked
