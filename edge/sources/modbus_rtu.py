"""Modbus RTU on the wire: read requests out, replies in, over any pipe of bytes (a serial port, a TCP socket).

Owns the frames (unit id, function, CRC), the silence between them, and the question whose reply a frame is. RTU has no
transaction id, so a reply that comes after its time-out looks like the reply to the next request. Three rules keep it
from being taken for one:

- what came before a request was sent is never its reply, and after trouble the line must be silent first;
- a frame must have the unit id, the function and the byte count that were asked for, and a right CRC;
- a unit that owes a reply is first asked for something whose reply is different, mostly for one register less:
  a unit answers in the order in which it was asked, so after that the old reply cannot come any more. See `Debts`.

Frames: MODBUS over Serial Line Specification V1.02, 2.5.1; CRC: its appendix B (polynomial 0xA001, preset 0xFFFF).
"""

import asyncio
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Protocol, cast

from edge.errors import Disconnected
from edge.sources.modbus_blocks import bytes_due
from edge.sources.modbus_wire import ExceptionReply, MalformedReply, Reply, ReplyTimeout
from plant.instant import NS_PER_S, Instant

SILENCE_CHARACTERS: Final = 3.5
SILENCE_S_LEAST: Final = 0.00175
"""V1.02, 2.5.1.1: 3.5 characters, and at more than 19200 bit/s a fixed 1.750 ms."""
SILENCE_S_AFTER_TROUBLE: Final = 0.02
"""After a time-out or garbage: USB adapters hand over what they have every 16 ms, so less says nothing."""
LATE_S_MAX: Final = 10.0
"""A reply that is later than this, and than twice the time-out, is taken to be lost."""
_FUNCTIONS: Final = (3, 4, 1, 2)
_DATA_MAX: Final = 250
_BUFFER_MAX: Final = 1024
_SHOWN_MAX: Final = 16
_REQUEST_SIZE: Final = 8
_OVERHEAD: Final = 5
"""Unit id, function, byte count and CRC; an exception has its code in place of the byte count."""
_CLOSE_S_MAX: Final = 1.0


def _crc_table() -> tuple[int, ...]:
    table: list[int] = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 if crc & 1 else crc >> 1
        table.append(crc)
    return tuple(table)


_CRC: Final = _crc_table()


def crc16(data: bytes) -> bytes:
    """Return the check of a frame as it stands on the line, low byte first."""
    crc = 0xFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 0xFF]
    return crc.to_bytes(2, "little")


def request_frame(unit_id: int, function: int, start: int, count: int) -> bytes:
    """Return a read request."""
    body = struct.pack(">BBHH", unit_id, function, start, count)
    return body + crc16(body)


def frame_size(data: bytes, at: int) -> int:
    """Return the size of the right reply frame, of any unit, that stands whole at `at`; 0 if none does."""
    if len(data) - at < _OVERHEAD:
        return 0
    function = data[at + 1]
    if 0x81 <= function <= 0x84:
        size = _OVERHEAD
    elif 1 <= function <= 4 and 1 <= data[at + 2] <= _DATA_MAX and not (function >= 3 and data[at + 2] % 2):
        size = _OVERHEAD + data[at + 2]
    else:
        return 0
    end = at + size
    return size if end <= len(data) and crc16(data[at : end - 2]) == data[end - 2 : end] else 0


@dataclass(slots=True)
class Debts:
    """Which replies each unit of a line still owes. It outlives a connection: a line is the same after a reconnect.

    forget_s: seconds after which a reply is taken to be lost.
    """

    forget_s: float = LATE_S_MAX
    _owed: dict[int, dict[tuple[int, int], int]] = field(default_factory=dict)
    """unit id -> (function, data bytes) -> monotonic ns of the latest request without a reply."""
    _spoken: dict[int, set[int]] = field(default_factory=dict)
    """unit id -> functions that it has answered before."""

    def sizes(self, unit_id: int, function: int, now: int) -> set[int]:
        """Return the data bytes of the replies of a function that may still come."""
        since = now - self.forget_s * NS_PER_S
        owed = self._owed.get(unit_id, {})
        return {size for (owed_function, size), at in owed.items() if owed_function == function and at > since}

    def any(self, now: int) -> bool:
        """Tell whether a reply of any unit may still come."""
        since = now - self.forget_s * NS_PER_S
        return any(at > since for owed in self._owed.values() for at in owed.values())

    def clear_question(self, unit_id: int, function: int, count: int, now: int) -> tuple[int, int]:
        """Return (function, count) of a read whose data can be told from everything that the unit owes.

        Best a part of what is to be read; else another function, one that the unit is known to answer; else more.
        """
        owed = self.sizes(unit_id, function, now)
        for fewer in range(count - 1, 0, -1):
            if bytes_due(function, fewer) not in owed:
                return function, fewer
        free = [other for other in _FUNCTIONS if not self.sizes(unit_id, other, now)]
        if free:
            spoken = self._spoken.get(unit_id, set())
            return next((other for other in free if other in spoken), free[0]), 1
        return function, next(more for more in range(count + 1, count + 1000) if bytes_due(function, more) not in owed)

    def missed(self, unit_id: int, function: int, size: int, now: int) -> None:
        """A request for so many data bytes stayed without a reply."""
        self._owed.setdefault(unit_id, {})[function, size] = now

    def paid(self, unit_id: int, function: int) -> None:
        """A reply came that nothing else can have caused: whatever the unit owed before cannot come any more."""
        self._owed.pop(unit_id, None)
        self._spoken.setdefault(unit_id, set()).add(function)


