"""Readings as bytes of metrics, all at once: columns in, one buffer out, no Python work per reading.

The layout of one metric in a data message (field numbers: Sparkplug 3.0.0, chapter 6; encoding: protobuf):

    12 <length> | 10 <alias> | 18 <time, ms> | [28 01 historical] | [38 01 null] | [4a <n> quality] | 69 <float64>

Rows of one device are one slice of the buffer. Text values are the only part made one by one, by the caller.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.outlets.sparkplug import payload
from plant.batch import BAD, GOOD, UNCERTAIN, Batch
from plant.instant import NS_PER_MS

_NULL: Final = np.frombuffer(b"\x38\x01", np.uint8)
_HISTORICAL: Final = np.frombuffer(b"\x28\x01", np.uint8)
_DOUBLE: Final = 0x69
_DOUBLE_SIZE: Final = 9
_THRESHOLDS: Final = np.array([1 << (7 * k) for k in range(1, 10)], np.uint64)

Index = NDArray[np.intp]


def _quality_field(quality: int) -> NDArray[np.uint8]:
    encoded = payload.properties(quality)
    return np.frombuffer(b"\x4a" + payload.varint(len(encoded)) + encoded, np.uint8)


_QUALITY: Final = {quality: _quality_field(quality) for quality in (GOOD, UNCERTAIN, BAD)}


def _lengths(values: NDArray[np.uint64]) -> Index:
    """Return the number of bytes of each varint."""
    return np.searchsorted(_THRESHOLDS, values, side="right").astype(np.intp) + 1


def _put(buffer: NDArray[np.uint8], at: Index, data: NDArray[np.uint8]) -> None:
    """Write the same bytes at each place."""
    buffer[at[:, None] + np.arange(len(data))] = data


def _put_varints(buffer: NDArray[np.uint8], at: Index, values: NDArray[np.uint64], lengths: Index) -> None:
    for k in range(int(lengths.max())):
        rows = np.flatnonzero(lengths > k)
        more = np.where(lengths[rows] > k + 1, np.uint64(0x80), np.uint64(0))
        buffer[at[rows] + k] = (values[rows] >> np.uint64(7 * k)) & np.uint64(0x7F) | more


def encode(
    rows: Batch,
    alias: NDArray[np.uint64],
    tell_quality: NDArray[np.bool_],
    *,
    historical: bool,
    text_rows: Sequence[int] = (),
    texts: Sequence[str] = (),
) -> tuple[bytes, Index]:
    """Return the metrics of n >= 1 readings as bytes and the n + 1 places where each begins and the last ends.

    alias: uint64 (n,). tell_quality: bool (n,), state the quality of this row. text_rows: ascending numbers of the
    rows whose value is a text, texts: these. A value that is not finite, and no text, is null.
    """
    n = len(rows)
    time_ms = np.maximum(rows.time // NS_PER_MS, 0).astype(np.uint64)
    quality = rows.quality & 0xC0
    is_text = np.zeros(n, np.bool_)
    is_text[list(text_rows)] = True
    null = ~np.isfinite(rows.value) & ~is_text
    alias_size, time_size = _lengths(alias), _lengths(time_ms)
    value_size = np.where(null, 0, _DOUBLE_SIZE).astype(np.intp)
    encoded_texts = [np.frombuffer(payload.text_value(text), np.uint8) for text in texts]
    value_size[list(text_rows)] = [len(text) for text in encoded_texts]
    quality_size = np.zeros(n, np.intp)
    for code, field in _QUALITY.items():
        quality_size[tell_quality & (quality == code)] = len(field)
    body = 2 + alias_size + time_size + 2 * historical + 2 * null + quality_size + value_size
    length_size = _lengths(body.astype(np.uint64))
    bounds = np.zeros(n + 1, np.intp)
    np.cumsum(1 + length_size + body, out=bounds[1:])
    buffer = np.empty(int(bounds[-1]), np.uint8)

    at = bounds[:-1].copy()
    buffer[at] = 0x12
    _put_varints(buffer, at + 1, body.astype(np.uint64), length_size)
    at += 1 + length_size
    buffer[at] = 0x10
    _put_varints(buffer, at + 1, alias, alias_size)
    at += 1 + alias_size
    buffer[at] = 0x18
    _put_varints(buffer, at + 1, time_ms, time_size)
    at += 1 + time_size
    if historical:
        _put(buffer, at, _HISTORICAL)
        at += 2
    if null.any():
        _put(buffer, at[null], _NULL)
        at += 2 * null
    if tell_quality.any():
        for code, field in _QUALITY.items():
            _put(buffer, at[tell_quality & (quality == code)], field)
        at += quality_size
    plain = np.flatnonzero(~null & ~is_text)
    buffer[at[plain]] = _DOUBLE
    numbers = rows.value[plain].astype("<f8").view(np.uint8).reshape(-1, 8)
    buffer[at[plain][:, None] + np.arange(1, _DOUBLE_SIZE)] = numbers
    for row, text in zip(text_rows, encoded_texts, strict=True):
        buffer[at[row] : at[row] + len(text)] = text
    return buffer.tobytes(), bounds
