"""DataValues -> columns, without a Python object per value.

Three ways, fastest first, all exact:
- every item has the same mask and type: one structured view of the bytes;
- the layout of an earlier message of this shape: every mask and type byte is compared, which by induction from the
  first item proves that all offsets hold, then one gather per column;
- otherwise a scan over the items finds the offsets, and the layout is remembered if no item has a variable size.
Values that are no single number (text, arrays, structures) are set apart as `others`, decoded or named; their
neighbours stay in the columns.

An item (OPC 10000-6, 5.2.2.17): [handle u32] mask u8 [type u8, value] [status u32] [source time i64] [source
picoseconds u16] [server time i64] [server picoseconds u16]; the parts after the mask are there by its bits 0, 1, 2,
4, 3, 5. Times count 100 ns since 1601-01-01 UTC.
"""

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
from asyncua.common.utils import Buffer
from asyncua.ua import LocalizedText, NodeId, QualifiedName, UaError
from asyncua.ua.ua_binary import variant_from_binary
from numpy.typing import NDArray

from edge.sources.opcua_wire import ARRAY, Malformed, skip_variant

EPOCH_TICKS: Final = 116_444_736_000_000_000
"""1970-01-01 in ticks of 100 ns since 1601-01-01."""
DATE_TICKS_MAX: Final = 2_650_467_743_990_000_000
"""9999-12-31T23:59:59, the last date that OPC UA knows."""
EXACT_INTEGER_MAX: Final = 2.0**53
LAYOUTS_MAX: Final = 64
TEXT_LENGTH_MAX: Final = 4096
"""Bytes of an encoded text; a longer one is no status text."""

DTYPES: Final[dict[int, str]] = {
    1: "u1", 2: "i1", 3: "u1", 4: "<i2", 5: "<u2", 6: "<i4", 7: "<u4", 8: "<i8", 9: "<u8", 10: "<f4", 11: "<f8",
    13: "<i8", 19: "<u4",
}  # fmt: skip
"""numpy type of the built-in types that are one number, by type id. 13 is DateTime, 19 StatusCode."""
_BOOLEAN, _INT64, _UINT64, _DATE = 1, 8, 9, 13
_TEXTS: Final = frozenset((12, 14, 16, 17, 18, 20, 21))
"""Type ids that have a text: String, Guid, XmlElement, NodeId, ExpandedNodeId, QualifiedName, LocalizedText."""
_NAMES: Final[dict[int, str]] = {
    15: "ByteString",
    22: "structure",
    23: "DataValue",
    24: "Variant",
    25: "DiagnosticInfo",
}

_CARE: Final = np.array([0xFF, 0xFFFF], np.uint16)
"""The bits of mask and type that decide about the layout: the byte after a mask without a value is no type."""

Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Unusable:
    """A value that is neither a number nor a text; `what` names it for a person."""

    what: str


@dataclass(slots=True, eq=False)
class Columns:
    """n decoded items. Every array has shape (n,).

    handle: uint32 client handle, None in a ReadResponse. value: float64, NaN where there is no number; Boolean is 0
    or 1, DateTime seconds since 1970, StatusCode its number. status: uint32 OPC status, None = all good.
    source, server: int64 ticks, 0 = not given, None = none given. inexact: integers beyond 2**53, None = none.
    others: (row, text or Unusable) of the values that are no number.
    """

    handle: NDArray[np.uint32] | None
    value: NDArray[np.float64]
    status: NDArray[np.uint32] | None
    source: NDArray[np.int64] | None
    server: NDArray[np.int64] | None
    inexact: NDArray[np.bool_] | None = None
    others: tuple[tuple[int, str | Unusable], ...] = ()


_PARTS: Final = (("status", "<u4", 1), ("source", "<i8", 2), ("server", "<i8", 3))
"""The columns beside handle and value: name, numpy type, place in an entry of the offset table."""