class Pipe(Protocol):
    """What is needed of a transport; asyncio's and `modbus_serial`'s have it."""

    def write(self, data: bytes) -> None: ...

    def is_closing(self) -> bool: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...


@dataclass(slots=True)
class _Asked:
    unit_id: int
    function: int
    bytes_due: int
    frame: bytes
    reply: asyncio.Future[Reply]
    is_clear: bool
    """The unit owes no reply of this function: an exception, or a reply of another size, belongs to this request."""
    echo_passed: bool = False
    is_damaged: bool = False


class RtuConnection(asyncio.Protocol):
    """One serial line, reached over a pipe; one request at a time.

    peer: how messages call the other side. character_s: seconds that a character takes on the line, 0 if not known.
    late: right frames that were no reply to what was asked, and were thrown away. patience: see Link.
    """

    patience: Final = 1

    def __init__(self, peer: str, clock: Callable[[], Instant], debts: Debts, character_s: float = 0.0) -> None:
        self.late = 0
        self._peer = peer
        self._clock = clock
        self._debts = debts
        self._character_s = character_s
        self._silence_s = max(SILENCE_CHARACTERS * character_s, SILENCE_S_LEAST)
        self._pipe: Pipe | None = None
        self._asked: _Asked | None = None
        self._buffer = b""
        self._came_at = 0
        self._troubled = True
        self._echoes: bool | None = None
        self._turn = asyncio.Lock()
        self._reason = ""
        self._closed = asyncio.Event()

    async def request(self, unit_id: int, function: int, start: int, count: int, timeout_s: float) -> Reply:
        """Read `count` registers or bits from `start`. Raises ReplyTimeout, ExceptionReply, MalformedReply or
        Disconnected.
        """
        async with self._turn:
            now = self._clock().monotonic
            if self._debts.sizes(unit_id, function, now):
                # Ask first for something that cannot be mistaken for what is owed, and throw the answer away.
                other, size = self._debts.clear_question(unit_id, function, count, now)
                with suppress(ExceptionReply):
                    await self._exchange(unit_id, other, start, size, timeout_s)
            return await self._exchange(unit_id, function, start, count, timeout_s)

    async def close(self) -> None:
        """Close the pipe: at once with a living peer, within a second with a dead one."""
        if self._pipe is None:
            return
        self._reason = self._reason or f"{self._peer} was disconnected by the gateway"
        self._pipe.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S_MAX):
                await self._closed.wait()
        self._pipe.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the transport."""
        self._pipe = cast(Pipe, transport)
        self._came_at = self._clock().monotonic

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the transport: an outstanding request ends now, not at its time-out."""
        if not self._reason:
            self._reason = f"{self._peer} closed the connection" + (f": {exc}" if exc else "")
        self._closed.set()
        if self._asked is not None and not self._asked.reply.done():
            self._asked.reply.set_exception(Disconnected(self._reason))

    def data_received(self, data: bytes) -> None:
        """Called by the transport: look for the reply in what has come since the request."""
        self._came_at = self._clock().monotonic
        self._buffer = (self._buffer + data)[-_BUFFER_MAX:]
        asked = self._asked
        if asked is not None and not asked.reply.done() and not self._is_echo(asked):
            self._search(asked)
        elif asked is None and (size := frame_size(self._buffer, 0)):
            self._pass_over(None, 0)
            self._buffer = self._buffer[size:]

    async def _exchange(self, unit_id: int, function: int, start: int, count: int, timeout_s: float) -> Reply:
        await self._wait_for_silence(timeout_s)
        pipe = self._pipe
        if pipe is None or pipe.is_closing():
            raise Disconnected(self._reason or f"{self._peer} is not connected")
        loop = asyncio.get_running_loop()
        due = bytes_due(function, count)
        frame = request_frame(unit_id, function, start, count)
        pipe.write(frame)
        self._buffer = b""
        is_clear = not self._debts.sizes(unit_id, function, self._clock().monotonic)
        self._asked = asked = _Asked(unit_id, function, due, frame, loop.create_future(), is_clear)
        on_line_s = (_REQUEST_SIZE + _OVERHEAD + due) * self._character_s
        timer = loop.call_later(timeout_s + on_line_s, self._expire, asked)
        is_settled = False
        try:
            reply = await asked.reply
            is_settled = True
        except ExceptionReply:
            is_settled = True
            raise
        finally:
            timer.cancel()
            self._asked = None
            self._troubled = not is_settled
            if is_settled:
                self._debts.paid(unit_id, function)
            else:
                self._came_at = self._clock().monotonic
                # A damaged reply is a reply all the same, if no other one can have been on its way.
                if not asked.is_damaged or self._debts.any(self._came_at):
                    self._debts.missed(unit_id, function, due, self._came_at)
        return reply

    async def _wait_for_silence(self, limit_s: float) -> None:
        """Wait until the line has been silent for long enough. Raises ReplyTimeout if it never is."""
        need = max(self._silence_s, SILENCE_S_AFTER_TROUBLE) if self._troubled else self._silence_s
        until = self._clock().monotonic + round((limit_s + need) * NS_PER_S)
        while True:
            now = self._clock().monotonic
            wait_s = need - (now - self._came_at) / NS_PER_S
            if wait_s <= 0:
                break
            if now > until:
                raise ReplyTimeout(f"its line is never silent, last came {self._shown()}")
            await asyncio.sleep(wait_s)
        self._buffer = b""

    def _is_echo(self, asked: _Asked) -> bool:
        """Tell whether what came is (part of) the request itself, as adapters for two wires return it; drop it."""
        if asked.echo_passed or self._echoes is False:
            return False
        at = self._buffer.find(asked.frame)
        if at == 0 or (at > 0 and self._echoes):
            self._buffer = self._buffer[at + _REQUEST_SIZE :]
            asked.echo_passed = True
            return not self._buffer
        # An adapter that has echoed once does so always: before the echo nothing can be the reply.
        return self._echoes is True or asked.frame.startswith(self._buffer)

    def _search(self, asked: _Asked) -> None:
        """Find the reply in the buffer; pass over everything that cannot be it."""
        at = past = 0
        data = self._buffer
        while at < len(data) and not asked.reply.done():
            size = self._expected_size(asked, at)
            if size == 0:
                foreign = frame_size(data, at)
                if foreign:
                    self._pass_over(asked, at)
                    past = at + foreign
                at += foreign or 1
                continue
            if at + size > len(data):
                break
            frame = data[at : at + size]
            if crc16(frame[:-2]) == frame[-2:]:
                past = at + size
                self._answer(asked, frame)
            elif frame[1] == asked.function:
                asked.is_damaged = True
                asked.reply.set_exception(MalformedReply("the CRC of the reply is wrong"))
            at += 1
        self._buffer = data[past:]

    def _expected_size(self, asked: _Asked, at: int) -> int:
        """Return the size of the reply, or of the exception, that may begin here; 0 if it cannot be one."""
        header = self._buffer[at : at + 3]
        if header == bytes((asked.unit_id, asked.function, asked.bytes_due)):
            return _OVERHEAD + asked.bytes_due
        if asked.is_clear and header[:2] == bytes((asked.unit_id, asked.function | 0x80)):
            return _OVERHEAD
        return 0

    def _pass_over(self, asked: _Asked | None, at: int) -> None:
        """Here stands a whole frame that is not the reply: late, of another unit, or of another size."""
        self.late += 1
        if asked and asked.is_clear and self._buffer[at : at + 2] == bytes((asked.unit_id, asked.function)):
            wrong = f"the reply has {self._buffer[at + 2]} data bytes where {asked.bytes_due} were asked for"
            asked.reply.set_exception(MalformedReply(wrong))

    def _answer(self, asked: _Asked, frame: bytes) -> None:
        if self._echoes is None:
            self._echoes = asked.echo_passed
        if frame[1] & 0x80:
            asked.reply.set_exception(ExceptionReply(frame[2]))
        else:
            asked.reply.set_result(Reply(frame[3:-2], self._clock().utc))

    def _expire(self, asked: _Asked) -> None:
        if not asked.reply.done():
            asked.reply.set_exception(ReplyTimeout(f"there came {self._shown()}" if self._buffer else ""))

    def _shown(self) -> str:
        more = " ..." if len(self._buffer) > _SHOWN_MAX else ""
        return f"only {self._buffer[:_SHOWN_MAX].hex(' ')}{more}, which is no reply; check baudrate, parity and wiring"
