"""From points to requests and from replies to columns: pure, without a socket.

`plan` joins points to blocks, each one legal request. A `Block` carries prepared index vectors, so `decode` turns a
reply into values with a handful of numpy calls however many points the block has. No value is split over two blocks.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge.sources.modbus_options import COILS_PER_READ_MAX
from edge.sources.modbus_points import ModbusPoint
from plant.batch import BAD, GOOD, UNCERTAIN
from plant.texts import Texts

EXACT_MAX: Final = 2**53
"""Integers beyond this do not fit a float64 exactly."""

_DTYPES: Final[dict[str, str]] = {
    "int16": ">i2", "uint16": ">u2", "int32": ">i4", "uint32": ">u4", "int64": ">i8", "uint64": ">u8",
    "float16": ">f2", "float32": ">f4", "float64": ">f8", "bcd16": ">u2", "bcd32": ">u4", "bool": ">u2",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may hold. gap: registers, or groups of 16 bits, that may be read in vain to join two points.
    coils_from_zero: reads of bits start at address 0.
    """

    registers_max: int
    coils_max: int
    gap: int
    coils_from_zero: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The values of one type in a block; they stand in the rows first..last-1 of its result.

    gather: (n, bytes of a value) positions in the reply, in big-endian order of the value; None if the values stand
    one after the other, big-endian, from byte `byte` on. shift: the bit of each row, for bool only.
    """

    type: str
    first: int
    last: int
    dtype: np.dtype[Any]
    byte: int
    gather: NDArray[np.intp] | None
    shift: NDArray[np.uint16] | None


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """One read request and how its reply becomes rows; `points` and `tags` are in the order of the rows.

    from_zero: it starts at address 0 because the device knows no other start.
    """

    unit_id: int
    function: int
    start: int
    count: int
    period_ms: int
    points: tuple[ModbusPoint, ...]
    tags: NDArray[np.uint32]
    parts: tuple[Part, ...]
    bits: NDArray[np.intp] | None
    from_zero: bool = False

    @property
    def bytes_due(self) -> int:
        """The byte count that a correct reply states."""
        return bytes_due(self.function, self.count)


def bytes_due(function: int, count: int) -> int:
    """Return the byte count of a reply of `count` bits (functions 1, 2) or registers (3, 4)."""
    return (count + 7) // 8 if function <= 2 else 2 * count


def plan(points: Iterable[ModbusPoint], limits: Limits) -> list[Block]:
    """Join points to as few blocks as `limits` allow; each point is in exactly one block."""
    lanes: dict[tuple[int, int, int], list[ModbusPoint]] = {}
    for point in points:
        lanes.setdefault((point.period_ms, point.unit_id, point.function), []).append(point)
    return [block for key in sorted(lanes) for block in plan_lane(lanes[key], limits)]


def plan_lane(
    points: Sequence[ModbusPoint],
    limits: Limits,
    illegal: Collection[tuple[int, int]] = (),
    cuts: Collection[int] = (),
) -> list[Block]:
    """Plan points of one unit, function and period.

    illegal: ranges (first, end) that no gap may cover. cuts: a point at or after a cut never joins a block that
    starts before it.
    """
    if not points:
        return []
    is_bits = points[0].function <= 2
    size_max = limits.coils_max if is_bits else limits.registers_max
    from_zero = is_bits and limits.coils_from_zero
    gap_max = COILS_PER_READ_MAX if from_zero else limits.gap * 16 if is_bits else limits.gap
    blocks: list[Block] = []
    run: list[ModbusPoint] = []
    start = end = 0
    for point in sorted(points, key=lambda p: (p.offset, p.size)):
        joins = (
            bool(run)
            and point.offset - end <= gap_max
            and max(end, point.end) - start <= size_max
            and not any(first < point.offset and end < last for first, last in illegal)
            and not any(start < cut <= point.offset for cut in cuts)
        )
        if run and not joins:
            blocks.append(block_of(run, from_zero=from_zero))
            run = []
        if not run:
            start = 0 if from_zero else point.offset
            end = point.offset
        run.append(point)
        end = max(end, point.end)
    blocks.append(block_of(run, from_zero=from_zero))
    return blocks


def block_of(points: Sequence[ModbusPoint], *, from_zero: bool = False) -> Block:
    """Build the request that covers points of one unit, function and period, and prepare its decoding."""
    first = points[0]
    start = 0 if from_zero else min(p.offset for p in points)
    count = max(p.end for p in points) - start
    is_bits = first.function <= 2
    rows = tuple(points if is_bits else sorted(points, key=lambda p: (p.type, p.offset)))
    return Block(
        unit_id=first.unit_id,
        function=first.function,
        start=start,
        count=count,
        period_ms=first.period_ms,
        points=rows,
        tags=np.array([p.tag for p in rows], np.uint32),
        parts=() if is_bits else _parts(rows, start),
        bits=np.array([p.offset - start for p in rows], np.intp) if is_bits else None,
        from_zero=from_zero,
    )


def split(block: Block) -> tuple[Block, Block] | None:
    """Cut a block in two between values at different addresses, as evenly as can be; None if all stand at the same."""
    spans: dict[tuple[int, int], list[ModbusPoint]] = {}
    for point in sorted(block.points, key=lambda p: (p.offset, p.size)):
        spans.setdefault((point.offset, point.end), []).append(point)
    groups = list(spans.values())
    if len(groups) == 1:
        return None
    middle = len(groups) // 2
    left = [point for group in groups[:middle] for point in group]
    right = [point for group in groups[middle:] for point in group]
    return block_of(left, from_zero=block.from_zero), block_of(right, from_zero=block.from_zero)


def decode(block: Block, payload: bytes, texts: Texts) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Return (values float64, quality uint8), one row per point of the block.

    payload: the data of a reply, exactly `block.bytes_due` bytes. NaN, infinity and BCD digits over 9 are BAD (value
    NaN), integers beyond 2**53 are UNCERTAIN.
    """
    raw = np.frombuffer(payload, np.uint8)
    n = len(block.tags)
    quality = np.full(n, GOOD, np.uint8)
    if block.bits is not None:
        return np.unpackbits(raw, bitorder="little")[block.bits].astype(np.float64), quality
    values = np.empty(n)
    for part in block.parts:
        rows = slice(part.first, part.last)
        if part.type == "string":
            values[rows] = _texts(block.points[rows], block.start, payload, texts)
            continue
        if part.gather is None:
            numbers = np.frombuffer(payload, part.dtype, part.last - part.first, part.byte)
        else:
            numbers = raw[part.gather].view(part.dtype)[:, 0]
        _convert(part, numbers, values[rows], quality[rows])
    return values, quality


