"""Opens the connection that the options of a device name: transport, address, backup address.

Owns which of two addresses is used. Leaves the bytes to `modbus_wire`, `modbus_rtu` and `modbus_serial`, and what to
read and when to `modbus`.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from edge import clock as edge_clock
from edge.errors import Disconnected, Unreachable
from edge.sources.modbus_options import ModbusOptions
from edge.sources.modbus_points import FUNCTIONS
from edge.sources.modbus_rtu import LATE_S_MAX, Debts, RtuConnection
from edge.sources.modbus_serial import open_serial
from edge.sources.modbus_wire import (
    ExceptionReply,
    MalformedReply,
    Reply,
    ReplyTimeout,
    connect,
    connect_udp,
    dial,
)
from plant.instant import NS_PER_S, Instant

_BITS_PER_FRAME: Final = 9
"""Start bit and 8 data bits; parity and stop bits come on top."""


class Link(Protocol):
    """One open connection to a device, whatever the transport.

    late: replies that came after their time-out and were thrown away.
    """

    late: int

    @property
    def patience(self) -> int:
        """By how much the next time-out must be longer because something on the way may still be busy."""
        ...

    async def request(self, unit_id: int, function: int, start: int, count: int, timeout_s: float) -> Reply:
        """Read `count` registers or bits from `start`. Raises ReplyTimeout, ExceptionReply, MalformedReply or
        Disconnected.
        """
        ...

    async def close(self) -> None:
        """Let go of the connection; idempotent and bounded in time."""
        ...


def character_s(options: ModbusOptions) -> float:
    """Return the seconds that a character takes on the device's serial line, 0 where that is not known."""
    if options.transport != "rtu":
        return 0.0
    return (_BITS_PER_FRAME + (options.parity != "none") + options.stopbits) / options.baudrate


def address_name(options: ModbusOptions, address: int = 0) -> str:
    """Return how messages call an address of the device: "host:port" or the serial port."""
    if options.transport == "rtu":
        return options.serial_port
    return "{}:{}".format(*options.addresses[address])


def peer_name(options: ModbusOptions, address: int = 0) -> str:
    """Return how messages call the device at one of its addresses."""
    return f"device {options.name} at {address_name(options, address)}"


async def open_link(
    options: ModbusOptions,
    clock: Callable[[], Instant] = edge_clock.now,
    *,
    address: int = 0,
    debts: Debts | None = None,
) -> Link:
    """Open a connection and keep the pause that the device asks for. Raises Unreachable with a sentence.

    address: 0 the first, 1 the backup. debts: what the units of a serial line owe from an earlier connection.
    """
    peer = peer_name(options, address)
    timeout_s = options.connect_timeout_ms / 1000
    link: Link
    if options.is_rtu:
        link = rtu = RtuConnection(peer, clock, debts or new_debts(options), character_s(options))
        if options.transport == "rtu":
            open_serial(
                options.serial_port,
                rtu,
                peer=peer,
                baudrate=options.baudrate,
                parity=options.parity,
                stopbits=options.stopbits,
            )
        else:
            await dial(*options.addresses[address], rtu, peer=peer, timeout_s=timeout_s)
    else:
        opener = connect_udp if options.transport == "udp" else connect
        host, port = options.addresses[address]
        link = await opener(
            host, port, peer=peer, timeout_s=timeout_s, clock=clock, check_unit_id=options.check_unit_id
        )
    try:
        await asyncio.sleep(options.pause_after_connect_ms / 1000)
    except asyncio.CancelledError:
        await link.close()
        raise
    return link


def new_debts(options: ModbusOptions) -> Debts:
    """Return the memory of a serial line on which nothing has been asked yet."""
    return Debts(max(LATE_S_MAX, 2 * options.timeout_ms / 1000))


async def read_registers(
    options: ModbusOptions, unit_id: int, area: str, start: int, count: int, link: Link | None = None
) -> NDArray[np.uint16] | int:
    """Read once, outside of any source: `count` raw registers from protocol address `start` (from 0).

    link: an open one to go on using; without it one is opened for this read alone. Returns the registers as uint16
    (count,), for the areas of bits 0 or 1 each; or the code of the exception that the device answered with. Raises
    Unreachable, Disconnected, ReplyTimeout or MalformedReply.
    """
    used = link or await open_link(options)
    function = FUNCTIONS[area]
    try:
        reply = await used.request(unit_id, function, start, count, options.timeout_ms / 1000)
    except ExceptionReply as error:
        return error.code
    finally:
        if link is None:
            await used.close()
    if function <= 2:
        bits = np.unpackbits(np.frombuffer(reply.payload, np.uint8), count=count, bitorder="little")
        return bits.astype(np.uint16)
    return np.frombuffer(reply.payload, ">u2").astype(np.uint16)


