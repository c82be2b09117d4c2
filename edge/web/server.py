"""`Web`: binds the two sockets, serves both faces inside the gateway's event loop, and leaves nothing behind.

Signals belong to the gateway, so uvicorn's own handlers are off. `open` comes before anything else of the gateway is
opened: the lock beside the control socket is what tells a second daemon that the state directory is taken.
"""

import asyncio
import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import uvicorn
from starlette.applications import Starlette

from edge.errors import ConfigError, Problem, StorageError
from edge.web.app import control_app, page_app
from edge.web.gateway import Gateway
from edge.web.login import Gate
from edge.web.options import WebOptions
from edge.web.stream import Frames
from edge.web.users import USERS_FILE, Users

SOCKET_PATH_BYTES_MAX: Final = 107
"""sun_path of Linux has 108 bytes, the last of them zero (unix(7))."""

BACKLOG: Final = 64
SHUTDOWN_S_MAX: Final = 2
KEEP_ALIVE_S: Final = 15
TICK_S: Final = 1.0
"""uvicorn refreshes its Date header on this beat; ten times a second, its own, would be half of our idle cost."""


class _Server(uvicorn.Server):
    """uvicorn without signal handlers, told to stop by an event instead of looking ten times a second."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.stop = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        while not self.stop.is_set():
            await self.on_tick(0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stop.wait(), TICK_S)


async def serve(app: Starlette, sock: socket.socket, connections_max: int, frames: Frames | None = None) -> None:
    """Serve `app` on a bound socket until cancelled; then streams end, answers are finished, the socket is closed."""
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=connections_max,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=SHUTDOWN_S_MAX,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[sock]), name="web server")
    try:
        await asyncio.shield(serving)
    finally:
        if frames is not None:
            frames.close()
        server.stop.set()
        await serving


def bind_tcp(host: str, port: int) -> socket.socket:
    """Return a bound socket; raise ConfigError that says what to change."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        # From here on the port is taken for certain, and whoever connects early waits instead of being refused.
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        what = f"cannot listen on {host} port {port}: {error.strerror or error}"
        hint = "set [web] port to a free one, or enabled = false"
        raise ConfigError([Problem("gateway.toml", 0, what, hint)]) from error
    sock.setblocking(False)
    return sock


class ControlSocket:
    """The Unix domain socket of a state directory, and the lock that says who owns that directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sock: socket.socket | None = None
        self._lock: int | None = None

    def open(self) -> None:
        """Take the lock and bind, mode 0600. A socket file that a dead gateway left is replaced.

        Raises ConfigError if another gateway runs on this directory or the path is too long for a socket.
        """
        if len(os.fsencode(self.path)) > SOCKET_PATH_BYTES_MAX:
            what = f"the path of the control socket {self.path} is longer than {SOCKET_PATH_BYTES_MAX} bytes"
            raise ConfigError([Problem("gateway.toml", 0, what, "choose a shorter state_dir")])
        lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            what = f"another gateway runs on {self.path.parent}"
            hint = "stop it first, or give this one a state_dir of its own"
            raise ConfigError([Problem("gateway.toml", 0, what, hint)]) from error
        self._lock = lock
        self.path.unlink(missing_ok=True)
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # bind creates the file with the mode of the socket itself, so it is never there with wider rights.
        os.fchmod(self.sock.fileno(), 0o600)
        self.sock.bind(os.fspath(self.path))
        self.sock.listen(BACKLOG)
        self.sock.setblocking(False)

    def close(self) -> None:
        """Remove the socket file and let the lock go. Idempotent."""
        if self.sock is not None:
            self.sock.close()
            self.sock = None
            self.path.unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


class Web:
    """Both faces of one gateway: `open`, `run` until cancelled, `close`."""

    def __init__(self, gateway: Gateway, options: WebOptions, state_dir: Path) -> None:
        self.gateway = gateway
        self.options = options
        self.control = ControlSocket(state_dir / options.control_socket)
        self.frames = Frames(gateway.snapshot, options.stream_period_ms / 1000, options.streams_max)
        self.gate = Gate(Users(state_dir / USERS_FILE), options, gateway.audit)
        self._tcp: socket.socket | None = None
        self.url = ""

    def open(self) -> None:
        """Take the state directory and bind both sockets; `url` is known then. Raises ConfigError; all or nothing."""
        self.control.open()
        try:
            self.gate.users.load()
        except StorageError as error:
            # A damaged file of users must not stop the gateway: the page says so and lets nobody in.
            self.gate.damage = str(error)
        if not self.options.enabled:
            return
        try:
            self._tcp = bind_tcp(self.options.host, self.options.port)
        except ConfigError:
            self.control.close()
            raise
        host, port = self._tcp.getsockname()[:2]
        self.url = f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"

    async def run(self) -> None:
        """Serve until cancelled. `close` afterwards."""
        if self.control.sock is None:
            raise RuntimeError("open() comes before run()")
        limit = self.options.connections_max
        async with asyncio.TaskGroup() as group:
            app = control_app(self.gateway, self.options, self.frames, self.gate)
            group.create_task(serve(app, self.control.sock, limit), name="web control")
            if self._tcp is not None:
                app = page_app(self.gateway, self.options, self.frames, self.gate)
                group.create_task(serve(app, self._tcp, limit, self.frames), name="web page")

    def close(self) -> None:
        """Give everything back. Idempotent."""
        if self._tcp is not None:
            self._tcp.close()
            self._tcp = None
        self.control.close()
