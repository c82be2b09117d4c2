"""ISA-18.2 / IEC 62682 / OPC UA Part 9, requirement by requirement (ALM-1 is in test_alarms_table.py)."""

import itertools
import json
import math

import pytest
from alarms_plant import BAD, GOOD, HOT, UNCERTAIN, AlarmRule, Plant

from edge.alarms import warnings
from edge.alarms.rules import Expression
from plant.events import Audit, GatewayEvent, from_record, to_record

VIBRATION = AlarmRule(name="cnc.vibration.high", tag="cnc.vibration", condition="H", limit=10.0)


def audits(plant: Plant) -> list[Audit]:
    return [e for e in plant.log if isinstance(e, Audit)]


def cycle(plant: Plant, hot: float = 90.0, cold: float = 20.0) -> None:
    plant.step(("cnc.temperature", hot))
    plant.step(("cnc.temperature", cold))


# ALM-2, ALM-3: acknowledgement


def test_ALM_2_an_acknowledgement_names_the_occurrence_and_only_the_first_counts():
    plant = Plant(HOT)
    plant.step(("cnc.temperature", 90.0))
    occurrence = plant.last("cnc.hot").occurrence
    assert occurrence == plant.transitions()[0].id
    assert plant.command("acknowledge", alarm="cnc.hot").code == "invalid"
    assert plant.command("acknowledge", alarm="cnc.hot", occurrence="boot9-00000000").code == "stale_occurrence"
    assert plant.state("cnc.hot") == "B"
    assert plant.command("acknowledge", alarm="cnc.hot", occurrence=occurrence, comment="seen").ok
    assert (plant.last("cnc.hot").user, plant.last("cnc.hot").comment) == ("anna", "seen")
    second = plant.command("acknowledge", alarm="cnc.hot", occurrence=occurrence, user="bert")
    assert (second.ok, second.code) == (False, "already_acknowledged")
    assert plant.last("cnc.hot").user == "anna"


def test_ALM_2_a_command_delivered_again_gets_the_same_reply_and_changes_nothing():
    plant = Plant(HOT)
    plant.step(("cnc.temperature", 90.0))
    arguments = {"alarm": "cnc.hot", "occurrence": plant.last("cnc.hot").occurrence}
    first = plant.command("acknowledge", command_id="m1", **arguments)
    said = len(plant.log)
    again = plant.command("acknowledge", command_id="m1", **arguments)
    assert first.ok
    assert again == first
    assert len(plant.log) == said


def test_ALM_3_what_comes_again_before_it_was_acknowledged_is_a_new_occurrence():
    plant = Plant(HOT)
    cycle(plant)
    old = plant.last("cnc.hot").occurrence
    plant.step(("cnc.temperature", 90.0))
    assert plant.last("cnc.hot").occurrence != old
    assert plant.command("acknowledge", alarm="cnc.hot", occurrence=old).code == "stale_occurrence"
    assert plant.acknowledge("cnc.hot").ok


@pytest.mark.parametrize(
    ("name", "arguments", "code"),
    [
        ("acknowledge", {"alarm": "nobody"}, "unknown_alarm"),
        ("acknowledge", {}, "unknown_alarm"),
        ("acknowledge", {"alarm": ["cnc.hot"]}, "unknown_alarm"),
        ("acknowledge", {"alarm": "cnc.hot", "occurrence": 7}, "invalid"),
        ("acknowledge", {"alarm": "cnc.hot", "occurrence": "x", "comment": "a" * 501}, "invalid"),
        ("explode", {"alarm": "cnc.hot"}, "invalid"),
        ("unshelve", {"alarm": "cnc.hot"}, "invalid"),
        ("reset", {"alarm": "cnc.hot"}, "invalid"),
    ],
)
def test_a_refused_command_says_why_changes_nothing_and_is_audited(name, arguments, code):
    plant = Plant(HOT)
    plant.step(("cnc.temperature", 90.0))
    reply = plant.command(name, **arguments)
    assert (reply.ok, reply.code) == (False, code)
    assert reply.message
    assert plant.state("cnc.hot") == "B"
    assert audits(plant)[-1].outcome == code


