"""Whether the clock of a device is right, judged by the stamps of its readings alone.

A stamp from the future, or from before 2001, proves a wrong clock at once. An old stamp proves nothing by itself:
a value that has stood for hours is told with the time of its last change, and is repeated so. It counts only on a
value that has just changed before our eyes, and then only for some time without a break, for a busy network may hold
messages up. The freshest stamp of a batch speaks for the device; BAD readings are stamped by whoever found them bad.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray

from plant.batch import BAD, Batch
from plant.instant import NS_PER_S, Instant

OFFSET_MAX_NS: Final = 60 * NS_PER_S
"""A clock that is further off than this is wrong."""
HOLD_NS: Final = 30 * NS_PER_S
"""Old stamps must last so long before the clock is wrong, and so long must no wrong stamp come before it is right."""
FLOOR_NS: Final = 978_307_200 * NS_PER_S
"""2001-01-01: a clock before it has lost its time and begun anew, at 1970 or 2000."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """offset_ns: stamp less gateway, of the stamp that decided; 0 = the clock is right. stamp: that stamp, ns UTC."""

    offset_ns: int
    stamp: int

    @property
    def is_wrong(self) -> bool:
        return self.offset_ns != 0

    def sentence(self, device: str) -> str:
        """Say it to the person who looks after the device."""
        offset_s = self.offset_ns / NS_PER_S
        if not self.is_wrong:
            return f"the clock of device {device} is right"
        if offset_s > 0:
            return (
                f"The clock of device {device} is {offset_s:.0f} s ahead of the gateway's. Its readings get the "
                "gateway's time and are uncertain. Set the device's clock or the time server that it follows; if the "
                "gateway is wrong, set its clock."
            )
        if self.stamp < FLOOR_NS:
            day = datetime.fromtimestamp(self.stamp // NS_PER_S, UTC).date()
            return (
                f"The clock of device {device} has lost its time: it says {day}. Its readings get the gateway's time "
                "and are uncertain. Set the device's clock and check its battery and its time server."
            )
        return (
            f"The readings of device {device} are {-offset_s:.0f} s old when they arrive: its clock is behind the "
            "gateway's, or its messages are held up. Set the device's clock or the time server that it follows."
        )


class ClockWatch:
    """Feed every batch to `note`; it returns a verdict when that has changed."""

    def __init__(self, tags: NDArray[np.uint32]) -> None:
        self._tags = np.sort(tags)
        self._value = np.full(len(tags), np.nan)
        self._is_wrong = False
        self._wrong_at = 0
        self._was_right = False
        self._behind_since: int | None = None
        self._compares = False

    def restart(self) -> None:
        """A new session begins: what changed while nobody watched has an old stamp by right."""
        self._was_right = False
        self._behind_since = None
        self._forget()

    def note(self, batch: Batch, now: Instant) -> Verdict | None:
        """Judge a batch of tags of this device that arrived at `now`."""
        good = batch.quality != BAD
        if not good.all():
            batch = batch.select(good)
        if not len(batch):
            return None
        stamp = int(batch.time.max())
        offset = stamp - now.utc
        if abs(offset) <= OFFSET_MAX_NS:
            return self._right(stamp, now)
        if offset > 0 or (stamp < FLOOR_NS and not self._was_right):
            return self._wrong(offset, stamp, now)
        changed = self._changed(batch)
        if not changed.any():
            return None
        stamp = int(batch.time[changed].max())
        if self._behind_since is None:
            self._behind_since = now.monotonic
        if now.monotonic - self._behind_since < HOLD_NS:
            return None
        return self._wrong(stamp - now.utc, stamp, now)

    def _right(self, stamp: int, now: Instant) -> Verdict | None:
        self._was_right = True
        self._behind_since = None
        if self._compares:
            self._forget()
        if not self._is_wrong or now.monotonic - self._wrong_at < HOLD_NS:
            return None
        self._is_wrong = False
        return Verdict(0, stamp)

    def _wrong(self, offset: int, stamp: int, now: Instant) -> Verdict | None:
        self._wrong_at = now.monotonic
        if self._is_wrong:
            return None
        self._is_wrong = True
        return Verdict(offset, stamp)

    def _changed(self, batch: Batch) -> NDArray[np.bool_]:
        """Tell which rows differ from the value that their tag had the last time its stamp was old."""
        self._compares = True
        place = np.searchsorted(self._tags, batch.tag)
        before = self._value[place]
        self._value[place] = batch.value
        changed: NDArray[np.bool_] = ~np.isnan(before) & (before != batch.value)
        return changed

    def _forget(self) -> None:
        self._compares = False
        self._value.fill(np.nan)
