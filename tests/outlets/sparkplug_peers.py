"""What the Sparkplug tests stand on: an independent host application, a ring in memory, an edge node around it."""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from outlets_peers import DEADLINE_S, until

from edge import clock
from edge.errors import StorageError
from edge.outlets.options import MqttOptions
from edge.outlets.sparkplug.alarms import AlarmName
from edge.outlets.sparkplug.node import SparkplugNode
from edge.outlets.sparkplug.options import SparkplugOptions
from edge.tick import Occurred, Tick
from plant.batch import EMPTY, GOOD, Batch, concat, of_rows
from plant.events import AlarmTransition, Event
from plant.instant import NS_PER_MS
from plant.tags import Tag, TagTable
from plant.texts import Texts

PEER = Path(__file__).parents[1] / "peers" / "sparkplug"
PRESS, PROGRAM, CNC, OEE, ROOM = range(5)
TABLE = TagTable(
    [
        Tag(name="press.temperature", index=PRESS, asset="pressing/line2/press", unit="Cel", description="of the oil"),
        Tag(name="press.program", index=PROGRAM, asset="pressing/line2/press", text=True),
        Tag(name="cnc.load", index=CNC, asset="milling/line1/cnc", unit="%"),
        Tag(name="cnc.oee", index=OEE, asset="milling/line1/cnc", unit="1", virtual=True),
        Tag(name="room.temperature", index=ROOM, asset="", unit="Cel"),
    ]
)
PRESS_ID, CNC_ID = "pressing:line2:press", "milling:line1:cnc"
NODE = "Acme/box1"


def node_or_skip() -> str:
    program = shutil.which("node")
    if program is None or not (PEER / "node_modules").is_dir():
        message = "Node.js, or the packages of tests/peers/sparkplug (npm ci), are not installed"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return program


