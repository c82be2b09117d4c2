"""Modbus RTU slaves for the tests: a scripted line over a pty or TCP that can misbehave in any way, and pymodbus."""

import asyncio
import contextlib
import os
import struct
import tty
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pymodbus.framer import FramerType
from pymodbus.server import ModbusSerialServer, ModbusTcpServer, ModbusUdpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from edge.sources.modbus import ModbusOptions, ModbusSource, parse_point
from edge.sources.modbus_rtu import crc16
from plant.texts import Texts


def rtu_options(**more: object) -> ModbusOptions:
    base = {"type": "modbus", "name": "meter", "transport": "rtu", "period_ms": 10, "timeout_ms": 500}
    if more.get("transport", "rtu") == "rtu":
        base |= {"baudrate": 115_200, "parity": "none"}  # A pty has no parity.
    else:
        base["host"] = "127.0.0.1"
    return ModbusOptions.model_validate(base | more)


def rtu_source(rows: Iterable[tuple[str, str, str] | tuple[str, str, str, int]], **more: object) -> ModbusSource:
    """A source over rows of (address, type, order[, period_ms]); the tag index is the row's number."""
    device = rtu_options(**more)
    points = [
        parse_point(i, row[0], row[1], row[2], row[3] if len(row) == 4 else 0, device) for i, row in enumerate(rows)
    ]
    return ModbusSource(device, points, Texts())


class Pty:
    """The far end of a serial line; `path` is what the gateway opens. Stays the same name after `cut` and `mend`."""

    def __init__(self, path: Path, received: Callable[[bytes], None]) -> None:
        self.path = str(path)
        self._received = received
        self._ends: tuple[int, int] | None = None

    def mend(self) -> None:
        near, far = os.openpty()
        tty.setraw(far)
        os.set_blocking(near, False)
        self._ends = (near, far)  # The far end stays open here too: without it reading ends when the gateway closes.
        Path(self.path).unlink(missing_ok=True)
        Path(self.path).symlink_to(os.ttyname(far))
        asyncio.get_running_loop().add_reader(near, self._readable)

    def cut(self) -> None:
        """The adapter is pulled out."""
        if self._ends is None:
            return
        near, far = self._ends
        self._ends = None
        asyncio.get_running_loop().remove_reader(near)
        os.close(near)
        os.close(far)
        Path(self.path).unlink(missing_ok=True)

    def send(self, data: bytes) -> None:
        if self._ends is not None:
            os.write(self._ends[0], data)

    def _readable(self) -> None:
        assert self._ends is not None
        with contextlib.suppress(BlockingIOError):
            self._received(os.read(self._ends[0], 4096))


class Socket:
    """The far end of a serial line behind a serial device server: bytes over TCP, as they are."""

    def __init__(self, received: Callable[[bytes], None]) -> None:
        self.port = 0
        self._received = received
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def send(self, data: bytes) -> None:
        for writer in self._writers:
            writer.write(data)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(4096):
                self._received(data)
        self._writers.discard(writer)
        writer.transport.abort()


@dataclass(frozen=True)
class RtuAsked:
    unit: int
    function: int
    start: int
    count: int

    @property
    def frame(self) -> bytes:
        body = struct.pack(">BBHH", self.unit, self.function, self.start, self.count)
        return body + crc16(body)

    def reply(self, pdu: bytes, unit: int | None = None) -> bytes:
        body = bytes([self.unit if unit is None else unit]) + pdu
        return body + crc16(body)

    def registers(self, values: Iterable[int], unit: int | None = None) -> bytes:
        data = b"".join(struct.pack(">H", v) for v in values)
        return self.reply(bytes([self.function, len(data)]) + data, unit)

    def right(self) -> bytes:
        """The answer of a device whose register i holds i and whose coils are off."""
        if self.function <= 2:
            size = (self.count + 7) // 8
            return self.reply(bytes([self.function, size]) + bytes(size))
        return self.registers(i & 0xFFFF for i in range(self.start, self.start + self.count))

    def exception(self, code: int) -> bytes:
        return self.reply(bytes([self.function | 0x80, code]))


