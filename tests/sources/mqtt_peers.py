"""What the tests of the MQTT sources stand on: a real Mosquitto and a plain client that publishes."""

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edge.sources import Source
from edge.sources.mqtt import MqttSource, MqttSourceOptions, parse_address
from plant.batch import Batch, concat
from plant.texts import Texts

DEADLINE_S = 20.0


class Mosquitto:
    """A broker on loopback. `extra` are further lines of its configuration."""

    def __init__(self, folder: Path, *extra: str, anonymous: bool = True) -> None:
        path = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
        if path is None:
            message = "Mosquitto is not installed (Debian package: mosquitto)"
            if os.environ.get("CI"):
                pytest.fail(message)
            pytest.skip(message)
        self.path = path
        self.folder = folder
        self.extra = extra
        self.anonymous = anonymous
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    def __enter__(self) -> "Mosquitto":
        lines = [
            f"listener {self.port} 127.0.0.1",
            f"allow_anonymous {'true' if self.anonymous else 'false'}",
            "max_queued_messages 100000",
            "set_tcp_nodelay true",
            "log_dest stderr",
            *(["user root"] if os.geteuid() == 0 else []),
            *self.extra,
        ]
        path = self.folder / f"mosquitto-{self.port}.conf"
        path.write_text("\n".join(lines) + "\n")
        with (self.folder / "mosquitto.log").open("ab") as log:
            self.process = subprocess.Popen([self.path, "-c", str(path)], stderr=log, stdout=log)
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return self
            time.sleep(0.02)
        pytest.fail(f"Mosquitto does not listen: {(self.folder / 'mosquitto.log').read_text()[-2000:]}")

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(DEADLINE_S)


class Client:
    """A plain client: publishes, and keeps what it is sent on `topic`."""

    def __init__(self, port: int, topic: str = "", *, user: str = "", password: str = "") -> None:
        self.messages: list[paho.MQTTMessage] = []
        ready = threading.Event()
        self.client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        if user:
            self.client.username_pw_set(user, password)
        self.client.on_message = lambda _client, _data, message: self.messages.append(message)
        self.client.on_subscribe = lambda *_: ready.set()
        self.client.on_connect = lambda client, *_: client.subscribe(topic, 1) if topic else ready.set()
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert ready.wait(DEADLINE_S)

    def publish(self, topic: str, payload: bytes | str, *, retain: bool = False, qos: int = 1) -> None:
        self.client.publish(topic, payload, qos, retain).wait_for_publish(DEADLINE_S)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@contextlib.contextmanager
def plant(folder: Path, topic: str = "", *extra: str) -> Iterator[tuple[Mosquitto, Client]]:
    with Mosquitto(folder, *extra) as broker, Client(broker.port, topic) as client:
        yield broker, client


def mqtt_source(port: int, rows: dict[int, tuple[str, str]], texts: Texts | None = None, **more: Any) -> MqttSource:
    """A source of the tags of `rows`: index -> (address, type)."""
    options = MqttSourceOptions(**{"type": "mqtt", "name": "hall", "port": port, "connect_timeout_s": 2, **more})
    points = [parse_address(tag, address, kind) for tag, (address, kind) in rows.items()]
    return MqttSource(options, points, texts or Texts())


async def read_rows(source: Source, count: int) -> Batch:
    """Read until so many readings have come."""
    batches: list[Batch] = []
    async with asyncio.timeout(DEADLINE_S):
        while sum(len(batch) for batch in batches) < count:
            batches.append(await source.read())
    return concat(batches)


def as_rows(batch: Batch) -> list[tuple[int, float, int]]:
    return list(zip(batch.tag.tolist(), batch.value.tolist(), batch.quality.tolist(), strict=True))
