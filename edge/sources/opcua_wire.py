"""Where the parts of an OPC UA response lie: offsets into the bytes, nothing decoded that is not asked for.

Owns the binary encoding (OPC 10000-6, 5.2) as far as it takes to step over any built-in type, so that one strange
value never hides its neighbours. Leaves security, chunking and sequence checks to the transport, and the meaning of
values to `opcua_decode`. Every length is checked against the end of the data; a body that does not fit raises
`Malformed`.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

DATA_CHANGE: Final = 811
"""Numeric id of DataChangeNotification_Encoding_DefaultBinary (namespace 0)."""
STATUS_CHANGE: Final = 820
"""Numeric id of StatusChangeNotification_Encoding_DefaultBinary (namespace 0)."""

DEPTH_MAX: Final = 16
"""How deeply variants, data values and diagnostics may nest; deeper is an attack, not a measurement."""

FIXED: Final[dict[int, int]] = {
    0: 0, 1: 1, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 4, 8: 8, 9: 8, 10: 4, 11: 8, 13: 8, 14: 16, 19: 4,
}  # fmt: skip
"""Bytes of the built-in types of fixed size, by type id (OPC 10000-6, table 1); 0 is the null variant."""

ARRAY: Final = 0x80
DIMENSIONS: Final = 0x40

_u16 = struct.Struct("<H").unpack_from
_u32 = struct.Struct("<I").unpack_from
_i32 = struct.Struct("<i").unpack_from
_i64 = struct.Struct("<q").unpack_from


class Malformed(ValueError):
    """The bytes are no OPC UA message of the kind that was asked for."""


@dataclass(frozen=True, slots=True)
class Notification:
    """One NotificationData element: its encoding id (-1 if not numeric in namespace 0) and where its body lies."""

    encoding: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Message:
    """A PublishResponse or RepublishResponse. notifications is empty in a keep-alive.

    subscription, available: 0 and () in a RepublishResponse. sequence: the number of this message, or in a keep-alive
    the number that the next one will have.
    """

    subscription: int
    available: tuple[int, ...]
    sequence: int
    notifications: tuple[Notification, ...]


def skip_text(data: bytes, at: int) -> int:
    """Step over a String, ByteString or XmlElement."""
    length: int = _i32(data, at)[0]
    return at + 4 + max(length, 0)


def skip_node_id(data: bytes, at: int) -> int:
    """Step over a NodeId or ExpandedNodeId."""
    encoding = data[at]
    kind = encoding & 0x3F
    if kind == 0:
        at += 2
    elif kind == 1:
        at += 4
    elif kind == 2:
        at += 7
    elif kind in (3, 5):
        at = skip_text(data, at + 3)
    elif kind == 4:
        at += 19
    else:
        raise Malformed(f"node id encoding {kind} does not exist")
    if encoding & 0x80:
        at = skip_text(data, at)
    return at + 4 if encoding & 0x40 else at


def skip_extension_object(data: bytes, at: int) -> int:
    at = skip_node_id(data, at)
    encoding = data[at]
    return skip_text(data, at + 1) if encoding in (1, 2) else at + 1


def _skip_localized(data: bytes, at: int) -> int:
    mask = data[at]
    at += 1
    if mask & 1:
        at = skip_text(data, at)
    return skip_text(data, at) if mask & 2 else at


def skip_data_value(data: bytes, at: int, depth: int = 0) -> int:
    """Step over a DataValue: mask, value, status, source time and picoseconds, server time and picoseconds."""
    mask = data[at]
    at += 1
    if mask & 1:
        at = skip_variant(data, at, depth + 1)
    return (
        at + 4 * (mask >> 1 & 1) + 8 * (mask >> 2 & 1) + 2 * (mask >> 4 & 1) + 8 * (mask >> 3 & 1) + (mask >> 5 & 1) * 2
    )


def skip_diagnostics(data: bytes, at: int, depth: int = 0) -> int:
    """Step over a DiagnosticInfo."""
    if depth > DEPTH_MAX:
        raise Malformed("diagnostics nest too deeply")
    mask = data[at]
    at += 1 + 4 * (mask & 0x0F).bit_count()
    if mask & 0x10:
        at = skip_text(data, at)
    if mask & 0x20:
        at += 4
    return skip_diagnostics(data, at, depth + 1) if mask & 0x40 else at


def _skip_value(data: bytes, at: int, kind: int, depth: int) -> int:
    size = FIXED.get(kind)
    if size is not None:
        return at + size
    skip = _SKIPS.get(kind)
    if skip is not None:
        return skip(data, at)
    if kind == 23:
        return skip_data_value(data, at, depth + 1)
    if kind == 24:
        return skip_variant(data, at, depth + 1)
    if kind == 25:
        return skip_diagnostics(data, at, depth + 1)
    if 26 <= kind <= 31:
        return skip_text(data, at)  # reserved types decode like ByteString (OPC 10000-6, 5.2.2.16)
    raise Malformed(f"variant type {kind} does not exist")


def skip_variant(data: bytes, at: int, depth: int = 0) -> int:
    """Step over a Variant, scalar or array."""
    if depth > DEPTH_MAX:
        raise Malformed("variants nest too deeply")
    encoding = data[at]
    kind = encoding & 0x3F
    at += 1
    at = _skip_array(data, at, kind, depth) if encoding & ARRAY else _skip_value(data, at, kind, depth)
    if encoding & DIMENSIONS:
        at = _skip_array(data, at, 6, depth)
    return at


def _skip_array(data: bytes, at: int, kind: int, depth: int = 0) -> int:
    count: int = _i32(data, at)[0]
    at += 4
    size = FIXED.get(kind)
    if size is not None:
        return at + size * max(count, 0)
    for _ in range(count):
        if at > len(data):
            break
        at = _skip_value(data, at, kind, depth + 1)
    return at


_SKIPS: Final[dict[int, Callable[[bytes, int], int]]] = {
    12: skip_text,
    15: skip_text,
    16: skip_text,
    17: skip_node_id,
    18: skip_node_id,
    20: lambda data, at: skip_text(data, at + 2),
    21: _skip_localized,
    22: skip_extension_object,
}


def _skip_header(data: bytes) -> int:
    """Return where the body begins after type id and ResponseHeader (OPC 10000-4, 7.33)."""
    at = skip_node_id(data, 0) + 16
    at = skip_diagnostics(data, at)
    count: int = _i32(data, at)[0]
    at += 4
    for _ in range(count):
        at = skip_text(data, at)
    return skip_extension_object(data, at)


def _checked(data: bytes, at: int) -> int:
    if at > len(data):
        raise Malformed(f"the message ends after {len(data)} bytes, {at} were announced")
    return at


def _notification_message(data: bytes, at: int, subscription: int, available: tuple[int, ...]) -> Message:
    sequence: int = _u32(data, at)[0]
    count: int = _i32(data, at + 12)[0]
    at += 16
    notifications = []
    for _ in range(count):
        encoding = _u16(data, at + 2)[0] if data[at] == 1 and data[at + 1] == 0 else -1
        at = skip_node_id(data, at)
        has_body = data[at] == 1
        at += 1
        length: int = _i32(data, at)[0] if has_body else 0
        start = at + 4 if has_body else at
        # A length of -1 is left by servers that do not know it yet; the body then ends with the message.
        end = _checked(data, start + length if length >= 0 else len(data))
        notifications.append(Notification(encoding, start, end))
        if length < 0:
            break
        at = end
    return Message(subscription, available, sequence, tuple(notifications))


def parse_publish(data: bytes) -> Message:
    """Find the parts of a PublishResponse (OPC 10000-4, 5.14.5). Raises Malformed."""
    try:
        at = _skip_header(data)
        subscription: int = _u32(data, at)[0]
        count = max(_i32(data, at + 4)[0], 0)
        at += 8
        _checked(data, at + 4 * count)
        available = struct.unpack_from(f"<{count}I", data, at)
        return _notification_message(data, at + 4 * count + 1, subscription, available)
    except (struct.error, IndexError) as error:
        raise Malformed(f"no PublishResponse: {error}") from error


def parse_republish(data: bytes) -> Message:
    """Find the parts of a RepublishResponse (OPC 10000-4, 5.14.6). Raises Malformed."""
    try:
        return _notification_message(data, _skip_header(data), 0, ())
    except (struct.error, IndexError) as error:
        raise Malformed(f"no RepublishResponse: {error}") from error


def parse_read(data: bytes) -> tuple[int, int]:
    """Return where the results of a ReadResponse begin and how many there are. Raises Malformed."""
    try:
        at = _skip_header(data)
        return at + 4, max(_i32(data, at)[0], 0)
    except (struct.error, IndexError) as error:
        raise Malformed(f"no ReadResponse: {error}") from error


@dataclass(frozen=True, slots=True)
class HistoryPart:
    """One HistoryReadResult: its status, its continuation point (None = complete), and where its values lie."""

    status: int
    continuation: bytes | None
    count: int
    start: int
    end: int


def parse_history(data: bytes) -> list[HistoryPart]:
    """Find the parts of a HistoryReadResponse with HistoryData (OPC 10000-4, 5.11.3). Raises Malformed."""
    parts = []
    try:
        at = _skip_header(data)
        count: int = _i32(data, at)[0]
        at += 4
        for _ in range(count):
            status: int = _u32(data, at)[0]
            length: int = _i32(data, at + 4)[0]
            continuation = data[at + 8 : at + 8 + length] if length > 0 else None
            at = skip_node_id(data, at + 8 + max(length, 0))
            if data[at] != 1:
                parts.append(HistoryPart(status, continuation, 0, at + 1, at + 1))
                at += 1
                continue
            size: int = _i32(data, at + 1)[0]
            start = at + 5
            at = _checked(data, start + max(size, 0))
            values: int = _i32(data, start)[0] if size >= 4 else 0
            parts.append(HistoryPart(status, continuation, max(values, 0), start + 4, at))
    except (struct.error, IndexError) as error:
        raise Malformed(f"no HistoryReadResponse: {error}") from error
    return parts


def status_of(data: bytes, notification: Notification) -> int:
    """Return the status code of a StatusChangeNotification."""
    return int(_u32(data, notification.start)[0])