def test_a_command_without_a_user_is_refused():
    plant = Plant(HOT)
    plant.step(("cnc.temperature", 90.0))
    assert plant.command("shelve", user="", alarm="cnc.hot", reason="x", duration_s=60).code == "invalid"


def test_a_latched_alarm_is_reset_only_after_it_returned_and_was_acknowledged():
    plant = Plant(AlarmRule(name="trip", tag="cnc.temperature", condition="HH", limit=80, latch=True))
    plant.step(("cnc.temperature", 90.0))
    assert plant.command("reset", alarm="trip").message.endswith("remove the cause, then reset")
    plant.step(("cnc.temperature", 20.0))
    assert plant.command("reset", alarm="trip").message.endswith("acknowledge it, then reset")
    assert plant.state("trip") == "E"
    plant.acknowledge("trip")
    assert plant.state("trip") == "F"
    assert plant.command("reset", alarm="trip").ok
    assert plant.state("trip") == "A"


# ALM-4: delays


def test_ALM_4_the_condition_must_hold_without_a_break_and_be_gone_without_a_break():
    plant = Plant(AlarmRule(name="hot", tag="cnc.temperature", condition="H", limit=80, on_delay_s=5, off_delay_s=10))
    plant.step(("cnc.temperature", 90.0))
    assert plant.idle(4) == []
    assert plant.step(("cnc.temperature", 70.0)) == []
    plant.step(("cnc.temperature", 90.0))
    assert plant.idle(4.9) == []
    assert plant.told(plant.idle(0.1)) == ["hot activate"]
    plant.step(("cnc.temperature", 70.0))
    plant.wait(9)
    assert plant.step(("cnc.temperature", 90.0)) == []
    plant.step(("cnc.temperature", 70.0))
    assert plant.idle(9.9) == []
    assert plant.told(plant.idle(0.1)) == ["hot clear"]


@pytest.mark.parametrize("hours", [-1, 1])
def test_ALM_4_setting_the_clock_moves_no_delay(hours):
    plant = Plant(AlarmRule(name="hot", tag="cnc.temperature", condition="H", limit=80, on_delay_s=5))
    plant.step(("cnc.temperature", 90.0))
    plant.utc += hours * 3600 * 1_000_000_000
    assert plant.idle(4.9) == []
    assert plant.told(plant.idle(0.1)) == ["hot activate"]


def test_ALM_4_a_restart_neither_shortens_a_pending_delay_nor_fires_it_twice():
    plant = Plant(AlarmRule(name="hot", tag="cnc.temperature", condition="H", limit=80, on_delay_s=5))
    plant.step(("cnc.temperature", 90.0))
    plant.wait(4)
    plant.restart()
    plant.step(("cnc.temperature", 90.0))
    assert plant.idle(4.9) == []
    assert plant.told(plant.idle(0.1)) == ["hot activate"]
    plant.restart()
    plant.step(("cnc.temperature", 90.0))
    assert plant.told(plant.idle(60)) == []


def test_ALM_5_a_high_alarm_with_a_deadband_clears_only_below_it():
    plant = Plant(AlarmRule(name="hot", tag="cnc.temperature", condition="H", limit=80, deadband=2))
    plant.step(("cnc.temperature", 80.5))
    assert plant.step(("cnc.temperature", 79.0), ("cnc.temperature", 78.1)) == []
    assert plant.told(plant.step(("cnc.temperature", 77.9))) == ["hot clear"]
    assert plant.step(("cnc.temperature", 79.0)) == []


# ALM-6: chattering and fleeting


def test_ALM_6_three_activations_in_a_minute_are_chattering_and_told_once():
    plant = Plant(HOT)
    for _ in range(5):
        cycle(plant)
        plant.wait(5)
    told = [e for e in plant.log if isinstance(e, GatewayEvent)]
    assert [(e.action, e.detail["alarm"], e.detail["activations"]) for e in told] == [
        ("alarm_chattering", "cnc.hot", 3)
    ]
    activations = [t for t in plant.transitions() if t.transition == "activate"]
    assert [t.data.get("chattering", False) for t in activations] == [False, False, True, True, True]
    assert plant.alarms.statistics(plant.now).chattering == 1
    assert plant.told(plant.idle(60)) == ["cnc.hot update"]
    assert "chattering" not in plant.last("cnc.hot").data


