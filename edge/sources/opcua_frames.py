"""The frames of OPC UA TCP (OPC 10000-6, 7.1): whole chunks, none larger than agreed.

Stands between the socket and asyncua's protocol, which would collect whatever size a chunk announces.
"""

import asyncio
import struct
from typing import Any, Final

CHUNK_SIZE_MAX: Final = 65_536
MESSAGE_SIZE_MAX: Final = 16 * 1024 * 1024
CHUNKS_MAX: Final = 4096
"""What we announce and accept of one message (OPC 10000-6, 7.1.2): a rogue server cannot fill the memory."""


class Frames(asyncio.Protocol):
    """Hands whole chunks on to `inner` and hangs up on chunks or messages larger than we announced."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._part = bytearray()
        self._message_size = 0
        self._message_chunks = 0

    def connection_lost(self, exc: Exception | None) -> None:
        self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        whole: bytes | bytearray = data
        if self._part:
            self._part += data
            whole = self._part
        at = 0
        while len(whole) - at >= 8:
            (size,) = struct.unpack_from("<I", whole, at + 4)
            if not 8 <= size <= CHUNK_SIZE_MAX or not self._within(size, last=whole[at + 3] != ord("C")):
                self._inner.transport.abort()
                return
            if len(whole) - at < size:
                break
            at += size
            self._count(size, last=whole[at - size + 3] != ord("C"))
        if at == len(whole):
            self._part = bytearray()
            self._inner.data_received(bytes(whole))
            return
        rest = bytearray(whole[at:])
        if at:
            self._inner.data_received(bytes(whole[:at]))
        self._part = rest

    def _within(self, size: int, *, last: bool) -> bool:
        chunks = self._message_chunks + 1
        return self._message_size + size <= MESSAGE_SIZE_MAX and (chunks <= CHUNKS_MAX or last)

    def _count(self, size: int, *, last: bool) -> None:
        self._message_size = 0 if last else self._message_size + size
        self._message_chunks = 0 if last else self._message_chunks + 1
