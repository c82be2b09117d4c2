"""The simulator's control line: JSON lines over TCP on loopback, one request and one reply per line.

Request: {"fault": "stop", "machine": "press", "reason": "breakdown"}. Reply: {"ok": true, "message": "..."}.
There is no authentication: whoever may open a port on this machine may break the simulated plant. A line that is no
JSON object closes the connection, so a browser cannot smuggle a request in.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from edge.errors import Refused, Unreachable

LINE_BYTES_MAX = 65_536
REPLY_TIMEOUT_S = 30.0
CONNECTIONS_MAX = 16

Handler = Callable[[dict[str, Any]], Awaitable[str]]


class ControlLine:
    """Listens for requests and hands them to `handle`, one after the other per connection."""

    def __init__(self, handle: Handler, host: str, port: int) -> None:
        self.port = port
        self._handle = handle
        self._host = host
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Listen. Raises Unreachable."""
        try:
            self._server = await asyncio.start_server(self._serve, self._host, self.port, limit=LINE_BYTES_MAX)
        except OSError as error:
            raise Unreachable(f"control: cannot listen on {self._host}:{self.port}: {error.strerror}") from error
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and close every connection; idempotent."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
            for writer in list(self._open):
                writer.close()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= CONNECTIONS_MAX:
            writer.close()
            return
        self._open.add(writer)
        try:
            while line := await reader.readline():
                request = json.loads(line)
                if not isinstance(request, dict):
                    break
                writer.write(json.dumps(await self._reply(request)).encode() + b"\n")
                await writer.drain()
        except (ValueError, OSError):
            pass  # No JSON, a line that is too long, or a peer that went away: the connection ends.
        finally:
            self._open.discard(writer)
            writer.close()

    async def _reply(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"ok": True, "message": await self._handle(request)}
        except (Refused, Unreachable) as error:
            return {"ok": False, "message": str(error)}


async def ask(host: str, port: int, request: dict[str, Any]) -> str:
    """Send one request and return the message of its reply. Raises Unreachable or Refused."""
    where = f"the simulator's control line at {host}:{port}"
    try:
        async with asyncio.timeout(REPLY_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(json.dumps(request).encode() + b"\n")
                line = await reader.readline()
            finally:
                writer.close()
                await writer.wait_closed()
    except OSError as error:
        raise Unreachable(f"{where} does not answer ({error}); is `andon simulate` running?") from error
    if not line:
        raise Unreachable(f"{where} closed the connection without an answer")
    reply = json.loads(line)
    if not reply["ok"]:
        raise Refused(reply["message"])
    return str(reply["message"])
