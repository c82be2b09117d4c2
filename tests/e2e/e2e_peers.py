"""What the tests of the whole gateway stand on: plant, broker and daemon as child processes, and the way to each."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edge.control import Control
from edge.errors import AndonError
from edge.simulator.control import ask
from edge.tick import Reply
from edge.view import AlarmView, DeviceView, Snapshot

T = TypeVar("T")
HERE = Path(__file__).parent
PROJECT = HERE.parents[1]
DEADLINE_S = 30.0
POLL_S = 0.05
STOP_S = 15.0
SITE = "example/plant1"
GATEWAY = f"{SITE}/_gateway/gw1"


def needed(program: str, package: str) -> str:
    """The path of a program of the operating system; without it the test is skipped, but in CI it fails."""
    path = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        message = f"{program} is not installed (Debian package: {package})"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(probe: Callable[[], T], what: str | Callable[[], str], deadline_s: float = DEADLINE_S) -> T:
    """Ask again and again until the answer is true; return it."""
    end = time.monotonic() + deadline_s
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > end:
            pytest.fail(f"did not happen within {deadline_s:g} s: {what if isinstance(what, str) else what()}")
        time.sleep(POLL_S)


class SimulatedPlant:
    """The plant in a child process. plcs: those that run, by default all."""

    def __init__(self, folder: Path, speed: float = 1.0, plcs: str = "cnc,press,strip,inspection") -> None:
        self.log = folder / "plant.log"
        command = [sys.executable, str(HERE / "e2e_plant.py"), str(speed), plcs]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, cwd=PROJECT)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait(DEADLINE_S)
            pytest.fail(f"the plant did not start: {self.log.read_text()[-2000:]}")
        self.ports: dict[str, int] = json.loads(line)

    def fault(self, fault: str, **arguments: Any) -> str:
        return asyncio.run(ask("127.0.0.1", self.ports["control"], {"fault": fault, **arguments}))

    def stop(self) -> None:
        _end(self.process)
        assert self.process.stdout is not None
        self.process.stdout.close()


class Broker:
    """A Mosquitto that may be stopped and started again at its port. lines: more of its configuration."""

    def __init__(self, folder: Path, *lines: str) -> None:
        self.program = needed("mosquitto", "mosquitto")
        self.folder = folder
        self.lines = lines or ("allow_anonymous true",)
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        conf, path = self.folder / "mosquitto.conf", self.folder / "mosquitto.log"
        user = ["user root"] if os.geteuid() == 0 else []
        base = [f"listener {self.port} 127.0.0.1", "max_queued_messages 100000", "set_tcp_nodelay true"]
        conf.write_text("\n".join([*base, "log_dest stderr", *user, *self.lines]) + "\n")
        with path.open("ab") as log:
            self.process = subprocess.Popen([self.program, "-c", str(conf)], stdout=log, stderr=log)
        until(lambda: _listens(self.port), lambda: f"Mosquitto listens: {path.read_text()[-2000:]}")

    def stop(self) -> None:
        if self.process is not None:
            _end(self.process)
            self.process = None


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def _end(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Subscriber:
    """Collects what a plain client of the broker sees; `at` gives the monotonic time of each arrival."""

    def __init__(self, port: int, topic: str = "#") -> None:
        self.messages: list[paho.MQTTMessage] = []
        self.client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        subscribed = threading.Event()
        self.client.on_message = self._on_message
        self.client.on_connect = lambda client, *_: client.subscribe(topic, 1)
        self.client.on_subscribe = lambda *_: subscribed.set()
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert subscribed.wait(DEADLINE_S)

    def _on_message(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        self.messages.append(message)  # an append is atomic, readers copy

    def __enter__(self) -> "Subscriber":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def on(self, ending: str) -> list[dict[str, Any] | None]:
        """The payloads of all topics that end so, in order; None for an empty one."""
        return [json.loads(m.payload) if m.payload else None for m in list(self.messages) if m.topic.endswith(ending)]

    def last(self, ending: str) -> dict[str, Any] | None:
        found = self.on(ending)
        return found[-1] if found else None

    def events(self, **fields: Any) -> list[dict[str, Any]]:
        """The events that carry these fields, in order of arrival."""
        return [e for e in self.on("/event") if e and all(e.get(name) == value for name, value in fields.items())]

    def publish(self, topic: str, payload: dict[str, Any]) -> None:
        self.client.publish(topic, json.dumps(payload), 1).wait_for_publish(DEADLINE_S)

    def command(self, key: str, name: str, **arguments: Any) -> dict[str, Any]:
        """Send a command and return the reply."""
        self.publish(f"{GATEWAY}/command", {"v": 1, "id": key, "name": name, "user": "anna", "arguments": arguments})

        def replied() -> dict[str, Any] | None:
            return next((r for r in self.on("/reply") if r and r["id"] == key), None)

        return until(replied, f"reply to {name}")


class Daemon:
    """One gateway with a configuration and a state of its own."""

    def __init__(self, folder: Path, ports: dict[str, int], broker_port: int) -> None:
        self.folder = folder / "config"
        self.state_dir = folder / "state"
        self.stderr = folder / "stderr.log"
        self.stdout = folder / "stdout.log"
        self.web_port = free_port()
        self.prefix: list[str] = []
        self.program = ["-m", "edge.cli"]
        self.environment: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None
        shutil.copytree(PROJECT / "config", self.folder)
        local = "opc.tcp://127.0.0.1"
        self.set("gateway", state_dir=str(self.state_dir))
        self.set("mqtt", port=broker_port, reconnect_delay_ms_max=1000, commands_enabled=True)
        self.set("web", port=self.web_port)
        self.set("device cnc", url=f"{local}:{ports['cnc']}")
        self.set("device inspection", url=f"{local}:{ports['inspection']}")
        self.set("device press", port=ports["press"])
        self.set("device strip", port=ports["strip"])

    def set(self, section: str, **options: Any) -> None:
        """Set options of a section of gateway.toml: "mqtt", or "device press" for the [[device]] of that name."""
        path = self.folder / "gateway.toml"
        kind, _, name = section.partition(" ")
        parts = re.split(r"(?m)^(?=\[)", path.read_text())
        (place,) = [
            i
            for i, part in enumerate(parts)
            if part.startswith(f'[[{kind}]]\nname = "{name}"' if name else f"[{kind}]\n")
        ]
        header, _, lines = parts[place].partition("\n")
        kept = [line for line in lines.splitlines() if line.partition("=")[0].strip() not in options]
        told = [f"{option} = {json.dumps(value)}" for option, value in options.items()]
        # A [[device]] begins with its name, by which it is found the next time.
        parts[place] = "\n".join([header, *kept[:1], *told, *kept[1:]]) + "\n"
        path.write_text("".join(parts))

    def set_cell(self, file: str, row: str, column: str, value: str) -> None:
        """Change one cell of a CSV file of the configuration, in the row that begins with `row`."""
        path = self.folder / file
        lines = path.read_text().splitlines()
        header = next(line for line in lines if line and not line.startswith("#")).split(",")
        (place,) = [i for i, line in enumerate(lines) if line.startswith(f"{row},")]
        cells = lines[place].split(",")
        cells[header.index(column)] = value
        lines[place] = ",".join(cells)
        path.write_text("\n".join(lines) + "\n")

    def launch(self) -> None:
        """Start the process without waiting for anything."""
        command = [sys.executable, *self.program, "run", "--no-watch", "--config", str(self.folder)]
        environment = os.environ | self.environment
        with self.stderr.open("ab") as err, self.stdout.open("ab") as out:
            self.process = subprocess.Popen(
                [*self.prefix, *command], cwd=PROJECT, stdout=out, stderr=err, env=environment
            )

    def start(self) -> None:
        """Start and wait until the control socket answers."""
        self.launch()
        until(lambda: self.gone() or self.answers(), lambda: f"the gateway answers: {self.tail()}")
        assert not self.gone(), self.tail()

    def gone(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def answers(self) -> bool:
        with contextlib.suppress(AndonError):
            self.status()
            return True
        return False

    def stop(self) -> int:
        """Ask it to stop; return its exit code."""
        process = self.process
        if process is None:
            return 0
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            return process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail(f"the gateway did not stop within {STOP_S:g} s: {self.tail()}")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def hang_up(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    # What it says

    @contextlib.contextmanager
    def control(self) -> Iterator[Control]:
        with Control(self.state_dir) as control:
            yield control

    def status(self) -> Snapshot:
        with self.control() as control:
            return control.status()

    def status_now(self) -> Snapshot:
        """The state as it is now: what `status` shows may be a quarter of a second old."""
        asked = time.time_ns()
        return until(lambda: (s := self.status()).time >= asked and s, "a fresh snapshot")

    def device(self, name: str) -> DeviceView:
        return next(device for device in self.status().devices if device.name == name)

    def alarm(self, name: str) -> AlarmView | None:
        return next((alarm for alarm in self.status().alarms if alarm.alarm == name), None)

    def active(self, name: str) -> AlarmView | None:
        alarm = self.alarm(name)
        return alarm if alarm is not None and alarm.active else None

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        with self.control() as control:
            return [tuple(row) for row in control.query(statement).rows]

    def scalar(self, statement: str) -> Any:
        return self.sql(statement)[0][0]

    def do(self, name: str, **arguments: Any) -> Reply:
        with self.control() as control:
            return control.command(name, arguments, "anna")

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.web_port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def tags(self) -> dict[str, dict[str, Any]]:
        status, body = self.get("/api/tags?limit=500")
        assert status == 200, body
        return {tag["name"]: tag for tag in json.loads(body)["tags"]}

    def all_alive(self) -> bool:
        status = self.status()
        return status.tags_alive == status.tags > 0

    def wait_alive(self, deadline_s: float = DEADLINE_S) -> None:
        until(self.all_alive, lambda: f"all tags alive: {self.status().devices}", deadline_s)

    def lines(self, event: str = "") -> list[dict[str, Any]]:
        """What it logged, by the message of the entry."""
        entries = [json.loads(line) for line in self.stderr.read_text().splitlines() if line.startswith("{")]
        return [entry for entry in entries if not event or entry["event"] == event]

    def noise(self) -> list[str]:
        """What stands on stderr and is no entry of the log: tracebacks, warnings."""
        return [line for line in self.stderr.read_text().splitlines() if line and not re.match(r'^\{".*\}$', line)]

    def tail(self) -> str:
        return self.stderr.read_text()[-3000:] if self.stderr.exists() else ""

    def run(self, *arguments: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run an `andon` command on this configuration."""
        command = [sys.executable, "-m", "edge.cli", arguments[0], "--config", str(self.folder), *arguments[1:]]
        return subprocess.run(
            command, cwd=PROJECT, capture_output=True, text=True, timeout=timeout_s, check=False, env=os.environ
        )
