"""The event stream against a model: whatever is interleaved, nothing is passed over and nothing is lost."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edge.outlets.alarms import READ_ROWS_MAX, AlarmStates, Entry, EventStream
from edge.outlets.topics import Topics
from plant.events import AlarmTransition, Event, GatewayEvent, PartsProduced


class StreamModel(RuleBasedStateMachine):
    """A journal, a broker and a wire around the stream, moved in every order that can happen."""

    @initialize(entries_max=st.integers(2, 12))
    def start(self, entries_max: int) -> None:
        self.stream = EventStream(frozenset({"gateway"}), entries_max)
        self.stream.begin(0)
        self.made = 0
        self.uncommitted: list[Event] = []
        self.journal: list[Event] = []
        self.reports: list[tuple[int, str]] = []
        self.reading: tuple[int, int, list[tuple[int, Event]], bool] | None = None
        self.in_flight: list[Entry] = []
        self.arrived: list[str] = []
        self.acknowledged: set[str] = set()

    def _event(self, published: bool) -> Event:
        self.made += 1
        if published:
            return GatewayEvent(id=f"e{self.made}", time=0, asset="", action="x")
        return PartsProduced(id=f"e{self.made}", time=0, asset="", count=1)

    @rule(published=st.lists(st.booleans(), min_size=1, max_size=4))
    def offer(self, published: list[bool]) -> None:
        events = [self._event(each) for each in published]
        self.uncommitted.extend(events)
        self.stream.offer(events)

    @rule()
    def append_to_journal_past_the_line(self) -> None:
        self.uncommitted.append(self._event(published=True))

    @precondition(lambda self: self.uncommitted)
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        count = data.draw(st.integers(1, len(self.uncommitted)))
        for event in self.uncommitted[:count]:
            self.journal.append(event)
            self.reports.append((len(self.journal), event.id))
        del self.uncommitted[:count]

    @precondition(lambda self: self.reports)
    @rule(data=st.data())
    def report(self, data: st.DataObject) -> None:
        count = data.draw(st.integers(1, len(self.reports)))
        self.stream.committed(self.reports[:count])
        del self.reports[:count]

    @precondition(lambda self: self.reading is None and self.stream.behind and self.stream.room)
    @rule(limit=st.integers(1, 6))
    def begin_to_read(self, limit: int) -> None:
        start = self.stream.read
        limit = min(limit, self.stream.room)
        rows = [(n + 1, event) for n, event in enumerate(self.journal)][start : start + limit]
        self.reading = (start, self.stream.tail, rows, len(rows) < limit)

    @precondition(lambda self: self.reading is not None)
    @rule()
    def end_to_read(self) -> None:
        assert self.reading is not None
        start, tail, rows, exhausted = self.reading
        self.reading = None
        self.stream.extend(start, tail, rows, exhausted=exhausted)

    @rule(count=st.integers(1, 5))
    def send(self, count: int) -> None:
        for _ in range(count):
            entry = self.stream.take()
            if entry is None:
                return
            self.in_flight.append(entry)
            self.arrived.append(entry.event.id)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        entry = self.in_flight.pop(data.draw(st.integers(0, len(self.in_flight) - 1)))
        self.acknowledged.add(entry.event.id)
        self.stream.acknowledged(entry)

    @precondition(lambda self: self.in_flight)
    @rule()
    def deny(self) -> None:
        self.stream.returned(self.in_flight.pop())

    @rule()
    def disconnect(self) -> None:
        self.in_flight.clear()
        self.stream.disconnected()

    @rule()
    def restart(self) -> None:
        cursor = self.stream.cursor
        self.stream = EventStream(frozenset({"gateway"}), 8)
        self.stream.begin(cursor)
        self.in_flight.clear()
        self.reports.clear()
        self.reading = None
        # What was not committed is lost with the process: the line made it and nobody kept it.
        self.uncommitted.clear()

    @invariant()
    def the_cursor_passes_nothing_unacknowledged(self) -> None:
        if not hasattr(self, "stream"):
            return
        for event in self.journal[: self.stream.cursor]:
            assert event.kind != "gateway" or event.id in self.acknowledged

    def teardown(self) -> None:
        if not hasattr(self, "stream"):
            return
        self.journal.extend(self.uncommitted)
        committed = len(self.journal)
        self.reports += [(committed - n, e.id) for n, e in enumerate(reversed(self.uncommitted))][::-1]
        for _ in range(10 * (self.made + 2)):
            if self.reports:
                self.stream.committed(self.reports)
                self.reports.clear()
            if self.stream.behind and self.stream.room:
                start, tail = self.stream.read, self.stream.tail
                rows = [(n + 1, event) for n, event in enumerate(self.journal)][start : start + READ_ROWS_MAX]
                self.stream.extend(start, tail, rows, exhausted=len(rows) < READ_ROWS_MAX)
            self.send(5)
            for entry in self.in_flight:
                self.acknowledged.add(entry.event.id)
                self.stream.acknowledged(entry)
            self.in_flight.clear()
        assert self.stream.cursor == committed
        assert {e.id for e in self.journal if e.kind == "gateway"} <= self.acknowledged
        assert self.stream.unacknowledged == 0


StreamModel.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestStream = StreamModel.TestCase


def _gateway_event(n: int) -> Event:
    return GatewayEvent(id=f"e{n}", time=0, asset="", action="x")


def _drain(stream: EventStream) -> list[str]:
    ids = []
    while (entry := stream.take()) is not None:
        ids.append(entry.event.id)
        stream.acknowledged(entry)
    return ids


def test_events_offered_while_behind_wait_for_the_older_ones() -> None:
    stream = EventStream(frozenset({"gateway"}), 100)
    stream.begin(0)
    stream.offer([_gateway_event(3)])
    assert _drain(stream) == []
    stream.extend(0, 0, [(1, _gateway_event(1)), (2, _gateway_event(2))], exhausted=True)
    assert _drain(stream) == ["e1", "e2", "e3"]
    assert stream.cursor == 2
    stream.committed([(3, "e3")])
    assert stream.cursor == 3


def test_an_event_seen_live_is_not_sent_again_when_the_journal_brings_it() -> None:
    stream = EventStream(frozenset({"gateway"}), 100)
    stream.begin(0)
    stream.extend(0, 0, [], exhausted=True)
    stream.offer([_gateway_event(2)])
    assert _drain(stream) == ["e2"]
    stream.committed([(1, "e1 of another part"), (2, "e2")])
    assert stream.behind
    stream.extend(0, 2, [(1, _gateway_event(1)), (2, _gateway_event(2))], exhausted=True)
    assert _drain(stream) == ["e1"]
    assert stream.cursor == 2


def _state(alarm: str, state: str) -> AlarmTransition:
    return AlarmTransition(
        id="x", time=0, asset="a", alarm=alarm, occurrence="o", transition="activate", state=state, active=True,
        acknowledged=False,
    )  # fmt: skip


def test_the_newest_state_of_an_alarm_wins() -> None:
    states = AlarmStates(Topics("", "E", "S", "g"))
    for state in "BCB":
        states.put(_state("x", state))
    states.put(_state("y", "A"))
    taken = [states.take(), states.take(), states.take()]
    assert [(t[0], t[1].state) for t in taken if t and t[1]] == [("E/S/a/alarm/x", "B"), ("E/S/a/alarm/y", "A")]
    assert states.coalesced == 2


def test_a_denied_state_does_not_replace_a_newer_one() -> None:
    states = AlarmStates(Topics("", "E", "S", "g"))
    states.put(_state("x", "B"))
    denied = states.take()
    assert denied is not None
    states.put(_state("x", "C"))
    states.returned(*denied)
    again = states.take()
    assert again is not None
    assert again[1] is not None
    assert again[1].state == "C"


def test_an_alarm_that_left_the_list_is_cleared() -> None:
    states = AlarmStates(Topics("", "E", "S", "g"))
    states.reset([_state("x", "B"), _state("y", "B")])
    assert states.take()
    assert states.take()
    states.reset([_state("y", "B"), _state("z", "A")])
    assert states.take() == ("E/S/a/alarm/y", _state("y", "B"))
    assert states.take() == ("E/S/a/alarm/x", None)
    states.clear_normal()
    assert states.take() == ("E/S/a/alarm/z", None)
    assert states.take() is None
