"""Telegraf: the sections [[inputs.modbus]] and [[inputs.opcua]] (or opcua_listener) of a configuration in TOML.

Modbus there comes in three styles, register, request and metric; addresses count from 0. In the style register FIXED,
UFIXED and FLOAT32 are integers whose size is the number of addresses, and byte_order has a letter for each byte.
"""

import re
import tomllib
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from edge.importers.result import (
    Device,
    Imported,
    ImportFault,
    Lines,
    number,
    period,
    scale_cells,
    table,
    tables,
    whole,
    words,
)
from edge.sources.modbus_points import REGISTERS

_FIXED: Final = {("FIXED", 1): "int16", ("FIXED", 2): "int32", ("FIXED", 4): "int64"} | {
    (name, count): kind
    for name in ("UFIXED", "FLOAT32")
    for count, kind in ((1, "uint16"), (2, "uint32"), (4, "uint64"))
}
_PLAIN: Final = {
    "INT16": "int16", "UINT16": "uint16", "INT32": "int32", "UINT32": "uint32", "INT64": "int64", "UINT64": "uint64",
    "FLOAT16": "float16", "FLOAT32": "float32", "FLOAT64": "float64", "FLOAT16-IEEE": "float16",
    "FLOAT32-IEEE": "float32", "FLOAT64-IEEE": "float64",
}  # fmt: skip
_ORDERS: Final = {
    "AB": "ABCD", "BA": "DCBA", "ABCD": "ABCD", "BADC": "BADC", "CDAB": "CDAB", "DCBA": "DCBA", "ABCDEFGH": "ABCD",
    "BADCFEHG": "BADC", "GHEFCDAB": "CDAB", "HGFEDCBA": "DCBA",
}  # fmt: skip
_AREAS: Final = {
    "coils": "coil", "discrete_inputs": "discrete", "input_registers": "input", "holding_registers": "holding",
}  # fmt: skip
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNITS_MS: Final = {"ms": 1.0, "s": 1000.0, "m": 60_000.0, "h": 3_600_000.0}
_OPCUA: Final = ("opcua", "opcua_listener")

Cells = dict[str, Any]


def convert(text: str, device: str) -> Imported:
    """Convert the text of a file. Raises ImportFault if it is no such file."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ImportFault(f"it is no TOML: {error}") from error
    return of_document(data, device, text)


def of_document(data: Mapping[str, Any], device: str, text: str = "") -> Imported:
    """Convert a parsed file. text: where it was read from, for the numbers of its lines. Raises ImportFault."""
    inputs = table(data.get("inputs"))
    result, lines = Imported(), Lines(text)
    interval = _milliseconds(table(data.get("agent")).get("interval"))
    sections = [("modbus", one) for one in tables(inputs.get("modbus"))]
    sections += [("opcua", one) for kind in _OPCUA for one in tables(inputs.get(kind))]
    if not sections:
        raise ImportFault("it has no [[inputs.modbus]] and no [[inputs.opcua]]")
    for i, (kind, section) in enumerate(sections):
        name = device if len(sections) == 1 else f"{device}_{i + 1}"
        every = _milliseconds(section.get("interval")) or interval
        if kind == "modbus":
            result.devices.append(_modbus_device(result, section, name, every))
            _modbus(result, lines, section, name)
        else:
            result.devices.append(_opcua_device(section, name, every))
            _nodes(result, lines, section, name)
    return result


def _milliseconds(text: Any) -> float | None:
    """Return a duration such as 10s, 1m30s or 500ms; None if it is none."""
    if not isinstance(text, str):
        return None
    parts = _DURATION.findall(text)
    return sum(float(number) * _UNITS_MS[unit] for number, unit in parts) if parts else None


def _modbus_device(result: Imported, section: Mapping[str, Any], name: str, every: float | None) -> Device:
    keys: dict[str, Any] = {"name": name, "type": "modbus"}
    todo: list[str] = []
    controller = str(section.get("controller", ""))
    mode = str(section.get("transmission_mode", "")).lower()
    if "ascii" in mode:
        todo.append("the other gateway spoke Modbus ASCII, which is not known here")
    if controller.startswith("tcp://"):
        url, port = _split(controller)
        if mode == "rtuovertcp":
            keys["transport"] = "rtu_over_tcp"
        keys |= {"host": url or "HOST", "port": port}
    elif controller:
        keys |= {"transport": "rtu", "serial_port": controller.removeprefix("file://")}
        parity = {"N": "none", "E": "even", "O": "odd"}.get(str(section.get("parity", "")).upper())
        keys |= {"baudrate": section["baud_rate"]} if isinstance(section.get("baud_rate"), int) else {}
        keys |= {"parity": parity} if parity else {}
        keys |= {"stopbits": section["stop_bits"]} if isinstance(section.get("stop_bits"), int) else {}
    else:
        keys["host"] = "HOST"
        todo.append("controller is not in the file: write host and port of the device")
    if isinstance(section.get("slave_id"), int):
        keys["unit_id"] = section["slave_id"]
    if _milliseconds(section.get("timeout")):
        keys["timeout_ms"] = int(period(_milliseconds(section["timeout"])))
    if every:
        keys["period_ms"] = int(period(every))
    workarounds = table(section.get("workarounds"))
    for key in ("pause_after_connect", "pause_between_requests"):
        if _milliseconds(workarounds.get(key)):
            keys[f"{key}_ms"] = int(_milliseconds(workarounds[key]) or 0)
    if any(workarounds.get(key) for key in workarounds if not key.startswith("pause_")):
        result.note("further workarounds of the Modbus section were not converted: see the settings of the device")
    return Device(keys, tuple(todo))


def _split(controller: str) -> tuple[str, int]:
    """Return host and port of tcp://host:port, "" and 502 where they cannot be read."""
    try:
        url = urlsplit(controller)
        host, port = url.hostname, url.port
    except ValueError:
        return "", 502
    return host or "", port or 502


