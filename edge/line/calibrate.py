"""Calibrate: raw columns become engineering values with an honest quality and a believable time."""

from dataclasses import dataclass

import numpy as np

from plant.batch import BACKFILL, BAD, GOOD, UNCERTAIN, Batch
from plant.instant import NS_PER_S, Instant
from plant.tags import TagTable

CLOCK_FLOOR_NS = 978_307_200 * NS_PER_S
"""2001-01-01: no plant controller's clock is right before it (1970 and 2000-01-01 are what a reset clock says)."""


@dataclass(slots=True)
class CalibrationCounts:
    """Running totals, in readings."""

    unknown_tag: int = 0
    not_finite: int = 0
    out_of_range: int = 0
    restamped: int = 0
    clock_fault: int = 0


class Calibration:
    """Applies scale, offset, plausible range and the time window of the tag table.

    A NaN or infinite value becomes BAD. A value outside [minimum, maximum] keeps its value and becomes
    UNCERTAIN. A time more than `future_max_ns` ahead of the gateway, or before 2001, is a clock fault: the
    reading is stamped with the gateway's time and becomes UNCERTAIN. A time older than `past_max_ns` is a
    value that has stood for long: stamped with the gateway's time, quality untouched.
    """

    def __init__(
        self, table: TagTable, past_max_ns: int, future_max_ns: int, counts: CalibrationCounts | None = None
    ) -> None:
        self._table = table
        self._past_max_ns = past_max_ns
        self._future_max_ns = future_max_ns
        self._scales = bool((table.scale != 1.0).any() or (table.offset != 0.0).any())
        self._bounds = bool((table.minimum != -np.inf).any() or (table.maximum != np.inf).any())
        self.counts = counts or CalibrationCounts()

    def apply(self, batch: Batch, now: Instant) -> Batch:
        """Return the calibrated batch: rows of unknown tags are left out and counted, no other row is lost."""
        table = self._table
        tag, time, value, quality = batch.tag, batch.time, batch.value, batch.quality
        if int(tag.max()) >= table.size or not table.known[tag].all():
            known = np.flatnonzero((tag < table.size) & table.known[np.minimum(tag, max(table.size - 1, 0))])
            self.counts.unknown_tag += len(tag) - len(known)
            tag, time, value, quality = tag[known], time[known], value[known], quality[known]
            if not len(tag):
                return Batch(tag, time, value, quality)
        if self._scales:
            value = value * table.scale[tag] + table.offset[tag]
        quality = self._judge(tag, value, quality)
        time, quality = self._stamp(time, quality, now)
        return Batch(tag, time, value, quality)

    def apply_history(self, batch: Batch) -> Batch:
        """Calibrate readings from a device's history and mark them; their times are the device's own and stay."""
        table = self._table
        known = (batch.tag < table.size) & table.known[np.minimum(batch.tag, max(table.size - 1, 0))]
        if not known.all():
            self.counts.unknown_tag += int(np.count_nonzero(~known))
            batch = batch.select(known)
        value = batch.value * table.scale[batch.tag] + table.offset[batch.tag]
        quality = self._judge(batch.tag, value, batch.quality)
        return Batch(batch.tag, batch.time, value, quality | np.uint8(BACKFILL))

    def _judge(self, tag: np.ndarray, value: np.ndarray, quality: np.ndarray) -> np.ndarray:
        finite = np.isfinite(value)
        if not finite.all():
            fresh = ~finite & (quality != BAD)
            self.counts.not_finite += int(np.count_nonzero(fresh))
            quality = np.where(finite, quality, np.uint8(BAD))
        if self._bounds:
            outside = (value < self._table.minimum[tag]) | (value > self._table.maximum[tag])
            if outside.any():
                outside &= quality == GOOD
                self.counts.out_of_range += int(np.count_nonzero(outside))
                quality = np.where(outside, np.uint8(UNCERTAIN), quality)
        return quality

    def _stamp(self, time: np.ndarray, quality: np.ndarray, now: Instant) -> tuple[np.ndarray, np.ndarray]:
        oldest, newest = now.utc - self._past_max_ns, now.utc + self._future_max_ns
        if int(time.min()) >= oldest and int(time.max()) <= newest:
            return time, quality
        fault = (time > newest) | (time < CLOCK_FLOOR_NS)
        strange = fault | (time < oldest)
        self.counts.restamped += int(np.count_nonzero(strange))
        faults = int(np.count_nonzero(fault))
        if faults:
            self.counts.clock_fault += faults
            quality = np.where(fault & (quality == GOOD), np.uint8(UNCERTAIN), quality)
        return np.where(strange, np.int64(now.utc), time), quality
