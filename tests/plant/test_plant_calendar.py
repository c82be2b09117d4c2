"""Shifts in wall-clock zones become intervals of UTC."""

from datetime import date, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plant.calendar import (
    Break,
    Calendar,
    PlannedStop,
    ShiftRule,
    SpecialDay,
    clipped,
    merged,
    minus,
    overlap_ns,
)

HOUR = 3_600_000_000_000
MINUTE = HOUR // 60
BERLIN = ZoneInfo("Europe/Berlin")


def hm(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)


def rule(name: str, start: str, end: str, **kw) -> ShiftRule:
    return ShiftRule(name=name, start=hm(start), end=hm(end), **kw)


def three_shifts(zone: str = "Europe/Berlin") -> Calendar:
    return Calendar(
        zone=ZoneInfo(zone),
        rules=(rule("early", "06:00", "14:00"), rule("late", "14:00", "22:00"), rule("night", "22:00", "06:00")),
    )


def local(*args: int) -> datetime:
    """A naive time is the point: the calendar gives it its zone."""
    return datetime(*args)  # noqa: DTZ001


def utc(calendar: Calendar, *args: int) -> int:
    return calendar.utc_ns(local(*args))


def test_the_night_shift_lasts_seven_hours_when_summer_time_begins():
    calendar = three_shifts()
    night = calendar.at("press", utc(calendar, 2026, 3, 28, 23, 0))
    assert (night.name, night.day) == ("night", date(2026, 3, 28))
    assert night.end - night.start == 7 * HOUR
    assert sum(e - s for s, e in night.busy) == 7 * HOUR


def test_the_night_shift_lasts_nine_hours_when_summer_time_ends():
    calendar = three_shifts()
    night = calendar.at("press", utc(calendar, 2026, 10, 24, 23, 0))
    assert night.end - night.start == 9 * HOUR


@pytest.mark.parametrize(("day", "hours"), [((2026, 10, 3), 7.5), ((2026, 4, 4), 8.5), ((2026, 7, 1), 8.0)])
def test_a_zone_whose_summer_time_is_half_an_hour(day, hours):
    calendar = three_shifts("Australia/Lord_Howe")
    night = calendar.at("press", utc(calendar, *day, 23, 0))
    assert night.end - night.start == hours * HOUR


def test_a_zone_without_summer_time_has_equal_nights():
    calendar = three_shifts("Asia/Kolkata")
    nights = [s for s in calendar.shifts("", utc(calendar, 2026, 1, 1), utc(calendar, 2027, 1, 1)) if s.name == "night"]
    assert {night.end - night.start for night in nights} == {8 * HOUR}


def test_a_shift_over_midnight_belongs_to_the_day_on_which_it_starts():
    calendar = Calendar(zone=BERLIN, rules=(rule("night", "22:00", "06:00", days=frozenset({4})),))
    friday_night = calendar.at("", utc(calendar, 2026, 6, 6, 5, 59))
    assert friday_night is not None
    assert friday_night.day == date(2026, 6, 5)
    assert calendar.at("", utc(calendar, 2026, 6, 6, 6, 0)) is None
    assert calendar.at("", utc(calendar, 2026, 6, 6, 22, 30)) is None
    assert calendar.next_start("", utc(calendar, 2026, 6, 6, 6, 0)) == utc(calendar, 2026, 6, 12, 22, 0)


def test_local_times_that_are_missing_move_forward_and_ambiguous_ones_are_the_first():
    calendar = three_shifts()
    assert utc(calendar, 2026, 3, 29, 2, 30) == utc(calendar, 2026, 3, 29, 3, 30)
    assert utc(calendar, 2026, 10, 25, 2, 30) == utc(calendar, 2026, 10, 25, 1, 30) + HOUR


