"""What goes wrong in the plant becomes an alarm that SCADA sees, answers, and finds again after a crash."""

import itertools
import time

import pytest
from e2e_peers import SITE, Daemon, SimulatedPlant, Subscriber, until

HOT = "press.bearing.hot"
HOT_TOPIC = f"{SITE}/pressing/line2/press/alarm/{HOT}"
SOON_S = 3.0
"""What takes well under a second here may take this long on a machine that does other work too."""


@pytest.fixture(scope="module")
def daemon(prepared: Daemon) -> Daemon:
    # A steady value is not told apart from a dead one any more.
    prepared.set("device inspection", repeat_ms=0)
    prepared.set_cell("tags.csv", "inspection.trigger", "stale_after_s", "4")
    prepared.start()
    prepared.wait_alive()
    return prepared


def annunciations(scada: Subscriber, alarm: str, occurrence: str) -> int:
    return len({e["id"] for e in scada.events(alarm=alarm, transition="activate", occurrence=occurrence)})


@pytest.fixture(scope="module")
def hot(daemon: Daemon, plant: SimulatedPlant, broker) -> dict:
    """The retained state of the alarm of a bearing that has just become too hot."""
    with Subscriber(broker.port) as scada:
        before = time.monotonic()
        plant.fault("set", value="press.bearing_temperature", to=190)
        state = until(lambda: scada.last(HOT_TOPIC), "the alarm is at the broker")
        took = time.monotonic() - before
        until(lambda: scada.events(alarm=HOT, transition="activate"), "and in the stream of events", SOON_S)
    assert took < SOON_S
    return state


def test_a_hot_bearing_is_an_active_unacknowledged_alarm_with_all_that_an_operator_needs(hot: dict, daemon: Daemon):
    assert (hot["alarm"], hot["active"], hot["acknowledged"], hot["priority"]) == (HOT, True, False, "critical")
    assert hot["value"] == pytest.approx((190 - 32) / 1.8)
    assert hot["limit"] == 80
    assert hot["message"] == "Main bearing of the press is too hot"
    assert hot["occurrence"]
    until(lambda: daemon.active(HOT), "and in what the gateway shows")


def test_commands_are_refused_with_a_code_unless_they_name_what_stands_now(hot: dict, scada: Subscriber):
    reply = scada.command("ack-0", "acknowledge", alarm=HOT, occurrence="seen-last-week")
    assert (reply["ok"], reply["code"]) == (False, "stale_occurrence")
    assert hot["occurrence"] in reply["message"]
    reply = scada.command("ack-1", "acknowledge", alarm="press.bearing.hott", occurrence=hot["occurrence"])
    assert (reply["ok"], reply["code"]) == (False, "unknown_alarm")
    reply = scada.command("shelve-0", "shelve", alarm=HOT, reason="too loud", duration_s=10**7)
    assert (reply["ok"], reply["code"]) == (False, "invalid")


def test_a_crash_changes_nothing_about_a_standing_alarm(
    hot: dict, daemon: Daemon, plant: SimulatedPlant, scada: Subscriber
):
    until(lambda: scada.last(HOT_TOPIC), "the state is retained")
    daemon.kill()
    until(lambda: (s := scada.last("/_gateway/gw1/status")) and s["state"] == "offline" and s, "the last will is told")
    daemon.start()
    daemon.wait_alive()
    alarm = until(lambda: daemon.active(HOT), "the alarm stands after the restart")
    assert (alarm.occurrence, alarm.acknowledged) == (hot["occurrence"], False)
    # Long enough for a second annunciation to come, if there were one: the temperature is read four times a second.
    count = daemon.scalar("select count(*) from readings where tag = 'press.bearing_temperature'")
    seen = daemon.device("press").readings
    until(lambda: daemon.device("press").readings > seen + 20, lambda: f"the press is read, {count} so far")
    assert annunciations(scada, HOT, hot["occurrence"]) <= 1
    assert {e["occurrence"] for e in scada.events(alarm=HOT, transition="activate")} <= {hot["occurrence"]}
    state = scada.last(HOT_TOPIC)
    assert state is not None
    assert (state["occurrence"], state["active"]) == (hot["occurrence"], True)


def test_an_acknowledgement_over_mqtt_changes_the_state_once_and_says_who(hot: dict, daemon: Daemon, scada: Subscriber):
    reply = scada.command("ack-2", "acknowledge", alarm=HOT, occurrence=hot["occurrence"])
    assert (reply["ok"], reply["code"]) == (True, "ok")
    until(lambda: (s := scada.last(HOT_TOPIC)) and s["acknowledged"], "retained state follows")
    (event,) = scada.events(alarm=HOT, transition="acknowledge")
    assert event["user"] == "mqtt:anna"
    again = scada.command("ack-3", "acknowledge", alarm=HOT, occurrence=hot["occurrence"])
    assert (again["ok"], again["code"]) == (False, "already_acknowledged")
    audits = until(
        lambda: (
            (n := daemon.scalar("select count(*) from events where kind = 'audit' and body like '%ack-%'")) >= 4 and n
        ),
        "every request is in the audit, the refused ones too",
    )
    assert audits == 4


