"""One run: the rows of a recording through the line of a configuration, with the times of the recording.

Owns the clock of a replay and what a stored recording left out. Rules:

- Time goes in steps of STEP_NS, as the running gateway's line does; steps in which nothing can happen are left out.
  Both clocks of an `Instant` show the recording's time.
- A store keeps a value only when it changes, and at least once in its heartbeat. A value whose next row comes within
  its heartbeat is therefore repeated every HOLD_NS: the device was alive, though nothing was stored.
- The same recording and the same configuration give the same outcome, event for event.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.alarms import Alarms
from edge.assembly import make_alarms, make_line, make_production
from edge.config import Config, make_table, make_tags
from edge.line import Line
from edge.line.keep import Deadband
from edge.replay.outcome import Fold, Outcome, Readings
from edge.replay.recording import NEVER, Recording, Rows
from edge.sources.replay import ReplayOptions
from plant.batch import BAD, EMPTY, Batch, concat
from plant.events import EventIds
from plant.instant import NS_PER_MS, NS_PER_S, Instant
from plant.tags import Tag, TagTable
from plant.texts import Texts

STEP_NS: Final = 100 * NS_PER_MS
IDLE_NS: Final = NS_PER_S
"""Between two steps while nothing arrives; production and silence look once a second."""
QUIET_AFTER_NS: Final = 600 * NS_PER_S
QUIET_NS: Final = 60 * NS_PER_S
"""Between two steps when nothing has arrived for QUIET_AFTER_NS."""
HOLD_NS: Final = NS_PER_S
HEARTBEAT_SLACK: Final = 1.5
HEARTBEAT_SPARE_NS: Final = 5 * NS_PER_S
"""A heartbeat is due with the first reading after it: so much later it may come."""
TAIL_NS: Final = NS_PER_S
"""The line runs on for this long after the last row."""

COMPUTED: Final = -2
UNKNOWN: Final = -1

Progress = Callable[[int], None]
"""Told the ns UTC that was reached."""


def run(
    config: Config, recording: Recording, *, stored: Config | None = None, progress: Progress | None = None
) -> Outcome:
    """Run a whole recording through a configuration.

    stored: the configuration whose engineering values the recording holds; None: it holds raw values.
    """
    return _Run(config, recording, stored).finish(progress or (lambda _: None))


def table_for(config: Config, stored: Config | None) -> TagTable:
    """Return the tags with the scale that turns what was recorded into this configuration's engineering values."""
    tags = make_tags(config.file, config.tags)
    if stored is not None:
        was = {tag.name: tag for tag in make_tags(stored.file, stored.tags)}
        tags = [_rescaled(tag, was.get(tag.name, tag)) for tag in tags]
    return make_table(tags)


def _rescaled(tag: Tag, was: Tag) -> Tag:
    scale = tag.scale / was.scale
    return dataclasses.replace(tag, scale=scale, offset=tag.offset - was.offset * scale)


