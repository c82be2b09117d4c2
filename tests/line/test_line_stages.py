"""The stages of the line against plain reference models."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge.line.calibrate import Calibration
from edge.line.keep import Deadband
from edge.line.liveness import Liveness
from edge.tick import Condition
from plant.batch import BAD, GOOD, UNCERTAIN, of_rows
from plant.instant import NS_PER_S, Instant
from plant.tags import Tag, TagTable

NOW = Instant(1_790_000_000 * NS_PER_S, 5_000 * NS_PER_S)
DAY = 86_400 * NS_PER_S


def table(**properties) -> TagTable:
    return TagTable([Tag(name="a", index=0, **properties), Tag(name="b", index=2, device="plc")])


def calibrated(tags: TagTable, *rows):
    stage = Calibration(tags, past_max_ns=DAY, future_max_ns=60 * NS_PER_S)
    return stage.apply(of_rows(rows), NOW), stage.counts


def test_scale_and_offset_give_engineering_values():
    batch, _ = calibrated(table(scale=5 / 9, offset=-160 / 9), (0, NOW.utc, 212.0, GOOD), (2, NOW.utc, 7.0, GOOD))
    assert batch.value.tolist() == [100.0, 7.0]


def test_nan_and_infinity_become_bad_and_are_counted():
    batch, counts = calibrated(table(), (0, NOW.utc, math.nan, GOOD), (2, NOW.utc, math.inf, GOOD))
    assert batch.quality.tolist() == [BAD, BAD]
    assert counts.not_finite == 2


def test_value_outside_its_range_is_uncertain_but_kept():
    batch, counts = calibrated(table(minimum=0, maximum=10), (0, NOW.utc, 11.0, GOOD), (2, NOW.utc, 11.0, GOOD))
    assert batch.value.tolist() == [11.0, 11.0]
    assert batch.quality.tolist() == [UNCERTAIN, GOOD]
    assert counts.out_of_range == 1


def test_clock_in_1970_or_2100_is_restamped_and_uncertain():
    batch, counts = calibrated(table(), (0, 0, 1.0, GOOD), (2, 4_102_444_800 * NS_PER_S, 2.0, GOOD))
    assert batch.time.tolist() == [NOW.utc, NOW.utc]
    assert batch.quality.tolist() == [UNCERTAIN, UNCERTAIN]
    assert counts.clock_fault == 2


def test_value_that_stood_for_weeks_is_restamped_and_stays_good():
    batch, counts = calibrated(table(), (0, NOW.utc - 30 * DAY, 1.0, GOOD))
    assert (batch.time[0], batch.quality[0]) == (NOW.utc, GOOD)
    assert (counts.restamped, counts.clock_fault) == (1, 0)


def test_rows_of_unknown_tags_are_left_out_and_counted():
    batch, counts = calibrated(table(), (1, NOW.utc, 1.0, GOOD), (2, NOW.utc, 2.0, GOOD), (99, NOW.utc, 3.0, GOOD))
    assert batch.tag.tolist() == [2]
    assert counts.unknown_tag == 2


def reference_deadband(rows, deadband, heartbeat):
    kept, last = [], {}
    for tag, time, value, quality in rows:
        before = last.get(tag)
        if (
            before is None
            or abs(value - before[1]) > deadband[tag]
            or quality != before[2]
            or time - before[0] >= heartbeat
        ):
            kept.append((tag, time, value, quality))
            last[tag] = (time, value, quality)
    return kept


@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(-3, 3), st.sampled_from([GOOD, BAD])),
            max_size=12,
        ),
        max_size=6,
    )
)
def test_deadband_equals_its_reference_however_readings_are_cut_into_batches(batches):
    deadband = {0: 0.0, 1: 1.0, 2: -1.0, 3: 2.5}
    tags = TagTable([Tag(name=str(i), index=i, deadband=d, heartbeat_ns=20 * NS_PER_S) for i, d in deadband.items()])
    stage, kept, rows, time = Deadband(tags), [], [], 0
    for batch in batches:
        timed = []
        for tag, step, value, quality in batch:
            time += step * NS_PER_S
            timed.append((tag, time, float(value), quality))
        rows += timed
        out = stage.apply(of_rows(timed))
        kept += zip(out.tag.tolist(), out.time.tolist(), out.value.tolist(), out.quality.tolist(), strict=True)
    assert kept == reference_deadband(rows, deadband, 20 * NS_PER_S)


def at(seconds: float) -> Instant:
    return Instant(NOW.utc + int(seconds * NS_PER_S), NOW.monotonic + int(seconds * NS_PER_S))


def test_silence_names_the_tag_and_the_device_and_ends_with_data():
    tags = TagTable([Tag(name="press.force", index=0, device="press", stale_after_ns=5 * NS_PER_S)])
    watch = Liveness(tags, NOW)
    watch.note(of_rows([(0, NOW.utc, 1.0, GOOD)]), NOW)
    assert list(watch.look(at(4))) == []
    [raised] = watch.look(at(6))
    assert raised.active
    assert raised.alarm == "device.press.silent"
    assert "press.force" in raised.message
    assert not watch.alive(at(6))[0]
    watch.note(of_rows([(0, at(7).utc, 1.0, GOOD)]), at(7))
    [cleared] = watch.look(at(8))
    assert not cleared.active
    assert watch.alive(at(8))[0]


def test_silence_is_not_raised_beside_a_lost_connection():
    tags = TagTable([Tag(name="press.force", index=0, device="press", stale_after_ns=5 * NS_PER_S)])
    watch = Liveness(tags, NOW)
    watch.device(Condition(alarm="device.press.communication", active=True))
    assert list(watch.look(at(60))) == []
    watch.device(Condition(alarm="device.press.communication", active=False))
    assert [c.active for c in watch.look(at(62))] == [True]


def test_a_bad_reading_is_no_sign_of_life():
    tags = TagTable([Tag(name="press.force", index=0, device="press", stale_after_ns=5 * NS_PER_S)])
    watch = Liveness(tags, NOW)
    watch.note(of_rows([(0, NOW.utc, math.nan, BAD)]), at(1))
    assert np.count_nonzero(watch.alive(at(1))) == 0
    assert [c.active for c in watch.look(at(6.5))] == [True]
