"""Rows of the tag list become the points that each protocol reads."""

from collections.abc import Mapping, Sequence

from edge.config.model import DeviceOptions, TagRow
from edge.sources.modbus import ModbusOptions, ModbusPoint, parse_point
from edge.sources.opcua import OpcuaOptions, OpcuaPoint, parse_node
from edge.sources.replay import ReplayOptions


def is_text(row: TagRow) -> bool:
    """Text tags: `string`, and `string:N` where the protocol needs a length."""
    return row.type.split(":")[0] == "string"
