"""What a device recorded during a break goes through the line without being live: kept, marked, never judged."""

import asyncio

import numpy as np

from edge.alarms import AlarmOptions, AlarmRule, Alarms
from edge.line import Inbox, Line
from edge.line.inbox import HISTORY_MAX
from edge.tick import Derived
from plant.batch import BACKFILL, BAD, EMPTY, GOOD, SEVERITY, UNCERTAIN, of_rows
from plant.events import AlarmTransition, EventIds
from plant.instant import NS_PER_S, Instant
from plant.tags import Tag, TagTable

START = Instant(1_790_000_000 * NS_PER_S, 5_000 * NS_PER_S)
TABLE = TagTable(
    [
        Tag(name="heat", index=0, device="plc", scale=2.0, offset=1.0, minimum=-50.0, maximum=150.0),
        Tag(name="count", index=2, device="plc", deadband=5.0),
    ]
)
HOT = AlarmRule(name="hot", tag="heat", condition="HH", limit=80.0)


class Counting:
    """A production that remembers what it was given."""

    def __init__(self):
        self.seen = []

    def derive(self, readings, now):
        self.seen.append(readings)
        return Derived()


def line():
    ids = EventIds("test")
    production = Counting()
    return Line(TABLE, production, Alarms([HOT], TABLE, ids, AlarmOptions()), ids, START), production


def later(seconds):
    return Instant(START.utc + seconds * NS_PER_S, START.monotonic + seconds * NS_PER_S)


def past(*rows):
    return of_rows([(tag, START.utc - age * NS_PER_S, value, quality) for tag, age, value, quality in rows])


def test_history_is_calibrated_and_marked_and_keeps_its_times_however_old():
    stage, _ = line()
    two_days = 2 * 86_400
    rows = past((0, two_days, 20.0, GOOD), (0, 9, 100.0, GOOD), (0, 8, np.nan, BAD), (7, 7, 1.0, GOOD))
    tick = stage.step(EMPTY, (), later(1), rows)
    assert tick.history.value.tolist()[:2] == [41.0, 201.0]
    assert (tick.history.quality & SEVERITY).tolist() == [GOOD, UNCERTAIN, BAD]
    assert (tick.history.quality & BACKFILL).tolist() == [BACKFILL] * 3
    assert tick.history.time[0] == START.utc - two_days * NS_PER_S
    assert stage.calibration.counts.unknown_tag == 1


def test_history_raises_and_clears_no_alarm_moves_no_live_value_and_reaches_no_production():
    stage, production = line()
    stage.step(of_rows([(0, START.utc, 10.0, GOOD)]), (), START)
    tick = stage.step(EMPTY, (), later(1), past((0, 60, 70.0, GOOD), (2, 60, 1000.0, GOOD)))
    assert not tick.events
    assert len(tick.readings) == len(tick.kept) == 0
    assert stage.liveness.value[0] == 21.0
    assert stage.liveness.arrived[2] == 0
    raised = stage.step(of_rows([(0, later(2).utc, 70.0, GOOD)]), (), later(2)).events
    assert [event.transition for event in raised if isinstance(event, AlarmTransition)] == ["activate"]
    assert not stage.step(EMPTY, (), later(3), past((0, 60, 10.0, GOOD))).events
    assert sum(len(batch) for batch in production.seen) == 2


def test_history_does_not_disturb_the_deadband_of_live_readings():
    stage, _ = line()
    assert len(stage.step(of_rows([(2, START.utc, 100.0, GOOD)]), (), START).kept) == 1
    tick = stage.step(
        of_rows([(2, later(1).utc, 102.0, GOOD)]), (), later(1), past((2, 9, 0.0, GOOD), (2, 8, 1.0, GOOD))
    )
    assert len(tick.kept) == 0
    assert len(tick.history) == 2  # each of them: what a history holds passed the historian's own filter


async def test_the_inbox_takes_one_batch_of_history_per_step_and_makes_the_others_wait():
    inbox = Inbox()
    rows = [past((0, n, float(n), GOOD)) for n in range(HISTORY_MAX + 1)]
    for batch in rows[:-1]:
        await inbox.history(batch)
    waiting = asyncio.create_task(inbox.history(rows[-1]))
    await asyncio.sleep(0)
    assert not waiting.done()
    taken = []
    for _ in range(len(rows)):
        await asyncio.wait_for(inbox.wait(5.0), 1)
        assert inbox.take() == ([], [])
        taken.append(inbox.take_history().value.tolist())
        await asyncio.sleep(0)
    assert taken == [[float(n)] for n in range(len(rows))]
    assert waiting.done()
    assert not len(inbox.take_history())


async def test_history_that_waits_does_not_keep_live_readings_out():
    inbox = Inbox(rows_max=1)
    for n in range(HISTORY_MAX):
        await inbox.history(past((0, n, float(n), GOOD)))
    await asyncio.wait_for(inbox.put(of_rows([(0, START.utc, 1.0, GOOD)])), 1)
    assert len(inbox.take()[0]) == 1
