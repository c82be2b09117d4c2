"""A stretch of TCP in front of a PLC: hears every byte that the gateway sends, can fall silent without hanging up."""

import asyncio
import contextlib
import struct
import threading
from collections import Counter
from collections.abc import Iterator

DEADLINE_S = 10.0

OPCUA_HEADER_BYTES = 24
"""Message header, channel, token, sequence number and request id before the body (OPC 10000-6, 6.7.2)."""
OPCUA_MESSAGE, OPCUA_OPEN = b"MSG", b"OPN"
FOUR_BYTE_NODE = 1


class Tap:
    """A context manager; connections made to `port` end at `target`. deaf: nothing passes any more, either way."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.deaf = threading.Event()
        self.said: list[bytearray] = []
        """What the gateway sent, per connection."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tap")
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    def __enter__(self) -> "Tap":
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(DEADLINE_S)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(DEADLINE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE_S)
        self._loop.close()

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await asyncio.sleep(0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard = bytearray()
        self.said.append(heard)
        self._writers.add(writer)
        try:
            back, forth = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self._writers.add(forth)
        ways = [asyncio.ensure_future(w) for w in (self._copy(reader, forth, heard), self._copy(back, writer, None))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for one in (writer, forth):
                one.transport.abort()
                self._writers.discard(one)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, heard: bytearray | None) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                if heard is not None:
                    heard += data
                if not self.deaf.is_set():
                    writer.write(data)
                    await writer.drain()


def modbus_functions(said: list[bytearray]) -> Counter[int]:
    """Count the function codes of the requests (MODBUS Messaging on TCP/IP, 3.1.3)."""
    found: Counter[int] = Counter()
    for stream in said:
        at = 0
        while at + 8 <= len(stream):
            (length,) = struct.unpack_from(">H", stream, at + 4)
            found[stream[at + 7]] += 1
            at += 6 + length
    return found


def opcua_services(said: list[bytearray]) -> Counter[int]:
    """Count the services by the numeric node id of the request's binary encoding (OPC 10000-6, 5.2.2.9 and annex A)."""
    found: Counter[int] = Counter()
    for stream in said:
        for start, size in _chunks(stream):
            if stream[start : start + 3] == OPCUA_MESSAGE and size > OPCUA_HEADER_BYTES:
                encoding, _, service = struct.unpack_from("<BBH", stream, start + OPCUA_HEADER_BYTES)
                found[service if encoding == FOUR_BYTE_NODE else -1] += 1
    return found


def _chunks(stream: bytearray) -> Iterator[tuple[int, int]]:
    at = 0
    while at + 8 <= len(stream):
        (size,) = struct.unpack_from("<I", stream, at + 4)
        yield at, size
        at += size