def test_breaks_and_planned_stops_are_not_busy_and_count_once_where_they_overlap():
    calendar = Calendar(
        zone=BERLIN,
        rules=(rule("early", "06:00", "14:00", breaks=(Break("meal", hm("10:00"), hm("10:30")),)),),
        stops=(
            PlannedStop(start=local(2026, 6, 1, 10, 15), end=local(2026, 6, 1, 11, 0), reason="fire drill"),
            PlannedStop(start=local(2026, 6, 1, 12, 0), end=local(2026, 6, 1, 13, 0), reason="tools", assets=("b",)),
        ),
    )
    shift = calendar.at("a", utc(calendar, 2026, 6, 1, 8))
    assert sum(e - s for s, e in shift.busy) == 7 * HOUR
    assert sum(e - s for s, e in calendar.at("b/cell", utc(calendar, 2026, 6, 1, 8)).busy) == 6 * HOUR


@pytest.mark.parametrize("day", [(2026, 3, 28), (2026, 10, 24), (2026, 6, 1)])
def test_a_break_keeps_its_length_on_the_night_of_the_clock_change(day):
    calendar = Calendar(
        zone=BERLIN, rules=(rule("night", "22:00", "06:00", breaks=(Break("meal", hm("02:30"), hm("03:00")),)),)
    )
    night = calendar.at("", utc(calendar, *day, 23))
    assert night.end - night.start - sum(e - s for s, e in night.busy) == 30 * MINUTE


def test_the_longest_prefix_gives_an_asset_its_own_shifts():
    calendar = Calendar(
        zone=BERLIN,
        rules=(rule("day", "06:00", "18:00"), rule("short", "08:00", "12:00", assets=("area/line1",))),
    )
    time = utc(calendar, 2026, 6, 1, 9)
    assert calendar.at("area/line1/cell", time).name == "short"
    assert calendar.at("area/line10/cell", time).name == "day"


def test_rules_for_one_line_only_leave_the_others_without_planned_time():
    calendar = Calendar(zone=BERLIN, rules=(rule("day", "06:00", "18:00", assets=("line1",)),))
    assert calendar.at("line2", utc(calendar, 2026, 6, 1, 9)) is None
    assert calendar.busy("line2", utc(calendar, 2026, 6, 1), utc(calendar, 2026, 6, 9)) == ()


def test_special_days_close_the_plant_or_call_extra_shifts():
    weekdays = frozenset(range(5))
    calendar = Calendar(
        zone=BERLIN,
        rules=(rule("early", "06:00", "14:00", days=weekdays), rule("late", "14:00", "22:00", days=weekdays)),
        special_days=(
            SpecialDay(day=date(2026, 12, 25), name="Christmas"),
            SpecialDay(day=date(2026, 12, 26), name="rush order", shifts=("early",), assets=("press",)),
        ),
    )
    shifts = calendar.shifts("press", utc(calendar, 2026, 12, 24), utc(calendar, 2026, 12, 28))
    assert [(s.day.day, s.name) for s in shifts] == [(24, "early"), (24, "late"), (26, "early")]
    assert calendar.at("cnc", utc(calendar, 2026, 12, 26, 8)) is None


def test_without_shifts_production_is_planned_round_the_clock():
    calendar = Calendar(zone=BERLIN)
    start, end = utc(calendar, 2026, 10, 24), utc(calendar, 2026, 10, 27)
    assert sum(e - s for s, e in calendar.busy("x", start, end)) == 73 * HOUR


def test_overlapping_shifts_are_named_also_over_midnight_and_over_the_end_of_the_week():
    calendar = Calendar(
        zone=BERLIN,
        rules=(
            rule("early", "06:00", "14:00", days=frozenset({0})),
            rule("sunday night", "22:00", "06:30", days=frozenset({6})),
            rule("late", "14:00", "22:00"),
        ),
    )
    (problem,) = calendar.problems()
    assert problem.names == ("early", "sunday night")
    assert "overlap" in problem.what
    assert three_shifts().problems() == []


def test_the_same_hours_on_different_lines_do_not_overlap():
    calendar = Calendar(
        zone=BERLIN,
        rules=(
            rule("a", "06:00", "14:00", assets=("one",)),
            rule("b", "06:00", "14:00", assets=("two",)),
            rule("c", "07:00", "9:00"),
        ),
    )
    assert calendar.problems() == []


