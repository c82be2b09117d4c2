"""What an import gives: rows, devices, what was left out and why, and how a row comes to be."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Final

from edge.commands.tag_rows import tag_name
from edge.config.model import TAG_COLUMNS
from edge.sources.modbus import parse_point
from edge.sources.modbus_options import ModbusOptions
from edge.sources.modbus_points import REGISTERS
from edge.sources.opcua import parse_node

PERIOD_MS_MIN: Final = 10
PERIOD_MS_MAX: Final = 86_400_000
_CHECKED_AGAINST: Final = ModbusOptions.model_validate({"type": "modbus", "name": "import", "host": "localhost"})


class ImportFault(Exception):
    """The file as a whole is not what it should be; the text says what was expected."""


@dataclass(frozen=True, slots=True)
class Left:
    """Something that was not converted, or not wholly. line: in the file, 0 = unknown. what: which tag."""

    line: int
    what: str
    why: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.what}: {self.why}" if self.line else f"{self.what}: {self.why}"


@dataclass(slots=True)
class Device:
    """A [[device]] section. keys: as they stand in gateway.toml, in order. todo: what a person must still write."""

    keys: dict[str, str | int | float | bool]
    todo: tuple[str, ...] = ()

    def toml(self) -> str:
        """Return the section as text."""
        lines = [f"# {what}" for what in self.todo]
        lines += ["[[device]]", *(f"{key} = {json.dumps(value)}" for key, value in self.keys.items())]
        return "\n".join(lines) + "\n"


@dataclass(slots=True)
class Imported:
    """rows: of tags.csv, columns of TAG_COLUMNS as text. left: not converted. asks: converted, but something misses.
    notes: what was assumed for all of them.
    """

    rows: list[dict[str, str]] = field(default_factory=list)
    devices: list[Device] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    asks: list[Left] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _taken: set[str] = field(default_factory=set)

    def refuse_write_only(self, line: int, what: str, *, write_only: bool) -> bool:
        """Leave out what can only be written; tell whether that was so."""
        if write_only:
            self.leave(line, what, "it is write-only, a gateway can only read it")
        return write_only

    def leave(self, line: int, what: str, why: str) -> None:
        """Note that something was not converted."""
        self.left.append(Left(line, what, why))

    def note(self, what: str) -> None:
        """Note an assumption, once."""
        if what not in self.notes:
            self.notes.append(what)

    def modbus(self, line: int, name: str, cells: Mapping[str, Any]) -> None:
        """Add a row of a Modbus device, or say why it is none. name: as in the file, parts separated by dots.

        cells: device, address, type and any other column of tags.csv.
        """
        kind, order = str(cells["type"]), str(cells.get("order", ""))
        ordered = REGISTERS.get(kind, 1) > 1
        try:
            # Without an order the rest of the row can still be judged.
            parse_point(0, cells["address"], kind, order or ("ABCD" if ordered else ""), None, _CHECKED_AGAINST)
        except ValueError as error:
            self.leave(line, name, str(error))
            return
        if ordered and not order:
            why = f"the file does not say in which order the registers of its {kind} stand: `andon probe` finds out"
            self.asks.append(Left(line, name, why))
        self._add(name, cells)

    def opcua(self, line: int, name: str, cells: Mapping[str, Any]) -> None:
        """Add a row of an OPC UA device, or say why it is none."""
        try:
            parse_node(cells["address"])
        except ValueError as error:
            self.leave(line, name, str(error))
            return
        self._add(name, cells)

    def _add(self, name: str, cells: Mapping[str, Any]) -> None:
        row = dict.fromkeys(TAG_COLUMNS, "") | {key: _text(value) for key, value in cells.items()}
        base = tag = tag_name(name.split("."), row["device"])
        number = 1
        while tag.lower() in self._taken:
            number += 1
            tag = f"{base}_{number}"
        self._taken.add(tag.lower())
        if tag != name and tag != f"{row['device']}.{name}" and not row["description"]:
            row["description"] = name
        row["tag"] = tag
        self.rows.append(row)


def _text(value: object) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.12g}"  # noqa: PLR0124 - NaN is empty
    return " ".join(str(value).split())


def number(value: object) -> float | None:
    """Return a finite number as it stands in JSON or TOML, None for anything else."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) else None


def whole(value: object, least: int = 0) -> int | None:
    """Return a whole number of at least `least`, None for anything else."""
    found = number(value)
    return int(found) if found is not None and found.is_integer() and found >= least else None


def table(value: object) -> Mapping[str, Any]:
    """Return a table of JSON or TOML, an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}


def tables(value: object) -> list[Mapping[str, Any]]:
    """Return the tables of a list, nothing for anything else."""
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def words(value: object, instead: str) -> str:
    """Return a text, `instead` for anything else or none."""
    return value if isinstance(value, str) and value else instead


def period(milliseconds: object) -> int | str:
    """Return a period that tags.csv takes, "" for none."""
    found = number(milliseconds)
    return "" if found is None or found <= 0 else int(min(max(found, PERIOD_MS_MIN), PERIOD_MS_MAX))


def scale_cells(scale: float, offset: float = 0.0) -> dict[str, float | str]:
    """Return the cells of a scale; those that change nothing stay empty."""
    return {"scale": "" if scale == 1.0 else scale, "offset": "" if offset == 0.0 else offset}


class Lines:
    """Finds the line of a value in JSON or TOML text, whose parsers do not tell it: the next one after the last."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()
        self._at = 0

    def of(self, value: object) -> int:
        """Return the number (1-based) of the next line that holds the value between quotes, 0 if there is none."""
        wanted = json.dumps(str(value), ensure_ascii=False)
        other = f"'{value}'"
        for start, end in ((self._at, len(self._lines)), (0, self._at)):
            for i in range(start, end):
                if wanted in self._lines[i] or other in self._lines[i]:
                    self._at = i + 1
                    return i + 1
        return 0
