"""The journal numbers what it keeps, keeps it once, and remembers who has read how far."""

import sqlite3

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.journal import Journal, JournalError, JournalOptions
from plant.events import (
    AlarmTransition,
    Audit,
    Backfill,
    Correction,
    Gap,
    GatewayEvent,
    MachineState,
    OrderStarted,
    PartsProduced,
    StateChanged,
)  # fmt: skip
from plant.tags import Tag

DAY = 86_400_000_000_000


@pytest.fixture
def journal(tmp_path):
    journal = Journal.open(tmp_path / "journal.sqlite")
    yield journal
    journal.close()


def parts(number, time=1000, asset="a/l/c"):
    return PartsProduced(id=f"e{number}", time=time, asset=asset, count=1.0)


def alarm(number, name, state="B"):
    return AlarmTransition(
        id=f"a{number}", time=number, asset="a/l/c", alarm=name, occurrence="1", transition="activate", state=state,
        active=True, acknowledged=False, data={"limit": np.float64(80.5), "count": np.int64(3)},
    )  # fmt: skip


EVENTS = [
    parts(1), StateChanged(id="s", time=2, asset="a/l/c", state=MachineState.DOWN),
    OrderStarted(id="o", time=3, asset="a/l/c", order="4711", product="bolt"), alarm(7, "hot"),
    Correction(id="c", time=4, asset="a/l/c", start=1, end=2, user="mia", why="typo", state=MachineState.SETUP),
    Gap(id="g", time=5, asset="", start=1, end=2, reason="disk_full", count=9),
    Backfill(id="b", time=6, asset="", start=1, end=2, device="plc", count=9, tags=2),
    Audit(id="u", time=6, asset="", user="mia", action="shelve", outcome="ok", detail={"a": [1, {"b": None}]}),
]  # fmt: skip


def test_events_come_back_as_they_were(journal):
    assert journal.append(EVENTS) == len(EVENTS)
    found = journal.after(0, 100)
    assert [seq for seq, _ in found] == list(range(1, len(EVENTS) + 1))
    assert [event for _, event in found] == EVENTS
    assert journal.after(5, 1) == [(6, EVENTS[5])]
    assert journal.events("a/l/c", 3) == [e for e in EVENTS if e.asset == "a/l/c" and e.time >= 3]


def test_events_of_an_asset_are_the_newest_if_there_are_too_many(journal):
    journal.append([parts(n, time=n) for n in range(10)])
    assert [event.time for event in journal.events("a/l/c", 0, limit=3)] == [7, 8, 9]


@given(groups=st.lists(st.lists(st.integers(0, 30), max_size=8), max_size=12))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_repetitions_are_kept_once_and_numbers_have_no_hole(tmp_path_factory, groups):
    journal = Journal.open(tmp_path_factory.mktemp("journal") / "journal.sqlite")
    expected = []
    for group in groups:
        numbers = journal.commit([parts(n) for n in group])
        expected += [n for i, n in enumerate(group) if n not in expected and n not in group[:i]]
        assert numbers == [(expected.index(n) + 1, f"e{n}") for n in group]
    assert [(seq, event.id) for seq, event in journal.after(0, 1000)] == [
        (i + 1, f"e{n}") for i, n in enumerate(expected)
    ]
    journal.close()


def test_the_alarm_book_holds_the_latest_transition_of_each_alarm(journal):
    journal.append([alarm(1, "hot", "B"), alarm(2, "cold", "B"), alarm(3, "hot", "C")])
    journal.append([alarm(1, "hot", "B")])
    assert [(event.alarm, event.state) for event in journal.alarms()] == [("cold", "B"), ("hot", "C")]


def test_an_event_of_a_later_version_keeps_its_place(journal):
    journal.append([parts(1), parts(2), parts(3)])
    with sqlite3.connect(journal.path) as other:
        other.execute(
            """UPDATE events SET body = '{"kind":"from_2030","id":"e2","time":5,"asset":"x"}' WHERE seq = 2"""
        )
    other.close()
    found = journal.after(0, 10)
    assert [seq for seq, _ in found] == [1, 2, 3]
    assert isinstance(found[1][1], GatewayEvent)
    assert found[1][1].detail["kind"] == "from_2030"