def test_ALM_6_a_short_alarm_that_nobody_acted_on_is_fleeting():
    plant = Plant(HOT)
    plant.step(("cnc.temperature", 90.0))
    plant.wait(2)
    plant.step(("cnc.temperature", 20.0))
    assert plant.last("cnc.hot").data["fleeting"] is True
    plant.acknowledge("cnc.hot")
    plant.step(("cnc.temperature", 90.0))
    plant.acknowledge("cnc.hot")
    plant.step(("cnc.temperature", 20.0))
    assert "fleeting" not in plant.last("cnc.hot").data
    assert plant.alarms.statistics(plant.now).fleeting == 1


# ALM-7, ALM-8: floods and key figures


def test_ALM_7_a_flood_starts_above_ten_in_ten_minutes_and_ends_below_five():
    plant = Plant()
    for i in range(10):
        plant.condition(f"device.d{i}.communication", active=True, message="down")
        plant.wait(30)
    assert plant.state("alarm_flood") == "A"
    events = plant.condition("device.d10.communication", active=True, message="down")
    assert plant.told(events) == ["device.d10.communication activate", "alarm_flood activate"]
    assert plant.last("alarm_flood").data["count"] == 11
    started = plant.utc
    assert plant.idle(475) == [], "five alarms are still in the window"
    told = list(itertools.chain.from_iterable(plant.idle(1) for _ in range(60)))
    assert plant.told(told) == ["alarm_flood clear"]
    data = plant.last("alarm_flood").data
    assert (data["start"], data["alarms"], data["peak"]) == (started, 11, 11)
    assert data["end"] - started == pytest.approx(480e9, abs=1e9), "the seventh of eleven came 120 s before"
    figures = plant.alarms.statistics(plant.now)
    assert (figures.floods, figures.in_flood) == (1, False)
    assert 0.5 < figures.flood_share < 0.7


def test_ALM_7_alarms_that_are_shelved_do_not_make_a_flood():
    plant = Plant(HOT)
    plant.command("shelve", alarm="cnc.hot", reason="test", duration_s=3600)
    for _ in range(20):
        cycle(plant)
    assert plant.alarms.statistics(plant.now).annunciated == 0
    assert plant.state("alarm_flood") == "A"


def test_ALM_8_the_key_figures_are_those_of_the_standard():
    plant = Plant(HOT, VIBRATION)
    for _ in range(3):
        cycle(plant)
        plant.wait(600)
    plant.step(("cnc.vibration", 20.0))
    plant.wait(25 * 3600)
    figures = plant.alarms.statistics(plant.now)
    assert figures.annunciated == 4
    assert figures.top == (("cnc.hot", 3), ("cnc.vibration.high", 1))
    assert figures.by_priority == {"critical": 3, "medium": 1}
    assert figures.stale == 1, "active for more than 24 h"
    assert (figures.active, figures.unacknowledged) == (1, 2)
    assert figures.per_10_min == 0, "nothing in the last 24 h"


# ALM-9: shelving


def test_ALM_9_shelving_needs_a_reason_and_a_duration_that_is_not_too_long():
    plant = Plant(HOT)
    for arguments in (
        {"duration_s": 60},
        {"reason": "x"},
        {"reason": "x", "duration_s": 0},
        {"reason": "x", "duration_s": -1},
        {"reason": "x", "duration_s": 28_801},
        {"reason": "x", "duration_s": math.nan},
        {"reason": "x", "duration_s": "60"},
        {"reason": "x", "duration_s": True},
        {"reason": "x", "duration_s": 60, "one_shot": "yes"},
    ):
        assert plant.command("shelve", alarm="cnc.hot", **arguments).code == "invalid", arguments
    assert plant.command("shelve", alarm="cnc.hot", reason="x", duration_s=28_800).ok
    assert [a.action for a in audits(plant)] == ["shelve"] * 10
    json.dumps([to_record(a) for a in audits(plant)], allow_nan=False)
    view = plant.alarms.views(plant.now)[0]
    assert (view.state, view.annunciated, view.shelved_until) == ("G", False, plant.utc + 28_800 * 10**9)
    assert plant.last("cnc.hot").data["shelve"] == {"user": "anna", "reason": "x", "one_shot": False}


