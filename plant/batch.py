"""`Batch`: readings as four parallel columns, the only thing that moves through the gateway."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

GOOD: Final = 192
UNCERTAIN: Final = 64
BAD: Final = 0
SEVERITY: Final = 0xC0
"""The bits of a quality that say how good a reading is; the others mark it."""
BACKFILL: Final = 0x01
"""Marks a reading that came from a device's history after a break. It stands only in `Tick.history` and in the files of
the ring: live readings never carry it, and whoever reads the ring gets the severity alone unless it asks for more.
"""

Column = NDArray[np.uint32] | NDArray[np.int64] | NDArray[np.float64] | NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """n readings. Every array has shape (n,); nobody writes into an array of a batch that was handed on.

    tag: uint32, the tag's index in the tag table (for life, never reused).
    time: int64, nanoseconds since 1970 UTC, the source's own time of the value.
    value: float64. Text is interned to a code at the door; Boolean is 0 or 1. NaN only with quality BAD.
    quality: uint8, the top two bits of an OPC status: 192 GOOD, 64 UNCERTAIN, 0 BAD.
    """

    tag: NDArray[np.uint32]
    time: NDArray[np.int64]
    value: NDArray[np.float64]
    quality: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.tag)

    def select(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> "Batch":
        """Return the rows of a mask or an index array, in that order."""
        return Batch(self.tag[rows], self.time[rows], self.value[rows], self.quality[rows])


EMPTY: Final = Batch(np.empty(0, np.uint32), np.empty(0, np.int64), np.empty(0, np.float64), np.empty(0, np.uint8))


def concat(batches: Sequence[Batch]) -> Batch:
    """Join batches in order; one batch is returned as it is."""
    if len(batches) == 1:
        return batches[0]
    if not batches:
        return EMPTY
    return Batch(
        np.concatenate([b.tag for b in batches]),
        np.concatenate([b.time for b in batches]),
        np.concatenate([b.value for b in batches]),
        np.concatenate([b.quality for b in batches]),
    )


def of_rows(rows: Sequence[tuple[int, int, float, int]]) -> Batch:
    """Build a batch from (tag, time, value, quality) rows: for a handful of rows, never for a data path."""
    if not rows:
        return EMPTY
    tag, time, value, quality = zip(*rows, strict=True)
    return Batch(
        np.array(tag, np.uint32),
        np.array(time, np.int64),
        np.array(value, np.float64),
        np.array(quality, np.uint8),
    )


def bad(tags: NDArray[np.uint32], time: int) -> Batch:
    """Return one BAD reading (value NaN) per tag at `time` (ns UTC)."""
    n = tags.shape[0]
    return Batch(tags, np.full(n, time, np.int64), np.full(n, np.nan), np.full(n, BAD, np.uint8))