def test_an_event_with_a_flipped_bit_keeps_its_place(journal):
    journal.append([parts(1), parts(2)])
    with sqlite3.connect(journal.path) as other:
        other.execute("UPDATE events SET body = CAST(x'7B22C3' AS TEXT) WHERE seq = 1")
    other.close()
    assert [(seq, event.kind) for seq, event in journal.after(0, 10)] == [(1, "gateway"), (2, "part_produced")]


def test_state_is_kept_with_the_events_or_not_at_all(journal):
    journal.commit([parts(1)], state={"counter": {"value": 17}})
    with pytest.raises(JournalError):
        journal.commit([PartsProduced(id="bad", time=None, asset="x", count=1.0)], state={"counter": {"value": 18}})
    assert journal.get_state("counter") == {"value": 17}
    assert journal.last_seq == 1
    journal.put_state("counter", [1, 2])
    assert journal.get_state("counter") == [1, 2]
    assert journal.get_state("nothing") is None
    assert journal.append([parts(2)]) == 2


def test_tag_indices_are_for_life(journal):
    tags = [Tag(name=name, index=0, unit="Cel") for name in "abc"]
    assert journal.register_tags(tags) == {"a": 0, "b": 1, "c": 2}
    assert journal.register_tags([Tag(name="d", index=0), Tag(name="b", index=0, unit="K")]) == {"d": 3, "b": 1}
    path = journal.path
    journal.close()
    again = Journal.open(path)
    assert again.register_tags([Tag(name="e", index=0)]) == {"e": 4}
    assert [(tag.index, tag.name, tag.unit) for tag in again.tags()][:2] == [(0, "a", "Cel"), (1, "b", "K")]
    again.close()


def test_texts_keep_their_first_meaning(journal):
    journal.commit((), texts=[(1, 1, "running"), (1, 2, "down")])
    journal.commit((), texts=[(1, 1, "something else")])
    assert journal.texts() == [(1, 1, "running"), (1, 2, "down")]


def test_cursors_only_move_forward(journal):
    assert journal.cursor("mqtt") == 0
    journal.advance("mqtt", 7)
    journal.advance("mqtt", 5)
    assert journal.cursor("mqtt") == 7
    journal.forget("mqtt")
    assert journal.cursor("mqtt") == 0


def test_old_events_wait_for_their_readers(journal):
    journal.append([parts(n, time=n * DAY) for n in range(1, 11)])
    journal.advance("mqtt", 3)
    now = 1000 * DAY
    assert journal.trim(now) is None
    assert [seq for seq, _ in journal.after(0, 100)] == [4, 5, 6, 7, 8, 9, 10]
    journal.advance("mqtt", 10)
    assert journal.trim(now) is None
    assert journal.after(0, 100) == []
    assert journal.append([parts(11)]) == 11


def test_young_events_stay(journal):
    journal.append([parts(1, time=100 * DAY)])
    journal.advance("mqtt", 1)
    assert journal.trim(101 * DAY) is None
    assert len(journal.after(0, 10)) == 1


def test_what_does_not_fit_goes_and_a_gap_says_what_a_reader_missed(tmp_path):
    journal = Journal.open(tmp_path / "journal.sqlite", JournalOptions(journal_bytes_max=1_000_000))
    for group in range(10):
        journal.append([parts(n, time=n) for n in range(group * 1000, group * 1000 + 1000)])
    journal.advance("mqtt", 100)
    missed = 0
    while journal.size > 1_000_000:
        gap = journal.trim(1)
        assert gap is not None
        assert gap.reason == "journal_full"
        missed += gap.count
    left = journal.after(0, 100_000)
    assert missed == 10_000 - 100 - len(left)
    assert left[-1][0] == 10_000
    journal.close()
