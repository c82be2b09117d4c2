"""Alarms, events, status and live values against a real broker."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from outlets_peers import Journal, Mosquitto, Plant, Subscriber, Wire, mosquitto, options, retained, running, until

from edge.errors import StorageError
from plant.batch import of_rows
from plant.events import GatewayEvent, PartsProduced, StateChanged

STATUS = "Acme/Ulm/_gateway/box1/status"
PRESS = "Acme/Ulm/pressing/line2/press"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with mosquitto(tmp_path) as started:
        yield started


async def test_an_alarm_is_a_retained_state_and_an_event(broker: Mosquitto) -> None:
    with Subscriber(broker.port) as scada:
        async with running(Plant(options(broker.port))) as plant:
            await plant.connected()
            raised = plant.transition("temperature_high", value=81.5, limit=80.0, tag="press.temperature")
            plant.step(raised)
            await scada.until(lambda: scada.on("/event") and scada.on("/alarm/temperature_high"))
            state, event = scada.on("/alarm/temperature_high")[0], scada.on("/event")[0]
            assert state is not None
            assert event is not None
            assert state["id"] == event["id"] == raised.id
            assert (state["state"], state["value"], state["limit"]) == ("B", 81.5, 80.0)
            assert event["kind"] == "alarm"
            assert {m.qos for m in scada.messages if "/alarm/" in m.topic or m.topic.endswith("/event")} == {1}
            assert f"{PRESS}/alarm/temperature_high" in retained(broker.port)


async def test_a_late_subscriber_sees_exactly_the_alarms_that_are_not_normal(broker: Mosquitto) -> None:
    async with running(Plant(options(broker.port))) as plant:
        await plant.connected()
        for alarm in ("a", "b", "c"):
            plant.step(plant.transition(alarm))
        plant.step(plant.transition("b", "C"))
        plant.step(plant.transition("c", "A"), plant.transition("disk_full", asset=""))
        plant.commit()
        await plant.sent()
        topics = retained(broker.port, "+/+/#")
        alarms = {topic: payload["state"] for topic, payload in topics.items() if "/alarm/" in topic}
        assert alarms == {
            f"{PRESS}/alarm/a": "B",
            f"{PRESS}/alarm/b": "C",
            "Acme/Ulm/_gateway/box1/alarm/disk_full": "B",
        }


async def test_status_is_online_then_offline_when_stopped(broker: Mosquitto) -> None:
    async with running(Plant(options(broker.port))) as plant:
        await plant.connected()
        await until(lambda: STATUS in retained(broker.port))
        online = retained(broker.port)[STATUS]
        assert (online["state"], online["version"]) == ("online", "1.2.3")
    offline = retained(broker.port)[STATUS]
    assert (offline["state"], offline["reason"]) == ("offline", "stopped")
    assert offline["session"] == online["session"]


async def test_the_last_will_tells_a_lost_connection(broker: Mosquitto) -> None:
    async with Wire(broker.port) as wire:
        with Subscriber(broker.port, STATUS) as scada:
            async with running(Plant(options(wire.port))) as plant:
                await plant.connected()
                await scada.until(lambda: scada.on("/status"))
                await wire.cut()
                await scada.until(lambda: len(scada.on("/status")) == 2)
                online, offline = scada.on("/status")
                assert online is not None
                assert offline is not None
                assert (offline["state"], offline["reason"]) == ("offline", "connection lost")
                assert offline["session"] == online["session"]
                await until(lambda: plant.outlet.view().state == "connecting")
                assert "127.0.0.1" in plant.outlet.view().sentence


async def test_nothing_is_lost_over_a_restart_of_the_broker(broker: Mosquitto) -> None:
    async with Wire(broker.port) as wire, running(Plant(options(wire.port))) as plant:
        with Subscriber(broker.port) as scada:
            await plant.connected()
            before = [plant.transition(f"before{n}") for n in range(20)]
            plant.step(*before)
            plant.commit()
            await plant.sent()
            await scada.until(lambda: len(scada.on("/event")) == 20)
        await wire.cut()
        broker.stop()
        missed = [plant.transition(f"missed{n}") for n in range(50)]
        for event in missed[:25]:
            plant.step(event)
        plant.commit()
        for event in missed[25:]:
            plant.step(event)
        cleared = plant.transition("before0", "A")
        plant.step(cleared)
        broker.start()
        with Subscriber(broker.port) as scada:
            await wire.open()
            await plant.connected()
            fresh = plant.transition("fresh")
            plant.step(fresh)
            plant.commit()
            await plant.sent()
            expected = [event.id for event in [*missed, cleared, fresh]]
            await scada.until(lambda: len(scada.on("/event")) >= len(expected))
            assert [event["id"] for event in scada.on("/event") if event] == expected
        alarms = {topic for topic in retained(broker.port) if "/alarm/" in topic}
        assert len(alarms) == 19 + 50 + 1


async def test_what_was_delivered_but_not_acknowledged_comes_again_with_the_same_id(broker: Mosquitto) -> None:
    async with Wire(broker.port) as wire:
        with Subscriber(broker.port) as scada:
            async with running(Plant(options(wire.port))) as plant:
                await plant.connected()
                await scada.until(lambda: scada.on("/status"))
                await until(lambda: plant.outlet._outbox.oldest is None)
                wire.deaf = True
                events = [plant.transition(f"a{n}") for n in range(5)]
                plant.step(*events)
                plant.commit()
                await scada.until(lambda: len(scada.on("/event")) == 5)
                assert plant.journal.cursors == {}
                await wire.cut()
                await wire.open()
                await plant.sent()
                await scada.until(lambda: len(scada.on("/event")) == 10)
                ids = [event["id"] for event in scada.on("/event") if event]
                assert ids == [event.id for event in events] * 2


async def test_a_broker_that_stops_acknowledging_is_connected_anew(broker: Mosquitto) -> None:
    async with Wire(broker.port) as wire, running(Plant(options(wire.port, ack_timeout_s=1))) as plant:
        await plant.connected()
        await until(lambda: plant.outlet._outbox.oldest is None)
        wire.deaf = True
        plant.step(plant.transition("a"))
        plant.commit()
        await until(lambda: plant.outlet.view().state == "connecting")
        assert "acknowledged nothing for 1.0 s" in plant.outlet.view().sentence
        wire.deaf = False
        await plant.sent()


async def test_a_new_process_goes_on_after_the_cursor(broker: Mosquitto) -> None:
    journal = Journal()
    plant = Plant(options(broker.port), journal)
    async with running(plant):
        await plant.connected()
        plant.step(plant.transition("a"), plant.transition("b"))
        plant.commit()
        await plant.sent()
    later = [plant.transition("c"), plant.transition("d")]
    journal.append(tuple(later))
    with Subscriber(broker.port, "+/+/+/+/+/event") as scada:
        async with running(Plant(options(broker.port), journal)) as plant:
            await plant.sent()
            await scada.until(lambda: len(scada.on("/event")) >= 2)
            assert [event["id"] for event in scada.on("/event") if event] == [event.id for event in later]


async def test_states_left_over_by_an_earlier_life_are_corrected(broker: Mosquitto) -> None:
    plant = Plant(options(broker.port))
    async with running(plant):
        await plant.connected()
        plant.step(plant.transition("stays"), plant.transition("normal now"), plant.transition("removed since"))
        plant.commit()
        await plant.sent()
    with Subscriber(broker.port) as other:
        foreign = {"v": 1, "gateway": "box2", "alarm": "x", "occurrence": "o", "state": "B"}
        other.publish("Acme/Ulm/milling/line1/cnc/alarm/x", json.dumps(foreign), retain=True)
        other.publish("Acme/Ulm/milling/line1/cnc/alarm/y", "by hand", retain=True)
    again = Plant(options(broker.port))
    again.alarms = {
        ("pressing/line2/press", "stays"): again.transition("stays", "C"),
        ("pressing/line2/press", "normal now"): again.transition("normal now", "A"),
    }
    async with running(again):
        await again.connected()
        await until(lambda: len([t for t in raw_retained(broker.port) if "/alarm/" in t]) == 3)
        assert raw_retained(broker.port) == {
            STATUS,
            f"{PRESS}/alarm/stays",
            "Acme/Ulm/milling/line1/cnc/alarm/x",
            "Acme/Ulm/milling/line1/cnc/alarm/y",
        }
        assert retained(broker.port, f"{PRESS}/#")[f"{PRESS}/alarm/stays"]["state"] == "C"


def raw_retained(port: int) -> set[str]:
    with Subscriber(port) as late:
        late.client.subscribe("end", 1)
        late.publish("end", b"")
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and not any(m.topic == "end" for m in late.messages):
            time.sleep(0.01)
        return {m.topic for m in late.messages if m.retain}


async def test_a_flood_ends_with_the_right_states_and_all_events(broker: Mosquitto) -> None:
    alarms, transitions = 100, 5_000
    with Subscriber(broker.port) as scada:
        async with running(Plant(options(broker.port))) as plant:
            await plant.connected()
            rng = np.random.default_rng(7)
            expected: dict[str, str] = {}
            ids = []
            for first in range(0, transitions, 250):
                events = []
                for _ in range(first, first + 250):
                    alarm, state = f"alarm{rng.integers(alarms)}", "ABCD"[rng.integers(4)]
                    expected[alarm] = state
                    events.append(plant.transition(alarm, state))
                ids += [event.id for event in events]
                plant.step(*events)
                plant.commit()
            await plant.sent()
            await scada.until(lambda: sum(m.topic.endswith("/event") for m in list(scada.messages)) >= transitions)
            assert [event["id"] for event in scada.on("/event") if event] == ids
            await until(lambda: not len(plant.outlet._states) and plant.outlet._outbox.oldest is None)
            found = {t.rsplit("/", 1)[1]: p["state"] for t, p in retained(broker.port, f"{PRESS}/alarm/+").items()}
            assert found == {alarm: state for alarm, state in expected.items() if state != "A"}
            assert plant.outlet.counters()["coalesced_states"] > 0
            assert plant.outlet.view().dropped == 0


async def test_more_events_than_fit_into_memory_are_read_from_the_journal(broker: Mosquitto) -> None:
    with Subscriber(broker.port) as scada:
        async with running(Plant(options(broker.port, events_queue_max=10))) as plant:
            await plant.connected()
            events = [plant.transition(f"a{n % 7}") for n in range(400)]
            plant.step(*events[:200])
            plant.commit()
            for event in events[200:]:
                plant.step(event)
            plant.commit()
            await plant.sent()
            await scada.until(lambda: len(scada.on("/event")) >= 400)
            ids = [event["id"] for event in scada.on("/event") if event]
            assert set(ids) == {event.id for event in events}
            assert list(dict.fromkeys(ids)) == [event.id for event in events]
            assert plant.journal.reads > 1


async def test_only_the_chosen_kinds_of_events_leave_and_the_cursor_passes_the_others(broker: Mosquitto) -> None:
    with Subscriber(broker.port) as scada:
        async with running(Plant(options(broker.port, event_kinds=("status_change", "gateway")))) as plant:
            await plant.connected()
            plant.step(
                PartsProduced(id="p1", time=1, asset="milling/line1/cnc", count=1.0),
                StateChanged(id="s1", time=1_700_000_000_123_456_789, asset="milling/line1/cnc", state="down"),  # type: ignore[arg-type]
                plant.transition("a"),
                GatewayEvent(id="g1", time=1, asset="", action="started", detail={"odd": {1, 2} and (1, 2)}),
            )
            plant.commit()
            await plant.sent()
            await scada.until(lambda: len(scada.on("/event")) == 2)
            topics = [m.topic for m in scada.messages if m.topic.endswith("/event")]
            assert topics == ["Acme/Ulm/milling/line1/cnc/event", "Acme/Ulm/_gateway/box1/event"]
            changed = scada.on("cnc/event")[0]
            assert changed is not None
            assert changed["time"] == "2023-11-14T22:13:20.123Z"


async def test_live_values_come_grouped_and_only_when_they_changed(broker: Mosquitto) -> None:
    with Subscriber(broker.port) as scada:
        async with running(Plant(options(broker.port))) as plant:
            await plant.connected()
            now = time.time_ns()
            code = plant.texts.code(1, "drilling")
            plant.step(readings=of_rows([(0, now, 20.0, 192), (1, now, code, 192), (2, now, 55.0, 64)]))
            await scada.until(lambda: len(scada.on("/value")) >= 2)
            press, cnc = scada.on("press/value")[0], scada.on("cnc/value")[0]
            assert press is not None
            assert cnc is not None
            assert press["complete"]
            assert press["values"]["press.temperature"]["unit"] == "Cel"
            assert press["values"]["press.program"]["value"] == "drilling"
            assert cnc["values"]["cnc.load"]["quality"] == 64
            plant.step(readings=of_rows([(0, now + 1, 20.0, 192), (2, now + 1, 56.0, 192)]))
            await scada.until(lambda: len(scada.on("cnc/value")) == 2)
            assert len(scada.on("press/value")) == 1
            plant.step(
                readings=of_rows([(0, now + 2, 21.0, 192), (0, now + 3, 22.0, 192), (0, now + 4, float("nan"), 0)])
            )
            await scada.until(lambda: len(scada.on("press/value")) == 2)
            told = scada.on("press/value")[1]
            assert told is not None
            assert told["values"] == {
                "press.temperature": {"value": None, "quality": 0, "time": told["values"]["press.temperature"]["time"]}
            }
            assert not any("/value" in topic for topic in retained(broker.port))


async def test_a_journal_that_fails_is_asked_again(broker: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(Journal):
        failures = 1

        async def after(self, seq, limit):
            if self.failures:
                self.failures -= 1
                raise StorageError("the disk is full")
            return await super().after(seq, limit)

    monkeypatch.setattr("edge.outlets.mqtt.JOURNAL_RETRY_S", 0.05)
    journal = Failing()
    plant = Plant(options(broker.port), journal)
    journal.append((plant.transition("a"),))
    async with running(plant):
        await plant.sent()
        assert journal.failures == 0


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_both_versions_of_mqtt_carry_alarms(broker: Mosquitto, protocol: str) -> None:
    async with running(Plant(options(broker.port, protocol=protocol))) as plant:
        await plant.connected()
        plant.step(plant.transition("a"))
        plant.commit()
        await plant.sent()
        await until(lambda: f"{PRESS}/alarm/a" in retained(broker.port))


async def test_nothing_happens_when_it_is_switched_off(broker: Mosquitto) -> None:
    async with running(Plant(options(broker.port, enabled=False))) as plant:
        plant.step(plant.transition("a"))
        plant.commit()
        assert plant.outlet.view().state == "off"
        assert plant.outlet.view().unacknowledged == 0


async def test_a_new_configuration_clears_the_alarms_that_are_gone(broker: Mosquitto) -> None:
    async with running(Plant(options(broker.port))) as plant:
        await plant.connected()
        plant.step(plant.transition("stays"), plant.transition("removed"))
        plant.commit()
        await plant.sent()
        del plant.alarms["pressing/line2/press", "removed"]
        plant.outlet.use(plant.table)
        await until(lambda: set(retained(broker.port, f"{PRESS}/alarm/+")) == {f"{PRESS}/alarm/stays"})