def _modbus(result: Imported, lines: Lines, section: Mapping[str, Any], device: str) -> None:
    style = section.get("configuration_type", "register")
    if style == "register":
        for key, area in _AREAS.items():
            for field in tables(section.get(key)):
                _field(result, lines, device, field, area, section.get("slave_id"), _registered(field, area))
        return
    for request in tables(section.get(str(style))):
        unit_id = request.get("slave_id", section.get("slave_id"))
        for field in tables(request.get("fields")):
            area = str(field.get("register", request.get("register", "holding")))
            order = field.get("byte_order", request.get("byte_order", ""))
            named = {"measurement": request.get("measurement", ""), **field}
            if not field.get("omit"):
                _field(result, lines, device, named, area, unit_id, _requested(field, area, str(order)))


def _registered(field: Mapping[str, Any], area: str) -> Cells | str:
    """Return the cells of a field of the style register, or why it has none."""
    addresses = field.get("address")
    if not isinstance(addresses, list) or not addresses or not all(isinstance(one, int) for one in addresses):
        return "address is no list of numbers"
    if addresses != list(range(addresses[0], addresses[0] + len(addresses))):
        return f"its addresses {addresses} are not in a row"
    if area in {"coil", "discrete"}:
        return {"offset": addresses[0], "type": "bool"}
    kind = str(field.get("data_type", "")).upper()
    if kind.startswith("STRING"):
        return {"offset": addresses[0], "type": f"string:{2 * len(addresses)}"}
    if kind == "BIT":
        return {"offset": addresses[0], "bit": field.get("bit", 0), "type": "bool"}
    type_ = _FIXED.get((kind, len(addresses))) or (None if kind == "FLOAT32" else _PLAIN.get(kind))
    if type_ is None:
        return f"data_type {kind or '(none)'} with {len(addresses)} addresses has no counterpart"
    if REGISTERS[type_] != len(addresses):
        return f"a {kind} takes {REGISTERS[type_]} registers, but there are {len(addresses)} addresses"
    return {"offset": addresses[0], "type": type_, "order": _order(str(field.get("byte_order", "")), type_)}