def test_ALM_9_a_shelf_ends_in_the_state_that_the_process_then_has():
    plant = Plant(HOT)
    plant.command("shelve", alarm="cnc.hot", reason="sensor is changed", duration_s=60)
    events = plant.step(("cnc.temperature", 90.0))
    assert [(t.state, t.active, t.annunciated) for t in plant.transitions(events)] == [("G", True, False)]
    events = plant.idle(60)
    assert [(t.transition, t.state, t.annunciated) for t in plant.transitions(events)] == [("unshelve", "B", True)]
    assert plant.alarms.statistics(plant.now).annunciated == 1


def test_ALM_9_a_one_shot_shelf_ends_with_the_alarm():
    plant = Plant(HOT)
    plant.step(("cnc.temperature", 90.0))
    assert plant.command("shelve", alarm="cnc.hot", reason="known", one_shot=True).ok
    assert plant.told(plant.step(("cnc.temperature", 20.0))) == ["cnc.hot clear", "cnc.hot unshelve"]


@pytest.mark.parametrize(
    ("down_s", "clock_s", "left_s"),
    [(600, 0, 3000), (3601, 0, 0), (600, 3600, 0), (600, -86_400, 28_800)],
    ids=["in time", "expired while down", "clock set forward", "clock set back a day: the longest shelf"],
)
def test_ALM_9_a_shelf_survives_a_restart_and_ends_at_its_wall_time(down_s, clock_s, left_s):
    plant = Plant(HOT)
    plant.command("shelve", alarm="cnc.hot", reason="x", duration_s=3600, one_shot=True)
    plant.restart(down_s=down_s, step_utc_s=clock_s)
    if left_s:
        assert plant.idle(left_s - 1) == []
        assert plant.state("cnc.hot") == "G"
        plant.wait(1)
    assert plant.told(plant.idle()) == ["cnc.hot unshelve"]


def test_ALM_9_a_clock_that_is_set_while_running_moves_no_shelf():
    plant = Plant(HOT)
    plant.command("shelve", alarm="cnc.hot", reason="x", duration_s=3600)
    plant.utc += 86_400 * 10**9
    assert plant.idle(3599) == []
    assert plant.told(plant.idle(1)) == ["cnc.hot unshelve"]


# ALM-10: out of service, suppression by design


def test_ALM_10_out_of_service_needs_a_comment_and_keeps_judging_in_silence():
    plant = Plant(HOT)
    assert plant.command("out_of_service", alarm="cnc.hot").code == "invalid"
    assert plant.command("out_of_service", alarm="cnc.hot", comment="cable broken").ok
    cycle(plant)
    assert [(t.transition, t.state, t.annunciated) for t in plant.transitions()] == [
        ("out_of_service", "I", False),
        ("activate", "I", False),
        ("clear", "I", False),
    ]
    assert plant.command("in_service", alarm="cnc.hot").ok
    assert plant.state("cnc.hot") == "D"


def suppressed_rule() -> AlarmRule:
    return AlarmRule(
        name="cold", tag="cnc.temperature", condition="L", limit=30, suppress_when=Expression("cnc.state", "!=", 1.0)
    )


def test_ALM_10_suppression_by_design_follows_its_tag():
    plant = Plant(suppressed_rule())
    assert plant.step(("cnc.state", 1)) == []
    events = plant.step(("cnc.state", 0), ("cnc.temperature", 10))
    assert [(t.transition, t.annunciated) for t in plant.transitions(events)] == [
        ("suppress", False),
        ("activate", False),
    ]
    assert plant.last("cold").data["suppress"] == {"by": "logic", "user": "", "reason": "cnc.state != 1"}
    events = plant.step(("cnc.state", 1))
    assert [(t.transition, t.state, t.annunciated) for t in plant.transitions(events)] == [("unsuppress", "B", True)]


