"""A Sparkplug metric -> a number, a time and a quality (Eclipse Sparkplug 3.0.0, 6.4). Pure."""

import math
from typing import Any, Final

from edge.sparkplug_payload import DataType
from plant.batch import BAD, GOOD, UNCERTAIN
from plant.instant import NS_PER_MS

TEXT_SIZE_MAX: Final = 1_024
"""A longer text is no status text."""
STALE: Final = 500
"""The quality of a value that is no longer fresh (6.4.14); 0 is bad and 192 good, as in OPC Data Access."""
MS_MAX: Final = (2**63 - 1) // NS_PER_MS

_BITS: Final = {DataType.INT8: 8, DataType.INT16: 16, DataType.INT32: 32, DataType.INT64: 64}
_NUMBERS: Final = frozenset({"int_value", "long_value", "float_value", "double_value", "boolean_value"})


class Unreadable(Exception):
    """A metric has no value that its tag could hold; the message says in what way."""


def to_value(metric: Any, datatype: int, *, text: bool) -> float | str:
    """Return the value of a metric. datatype: that of its birth. text: it is due as text. Raises Unreadable."""
    field = metric.WhichOneof("value")
    if field is None or metric.is_null:
        raise Unreadable("is null")
    value = getattr(metric, field)
    if field == "string_value" and isinstance(value, bytes):
        # What protobuf returns for bytes that are no UTF-8.
        raise Unreadable("is no UTF-8 text")
    bits = _BITS.get(datatype, 0)  # type: ignore[call-overload]
    if bits and field in ("int_value", "long_value"):
        # Negative numbers travel as two's complement in a field without sign.
        value &= (1 << bits) - 1
        if value >> (bits - 1):
            value -= 1 << bits
    if text:
        shown = str(value)
        if field not in _NUMBERS and field != "string_value":
            raise Unreadable(f"has data type {name_of(datatype)}, which is no text")
        if len(shown) > TEXT_SIZE_MAX:
            raise Unreadable(f"is a text of {len(shown)} characters; a text tag holds at most {TEXT_SIZE_MAX}")
        return shown
    if field not in _NUMBERS:
        hint = "; set the tag's type to string" if field == "string_value" else ""
        raise Unreadable(f"has data type {name_of(datatype)}, expected a number{hint}")
    number = float(value)
    if not math.isfinite(number):
        raise Unreadable("is not a finite number")
    return number


def to_ns(metric: Any, payload: Any, arrived: int) -> int:
    """Return the time of a metric in ns UTC: its own, the payload's, or else that of its arrival."""
    for stamp in (metric.timestamp, payload.timestamp):
        if 0 < stamp <= MS_MAX:
            return int(stamp) * NS_PER_MS
    return arrived


def to_quality(metric: Any) -> int:
    """Return the quality that the property Quality states; without it a value is good."""
    if not metric.HasField("properties"):
        return GOOD
    properties = metric.properties
    for key, value in zip(properties.keys, properties.values, strict=False):
        if key == "Quality":
            stated = value.int_value or value.long_value
            if stated == STALE or stated & 0xC0 == UNCERTAIN:
                return UNCERTAIN
            return GOOD if stated & 0xC0 == GOOD else BAD
    return GOOD


def name_of(datatype: int) -> str:
    """Return the name of a data type as people know it."""
    try:
        return DataType(datatype).name
    except ValueError:
        return str(datatype)
