"""What an engineer may write about machines and working time, and what is refused with which words."""

import re
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from edge.production import MachineOptions, ShiftsOptions, calendar_of, check_shifts, virtual_tags
from plant.instant import NS_PER_S

SAMPLE = Path(__file__).parents[2] / "config" / "shifts.toml"
STATE = {"name": "m", "asset": "a/b/c", "state_tag": "s", "states": {"1": "running"}}

THREE_SHIFTS = """
time_zone = "Europe/Berlin"

[[shift]]
name = "early"
start = "06:00"
end = "14:00"
[[shift.break]]
name = "meal"
start = "10:00"
end = "10:30"

[[shift]]
name = "late"
start = "14:00"
end = "22:00"

[[shift]]
name = "night"
start = "22:00"
end = "06:00"

[[planned_stop]]
start = 2026-06-01T08:00:00
end = 2026-06-01T09:00:00
reason = "fire drill"

[[special_day]]
date = 2026-12-25
name = "Christmas"
"""


def shifts(text: str) -> ShiftsOptions:
    return ShiftsOptions.model_validate(tomllib.loads(text))


def ns(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * NS_PER_S


def test_a_shifts_file_becomes_a_calendar():
    calendar = calendar_of(shifts(THREE_SHIFTS), "UTC")
    early = calendar.at("x", ns("2026-06-01T04:00:00"))
    assert early.name == "early"
    assert [(b - a) / 60 / NS_PER_S for a, b in early.busy] == [120, 60, 210]
    assert calendar.at("x", ns("2026-12-25T08:00:00")) is None
    assert check_shifts(shifts(THREE_SHIFTS), "UTC") == []


def test_the_examples_in_the_sample_file_mean_what_they_say():
    text = re.sub(r"^# (\[\[|\w+ = )", r"\1", SAMPLE.read_text(), flags=re.MULTILINE)
    options = shifts(text)
    assert (len(options.shift), len(options.special_day), len(options.planned_stop)) == (4, 1, 1)
    assert check_shifts(options, "Europe/Berlin") == []
    calendar = calendar_of(options, "Europe/Berlin")
    # On Christmas Eve only the early shift starts, and the works holiday begins when it ends.
    assert calendar.at("milling/line1/cnc", ns("2026-12-24T12:00:00")).name == "early"
    assert calendar.at("milling/line1/cnc", ns("2026-12-24T13:30:00")) is None
    # One line works by day on weekdays only; the others keep the shifts of the site, on Saturdays too.
    assert calendar.at("finishing/line3/strip", ns("2026-11-20T10:00:00")).name == "day"
    assert calendar.at("finishing/line3/strip", ns("2026-11-21T10:00:00")) is None
    assert calendar.at("milling/line1/cnc", ns("2026-11-21T10:00:00")).name == "early"


def test_the_site_gives_the_time_zone_where_the_file_does_not():
    calendar = calendar_of(shifts('[[shift]]\nname = "day"\nstart = "06:00"\nend = "18:00"'), "Asia/Tokyo")
    assert calendar.at("x", ns("2026-05-31T21:00:00")).start == ns("2026-05-31T21:00:00")


def test_toml_times_and_midnight_at_the_end_of_the_day_are_understood():
    options = shifts('[[shift]]\nname = "late"\nstart = 16:00:00\nend = "24:00"')
    shift = calendar_of(options, "UTC").at("x", ns("2026-06-01T23:59:00"))
    assert shift.end == ns("2026-06-02T00:00:00")


def test_planned_stops_may_be_whole_days():
    options = shifts('[[planned_stop]]\nstart = 2026-08-03\nend = 2026-08-17\nreason = "holidays"')
    assert calendar_of(options, "UTC").busy("x", ns("2026-08-03T00:00:00"), ns("2026-08-17T00:00:00")) == ()


def test_overlapping_shifts_are_named_in_a_sentence():
    (sentence,) = check_shifts(shifts(THREE_SHIFTS.replace('end = "14:00"', 'end = "14:30"')), "UTC")
    assert sentence == 'shifts "early" (06:00-14:30) and "late" (14:00-22:00) overlap on the whole site'


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (('start = "06:00"', 'start = "6 am"'), "is no time of day"),
        (('start = "06:00"', "start = 6"), "is no time of day"),
        (('end = "22:00"', 'end = "24:30"'), "is no time of day"),
        (("Europe/Berlin", "Europe/Berlinn"), "is no IANA time zone"),
        (("2026-06-01T08:00:00", "2026-06-01T08:00:00Z"), "timezone"),
        (('name = "early"', 'nmae = "early"'), "nmae"),
    ],
)
def test_a_shifts_file_with_a_mistake_is_refused(change, says):
    with pytest.raises(ValidationError, match=says):
        shifts(THREE_SHIFTS.replace(*change))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"running_tag": "p"}, "only one of them"),
        ({"state_tag": None}, "give state_tag or running_tag"),
        ({"states": {}}, "state_tag needs a table"),
        ({"states": {"1": "sleeping"}}, "running"),
        ({"reason_tag": "r"}, "reason_tag needs a table"),
        ({"produced_tag": "a", "good_tag": "b", "rejected_tag": "c"}, "any two"),
        ({"rejected_tag": "c"}, "beside it"),
        ({"ideal_cycle_s": 3, "target_rate_per_h": 1200}, "not both"),
        ({"ideal_cycle_s": 0}, "greater than 0"),
        ({"products": {"A": -1}}, "greater than 0"),
        ({"target_oee": 85}, "less than or equal to 1"),
        ({"micro_stop": 5}, "micro_stop"),
        ({"currency": "euro"}, "pattern"),
    ],
)
def test_a_machine_with_a_mistake_is_refused(change, says):
    with pytest.raises(ValidationError, match=says):
        MachineOptions.model_validate({k: v for k, v in (STATE | change).items() if v is not None})


def test_hysteresis_must_not_be_upside_down():
    with pytest.raises(ValidationError, match="running_below"):
        MachineOptions.model_validate(
            {"name": "m", "asset": "a", "running_tag": "p", "running_above": 1, "running_below": 2}
        )


def test_a_target_rate_is_an_ideal_cycle():
    assert MachineOptions.model_validate(STATE | {"target_rate_per_h": 360}).rating.ideal_ns == 10 * NS_PER_S
    assert MachineOptions.model_validate(STATE | {"ideal_cycle_s": 10}).rating.ideal_ns == 10 * NS_PER_S
    assert MachineOptions.model_validate(STATE).rating.ideal_ns is None


def test_each_machine_has_its_virtual_tags():
    rows = virtual_tags([MachineOptions.model_validate(STATE)])
    names = [name for name, *_ in rows]
    assert {"m.oee", "m.availability", "m.performance", "m.quality", "m.teep", "m.utilisation", "m.produced"} <= set(
        names
    )
    assert {"m.rejected", "m.state", "m.unknown_s"} <= set(names)
    assert len(set(names)) == len(names)
    assert {asset for _, asset, _, _ in rows} == {"a/b/c"}
