"""EMQX Neuron: the JSON of a southbound node's tags, or of a whole export with nodes, groups and tags.

A tag has name, address, attribute (1 read, 2 write, 4 subscribe), type (a number), and maybe decimal (a factor) and
bias (an offset). Modbus addresses: SLAVE!ADDRESS[.BIT][#ENDIAN][.LEN[H|L|D|E]]; the digits after # state the order of
bytes: #B 12, #L 21; #BB 1234, #BL 2143, #LB 3412, #LL 4321. OPC UA addresses: NAMESPACE!NODEID.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from edge.importers.reference import address, area_and_offset
from edge.importers.result import (
    Device,
    Imported,
    ImportFault,
    Lines,
    number,
    period,
    scale_cells,
    table,
    whole,
    words,
)
from edge.sources.modbus_points import REGISTERS

TYPES: Final = {
    3: "int16", 4: "uint16", 5: "int32", 6: "uint32", 7: "int64", 8: "uint64", 9: "float32", 10: "float64",
    11: "bool", 12: "bool", 13: "string", 16: "uint16", 17: "uint32", 18: "uint64",
}  # fmt: skip
READS: Final = 1 | 4
_MODBUS: Final = re.compile(
    r"(\d{1,3})!(\d+)(?:\.(\d+)([HLDE])?)?(?:#([BL]{1,2}))?(?:\.(\d+)([HLDE])?)?", re.IGNORECASE
)
_OPCUA: Final = re.compile(r"(\d+)!(.+)")
_ORDERS: Final = {"B": "ABCD", "L": "DCBA", "BB": "ABCD", "BL": "BADC", "LB": "CDAB", "LL": "DCBA"}
_GUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@dataclass(frozen=True, slots=True)
class _Node:
    """Where tags belong: the node's plugin and parameters, the group's name and interval."""

    plugin: str = ""
    params: Mapping[str, Any] | None = None
    group: str = ""
    interval: float | None = None


def convert(text: str, device: str) -> Imported:
    """Convert the text of a file. Raises ImportFault if it is no such file."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ImportFault(f"it is no JSON: {error}") from error
    result, lines = Imported(), Lines(text)
    kinds: dict[str, Mapping[str, Any]] = {}
    for node, tag in _tags(data, _Node()):
        kind = _convert(result, lines, device, node, tag)
        if kind:
            kinds.setdefault(kind, node.params or {})
    if not kinds and not result.left:
        raise ImportFault("it has no tags: expected a list of objects with name, address and type")
    if kinds:
        kind = "opcua" if "opcua" in kinds else "modbus"
        result.devices.append(_device(kind, device, kinds[kind]))
    return result


def _tags(data: Any, node: _Node) -> Iterator[tuple[_Node, Mapping[str, Any]]]:
    """Yield every tag with what is known of its node and group, however deep it stands."""
    if isinstance(data, list):
        for item in data:
            yield from _tags(item, node)
    elif isinstance(data, Mapping):
        if "address" in data and "name" in data:
            yield node, data
            return
        params = data.get("params", node.params)
        interval = data.get("interval", node.interval)
        inner = _Node(
            plugin=str(data.get("plugin", node.plugin)),
            params=table(params),
            group=str(data.get("group", node.group)),
            interval=number(interval),
        )
        for value in data.values():
            if isinstance(value, list | Mapping):
                yield from _tags(value, inner)


def _convert(result: Imported, lines: Lines, device: str, node: _Node, tag: Mapping[str, Any]) -> str:
    """Convert a tag; return of which protocol it is, "" if it was left out."""
    name, where = str(tag["name"]), str(tag["address"])
    line = lines.of(name)
    # Names are unique in a group only.
    name = f"{node.group}.{name}" if node.group else name
    attribute = tag.get("attribute", READS)
    if result.refuse_write_only(line, name, write_only=isinstance(attribute, int) and not attribute & READS):
        return ""
    try:
        cells: dict[str, Any] = {
            "device": device,
            "period_ms": period(node.interval),
            "description": tag.get("description", ""),
        }
        cells |= scale_cells(number(tag.get("decimal")) or 1.0, number(tag.get("bias")) or 0.0)
        kind = whole(tag.get("type"))
        if _is_opcua(node, where):
            cells |= {"address": _node_id(where), "type": "string" if kind == 13 else ""}
            result.opcua(line, name, cells)
            return "opcua"
        cells |= _modbus(where, kind)
    except ValueError as error:
        result.leave(line, name, str(error))
        return ""
    result.modbus(line, name, cells)
    return "modbus"