def test_ALM_10_a_person_cannot_end_what_the_design_suppresses_nor_the_design_what_a_person_did():
    plant = Plant(suppressed_rule())
    plant.step(("cnc.state", 0))
    assert plant.command("unsuppress", alarm="cold").code == "invalid"
    plant.step(("cnc.state", 1))
    assert plant.command("suppress", alarm="cold", reason="trial").ok
    assert plant.step(("cnc.state", 0)) == []
    assert plant.step(("cnc.state", 1)) == []
    assert plant.state("cold") == "H"
    plant.step(("cnc.state", 0))
    assert plant.command("unsuppress", alarm="cold").ok
    assert plant.state("cold") == "H", "the design holds now"
    assert plant.told(plant.step(("cnc.state", 1))) == ["cold unsuppress"]


def test_ALM_10_suppression_by_design_survives_a_restart_until_its_tag_speaks():
    plant = Plant(suppressed_rule())
    plant.step(("cnc.state", 0))
    plant.restart()
    assert plant.step(("cnc.temperature", 10))[0].annunciated is False
    assert plant.told(plant.step(("cnc.state", 1))) == ["cold unsuppress"]


# ALM-11: quality


@pytest.mark.parametrize("quality", [BAD, UNCERTAIN])
def test_ALM_11_a_doubtful_value_neither_raises_nor_clears(quality):
    plant = Plant(HOT)
    assert plant.step(("cnc.temperature", 900.0, quality)) == []
    plant.step(("cnc.temperature", 90.0))
    assert plant.step(("cnc.temperature", 20.0, quality)) == []
    assert plant.state("cnc.hot") == "B"
    assert plant.told(plant.step(("cnc.temperature", 20.0))) == ["cnc.hot clear"]


def test_ALM_11_a_delay_that_ends_while_nobody_knows_waits_for_a_good_value():
    plant = Plant(AlarmRule(name="hot", tag="cnc.temperature", condition="H", limit=80, on_delay_s=5))
    plant.step(("cnc.temperature", 90.0))
    plant.step(("cnc.temperature", math.nan, BAD))
    assert plant.idle(10) == []
    assert plant.told(plant.step(("cnc.temperature", 91.0))) == ["hot activate"]
    plant.step(("cnc.temperature", 20.0))
    plant.step(("cnc.temperature", 90.0), ("cnc.temperature", math.nan, BAD))
    plant.idle(10)
    assert plant.step(("cnc.temperature", 20.0)) == []


def test_ALM_11_bad_quality_is_an_alarm_of_its_own():
    plant = Plant(HOT, AlarmRule(name="broken", tag="cnc.temperature", condition="bad_quality"))
    assert plant.told(plant.step(("cnc.temperature", 90.0, UNCERTAIN))) == ["broken activate"]
    assert plant.told(plant.step(("cnc.temperature", 90.0, GOOD))) == ["broken clear", "cnc.hot activate"]


def test_ALM_11_a_lost_device_is_one_alarm_and_not_one_for_each_tag():
    plant = Plant(
        AlarmRule(name="broken", tag="press.pressure", condition="bad_quality"),
        AlarmRule(name="mute", tag="press.pressure", condition="stale"),
        AlarmRule(name="other", tag="cnc.vibration", condition="bad_quality"),
    )
    plant.step(("press.pressure", 1.0))
    plant.condition("device.press.communication", active=True, message="press does not answer")
    assert plant.told(plant.step(("press.pressure", math.nan, BAD), ("cnc.vibration", math.nan, BAD))) == [
        "other activate"
    ]
    assert plant.idle(60) == []
    plant.condition("device.press.communication", active=False)
    assert plant.idle(9) == []
    assert plant.step(("press.pressure", 1.0)) == []
    assert plant.idle(3) == []

    plant.condition("device.press.communication", active=True, message="press does not answer")
    plant.step(("press.pressure", math.nan, BAD))
    plant.condition("device.press.communication", active=False)
    assert plant.idle(9.9) == []
    assert sorted(plant.told(plant.idle(0.1) + plant.idle())) == ["broken activate", "mute activate"]


