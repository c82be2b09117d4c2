"""What the store thread does: commit groups, make room, come back from trouble. Synchronous, one thread.

Order of a commit: journal first (events, texts, state), then ring (readings), so that no reading carries a code whose
text is not on the disk. Either may fail without the other.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from edge.journal import Journal, JournalError
from edge.ring import Dropped, Ring, RingError, TagRow
from edge.store.counts import Counts
from edge.store.health import DAMAGED, DISK_FULL, JOURNAL, QUEUE, RING, Forecast, Health
from edge.store.intake import Group, Intake
from edge.store.options import StorageOptions
from edge.view import RingView
from plant.batch import concat
from plant.events import Event, EventIds, Gap, GatewayEvent
from plant.instant import NS_PER_S, Instant

STEPS_MAX: Final = 64
"""Files that one commit may give up for space before it lets go until the next try."""
RETRY_NS: Final = 1 * NS_PER_S
"""Between two tries to commit readings while the ring is down."""
AGED_NS: Final = 600 * NS_PER_S
"""Between two files that go because of their age; less where files cover less than 40 minutes."""
LOSS_NS: Final = 5 * NS_PER_S
"""Losses of this long are told as one Gap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitReport:
    """What has just become durable. events: (number, id) in order. rows: readings.

    next_seq: the number that the next reading will get. took_ns: time of the commit.
    """

    events: tuple[tuple[int, str], ...]
    rows: int
    next_seq: int
    took_ns: int


