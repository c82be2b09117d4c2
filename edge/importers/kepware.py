"""Kepware (KEPServerEX, ThingWorx Kepware Server): the CSV of `File > Export CSV` of a Modbus or OPC UA client device.

Columns: Tag Name, Address, Data Type, Respect Data Type, Client Access, Scan Rate, Scaling, Raw Low, Raw High, Scaled
Low, Scaled High, Scaled Data Type, Clamp Low, Clamp High, Eng Units, Description, Negate Value. Word order and the base
of addresses are settings of the device there and not in the file.
"""

import csv
import io
import re
from collections.abc import Mapping
from typing import Any, Final

from edge.importers.reference import address
from edge.importers.result import Device, Imported, ImportFault, period, scale_cells

TYPES: Final = {
    "boolean": "bool", "short": "int16", "word": "uint16", "long": "int32", "dword": "uint32", "llong": "int64",
    "qword": "uint64", "float": "float32", "double": "float64", "bcd": "bcd16", "lbcd": "bcd32",
}  # fmt: skip
_REGISTER: Final = re.compile(r"(\d+)(?:\.(\d{1,3})([HL])?)?", re.IGNORECASE)
_BIT_MAX: Final = 15
_ZERO_BASED: Final = (
    "register numbers were taken to count from 1, as Kepware's default setting (zero-based addressing enabled) has it"
)


def convert(text: str, device: str) -> Imported:
    """Convert the text of a file. Raises ImportFault if it is no such file."""
    rows = list(csv.reader(io.StringIO(text.removeprefix("\ufeff"))))
    start = next((i for i, row in enumerate(rows) if row and row[0].strip().lower() == "tag name"), None)
    if start is None:
        raise ImportFault("no row begins with the column Tag Name: export the device's tags with File > Export CSV")
    header = [cell.strip().lower().replace(".", "") for cell in rows[start]]
    if not {"address", "data type"} <= set(header):
        raise ImportFault("the columns Address and Data Type are missing beside Tag Name")
    result = Imported()
    kinds: set[str] = set()
    for number, cells in enumerate(rows[start + 1 :], start + 2):
        if not any(cell.strip() for cell in cells) or cells[0].lstrip().startswith((";", "#")):
            continue
        row = dict(zip(header, (cell.strip() for cell in cells), strict=False))
        _row(result, number, row, device, kinds)
    _devices(result, device, kinds)
    return result


def _devices(result: Imported, device: str, kinds: set[str]) -> None:
    if "modbus" in kinds:
        keys: dict[str, Any] = {"name": device, "type": "modbus", "host": "HOST", "unit_id": 1}
        result.devices.append(
            Device(keys, ("host and unit_id are not in the file: write those of the Kepware device's properties",))
        )
        result.note(_ZERO_BASED)
    if "opcua" in kinds:
        keys = {"name": device, "type": "opcua", "url": "opc.tcp://HOST:4840"}
        result.devices.append(Device(keys, ("url is not in the file: write that of the Kepware channel's properties",)))
    if len(kinds) > 1:
        result.note("the file has Modbus and OPC UA addresses: give one of the two devices another name")


def _row(result: Imported, line: int, row: Mapping[str, str], device: str, kinds: set[str]) -> None:
    name = row.get("tag name", "")
    if result.refuse_write_only(line, name, write_only=row.get("client access", "").upper() == "WO"):
        return
    try:
        where = row.get("address", "")
        cells: dict[str, Any] = {
            "device": device,
            "period_ms": period(_number(row, "scan rate")),
            "unit": row.get("eng units", ""),
            "description": row.get("description", ""),
        }
        cells |= _scaling(row)
        if "=" in where:
            kinds.add("opcua")
            cells |= {"address": where, "type": "string" if row.get("data type", "").lower() == "string" else ""}
            result.opcua(line, name, cells)
            return
        kinds.add("modbus")
        cells |= _modbus(where, row.get("data type", ""))
        if "." in where and cells["type"] == "bool":
            result.note(
                "bits of registers were taken to count from 0, the least significant, as Kepware's default has it"
            )
    except ValueError as error:
        result.leave(line, name, str(error))
        return
    result.modbus(line, name, cells)


def _modbus(where: str, kind: str) -> dict[str, str]:
    """Return address, type and order of a Modbus tag. Raises ValueError."""
    kind = kind.lower()
    if "[" in where or kind.endswith("array"):
        raise ValueError("it is an array; make a row for each element that is needed")
    match = _REGISTER.fullmatch(where.replace(" ", ""))
    if match is None:
        raise ValueError(f'address "{where}" is no register number like 400001 or 40001.3, nor an OPC UA node id')
    number, rest, high_or_low = match.groups()
    if kind == "string":
        if rest is None or not int(rest):
            raise ValueError(f'address "{where}" states no length of the text, like 400100.20H')
        order = "BADC" if (high_or_low or "H").upper() == "L" else ""
        return {"address": address(number), "type": f"string:{int(rest)}", "order": order}
    if kind not in TYPES:
        raise ValueError(f'data type "{kind or "(none)"}" has no counterpart; known: {", ".join(TYPES)}, string')
    bit = None if rest is None else int(rest)
    if bit is not None and (bit > _BIT_MAX or high_or_low):
        raise ValueError(f'address "{where}": a register has the bits 0 to 15')
    return {"address": address(number, bit=bit), "type": TYPES[kind]}


def _scaling(row: Mapping[str, str]) -> dict[str, Any]:
    """Return scale, offset and limits of a row. Raises ValueError for what cannot be expressed."""
    mode = row.get("scaling", "").lower()
    negated = row.get("negate value", "") not in {"", "0"}
    sign = -1.0 if negated else 1.0
    if mode in {"", "none"}:
        return scale_cells(sign)
    if mode != "linear":
        raise ValueError(f"its scaling is {mode}; only linear scaling can be expressed")
    ends = [_number(row, column) for column in ("raw low", "raw high", "scaled low", "scaled high")]
    if None in ends:
        raise ValueError("linear scaling needs Raw Low, Raw High, Scaled Low and Scaled High")
    raw_low, raw_high, low, high = (float(end or 0.0) for end in ends)
    if raw_low == raw_high:
        raise ValueError("Raw Low and Raw High are the same")
    scale = (high - low) / (raw_high - raw_low)
    limits = sorted((sign * low, sign * high))
    return scale_cells(sign * scale, sign * (low - raw_low * scale)) | {
        # What Kepware cuts off is kept here and marked as uncertain.
        "minimum": limits[0] if row.get("clamp low", "") not in {"", "0"} else "",
        "maximum": limits[1] if row.get("clamp high", "") not in {"", "0"} else "",
    }


def _number(row: Mapping[str, str], column: str) -> float | None:
    text = row.get(column, "")
    if not text:
        return None
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"{column} is {text!r}, which is no number") from error
