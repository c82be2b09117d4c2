"""Rows of alarms.csv: what they mean, and a sentence for every mistake."""

import math

import pytest
from alarms_plant import TABLE
from pydantic import ValidationError

from edge.alarms import COLUMNS, AlarmOptions, AlarmRule, RuleFaults, check, parse_rule
from edge.alarms.rules import Expression

ROW = {"alarm": "cnc.hot", "tag": "cnc.temperature", "condition": "hh", "limit": "80", "priority": "Critical"}


def test_a_short_row_takes_its_defaults():
    rule = parse_rule(ROW)
    assert (rule.name, rule.condition, rule.limit, rule.priority) == ("cnc.hot", "HH", 80.0, "critical")
    assert (rule.deadband, rule.on_delay_s, rule.off_delay_s, rule.latch, rule.suppress_when) == (0, 0, 0, False, None)


def test_a_full_row_is_read():
    rule = parse_rule(
        {
            **dict.fromkeys(COLUMNS, ""),
            **ROW,
            "condition": "deviation",
            "setpoint": "press.setpoint",
            "deadband": "0.5",
            "on_delay_s": "2.5",
            "off_delay_s": "10",
            "latch": "yes",
            "group": "spindle",
            "suppress_when": "cnc.state!=1",
            "message": "too far off",
            "cause": "a",
            "consequence": "b",
            "action": "c",
            "respond_within_s": "300",
        }
    )
    assert rule.suppress_when == Expression("cnc.state", "!=", 1.0)
    assert rule.tags() == ("cnc.temperature", "press.setpoint", "cnc.state")
    assert (rule.on_delay_ns, rule.off_delay_ns, rule.latch) == (2_500_000_000, 10_000_000_000, True)
    assert parse_rule({**ROW, "condition": "deviation", "setpoint": "12.5"}).setpoint == 12.5
    assert parse_rule({**ROW, "condition": "discrete", "limit": ""}).limit == 1.0
    assert math.isnan(parse_rule({**ROW, "condition": "stale", "limit": ""}).limit)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"alarm": ""}, "alarm is empty"),
        ({"alarm": "a/b"}, "none of"),
        ({"tag": " "}, "tag is empty"),
        ({"condition": "HHH"}, "did you mean HH"),
        ({"condition": ""}, "expected one of"),
        ({"limit": ""}, "a HH alarm needs one"),
        ({"limit": "80 C"}, "expected a number"),
        ({"limit": "80,5"}, "decimal point"),
        ({"limit": "inf"}, "expected a number"),
        ({"limit": "nan"}, "expected a number"),
        ({"deadband": "-1"}, "at least 0"),
        ({"on_delay_s": "-1"}, "between 0 and 86400"),
        ({"off_delay_s": "100000"}, "between 0 and 86400"),
        ({"priority": "hihg"}, "did you mean high"),
        ({"latch": "maybe"}, "true or false"),
        ({"suppress_when": "cnc.state is 1"}, "cnc.state != 1"),
        ({"suppress_when": "cnc.state != idle"}, "cnc.state != 1"),
        ({"setpoint": "5"}, "only a deviation alarm"),
        ({"condition": "deviation"}, "setpoint is empty"),
        ({"condition": "deviation", "setpoint": "1", "deadband": "80"}, "never clears"),
        ({"condition": "rate", "limit": "-2"}, "above 0"),
        ({"condition": "stale", "limit": "0"}, "above 0"),
        ({"condition": "bad_quality"}, "leave it empty"),
        ({"condition": "discrete", "deadband": "1"}, "leave it empty"),
    ],
)
def test_every_mistake_has_a_sentence(change, sentence):
    with pytest.raises(RuleFaults) as refused:
        parse_rule({**ROW, **change})
    assert len(refused.value.faults) == 1
    assert sentence in refused.value.faults[0]


def test_all_mistakes_of_a_row_come_at_once():
    with pytest.raises(RuleFaults) as refused:
        parse_rule({"alarm": "", "tag": "", "condition": "X", "deadband": "a", "latch": "b", "priority": "c"})
    assert len(refused.value.faults) == 6


def test_rules_are_checked_against_the_tags_and_each_other():
    rules = [
        AlarmRule(name="a", tag="cnc.temperatur", condition="H", limit=1),
        AlarmRule(name="a", tag="cnc.vibration", condition="deviation", limit=1, setpoint="nowhere"),
        AlarmRule(name="b", tag="cnc.vibration", condition="stale"),
        AlarmRule(name="c", tag="press.pressure", condition="stale"),
    ]
    found = check(rules, TABLE)
    assert [alarm for alarm, _ in found] == ["a", "a", "a", "b"]
    assert "did you mean cnc.temperature" in found[0][1]
    assert "stands twice" in found[1][1]
    assert "nowhere" in found[2][1]
    assert "stale_after_s" in found[3][1]


def test_options_refuse_a_flood_that_would_end_at_its_start():
    with pytest.raises(ValidationError, match="flood_end_count"):
        AlarmOptions(flood_start_count=3, flood_end_count=5)
    with pytest.raises(ValidationError, match="max_shelve_h"):
        AlarmOptions(max_shelve_h=8)
