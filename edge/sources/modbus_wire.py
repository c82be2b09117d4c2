"""Modbus TCP frames on the wire, over TCP or UDP: read requests out, replies in, matched by transaction id.

Owns the socket and every check that tells a right reply from a wrong one (transaction id, protocol id, unit id,
function code, byte count). Leaves to `modbus` what to read and what a failure means. Never writes to a device: it can
encode the four read functions and nothing else.

Frames: MODBUS Messaging on TCP/IP Implementation Guide V1.0b, 3.1.3; functions and exceptions: MODBUS Application
Protocol V1.1b3, 6 and 7.
"""

import asyncio
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, cast

from edge.errors import Disconnected, Unreachable
from edge.sources.modbus_blocks import bytes_due
from plant.instant import Instant

_HEADER: Final = struct.Struct(">HHHBB")
_REQUEST: Final = struct.Struct(">HHHBBHH")
_LENGTH_MAX: Final = 254
"""Unit id and PDU of 253 bytes."""
_LATE_MAX: Final = 256
"""So many requests without a reply are remembered."""
_CLOSE_S_MAX: Final = 1.0

EXCEPTIONS: Final[dict[int, str]] = {
    1: "illegal function",
    2: "illegal data address",
    3: "illegal data value",
    4: "server device failure",
    5: "acknowledge",
    6: "server device busy",
    8: "memory parity error",
    10: "gateway path unavailable",
    11: "gateway target device failed to respond",
}


class ReplyTimeout(Exception):
    """No reply in time; the connection stands, and a late reply will not be taken for another one. The message says
    what came instead, if anything did.
    """


class MalformedReply(Exception):
    """A whole frame came that does not answer the request; the message says what is wrong with it."""


class ExceptionReply(Exception):
    """The device answered with an exception."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exception {code}, {EXCEPTIONS.get(code, 'not in the standard')}")
        self.code = code


@dataclass(frozen=True, slots=True)
class Reply:
    """payload: the data bytes, exactly as many as asked for. utc: ns, when its last byte arrived."""

    payload: bytes
    utc: int


@dataclass(frozen=True, slots=True)
class _Asked:
    unit_id: int
    function: int
    bytes_due: int
    reply: asyncio.Future[Reply]


class ModbusConnection(asyncio.Protocol):
    """One TCP connection or UDP address; any number of requests may be outstanding.

    peer: how messages call the other side. check_unit_id: False takes a reply with any unit id, the transaction id
    alone decides. late: replies that came after their time-out and were thrown away.
    overdue: transaction ids whose reply may still come, until a later request is answered.
    """

    def __init__(self, peer: str, clock: Callable[[], Instant], *, check_unit_id: bool = True) -> None:
        self.late = 0
        self.overdue: set[int] = set()
        self._peer = peer
        self._clock = clock
        self._check_unit_id = check_unit_id
        self._transport: asyncio.Transport | None = None
        self._asked: dict[int, _Asked] = {}
        self._buffer = b""
        self._transaction = 0
        self._reason = ""
        self._closed = asyncio.Event()

    @property
    def patience(self) -> int:
        """See Link: a serial gateway may still be waiting for the unit that was given up."""
        return 2 if self.overdue else 1

    async def request(self, unit_id: int, function: int, start: int, count: int, timeout_s: float) -> Reply:
        """Read `count` registers or bits from `start`. Raises ReplyTimeout, ExceptionReply, MalformedReply or
        Disconnected.
        """
        if self._transport is None or self._transport.is_closing():
            raise Disconnected(self._reason or f"{self._peer} is not connected")
        loop = asyncio.get_running_loop()
        transaction = self._next_transaction()
        reply: asyncio.Future[Reply] = loop.create_future()
        self._asked[transaction] = _Asked(unit_id, function, bytes_due(function, count), reply)
        timer = loop.call_later(timeout_s, self._expire, reply)
        self._transport.write(_REQUEST.pack(transaction, 0, 6, unit_id, function, start, count))
        try:
            return await reply
        finally:
            timer.cancel()
            if self._asked.pop(transaction, None) is not None and len(self.overdue) < _LATE_MAX:
                self.overdue.add(transaction)

    async def close(self) -> None:
        """Close the socket: at once with a living peer, within a second with a dead one."""
        if self._transport is None:
            return
        self._reason = self._reason or f"{self._peer} was disconnected by the gateway"
        self._transport.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S_MAX):
                await self._closed.wait()
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio: every outstanding request ends now, not at its time-out."""
        if not self._reason:
            self._reason = f"{self._peer} closed the connection" + (f": {exc}" if exc else "")
        self._closed.set()
        for asked in self._asked.values():
            if not asked.reply.done():
                asked.reply.set_exception(Disconnected(self._reason))

    def data_received(self, data: bytes) -> None:
        """Called by asyncio: take every whole frame out of the stream."""
        buffer = self._buffer + data if self._buffer else data
        at = 0
        while len(buffer) - at >= _HEADER.size:
            transaction, protocol, length, unit_id, function = _HEADER.unpack_from(buffer, at)
            if protocol != 0 or not 3 <= length <= _LENGTH_MAX:
                self._abort(f"{self._peer} sent bytes that are no Modbus TCP: {buffer[at : at + 8].hex(' ')}")
                return
            end = at + 6 + length
            if end > len(buffer):
                break
            self._answer(transaction, unit_id, function, buffer[at + 8 : end])
            at = end
        self._buffer = buffer[at:]

    def datagram_received(self, data: bytes) -> None:
        """Take the one frame of a datagram; one that is none, or not whole, is as good as lost."""
        if len(data) < _HEADER.size:
            return
        transaction, protocol, length, unit_id, function = _HEADER.unpack_from(data)
        if protocol == 0 and 3 <= length <= _LENGTH_MAX and len(data) == 6 + length:
            self._answer(transaction, unit_id, function, data[8:])

    def _answer(self, transaction: int, unit_id: int, function: int, data: bytes) -> None:
        asked = self._asked.pop(transaction, None)
        if asked is None:
            self.late += 1
            self.overdue.discard(transaction)
            return
        if asked.reply.done():
            return
        self.overdue.clear()
        is_other_unit = self._check_unit_id and unit_id != asked.unit_id
        if is_other_unit or function & 0x7F != asked.function:
            wrong = f"unit {unit_id} and function {function} where {asked.unit_id} and {asked.function} were asked for"
            asked.reply.set_exception(MalformedReply(f"the reply has {wrong}"))
        elif function & 0x80:
            asked.reply.set_exception(ExceptionReply(data[0]))
        elif data[0] != asked.bytes_due or len(data) - 1 != asked.bytes_due:
            short = f"{len(data) - 1} data bytes (it states {data[0]}) where {asked.bytes_due} were asked for"
            asked.reply.set_exception(MalformedReply(f"the reply has {short}"))
        else:
            asked.reply.set_result(Reply(data[1:], self._clock().utc))

    def refused(self, error: Exception) -> None:
        """The network says that nobody is there (UDP)."""
        self._abort(f"{self._peer} cannot be reached: {getattr(error, 'strerror', None) or error}")

    def _next_transaction(self) -> int:
        while True:
            self._transaction = (self._transaction + 1) & 0xFFFF
            if self._transaction not in self._asked and self._transaction not in self.overdue:
                return self._transaction

    def _expire(self, reply: asyncio.Future[Reply]) -> None:
        if not reply.done():
            reply.set_exception(ReplyTimeout)

    def _abort(self, reason: str) -> None:
        self._reason = reason
        self._buffer = b""
        assert self._transport is not None
        self._transport.abort()


