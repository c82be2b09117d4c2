"""ThingsBoard IoT Gateway: the JSON of a Modbus connector (master.slaves) or an OPC UA connector (server, mapping).

Modbus there: addresses count from 0; functionCode 1 to 4 reads; types are 16int, 32float ...; byteOrder BIG or LITTLE
is the order of the two bytes of a register, wordOrder that of registers; the value is divided by `divider` and
multiplied by `multiplier`.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

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
from edge.sources.modbus_points import AREAS, REGISTERS

TYPES: Final = {
    "16int": "int16", "16uint": "uint16", "16float": "float16", "32int": "int32", "32uint": "uint32",
    "32float": "float32", "64int": "int64", "64uint": "uint64", "64float": "float64",
}  # fmt: skip
TIMEOUT_MS_MAX: Final = 60_000
LISTS: Final = ("timeseries", "attributes")
_ORDERS: Final = {
    ("BIG", "BIG"): "ABCD", ("BIG", "LITTLE"): "CDAB", ("LITTLE", "BIG"): "BADC", ("LITTLE", "LITTLE"): "DCBA",
}  # fmt: skip
_NODE: Final = re.compile(r"\$?\{?\s*(ns=\d+;[isgb]=[^}]+|[isgb]=[^}]+)\s*\}?")


def convert(text: str, device: str) -> Imported:
    """Convert the text of a file. Raises ImportFault if it is no such file."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ImportFault(f"it is no JSON: {error}") from error
    if not isinstance(data, Mapping):
        raise ImportFault("it is no connector: expected an object with master.slaves (Modbus) or server (OPC UA)")
    result, lines = Imported(), Lines(text)
    slaves = table(data.get("master")).get("slaves")
    if isinstance(slaves, list):
        _slaves(result, lines, tables(slaves), device)
    elif isinstance(data.get("server"), Mapping):
        _server(result, lines, data, device)
    else:
        raise ImportFault("it is neither a Modbus connector (master.slaves) nor an OPC UA connector (server, mapping)")
    return result


def _slaves(result: Imported, lines: Lines, slaves: list[Mapping[str, Any]], device: str) -> None:
    """Convert every slave; those at one address become one device with several unit ids."""
    names: dict[tuple[str, ...], str] = {}
    for slave in slaves:
        where = tuple(str(slave.get(key)) for key in ("type", "host", "port", "method"))
        if where not in names:
            names[where] = device if not names else f"{device}_{len(names) + 1}"
            result.devices.append(_device(names[where], slave))
        for kind in LISTS:
            for entry in tables(slave.get(kind)):
                _entry(result, lines, slave, entry, names[where])


def _device(name: str, slave: Mapping[str, Any]) -> Device:
    keys: dict[str, Any] = {"name": name, "type": "modbus"}
    todo: list[str] = []
    transport, is_rtu = slave.get("type", "tcp"), slave.get("method") == "rtu"
    if transport == "serial":
        keys |= {"transport": "rtu", "serial_port": words(slave.get("port"), "/dev/ttyUSB0")}
        parity = {"N": "none", "E": "even", "O": "odd"}.get(str(slave.get("parity", "")).upper())
        keys |= {"baudrate": slave["baudrate"]} if isinstance(slave.get("baudrate"), int) else {}
        keys |= {"parity": parity} if parity else {}
        keys |= {"stopbits": slave["stopbits"]} if isinstance(slave.get("stopbits"), int) else {}
    else:
        if transport == "udp" or is_rtu:
            keys["transport"] = "rtu_over_tcp" if is_rtu else "udp"
        keys |= {"host": words(slave.get("host"), "HOST"), "port": whole(slave.get("port"), 1) or 502}
        todo += [] if keys["host"] != "HOST" else ["host is not in the file"]
    if whole(slave.get("unitId")) is not None:
        keys["unit_id"] = whole(slave["unitId"])
    seconds = number(slave.get("timeout"))
    if seconds and period(seconds * 1000):
        keys["timeout_ms"] = min(int(period(seconds * 1000)), TIMEOUT_MS_MAX)
    if period(slave.get("pollPeriod")):
        keys["period_ms"] = int(period(slave.get("pollPeriod")))
    return Device(keys, tuple(todo))