def _convert(part: Part, numbers: NDArray[Any], values: NDArray[np.float64], quality: NDArray[np.uint8]) -> None:
    """Write the values and the qualities of one part in place."""
    match part.type:
        case "bool":
            values[:] = (numbers >> part.shift) & 1
        case "bcd16" | "bcd32":
            _bcd(numbers, values, quality)
        case "int64" | "uint64":
            values[:] = numbers
            quality[(numbers > EXACT_MAX) | (numbers < -EXACT_MAX)] = UNCERTAIN
        case "float16" | "float32" | "float64":
            values[:] = numbers
            finite = np.isfinite(values)
            if not finite.all():
                values[~finite] = np.nan
                quality[~finite] = BAD
        case _:
            values[:] = numbers


def _bcd(numbers: NDArray[Any], values: NDArray[np.float64], quality: NDArray[np.uint8]) -> None:
    digits_count = 2 * numbers.dtype.itemsize
    shifts = np.arange(digits_count, dtype=np.uint32) * 4
    digits = (numbers.astype(np.uint32)[:, None] >> shifts) & 0xF
    values[:] = digits @ (10.0 ** np.arange(digits_count))
    wrong = (digits > 9).any(axis=1)
    if wrong.any():
        values[wrong] = np.nan
        quality[wrong] = BAD


def _texts(points: Sequence[ModbusPoint], start: int, payload: bytes, texts: Texts) -> list[float]:
    """Intern the texts of a block: they end at the first NUL, blanks at the end do not count."""
    codes: list[float] = []
    for point in points:
        first = 2 * (point.offset - start)
        raw = payload[first : first + 2 * point.size]
        if point.order == "BADC":
            raw = b"".join(raw[i : i + 2][::-1] for i in range(0, len(raw), 2))
        text = raw[: point.length].split(b"\0", 1)[0].decode("utf-8", "replace").rstrip()
        codes.append(float(texts.code(point.tag, text)))
    return codes


def byte_positions(point: ModbusPoint, start: int) -> list[int]:
    """Return where the bytes of a value stand in the reply of a block that begins at `start`, most significant first.

    ABCD: registers and bytes as they come. BADC: the bytes of each register are swapped. CDAB: the registers come in
    reverse. DCBA: both. The same rule serves one, two and four registers.
    """
    registers = range(point.offset - start, point.end - start)
    words = reversed(registers) if point.order in ("CDAB", "DCBA") else registers
    pair = (1, 0) if point.order in ("BADC", "DCBA") else (0, 1)
    return [2 * word + byte for word in words for byte in pair]


def _parts(rows: Sequence[ModbusPoint], start: int) -> tuple[Part, ...]:
    parts: list[Part] = []
    first = 0
    while first < len(rows):
        kind = rows[first].type
        last = first
        while last < len(rows) and rows[last].type == kind:
            last += 1
        parts.append(_part(kind, first, last, rows[first:last], start))
        first = last
    return tuple(parts)


def _part(kind: str, first: int, last: int, points: Sequence[ModbusPoint], start: int) -> Part:
    if kind == "string":
        return Part(kind, first, last, np.dtype(np.uint8), 0, None, None)
    gather = np.array([byte_positions(point, start) for point in points], np.intp)
    byte = int(gather[0, 0])
    in_line = np.array_equal(gather.ravel(), np.arange(byte, byte + gather.size))
    shift = np.array([point.bit or 0 for point in points], np.uint16) if kind == "bool" else None
    return Part(kind, first, last, np.dtype(_DTYPES[kind]), byte, None if in_line else gather, shift)