@dataclass
class Slave:
    """A line of devices whose register i holds i, except where the script says otherwise.

    script: request -> bytes to send, None for silence, or a list of (after_s, bytes).
    """

    script: Callable[[RtuAsked], bytes | list[tuple[float, bytes]] | None] | None = None
    echo: bool = False
    frozen: bool = False
    asked: list[RtuAsked] = field(default_factory=list)
    send: Callable[[bytes], None] = lambda data: None
    _buffer: bytes = b""

    def received(self, data: bytes) -> None:
        if self.frozen:
            return
        if self.echo:
            self.send(data)
        self._buffer += data
        while len(self._buffer) >= 8:
            frame, self._buffer = self._buffer[:8], self._buffer[8:]
            assert crc16(frame[:6]) == frame[6:], f"a request with a wrong CRC: {frame.hex(' ')}"
            asked = RtuAsked(*struct.unpack(">BBHH", frame[:6]))
            self.asked.append(asked)
            answer = asked.right() if self.script is None else self.script(asked)
            if isinstance(answer, bytes):
                self.send(answer)
            for after_s, piece in answer if isinstance(answer, list) else ():
                asyncio.get_running_loop().call_later(after_s, self.send, piece)


@contextlib.asynccontextmanager
async def pty_slave(folder: Path, script=None, **more):
    """Yield (slave, pty) of a line at `pty.path`."""
    slave = Slave(script, **more)
    pty = Pty(folder / "ttyUSB0", slave.received)
    slave.send = pty.send
    pty.mend()
    try:
        yield slave, pty
    finally:
        pty.cut()


@contextlib.asynccontextmanager
async def tcp_slave(script=None, **more):
    """Yield (slave, socket) of a line behind a serial device server at `socket.port`."""
    slave = Slave(script, **more)
    server = Socket(slave.received)
    slave.send = server.send
    await server.mend()
    try:
        yield slave, server
    finally:
        await server.cut()


@contextlib.asynccontextmanager
async def cable(folder: Path):
    """Yield the paths of two serial ports that are connected with each other."""
    ours = Pty(folder / "ttyS0", lambda data: theirs.send(data))  # noqa: PLW0108 - it is made in the next line
    theirs = Pty(folder / "ttyS1", ours.send)
    ends = (ours, theirs)
    for end in ends:
        end.mend()
    try:
        yield ours.path, theirs.path
    finally:
        for end in ends:
            end.cut()


def units() -> list[SimDevice]:
    """Units 1 and 2: holding i = 10 * unit + i % 10 with a hole at 40..49, two floats as inputs, some coils."""
    bits = [i % 3 == 0 for i in range(64)]
    return [
        SimDevice(
            id=unit,
            simdata=(
                [SimData(0, values=bits, datatype=DataType.BITS)],
                [SimData(0, values=[not b for b in bits], datatype=DataType.BITS)],
                [
                    SimData(0, values=[10 * unit + i % 10 for i in range(40)], datatype=DataType.REGISTERS),
                    SimData(50, values=[10 * unit + i % 10 for i in range(50)], datatype=DataType.REGISTERS),
                ],
                [SimData(0, values=[12.5, -3.25], datatype=DataType.FLOAT32)],
            ),
        )
        for unit in (1, 2)
    ]


@contextlib.asynccontextmanager
async def pymodbus_line(transport: str, folder: Path):
    """Yield the options that reach a pymodbus server of `units()` over a transport."""
    if transport == "rtu":
        async with cable(folder) as (ours, theirs):
            server = ModbusSerialServer(units(), framer=FramerType.RTU, port=theirs, baudrate=115_200, parity="N")
            await server.serve_forever(background=True)
            try:
                yield {"transport": "rtu", "serial_port": ours}
            finally:
                await server.shutdown()
        return
    if transport == "udp":
        udp = ModbusUdpServer(units(), address=("127.0.0.1", 0))
        await udp.serve_forever(background=True)
        try:
            yield {"transport": "udp", "port": udp.transport.get_extra_info("sockname")[1]}
        finally:
            await udp.shutdown()
        return
    framer = FramerType.RTU if transport == "rtu_over_tcp" else FramerType.SOCKET
    tcp = ModbusTcpServer(units(), framer=framer, address=("127.0.0.1", 0))
    await tcp.serve_forever(background=True)
    try:
        yield {"transport": transport, "port": tcp.transport.sockets[0].getsockname()[1]}
    finally:
        await tcp.shutdown()
