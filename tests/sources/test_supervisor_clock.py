"""A device whose clock is wrong is found by the stamps of its readings, and one that stands still is not."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_supervisor_run import HANG, Heard, Played, running, until

from edge.sources.clock_watch import ClockWatch
from plant.batch import BAD, GOOD, Batch, of_rows
from plant.instant import NS_PER_S, Instant

NOW = 1_795_000_000 * NS_PER_S
HOUR_S = 3600.0


@dataclass
class Day:
    """A device under watch; time passes when told."""

    watch: ClockWatch
    passed_s: float = 0.0

    def batch(self, *rows: tuple[int, float, float], quality: int = GOOD) -> Batch:
        """rows: tag, value, how far the stamp is ahead of the gateway in seconds."""
        utc = NOW + int(self.passed_s * NS_PER_S)
        return of_rows([(tag, utc + int(ahead_s * NS_PER_S), value, quality) for tag, value, ahead_s in rows])

    def note(self, *rows: tuple[int, float, float], quality: int = GOOD) -> float | None:
        """Let the rows arrive; return the offset of the verdict in seconds, None if there is no news."""
        now = Instant(NOW + int(self.passed_s * NS_PER_S), int(self.passed_s * NS_PER_S))
        verdict = self.watch.note(self.batch(*rows, quality=quality), now)
        return None if verdict is None else verdict.offset_ns / NS_PER_S

    def wait(self, seconds: float) -> None:
        self.passed_s += seconds


@pytest.fixture
def day() -> Day:
    return Day(ClockWatch(np.array([7, 3, 5], np.uint32)), 1000.0)


def test_a_right_clock_is_no_news(day: Day):
    for i in range(100):
        assert day.note((3, float(i), -59.0), (5, 0.0, -HOUR_S)) is None
        day.wait(1)


def test_a_clock_ahead_is_told_once_and_at_once(day: Day):
    assert day.note((3, 1.0, 0.0)) is None
    assert day.note((3, 2.0, 61.0)) == 61.0
    assert day.note((3, 3.0, 62.0)) is None


def test_a_clock_of_1970_is_told_at_once(day: Day):
    assert day.note((3, 1.0, -NOW / NS_PER_S)) == -NOW / NS_PER_S


def test_one_value_from_before_2001_on_a_device_that_knows_the_time_is_none(day: Day):
    """Such a value was set before the device learned the time, and has stood since."""
    assert day.note((3, 1.0, 0.0), (5, 1.0, -NOW / NS_PER_S)) is None
    for _ in range(10):
        day.wait(10)
        assert day.note((5, 1.0, -NOW / NS_PER_S)) is None


def test_a_clock_behind_is_told_after_half_a_minute_of_old_changes(day: Day):
    verdicts = []
    for i in range(40):
        verdicts.append(day.note((3, float(i), -HOUR_S)))
        day.wait(1)
    assert verdicts.index(-HOUR_S) == 31  # the first value is only there to compare with, then 30 s
    assert len([v for v in verdicts if v is not None]) == 1


def test_values_that_stand_for_hours_and_are_repeated_prove_nothing(day: Day):
    for _ in range(500):
        assert day.note((3, 4.5, -10 * HOUR_S), (5, float("nan"), -9 * HOUR_S)) is None
        day.wait(10)


def test_changes_while_nobody_watched_prove_nothing(day: Day):
    for i in range(100):
        assert day.note((3, float(i), -HOUR_S)) is None
        day.wait(600)
        day.watch.restart()


def test_a_backlog_that_clears_in_time_is_not_the_clock(day: Day):
    for i in range(29):
        assert day.note((3, float(i), -120.0)) is None
        day.wait(1)
    assert day.note((3, 99.0, -1.0)) is None
    for i in range(29):
        assert day.note((3, float(i), -120.0)) is None
        day.wait(1)


def test_the_clock_is_right_again_when_no_wrong_stamp_came_for_half_a_minute(day: Day):
    assert day.note((3, 1.0, HOUR_S)) == HOUR_S
    day.wait(29)
    assert day.note((3, 2.0, 0.0)) is None
    assert day.note((5, 2.0, HOUR_S)) is None
    day.wait(29)
    assert day.note((3, 3.0, 0.0)) is None
    day.wait(2)
    assert day.note((3, 4.0, 0.0)) == 0.0
    assert day.note((3, 5.0, 0.0)) is None


def test_bad_readings_have_no_say(day: Day):
    assert day.note((3, 1.0, HOUR_S), quality=BAD) is None
    assert day.note((3, 1.0, HOUR_S)) == HOUR_S
    day.wait(60)
    assert day.note((3, float("nan"), 0.0), quality=BAD) is None, "the gateway's own stamp does not set it right"


@given(st.lists(st.tuples(st.sampled_from([3, 5, 7]), st.floats(-5, 5), st.floats(-60, 60), st.floats(0, 100))))
def test_stamps_within_a_minute_are_never_a_wrong_clock(rows):
    day = Day(ClockWatch(np.array([7, 3, 5], np.uint32)), 1000.0)
    for tag, value, ahead_s, wait_s in rows:
        assert day.note((tag, value, ahead_s)) is None
        day.wait(wait_s)


@pytest.mark.parametrize(
    ("stamp", "words"),
    [
        (lambda utc: utc + 7200 * NS_PER_S, "press is 7200 s ahead of the gateway's"),
        (lambda _: 5 * NS_PER_S, "press has lost its time: it says 1970-01-01"),
    ],
)
async def test_a_wrong_clock_is_an_alarm_that_names_the_device_and_what_to_do(stamp, words):
    heard = Heard()

    def told(_source):
        return of_rows([(1, stamp(NOW), 1.0, GOOD)])

    source = Played(reads=[told, told, HANG])
    async with running(source, heard, clock=lambda: Instant(NOW, NS_PER_S)):
        await until(lambda: len(heard.batches) == 2)
    (condition,) = heard.conditions("clock")
    assert (condition.alarm, condition.active, condition.asset) == (
        "device.press.clock",
        True,
        "pressing/line2/press",
    )
    assert words in condition.message
    assert "Set the device's clock" in condition.message


async def test_the_alarm_goes_when_the_clock_is_right_again():
    heard, time = Heard(), [NOW]

    def wrong(_source):
        return of_rows([(1, time[0] + 3600 * NS_PER_S, 1.0, GOOD)])

    def right(_source):
        time[0] += 40 * NS_PER_S
        return of_rows([(1, time[0], 1.0, GOOD)])

    source = Played(reads=[wrong, right, HANG])
    async with running(source, heard, clock=lambda: Instant(time[0], time[0])):
        await until(lambda: len(heard.batches) == 2)
    assert [c.active for c in heard.conditions("clock")] == [True, False]
