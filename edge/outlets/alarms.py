"""Alarms and events, the durable way out: nothing counts as sent before the broker acknowledged it.

`AlarmStates` are the retained topics, one per alarm: the newest state wins, so a flood costs one message per alarm.
`EventStream` is the log, in order and complete: what is not acknowledged is read again from the journal after the
cursor. Both are plain objects without I/O that live in the event loop's thread; the outlet moves the messages.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Protocol

from edge.outlets.payloads import NORMAL
from edge.outlets.topics import Topics
from plant.events import AlarmTransition, Event

READ_ROWS_MAX = 500
"""Events read from the journal at once."""


class EventLog(Protocol):
    """The journal as the outlet needs it: events in order of their sequence number, and one number per consumer."""

    async def after(self, seq: int, limit: int) -> list[tuple[int, Event]]:
        """Return at most `limit` committed events with a higher number, in order. Raises StorageError."""

    async def cursor(self, name: str) -> int:
        """Return the consumer's number, 0 if it has none yet. Raises StorageError."""

    def advance(self, name: str, seq: int) -> None:
        """Remember that the consumer needs nothing up to `seq` any more; may be written later."""


class AlarmStates:
    """What the retained alarm topics should say and what of it has not been sent."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self._unsent: OrderedDict[str, AlarmTransition | None] = OrderedDict()
        self._standing: set[str] = set()
        self._normal: set[str] = set()
        self.coalesced = 0

    def __len__(self) -> int:
        return len(self._unsent)

    def put(self, transition: AlarmTransition) -> None:
        """Take the newest state of an alarm."""
        topic = self._topics.alarm(transition.asset, transition.alarm)
        if transition.state == NORMAL:
            self._standing.discard(topic)
        else:
            self._standing.add(topic)
        self._want(topic, transition)

    def _want(self, topic: str, transition: AlarmTransition | None) -> None:
        if topic in self._unsent:
            self.coalesced += 1
        self._unsent[topic] = transition

    def reset(self, snapshot: Iterable[AlarmTransition]) -> None:
        """Begin anew: all alarms that are not normal are to be sent, and what stood before and is gone is cleared."""
        before = self._standing
        self._unsent.clear()
        self._standing = set()
        self._normal = set()
        for transition in snapshot:
            topic = self._topics.alarm(transition.asset, transition.alarm)
            if transition.state == NORMAL:
                self._normal.add(topic)
            else:
                self._standing.add(topic)
                self._unsent[topic] = transition
        for topic in before - self._standing:
            self._unsent[topic] = None

    def found(self, topic: str) -> bool:
        """Take note of a retained message of ours at the broker; True if it is left over and will be cleared."""
        if topic in self._standing or topic in self._unsent:
            return False
        self._unsent[topic] = None
        return True

    def clear_normal(self) -> None:
        """Clear the topics of all alarms known to be normal: for a broker that does not let us look."""
        for topic in self._normal - self._standing:
            self._unsent.setdefault(topic, None)

    def take(self) -> tuple[str, AlarmTransition | None] | None:
        """Return the next topic and its state (None = clear), None if there is nothing to send."""
        return self._unsent.popitem(last=False) if self._unsent else None

    def returned(self, topic: str, transition: AlarmTransition | None) -> None:
        """Take back what the broker refused, unless something newer waits."""
        self._unsent.setdefault(topic, transition)


class Progress(Enum):
    WAITING = 0
    SENT = 1
    ACKNOWLEDGED = 2


class Entry:
    """One event on its way. seq: its number in the journal, 0 while it is not known."""

    __slots__ = ("event", "progress", "seq")

    def __init__(self, event: Event, seq: int, progress: Progress) -> None:
        self.event = event
        self.seq = seq
        self.progress = progress


class EventStream:
    """The events that the broker has not acknowledged, in the order of the journal.

    `_line` holds the events whose number is known and that are read but not done: everything up to `cursor` is done,
    everything up to `_read` is in `_line` or done. `_fresh` holds events offered whose number is not known yet.
    While not `behind`, fresh events are sent at once; otherwise only what is read from the journal is sent, so that
    the order stays. An event that the memory has no room for makes the stream fall behind: the journal has it.
    """

    def __init__(self, kinds: frozenset[str], entries_max: int) -> None:
        self._kinds = kinds
        self._entries_max = entries_max
        self._line: deque[Entry] = deque()
        self._fresh: OrderedDict[str, Entry] = OrderedDict()
        self._to_send: deque[Entry] = deque()
        self._read = 0
        self._tail = 0
        self.cursor = 0
        self.behind = True
        self.acknowledged_count = 0

    def begin(self, cursor: int) -> None:
        """Start after `cursor`, the highest number below which everything is acknowledged."""
        self.cursor = self._read = cursor
        self._tail = max(self._tail, cursor)

    @property
    def read(self) -> int:
        """Read the journal after this number."""
        return self._read

    @property
    def tail(self) -> int:
        """The highest number known to be committed."""
        return self._tail

    @property
    def room(self) -> int:
        """How many events may be read from the journal now."""
        return 0 if len(self._line) >= READ_ROWS_MAX else min(READ_ROWS_MAX, self._entries_max)

    @property
    def unacknowledged(self) -> int:
        """Events not acknowledged, as far as it is known how many there are."""
        fresh = sum(entry.progress is not Progress.ACKNOWLEDGED for entry in self._fresh.values())
        if self.behind:
            return self._tail - self.cursor + fresh
        return sum(entry.progress is not Progress.ACKNOWLEDGED for entry in self._line) + fresh

    def offer(self, events: Iterable[Event]) -> None:
        """Take events just made, before the journal has them."""
        for event in events:
            if len(self._fresh) >= self._entries_max and not self._make_room():
                self._fall_behind()
                return
            if event.kind not in self._kinds:
                self._fresh[event.id] = Entry(event, 0, Progress.ACKNOWLEDGED)
                continue
            entry = self._fresh[event.id] = Entry(event, 0, Progress.WAITING)
            if not self.behind:
                self._to_send.append(entry)

    def _make_room(self) -> bool:
        # An acknowledged event only waits for its number; without it, it is read again later and sent twice.
        oldest = next(iter(self._fresh))
        if self._fresh[oldest].progress is not Progress.ACKNOWLEDGED:
            return False
        del self._fresh[oldest]
        return True

    def _fall_behind(self) -> None:
        if not self.behind:
            self.behind = True
            self._to_send = deque(entry for entry in self._line if entry.progress is Progress.WAITING)

    def committed(self, pairs: Sequence[tuple[int, str]]) -> None:
        """Take (number, event id) of what the journal has committed, in order."""
        for seq, event_id in pairs:
            self._tail = max(self._tail, seq)
            if seq <= self._read:
                continue
            entry = self._fresh.get(event_id)
            if not self.behind and (entry is None or len(self._line) >= self._entries_max):
                self._fall_behind()
            if not self.behind and entry is not None:
                del self._fresh[event_id]
                entry.seq = self._read = seq
                self._line.append(entry)
            elif entry is not None and entry.progress is Progress.WAITING:
                del self._fresh[event_id]  # the journal will bring it
        self._settle()

    def extend(self, start: int, tail: int, rows: Sequence[tuple[int, Event]], *, exhausted: bool) -> None:
        """Take what was read from the journal after number `start`.

        tail: what `tail` was before the reading began. exhausted: the journal had no more at that time. Up to `tail`
        nothing can have been overlooked, so unless more was committed meanwhile the stream has caught up.
        """
        if start != self._read or not self.behind:
            return
        for seq, event in rows:
            entry = self._fresh.pop(event.id, None)
            if entry is None:
                published = event.kind in self._kinds
                entry = Entry(event, seq, Progress.WAITING if published else Progress.ACKNOWLEDGED)
            entry.seq = self._read = seq
            self._line.append(entry)
            if entry.progress is Progress.WAITING:
                self._to_send.append(entry)
        if exhausted:
            self._read = max(self._read, tail)
            if self._read >= self._tail:
                self._catch_up()
        self._tail = max(self._tail, self._read)
        self._settle()
        if exhausted and not self._line:
            self.cursor = self._read

    def _catch_up(self) -> None:
        self.behind = False
        self._to_send.extend(entry for entry in self._fresh.values() if entry.progress is Progress.WAITING)

    def take(self) -> Entry | None:
        """Return the next event to send, None if there is none now."""
        if not self._to_send:
            return None
        entry = self._to_send.popleft()
        entry.progress = Progress.SENT
        return entry

    def acknowledged(self, entry: Entry) -> None:
        """Take note that the broker has the event."""
        entry.progress = Progress.ACKNOWLEDGED
        self.acknowledged_count += 1
        self._settle()

    def returned(self, entry: Entry) -> None:
        """Take back an event that the broker refused: it is the next to be sent."""
        entry.progress = Progress.WAITING
        self._to_send.appendleft(entry)

    def disconnected(self) -> None:
        """Begin again after the cursor: what was sent and not acknowledged is sent again."""
        self._line.clear()
        self._to_send.clear()
        self._read = self.cursor
        self.behind = True
        for entry in self._fresh.values():
            if entry.progress is Progress.SENT:
                entry.progress = Progress.WAITING

    def _settle(self) -> None:
        while self._line and self._line[0].progress is Progress.ACKNOWLEDGED:
            self.cursor = self._line.popleft().seq
