"""The gateway without its broker: it runs, loses no event, and says once what is the matter."""

import time
from collections.abc import Iterator

import pytest
from e2e_peers import SITE, Broker, Daemon, SimulatedPlant, Subscriber, until

HOT = "press.bearing.hot"
HOT_TOPIC = f"{SITE}/pressing/line2/press/alarm/{HOT}"
OFTEN = 5
"""Attempts to connect that must fit between two lines of the log, or the log floods."""


@pytest.fixture(scope="module")
def broker(folder) -> Iterator[Broker]:
    """A broker that is down at first."""
    broker = Broker(folder, "allow_anonymous true", "persistence true", f"persistence_location {folder}/")
    yield broker
    broker.stop()


@pytest.fixture(scope="module")
def daemon(prepared: Daemon) -> Daemon:
    # Time for a subscriber to be there first when the broker comes up.
    prepared.set("mqtt", reconnect_delay_ms_min=1000, reconnect_delay_ms_max=1500)
    prepared.start()
    prepared.wait_alive()
    return prepared


def seen(scada: Subscriber, alarm: str) -> list[tuple[str, str]]:
    return [(e["transition"], e["id"]) for e in scada.events(alarm=alarm)]


def journal(daemon: Daemon, alarm: str) -> list[tuple[str, str]]:
    return daemon.sql(
        f"""select body->>'$.transition', id from events
        where kind = 'alarm' and body->>'$.alarm' = '{alarm}' order by seq"""
    )


def test_alarms_of_a_time_without_a_broker_arrive_when_it_comes_once_each_and_in_order(
    daemon: Daemon, broker: Broker, plant: SimulatedPlant
):
    status = daemon.status()
    assert status.broker.state == "connecting"
    assert str(broker.port) in status.broker.address
    assert status.healthy, "a gateway without its broker still reads and keeps"
    plant.fault("set", value="press.bearing_temperature", to=190)
    until(lambda: daemon.active(HOT), "the alarm is raised")
    plant.fault("unset", value="press.bearing_temperature")
    until(lambda: (a := daemon.alarm(HOT)) and not a.active, "and clears, latched")
    before = until(lambda: len(j := journal(daemon, HOT)) >= 2 and j, "both are in the journal")
    broker.start()
    with Subscriber(broker.port) as scada:
        until(lambda: len(seen(scada, HOT)) >= len(before), lambda: f"they arrive: {seen(scada, HOT)}")
        state = until(lambda: scada.last(HOT_TOPIC), "the retained state too")
        assert state["active"] is False
        assert state["latched"] is True
        until(lambda: daemon.status().broker.unacknowledged == 0, "everything is acknowledged")
        assert seen(scada, HOT) == before
        assert daemon.status().broker.state == "connected"


def test_events_of_an_outage_arrive_afterwards_exactly_once_by_id(
    daemon: Daemon, broker: Broker, plant: SimulatedPlant
):
    until(lambda: daemon.status().broker.unacknowledged == 0, "a quiet start")
    known = {key for (key,) in daemon.sql("select id from events")}
    broker.stop()
    until(lambda: daemon.status().broker.state == "connecting", "the loss is noticed")
    for reason in ("no_material", "no_operator"):
        plant.fault("stop", machine="press", reason=reason)
        until(
            lambda reason=reason: daemon.scalar(f"select count(*) from events where body like '%{reason}%'"),
            "it is kept",
        )
    plant.fault("start", machine="press")
    broker.start()
    with Subscriber(broker.port) as scada:
        until(lambda: daemon.status().broker.unacknowledged == 0, "everything is acknowledged", 60)
        wanted = {
            key
            for key, kind in daemon.sql("select id, kind from events")
            if kind in ("status_change", "alarm", "gateway", "gap", "counter_anomaly") and key not in known
        }
        assert wanted
        until(lambda: wanted <= {e["id"] for e in scada.events()}, "every event of the outage is at the broker")
        ids = [e["id"] for e in scada.events()]
        assert len(ids) == len(set(ids)), "and none twice, for no acknowledgement was lost"


def test_the_log_tells_the_change_and_not_every_attempt(daemon: Daemon):
    """Two outages so far: one at the start, one in the middle."""
    about = [line for line in daemon.lines() if "mqtt" in line["event"]]
    assert 2 <= len(about) <= 6, about
    assert daemon.noise() == []


def test_a_broker_that_refuses_is_a_state_with_a_sentence_and_one_line_in_the_log(folder, plant: SimulatedPlant):
    place = folder / "refusing"
    place.mkdir()
    broker = Broker(place, "allow_anonymous false")
    broker.start()
    daemon = Daemon(place, plant.ports, broker.port)
    daemon.set("mqtt", refused_delay_s=0.2, user="gw1")
    try:
        daemon.start()
        view = until(lambda: (b := daemon.status().broker) and b.state == "refused" and b, "refused")
        assert "gw1" in view.sentence or "user" in view.sentence, view.sentence
        attempts = lambda: (place / "mosquitto.log").read_text().count("New connection from")  # noqa: E731
        first, before = attempts(), len(daemon.lines())
        until(lambda: attempts() >= first + OFTEN, "it asks again and again")
        assert daemon.status().broker.state == "refused", "the state does not flicker"
        assert len([x for x in daemon.lines()[before:] if "mqtt" in x["event"]]) == 0
        daemon.wait_alive()
        start = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - start < 10
        assert daemon.noise() == []
    finally:
        daemon.kill()
        broker.stop()