# ALM-12 to ALM-15


def test_ALM_12_the_first_alarm_of_a_group_is_marked():
    a = AlarmRule(name="a", tag="cnc.temperature", condition="H", limit=80, group="spindle")
    b = AlarmRule(name="b", tag="cnc.vibration", condition="H", limit=10, group="spindle")
    plant = Plant(a, b)

    def first(name: str) -> bool:
        return plant.last(name).data["first_in_group"]

    plant.step(("cnc.vibration", 20))
    plant.wait(3600)
    plant.step(("cnc.temperature", 90))
    assert (first("b"), first("a")) == (True, False)
    plant.step(("cnc.temperature", 20), ("cnc.vibration", 1))
    plant.step(("cnc.temperature", 90))
    assert not first("a"), "within the window of the last one"
    plant.step(("cnc.temperature", 20))
    plant.wait(11)
    plant.step(("cnc.temperature", 90))
    assert first("a")


def test_ALM_12_within_one_batch_source_time_decides_who_was_first():
    a = AlarmRule(name="a", tag="cnc.temperature", condition="H", limit=80, group="spindle")
    b = AlarmRule(name="b", tag="cnc.vibration", condition="H", limit=10, group="spindle")
    plant = Plant(a, b)
    from plant.batch import of_rows

    plant.batch(of_rows([(0, 2_000, 90.0, GOOD), (1, 1_000, 20.0, GOOD)]))
    assert plant.last("b").data["first_in_group"]
    assert not plant.last("a").data["first_in_group"]


def test_ALM_13_severity_goes_with_priority_and_a_changed_rule_is_audited():
    plant = Plant(HOT)
    plant.step(("cnc.temperature", 90.0))
    assert plant.last("cnc.hot").data["severity"] == 900
    changed = AlarmRule(name="cnc.hot", tag="cnc.temperature", condition="HH", limit=85.0, priority="high")
    plant.alarms.replace_rules([changed], user="chris")
    plant.idle()
    audit = audits(plant)[-1]
    assert (audit.user, audit.action) == ("chris", "change_alarm_rule")
    assert audit.detail == {
        "alarm": "cnc.hot",
        "old": {"limit": 80.0, "priority": "critical"},
        "new": {"limit": 85.0, "priority": "high"},
    }


def test_ALM_14_an_alarm_that_stays_is_announced_again_and_not_for_ever():
    plant = Plant(HOT, realarm_after_s=60, realarm_repeats_max=2)
    plant.step(("cnc.temperature", 90.0))
    plant.acknowledge("cnc.hot")
    assert plant.told(plant.idle(60)) == ["cnc.hot rearm"]
    assert plant.state("cnc.hot") == "B"
    assert plant.told(plant.idle(60)) == ["cnc.hot rearm"]
    assert plant.idle(600) == []
    assert plant.last("cnc.hot").occurrence == plant.transitions()[0].occurrence
    assert Plant(HOT).alarms.options.realarm_after_s == 0, "off unless asked for"


def test_ALM_15_a_rule_without_rationalisation_warns_and_one_with_it_tells_the_operator():
    assert len(warnings(HOT)) == 2
    known = AlarmRule(
        name="known", tag="cnc.temperature", condition="HH", limit=80, cause="coolant", consequence="spindle is lost",
        action="stop the spindle", respond_within_s=300,
    )  # fmt: skip
    assert warnings(known) == []
    plant = Plant(known)
    plant.step(("cnc.temperature", 90.0))
    data = plant.last("known").data
    assert (data["action"], data["respond_within_s"]) == ("stop the spindle", 300)


# ALM-16: restarts


