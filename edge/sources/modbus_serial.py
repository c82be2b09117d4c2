"""A serial port as a transport of asyncio: bytes go out at once, bytes that come in are handed to a protocol.

Owns the file descriptor. Knows nothing of Modbus. The port is locked: a second program that opens it is refused.
"""

import asyncio
import os
import select
import termios
from contextlib import suppress
from typing import Final

import serial

from edge.errors import Unreachable

_READ_MAX: Final = 4096
_PARITIES: Final = {"none": serial.PARITY_NONE, "even": serial.PARITY_EVEN, "odd": serial.PARITY_ODD}


class SerialTransport(asyncio.BaseTransport):
    """An open port, 8 data bits.

    `write` hands over what has come before it sends; a protocol that waits for an answer is told of it after `write`.
    """

    def __init__(self, port: serial.Serial, protocol: asyncio.Protocol, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._port = port
        self._fd: int = port.fileno()
        self._protocol = protocol
        self._loop = loop
        self._is_closing = False

    def start(self) -> None:
        """Begin to read."""
        self._protocol.connection_made(self)
        self._loop.add_reader(self._fd, self._readable)

    def write(self, data: bytes) -> None:
        """Send; what the port does not take at once (a request fits) ends it."""
        if self._is_closing:
            return
        self._readable()
        try:
            if not self._is_closing and os.write(self._fd, data) != len(data):
                self._end(OSError("the port does not take bytes"))
        except OSError as error:
            self._end(error)

    def is_closing(self) -> bool:
        """Whether the port is closed or about to be."""
        return self._is_closing

    def close(self) -> None:
        """Close the port; idempotent, does not wait for bytes to leave."""
        self._end(None)

    abort = close

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, _READ_MAX)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error)
            return
        if data:
            self._protocol.data_received(data)
        elif self._is_hung_up():
            self._end(OSError("the port is gone"))

    def _is_hung_up(self) -> bool:
        """Tell an adapter that was pulled out from a read that found nothing: both return no bytes."""
        poll = select.poll()
        poll.register(self._fd, 0)
        return bool(poll.poll(0))

    def _end(self, error: OSError | None) -> None:
        if self._is_closing:
            return
        self._is_closing = True
        self._loop.remove_reader(self._fd)
        # Closing would wait for bytes that do not leave; an adapter that was pulled out has none to discard.
        with suppress(OSError, termios.error):
            self._port.reset_output_buffer()
        self._port.close()
        self._loop.call_soon(self._protocol.connection_lost, error)


def open_serial(
    path: str, protocol: asyncio.Protocol, *, peer: str, baudrate: int, parity: str, stopbits: int
) -> SerialTransport:
    """Open a port and start to read. Raises Unreachable with a sentence."""
    try:
        port = serial.Serial(path, baudrate, 8, _PARITIES[parity], stopbits, timeout=0, write_timeout=0, exclusive=True)
    except (OSError, ValueError, termios.error) as error:
        raise Unreachable(f"{peer} cannot be opened: {_why(path, error)}") from error
    transport = SerialTransport(port, protocol, asyncio.get_running_loop())
    transport.start()
    return transport


def _why(path: str, error: Exception) -> str:
    if not os.path.exists(path):  # noqa: PTH110 - a path that is no path is a wrong setting, not a crash
        return f"{path} does not exist; is the adapter plugged in?"
    if not os.access(path, os.R_OK | os.W_OK):
        return f"no permission for {path}; the gateway's user must be in the group that owns it (often dialout)"
    if isinstance(error, serial.SerialException) and "exclusively lock" in str(error):
        return f"another program uses {path}; a port serves one"
    if isinstance(error, termios.error):
        return f"{path} cannot be set so: {error.args[-1]}; check baudrate, parity and stopbits"
    return str(error)