def test_breaks_outside_their_shift_and_stops_that_end_before_they_start_are_problems():
    calendar = Calendar(
        zone=BERLIN,
        rules=(
            rule(
                "night",
                "22:00",
                "06:00",
                breaks=(
                    Break("meal", hm("02:00"), hm("02:30")),
                    Break("tea", hm("02:15"), hm("02:45")),
                    Break("lunch", hm("12:00"), hm("12:30")),
                ),
            ),
        ),
        stops=(
            PlannedStop(start=local(2026, 1, 2), end=local(2026, 1, 1), reason="audit"),
            PlannedStop(start=local(2026, 2, 1), end=local(2026, 2, 3), reason="holidays"),
            PlannedStop(start=local(2026, 2, 2), end=local(2026, 2, 4), reason="rebuild"),
        ),
        special_days=(SpecialDay(day=date(2026, 5, 1), name="May Day", shifts=("nihgt",)),),
    )
    names = {problem.names for problem in calendar.problems()}
    assert {
        ("night", "lunch"),
        ("night", "meal", "tea"),
        ("audit",),
        ("holidays", "rebuild"),
        ("May Day", "nihgt"),
    } <= names


def test_a_special_day_that_makes_shifts_overlap_is_a_problem():
    calendar = Calendar(
        zone=BERLIN,
        rules=(
            rule("day", "06:00", "18:00", days=frozenset(range(5))),
            rule("weekend", "06:00", "06:00", days=frozenset({5, 6})),
        ),
        special_days=(SpecialDay(day=date(2026, 6, 6), name="mix-up", shifts=("day", "weekend")),),
    )
    assert any("mix-up" in problem.names for problem in calendar.problems())
    shifts = calendar.shifts("", utc(calendar, 2026, 6, 6), utc(calendar, 2026, 6, 7))
    assert all(a.end <= b.start for a, b in pairwise(shifts))


def test_a_question_over_too_long_a_stretch_is_refused():
    with pytest.raises(ValueError, match="at most"):
        three_shifts().shifts("", 0, 100 * 365 * 24 * HOUR)


intervals = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=8)


@given(intervals, intervals)
def test_interval_arithmetic_agrees_with_sets_of_instants(a, b):
    def instants(row):
        return {i for s, e in row for i in range(s, e)}

    assert instants(merged(a)) == instants(a)
    assert instants(minus(a, b)) == instants(a) - instants(b)
    assert instants(clipped(a, 10, 40)) == instants(a) & set(range(10, 40))
    assert overlap_ns(merged(a), 10, 40) == len(instants(a) & set(range(10, 40)))
    assert all(x[1] < y[0] for x, y in pairwise(minus(a, b)))


@settings(max_examples=60)
@given(
    zone=st.sampled_from(["Europe/Berlin", "Australia/Lord_Howe", "America/St_Johns", "Africa/Casablanca", "UTC"]),
    day=st.dates(date(2020, 1, 1), date(2037, 12, 1)),
    cuts=st.lists(st.integers(0, 1439), min_size=1, max_size=4, unique=True).map(sorted),
    hours=st.integers(1, 400),
)
def test_shifts_that_tile_the_clock_tile_time_on_any_day_in_any_zone(zone, day, cuts, hours):
    ends = [*cuts[1:], cuts[0]]
    calendar = Calendar(
        zone=ZoneInfo(zone),
        rules=tuple(ShiftRule(name=f"s{i}", start=s, end=e) for i, (s, e) in enumerate(zip(cuts, ends, strict=True))),
    )
    assert calendar.problems() == []
    start = calendar.utc_ns(datetime.combine(day, datetime.min.time()))
    end = start + hours * HOUR
    shifts = calendar.shifts("", start, end)
    assert all(a.end <= b.start for a, b in pairwise(shifts))
    assert sum(e - s for s, e in calendar.busy("", start, end)) == end - start