def test_ALM_16_no_unacknowledged_alarm_is_lost_and_none_announced_twice():
    plant = Plant(HOT, VIBRATION)
    plant.step(("cnc.temperature", 90.0), ("cnc.vibration", 20.0))
    plant.step(("cnc.vibration", 1.0))
    occurrence = plant.last("cnc.hot").occurrence
    since = plant.alarms.views(plant.now)[0].since
    plant.restart(down_s=3600)
    assert (plant.state("cnc.hot"), plant.state("cnc.vibration.high")) == ("B", "D")
    assert plant.alarms.views(plant.now)[0].since == since
    assert plant.step(("cnc.temperature", 91.0), ("cnc.vibration", 1.0)) == []
    assert plant.command("acknowledge", alarm="cnc.hot", occurrence=occurrence).ok
    plant.restart()
    assert plant.told(plant.step(("cnc.temperature", 20.0))) == ["cnc.hot clear"]
    assert plant.state("cnc.hot") == "A"


def test_ALM_16_an_alarm_of_the_gateway_that_nobody_confirms_after_a_restart_clears():
    plant = Plant()
    plant.condition("device.cnc.communication", active=True, message="down")
    plant.condition("device.press.communication", active=True, message="down")
    plant.restart()
    assert plant.condition("device.press.communication", active=True, message="down") == []
    assert plant.told(plant.idle(61)) == ["device.cnc.communication clear"]
    assert plant.last("device.cnc.communication").data["unconfirmed"] is True
    assert plant.state("device.press.communication") == "B"


def test_ALM_16_an_alarm_that_is_no_longer_configured_ends_with_one_last_word():
    plant = Plant(HOT, VIBRATION)
    plant.step(("cnc.temperature", 90.0), ("cnc.vibration", 20.0))
    plant.command("shelve", alarm="cnc.hot", reason="x", duration_s=3600)
    moved = AlarmRule(name="cnc.hot", tag="cnc.vibration", condition="HH", limit=80.0)
    plant.restart(moved)
    events = plant.transitions(plant.idle())
    assert sorted((t.alarm, t.transition, t.state, t.shelved) for t in events) == [
        ("cnc.hot", "clear", "A", False),
        ("cnc.vibration.high", "clear", "A", False),
    ]
    assert plant.alarms.views(plant.now) == []
    assert plant.told(plant.step(("cnc.vibration", 90.0))) == ["cnc.hot activate"]


# Conditions of the gateway itself, snapshots, reloads


def test_an_alarm_of_the_gateway_is_made_at_first_sight_and_updated_when_its_message_changes():
    plant = Plant()
    assert plant.condition("device.cnc.silent", active=False) == []
    assert plant.told(plant.condition("device.cnc.silent", active=True, message="1 tag", tags=["a"])) == [
        "device.cnc.silent activate"
    ]
    assert plant.condition("device.cnc.silent", active=True, message="1 tag", tags=["a"]) == []
    events = plant.condition("device.cnc.silent", active=True, message="2 tags", tags=["a", "b"])
    assert [(t.transition, t.message, t.data["tags"]) for t in plant.transitions(events)] == [
        ("update", "2 tags", ["a", "b"])
    ]
    assert plant.last("device.cnc.silent").occurrence == plant.transitions()[0].occurrence
    assert plant.alarms.statistics(plant.now).annunciated == 1
    assert plant.told(plant.condition("device.cnc.silent", active=False)) == ["device.cnc.silent clear"]
    assert plant.acknowledge("device.cnc.silent").ok
    assert plant.state("device.cnc.silent") == "A"


def test_a_snapshot_has_every_alarm_that_is_not_normal_in_plain_json():
    plant = Plant(HOT, VIBRATION)
    plant.step(("cnc.temperature", 90.0))
    plant.command("shelve", alarm="cnc.vibration.high", reason="x", duration_s=60)
    reply = plant.command("snapshot")
    alarms = json.loads(json.dumps(reply.data["alarms"], allow_nan=False))
    assert [from_record(a) for a in alarms] == list(plant.alarms.snapshot(plant.now))
    assert {a["alarm"]: a["state"] for a in alarms} == {"cnc.hot": "B", "cnc.vibration.high": "G"}
    assert audits(plant)[-1].action == "snapshot"