def _offsets_of(mask: int, width: int) -> tuple[int, int, int, int, int]:
    """Return the offsets of value, status, source and server time from the mask byte (-1 = absent) and the size."""
    at = 1 + (1 + width if mask & 1 else 0)
    status = at if mask & 2 else -1
    at += 4 if mask & 2 else 0
    source = at if mask & 4 else -1
    at += (8 if mask & 4 else 0) + (2 if mask & 0x10 else 0)
    server = at if mask & 8 else -1
    at += (8 if mask & 8 else 0) + (2 if mask & 0x20 else 0)
    return (2 if mask & 1 and width else -1), status, source, server, at


def _tables() -> tuple[NDArray[np.int8], bytes]:
    """Return offsets and sizes of every item of fixed size by mask | type << 8; size 0 = not of fixed size."""
    offsets = np.full((65_536, 4), -1, np.int8)
    sizes = bytearray(65_536)
    for mask in range(64):
        for kind in (0, *DTYPES) if mask & 1 else range(256):
            *offsets[mask | kind << 8], sizes[mask | kind << 8] = _offsets_of(
                mask, np.dtype(DTYPES[kind]).itemsize if mask & 1 and kind else 0
            )
    return offsets, bytes(sizes)


_OFFSETS, _SIZES = _tables()


def _records() -> dict[int, np.dtype[np.void]]:
    """Return the structured type of a DataValue without a handle by mask | type << 8, for uniform messages."""
    records = {}
    for mask in range(64):
        for kind in (0, *DTYPES) if mask & 1 else (0,):
            key = mask | kind << 8
            value = [("value", DTYPES[kind], int(_OFFSETS[key, 0]))] if mask & 1 and kind else []
            parts = [(name, form, int(_OFFSETS[key, place])) for name, form, place in _PARTS]
            fields = [("mark", "<u2" if mask & 1 else "u1", 0), *value, *(part for part in parts if part[2] >= 0)]
            names, forms, offsets = zip(*fields, strict=True)
            records[key] = np.dtype({"names": names, "formats": forms, "offsets": offsets, "itemsize": _SIZES[key]})
    return records


_VALUES: Final = _records()
_NOTIFIED: Final = {
    key: np.dtype({"names": ("handle", "item"), "formats": ("<u4", record), "offsets": (0, 4)})
    for key, record in _VALUES.items()
}


