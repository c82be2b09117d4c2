"""The edge node against an independent host application, over a real Mosquitto."""

import asyncio
import re
import time
from collections.abc import Iterator

import pytest
from outlets_peers import Mosquitto, Wire, mosquitto, until
from sparkplug_claims import covers
from sparkplug_peers import (
    CNC,
    CNC_ID,
    NODE,
    OEE,
    PRESS,
    PRESS_ID,
    PROGRAM,
    ROOM,
    TABLE,
    Box,
    Host,
    Memory,
    metric,
    running,
    seq_gaps,
)  # fmt: skip

from edge.outlets.sparkplug import values
from plant.batch import BAD, UNCERTAIN
from plant.events import Audit
from plant.tags import Tag, TagTable

NEW = Tag(name="press.force", index=9, asset="pressing/line2/press", unit="kN")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with mosquitto(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


@pytest.fixture
def host(broker: Mosquitto) -> Iterator[Host]:
    with Host(broker.port) as host:
        yield host


@covers(
    "payloads-nbirth-edge-node-descriptor",
)
async def test_births_name_every_metric_with_value_type_unit_and_quality(broker: Mosquitto, host: Host) -> None:
    box = Box(broker.port)
    box.step((PRESS, 41.5), (PROGRAM, box.texts.code(PROGRAM, "P-17")), (CNC, 0.25, UNCERTAIN), (ROOM, 20.0))
    async with running(box):
        await host.until(lambda: len(host.of("DBIRTH")) == 2)
        node, press, cnc = host.of("NBIRTH")[0], host.of("DBIRTH", PRESS_ID)[0], host.of("DBIRTH", CNC_ID)[0]
    assert node["topic"] == "spBv1.0/Acme/NBIRTH/box1"
    assert (node["qos"], node["retain"]) == (0, False)
    assert metric(node, "bdSeq")["type"] == "Int64"
    assert metric(node, "Node Control/Rebirth")["value"] is False
    assert metric(node, "room.temperature")["value"] == 20.0
    assert metric(node, "Alarms/press.hot/Active")["value"] is False
    assert metric(node, "Alarms/press.hot/Priority")["value"] == "high"
    temperature = metric(press, "press.temperature")
    assert (temperature["type"], temperature["value"]) == ("Double", 41.5)
    assert temperature["properties"]["engUnit"]["value"] == "Cel"
    assert temperature["properties"]["Quality"] == {"type": "Int32", "value": 192}
    assert abs(temperature["timestamp"] - time.time() * 1000) < 60_000
    assert (metric(press, "press.program")["type"], metric(press, "press.program")["value"]) == ("String", "P-17")
    assert metric(cnc, "cnc.load")["properties"]["Quality"]["value"] == 500
    assert metric(cnc, "cnc.oee")["value"] is None
    stamps = [m["timestamp"] for m in press["payload"]["metrics"]]
    assert stamps == sorted(stamps)


async def test_data_travel_by_alias_and_say_only_what_changed(broker: Mosquitto, host: Host) -> None:
    box = Box(broker.port)
    box.step((PRESS, 1.0), (PROGRAM, box.texts.code(PROGRAM, "a")), (CNC, 0.0))
    async with running(box):
        await host.until(lambda: len(host.of("DBIRTH")) == 2)
        await box.born()
        box.step((PRESS, 2.0), (CNC, 0.0), (PRESS, 3.0), (PROGRAM, box.texts.code(PROGRAM, "b")), (ROOM, 5.0))
        await host.until(lambda: host.values("DDATA", PROGRAM + 1) == ["b"])
        box.step((PRESS, 4.0, BAD), (PRESS, float("nan"), BAD), (PRESS, 5.0))
        await host.until(lambda: host.values("DDATA", PRESS + 1, type=None) and host.of("NDATA"))
        await host.until(lambda: host.values("DDATA", PRESS + 1)[-1] == 5.0)
        data = [m for message in host.of("DDATA", PRESS_ID) for m in message["payload"]["metrics"]]
    assert host.values("DDATA", PRESS + 1, isHistorical=None) == [2.0, 3.0, 4.0, None, 5.0]
    assert host.values("DDATA", CNC + 1, isHistorical=None) == []
    assert host.values("NDATA", ROOM + 1) == [5.0]
    assert all(m.get("name") in (None, "") for m in data)
    assert seq_gaps(host) == []
    qualities = [m["properties"]["Quality"]["value"] for m in data if m["alias"] == PRESS + 1 and "properties" in m]
    assert qualities[-3:] == [0, 0, 192]


async def test_numbers_have_no_hole_over_hundreds_of_messages_and_rebirths(broker: Mosquitto, host: Host) -> None:
    box = Box(broker.port)
    async with running(box):
        await box.born()
        for n in range(320):
            box.step((PRESS, n), (CNC, n), (ROOM, n))
            await asyncio.sleep(0.01)
            if n == 150:
                host.tell(rebirth=NODE)
            box.node.speaker._due = 0  # every step is a message of its own
            box.node.speaker.wake()
        await host.until(lambda: host.values("DDATA", PRESS + 1)[-1:] == [319.0])
        numbered = [k for k in host.kinds() if k != "NDEATH"]
    assert len(numbered) > 400
    assert seq_gaps(host) == []
    assert numbered.count("NBIRTH") == 2


async def test_a_rebirth_repeats_the_whole_sequence_with_the_same_bd_seq(broker: Mosquitto, host: Host) -> None:
    box = Box(broker.port)
    box.step((PRESS, 1.0), (CNC, 1.0))
    async with running(box):
        await host.until(lambda: len(host.of("DBIRTH")) == 2)
        box.step((PRESS, 7.0))
        host.tell(rebirth=NODE)
        await host.until(lambda: len(host.of("NBIRTH")) == 2 and len(host.of("DBIRTH")) == 4)
        first, second = host.of("NBIRTH")
        assert metric(second, "bdSeq")["value"] == metric(first, "bdSeq")["value"]
        start = max(i for i, m in enumerate(host.messages) if "/NBIRTH/" in m["topic"])
        assert ["DBIRTH" in m["topic"] for m in host.messages[start + 1 : start + 3]] == [True, True]
        assert metric(host.of("DBIRTH", PRESS_ID)[1], "press.temperature")["value"] == 7.0
        assert host.of("NDEATH") == []


@covers(
    "message-flow-device-dcmd-subscribe",
)
async def test_what_hosts_write_is_refused_and_audited(broker: Mosquitto, host: Host) -> None:
    box = Box(broker.port)
    async with running(box):
        await box.born()
        write = [{"name": "room.temperature", "type": "Double", "value": 99.0}]
        host.tell(publish="spBv1.0/Acme/NCMD/box1", metrics=write)
        host.tell(publish=f"spBv1.0/Acme/DCMD/box1/{PRESS_ID}", metrics=write)
        host.tell(raw="spBv1.0/Acme/NCMD/box1", hex="ffffffff")
        await until(lambda: box.node.counters()["refused_commands"] == 2)
        host.tell(rebirth=NODE)
        await host.until(lambda: len(host.of("NBIRTH")) == 2)
    assert len(box.audited) == 1
    assert isinstance(box.audited[0], Audit)
    assert box.audited[0].outcome == "refused"
    assert box.audited[0].detail == {"metrics": "room.temperature"}


@covers(
    "operational-behavior-device-ddeath",
)
async def test_a_device_without_data_dies_and_is_born_again(broker: Mosquitto, host: Host) -> None:
    box = Box(broker.port)
    box.step((PRESS, 1.0), (PROGRAM, box.texts.code(PROGRAM, "a")), (CNC, 1.0))
    async with running(box):
        await host.until(lambda: len(host.of("DBIRTH")) == 2)
        await until(lambda: box.node.speaker.backlog.start is None)
        box.step((PRESS, float("nan"), BAD), (PROGRAM, float("nan"), BAD))
        await host.until(lambda: len(host.of("DDEATH")) == 1)
        assert host.of("DDEATH")[0]["topic"].endswith(PRESS_ID)
        assert host.of("DDEATH")[0]["payload"]["seq"] > 0
        box.step((CNC, 2.0))
        await host.until(lambda: 2.0 in host.values("DDATA", CNC + 1))
        box.step((PRESS, 8.0), (PRESS, 9.0))
        await host.until(lambda: len(host.of("DBIRTH", PRESS_ID)) == 2)
        assert metric(host.of("DBIRTH", PRESS_ID)[1], "press.temperature")["value"] == 9.0
        # What lies before the birth is history, it must not move the live value back.
        await host.until(lambda: host.values("DDATA", PRESS + 1, isHistorical=True) == [8.0, 9.0])
        box.step((OEE, 0.5))
        await host.until(lambda: host.values("DDATA", OEE + 1) == [0.5])
    assert seq_gaps(host) == []


async def test_alarms_are_metrics_of_the_node(broker: Mosquitto, host: Host) -> None:
    box = Box(broker.port)
    async with running(box):
        await host.until(lambda: host.of("NBIRTH"))
        names = {m["alias"]: m["name"] for m in host.of("NBIRTH")[0]["payload"]["metrics"] if "alias" in m}
        box.step(events=(box.transition(), box.transition(acknowledged=True, state="C")))
        await host.until(lambda: host.of("NDATA"))
        said = [(names[m["alias"]], m["value"]) for m in host.of("NDATA")[0]["payload"]["metrics"]]
        assert ("Alarms/press.hot/Active", True) in said
        assert said.count(("Alarms/press.hot/Active", True)) == 1
        assert said[-2:] == [("Alarms/press.hot/Acknowledged", True), ("Alarms/press.hot/State", "C")]
        # An alarm that no birth has named makes the node be born again.
        box.step(events=(box.transition("device.press.communication", message="press does not answer"),))
        await host.until(lambda: len(host.of("NBIRTH")) == 2)
        birth = host.of("NBIRTH")[1]
        assert metric(birth, "Alarms/device.press.communication/Message")["value"] == "press does not answer"
        assert metric(birth, "Alarms/press.hot/Acknowledged")["value"] is True
    assert seq_gaps(host) == []


@covers(
    "message-flow-edge-node-birth-publish-connect",
    "operational-behavior-edge-node-intentional-disconnect-ndeath",
    "operational-behavior-edge-node-intentional-disconnect-packet",
    "payloads-ndeath-will-message-publisher-disconnect-mqtt311",
    "payloads-ndeath-will-message-publisher-disconnect-mqtt50",
)
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_a_clean_end_says_ndeath_with_the_bd_seq_of_the_birth(
    broker: Mosquitto, host: Host, protocol: str
) -> None:
    box = Box(broker.port, protocol=protocol)
    async with running(box):
        await host.until(lambda: host.of("NBIRTH"))
    await host.until(lambda: host.of("NDEATH"))
    await asyncio.sleep(0.1)
    assert len(host.of("NDEATH")) == 1
    death = host.of("NDEATH")[0]
    assert death["payload"].get("seq") is None
    assert [m["name"] for m in death["payload"]["metrics"]] == ["bdSeq"]
    assert metric(death, "bdSeq")["value"] == metric(host.of("NBIRTH")[0], "bdSeq")["value"]
    assert (death["qos"], death["retain"]) == (1, False)
    log = (broker.folder / "mosquitto.log").read_text()
    connects = re.findall(r"as andon-box1-sparkplug \(p(\d), c(\d)", log)
    assert connects[-1] == ("5" if protocol == "5" else "2", "1"), "no session of an earlier connection goes on"


async def test_bd_seq_goes_on_over_runs_from_zero(broker: Mosquitto, host: Host) -> None:
    memory = Memory()
    for _ in range(3):
        async with running(Box(broker.port, memory)) as box:
            await box.born()
    await host.until(lambda: len(host.of("NDEATH")) == 3)
    assert [metric(m, "bdSeq")["value"] for m in host.of("NBIRTH")] == [0, 1, 2]
    assert [metric(m, "bdSeq")["value"] for m in host.of("NDEATH")] == [0, 1, 2]


async def test_nothing_is_born_before_the_primary_host_is_online(broker: Mosquitto) -> None:
    with Host(broker.port, "scada2", born=100) as host:
        host.tell(state=False, timestamp=50)
        box = Box(broker.port, primary_host_id="scada2")
        async with running(box):
            await until(lambda: "scada2" in box.node.view().sentence)
            box.step((PRESS, 1.0))
            await asyncio.sleep(0.2)
            assert host.kinds() == []
            host.tell(state=True, timestamp=100)
            await host.until(lambda: host.of("DBIRTH"))
            # A leftover of an earlier life of the host, then its real end.
            host.tell(state=False, timestamp=99)
            await asyncio.sleep(0.2)
            assert host.of("NDEATH") == []
            host.tell(state=False, timestamp=200)
            await host.until(lambda: host.of("NDEATH"))
            host.tell(state=True, timestamp=300)
            await host.until(lambda: len(host.of("NBIRTH")) == 2)
        births = [metric(m, "bdSeq")["value"] for m in host.of("NBIRTH")]
        assert births[1] == births[0] + 1
        assert metric(host.of("NDEATH")[0], "bdSeq")["value"] == births[0]


@covers(
    "operational-behavior-edge-node-termination-host-offline-reconnect",
)
async def test_what_the_primary_host_missed_follows_as_history(broker: Mosquitto) -> None:
    with Host(broker.port, "scada3", born=1) as host:
        box = Box(broker.port, primary_host_id="scada3")
        async with running(box):
            host.tell(state=True, timestamp=1)
            box.step((PRESS, 0.0), (CNC, 0.0))
            await host.until(lambda: len(host.of("DBIRTH")) == 2)
            host.tell(state=False, timestamp=2)
            await host.until(lambda: host.of("NDEATH"))
            await until(lambda: box.node.session.phase == "waiting")
            for n in range(1, 200):
                box.step((PRESS, n), (PROGRAM, box.texts.code(PROGRAM, f"P{n}")))
            host.tell(state=True, timestamp=3)
            await host.until(lambda: 199.0 in host.values("DDATA", PRESS + 1, isHistorical=True))
            box.step((PRESS, 1000.0))
            await host.until(lambda: 1000.0 in host.values("DDATA", PRESS + 1))
        history = host.values("DDATA", PRESS + 1, isHistorical=True)
        live = host.values("DDATA", PRESS + 1, isHistorical=None)
        assert [v for v in history if v] == list(range(1, 200))
        assert host.values("DDATA", PROGRAM + 1, isHistorical=True) == [f"P{n}" for n in range(1, 200)]
        assert live == [1000.0]
        assert metric(host.of("DBIRTH", PRESS_ID)[-1], "press.temperature")["value"] == 199.0
        assert seq_gaps(host) == []


@covers(
    "operational-behavior-primary-application-state-with-multiple-servers-single-server",
)
async def test_a_cut_wire_ends_in_the_will_and_everything_follows(broker: Mosquitto, host: Host) -> None:
    async with Wire(broker.port) as wire:
        box = Box(wire.port)
        async with running(box):
            box.step((PRESS, 0.0))
            await host.until(lambda: host.of("DBIRTH"))
            await wire.cut()
            for n in range(1, 50):
                box.step((PRESS, n))
                await asyncio.sleep(0.002)
            await host.until(lambda: host.of("NDEATH"))
            assert metric(host.of("NDEATH")[0], "bdSeq")["value"] == 0
            # Attempts that do not reach the broker spend no number.
            await asyncio.sleep(0.2)
            await wire.open()
            await host.until(lambda: len(host.of("NBIRTH")) == 2)
            await host.until(lambda: 49.0 in host.values("DDATA", PRESS + 1, isHistorical=True))
    assert metric(host.of("NBIRTH")[1], "bdSeq")["value"] == 1
    told = host.values("DDATA", PRESS + 1)
    assert set(range(1, 50)) <= set(told)
    assert seq_gaps(host) == []


async def test_a_changed_tag_list_is_born_anew(broker: Mosquitto, host: Host) -> None:
    box = Box(broker.port)
    box.step((PRESS, 1.0), (CNC, 1.0))
    async with running(box):
        await host.until(lambda: len(host.of("DBIRTH")) == 2)
        table = TagTable([*(t for t in TABLE.tags if t.asset != "milling/line1/cnc"), NEW])
        box.node.use(table)
        await host.until(lambda: len(host.of("NBIRTH")) == 2)
        await host.until(lambda: host.of("DBIRTH", PRESS_ID)[1:])
        assert host.of("DDEATH")[0]["topic"].endswith(CNC_ID), "a device that is gone says so before"
        box.step((NEW.index, 3.0), (CNC, 4.0), (PRESS, 2.0))
        await host.until(lambda: 2.0 in host.values("DDATA", PRESS + 1))
        assert metric(host.of("DBIRTH", PRESS_ID)[-1], "press.temperature")["value"] == 1.0
        await host.until(lambda: host.values("DDATA", NEW.index + 1) == [3.0])
        assert 4.0 not in host.values("DDATA", CNC + 1)
    assert seq_gaps(host) == []


async def test_history_waits_for_a_ring_that_does_not_answer(broker: Mosquitto, host: Host) -> None:
    memory = Memory()
    memory.kept["sparkplug"] = {"bd_seq": 7, "position": 0}
    memory.failures = 1
    box = Box(broker.port, memory)
    for n in range(6_000):  # more than one chunk
        box.step((PRESS, n))
    async with running(box):
        await host.until(lambda: len(host.values("DDATA", PRESS + 1, isHistorical=True)) == 6_000)
        await until(lambda: box.node.state() == {"bd_seq": 8, "position": 6_000})
    assert host.values("DDATA", PRESS + 1) == list(range(6_000))
    assert metric(host.of("NBIRTH")[0], "bdSeq")["value"] == 8
    assert seq_gaps(host) == []


async def test_what_does_not_fit_in_memory_follows_from_the_ring(
    broker: Mosquitto, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(values, "WAITING_ROWS_MAX", 100)
    box = Box(broker.port, publish_period_ms=300)
    async with running(box):
        box.step((PRESS, -1.0))
        await host.until(lambda: host.of("DBIRTH", PRESS_ID))
        await until(lambda: box.node.speaker.backlog.start is None)
        for n in range(250):
            box.step((PRESS, n))
        await host.until(lambda: set(range(250)) <= set(host.values("DDATA", PRESS + 1)))
        assert set(host.values("DDATA", PRESS + 1, isHistorical=True)) >= set(range(200))
    assert seq_gaps(host) == []