class Writer:
    """Owner of ring and journal while the gateway runs."""

    def __init__(
        self,
        ring: Ring,
        journal: Journal,
        options: StorageOptions,
        intake: Intake,
        counts: Counts,
        health: Health,
        clock: Callable[[], Instant],
    ) -> None:
        self.ring = ring
        self.journal = journal
        self.options = options
        self.committed = 0
        self.texts_changed = False
        self._intake = intake
        self._counts = counts
        self._health = health
        self._clock = clock
        self._forecast = Forecast()
        self._ids = EventIds(f"store-{uuid.uuid4().hex[:12]}")
        self._own: list[Event] = []
        self._ring_retry_at = 0
        self._journal_suspect = False
        self._losses_at = 0
        self._aged_at = 0

    # One commit

    @property
    def waiting(self) -> bool:
        """There are events of the store's own to commit."""
        return bool(self._own)

    def commit(self, *, last: bool = False) -> CommitReport | None:
        """Commit what waits; None if nothing became durable. Never raises for trouble with the disk."""
        now = self._clock()
        if last:
            self._note_losses(now)
        ring_due = last or now.monotonic >= self._ring_retry_at
        group = self._intake.take(readings=ring_due)
        group.events = self._own + group.events
        self._own = []
        numbers = self._commit_journal(group, now)
        if numbers is None:
            self._intake.give_back_journal(group)
        rows = 0
        if ring_due:
            if numbers is None and group.texts:
                self._intake.give_back_readings(group)
            else:
                rows = self._commit_ring(group, now, last=last)
        if not rows and not numbers:
            return None
        took = self._clock().monotonic - now.monotonic
        return CommitReport(events=tuple(numbers or ()), rows=rows, next_seq=self.ring.next_seq, took_ns=took)

    def _commit_journal(self, group: Group, now: Instant) -> list[tuple[int, str]] | None:
        if not group.for_journal:
            return []
        for step in range(STEPS_MAX):
            try:
                if self._journal_suspect:
                    self._reopen_journal()
                numbers = self.journal.commit(group.events, group.texts, group.state)
            except JournalError as error:
                if error.full and self._make_room(now):
                    continue
                if not error.full and not step:
                    self._journal_suspect = True
                    continue
                self._journal_suspect = not error.full
                self._health.put(JOURNAL, f"{error}; {len(group.events)} events wait in memory")
                return None
            self._health.put(JOURNAL, "")
            self.texts_changed = self.texts_changed or bool(group.texts)
            return numbers
        return None

    def _commit_ring(self, group: Group, now: Instant, *, last: bool) -> int:
        counts = self._counts.take(now.utc, everything=last)
        if not group.entries and counts is None and not group.texts:
            return 0
        batch = concat([part for entry in group.entries for part in (entry.kept, entry.history) if len(part)])
        target = -1
        for step in range(STEPS_MAX):
            try:
                if not self.ring.is_open:
                    self._recover(now)
                    if len(batch) and self.ring.next_seq == target:
                        # The error came after the commit: the file says that the rows are in it.
                        break
                target = self.ring.next_seq + len(batch)
                self._trim(now, len(batch))
                self.ring.append(batch, now.utc, counts, group.texts)
                break
            except RingError as error:
                if (error.full and self._make_room(now)) or (not error.full and not step):
                    continue
                self._ring_failed(error, now)
                self._intake.give_back_readings(group)
                if counts is not None:
                    self._counts.give_back(counts)
                return 0
        else:
            self._intake.give_back_readings(group)
            return 0
        self._intake.kept(group)
        self._intake.reason = "queue_overflow"
        self._health.put(RING, "")
        self._ring_retry_at = 0
        self.committed += len(batch)
        return len(batch)

    def _ring_failed(self, error: RingError, now: Instant) -> None:
        self._ring_retry_at = now.monotonic + RETRY_NS
        self._intake.reason = "disk_full" if error.full else "ring_down"
        self._health.put(RING, f"readings are not stored: {error}; events and alarms go on")
        if error.full:
            self._health.put(DISK_FULL, f"the disk of {self.ring.folder} is full: make room; the oldest readings went")

    # Coming back

    def open_ring(self) -> None:
        """Open the ring and tell it the names; trouble becomes a condition and is tried again."""
        now = self._clock()
        try:
            if not self.ring.is_open:
                self._recover(now)
            self._tell_names()
            self._trim(now, 0)
        except RingError as error:
            self._ring_failed(error, now)
        except JournalError as error:
            self._health.put(JOURNAL, str(error))
        self._take_news(now)

    def _recover(self, now: Instant) -> None:
        self.ring.recover(now.utc)
        self._tell_names()
        self._take_news(now)

    def _tell_names(self) -> None:
        tags = (
            TagRow(
                index=tag.index, name=tag.name, asset=tag.asset, device=tag.device, unit=tag.unit,
                description=tag.description, text=tag.text, virtual=tag.virtual,
            )
            for tag in self.journal.tags()
        )  # fmt: skip
        self.ring.describe(tags, self.journal.texts())

    def tell_names(self) -> None:
        """Tell the ring the names that the journal has now. Raises StorageError."""
        self._tell_names()

    def _reopen_journal(self) -> None:
        self.journal.reopen()
        self._journal_suspect = False
        if self.journal.origin != "kept" and self.ring.is_open:
            self.journal.adopt_names(*self.ring.names_found())

    def set_aside(self, first: int, why: str) -> None:
        """Take a file of the ring away that a query found damaged. Raises RingError."""
        now = self._clock()
        self.ring.set_aside(first, why, now.utc)
        self._take_news(now)

    def _take_news(self, now: Instant) -> None:
        for sentence in self.journal.notes:
            self._say(sentence, now)
        self.journal.notes.clear()
        for damage in self.ring.take_news():
            self._say(damage.sentence, now)
            if damage.first is not None:
                before, after = self.ring.around(damage.first)
                after = after or now.utc
                self._add_gap("ring_file_damaged", before or after, after, -1, now)

    def _say(self, sentence: str, now: Instant) -> None:
        self._own.append(
            GatewayEvent(id=self._ids(), time=now.utc, asset="", action="storage", detail={"sentence": sentence})
        )

    # Making room

    def _make_room(self, now: Instant) -> bool:
        """Give up the ballast, then the oldest readings; return whether anything was left to give up."""
        if self.ring.ballast.release():
            self._health.put(DISK_FULL, f"the disk of {self.ring.folder} is full: the ballast was given up; make room")
            return True
        try:
            gone = self.ring.drop_oldest("disk_full")
        except RingError:
            return False
        if gone is None:
            return False
        self._dropped(gone, now)
        self._health.put(DISK_FULL, f"the disk of {self.ring.folder} is full: the oldest readings went; make room")
        return True

    def _trim(self, now: Instant, coming: int) -> None:
        for gone in self.ring.trim(coming):
            self._dropped(gone, now)

    def _dropped(self, gone: Dropped, now: Instant) -> None:
        self._forecast.dropped(gone.size, by_budget=gone.reason == "bytes")
        # Bytes and age are the plant's own bounds; only a full disk takes what was promised to be kept.
        if gone.reason == "disk_full" and gone.rows:
            self._add_gap("disk_full", gone.oldest, gone.newest, gone.rows, now)

    def _note_losses(self, now: Instant) -> None:
        losses = self._intake.take_losses()
        self._losses_at = now.monotonic
        for loss in losses:
            self._add_gap(loss.reason, loss.start, loss.end, loss.count, now)
        self._health.put(QUEUE, _overflow(sum(loss.count for loss in losses)) if losses else "")

    def _add_gap(self, reason: str, start: int, end: int, count: int, now: Instant) -> None:
        self._own.append(Gap(id=self._ids(), time=now.utc, asset="", start=start, end=end, reason=reason, count=count))

    # Care

    def care(self) -> None:
        """What is due about once a second: space, ballast, old events, damaged files."""
        now = self._clock()
        if now.monotonic - self._losses_at >= LOSS_NS:
            self._note_losses(now)
        try:
            self._care_for_space(now)
        except (RingError, OSError) as error:
            self._health.put(DISK_FULL, f"cannot look after the disk of {self.ring.folder}: {error}")
        try:
            gap = self.journal.trim(now.utc)
            if gap is not None:
                self._add_gap(gap.reason, gap.start, gap.end, gap.count, now)
        except JournalError as error:
            self._journal_suspect = True
            self._health.put(JOURNAL, str(error))
        self.ring.look_at_damaged()
        aside = ", ".join(str(path) for path in (*self.ring.damaged, *self.journal.damaged))
        self._health.put(DAMAGED, f"damaged files were set aside: {aside}; move them away" if aside else "")

    def _care_for_space(self, now: Instant) -> None:
        if now.monotonic >= self._aged_at:
            self._aged_at = now.monotonic + min(AGED_NS, self.options.segment_minutes * AGED_NS // 40)
            aged = self.ring.drop_aged(now.utc)
            if aged is not None:
                self._dropped(aged, now)
        free, wanted = self.ring.free, self.options.free_bytes_min
        if free < wanted and len(self.ring.segments) > 1:
            gone = self.ring.drop_oldest("disk_full")
            if gone is not None:
                self._dropped(gone, now)
                free = self.ring.free
        if free < wanted:
            self._health.put(
                DISK_FULL,
                f"only {free // 1_000_000} MB are free on the disk of {self.ring.folder}, {wanted // 1_000_000} MB are "
                "wanted: make room, the oldest readings are going",
            )
            return
        ballast = self.ring.ballast
        if not ballast.complete and free - ballast.size >= max(wanted, self.options.wal_bytes):
            ballast.fill()
        if ballast.complete and self.ring.is_open:
            self._health.put(DISK_FULL, "")

    def view(self) -> RingView:
        """Return the present state."""
        now = self._clock()
        segments = self.ring.segments
        with_rows = [s for s in segments if s.rows]
        return RingView(
            state=self._health.state,
            sentence=self._health.sentence,
            files=len(segments),
            rows=sum(s.rows for s in segments),
            bytes=self.ring.size,
            bytes_max=self.options.bytes_max,
            oldest=with_rows[0].oldest if with_rows else 0,
            newest=with_rows[-1].newest if with_rows else 0,
            committed=self.committed,
            dropped=self._intake.dropped,
            full_at=self._forecast.full_at(
                now.utc, now.monotonic, self.ring.size, self.options.bytes_max, self.options.age_max_days
            ),
        )

    def close(self) -> None:
        """Close both stores."""
        self.ring.close()
        self.journal.close()


def _overflow(count: int) -> str:
    return f"{count} readings were dropped before they could be stored: the disk is too slow or does not take them"
