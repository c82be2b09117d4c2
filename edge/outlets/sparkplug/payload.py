"""Payloads as bytes, metric by metric: births, deaths, alarms; and what hosts say to us.

A metric as bytes is one entry of a payload's list of metrics, so that a payload is a join of such bytes. What does not
change in a metric (name, alias, data type, properties) is made once per session and kept.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from google.protobuf.message import DecodeError

from edge.sparkplug_payload import REBIRTH, DataType, Metric, Payload, PropertySet
from plant.batch import BAD, GOOD, UNCERTAIN

QUALITY: Final = "Quality"
QUALITIES: Final[Mapping[int, int]] = {GOOD: 192, UNCERTAIN: 500, BAD: 0}
"""The standard has three codes: 192 good, 500 stale, 0 bad. A doubtful value travels as stale: there, but not good."""
COMMAND_SIZE_MAX: Final = 65_536
_NULL: Final = b"\x38\x01"

Value = float | str | bool | None


def varint(number: int) -> bytes:
    """Return an unsigned number as protobuf writes it."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def quality_code(quality: int) -> int:
    """Return the standard's code of one of our qualities."""
    return QUALITIES.get(quality & 0xC0, 0)


def properties(quality: int | None, texts: Mapping[str, str] | None = None) -> bytes:
    """Return a PropertySet: the quality (of ours) and further texts, e.g. the unit; without the empty ones."""
    made = PropertySet()
    if quality is not None:
        made.keys.append(QUALITY)
        made.values.add(type=DataType.INT32, int_value=quality_code(quality))
    for key, text in (texts or {}).items():
        if text:
            made.keys.append(key)
            made.values.add(type=DataType.STRING, string_value=text)
    encoded: bytes = made.SerializeToString()
    return encoded


@dataclass(frozen=True, slots=True)
class Described:
    """The part of a metric that a birth states once."""

    name: str
    alias: int | None
    datatype: int
    quality: int | None = None
    texts: Mapping[str, str] | None = None

    def encode(self) -> bytes:
        """Return the fields as bytes, to be followed by time and value."""
        made = Metric(name=self.name, datatype=self.datatype)
        if self.alias is not None:
            made.alias = self.alias
        if self.quality is not None or self.texts:
            made.properties.ParseFromString(properties(self.quality, self.texts))
        encoded: bytes = made.SerializeToString()
        return encoded


def by_alias(alias: int) -> bytes:
    """Return the beginning of a metric in a data message: the alias alone."""
    return b"\x10" + varint(alias)


def metric(fixed: bytes, time_ms: int | None, datatype: int, value: Value) -> bytes:
    """Return one metric: its fixed part, time and value. A None or a number that is not finite is null.

    Only the metric of a death certificate, which is written long before it is sent, has no time.
    """
    null = value is None or (isinstance(value, float) and not math.isfinite(value))
    tail = _NULL if null else _value(datatype, value)
    time = b"" if time_ms is None else b"\x18" + varint(max(time_ms, 0))
    body = fixed + time + tail
    return b"\x12" + varint(len(body)) + body


def _value(datatype: int, value: Any) -> bytes:
    made = Metric()
    match datatype:
        case _ if datatype == DataType.DOUBLE:
            made.double_value = value
        case _ if datatype == DataType.BOOLEAN:
            made.boolean_value = value
        case _ if datatype == DataType.STRING:
            made.string_value = value
        case _ if datatype == DataType.INT64:
            # A signed number travels as its two's complement.
            made.long_value = int(value) & 0xFFFF_FFFF_FFFF_FFFF
        case _:
            raise ValueError(f"no metric has the data type {datatype}")
    encoded: bytes = made.SerializeToString()
    return encoded


def text_value(text: str) -> bytes:
    """Return the value field of a text."""
    return _value(DataType.STRING, text)


def payload(metrics: Iterable[bytes], *, time_ms: int | None, seq: int | None) -> bytes:
    """Return a whole payload. A death certificate of a node has neither time nor number."""
    parts = []
    if time_ms is not None:
        parts.append(b"\x08" + varint(time_ms))
    parts.extend(metrics)
    if seq is not None:
        parts.append(b"\x18" + varint(seq))
    return b"".join(parts)


@dataclass(frozen=True, slots=True)
class NodeCommand:
    """What an NCMD asks for. others: names (or aliases) of metrics that nobody may write."""

    rebirth: bool
    others: tuple[str, ...]


class Unreadable(ValueError):
    """A message from a host that is not what its topic promises."""


def command(data: bytes) -> NodeCommand:
    """Read an NCMD. Raises Unreadable."""
    if len(data) > COMMAND_SIZE_MAX:
        raise Unreadable(f"a command has at most {COMMAND_SIZE_MAX} bytes, this one has {len(data)}")
    try:
        message = Payload.FromString(data)
    except DecodeError as error:
        raise Unreadable(f"not a Sparkplug payload: {error}") from error
    others = [m.name or f"alias {m.alias}" for m in message.metrics if m.name != REBIRTH]
    rebirth = any(m.name == REBIRTH and m.boolean_value for m in message.metrics)
    return NodeCommand(rebirth, tuple(others))


class HostState(msgspec.Struct, frozen=True):
    """A STATE message. timestamp: ms UTC of the host's birth or death."""

    online: bool
    timestamp: int


_HOST_STATE: Final = msgspec.json.Decoder(HostState)


def host_state(data: bytes) -> HostState:
    """Read a STATE message. Raises Unreadable."""
    try:
        return _HOST_STATE.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unreadable(f"not a STATE message: {error}") from error
