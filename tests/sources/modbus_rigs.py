"""A Modbus device over each transport, with a cable that can be cut, frozen and mended: for the conformance suite."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from modbus_peers import Asked
from modbus_rtu_peers import Pty, Slave, Socket, rtu_source

from edge.sources.modbus import ModbusSource
from plant.texts import Texts


class Cable(Protocol):
    frozen: bool

    async def start(self) -> None: ...

    async def cut(self) -> None: ...


class SerialCable:
    def __init__(self, folder: Path) -> None:
        self.slave = Slave()
        self.pty = Pty(folder / "ttyUSB0", self.slave.received)
        self.slave.send = self.pty.send
        self.reached = {"transport": "rtu", "serial_port": self.pty.path}

    @property
    def frozen(self) -> bool:
        return self.slave.frozen

    @frozen.setter
    def frozen(self, value: bool) -> None:
        self.slave.frozen = value

    async def start(self) -> None:
        self.pty.mend()

    async def cut(self) -> None:
        self.pty.cut()


class SerialServerCable:
    def __init__(self) -> None:
        self.slave = Slave()
        self.server = Socket(self.slave.received)
        self.slave.send = self.server.send

    @property
    def reached(self) -> dict[str, object]:
        return {"transport": "rtu_over_tcp", "port": self.server.port}

    @property
    def frozen(self) -> bool:
        return self.slave.frozen

    @frozen.setter
    def frozen(self, value: bool) -> None:
        self.slave.frozen = value

    async def start(self) -> None:
        await self.server.mend()

    async def cut(self) -> None:
        await self.server.cut()


class UdpCable(asyncio.DatagramProtocol):
    """A device that answers datagrams; register i holds i."""

    def __init__(self) -> None:
        self.frozen = False
        self.port = 0
        self.lost = 0
        self.asked = 0
        self._transport: asyncio.DatagramTransport | None = None

    @property
    def reached(self) -> dict[str, object]:
        return {"transport": "udp", "port": self.port}

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", self.port))
        self.port = self._transport.get_extra_info("sockname")[1]

    async def cut(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            await asyncio.sleep(0)

    def datagram_received(self, data: bytes, addr) -> None:
        self.asked += 1
        if self.frozen:
            return
        if self.lost:
            self.lost -= 1
            return
        assert len(data) == 12
        self._transport.sendto(Asked(*struct.unpack(">H4xBBHH", data)).right(), addr)

    def connection_lost(self, exc) -> None:
        self._transport = None


@contextlib.asynccontextmanager
async def modbus_over(transport: str, folder: Path, tags: list[int]) -> AsyncIterator[tuple[ModbusSource, Cable]]:
    """Yield a source that reads `tags` as 30, 50 and a text, and its cable."""
    wire = SerialCable(folder) if transport == "rtu" else UdpCable() if transport == "udp" else SerialServerCable()
    await wire.start()
    rows = [("holding/0", "uint16", "")] * (max(tags) + 1)
    for tag, row in zip(tags, [("holding/30", "uint16", ""), ("holding/50", "uint16", "")], strict=False):
        rows[tag] = row
    rows[tags[2]] = ("holding/1", "string:4", "")
    whole = rtu_source(rows, timeout_ms=500, **wire.reached)
    try:
        yield ModbusSource(whole._options, [p for p in whole._points if p.tag in tags], Texts()), wire
    finally:
        await wire.cut()