class _Datagrams(asyncio.DatagramProtocol):
    """Lets a connection talk in datagrams, to one address: sends whole frames, passes whole frames on."""

    def __init__(self, connection: ModbusConnection) -> None:
        self._connection = connection
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        self._connection.connection_made(cast(asyncio.BaseTransport, self))

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)

    def datagram_received(self, data: bytes, addr: object) -> None:  # noqa: ARG002 - asyncio's signature
        self._connection.datagram_received(data)

    def error_received(self, exc: Exception) -> None:
        self._connection.refused(exc)

    def write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.sendto(data)

    def is_closing(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


async def connect(
    host: str, port: int, *, peer: str, timeout_s: float, clock: Callable[[], Instant], check_unit_id: bool = True
) -> ModbusConnection:
    """Open a TCP connection. Raises Unreachable."""
    connection = ModbusConnection(peer, clock, check_unit_id=check_unit_id)
    await dial(host, port, connection, peer=peer, timeout_s=timeout_s)
    return connection


async def connect_udp(
    host: str, port: int, *, peer: str, timeout_s: float, clock: Callable[[], Instant], check_unit_id: bool = True
) -> ModbusConnection:
    """Open a UDP socket to one address; whether somebody is there shows with the first request. Raises Unreachable."""
    connection = ModbusConnection(peer, clock, check_unit_id=check_unit_id)
    loop = asyncio.get_running_loop()
    await _within(
        loop.create_datagram_endpoint(lambda: _Datagrams(connection), remote_addr=(host, port)), peer, timeout_s
    )
    return connection


async def dial(host: str, port: int, protocol: asyncio.Protocol, *, peer: str, timeout_s: float) -> None:
    """Open a TCP connection for any protocol. Raises Unreachable."""
    loop = asyncio.get_running_loop()
    await _within(loop.create_connection(lambda: protocol, host, port), peer, timeout_s)


async def _within(opening: Awaitable[object], peer: str, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await opening
    except TimeoutError as error:
        raise Unreachable(f"{peer} does not answer: no connection within {timeout_s:g} s") from error
    except OSError as error:
        raise Unreachable(f"{peer} cannot be reached: {error.strerror or error}") from error
