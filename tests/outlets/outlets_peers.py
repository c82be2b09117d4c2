"""What the tests of the outlets stand on: a real Mosquitto, a plain paho subscriber, a wire that can be cut."""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edge import clock
from edge.outlets.mqtt import MqttOutlet
from edge.outlets.options import MqttOptions
from edge.tick import Command, Reply, Tick
from plant.batch import EMPTY, Batch
from plant.events import AlarmTransition, Event
from plant.tags import Tag, TagTable
from plant.texts import Texts

DEADLINE_S = 30.0


def mosquitto_or_skip() -> str:
    path = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if path is None:
        message = "Mosquitto is not installed (Debian package: mosquitto)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Mosquitto:
    """A broker on loopback. `extra` are further lines of its configuration."""

    def __init__(self, folder: Path, *extra: str, anonymous: bool = True) -> None:
        self.path = mosquitto_or_skip()
        self.folder = folder
        self.extra = extra
        self.anonymous = anonymous
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        lines = [
            f"listener {self.port} 127.0.0.1",
            f"allow_anonymous {'true' if self.anonymous else 'false'}",
            "max_queued_messages 100000",
            "set_tcp_nodelay true",
            "log_dest stderr",
            *(["user root"] if os.geteuid() == 0 else []),
            *self.extra,
        ]
        path = self.folder / "mosquitto.conf"
        path.write_text("\n".join(lines) + "\n")
        with (self.folder / "mosquitto.log").open("ab") as log:
            self.process = subprocess.Popen([self.path, "-c", str(path)], stderr=log, stdout=log)
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.02)
        pytest.fail(f"Mosquitto does not listen: {(self.folder / 'mosquitto.log').read_text()[-2000:]}")

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(DEADLINE_S)
            self.process = None


@contextlib.contextmanager
def mosquitto(folder: Path, *extra: str, anonymous: bool = True) -> Iterator[Mosquitto]:
    broker = Mosquitto(folder, *extra, anonymous=anonymous)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


