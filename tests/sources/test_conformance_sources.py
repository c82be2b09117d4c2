"""What every source must do alike: the supervisor and the line rely on it. One suite over all of them."""

import asyncio
import contextlib
import functools
import queue
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asyncua import Server, ua
from modbus_peers import Scripted
from modbus_peers import source as modbus_source
from modbus_rigs import modbus_over
from mqtt_peers import Mosquitto, mqtt_source
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion
from sparkplug_node_peers import sparkplug_source

from edge.errors import Disconnected, Refused, Unreachable
from edge.sources import Source
from edge.sources.opcua import OpcuaOptions, OpcuaPoint, OpcuaSource
from edge.sources.replay import ReplayOptions, ReplayPoint, ReplaySource
from edge.sparkplug_payload import DataType, Payload
from plant.batch import BAD, GOOD, UNCERTAIN, Batch
from plant.texts import Texts

TAGS = [3, 5, 8]
CLOSE_S_MAX = 5.0


@dataclass
class Wire:
    """A TCP proxy: the cable between a source and its server, which can be cut, and frozen so that nothing passes."""

    to: int
    port: int = 0
    frozen: bool = False
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Reset every connection and take no new one."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        there, back = await asyncio.open_connection("127.0.0.1", self.to)
        self._writers |= {writer, back}
        await asyncio.gather(self._pump(reader, back), self._pump(there, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if not self.frozen:
                    writer.write(data)
        if not self.frozen:
            writer.transport.abort()


@dataclass
class Rig:
    """A source that reads the tags TAGS with the values 30, 50 and text or number; wire is None without a network."""

    source: Source
    wire: Any = None


@contextlib.asynccontextmanager
async def modbus(folder: Path) -> AsyncIterator[Rig]:
    async with Scripted() as plc:
        wire = Wire(plc.port)
        await wire.start()
        rows = [("holding/0", "uint16", "")] * 9
        rows[3], rows[5], rows[8] = (
            ("holding/30", "uint16", ""),
            ("holding/50", "uint16", ""),
            ("holding/1", "string:4", ""),
        )
        whole = modbus_source(wire.port, rows, timeout_ms=500)
        points = [point for point in whole._points if point.tag in TAGS]
        yield Rig(type(whole)(whole._options, points, Texts()), wire)
        await wire.cut()


async def serve_opcua(started: "queue.SimpleQueue[int]", stop: threading.Event) -> None:
    server = Server()
    await server.init()
    server.set_endpoint("opc.tcp://127.0.0.1:0")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    index = await server.register_namespace("urn:conformance")
    for name, value in (("a", 30.0), ("b", 50.0), ("c", "run")):
        await server.nodes.objects.add_variable(ua.NodeId(name, index), name, value)
    async with server:
        started.put(server.bserver._server.sockets[0].getsockname()[1])
        await asyncio.to_thread(stop.wait)


@functools.cache
def opcua_port() -> int:
    """The port of one server for all tests: it takes longer to start than a test to run."""
    started: queue.SimpleQueue[int] = queue.SimpleQueue()
    stop = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(serve_opcua(started, stop)))
    thread.start()
    STOPS.extend((stop.set, thread.join))
    return started.get(timeout=60)


STOPS: list[Callable[[], None]] = []


@pytest.fixture(scope="module", autouse=True)
def servers_end():
    yield
    for stop in STOPS:
        stop()
    STOPS.clear()
    opcua_port.cache_clear()
    broker_port.cache_clear()


@contextlib.asynccontextmanager
async def opcua(folder: Path) -> AsyncIterator[Rig]:
    wire = Wire(await asyncio.to_thread(opcua_port))
    await wire.start()
    options = OpcuaOptions(
        name="cnc",
        url=f"opc.tcp://127.0.0.1:{wire.port}",
        keepalive_ms=100,
        repeat_ms=100,
        publishing_ms=50,
        sampling_ms=50,
        deadline_ms=500,
    )
    points = [
        OpcuaPoint(tag=tag, node=f"nsu=urn:conformance;s={name}", text=name == "c")
        for tag, name in zip(TAGS, "abc", strict=True)
    ]
    yield Rig(OpcuaSource(options, points, Texts()), wire)
    await wire.cut()


@contextlib.asynccontextmanager
async def replay(folder: Path) -> AsyncIterator[Rig]:
    path = folder / "recording.csv"
    path.write_text("time,a,b,c\n" + "".join(f"{i},30,50,run\n" for i in range(100)))
    options = ReplayOptions(type="replay", name="bearing", path=path, time_unit="s", speed=100, loop=True)
    points = [ReplayPoint(tag, name, text=name == "c") for tag, name in zip(TAGS, "abc", strict=True)]
    yield Rig(ReplaySource(options, points, Texts()))


@functools.cache
def broker_port(folder: Path) -> int:
    """The port of one broker for all tests; it holds a retained document, and a node that is born on demand."""
    broker = Mosquitto(folder)
    broker.__enter__()
    client = Client(CallbackAPIVersion.VERSION2)
    ready = threading.Event()
    birth = Payload(seq=0)
    birth.metrics.add(name="a", alias=1, datatype=DataType.INT32, int_value=30)
    birth.metrics.add(name="b", alias=2, datatype=DataType.DOUBLE, double_value=50)
    birth.metrics.add(name="c", alias=3, datatype=DataType.STRING, string_value="run")
    born = birth.SerializeToString()
    client.on_subscribe = lambda *_: ready.set()
    client.on_message = lambda *_: client.publish("spBv1.0/G/NBIRTH/E", born)
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    client.publish("hall/state", '{"a": 30, "b": 50, "c": "run"}', 1, retain=True)
    client.subscribe("spBv1.0/G/NCMD/E")
    assert ready.wait(10)
    STOPS.extend((client.disconnect, client.loop_stop, broker.__exit__))
    return broker.port


@contextlib.asynccontextmanager
async def mqtt(folder: Path) -> AsyncIterator[Rig]:
    wire = Wire(await asyncio.to_thread(broker_port, folder.parent))
    await wire.start()
    rows = {tag: (f"hall/state#{name}", "string" if name == "c" else "") for tag, name in zip(TAGS, "abc", strict=True)}
    yield Rig(mqtt_source(wire.port, rows, retained="good", keepalive_s=2, connect_timeout_s=1), wire)
    await wire.cut()


@contextlib.asynccontextmanager
async def sparkplug(folder: Path) -> AsyncIterator[Rig]:
    wire = Wire(await asyncio.to_thread(broker_port, folder.parent))
    await wire.start()
    rows = {3: "E//a", 5: "E//b", 8: "!E//c"}
    yield Rig(sparkplug_source(wire.port, rows, rebirth_interval_s=0.1, keepalive_s=2, connect_timeout_s=1), wire)
    await wire.cut()


RIGS: dict[str, Callable[[Path], Any]] = {
    "modbus": modbus,
    "mqtt": mqtt,
    "opcua": opcua,
    "replay": replay,
    "sparkplug": sparkplug,
}


def modbus_rig(transport: str) -> Callable[[Path], Any]:
    @contextlib.asynccontextmanager
    async def made(folder: Path) -> AsyncIterator[Rig]:
        async with modbus_over(transport, folder, TAGS) as (source, wire):
            yield Rig(source, wire)

    return made


RIGS |= {f"modbus_{transport}": modbus_rig(transport) for transport in ("udp", "rtu", "rtu_over_tcp")}


@pytest.fixture(params=list(RIGS))
async def rig(request, tmp_path) -> AsyncIterator[Rig]:
    async with RIGS[request.param](tmp_path) as made:
        yield made
        await made.source.close()


@pytest.fixture(params=[name for name in RIGS if name != "replay"])
async def wired(request, tmp_path) -> AsyncIterator[Rig]:
    async with RIGS[request.param](tmp_path) as made:
        yield made
        await made.source.close()


def check_form(batch: Batch) -> None:
    n = len(batch)
    for column, dtype in ((batch.tag, "u4"), (batch.time, "i8"), (batch.value, "f8"), (batch.quality, "u1")):
        assert column.dtype == np.dtype(dtype)
        assert column.shape == (n,)
    assert set(batch.tag.tolist()) <= set(TAGS)
    assert set(batch.quality.tolist()) <= {GOOD, UNCERTAIN, BAD}
    assert (np.isfinite(batch.value) | (batch.quality == BAD)).all()


async def read_all(source: Source) -> dict[int, float]:
    """Read until every tag has come good."""
    seen: dict[int, float] = {}
    async with asyncio.timeout(15):
        while len(seen) < len(TAGS):
            batch = await source.read()
            check_form(batch)
            good = batch.quality == GOOD
            seen |= dict(zip(batch.tag[good].tolist(), batch.value[good].tolist(), strict=True))
    return seen


async def read_until_disconnected(source: Source) -> str:
    """Read on; a source may hand out what it has before it says that the connection is gone."""
    async with asyncio.timeout(15):
        with pytest.raises(Disconnected) as error:
            while True:
                check_form(await source.read())
    return str(error.value)


async def test_a_source_names_itself_and_its_tags_before_it_is_connected(rig):
    assert rig.source.name
    assert rig.source.tags.dtype == np.uint32
    assert sorted(rig.source.tags.tolist()) == TAGS
    assert rig.source.lost == 0


async def test_every_tag_arrives_in_columns_of_the_right_types(rig):
    await rig.source.connect()
    seen = await read_all(rig.source)
    assert (seen[3], seen[5], seen[8]) == (30.0, 50.0, 1.0)  # 1: the first text of a tag
    assert dict(rig.source.problems) == {}


async def test_close_is_idempotent_also_without_a_connection(rig):
    await rig.source.close()
    await rig.source.connect()
    await rig.source.close()
    await rig.source.close()


async def test_a_source_that_is_not_connected_reads_nothing(rig):
    with pytest.raises(Disconnected):
        await rig.source.read()
    await rig.source.connect()
    await read_all(rig.source)
    await rig.source.close()
    with pytest.raises(Disconnected):
        await rig.source.read()


async def test_a_closed_source_connects_again_and_reads(rig):
    for _ in range(2):
        await rig.source.connect()
        await read_all(rig.source)
        await rig.source.close()


async def test_connect_on_a_connected_source_starts_anew(rig):
    await rig.source.connect()
    await rig.source.connect()
    await read_all(rig.source)


async def test_a_read_that_is_cancelled_leaves_a_source_that_can_be_closed_and_connected(rig):
    await rig.source.connect()
    await read_all(rig.source)
    for _ in range(3):
        reading = asyncio.create_task(rig.source.read())
        await asyncio.sleep(0)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    await rig.source.close()
    await rig.source.connect()
    await read_all(rig.source)


async def test_a_server_that_dies_is_disconnected_with_the_device_s_name_and_then_unreachable(wired):
    await wired.source.connect()
    await read_all(wired.source)
    await wired.wire.cut()
    assert wired.source.name in await read_until_disconnected(wired.source)
    await wired.source.close()
    with pytest.raises(Unreachable) as error:
        await wired.source.connect()
    assert wired.source.name in str(error.value)


async def test_a_server_that_comes_back_on_the_same_address_serves_again(wired):
    await wired.source.connect()
    await read_all(wired.source)
    await wired.wire.cut()
    await read_until_disconnected(wired.source)
    await wired.source.close()
    await wired.wire.start()
    await wired.source.connect()
    assert (await read_all(wired.source))[3] == 30.0


async def test_a_peer_that_falls_silent_is_disconnected_and_closing_it_is_bounded(wired):
    await wired.source.connect()
    await read_all(wired.source)
    wired.wire.frozen = True
    await read_until_disconnected(wired.source)
    async with asyncio.timeout(CLOSE_S_MAX):
        await wired.source.close()


async def test_closing_while_the_peer_is_silent_is_bounded_without_a_read(wired):
    await wired.source.connect()
    wired.wire.frozen = True
    async with asyncio.timeout(CLOSE_S_MAX):
        await wired.source.close()


async def test_a_peer_that_is_silent_from_the_start_is_not_waited_for(wired):
    """Either connect says so or the first read; nothing hangs."""
    wired.wire.frozen = True
    async with asyncio.timeout(15):
        with pytest.raises((Unreachable, Disconnected, Refused)):
            await wired.source.connect()
            await wired.source.read()
    async with asyncio.timeout(CLOSE_S_MAX):
        await wired.source.close()
