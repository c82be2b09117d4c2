"""Modbus TCP servers for the tests: a scripted one that can misbehave in any way, pymodbus, and libmodbus."""

import asyncio
import contextlib
import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from edge.sources.modbus import ModbusOptions, ModbusSource, parse_point
from plant.texts import Texts

LIBMODBUS = Path(__file__).parents[1] / "peers" / "libmodbus"


def options(port: int, **more: object) -> ModbusOptions:
    base = {"type": "modbus", "name": "press", "host": "127.0.0.1", "port": port, "period_ms": 10, "timeout_ms": 2000}
    return ModbusOptions.model_validate(base | more)


def source(port: int, rows: Iterable[tuple[str, str, str] | tuple[str, str, str, int]], **more: object) -> ModbusSource:
    """A source over rows of (address, type, order[, period_ms]); the tag index is the row's number."""
    device = options(port, **more)
    points = [
        parse_point(i, row[0], row[1], row[2], row[3] if len(row) == 4 else 0, device) for i, row in enumerate(rows)
    ]
    return ModbusSource(device, points, Texts())


@dataclass(frozen=True)
class Asked:
    transaction: int
    unit: int
    function: int
    start: int
    count: int

    def frame(self, pdu: bytes, *, transaction: int | None = None, unit: int | None = None) -> bytes:
        tid = self.transaction if transaction is None else transaction
        return struct.pack(">HHHB", tid, 0, len(pdu) + 1, self.unit if unit is None else unit) + pdu

    def registers(self, values: Iterable[int]) -> bytes:
        data = b"".join(struct.pack(">H", v) for v in values)
        return self.frame(bytes([self.function, len(data)]) + data)

    def right(self) -> bytes:
        """The answer of a device whose register i holds i."""
        if self.function <= 2:
            size = (self.count + 7) // 8
            return self.frame(bytes([self.function, size]) + bytes(size))
        return self.registers(i & 0xFFFF for i in range(self.start, self.start + self.count))

    def exception(self, code: int) -> bytes:
        return self.frame(bytes([self.function | 0x80, code]))


@dataclass
class Scripted:
    """A device whose register i holds i, except where the script says otherwise.

    script: request -> bytes to send, or None for silence. illegal: addresses of exception 2 in every unit.
    """

    script: Callable[[Asked], bytes | None] | None = None
    illegal: set[int] = field(default_factory=set)
    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _server: asyncio.Server | None = None

    async def __aenter__(self) -> "Scripted":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def send(self, data: bytes) -> None:
        for writer in self._writers:
            writer.write(data)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self._writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                asked = Asked(*struct.unpack(">H4xBBHH", await reader.readexactly(12)))
                self.asked.append(asked)
                answer = self._answer(asked)
                if answer is not None:
                    writer.write(answer)
        self._writers.discard(writer)
        writer.transport.abort()

    def _answer(self, asked: Asked) -> bytes | None:
        if self.illegal.intersection(range(asked.start, asked.start + asked.count)):
            return asked.exception(2)
        return asked.right() if self.script is None else self.script(asked)


@contextlib.asynccontextmanager
async def pymodbus_server(port: int = 0):
    """Units 1 and 2; holding 0..99 (register i = 10 * unit + i % 10), hole at 40..49, inputs, coils, discretes."""
    bits = [i % 3 == 0 for i in range(64)]
    units = [
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
    server = ModbusTcpServer(units, address=("127.0.0.1", port))
    await server.serve_forever(background=True)
    try:
        yield server.transport.sockets[0].getsockname()[1]
    finally:
        await server.shutdown()


@pytest.fixture(scope="session")
def libmodbus_binary(tmp_path_factory):
    """Compile the libmodbus TCP server; skip where that is impossible, except where the tests must be complete (CI)."""
    return compile_libmodbus("server", tmp_path_factory)


@pytest.fixture(scope="session")
def libmodbus_rtu_binary(tmp_path_factory):
    """Compile the libmodbus RTU slave, see libmodbus_binary."""
    return compile_libmodbus("rtu_slave", tmp_path_factory)


def compile_libmodbus(name: str, tmp_path_factory) -> Path:
    compiler = shutil.which("cc")
    have = compiler and subprocess.run(["pkg-config", "--exists", "libmodbus"], check=False).returncode == 0
    if not have:
        lacking = "cc (Debian package gcc)" if not compiler else "libmodbus (Debian package libmodbus-dev)"
        if os.environ.get("CI"):
            pytest.fail(f"the tests need {lacking}")
        pytest.skip(f"needs {lacking}")
    binary = tmp_path_factory.mktemp("libmodbus") / name
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "libmodbus"], check=True, capture_output=True, text=True
    ).stdout.split()
    subprocess.run([compiler, "-O2", "-o", binary, LIBMODBUS / f"{name}.c", *flags], check=True)
    return binary


@pytest.fixture
def libmodbus(libmodbus_binary):
    """The port of a running libmodbus server."""
    with subprocess.Popen([libmodbus_binary, "0"], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()
