"""A PLC that speaks Modbus TCP: a pymodbus server on loopback with one or more unit ids, read-only.

Owns the server and its register image; what the registers show comes from a machine. Values outside the image are
answered with exception 2, writes too.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from edge.errors import Unreachable
from edge.simulator.machine import Value
from edge.simulator.plc import Faults
from edge.simulator.registers import AREAS, REGISTERS_PER_AREA, Register, encode

_AREA_OF_FUNCTION = {1: "coil", 2: "discrete", 3: "holding", 4: "input"}
_BITS_PER_REGISTER = 16


class ModbusPlc:
    """registers: places of the values. port 0 = any free one, then kept over cuts and restarts."""

    def __init__(self, name: str, registers: Sequence[Register], host: str, port: int) -> None:
        self.name = name
        self.port = port
        self.faults = Faults()
        self._registers = {register.name: register for register in registers}
        self._host = host
        self._server: Any = None
        self._without: frozenset[str] = frozenset()
        self._refusing: frozenset[str] = frozenset()
        self._shown: dict[str, Value] = {}
        self._image = {
            (unit, area): [0] * REGISTERS_PER_AREA
            for unit in sorted({register.unit_id for register in registers})
            for area in AREAS
        }
        self._illegal: frozenset[tuple[int, str, int]] = frozenset()

    @property
    def names(self) -> Collection[str]:
        """The values that this PLC serves."""
        return self._registers.keys()

    async def start(self) -> None:
        """Listen. Raises Unreachable."""
        units = sorted({unit for unit, _ in self._image})
        server = ModbusTcpServer([self._device(unit) for unit in units], address=(self._host, self.port))
        if not await server.listen():
            raise Unreachable(f"{self.name}: cannot listen on {self._host}:{self.port}; is the port taken?")
        self._server = server
        self.port = server.transport.sockets[0].getsockname()[1]

    def _device(self, unit: int) -> Any:
        bits = [SimData(0, values=[False] * REGISTERS_PER_AREA * _BITS_PER_REGISTER, datatype=DataType.BITS)]
        words = [SimData(0, values=[0] * REGISTERS_PER_AREA, datatype=DataType.REGISTERS, readonly=True)]

        async def answer(
            function: int, start: int, address: int, count: int, registers: list[int], written: Any
        ) -> ExcCodes | None:
            del start
            area = _AREA_OF_FUNCTION.get(function)
            if area is None or written is not None:
                return ExcCodes.ILLEGAL_FUNCTION
            if area in {"coil", "discrete"}:
                count *= _BITS_PER_REGISTER
            if any((unit, area, offset) in self._illegal for offset in range(address, address + count)):
                return ExcCodes.ILLEGAL_ADDRESS
            registers[:REGISTERS_PER_AREA] = self._image[unit, area]
            return None

        return SimDevice(id=unit, simdata=(bits, list(bits), words, list(words)), action=answer)

    async def publish(self, values: Mapping[str, Value], time: int) -> None:
        """Write what changed into the registers; Modbus has no timestamps."""
        del time
        mine = {name: values[name] for name in self._registers if name in values}
        for name, value in self.faults.changes(mine, self._shown).items():
            self._put(self._registers[name], value)
            self._shown[name] = value

    def _put(self, register: Register, value: Value) -> None:
        image = self._image[register.unit_id, register.area]
        offset, bit = register.offset, register.bit
        if register.area in {"coil", "discrete"}:
            offset, bit = divmod(register.offset, _BITS_PER_REGISTER)
        if bit is not None:
            image[offset] = image[offset] | 1 << bit if value else image[offset] & ~(1 << bit)
            return
        words = encode(register, value)
        image[offset : offset + len(words)] = words

    async def cut(self) -> None:
        """Close the listening socket and every connection; the registers stay."""
        server, self._server = self._server, None
        if server is None:
            return
        connections = [c.transport for c in server.active_connections.values() if c.transport is not None]
        for transport in connections:
            transport.abort()
        listener = server.transport
        await server.shutdown()
        if listener is not None:
            await listener.wait_closed()
        await asyncio.sleep(0)

    async def restore(self) -> None:
        """Listen again at the same port."""
        if self._server is None:
            await self.start()

    async def stop(self) -> None:
        """Stop the server; idempotent."""
        await self.cut()

    async def restart(self, without: Collection[str], namespace_shift: int) -> None:
        """Start anew with some registers gone: reading them is an illegal address."""
        del namespace_shift
        await self.cut()
        self._without = frozenset(without)
        self._shown = {}
        self._collect_illegal()
        await self.start()

    def answer_exceptions(self, names: Collection[str]) -> None:
        """Answer every request that touches these registers with exception 2, illegal data address.

        Coils and discrete inputs are refused sixteen at a time: the server library tells no more of a request.
        """
        self._refusing = frozenset(names)
        self._collect_illegal()

    def _collect_illegal(self) -> None:
        gone = [self._registers[name] for name in self._without | self._refusing]
        self._illegal = frozenset(
            (register.unit_id, register.area, register.offset + i) for register in gone for i in range(register.count)
        )