class _Run:
    """The state of a run between two steps."""

    def __init__(self, config: Config, recording: Recording, stored: Config | None) -> None:
        self.config = config
        self.recording = recording
        self.table = table_for(config, stored)
        self.texts = Texts()
        start = Instant(recording.first // STEP_NS * STEP_NS, recording.first // STEP_NS * STEP_NS)
        ids = EventIds("replay")
        self.alarms: Alarms = make_alarms(config, self.table, ids)
        production = make_production(config, self.table, self.texts, ids)
        self.line: Line = make_line(self.table, production, self.alarms, ids, start)
        self.fold = Fold(config, recording.first, recording.last)
        self.now = start.utc
        self.index, self.ignored = _indices(config, self.table, recording.names)
        self.seen = np.zeros(self.table.size, np.int64)
        self.kept = np.zeros(self.table.size, np.int64)
        self.computed = 0
        self.deadband = Deadband(self.table)
        self.hold = _Hold(config, self.table, recording.last + TAIL_NS + STEP_NS)
        self.signals = list(recording.signals)
        self.signal = 0
        self.last_rows = start.utc

    def finish(self, progress: Progress) -> Outcome:
        for slot, rows in _slots(self.recording.chunks()):
            self._idle_until(slot)
            self._step(slot, self._batch(rows), rows)
            progress(slot)
        self._idle_until(self.now + TAIL_NS + STEP_NS)
        self.fold.close(self.now)
        named = {int(i) for i in self.index if i >= 0}
        device_tags = [tag for tag in self.table.tags if not tag.virtual]
        readings = Readings(
            rows=self.recording.rows,
            computed=self.computed,
            used=int(self.seen.sum()),
            kept=int(self.kept.sum()),
            by_tag={
                tag.name: (int(self.seen[tag.index]), int(self.kept[tag.index]))
                for tag in device_tags
                if self.seen[tag.index]
            },
            ignored=tuple(self.ignored),
            missing=tuple(sorted(tag.name for tag in device_tags if tag.index not in named)),
        )
        return Outcome(
            folder=str(self.config.folder),
            start=self.recording.first,
            end=self.recording.last,
            readings=readings,
            alarms=self.fold.alarms(),
            shifts=self.fold.shifts(),
            steps=self.line.steps,
        )

    def _idle_until(self, slot: int) -> None:
        """Step through the time before `slot`, in which nothing was recorded."""
        while True:
            period = IDLE_NS
            if self.now - self.last_rows > QUIET_AFTER_NS and not self.hold.holds(self.now):
                period = QUIET_NS
            following = self.now + period
            due = self.alarms.next_due
            if due is not None:
                following = min(following, max(_up(due), self.now + STEP_NS))
            if self.signal < len(self.signals):
                following = min(following, max(_up(self.signals[self.signal][0]), self.now + STEP_NS))
            if following >= slot:
                return
            self._step(following, EMPTY, None)

    def _step(self, slot: int, batch: Batch, rows: Rows | None) -> None:
        self.now = slot
        signals = []
        while self.signal < len(self.signals) and self.signals[self.signal][0] <= slot:
            signals.append(self.signals[self.signal][1])
            self.signal += 1
        recorded = len(batch)
        if rows is not None:
            self.last_rows = slot
            self.hold.note(batch, rows, self.index, slot)
        repeats = self.hold.due(slot)
        fed = concat((batch, repeats)) if len(repeats) and recorded else repeats if len(repeats) else batch
        now = Instant(slot, slot)
        tick = self.line.step(fed, signals, now)
        if recorded:
            # Repeats were never readings: what the deadband makes of them is nobody's business.
            read = tick.readings
            read = Batch(read.tag[:recorded], read.time[:recorded], read.value[:recorded], read.quality[:recorded])
            np.add.at(self.seen, read.tag, 1)
            np.add.at(self.kept, self.deadband.apply(read).tag, 1)
        self.fold.take(tick.events, slot)

    def _batch(self, rows: Rows) -> Batch:
        """Turn the rows that this configuration knows into readings."""
        tag = self.index[rows.name]
        known = tag >= 0
        self.computed += int(np.count_nonzero(tag == COMPUTED))
        tag, value, text = tag[known], rows.value[known].copy(), rows.text[known]
        for i in np.flatnonzero(self.is_text[tag]):
            said = text[i]
            value[i] = math.nan if said is None else self.texts.code(int(tag[i]), str(said))
        quality = np.where(np.isfinite(value), rows.quality[known], BAD).astype(np.uint8)
        return Batch(tag.astype(np.uint32), rows.time[known], value, quality)

    @property
    def is_text(self) -> NDArray[np.bool_]:
        return self.hold.is_text


class _Hold:
    """Repeats what was recorded while its next row was still due within its heartbeat."""

    def __init__(self, config: Config, table: TagTable, end: int) -> None:
        """end: of the recording, ns UTC."""
        size = table.size
        self.is_text = np.zeros(size, np.bool_)
        self._within = np.zeros(size, np.int64)
        rates = {rule.tag for rule in config.rules if rule.condition == "rate"}
        for tag in table.tags:
            self.is_text[tag.index] = tag.text
            # The deadband hides how a value moved: a repeat would turn a slow drift into a jump of another rate.
            if not tag.virtual and not (tag.name in rates and tag.deadband > 0):
                self._within[tag.index] = int(tag.heartbeat_ns * HEARTBEAT_SLACK) + HEARTBEAT_SPARE_NS
        self._value = np.full(size, np.nan)
        self._quality = np.zeros(size, np.uint8)
        self._until = np.zeros(size, np.int64)
        self._fed = np.zeros(size, np.int64)
        self._next = 0
        self._end = end
        self._latest = 0

    def holds(self, now: int) -> bool:
        """Tell whether anything is to be repeated after `now`."""
        return self._latest > now

    def note(self, batch: Batch, rows: Rows, index: NDArray[np.int64], now: int) -> None:
        known = index[rows.name] >= 0
        tag, following = batch.tag, rows.next[known]
        self._value[tag] = batch.value
        self._quality[tag] = batch.quality
        self._fed[tag] = now
        # At the end of the recording nobody knows whether a next row would have come in time.
        following = np.where(following == NEVER, self._end, following)
        in_time = following - batch.time <= self._within[tag]
        self._until[tag] = np.where(in_time, following, 0)
        if in_time.any():
            self._latest = max(self._latest, int(following[in_time].max()))

    def due(self, now: int) -> Batch:
        """Return the repeats of this step."""
        if now < self._next:
            return EMPTY
        self._next = now + HOLD_NS
        tags = np.flatnonzero((self._until > now) & (now - self._fed >= HOLD_NS))
        if not len(tags):
            return EMPTY
        self._fed[tags] = now
        return Batch(tags.astype(np.uint32), np.full(len(tags), now, np.int64), self._value[tags], self._quality[tags])


def _up(time: int) -> int:
    """Return the first step at or after a time."""
    return -(-time // STEP_NS) * STEP_NS


def _indices(config: Config, table: TagTable, names: Sequence[str]) -> tuple[NDArray[np.int64], list[str]]:
    """Return per name of the recording its tag index, UNKNOWN where this configuration has none, and those names.

    COMPUTED: the gateway computes the tag, so it is computed again. A column of a recorded device counts by the
    address that tags.csv gives it.
    """
    replayed = {device.name for device in config.file.device if isinstance(device, ReplayOptions)}
    by_column: Mapping[str, str] = {row.address: row.tag for row in config.tags if row.device in replayed}
    index = np.full(max(len(names), 1), UNKNOWN, np.int64)
    ignored = []
    for i, name in enumerate(names):
        tag = table.by_name.get(name) or table.by_name.get(by_column.get(name, ""))
        if tag is None:
            ignored.append(name)
        else:
            index[i] = COMPUTED if tag.virtual else tag.index
    return index, sorted(ignored)


def _slots(chunks: Iterator[Rows]) -> Iterator[tuple[int, Rows]]:
    """Yield the rows step by step: (the end of the step, ns UTC, its rows)."""
    waiting: Rows | None = None
    for chunk in chunks:
        rows = chunk if waiting is None else _joined(waiting, chunk)
        slot = -(-rows.time // STEP_NS) * STEP_NS
        first = np.flatnonzero(np.r_[True, slot[1:] != slot[:-1]])
        # The last step may go on in the next chunk.
        for begin, end in itertools.pairwise(first):
            yield int(slot[begin]), _cut(rows, int(begin), int(end))
        waiting = _cut(rows, int(first[-1]), len(rows))
    if waiting is not None:
        yield int(-(-waiting.time[0] // STEP_NS) * STEP_NS), waiting


def _cut(rows: Rows, first: int, last: int) -> Rows:
    return Rows(*(getattr(rows, f.name)[first:last] for f in dataclasses.fields(Rows)))


def _joined(a: Rows, b: Rows) -> Rows:
    return Rows(*(np.concatenate([getattr(a, f.name), getattr(b, f.name)]) for f in dataclasses.fields(Rows)))