class Host:
    """The host application in a child process; `messages` is what it got, in order, decoded by its own codec."""

    def __init__(self, port: int, host_id: str = "scada1", born: int = 1) -> None:
        self.messages: list[dict[str, Any]] = []
        self.subscribed = 1
        """How often it connected and subscribed."""
        self.process = subprocess.Popen(
            [node_or_skip(), "host.js", str(port), host_id, str(born)],
            cwd=PEER,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        while (first := json.loads(self.process.stdout.readline())) != {"ready": True}:
            self.messages.append(first)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            message = json.loads(line)
            if "topic" in message:
                self.messages.append(message)
            else:
                self.subscribed += 1

    def __enter__(self) -> "Host":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(DEADLINE_S)
        self._thread.join(DEADLINE_S)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()

    def tell(self, **command: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def kinds(self) -> list[str]:
        """NBIRTH, DDATA and so on, in order."""
        return [kind for m in list(self.messages) if (kind := kind_of(m)) not in ("NCMD", "DCMD", "")]

    def of(self, kind: str, device: str = "") -> list[dict[str, Any]]:
        return [
            m for m in list(self.messages) if kind_of(m) == kind and (not device or m["topic"].endswith(f"/{device}"))
        ]

    def values(self, kind: str, alias: int, **fields: Any) -> list[Any]:
        """The values of one metric in all messages of a kind."""
        return [
            m.get("value")
            for message in self.of(kind)
            for m in message["payload"]["metrics"]
            if m.get("alias") == alias and all(m.get(k) == v for k, v in fields.items())
        ]

    async def until(self, condition: Callable[[], Any], what: str = "") -> None:
        await until(condition, lambda: f"{what}; {self.kinds()[-30:]}")


def kind_of(message: Mapping[str, Any]) -> str:
    parts = message["topic"].split("/")
    return "" if parts[1] == "STATE" else str(parts[2])


def seq_gaps(host: Host) -> list[tuple[int, int]]:
    """(expected, got) wherever the numbers of the node's messages have a hole."""
    gaps, expected = [], None
    for message in list(host.messages):
        kind = kind_of(message)
        if kind in ("", "NDEATH", "NCMD", "DCMD"):
            continue
        seq = message["payload"].get("seq", 0)
        if kind == "NBIRTH":
            expected = 0
        if expected is not None and seq != expected:
            gaps.append((expected, seq))
        expected = (seq + 1) % 256
    return gaps


def metric(message: Mapping[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(m for m in message["payload"]["metrics"] if m.get("name") == name)
    return found


class Memory:
    """Ring and journal in memory: what is kept outlives the node."""

    def __init__(self) -> None:
        self.kept: dict[str, Mapping[str, Any]] = {}
        self.rows: Batch = EMPTY
        self.failures = 0
        """So many more reads fail."""

    async def recall(self, key: str) -> Mapping[str, Any] | None:
        await asyncio.sleep(0)
        return self.kept.get(key)

    async def keep(self, key: str, value: Mapping[str, Any]) -> None:
        await asyncio.sleep(0)
        self.kept[key] = dict(value)

    async def position(self) -> int:
        await asyncio.sleep(0)
        return len(self.rows)

    async def read(self, seq: int, limit: int) -> tuple[int, Batch]:
        await asyncio.sleep(0)
        if self.failures:
            self.failures -= 1
            raise StorageError("the ring is closed")
        return seq, self.rows.select(np.arange(seq, min(seq + limit, len(self.rows))))


class Box:
    """An edge node with everything around it that it needs."""

    def __init__(
        self, port: int, memory: Memory | None = None, table: TagTable = TABLE, protocol: str = "auto", **options: Any
    ) -> None:
        self.memory = memory or Memory()
        self.alarms: dict[str, AlarmTransition] = {}
        self.audited: list[Event] = []
        self.texts = Texts()
        self._clock = time.time_ns()
        self.node = SparkplugNode(
            SparkplugOptions(**{"enabled": True, "publish_period_ms": 50, **options}),
            MqttOptions(port=port, protocol=protocol, reconnect_delay_ms_min=20, reconnect_delay_ms_max=100),
            group="Acme",
            gateway="box1",
            table=table,
            texts=self.texts,
            history=self.memory,
            alarm_names=lambda: [AlarmName("press.hot", "pressing/line2/press", "high")],
            alarms_snapshot=lambda: list(self.alarms.values()),
            submit=self._note,
        )

    def _note(self, occurred: Occurred) -> None:
        self.audited.append(occurred.event)

    def step(self, *rows: tuple[int, float] | tuple[int, float, int], events: tuple[Event, ...] = ()) -> None:
        """One step of the line; every reading is kept, a millisecond after the one before, and is in the ring."""
        batch = EMPTY
        if rows:
            made = []
            for row in rows:
                self._clock = max(self._clock + NS_PER_MS, time.time_ns())
                tag, value, quality = (*row, GOOD)[:3]
                made.append((int(tag), self._clock, float(value), int(quality)))
            batch = of_rows(made)
        for event in events:
            if isinstance(event, AlarmTransition):
                self.alarms[event.alarm] = event
        self.node.offer(Tick(clock.now(), batch, batch, events, ()))
        self.memory.rows = concat([self.memory.rows, batch]) if len(batch) else self.memory.rows
        self.node.committed(len(self.memory.rows))

    def transition(self, alarm: str = "press.hot", **more: Any) -> AlarmTransition:
        fields: dict[str, Any] = {
            "id": f"e-{time.monotonic_ns()}",
            "time": time.time_ns(),
            "asset": "pressing/line2/press",
            "alarm": alarm,
            "occurrence": "o1",
            "transition": "activate",
            "state": "B",
            "active": True,
            "acknowledged": False,
            "priority": "high",
            "message": "too hot",
            **more,
        }
        return AlarmTransition(**fields)

    async def born(self) -> None:
        await until(lambda: self.node.session.phase == "born", lambda: str(self.node.view()))


@contextlib.asynccontextmanager
async def running(box: Box) -> AsyncIterator[Box]:
    task = asyncio.create_task(box.node.run())
    try:
        yield box
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
