"""Where a Modbus PLC keeps its values, and how a value becomes registers.

Types and word orders are the vocabulary of the tag list: ABCD is big-endian throughout; B and A, D and C are the bytes
of each word.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from edge.simulator.machine import Value

AREAS: Final = ("coil", "discrete", "holding", "input")
_FORMATS: Final[Mapping[str, str]] = {
    "int16": ">h", "uint16": ">H", "int32": ">i", "uint32": ">I", "int64": ">q", "uint64": ">Q",
    "float32": ">f", "float64": ">d",
}  # fmt: skip
REGISTERS_PER_AREA: Final = 64
"""Every area of a simulated unit has this many registers; what holds no value reads 0."""


@dataclass(frozen=True, slots=True)
class Register:
    """The place of one value.

    offset: zero-based protocol address. type: as in the tag list. order: ABCD, BADC, CDAB or DCBA.
    bit: within a holding or input register. scale: value = raw * scale.
    """

    name: str
    unit_id: int
    area: str
    offset: int
    type: str
    order: str = "ABCD"
    bit: int | None = None
    scale: float = 1.0

    @property
    def address(self) -> str:
        """The address as the tag list writes it; unit 1 goes unsaid."""
        unit = "" if self.unit_id == 1 else f"{self.unit_id}/"
        bit = "" if self.bit is None else f".{self.bit}"
        return f"{unit}{self.area}/{self.offset}{bit}"

    @property
    def count(self) -> int:
        """Registers (bits for coils and discrete inputs) that the value takes."""
        if self.type == "bool":
            return 1
        if self.type.startswith("string:"):
            return (int(self.type.split(":")[1]) + 1) // 2
        return struct.calcsize(_FORMATS[self.type]) // 2


def encode(register: Register, value: Value) -> list[int]:
    """Return the registers of a value that is no bit; text is cut to its length and padded with NUL."""
    if register.type.startswith("string:"):
        size = register.count * 2
        data = str(value).encode()[:size].ljust(size, b"\0")
    else:
        number = float(value) / register.scale
        whole = not register.type.startswith("float")
        data = struct.pack(_FORMATS[register.type], _clamp(register.type, round(number)) if whole else number)
    words = [data[i : i + 2] for i in range(0, len(data), 2)]
    if register.order in {"CDAB", "DCBA"}:
        words.reverse()
    swap = register.order in {"BADC", "DCBA"}
    return [int.from_bytes(word, "little" if swap else "big") for word in words]


def _clamp(kind: str, number: int) -> int:
    bits = int(kind.removeprefix("u").removeprefix("int"))
    least, most = (0, (1 << bits) - 1) if kind.startswith("u") else (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    return min(max(number, least), most)