def _requested(field: Mapping[str, Any], area: str, order: str) -> Cells | str:
    """Return the cells of a field of the styles request and metric, or why it has none."""
    offset = field.get("address")
    if not isinstance(offset, int):
        return "address is no number"
    if area in {"coil", "discrete"}:
        return {"offset": offset, "type": "bool"}
    kind = str(field.get("type", "")).upper()
    if kind == "STRING":
        return {"offset": offset, "type": f"string:{2 * (whole(field.get('length'), 1) or 1)}"}
    if kind == "BIT":
        return {"offset": offset, "bit": field.get("bit", 0), "type": "bool"}
    type_ = _PLAIN.get(kind)
    if type_ is None:
        return f"type {kind or '(none)'} has no counterpart; known: {', '.join(_PLAIN)}, BIT, STRING"
    return {"offset": offset, "type": type_, "order": _order(order, type_)}


def _order(text: str, type_: str) -> str:
    """Return the order; "" where the file does not say it and it matters."""
    order = _ORDERS.get(text.upper(), "")
    return "" if REGISTERS[type_] == 1 and order in {"ABCD", "CDAB"} else order


def _field(
    result: Imported, lines: Lines, device: str, field: Mapping[str, Any], area: str, unit_id: Any, cells: Cells | str
) -> None:
    name = str(field.get("name", ""))
    line = lines.of(name)
    measurement = str(field.get("measurement", ""))
    name = f"{measurement}.{name}" if measurement not in {"", "modbus"} else name
    if isinstance(cells, str):
        result.leave(line, name, cells)
        return
    unit = f"{unit_id}/" if isinstance(unit_id, int) else ""
    bit = f".{cells.pop('bit')}" if "bit" in cells else ""
    where = f"{unit}{area}/{cells.pop('offset')}{bit}"
    factor = (number(field.get("scale")) or 1.0) if cells["type"] != "bool" else 1.0
    result.modbus(line, name, {"device": device, "address": where, **scale_cells(factor), **cells})


def _opcua_device(section: Mapping[str, Any], name: str, every: float | None) -> Device:
    keys: dict[str, Any] = {"name": name, "type": "opcua", "url": words(section.get("endpoint"), "opc.tcp://HOST:4840")}
    todo: list[str] = [] if section.get("endpoint") else ["endpoint is not in the file: write the url of the server"]
    if every:
        keys["period_ms"] = int(period(every))
    policy = str(section.get("security_policy", "auto"))
    if policy == "Basic256Sha256" and section.get("security_mode") in {"Sign", "SignAndEncrypt"}:
        keys |= {"security_policy": policy, "security_mode": section["security_mode"]}
    elif policy != "None":
        todo.append(f"security_policy was {policy}: set security_policy and security_mode, or leave both out for none")
    if section.get("certificate"):
        todo.append("certificates are not converted: `andon cert create` makes one, which the server must trust")
    if section.get("username"):
        keys["user"] = str(section["username"])
        todo.append("passwords are not converted: set password_file")
    return Device(keys, tuple(todo))


def _nodes(result: Imported, lines: Lines, section: Mapping[str, Any], device: str) -> None:
    for node in tables(section.get("nodes")):
        _node(result, lines, device, node, {})
    for group in tables(section.get("group")):
        for node in tables(group.get("nodes")):
            _node(result, lines, device, node, group)


def _node(result: Imported, lines: Lines, device: str, node: Mapping[str, Any], group: Mapping[str, Any]) -> None:
    name = str(node.get("name", ""))
    identifier = str(node.get("identifier", ""))
    line = lines.of(identifier or name)
    name = f"{group['name']}.{name}" if group.get("name") else name
    form = str(node.get("identifier_type", group.get("identifier_type", "")))
    namespace = str(node.get("namespace", group.get("namespace", "")))
    uri = str(node.get("namespace_uri", group.get("namespace_uri", "")))
    if not identifier or not form or not (namespace or uri):
        result.leave(line, name, "identifier, identifier_type or namespace is missing")
        return
    where = f"nsu={uri};{form}={identifier}" if uri else f"ns={namespace};{form}={identifier}"
    result.opcua(line, name, {"device": device, "address": where})
