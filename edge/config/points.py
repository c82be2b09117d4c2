"""Rows of the tag list become the points that each protocol reads."""

from collections.abc import Mapping, Sequence

from edge.config.model import DeviceOptions, TagRow
from edge.sources.modbus import ModbusOptions, ModbusPoint, parse_point
from edge.sources.mqtt import MqttPoint, MqttSourceOptions, parse_address
from edge.sources.opcua import OpcuaOptions, OpcuaPoint, parse_node
from edge.sources.replay import ReplayOptions, ReplayPoint
from edge.sources.sparkplug import SparkplugPoint, SparkplugSourceOptions, parse_metric

OPCUA_TYPES = frozenset({"", "string"})
"""An OPC UA server knows its types; only that a value is to be taken as text must be said."""


def is_text(row: TagRow) -> bool:
    """Tell whether the tag's values are texts: `string`, or `string:N` where the protocol needs a length."""
    return row.type.split(":")[0] == "string"


def check_points(device: DeviceOptions, row: TagRow) -> list[str]:
    """Return one sentence per mistake in what the row says about its device's protocol; needs no network."""
    try:
        points(device, [row], {row.tag: 0})
    except ValueError as error:
        return [f"tag {row.tag!r}: {error}"]
    return []


def points(
    device: DeviceOptions, rows: Sequence[TagRow], index: Mapping[str, int]
) -> list[OpcuaPoint] | list[ModbusPoint] | list[MqttPoint] | list[SparkplugPoint] | list[ReplayPoint]:
    """Turn the rows of one device into its points. Raises ValueError with a sentence for the first bad one."""
    match device:
        case OpcuaOptions():
            return [_opcua(row, index[row.tag]) for row in rows]
        case ModbusOptions():
            return [
                parse_point(index[row.tag], row.address, row.type, row.order, row.period_ms or None, device)
                for row in rows
            ]
        case MqttSourceOptions():
            return [_mqtt(row, index[row.tag]) for row in rows]
        case SparkplugSourceOptions():
            return [_sparkplug(row, index[row.tag]) for row in rows]
        case ReplayOptions():
            return [ReplayPoint(index[row.tag], row.address, is_text(row)) for row in rows]


def _opcua(row: TagRow, index: int) -> OpcuaPoint:
    parse_node(row.address)
    if row.type not in OPCUA_TYPES:
        raise ValueError(f"type {row.type!r}: the server states the type of a node; leave it empty, or string for text")
    if row.order:
        raise ValueError(f"order {row.order!r} belongs to Modbus registers; leave it empty for OPC UA")
    # The server filters in its own unit; a deadband of 1 or more of ours may not hide what the scale would show.
    deadband = row.deadband / abs(row.scale) if row.deadband > 0 else 0.0
    return OpcuaPoint(
        tag=index,
        node=row.address,
        text=is_text(row),
        sampling_ms=row.period_ms or None,
        period_ms=row.period_ms or None,
        deadband=deadband,
    )


def _mqtt(row: TagRow, index: int) -> MqttPoint:
    _check_pushed(row)
    return parse_address(index, row.address, row.type)


def _sparkplug(row: TagRow, index: int) -> SparkplugPoint:
    _check_pushed(row)
    return parse_metric(index, row.address, row.type)


def _check_pushed(row: TagRow) -> None:
    """Raise ValueError for columns that have no meaning where the publisher decides when and how it sends."""
    if row.order:
        raise ValueError(f"order {row.order!r} belongs to Modbus registers; leave it empty for MQTT")
    if row.period_ms:
        raise ValueError("period_ms: the publisher decides when it sends; leave it empty for MQTT")
