"""Opens the connection that the options of a device name, and reads with it.

Owns the choice of the transport. Leaves the bytes to `modbus_wire`, and what to read and when to `modbus`.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge import clock as edge_clock
from edge.sources.modbus_points import FUNCTIONS, ModbusOptions
from edge.sources.modbus_wire import ExceptionReply, Reply, connect
from plant.instant import Instant


class Link(Protocol):
    """One open connection to a device, whatever the transport.

    late: replies that came after their time-out and were thrown away. overdue: requests whose reply may still come.
    """

    late: int

    async def request(self, unit_id: int, function: int, start: int, count: int, timeout_s: float) -> Reply:
        """Read `count` registers or bits from `start`. Raises ReplyTimeout, ExceptionReply, MalformedReply or
        Disconnected.
        """
        ...

    async def close(self) -> None:
        """Let go of the connection; idempotent and bounded in time."""
        ...


async def open_link(options: ModbusOptions, clock: Callable[[], Instant] = edge_clock.now) -> Link:
    """Open a connection. Raises Unreachable with a sentence."""
    return await connect(
        options.host,
        options.port,
        peer=f"device {options.name} at {options.host}:{options.port}",
        timeout_s=options.connect_timeout_ms / 1000,
        clock=clock,
    )


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