def _numbers(raw: NDArray[np.generic], kind: int) -> NDArray[np.float64]:
    if kind == _BOOLEAN:
        numbers: NDArray[np.float64] = np.not_equal(raw, 0).astype(np.float64)
        return numbers
    if kind == _DATE:
        ticks = np.clip(raw.astype(np.int64), 0, DATE_TICKS_MAX)
        seconds: NDArray[np.float64] = (ticks // 10 - EPOCH_TICKS // 10) / 1e6
        return seconds
    with np.errstate(invalid="ignore"):  # a signalling NaN is judged with every other NaN, later
        return raw.astype(np.float64)


def _beyond(value: NDArray[np.float64]) -> NDArray[np.bool_] | None:
    beyond = np.abs(value) > EXACT_INTEGER_MAX
    return beyond if beyond.any() else None


def _uniform(data: bytes, start: int, count: int, prefix: int, end: int) -> tuple[Columns, int] | None:
    if start + prefix + 2 > end:
        return None
    key = data[start + prefix] | data[start + prefix + 1] << 8
    if not key & 1:
        key &= 0xFF
    record = _VALUES.get(key)
    if record is None:
        return None
    stop = start + count * (prefix + record.itemsize)
    if stop > end:
        return None
    whole = np.frombuffer(data, _NOTIFIED[key] if prefix else record, count, start)
    items = whole["item"] if prefix else whole
    if not (items["mark"] == key).all():
        return None
    kind = key >> 8
    mask = key & 0xFF
    value = _numbers(items["value"], kind) if kind else np.full(count, np.nan)
    columns = Columns(
        whole["handle"] if prefix else None,
        value,
        items["status"] if mask & 2 else None,
        items["source"] if mask & 4 else None,
        items["server"] if mask & 8 else None,
        _beyond(value) if kind in {_INT64, _UINT64} else None,
    )
    return columns, stop


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """One column of some rows: where its values lie relative to the first item. rows None = every row has it."""

    name: str
    kind: int
    rows: Rows | None
    at: Rows
    form: str


@dataclass(frozen=True, slots=True, eq=False)
class _Layout:
    """The offsets of all items of one message. care: which bits of mask and type decide about the layout."""

    marks: Rows
    keys: NDArray[np.uint16]
    care: NDArray[np.uint16]
    pieces: tuple[_Piece, ...]
    size: int

    def fits(self, data: bytes, start: int) -> bool:
        if start + self.size >= len(data):
            return False
        marks: NDArray[np.uint16] = _window(data, start, "<u2")[self.marks]  # type: ignore[assignment]
        return bool((marks & self.care == self.keys).all())


def _window(data: bytes, start: int, form: str) -> NDArray[np.generic]:
    """Return a view whose element i is the number at byte start + i, whatever its alignment."""
    dtype = np.dtype(form)
    return np.ndarray((len(data) - start - dtype.itemsize + 1,), dtype, data, start, (1,))


def _pieces(keys: NDArray[np.uint16], marks: Rows, rows: Rows | None) -> tuple[_Piece, ...]:
    """Plan the gathers for `rows` (None = all), whose items have a fixed size; handles are taken for all."""
    if rows is not None:
        keys, marks = keys[rows], marks[rows]
    pieces = []

    def add(name: str, kind: int, form: str, chosen: NDArray[np.bool_], at: Rows) -> None:
        if chosen.all():
            pieces.append(_Piece(name, kind, rows, at, form))
        elif chosen.any():
            some = np.flatnonzero(chosen)
            pieces.append(_Piece(name, kind, some if rows is None else rows[some], at[some], form))

    kinds = keys >> 8
    for kind in np.unique(kinds).tolist():
        if kind:
            add("value", kind, DTYPES[kind], kinds == kind, marks + 2)
    for name, form, place in _PARTS:
        offsets = _OFFSETS[keys, place]
        add(name, 0, form, offsets >= 0, marks + offsets)
    return tuple(pieces)


def _gather(data: bytes, start: int, pieces: tuple[_Piece, ...], marks: Rows, prefix: int) -> Columns:
    n = len(marks)
    columns = Columns(None, np.full(n, np.nan), None, None, None)
    if prefix:
        columns.handle = _window(data, start, "<u4")[marks - prefix]  # type: ignore[assignment]
    for piece in pieces:
        raw = _window(data, start, piece.form)[piece.at]
        if piece.name == "value":
            _put_numbers(columns, _numbers(raw, piece.kind), piece)
        elif piece.rows is None:
            setattr(columns, piece.name, raw)
        else:
            part = np.zeros(n, raw.dtype)
            part[piece.rows] = raw
            setattr(columns, piece.name, part)
    return columns


def _put_numbers(columns: Columns, numbers: NDArray[np.float64], piece: _Piece) -> None:
    beyond = _beyond(numbers) if piece.kind in {_INT64, _UINT64} else None
    if piece.rows is None:
        columns.value = numbers
        columns.inexact = beyond
        return
    columns.value[piece.rows] = numbers
    if beyond is not None:
        if columns.inexact is None:
            columns.inexact = np.zeros(len(columns.value), np.bool_)
        columns.inexact[piece.rows] = beyond


def _text_of(data: bytes, start: int, stop: int) -> str | Unusable:
    """Decode a text variant with asyncua's decoder."""
    if stop - start > TEXT_LENGTH_MAX:
        return Unusable(f"text of {stop - start} bytes")
    try:
        value = variant_from_binary(Buffer(data[start:stop])).Value
    except (UaError, ValueError, TypeError, struct.error):
        return Unusable("text that cannot be decoded")
    if isinstance(value, LocalizedText):
        value = value.Text
    elif isinstance(value, QualifiedName):
        value = value.Name
    elif isinstance(value, NodeId):
        value = value.to_string()
    return Unusable("null text") if value is None else str(value)


def _other(data: bytes, start: int, stop: int) -> str | Unusable:
    """Return the text of the variant at `start`, or the name of what it is."""
    encoding = data[start]
    kind = encoding & 0x3F
    if encoding & ARRAY:
        return Unusable("array")
    if kind in _TEXTS and not encoding & 0x40:
        return _text_of(data, start, stop)
    return Unusable(_NAMES.get(kind, f"value of type {kind}"))


class Decoder:
    """Decodes item lists and remembers the layouts it has met, at most LAYOUTS_MAX."""

    def __init__(self) -> None:
        self._layouts: dict[tuple[int, int, int], _Layout] = {}

    def decode(self, data: bytes, start: int, count: int, prefix: int, end: int) -> tuple[Columns, int]:
        """Decode `count` items that begin at `start` and end at or before `end`; return them and where they end.

        prefix: 4 for MonitoredItemNotifications, 0 for plain DataValues. Raises Malformed.
        """
        if count > end - start:
            raise Malformed(f"{count} items are announced in {end - start} bytes")
        if count == 0:
            none = np.empty(0, np.uint32)
            return Columns(none if prefix else None, np.empty(0), None, None, None), start
        uniform = _uniform(data, start, count, prefix, end)
        if uniform is not None:
            return uniform
        layout = self._layouts.get((count, prefix, end - start))
        if layout is not None and layout.fits(data, start):
            return _gather(data, start, layout.pieces, layout.marks, prefix), start + layout.size
        try:
            return self._scan(data, start, count, prefix, end)
        except (struct.error, IndexError) as error:
            raise Malformed(f"items of a notification cannot be told apart: {error}") from error

    def _scan(self, data: bytes, start: int, count: int, prefix: int, end: int) -> tuple[Columns, int]:
        padded = data + b"\0"  # the type byte after a mask without a value may lie beyond the end
        marks = [0] * count
        variable: list[tuple[int, int]] = []
        at = start
        for row in range(count):
            at += prefix
            marks[row] = at
            size = _SIZES[padded[at] | padded[at + 1] << 8]
            if not size:
                size = self._variable_size(data, at)
                variable.append((row, size))
            at += size
        if at > end:
            raise Malformed(f"items end after byte {at}, the notification after {end}")
        places = np.array(marks, np.intp) - start
        keys: NDArray[np.uint16] = _window(padded, start, "<u2")[places]  # type: ignore[assignment]
        care = _CARE[keys & 1]
        keys &= care
        if not variable:
            pieces = _pieces(keys, places, None)
            if len(self._layouts) >= LAYOUTS_MAX:
                self._layouts.clear()
            self._layouts[count, prefix, end - start] = _Layout(places, keys, care, pieces, at - start)
            return _gather(data, start, pieces, places, prefix), at
        fixed = np.ones(count, np.bool_)
        fixed[[row for row, _ in variable]] = False
        columns = _gather(data, start, _pieces(keys, places, np.flatnonzero(fixed)), places, prefix)
        _fill(columns, data, marks, variable)
        return columns, at

    @staticmethod
    def _variable_size(data: bytes, at: int) -> int:
        mask = data[at]
        if not mask & 1 or mask & 0xC0:
            raise Malformed(f"the mask of a value, {mask:#x}, does not exist")
        return skip_variant(data, at + 1) - at + _offsets_of(mask & ~1, 0)[4] - 1


def _fill(columns: Columns, data: bytes, marks: list[int], variable: list[tuple[int, int]]) -> None:
    """Complete the rows of variable size: their status and times into the columns, their values into `others`."""
    n = len(marks)
    others = []
    for row, size in variable:
        mask = data[marks[row]]
        _, status, source, server, after = _offsets_of(mask & ~1, 0)
        value = marks[row] + 1
        stop = marks[row] + size - after + 1
        others.append((row, _other(data, value, stop)))
        for name, form, place in (("status", "<u4", status), ("source", "<i8", source), ("server", "<i8", server)):
            if place >= 0:
                column = getattr(columns, name)
                if column is None:
                    column = np.zeros(n, form)
                column[row] = np.frombuffer(data, form, 1, stop + place - 1)[0]
                setattr(columns, name, column)
    columns.others = tuple(others)
