"""Tags: what a number means. The table gives the line one column per property, indexed by tag index."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """One measured or derived quantity.

    name: unique in the gateway, e.g. "press1.bearing_temperature".
    index: for life; assigned by the journal, never reused.
    asset: ISA-95 path below the site, "area/line/cell"; "" belongs to the gateway itself.
    unit: engineering unit after scaling, UCUM-like spelling ("Cel", "mm/s", "kW", "1").
    scale, offset: engineering value = raw * scale + offset.
    minimum, maximum: plausible engineering range; outside it a reading becomes UNCERTAIN. NaN = no bound.
    deadband: absolute change below which a reading is not kept (0 keeps each change; negative keeps all).
    heartbeat_ns: a reading is kept at least this often although it does not change.
    stale_after_ns: silence longer than this is an alarm; 0 = never.
    text: the value is a code of an interned text.
    virtual: derived in the gateway (OEE, scores), not read from a device.
    """

    name: str
    index: int
    asset: str = ""
    device: str = ""
    unit: str = ""
    description: str = ""
    scale: float = 1.0
    offset: float = 0.0
    minimum: float = float("nan")
    maximum: float = float("nan")
    deadband: float = 0.0
    heartbeat_ns: int = 60_000_000_000
    stale_after_ns: int = 0
    text: bool = False
    virtual: bool = False


class TagTable:
    """The tags of one configuration, by name and as columns indexed by tag index.

    The columns have length `size` = highest index + 1; an index that no tag holds has neutral values
    and `known` False.
    """

    def __init__(self, tags: Iterable[Tag]) -> None:
        self.tags: tuple[Tag, ...] = tuple(tags)
        self.by_name: dict[str, Tag] = {tag.name: tag for tag in self.tags}
        self.by_index: dict[int, Tag] = {tag.index: tag for tag in self.tags}
        self.size: int = max(self.by_index, default=-1) + 1
        self.known: NDArray[np.bool_] = np.zeros(self.size, np.bool_)
        self.scale = np.ones(self.size)
        self.offset = np.zeros(self.size)
        self.minimum = np.full(self.size, -np.inf)
        self.maximum = np.full(self.size, np.inf)
        self.deadband = np.zeros(self.size)
        self.heartbeat_ns: NDArray[np.int64] = np.zeros(self.size, np.int64)
        self.stale_after_ns: NDArray[np.int64] = np.zeros(self.size, np.int64)
        for tag in self.tags:
            i = tag.index
            self.known[i] = True
            self.scale[i] = tag.scale
            self.offset[i] = tag.offset
            if not np.isnan(tag.minimum):
                self.minimum[i] = tag.minimum
            if not np.isnan(tag.maximum):
                self.maximum[i] = tag.maximum
            self.deadband[i] = tag.deadband
            self.heartbeat_ns[i] = tag.heartbeat_ns
            self.stale_after_ns[i] = tag.stale_after_ns

    def __len__(self) -> int:
        return len(self.tags)

    def __getitem__(self, name: str) -> Tag:
        return self.by_name[name]
