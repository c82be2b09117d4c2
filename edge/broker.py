"""A broker on loopback for a plant that runs on one machine: Mosquitto where it is installed, else amqtt.

Meant for the demonstration plant and for trying things out; a real plant has its own broker. Owns the broker's
process (or thread) from start to stop and keeps nothing on disk but its generated configuration.
"""

import asyncio
import contextlib
import logging
import os
import shutil
import socket
import threading
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from edge.errors import Unreachable

HOST: Final = "127.0.0.1"
START_S: Final = 10.0
STOP_S: Final = 5.0
QUEUED_MESSAGES_MAX: Final = 100_000
"""Messages that Mosquitto keeps for one slow subscriber."""
STDERR_MAX: Final = 2_000
PORT_TRIES: Final = 5

Kind = Literal["mosquitto", "amqtt"]


class Broker(Protocol):
    """A broker that listens on `host`:`port` between `start` and `stop`."""

    kind: Kind
    protocol: Literal["5", "3.1.1"]
    """The newest version of MQTT that it speaks."""
    host: str
    port: int

    async def start(self) -> None:
        """Listen. Raises Unreachable with what is in the way."""

    async def stop(self) -> None:
        """End. Idempotent."""


def mosquitto_path() -> str | None:
    """Return where Mosquitto is installed; Debian keeps it outside of an ordinary user's PATH."""
    return shutil.which("mosquitto", path=os.environ.get("PATH", os.defpath) + os.pathsep + "/usr/sbin:/usr/local/sbin")


def embedded(state_dir: Path, port: int = 0) -> Broker:
    """Choose a broker. port 0: a free one is found at the start."""
    path = mosquitto_path()
    return AmqttBroker(port) if path is None else MosquittoBroker(path, state_dir / "broker", port)


class MosquittoBroker:
    """Mosquitto as a child process; it ends with us even if we are killed, where setpriv is there to see to it."""

    kind: Kind = "mosquitto"
    protocol: Literal["5", "3.1.1"] = "5"

    def __init__(self, path: str, folder: Path, port: int = 0) -> None:
        self.host = HOST
        self.port = port
        self._path = path
        self._folder = folder
        self._fixed = port != 0
        self._process: asyncio.subprocess.Process | None = None

    def configuration(self) -> str:
        """Return the least that Mosquitto needs to know."""
        lines = [
            f"listener {self.port} {self.host}",
            "allow_anonymous true",
            "persistence false",
            "set_tcp_nodelay true",
            f"max_queued_messages {QUEUED_MESSAGES_MAX}",
            "log_dest stderr",
            "log_type error",
            "log_type warning",
        ]
        if os.geteuid() == 0:
            # Mosquitto would change to its own user, and a change of user cancels the signal at our death.
            lines.append("user root")
        return "\n".join(lines) + "\n"

    async def start(self) -> None:
        for attempt in range(PORT_TRIES):
            if not self._fixed:
                self.port = _free_port()
            elif await _listens(self.host, self.port):
                raise Unreachable(f"port {self.port} on {self.host} is taken: set another port for the broker")
            failure = await self._try_to_start()
            if failure is None:
                return
            if self._fixed or attempt == PORT_TRIES - 1:
                raise Unreachable(f"{self._path} did not start on {self.host}:{self.port}: {failure}")

    async def _try_to_start(self) -> str | None:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / "mosquitto.conf"
        path.write_text(self.configuration())
        command = [self._path, "-c", str(path)]
        setpriv = shutil.which("setpriv")
        if setpriv is not None:
            command = [setpriv, "--pdeathsig", "TERM", *command]
        errors = self._folder / "mosquitto.log"
        with errors.open("wb") as stderr:
            process = self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,  # Ctrl-C is for us: the broker ends after we have said goodbye
            )
        deadline = asyncio.get_running_loop().time() + START_S
        while process.returncode is None and asyncio.get_running_loop().time() < deadline:
            if await _listens(self.host, self.port):
                return None
            await asyncio.sleep(0.02)
        await self.stop()
        said = errors.read_text(errors="replace").strip()[-STDERR_MAX:]
        return said or f"no answer within {START_S} s, exit code {process.returncode}"

    async def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_S)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
        await process.wait()


class AmqttBroker:
    """amqtt in a thread with an event loop of its own, so that a busy broker never holds up a step of the line."""

    kind: Kind = "amqtt"
    protocol: Literal["5", "3.1.1"] = "3.1.1"

    def __init__(self, port: int = 0) -> None:
        self.host = HOST
        self.port = port
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Event | None = None
        self._failure = ""

    async def start(self) -> None:
        if self.port == 0:
            self.port = _free_port()
        elif await _listens(self.host, self.port):
            raise Unreachable(f"port {self.port} on {self.host} is taken: set another port for the broker")
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), name="amqtt", daemon=True)
        self._thread.start()
        if not await asyncio.to_thread(started.wait, START_S) or self._failure:
            await self.stop()
            raise Unreachable(f"amqtt did not start on {self.host}:{self.port}: {self._failure or 'no answer'}")

    def _run(self, started: threading.Event) -> None:
        asyncio.run(self._serve(started))

    async def _serve(self, started: threading.Event) -> None:
        try:
            from amqtt.broker import Broker as AmqttServer
            from amqtt.errors import AMQTTError, BrokerError
        except ImportError as error:
            self._failure = f"neither Mosquitto nor amqtt is installed ({error})"
            started.set()
            return

        class Server(AmqttServer):  # type: ignore[misc]
            """amqtt forgets connections that end before they said who they are; here each one is closed."""

            async def stream_connected(self, reader: Any, writer: Any, listener_name: str) -> None:
                try:
                    await super().stream_connected(reader, writer, listener_name)
                finally:
                    writer.close()

        # It logs each connection; what matters of it the gateway tells itself.
        for name in ("amqtt", "transitions"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        configuration = {
            "listeners": {"default": {"type": "tcp", "bind": f"{self.host}:{self.port}"}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
        self._loop = asyncio.get_running_loop()
        self._ending = asyncio.Event()
        try:
            broker = Server(configuration)
            await broker.start()
        except (AMQTTError, BrokerError, OSError) as error:
            self._failure = str(error)
            started.set()
            return
        started.set()
        await self._ending.wait()
        await broker.shutdown()

    async def stop(self) -> None:
        thread, self._thread = self._thread, None
        if thread is None:
            return
        if self._loop is not None and self._ending is not None:
            with contextlib.suppress(RuntimeError):  # it ended by itself
                self._loop.call_soon_threadsafe(self._ending.set)
        await asyncio.to_thread(thread.join, STOP_S)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


async def _listens(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True
