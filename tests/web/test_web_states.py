"""What a machine did, as a person reads it: from the log, across restarts of the record, to the nanosecond."""

import pytest

from edge.history import history, joined
from edge.journal import Journal, read_states
from edge.production import MachineOptions, Production, ShiftsOptions, calendar_of, virtual_tags
from edge.tick import Command
from edge.web.gateway import Span
from plant.calendar import Interval, Shift
from plant.events import (
    Correction,
    DowntimeReason,
    EventIds,
    MachineState,
    PartsProduced,
    StateChanged,
)
from plant.instant import NS_PER_S, Instant
from plant.tags import Tag, TagTable
from plant.texts import Texts

MINUTE = 60 * NS_PER_S
HOUR = 60 * MINUTE
T0 = 1_795_161_600 * NS_PER_S
ASSET = "pressing/line2/press"
RUN, DOWN, IDLE = MachineState.RUNNING, MachineState.DOWN, MachineState.IDLE


def state(minute, what, reason=None, origin="plc", asset=ASSET):
    number = f"s-{minute}-{what}-{reason}-{origin}-{asset}"
    return StateChanged(id=number, time=T0 + minute * MINUTE, asset=asset, state=what, reason=reason, origin=origin)


def correction(entered, start, end, reason, user="maria"):
    return Correction(
        id=f"c-{entered}", time=T0 + entered * MINUTE, asset=ASSET, start=T0 + start * MINUTE, end=T0 + end * MINUTE,
        user=user, why="x", state=DOWN, reason=reason,
    )  # fmt: skip


def shift(start, end, *busy):
    intervals: tuple[Interval, ...] = tuple((T0 + a * MINUTE, T0 + b * MINUTE) for a, b in busy)
    return Shift(name="early", day=None, start=T0 + start * MINUTE, end=T0 + end * MINUTE, busy=intervals)


def shown(found):
    return [
        ((span.start - T0) // MINUTE, (span.end - T0) // MINUTE, span.state, span.reason, span.by, span.open)
        for span in found.spans
    ]


LOG = [state(-30, RUN), state(10, DOWN), state(20, RUN), state(50, IDLE, DowntimeReason.NO_MATERIAL)]


def test_the_shift_is_shown_without_holes_and_the_last_state_goes_on():
    found = history(LOG, "press", ASSET, shift(0, 480, (0, 240), (270, 480)), 0, T0 + 60 * MINUTE)
    assert shown(found) == [
        (-30, 10, "running", None, "", False),
        (10, 20, "down", None, "", False),
        (20, 50, "running", None, "", False),
        (50, 60, "idle", "no_material", "", True),
    ]
    assert (found.start, found.end, found.shift) == (T0, T0 + 480 * MINUTE, "early")
    assert found.pauses == [(T0 + 240 * MINUTE, T0 + 270 * MINUTE)]


def test_what_a_person_said_has_his_name_and_parts_of_one_stop_are_one_stop():
    log = [*LOG, correction(55, 10, 15, DowntimeReason.BREAKDOWN), correction(56, 15, 20, DowntimeReason.BREAKDOWN)]
    log.append(state(50, IDLE, DowntimeReason.NO_OPERATOR, origin="operator:erik"))
    found = history(log, "press", ASSET, shift(0, 480, (0, 480)), 0, T0 + 60 * MINUTE)
    assert shown(found)[1] == (10, 20, "down", "breakdown", "maria", False)
    assert shown(found)[3] == (50, 60, "idle", "no_operator", "erik", True)


def test_hours_reach_back_beyond_the_shift_and_a_stop_keeps_its_true_beginning():
    log = [state(-90, DOWN), state(5, RUN)]
    found = history(log, "press", ASSET, shift(0, 480, (0, 480)), 1, T0 + 30 * MINUTE)
    assert (found.start, found.end, found.pauses) == (T0 - 30 * MINUTE, T0 + 30 * MINUTE, [])
    assert shown(found)[0] == (-90, 5, "down", None, "", False)


def test_between_shifts_the_last_eight_hours_are_shown():
    found = history([], "press", ASSET, None, 0, T0)
    assert (found.start, found.end) == (T0 - 8 * HOUR, T0)
    assert found.spans == [Span(start=T0 - 8 * HOUR, end=T0, state="unknown", open=True)]


@pytest.fixture
def journal(tmp_path):
    journal = Journal.open(tmp_path / "journal.sqlite")
    yield journal
    journal.close()


def test_the_journal_gives_the_state_before_and_everything_after(journal):
    parts = PartsProduced(id="p", time=T0 + 12 * MINUTE, asset=ASSET, count=1)
    other = state(15, RUN, asset="other")
    late = correction(55, 10, 20, DowntimeReason.BREAKDOWN)
    journal.append([state(-90, RUN), state(-30, DOWN), state(5, RUN), parts, other, late])
    found = read_states(journal.path, ASSET, T0)
    assert [event.id for event in found] == [state(-30, DOWN).id, state(5, RUN).id, late.id]
    assert read_states(journal.path, ASSET, T0 - 200 * MINUTE)[0].id == state(-90, RUN).id
    assert read_states(journal.path, "nowhere", T0) == []


def test_what_is_not_committed_yet_is_shown_too_and_once():
    kept = [state(0, RUN), state(10, DOWN)]
    fresh = [state(10, DOWN), state(20, RUN)]
    assert [event.id for event in joined(kept, fresh)] == [e.id for e in (*kept, state(20, RUN))]
    assert LOG[0] in joined([], LOG)


def test_production_tells_its_open_shift_by_name_and_asset():
    options = MachineOptions.model_validate(
        {"name": "press", "asset": ASSET, "state_tag": "press.state", "states": {"1": "running"}, "ideal_cycle_s": 1}
    )
    names = ["press.state", *(name for name, *_ in virtual_tags([options]))]
    table = TagTable(Tag(name=name, index=i) for i, name in enumerate(names))
    calendar = calendar_of(ShiftsOptions.model_validate({}), "UTC")
    production = Production([options], table, calendar, Texts([]), EventIds("x"))
    assert production.running("press").asset == ASSET
    assert production.running("nothere") is None
    command = Command(id="1", name="set_state", user="maria", arguments={"asset": "press", "state": "down"})
    reply, events = production.command(command, Instant(T0, 0))
    assert reply.ok
    assert all(event in events for event in production.running(ASSET).log)
    assert any(isinstance(event, StateChanged) and event.state is DOWN for event in production.running(ASSET).log)
