"""What is read from a Modbus device: its points.

Owns the meaning of an address in tags.csv; nothing here opens a socket, so a configuration can be checked offline.
Leaves the grouping into requests to `modbus_blocks`.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal

from edge.sources.modbus_options import REGISTERS_PER_READ_MAX, ModbusOptions

ADDRESSES: Final = 65_536

Area = Literal["coil", "discrete", "input", "holding"]
Order = Literal["ABCD", "BADC", "CDAB", "DCBA"]

FUNCTIONS: Final[dict[str, int]] = {"coil": 1, "discrete": 2, "holding": 3, "input": 4}
"""The read function of each area (V1.1b3, 6.1 to 6.4)."""
AREAS: Final[dict[int, str]] = {function: area for area, function in FUNCTIONS.items()}
ORDERS: Final = ("ABCD", "BADC", "CDAB", "DCBA")

REGISTERS: Final[dict[str, int]] = {
    "bool": 1, "int16": 1, "uint16": 1, "float16": 1, "bcd16": 1, "int32": 2, "uint32": 2, "float32": 2, "bcd32": 2,
    "int64": 4, "uint64": 4, "float64": 4,
}  # fmt: skip
"""How many registers a value of each type takes; a text takes one per two characters."""

_UNITS = "stated as 7/holding/20 or by unit_id of the device"
_ADDRESS = re.compile(r"(?:(\d+)/)?([a-z]+)/(\d+)(?:\.(\d+))?")
_TEXT = re.compile(r"string:(\d+)")


@dataclass(frozen=True, slots=True)
class ModbusPoint:
    """One value in a device.

    tag: tag index. offset: zero-based protocol address of the first register or bit. bit: 0 (least significant) to
    15 of a register, None for whole registers and for coils. order: how the bytes of the value stand in the registers.
    length: bytes of a text, 0 for anything else.
    """

    tag: int
    unit_id: int
    area: str
    offset: int
    bit: int | None
    type: str
    order: str
    period_ms: int
    length: int = 0

    @property
    def function(self) -> int:
        """The function code that reads the area."""
        return FUNCTIONS[self.area]

    @property
    def size(self) -> int:
        """Registers (or bits, in an area of bits) that the value takes."""
        return (self.length + 1) // 2 if self.type == "string" else REGISTERS[self.type]

    @property
    def end(self) -> int:
        """The first address after the value."""
        return self.offset + self.size

    def __str__(self) -> str:
        return f"{self.area}/{self.offset}" + ("" if self.bit is None else f".{self.bit}")


def parse_point(
    tag_index: int,
    address: str,
    type: str,  # noqa: A002 - the name of the column in tags.csv
    order: str,
    period_ms: int | None,
    options: ModbusOptions,
) -> ModbusPoint:
    """Read one row of tags.csv. `period_ms` None or 0 takes the device's. Raises ValueError with a sentence."""
    match = _ADDRESS.fullmatch(address.strip())
    if match is None:
        raise ValueError(_not_an_address(address, options.first_address))
    unit, area, offset_text, bit_text = match.groups()
    if area not in FUNCTIONS:
        raise ValueError(f'"{area}" is no area of a Modbus device; expected coil, discrete, input or holding')
    unit_id = options.unit_id if unit is None else int(unit)
    if unit_id > 255:
        raise ValueError(f"unit id {unit_id} is out of range; expected 0 to 255")
    if unit_id == 0 and options.is_rtu:
        raise ValueError(
            f"unit id 0 is a broadcast on a serial line and nobody answers it; expected 1 to 255, {_UNITS}"
        )
    kind, length = _parse_type(type.strip())
    bit = None if bit_text is None else int(bit_text)
    _check_bit(area, kind, bit, address)
    offset = int(offset_text) - options.first_address
    if offset < 0:
        raise ValueError(f'"{address}": the addresses of device {options.name} begin with 1 (first_address = 1)')
    point = ModbusPoint(
        tag=tag_index,
        unit_id=unit_id,
        area=area,
        offset=offset,
        bit=bit,
        type=kind,
        order=_parse_order(order.strip().upper(), kind, type, area),
        period_ms=period_ms or options.period_ms,
        length=length,
    )
    if point.end > ADDRESSES:
        last = ADDRESSES - 1 + options.first_address
        raise ValueError(f"{address} with type {type} ends beyond address {last}, the last one that Modbus has")
    if options.coils_from_zero and area in ("coil", "discrete") and point.end > options.coils_per_read_max:
        raise ValueError(
            f"{address} cannot be read: device {options.name} reads at most {options.coils_per_read_max} bits "
            "(coils_per_read_max) from address 0 (coils_from_zero)"
        )
    if area in ("input", "holding") and point.size > options.registers_per_read_max:
        raise ValueError(
            f"type {type} takes {point.size} registers, but device {options.name} reads at most "
            f"{options.registers_per_read_max} at once (registers_per_read_max)"
        )
    if not 10 <= point.period_ms <= 86_400_000:
        raise ValueError(f"period_ms {point.period_ms} is out of range; expected 10 to 86400000")
    return point


def _not_an_address(address: str, first_address: int) -> str:
    number = address.strip()
    expected = "expected [unit_id/]area/offset[.bit], e.g. holding/100, 7/input/20, holding/12.3, coil/5"
    if number.isdigit() and len(number) in (5, 6) and number[0] in "0134":
        area = {"0": "coil", "1": "discrete", "3": "input", "4": "holding"}[number[0]]
        what = "the address" if first_address else "the protocol address"
        return f'"{address}" is a reference number; write {what} instead: {area}/{int(number[1:]) - 1 + first_address}'
    return f'"{address}" is no Modbus address; {expected}'


def _parse_type(text: str) -> tuple[str, int]:
    match = _TEXT.fullmatch(text)
    if match is not None:
        length = int(match[1])
        if not 1 <= length <= 2 * REGISTERS_PER_READ_MAX:
            raise ValueError(f"{text}: a text has 1 to {2 * REGISTERS_PER_READ_MAX} characters")
        return "string", length
    if text not in REGISTERS:
        raise ValueError(f'"{text}" is no type of a Modbus value; expected {", ".join(REGISTERS)} or string:N')
    return text, 0


def _check_bit(area: str, kind: str, bit: int | None, address: str) -> None:
    if area in ("coil", "discrete"):
        if bit is not None:
            raise ValueError(f'"{address}": a {area} is one bit already; leave ".{bit}" away')
        if kind != "bool":
            raise ValueError(f'"{address}": a {area} has type bool, not {kind}')
    elif bit is not None:
        if kind != "bool":
            raise ValueError(f'"{address}": a bit of a register has type bool, not {kind}')
        if bit > 15:
            raise ValueError(f'"{address}": a register has the bits 0 (least significant) to 15')
    elif kind == "bool":
        raise ValueError(f'"{address}": say which bit of the register, e.g. {address}.0')


def _parse_order(order: str, kind: str, written: str, area: str) -> str:
    if order and order not in ORDERS:
        raise ValueError(f'"{order}" is no byte order; expected ABCD, BADC, CDAB or DCBA')
    if area in ("coil", "discrete"):
        return "ABCD"
    if kind == "string":
        if order in ("CDAB", "DCBA"):
            raise ValueError(f"{written}: a text has order ABCD (default) or BADC (two characters swapped)")
        return order or "ABCD"
    if not order and REGISTERS[kind] > 1:
        raise ValueError(
            f"type {written} takes {REGISTERS[kind]} registers and devices differ in their order; "
            "state order ABCD (big endian), CDAB (words swapped), BADC (bytes swapped) or DCBA (little endian)"
        )
    return order or "ABCD"
