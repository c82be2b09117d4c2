"""What is seen at the broker is what the published schemas say."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker
from outlets_peers import Plant, Subscriber, mosquitto, options, running
from referencing import Registry, Resource

from edge.outlets import payloads
from edge.tick import Reply
from plant.batch import of_rows
from plant.events import (
    KINDS,
    AlarmTransition,
    Audit,
    Backfill,
    Correction,
    CounterAnomaly,
    DeviceEvent,
    DowntimeReason,
    Event,
    Gap,
    GatewayEvent,
    MachineState,
    OrderEnded,
    OrderStarted,
    PartsProduced,
    PartsRejected,
    StateChanged,
)

REGISTRY: Registry[Any] = Registry().with_resources(
    [(payloads.schema(name)["$id"], Resource.from_contents(payloads.schema(name))) for name in payloads.SCHEMAS]
)


def validate(name: str, payload: Any) -> None:
    schema = payloads.schema(name)
    Draft202012Validator(schema, registry=REGISTRY, format_checker=FormatChecker()).validate(payload)


def declared(name: str) -> set[str]:
    schema = payloads.schema(name)
    names = set(schema["properties"])
    for part in schema.get("allOf", []):
        names |= set(part["then"]["properties"])
    return names


@pytest.mark.parametrize("name", payloads.SCHEMAS)
def test_each_schema_is_one_and_carries_its_version(name: str) -> None:
    schema = payloads.schema(name)
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"].endswith("2020-12/schema")
    assert schema["$id"] == f"urn:andon:mqtt:{name}:{payloads.VERSION}"
    assert schema["properties"]["v"]["const"] == payloads.VERSION


def one_of_each() -> list[Event]:
    at: dict[str, Any] = {"time": time.time_ns(), "asset": "pressing/line2/press"}
    return [
        StateChanged(id="1", **at, state=MachineState.DOWN, reason=DowntimeReason.BREAKDOWN),
        PartsProduced(id="2", **at, count=2.5),
        PartsRejected(id="3", **at, count=1, rework=True),
        CounterAnomaly(id="4", **at, tag="t", before=float("nan"), after=1.0, anomaly="reset"),
        OrderStarted(id="5", **at, order="o", product="p"),
        OrderEnded(id="6", **at, order="o"),
        Correction(id="7", **at, start=0, end=10**18, user="anna", why="was setup", state=MachineState.SETUP),
        AlarmTransition(
            id="8", **at, alarm="hot", occurrence="o", transition="shelve", state="G", active=True,
            acknowledged=False, shelved=True, shelved_until=time.time_ns(), data={"limits": [1, 2]},
        ),
        Audit(id="9", **at, user="anna", action="shelve", outcome="ok"),
        GatewayEvent(id="10", **at, action="started"),
        Gap(id="11", **at, start=0, end=1, reason="disconnected", device="press"),
        DeviceEvent(id="13", **at, device="cnc", source="s", type="EventType", message="m", severity=500, active=True),
        Backfill(id="12", **at, start=0, end=1, device="press", count=7, tags=2, without=1),
    ]  # fmt: skip


async def test_what_is_seen_at_the_broker_is_valid(tmp_path: Path) -> None:
    with mosquitto(tmp_path) as broker, Subscriber(broker.port) as scada:
        async with running(Plant(options(broker.port, event_kinds=tuple(KINDS)))) as plant:
            await plant.connected()
            await scada.until(lambda: scada.on("/status"))
            events = one_of_each()
            assert {event.kind for event in events} == set(KINDS)
            now = time.time_ns()
            plant.texts.code(1, "drilling")
            plant.step(*events, readings=of_rows([(0, now, 1.5, 192), (1, now, 1.0, 192), (2, now, float("nan"), 0)]))
            plant.commit()
            await plant.sent()
            command = {"v": 1, "id": "c1", "name": "snapshot", "user": "anna", "arguments": {}}
            validate("command", command)
            scada.publish("Acme/Ulm/_gateway/box1/command", json.dumps(command))
            plant.step(replies=(Reply(command="c2", origin="mqtt", ok=False, code="unknown_alarm", message="no"),))
            await scada.until(lambda: len(scada.on("/reply")) == 2 and len(scada.on("/value")) >= 2)
        await scada.until(lambda: len(scada.on("/status")) == 2)
        seen = set()
        for message in scada.messages:
            levels = message.topic.split("/")
            name = "alarm" if levels[-2] == "alarm" else levels[-1]
            payload = json.loads(message.payload)
            validate(name, payload)
            assert set(payload) <= declared(name)
            seen.add(name)
        assert seen == set(payloads.SCHEMAS)
        assert len(scada.on("/event")) == len(KINDS)


def test_the_schema_of_events_notices_a_missing_member() -> None:
    broken = json.loads(payloads.event("g", one_of_each()[0]))
    del broken["state"]
    with pytest.raises(Exception, match="'state' is a required property"):
        validate("event", broken)


def test_the_schema_of_commands_agrees_with_the_decoder() -> None:
    for name in payloads.schema("command")["properties"]["name"]["enum"]:
        assert payloads.command(json.dumps({"id": "x", "name": name}).encode(), 1000).name == name


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [(0, "1970-01-01T00:00:00.000Z"), (-1, "1969-12-31T23:59:59.999Z"), (2**63 - 1, "2262-04-11T23:47:16.854Z"),
     (1_795_161_600_123_456_789, "2026-11-20T08:00:00.123Z")],
)  # fmt: skip
def test_times_are_rfc_3339_in_utc(time_ns: int, text: str) -> None:
    import numpy as np

    assert payloads.rfc3339(time_ns) == text
    assert payloads.rfc3339_column(np.array([time_ns], np.int64)) == [text]