def test_an_acknowledgement_that_was_answered_survives_a_crash_in_the_next_moment(daemon: Daemon, scada: Subscriber):
    assert scada.command("comment-1", "out_of_service", alarm="press.vibration.high", comment="sensor is away")["ok"]
    daemon.kill()
    daemon.start()
    daemon.wait_alive()
    state = daemon.sql("select out_of_service from alarms where alarm = 'press.vibration.high'")
    assert state == [(True,)]
    hot = daemon.sql(f"select acknowledged from alarms where alarm = '{HOT}'")
    assert hot == [(True,)], "nor is what was acknowledged before asked again"
    assert daemon.do("in_service", alarm="press.vibration.high").ok


def test_a_shelved_alarm_is_quiet_until_it_is_taken_from_the_shelf(daemon: Daemon, scada: Subscriber):
    assert scada.command("shelve-1", "shelve", alarm=HOT, reason="the sensor is being changed", duration_s=3600)["ok"]
    until(lambda: (s := scada.last(HOT_TOPIC)) and s["shelved"] and not s["annunciated"], "shelved at the broker")
    until(lambda: (a := daemon.alarm(HOT)) and a.shelved_until > time.time_ns(), "shown as shelved")
    assert scada.command("unshelve-1", "unshelve", alarm=HOT)["ok"]
    until(lambda: not scada.last(HOT_TOPIC)["shelved"], "back from the shelf")


def test_a_snapshot_on_request_carries_every_alarm_that_is_not_normal(daemon: Daemon, scada: Subscriber):
    assert scada.command("snapshot-1", "snapshot")["ok"]
    parts = until(lambda: [p for p in scada.on("/snapshot") if p and p["id"] == "snapshot-1"], "the snapshot comes")
    assert len(parts) == parts[0]["parts"]
    names = {alarm["alarm"] for part in parts for alarm in part["alarms"]}
    assert HOT in names
    assert names >= {alarm.alarm for alarm in daemon.status().alarms if alarm.active}


def test_a_latched_alarm_goes_when_the_cause_is_gone_and_somebody_resets_it(
    daemon: Daemon, plant: SimulatedPlant, scada: Subscriber
):
    plant.fault("unset", value="press.bearing_temperature")
    until(lambda: (s := scada.last(HOT_TOPIC)) and not s["active"], "the bearing is cool again")
    assert daemon.do("reset", alarm=HOT).ok
    until(lambda: scada.messages and scada.on(HOT_TOPIC)[-1] is None, "the retained message is deleted")
    until(lambda: daemon.alarm(HOT) is None, "nothing is left of it")


def test_a_value_that_no_longer_comes_is_an_alarm_that_names_it(daemon: Daemon, plant: SimulatedPlant):
    moves = itertools.count(1000)

    def quiet_while_it_moves() -> bool:
        plant.fault("set", value="inspection.trigger", to=next(moves))
        return not daemon.active("device.inspection.silent")

    until(quiet_while_it_moves, "no alarm while it moves")
    plant.fault("freeze", value="inspection.trigger")
    try:
        alarm = until(lambda: daemon.active("device.inspection.silent"), "silence is an alarm")
        assert "inspection.trigger" in alarm.message
        assert "stale_after_s" in alarm.message
        inspection = daemon.device("inspection")
        assert (inspection.state, inspection.alive) == ("connected", inspection.tags - 1)
        assert daemon.get("/healthz")[0] == 200, "one silent value does not make the gateway ill"
    finally:
        plant.fault("unfreeze", value="inspection.trigger")
    until(quiet_while_it_moves, "the alarm goes when the value moves")


def test_a_wrong_clock_is_an_alarm_and_its_readings_are_stamped_with_ours(
    daemon: Daemon, plant: SimulatedPlant, scada: Subscriber
):
    plant.fault("clock", plc="cnc", seconds=7200)
    try:
        alarm = until(lambda: daemon.active("device.cnc.clock"), "the clock is an alarm", SOON_S)
        assert "cnc" in alarm.message
        assert "7200 s ahead" in alarm.message
        until(lambda: scada.events(alarm="device.cnc.clock", transition="activate"), "SCADA knows")
        until(
            lambda: daemon.scalar("select count(*) from readings where tag like 'cnc.%' and quality = 64") > 5,
            "the readings are uncertain",
        )
        assert daemon.scalar("select epoch_ns(max(time)) from readings") < time.time_ns() + 10**9
        assert daemon.device("cnc").state == "connected"
    finally:
        plant.fault("clock", plc="cnc", seconds=0)


def test_a_clock_of_1970_loses_no_reading(daemon: Daemon, plant: SimulatedPlant):
    before = daemon.scalar("select count(*) from readings where tag like 'cnc.%'")
    plant.fault("clock", plc="cnc", seconds=-time.time())
    try:
        until(lambda: daemon.scalar("select count(*) from readings where tag like 'cnc.%'") > before + 20, "data go on")
        assert daemon.scalar("select year(min(time)) from readings") > 2001
    finally:
        plant.fault("clock", plc="cnc", seconds=0)
