"""Judging whole batches gives what judging every reading by itself gives; and the single conditions by example."""

import math
from collections import defaultdict

import numpy as np
import pytest
from alarms_naive import Naive
from alarms_plant import BAD, GOOD, HOT, START_UTC, UNCERTAIN, AlarmRule, Plant
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.alarms.rules import Expression
from plant.batch import of_rows
from plant.instant import NS_PER_S, Instant
from plant.tags import Tag, TagTable

TAGS = ("a", "b", "c", "d")
SMALL = TagTable([Tag(name=name, index=2 * i + 1, stale_after_ns=4 * NS_PER_S) for i, name in enumerate(TAGS)])
DELAYS = st.sampled_from((0.0, 0.0, 1.0, 2.5))
VALUES = st.one_of(st.integers(-6, 6).map(float), st.sampled_from((math.inf, -math.inf, 0.5, 2.25)))


@st.composite
def alarm_rules(draw: st.DrawFn) -> list[AlarmRule]:
    rules = []
    for i in range(draw(st.integers(1, 7))):
        condition = draw(
            st.sampled_from(
                ("HH", "H", "L", "LL", "deviation", "deviation", "rate", "discrete", "stale", "bad_quality")
            )
        )
        tag = draw(st.sampled_from(TAGS))
        limit = float(draw(st.integers(1, 4)))
        banded = condition in {"HH", "H", "L", "LL", "deviation", "rate"}
        other = draw(st.sampled_from([t for t in TAGS if t != tag]))
        rules.append(
            AlarmRule(
                name=f"r{i}",
                tag=tag,
                condition=condition,
                limit=math.nan if condition == "stale" and draw(st.booleans()) else limit,
                setpoint=draw(st.sampled_from((0.0, 1.5, other, other))) if condition == "deviation" else None,
                deadband=draw(st.sampled_from((0.0, 0.5))) if banded else 0.0,
                on_delay_s=draw(DELAYS),
                off_delay_s=draw(DELAYS),
                suppress_when=draw(
                    st.none()
                    | st.builds(
                        Expression,
                        st.sampled_from(TAGS),
                        st.sampled_from(("==", "!=", "<", "<=", ">", ">=")),
                        st.integers(-3, 3).map(float),
                    )
                ),
            )
        )
    return rules


