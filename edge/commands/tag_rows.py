"""Nodes of a server become rows of tags.csv: names that the tag list takes, units, types, ranges.

Owns the spelling of names and units. Names follow the browse path, so that the same node has the same name whenever
somebody looks.
"""

import csv
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, TextIO

from edge.commands.address_space import Node, one_line
from edge.config.model import TAG_COLUMNS

NAME_LENGTH_MAX: Final = 128
_SPELLED: Final = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "ß": "ss", "µ": "u"})
_UNUSUAL: Final = re.compile(r"[^A-Za-z0-9_.:-]+")

_CEFACT: Final = "http://www.opcfoundation.org/UA/units/un/cefact"
_UCUM: Final = {
    "CEL": "Cel", "KEL": "K", "FAH": "[degF]", "BAR": "bar", "MBR": "mbar", "PAL": "Pa", "KPA": "kPa",
    "MPA": "MPa", "MTR": "m", "CMT": "cm", "MMT": "mm", "4H": "um", "MTK": "m2", "MTQ": "m3", "LTR": "L",
    "MQH": "m3/h", "L2": "L/min", "MTS": "m/s", "C16": "mm/s", "SEC": "s", "C26": "ms", "MIN": "min",
    "HUR": "h", "HTZ": "Hz", "KHZ": "kHz", "RPM": "{rev}/min", "DD": "deg", "KGM": "kg", "GRM": "g", "NEW": "N",
    "NU": "N.m", "AMP": "A", "VLT": "V", "WTT": "W", "KWT": "kW", "WHR": "W.h", "KWH": "kW.h", "D46": "V.A",
    "KVA": "kV.A", "KVR": "kvar", "P1": "%",
}  # fmt: skip
"""UNECE Recommendation 20 common codes, which OPC UA packs into the UnitId (OPC 10000-8, 5.6.4.3), as UCUM."""


def unit_of(information: Any) -> str:
    """Return the unit of an EUInformation in UCUM where it is a common one, else as the server spells it."""
    if information is None:
        return ""
    code = information.UnitId
    if information.NamespaceUri == _CEFACT and 0 < code < 1 << 31:
        letters = code.to_bytes(4, "big").lstrip(b"\0").decode("ascii", "replace")
        if letters in _UCUM:
            return _UCUM[letters]
    return one_line(information.DisplayName.Text).replace("°C", "Cel").replace("°", "deg").replace("µ", "u")


def tag_name(path: Sequence[str], device: str) -> str:
    """Return a name like `press.Axis_1.Position`; device: its first part, not repeated if the path begins with it."""
    parts = [_part(part) for part in path]
    if device and (not parts or parts[0].lower() != _part(device).lower()):
        parts.insert(0, _part(device))
    name = ".".join(part for part in parts if part)
    while len(name) > NAME_LENGTH_MAX and "." in name:
        name = name.split(".", 1)[1]
    name = name[-NAME_LENGTH_MAX:].lstrip(".:-")
    return name or "tag"


def _part(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text.translate(_SPELLED)).encode("ascii", "ignore").decode()
    return _UNUSUAL.sub("_", plain).strip("_.") or ("_" if text else "")


def tag_rows(nodes: Iterable[Node], device: str) -> list[dict[str, str]]:
    """Return one row per usable variable; a name that occurs twice gets a number."""
    rows: list[dict[str, str]] = []
    taken: set[str] = set()
    for node in nodes:
        if not node.is_variable or reason_against(node):
            continue
        name = base = tag_name(node.path, device)
        number = 1
        while name.lower() in taken:
            number += 1
            name = f"{base[: NAME_LENGTH_MAX - 8]}_{number}"
        taken.add(name.lower())
        row = dict.fromkeys(TAG_COLUMNS, "")
        row |= {"tag": name, "device": device, "address": node.address, "unit": unit_of(node.unit)}
        row["type"] = "string" if node.text else ""
        row["description"] = node.description or (node.label if node.label != node.path[-1] else "")
        if node.range is not None and not node.text:
            row["minimum"], row["maximum"] = (f"{bound:g}" for bound in node.range)
        rows.append(row)
    return rows


def reason_against(node: Node) -> str:
    """Return why a variable cannot be a tag, "" if it can."""
    return node.unusable or ("node id that cannot be written" if not node.address.isprintable() else "")


def write_rows(rows: Iterable[dict[str, str]], file: TextIO) -> None:
    """Write the header of tags.csv and the rows."""
    writer = csv.DictWriter(file, TAG_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def write_new(rows: Iterable[dict[str, str]], path: Path) -> None:
    """Write a file that is not there yet. Raises OSError, FileExistsError among them."""
    with path.open("x", encoding="utf-8", newline="") as file:
        write_rows(rows, file)