def _is_opcua(node: _Node, where: str) -> bool:
    if node.plugin:
        return "opc" in node.plugin.lower()
    return _MODBUS.fullmatch(where) is None and _OPCUA.fullmatch(where) is not None


def _node_id(where: str) -> str:
    match = _OPCUA.fullmatch(where)
    if match is None:
        raise ValueError(f'address "{where}" is no namespace!node id')
    index, identifier = match.groups()
    form = "i" if identifier.isdigit() else "g" if _GUID.fullmatch(identifier) else "s"
    return f"ns={index};{form}={identifier}"


def _modbus(where: str, kind: Any) -> dict[str, Any]:
    """Return address, type and order. Raises ValueError."""
    match = _MODBUS.fullmatch(where.replace(" ", ""))
    if match is None:
        raise ValueError(
            f'address "{where}" is none of Modbus (1!400001), and nothing else than Modbus and OPC UA is known'
        )
    unit, number, first, first_form, endian, second, second_form = match.groups()
    if kind not in TYPES:
        raise ValueError(f"type {kind} has no counterpart (known: 16, 32 and 64 bit numbers, bit, bool, string)")
    type_ = TYPES[kind]
    if len(number) < 6:
        number = _six_digits(number, type_)
    unit_id = int(unit)
    if type_ == "string":
        length, form = (second, second_form) if second else (first, first_form)
        if not length:
            raise ValueError(f'address "{where}" states no length of the text, like 1!400001.10H')
        form = (form or "H").upper()
        if form in {"D", "E"}:
            raise ValueError(f"its text has one character in each register (.{form}), which cannot be expressed")
        order = "BADC" if form == "L" else ""
        return {"address": address(number, unit_id), "type": f"string:{int(length)}", "order": order}
    bit = None if first is None else int(first)
    if type_ == "bool":
        if bit is None and area_and_offset(number)[0] in {"input", "holding"}:
            raise ValueError(f'address "{where}" states no bit of the register, like 1!400001.3')
        return {"address": address(number, unit_id, bit), "type": type_}
    if bit is not None:
        raise ValueError(f'address "{where}" is one bit, but its type is {type_}')
    return {"address": address(number, unit_id), "type": type_, "order": _order(endian, type_)}


def _six_digits(number: str, type_: str) -> str:
    """Five digits are a coil there, counted in full, unless they are a register number of older manuals."""
    if type_ == "bool":
        raise ValueError(
            f'"{number}" may be coil {int(number)} or a register number of five digits: '
            f"write six, like 0{number.zfill(5)}"
        )
    return number


def _order(endian: str | None, type_: str) -> str:
    if endian is None:
        return ""
    endian = endian.upper()
    registers = REGISTERS[type_]
    if (registers == 2) != (len(endian) == 2):
        raise ValueError(f"#{endian} does not fit a {type_}")
    if registers == 1:
        return "" if endian == "B" else "BADC"
    return _ORDERS[endian]


def _device(kind: str, device: str, params: Mapping[str, Any]) -> Device:
    if kind == "opcua":
        url = words(params.get("url"), "")
        keys: dict[str, Any] = {"name": device, "type": "opcua", "url": url or "opc.tcp://HOST:4840"}
        return Device(keys, () if url else ("url is not in the file: write that of the Neuron node",))
    host = words(params.get("host"), "")
    port = whole(params.get("port"), 1) or 502
    keys = {"name": device, "type": "modbus", "host": host or "HOST", "port": port}
    if whole(params.get("timeout"), 10):
        keys["timeout_ms"] = whole(params["timeout"])
    return Device(keys, () if host else ("host and port are not in the file: write those of the Neuron node",))
