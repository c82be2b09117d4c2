"""Commands over a real broker, and garbage of every kind."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from outlets_peers import Mosquitto, Plant, Subscriber, mosquitto, options, running, until
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge.mqtt.wire import Received
from edge.outlets.commands import REMEMBERED_MAX, CommandDesk
from edge.outlets.topics import Topics
from edge.tick import Command, Reply

COMMAND = "Acme/Ulm/_gateway/box1/command"
TOPICS = Topics("", "Acme", "Ulm", "box1")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with mosquitto(tmp_path) as started:
        yield started


def acknowledge(command: str = "c1", **more: Any) -> str:
    arguments = {"alarm": "a", "occurrence": "o-a"}
    return json.dumps({"id": command, "name": "acknowledge", "user": "anna", "arguments": arguments, **more})


async def test_a_command_goes_to_the_line_and_its_reply_comes_back(broker: Mosquitto) -> None:
    with Subscriber(broker.port) as scada:
        async with running(Plant(options(broker.port))) as plant:
            await plant.connected()
            await scada.until(lambda: scada.on("/status"))
            scada.publish(COMMAND, acknowledge())
            await until(lambda: plant.commands)
            assert plant.commands == [
                Command(
                    id="c1", name="acknowledge", user="mqtt:anna", origin="mqtt",
                    arguments={"alarm": "a", "occurrence": "o-a"},
                )
            ]  # fmt: skip
            plant.step(
                replies=(
                    Reply(command="c1", origin="mqtt", ok=True, code="ok", data={"state": "C"}),
                    Reply(command="c1", origin="control", ok=True, code="ok"),
                )
            )
            await scada.until(lambda: scada.on("/reply"))
            answer = scada.on("/reply")[0]
            assert answer is not None
            assert (answer["id"], answer["ok"], answer["code"], answer["data"]) == ("c1", True, "ok", {"state": "C"})
            scada.publish(COMMAND, acknowledge())
            await scada.until(lambda: len(scada.on("/reply")) == 2)
            assert len(plant.commands) == 1
            assert scada.on("/reply")[1]["code"] == "ok"


async def test_the_answer_goes_where_an_mqtt_5_sender_wants_it(broker: Mosquitto) -> None:
    with Subscriber(broker.port) as scada:
        async with running(Plant(options(broker.port))) as plant:
            await plant.connected()
            await scada.until(lambda: scada.on("/status"))
            properties = Properties(PacketTypes.PUBLISH)
            properties.ResponseTopic = "panel7/answers"
            properties.CorrelationData = b"\x00\x07"
            scada.publish(COMMAND, acknowledge(), properties=properties)
            await until(lambda: plant.commands)
            plant.step(replies=(Reply(command="c1", origin="mqtt", ok=False, code="stale_occurrence"),))
            await scada.until(lambda: scada.on("panel7/answers"))
            answer = next(m for m in scada.messages if m.topic == "panel7/answers")
            assert answer.properties.CorrelationData == b"\x00\x07"
            assert json.loads(answer.payload)["code"] == "stale_occurrence"


async def test_a_snapshot_tells_every_alarm_that_is_not_normal(broker: Mosquitto) -> None:
    with Subscriber(broker.port) as scada:
        async with running(Plant(options(broker.port, commands_enabled=False))) as plant:
            await plant.connected()
            await scada.until(lambda: scada.on("/status"))
            plant.step(*(plant.transition(f"a{n}") for n in range(450)), plant.transition("a0", "A"))
            scada.publish(COMMAND, json.dumps({"id": "s1", "name": "snapshot"}))
            await scada.until(lambda: scada.on("/reply"))
            parts = scada.on("/snapshot")
            assert [(p["part"], p["parts"], p["id"]) for p in parts if p] == [(1, 3, "s1"), (2, 3, "s1"), (3, 3, "s1")]
            alarms = [alarm["alarm"] for part in parts if part for alarm in part["alarms"]]
            assert sorted(alarms) == sorted(f"a{n}" for n in range(1, 450))
            assert scada.on("/reply")[0]["data"] == {"alarms": 449, "parts": 3}
            assert plant.commands == []


async def test_commands_are_refused_where_they_are_switched_off(broker: Mosquitto) -> None:
    with Subscriber(broker.port) as scada:
        async with running(Plant(options(broker.port, commands_enabled=False))) as plant:
            await plant.connected()
            await scada.until(lambda: scada.on("/status"))
            scada.publish(COMMAND, acknowledge())
            await scada.until(lambda: scada.on("/reply"))
            assert scada.on("/reply")[0]["code"] == "invalid"
            assert "takes no commands" in scada.on("/reply")[0]["message"]
            assert plant.commands == []


GARBAGE = [
    (b"", ""),
    (b"\xff\xfe\x00", ""),
    (b"acknowledge everything", ""),
    (b"[" * 10_000, ""),
    (b"null", ""),
    (b'{"name":"acknowledge"}', ""),
    (b'{"id":"c9","name":"start_machine"}', "c9"),
    (b'{"id":"c9","name":"acknowledge","sudo":true}', "c9"),
    (b'{"id":"c9","name":"acknowledge","user":7}', "c9"),
    (b'{"id":"c9","name":"acknowledge","v":2}', "c9"),
    (b'{"id":"c9","name":"acknowledge","arguments":[]}', "c9"),
    (b'{"id":"' + b"x" * 129 + b'","name":"acknowledge"}', ""),
    (b'{"id":"c9","name":"acknowledge","arguments":{"comment":"' + b"x" * 20_000 + b'"}}', ""),
]


async def test_garbage_is_answered_counted_and_survived(broker: Mosquitto) -> None:
    with Subscriber(broker.port) as scada:
        async with running(Plant(options(broker.port))) as plant:
            await plant.connected()
            await scada.until(lambda: scada.on("/status"))
            for payload, _ in GARBAGE:
                scada.publish(COMMAND, payload)
            await scada.until(lambda: len(scada.on("/reply")) == len(GARBAGE))
            answers = [(a["code"], a["ok"], a["id"]) for a in scada.on("/reply") if a]
            assert answers == [("invalid", False, command) for _, command in GARBAGE]
            assert plant.outlet.counters()["invalid_commands"] == len(GARBAGE)
            assert plant.commands == []
            scada.publish(COMMAND, acknowledge())
            await until(lambda: plant.commands)


class Desk:
    def __init__(self) -> None:
        self.submitted: list[Command] = []
        self.desk = CommandDesk(
            "box1",
            TOPICS,
            enabled=True,
            size_max=1000,
            submit=self.submitted.append,
            take_snapshot=lambda c: Reply(command=c.id, origin=c.origin, ok=True, code="ok"),
        )

    def receive(self, payload: bytes, answer_to: str = "", *, retain: bool = False) -> dict[str, Any] | None:
        message = self.desk.receive(Received(TOPICS.command, payload, retain, answer_to, None), 0)
        return None if message is None else {"topic": message.topic, **json.loads(message.payload)}


@given(
    st.binary(max_size=1200)
    | st.recursive(st.none() | st.integers() | st.text(), lambda c: st.dictionaries(st.text(), c)).map(
        lambda v: json.dumps(v).encode()
    )
)
def test_no_payload_brings_the_desk_down(payload: bytes) -> None:
    desk = Desk()
    answer = desk.receive(payload)
    assert (answer is None) == bool(desk.submitted)


def test_a_retained_command_is_not_carried_out() -> None:
    desk = Desk()
    answer = desk.receive(acknowledge().encode(), retain=True)
    assert answer is not None
    assert "must not be retained" in answer["message"]
    assert desk.submitted == []


def test_a_repeated_command_that_still_waits_is_not_submitted_again() -> None:
    desk = Desk()
    assert desk.receive(acknowledge().encode()) is None
    assert desk.receive(acknowledge().encode(), "elsewhere") is None
    assert len(desk.submitted) == 1
    assert desk.desk.reply(Reply(command="c1", origin="mqtt", ok=True, code="ok"), 0).topic == "elsewhere"


def test_the_memory_of_commands_is_bounded() -> None:
    desk = Desk()
    for n in range(REMEMBERED_MAX + 10):
        desk.receive(acknowledge(f"c{n}").encode())
    assert len(desk.desk._asked) == REMEMBERED_MAX
    assert desk.desk.reply(Reply(command="c0", origin="mqtt", ok=True, code="ok"), 0).topic == TOPICS.reply


def test_an_answer_is_never_sent_to_a_topic_of_the_plant() -> None:
    desk = Desk()
    answer = desk.receive(b"{}", "Acme/Ulm/_gateway/box2/command")
    assert answer is not None
    assert answer["topic"] == TOPICS.reply