@st.composite
def batches(draw: st.DrawFn) -> list[tuple[int, list[tuple[int, int, float, int]]]]:
    """Steps of (ns since the last one, rows)."""
    steps = []
    for _ in range(draw(st.integers(1, 8))):
        rows = []
        for _ in range(draw(st.integers(0, 7))):
            quality = draw(st.sampled_from((GOOD, GOOD, GOOD, GOOD, UNCERTAIN, BAD)))
            value = math.nan if quality == BAD else draw(VALUES | st.just(math.nan) if draw(st.booleans()) else VALUES)
            tag = SMALL[draw(st.sampled_from(TAGS))].index
            rows.append((tag, START_UTC + draw(st.integers(0, 40)) * NS_PER_S // 4, value, quality))
        steps.append((draw(st.sampled_from((0, 100, 500, 1000, 1500, 3000))) * 1_000_000, rows))
    return steps


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rules=alarm_rules(), steps=batches())
def test_batches_are_judged_as_if_every_reading_and_rule_was_looked_at(rules, steps):
    plant = Plant(*rules, table=SMALL, flood_start_count=1000, chatter_count=100)
    naive = Naive(rules, SMALL)
    now = 50 * NS_PER_S
    for passed, rows in steps:
        now += passed
        batch = of_rows(rows)
        expected, found = defaultdict(list), defaultdict(list)
        for alarm, transition, annunciated in naive.step(batch, now):
            expected[alarm].append((transition, annunciated))
        for t in plant.transitions(plant.alarms.evaluate(batch, Instant(START_UTC, now))):
            found[t.alarm].append((t.transition, t.annunciated))
        assert found == expected


def test_a_spike_within_a_batch_alarms_and_clears():
    plant = Plant(HOT)
    events = plant.step(*[("cnc.temperature", v) for v in (20, 20, 95, 20, 20)])
    assert plant.told(events) == ["cnc.hot activate", "cnc.hot clear"]
    assert plant.transitions(events)[0].value == 95
    assert plant.state("cnc.hot") == "D"


def test_a_break_within_a_batch_starts_the_on_delay_anew():
    plant = Plant(AlarmRule(name="hot", tag="cnc.temperature", condition="H", limit=80, on_delay_s=5))
    plant.step(("cnc.temperature", 90))
    plant.wait(3)
    plant.step(("cnc.temperature", 90), ("cnc.temperature", 70), ("cnc.temperature", 90))
    assert plant.told(plant.idle(4.9)) == []
    assert plant.told(plant.idle(0.1)) == ["hot activate"]


def test_the_limit_itself_is_no_alarm_and_the_next_number_is():
    plant = Plant(HOT)
    assert plant.step(("cnc.temperature", 80.0)) == []
    assert plant.told(plant.step(("cnc.temperature", math.nextafter(80, 81)))) == ["cnc.hot activate"]


def test_a_deviation_follows_its_setpoint_tag_even_when_the_value_stands_still():
    plant = Plant(
        AlarmRule(
            name="off", tag="press.pressure", condition="deviation", limit=5, setpoint="press.setpoint", deadband=1
        )
    )
    assert plant.step(("press.pressure", 100.0)) == []
    assert plant.step(("press.setpoint", 98.0)) == []
    assert plant.told(plant.step(("press.setpoint", 90.0))) == ["off activate"]
    assert plant.step(("press.setpoint", 95.5)) == []
    assert plant.told(plant.step(("press.setpoint", 96.0))) == ["off clear"]
    assert plant.told(plant.step(("press.pressure", 90.0))) == ["off activate"]


def test_a_rate_is_taken_from_source_time_across_batches_and_within_them():
    plant = Plant(AlarmRule(name="fast", tag="cnc.temperature", condition="rate", limit=2.0))
    second = NS_PER_S
    assert plant.batch(of_rows([(0, 0 * second + 1, 20.0, GOOD)])) == []
    assert plant.batch(of_rows([(0, 1 * second + 1, 21.0, GOOD), (0, 2 * second + 1, 22.5, GOOD)])) == []
    events = plant.batch(of_rows([(0, 3 * second + 1, 25.0, GOOD), (0, 4 * second + 1, 25.0, GOOD)]))
    assert plant.told(events) == ["fast activate", "fast clear"]
    assert plant.transitions(events)[0].value == 2.5
    assert plant.batch(of_rows([(0, 4 * second + 1, 90.0, GOOD)])) == [], "no time passed: there is no rate"


def test_silence_is_an_alarm_that_ends_with_the_next_value_and_bad_is_no_sign_of_life():
    plant = Plant(AlarmRule(name="mute", tag="press.pressure", condition="stale"))
    plant.step(("press.pressure", 1.0))
    plant.idle(4)
    plant.step(("press.pressure", math.nan, BAD))
    assert plant.idle(1) == []
    assert plant.told(plant.idle(0.001)) == ["mute activate"]
    assert plant.told(plant.step(("press.pressure", 1.0))) == ["mute clear"]
    assert plant.idle(5) == []
    assert plant.told(plant.idle(0.001)) == ["mute activate"]


def test_a_tag_that_no_rule_knows_is_passed_over():
    plant = Plant(HOT, AlarmRule(name="fast", tag="cnc.vibration", condition="rate", limit=1.0))
    known = [(0, START_UTC, 90.0, GOOD)]
    unknown = [(7, START_UTC, 1e9, GOOD), (4_000_000_000, START_UTC, -1e9, GOOD)]
    assert plant.told(plant.batch(of_rows(unknown + known + unknown))) == ["cnc.hot activate"]
    assert plant.batch(of_rows(unknown)) == []


def test_a_quiet_step_makes_nothing_and_touches_no_column_it_was_given():
    plant = Plant(HOT)
    batch = of_rows([(0, START_UTC, 20.0, GOOD), (5, START_UTC, math.nan, BAD)])
    for column in (batch.tag, batch.time, batch.value, batch.quality):
        column.setflags(write=False)
    assert plant.batch(batch) == []
    assert np.isnan(batch.value[1])


def test_next_due_tells_when_to_call_without_readings():
    plant = Plant(AlarmRule(name="hot", tag="cnc.temperature", condition="H", limit=80, on_delay_s=5))
    plant.step(("cnc.temperature", 20.0))
    assert plant.alarms.next_due is None
    plant.step(("cnc.temperature", 90.0))
    assert plant.alarms.next_due == plant.monotonic + 5 * NS_PER_S


@pytest.mark.parametrize(
    ("condition", "limit", "quiet", "loud"),
    [("HH", 80, 80, 81), ("H", 80, 80, 81), ("LL", 5, 5, 4), ("L", 0.75, 0.75, 0.7499), ("discrete", 3, 2, 3)],
)
def test_conditions_by_example(condition, limit, quiet, loud):
    plant = Plant(AlarmRule(name="x", tag="cnc.temperature", condition=condition, limit=float(limit)))
    assert plant.step(("cnc.temperature", float(quiet))) == []
    assert plant.told(plant.step(("cnc.temperature", float(loud)))) == ["x activate"]
    assert plant.told(plant.step(("cnc.temperature", float(quiet)))) == ["x clear"]