def _entry(result: Imported, lines: Lines, slave: Mapping[str, Any], entry: Mapping[str, Any], device: str) -> None:
    name = str(entry.get("tag", ""))
    line = lines.of(name)
    try:
        cells: dict[str, Any] = {"device": device}
        cells["period_ms"] = period(entry.get("pollPeriod"))
        cells |= scale_cells(_factor(entry, "multiplier") / _factor(entry, "divider"))
        cells |= _modbus(slave, entry)
    except ValueError as error:
        result.leave(line, name, str(error))
        return
    result.modbus(line, name, cells)


def _factor(entry: Mapping[str, Any], key: str) -> float:
    value = number(entry.get(key, 1))
    if not value:
        raise ValueError(f"{key} is {entry.get(key)!r}, which is no factor")
    return value


def _modbus(slave: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return address, type and order. Raises ValueError."""
    function, kind = whole(entry.get("functionCode")), str(entry.get("type", ""))
    count = whole(entry.get("objectsCount", 1), 1)
    if function not in AREAS:
        raise ValueError(f"functionCode {entry.get('functionCode')} writes or is none; a gateway reads with 1 to 4")
    if count is None:
        raise ValueError(f"objectsCount is {entry.get('objectsCount')!r}, which is no count")
    where = f"{AREAS[function]}/{entry.get('address')}"
    if whole(slave.get("unitId")) is not None:
        where = f"{whole(slave['unitId'])}/{where}"
    if function <= 2 or kind == "bits":
        bit = entry.get("bit")
        if count != 1:
            raise ValueError(f"it is a list of {count} bits; make a row for each that is needed")
        if function > 2 and not isinstance(bit, int):
            raise ValueError("it is the bits of a register as a list; make a row with the bit that is needed")
        return {"address": where if function <= 2 else f"{where}.{bit}", "type": "bool"}
    if kind == "string":
        return {"address": where, "type": f"string:{2 * count}"}
    if kind not in TYPES:
        raise ValueError(f"type {kind or '(none)'} has no counterpart; known: {', '.join(TYPES)}, bits, string")
    type_ = TYPES[kind]
    if count != REGISTERS[type_]:
        raise ValueError(f"objectsCount is {count}, but a {kind} takes {REGISTERS[type_]} registers")
    return {"address": where, "type": type_, "order": _order(slave, entry, type_)}


def _order(slave: Mapping[str, Any], entry: Mapping[str, Any], type_: str) -> str:
    """Return the order, "" where it takes a setting that the file does not have."""
    byte_order = str(entry.get("byteOrder", slave.get("byteOrder", ""))).upper()
    word_order = str(entry.get("wordOrder", slave.get("wordOrder", ""))).upper()
    if REGISTERS[type_] == 1:
        return "BADC" if byte_order == "LITTLE" else ""
    return _ORDERS.get((byte_order, word_order), "")


def _server(result: Imported, lines: Lines, data: Mapping[str, Any], device: str) -> None:
    """Convert an OPC UA connector: the nodes that are named by their node id."""
    server = data["server"]
    for place in tables(data.get("mapping", server.get("mapping"))):
        for kind in LISTS:
            for entry in tables(place.get(kind)):
                _node(result, lines, entry, device)
    keys: dict[str, Any] = {"name": device, "type": "opcua", "url": words(server.get("url"), "opc.tcp://HOST:4840")}
    todo: list[str] = [] if server.get("url") else ["url is not in the file"]
    if period(server.get("pollPeriodInMillis")) and not server.get("enableSubscriptions", True):
        keys |= {"mode": "read", "period_ms": int(period(server["pollPeriodInMillis"]))}
    identity = table(server.get("identity"))
    if words(server.get("security"), "None") != "None":
        todo.append(
            f"the other gateway used security {server['security']}: set security_policy "
            "(Basic256Sha256 or newer) and security_mode"
        )
    if identity.get("username"):
        keys["user"] = str(identity["username"])
        todo.append("passwords are not converted: set password_file")
    result.devices.append(Device(keys, tuple(todo)))


def _node(result: Imported, lines: Lines, entry: Mapping[str, Any], device: str) -> None:
    name = str(entry.get("key", ""))
    line = lines.of(name)
    where = str(entry.get("value", entry.get("path", "")))
    match = _NODE.fullmatch(where)
    if entry.get("type") == "constant":
        result.leave(line, name, "it is a constant, not a value of the server")
    elif match is None:
        result.leave(line, name, f'"{where}" is a path, not a node id: `andon browse` lists the server with node ids')
    else:
        result.opcua(line, name, {"device": device, "address": match[1].strip()})