class Subscriber:
    """Collects what a plain client sees."""

    def __init__(self, port: int, topic: str = "#", *, protocol: int = 5, user: str = "", password: str = "") -> None:
        self.messages: list[paho.MQTTMessage] = []
        self._changed = threading.Condition()
        version = MQTTProtocolVersion.MQTTv5 if protocol == 5 else MQTTProtocolVersion.MQTTv311
        self.client = paho.Client(CallbackAPIVersion.VERSION2, protocol=version)
        if user:
            self.client.username_pw_set(user, password)
        subscribed = threading.Event()
        self.client.on_message = self._on_message
        self.client.on_connect = lambda client, *_: client.subscribe(topic, 1)
        self.client.on_subscribe = lambda *_: subscribed.set()
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert subscribed.wait(DEADLINE_S)

    def _on_message(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        with self._changed:
            self.messages.append(message)
            self._changed.notify_all()

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def __enter__(self) -> "Subscriber":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def on(self, ending: str) -> list[dict[str, Any] | None]:
        """The payloads of all topics that end so, in order; None for an empty one."""
        return [json.loads(m.payload) if m.payload else None for m in list(self.messages) if m.topic.endswith(ending)]

    def last(self) -> dict[str, Any]:
        """The last payload of each topic; empty ones left out."""
        newest = {m.topic: m.payload for m in list(self.messages)}
        return {topic: json.loads(payload) for topic, payload in newest.items() if payload}

    async def until(self, condition: Callable[[], Any], what: str = "") -> None:
        await until(
            condition, lambda: what or f"{len(self.messages)} messages: {[m.topic for m in self.messages[-5:]]}"
        )

    def publish(self, topic: str, payload: bytes | str, *, retain: bool = False, properties: Any = None) -> None:
        self.client.publish(topic, payload, 1, retain, properties).wait_for_publish(DEADLINE_S)


def retained(port: int, topic: str = "#") -> dict[str, Any]:
    """What a subscriber who comes now is given: the retained messages, by topic."""
    with Subscriber(port, topic) as late:
        # A message of its own marks the end: the broker sends the retained ones before it.
        late.client.subscribe("end-of-retained", 1)
        late.publish("end-of-retained", b"{}")
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline and not late.on("end-of-retained"):
            time.sleep(0.01)
        time.sleep(0.05)
        return {m.topic: json.loads(m.payload) for m in late.messages if m.retain and not m.topic.startswith("$SYS")}


async def until(condition: Callable[[], Any], what: Callable[[], str] = lambda: "") -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"did not happen: {what()}"
        await asyncio.sleep(0.01)


class Wire:
    """A stretch of TCP between a client and a broker that can be cut, and that can lose what comes back."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.deaf = False
        """What the broker says does not arrive any more."""
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Wire":
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cut()

    async def open(self) -> None:
        self.deaf = False
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            back, forth = await asyncio.open_connection("127.0.0.1", self.target)
            self._writers.add(forth)
            with contextlib.suppress(OSError):
                ways = {
                    asyncio.ensure_future(self._copy(reader, forth, drop=lambda: False)),
                    asyncio.ensure_future(self._copy(back, writer, drop=lambda: self.deaf)),
                }
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
                    await asyncio.gather(*ways, return_exceptions=True)
            forth.transport.abort()
            self._writers.discard(forth)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            self._writers.discard(writer)
            self._tasks.discard(task)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, drop: Callable[[], bool]) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                if not drop():
                    writer.write(data)
                    await writer.drain()


class Journal:
    """The event log as the outlet sees it, in memory. `commit` numbers what was offered since and reports it."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, Event]] = []
        self.cursors: dict[str, int] = {}
        self.reads = 0

    async def after(self, seq: int, limit: int) -> list[tuple[int, Event]]:
        self.reads += 1
        await asyncio.sleep(0)
        return self.rows[seq : seq + limit]

    async def cursor(self, name: str) -> int:
        return self.cursors.get(name, 0)

    def advance(self, name: str, seq: int) -> None:
        assert seq > self.cursors.get(name, 0), "a cursor never goes back"
        self.cursors[name] = seq

    def append(self, events: tuple[Event, ...]) -> list[tuple[int, str]]:
        pairs = []
        for event in events:
            self.rows.append((len(self.rows) + 1, event))
            pairs.append((len(self.rows), event.id))
        return pairs


class Plant:
    """An outlet with everything around it that it needs: tags, alarms, a journal, a line that answers commands."""

    def __init__(self, options: MqttOptions, journal: Journal | None = None, gateway: str = "box1") -> None:
        self.journal = journal or Journal()
        self.alarms: dict[tuple[str, str], AlarmTransition] = {}
        self.commands: list[Command] = []
        self.texts = Texts()
        self.table = TagTable(
            [
                Tag(name="press.temperature", index=0, asset="pressing/line2/press", unit="Cel"),
                Tag(name="press.program", index=1, asset="pressing/line2/press", text=True),
                Tag(name="cnc.load", index=2, asset="milling/line1/cnc", unit="%"),
            ]
        )
        self.outlet = MqttOutlet(
            options,
            enterprise="Acme",
            site="Ulm",
            gateway=gateway,
            table=self.table,
            texts=self.texts,
            event_log=self.journal,
            alarms_snapshot=lambda: list(self.alarms.values()),
            submit=self.commands.append,
            version="1.2.3",
        )
        self._next = len(self.journal.rows)
        self._uncommitted: list[Event] = []

    def transition(
        self, alarm: str, state: str = "B", asset: str = "pressing/line2/press", **more: Any
    ) -> AlarmTransition:
        self._next += 1
        fields: dict[str, Any] = {
            "id": f"e-{self._next:06d}",
            "time": time.time_ns(),
            "asset": asset,
            "alarm": alarm,
            "occurrence": f"o-{alarm}",
            "transition": "clear" if state in "AD" else "activate",
            "state": state,
            "active": state in "BC",
            "acknowledged": state in "AC",
            "message": "too hot",
            **more,
        }
        return AlarmTransition(**fields)

    def step(self, *events: Event, readings: Batch = EMPTY, replies: tuple[Reply, ...] = ()) -> None:
        """One step of the line."""
        for event in events:
            if isinstance(event, AlarmTransition):
                self.alarms[event.asset, event.alarm] = event
        self._uncommitted.extend(events)
        self.outlet.offer(Tick(clock.now(), readings, EMPTY, events, replies))

    def commit(self) -> None:
        """The store thread's report."""
        events, self._uncommitted = tuple(self._uncommitted), []
        self.outlet.committed(self.journal.append(events))

    async def connected(self) -> None:
        await until(lambda: self.outlet.view().state == "connected", lambda: str(self.outlet.view()))

    async def sent(self) -> None:
        """Wait until the cursor stands at the end of the journal."""
        await until(
            lambda: self.journal.cursors.get("mqtt", 0) == len(self.journal.rows),
            lambda: f"{self.journal.cursors} of {len(self.journal.rows)}, {self.outlet.view()}",
        )


def options(port: int, **more: Any) -> MqttOptions:
    fields: dict[str, Any] = {
        "port": port,
        "reconnect_delay_ms_min": 20,
        "reconnect_delay_ms_max": 100,
        "refused_delay_s": 0.2,
        "live_period_ms": 50,
        "commands_enabled": True,
        **more,
    }
    return MqttOptions(**fields)


@contextlib.asynccontextmanager
async def running(plant: Plant) -> AsyncIterator[Plant]:
    task = asyncio.create_task(plant.outlet.run())
    try:
        yield plant
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