@dataclass(frozen=True, slots=True)
class Question:
    """A read that tells whether a device is behind an address; any answer will do."""

    unit_id: int
    function: int
    start: int
    count: int


@dataclass(slots=True)
class Route:
    """The way to a device: its address, and a backup one where there is one.

    The backup is used when the first address cannot be reached, or is reached and says nothing. It is left again
    when the first one has answered a question, asked every `backup_return_s`, while reading goes on over the backup.
    address: the one in use. note: a sentence while it is the backup, else "".
    """

    options: ModbusOptions
    clock: Callable[[], Instant]
    address: int = 0
    note: str = ""
    debts: Debts = field(init=False)
    _start_with: int = 0
    _return_at: int = 0
    _why: str = ""
    _returning: asyncio.Task[Link | None] | None = None

    def __post_init__(self) -> None:
        self.debts = new_debts(self.options)

    @property
    def peer(self) -> str:
        """How messages call the device at the address in use."""
        return peer_name(self.options, self.address)

    async def open(self, questions: Sequence[Question] = ()) -> Link:
        """Open the address that is most likely to answer, else the other one. Raises Unreachable naming both.

        questions: one per unit id. UDP needs one: only a datagram can find out that nobody is there.
        """
        count = max(1, len(self.options.addresses))
        failures: list[str] = []
        for address in [(self._start_with + i) % count for i in range(count)]:
            try:
                link = await open_link(self.options, self.clock, address=address, debts=self.debts)
                if self.options.transport == "udp":
                    await self._knock(link, questions[:1])
            except Unreachable as error:
                failures.append(str(error))
                if address == 0:
                    self._why = str(error)
                continue
            self._use(address)
            return link
        self._start_with = 0
        raise Unreachable("; ".join(failures))

    def silent(self, why: str) -> None:
        """The address in use was reached and has nobody behind it: the next `open` starts with the other one."""
        if len(self.options.addresses) > 1:
            self._start_with = 1 - self.address
            if self.address == 0:
                self._why = why

    async def better(self, questions: Sequence[Question]) -> Link | None:
        """Return a connection to the first address once it answers again; None while there is nothing better.

        Returns at once: the questions are asked in the background, until one is answered.
        """
        if self.address == 0:
            return None
        if self._returning is None:
            if self.clock().monotonic >= self._return_at:
                self._returning = asyncio.create_task(self._try_first(tuple(questions)))
            return None
        if not self._returning.done():
            return None
        task, self._returning = self._returning, None
        link = task.result()
        if link is None:
            self._plan_return()
        else:
            self._use(0)
        return link

    async def close(self) -> None:
        """Stop looking for the first address."""
        task, self._returning = self._returning, None
        if task is None:
            return
        task.cancel()
        (link,) = await asyncio.gather(task, return_exceptions=True)
        if link is not None and not isinstance(link, BaseException):
            await link.close()

    def _use(self, address: int) -> None:
        self.address = self._start_with = address
        if address == 0:
            self.note = self._why = ""
            return
        if self.note:
            return  # It was the backup before: the first address is not tried any later because of this.
        now = self.clock().utc
        since = datetime.fromtimestamp(now // NS_PER_S, UTC).isoformat().replace("+00:00", "Z")
        self.note = (
            f"Device {self.options.name} is read at its backup address {address_name(self.options, 1)} since {since}: "
            f"{self._why or 'the first one failed'}. The first one is tried again every "
            f"{self.options.backup_return_s:g} s."
        )
        self._plan_return()

    def _plan_return(self) -> None:
        self._return_at = self.clock().monotonic + round(self.options.backup_return_s * NS_PER_S)

    async def _knock(self, link: Link, questions: Sequence[Question]) -> bool:
        """Ask until something is answered; tell whether it was. Raises Unreachable if nobody can be there."""
        for ask in questions:
            try:
                await link.request(ask.unit_id, ask.function, ask.start, ask.count, self.options.timeout_ms / 1000)
            except (ExceptionReply, MalformedReply):
                return True
            except ReplyTimeout:
                continue
            except Disconnected as error:
                await link.close()
                raise Unreachable(str(error)) from error
            except asyncio.CancelledError:
                await link.close()
                raise
            return True
        return False

    async def _try_first(self, questions: Sequence[Question]) -> Link | None:
        try:
            link = await open_link(self.options, self.clock, address=0, debts=self.debts)
            if await self._knock(link, questions):
                return link
        except Unreachable:
            return None
        await link.close()
        return None