def test_every_event_survives_the_journal():
    plant = Plant(HOT, suppressed_rule())
    plant.step(("cnc.state", 0), ("cnc.temperature", math.inf))
    cycle(plant)
    plant.command("acknowledge", alarm="cnc.hot", occurrence="x")
    for event in plant.log:
        assert from_record(json.loads(json.dumps(to_record(event), allow_nan=False))) == event


def test_a_reload_keeps_alarms_and_pending_delays_of_rules_that_did_not_change():
    slow = AlarmRule(name="slow", tag="cnc.vibration", condition="H", limit=10, on_delay_s=5)
    plant = Plant(HOT, slow)
    plant.step(("cnc.temperature", 90.0), ("cnc.vibration", 20.0))
    occurrence = plant.last("cnc.hot").occurrence
    plant.wait(3)
    new = AlarmRule(name="new", tag="cnc.state", condition="discrete", limit=1)
    plant.alarms.replace_rules([new, slow, HOT])
    assert plant.told(plant.idle()) == []
    assert plant.told(plant.idle(2)) == ["slow activate"]
    assert plant.command("acknowledge", alarm="cnc.hot", occurrence=occurrence).ok
    assert plant.told(plant.step(("cnc.temperature", 20.0), ("cnc.state", 1.0))) == ["cnc.hot clear", "new activate"]


def test_a_reload_judges_new_limits_by_the_last_known_values():
    plant = Plant(HOT)
    plant.step(("cnc.temperature", 70.0), ("cnc.state", 0.0))
    lower = AlarmRule(name="cnc.hot", tag="cnc.temperature", condition="HH", limit=60.0, priority="critical")
    plant.alarms.replace_rules([lower, suppressed_rule()])
    assert plant.told(plant.idle()) == ["cnc.hot activate", "cold suppress"]
    plant.alarms.replace_rules([HOT])
    assert plant.told(plant.idle()) == ["cold clear", "cnc.hot clear"]


def test_a_reload_that_does_not_fit_the_tags_changes_nothing():
    plant = Plant(HOT)
    wrong = AlarmRule(name="x", tag="cnc.temperatur", condition="H", limit=1.0)
    with pytest.raises(ValueError, match=r"did you mean cnc\.temperature"):
        plant.alarms.replace_rules([wrong])
    assert plant.alarms.rules == (HOT,)
    assert plant.told(plant.step(("cnc.temperature", 90.0))) == ["cnc.hot activate"]


def test_a_reload_that_ends_latching_leaves_no_alarm_stuck():
    latching = AlarmRule(name="trip", tag="cnc.temperature", condition="HH", limit=80, latch=True)
    plain = AlarmRule(name="trip", tag="cnc.temperature", condition="HH", limit=80)
    plant = Plant(latching)
    cycle(plant)
    assert plant.state("trip") == "E"
    plant.alarms.replace_rules([plain])
    assert plant.told(plant.idle()) == ["trip update"]
    assert plant.state("trip") == "D"
    plant.acknowledge("trip")
    assert plant.state("trip") == "A"


def test_the_defaults_of_the_sample_plant_alarm():
    plant = Plant(
        HOT, VIBRATION, AlarmRule(name="cnc.oee.low", tag="cnc.oee", condition="L", limit=0.75, deadband=0.01)
    )
    assert plant.step(("cnc.temperature", 80.0), ("cnc.vibration", 10.0), ("cnc.oee", 0.75)) == []
    events = plant.step(("cnc.temperature", 80.1), ("cnc.vibration", 10.1), ("cnc.oee", 0.7499))
    assert plant.told(events) == ["cnc.hot activate", "cnc.vibration.high activate", "cnc.oee.low activate"]
    assert {t.alarm: t.priority for t in plant.transitions(events)} == {
        "cnc.hot": "critical", "cnc.vibration.high": "medium", "cnc.oee.low": "medium",
    }  # fmt: skip
