"""What registers may mean: every type under every order, and which of them gives a value that somebody knows.

Pure. The rules of orders are those of `edge.sources.modbus_blocks`; a test compares the two.
"""

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

ORDERS: Final = ("ABCD", "CDAB", "BADC", "DCBA")
FORMATS: Final = {
    "uint16": ">H", "int16": ">h", "float16": ">e", "uint32": ">I", "int32": ">i", "float32": ">f",
    "uint64": ">Q", "int64": ">q", "float64": ">d",
}  # fmt: skip
WIDE_TYPES: Final = ("int32", "uint32", "float32", "int64", "uint64", "float64")
"""What takes more than one register, as it is shown."""
_SIZES: Final = {"bcd16": 1, "bcd32": 2} | {name: struct.calcsize(form) // 2 for name, form in FORMATS.items()}

SCALES: Final = {1.0: 0.0, 0.1: 5.0, 0.01: 5.0, 0.001: 5.0, 0.0001: 7.0, 10.0: 8.0, 100.0: 8.0, 1000.0: 8.0}
"""Factors that devices use, and how many bits of evidence a match needs more to be believed as much."""
_RARE: Final = {"BADC": 2.0, "DCBA": 2.0, "bcd16": 5.0, "bcd32": 5.0, "float16": 8.0, "int64": 1.0, "uint64": 1.0}
"""The same for orders and types that few devices use."""
EVIDENCE_EQUAL: Final = 1.5
"""Bits by which the best match must lead to be called the answer."""
EVIDENCE_MIN: Final = 6.0
"""Bits below which a match may well be an accident."""
SMALL_BITS: Final = 4.0

Number = int | float


@dataclass(frozen=True, slots=True)
class Match:
    """A reading of registers that gives the expected value.

    address: of the first register. also: another type that cannot be told apart here, "" if there is none. value:
    raw * scale. evidence: bits; the chance that it fits by accident is about 2^-evidence for each register read.
    """

    address: int
    type: str
    order: str
    scale: float
    raw: Number
    value: float
    evidence: float
    also: str = ""


def size_of(kind: str) -> int:
    """Return how many registers a type takes."""
    return _SIZES[kind]


def ordered(words: Mapping[int, int], address: int, size: int, order: str) -> bytes | None:
    """Return the bytes of a value, most significant first; None if a register was not read.

    ABCD: as they come. BADC: the bytes of each register swapped. CDAB: the registers reversed. DCBA: both.
    """
    try:
        registers = [words[address + i] for i in range(size)]
    except KeyError:
        return None
    if order in ("CDAB", "DCBA"):
        registers.reverse()
    byte_order = "little" if order in ("BADC", "DCBA") else "big"
    return b"".join(word.to_bytes(2, byte_order) for word in registers)  # type: ignore[arg-type]


def decode(words: Mapping[int, int], address: int, kind: str, order: str) -> Number | None:
    """Return the value of a type that begins at an address; None if it is incomplete or no BCD."""
    data = ordered(words, address, _SIZES[kind], order)
    if data is None:
        return None
    if kind.startswith("bcd"):
        digits = data.hex()
        return int(digits) if digits.isdecimal() else None
    value: Number = struct.unpack(FORMATS[kind], data)[0]
    return value


def text_of(word: int) -> str:
    """Return the two characters of a register, a dot for what is not printable."""
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in word.to_bytes(2, "big"))


def find_matches(words: Mapping[int, int], expected: float, tolerance: float) -> list[Match]:
    """Return every reading that gives the expected value, best first. expected must not be 0.

    The best is the least likely to fit by accident: much information in the registers, a narrow tolerance, no factor.
    """
    found = [match for address in words for match in _matches_at(words, address, expected, tolerance)]
    return sorted(found, key=lambda one: (-one.evidence, size_of(one.type), ORDERS.index(one.order), one.address))


def _matches_at(words: Mapping[int, int], address: int, expected: float, tolerance: float) -> Iterator[Match]:
    for kind in _SIZES:
        for order in ORDERS if size_of(kind) > 1 else ("ABCD", "BADC"):
            raw = decode(words, address, kind, order)
            if raw is None or raw == 0 or not math.isfinite(raw):
                continue
            signed = kind.removeprefix("u")
            if kind == signed and kind.startswith("int") and decode(words, address, f"u{kind}", order) == raw:
                continue  # told together with the unsigned type
            also = signed if kind != signed and decode(words, address, signed, order) == raw else ""
            for scale, penalty in SCALES.items():
                value = raw * scale
                if abs(value - expected) > tolerance * (1 + 1e-9) + abs(expected) * 1e-7:
                    continue
                bits = _evidence(words, address, kind, raw, tolerance / scale)
                bits -= penalty + _RARE.get(kind, 0.0) + _RARE.get(order, 0.0)
                yield Match(address, kind, order, scale, raw, value, bits, also)


def _evidence(words: Mapping[int, int], address: int, kind: str, raw: Number, tolerance: float) -> float:
    """Return the bits that agree: those of the value less those that the tolerance leaves open.

    Registers of zeros, or of ones in front of a negative integer, agree too easily to count.
    """
    registers = [words[address + i] for i in range(size_of(kind))]
    empty = (0, 0xFFFF) if raw < 0 and not kind.startswith("float") else (0,)
    bits = 16.0 * sum(word not in empty for word in registers)
    step = 1.0
    if not kind.startswith("float"):
        bits = min(bits, math.log2(abs(raw)) + SMALL_BITS)  # small numbers stand in many registers
    if kind.startswith("float"):
        fraction = {"float16": 10, "float32": 23, "float64": 52}[kind]
        step = 2.0 ** (math.frexp(raw)[1] - 1 - fraction)
        # The registers of zeros at the end of a round number carry none of its bits.
        step *= 2.0 ** (16 * sum(word == 0 for word in registers))
    return bits - math.log2(max(2 * tolerance / step, 1.0))


def is_clear(matches: list[Match]) -> bool:
    """Tell whether the best match is no accident and leads so far that it is the answer."""
    if not matches or matches[0].evidence < EVIDENCE_MIN:
        return False
    return len(matches) == 1 or matches[0].evidence - matches[1].evidence >= EVIDENCE_EQUAL
