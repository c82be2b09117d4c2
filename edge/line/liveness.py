"""Liveness: when each tag last arrived, what it said, and which device has gone silent though it is connected."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from edge.line.columns import grown
from edge.tick import Condition
from plant.batch import BAD, Batch
from plant.instant import NS_PER_S, Instant
from plant.tags import TagTable

LOOK_PERIOD_NS = NS_PER_S
NAMED_MAX = 20


def _device_tags(table: TagTable) -> NDArray[np.uint32]:
    return np.array([tag.index for tag in table.tags if not tag.virtual], np.uint32)


class Liveness:
    """The current-value table, and the watch over silence.

    value, time, quality, arrived: columns by tag index (arrived = monotonic ns, 0 = never). Silence is judged
    once a second: a tag with `stale_after_ns` that has not arrived for longer is silent. One alarm per device,
    `device.<name>.silent`, names its tags; while the device's communication alarm stands, that one says it all
    and silence is not raised beside it.
    """

    def __init__(self, table: TagTable, started: Instant) -> None:
        self._table = table
        self.value = np.full(table.size, np.nan)
        self.time: NDArray[np.int64] = np.zeros(table.size, np.int64)
        self.quality = np.zeros(table.size, np.uint8)
        self.arrived: NDArray[np.int64] = np.zeros(table.size, np.int64)
        self.device_tags: NDArray[np.uint32] = _device_tags(table)
        self._watched = np.flatnonzero(table.stale_after_ns > 0)
        self._limit = table.stale_after_ns[self._watched]
        self._started = started.monotonic
        self._next_look = started.monotonic + LOOK_PERIOD_NS
        self._down: set[str] = set()
        self._silent: dict[str, frozenset[str]] = {}

    def use(self, table: TagTable) -> None:
        """Take another tag table; what is known of a tag stays, since its index does."""
        size = max(table.size, len(self.value))
        self._table = table
        self.value = grown(self.value, size, np.nan)
        self.time = grown(self.time, size, 0)
        self.quality = grown(self.quality, size, 0)
        self.arrived = grown(self.arrived, size, 0)
        self.device_tags = _device_tags(table)
        self._watched = np.flatnonzero(table.stale_after_ns > 0)
        self._limit = table.stale_after_ns[self._watched]

    def note(self, batch: Batch, now: Instant) -> None:
        """Take a batch into the table; a BAD reading changes quality and time but is no sign of life."""
        tag = batch.tag
        self.value[tag] = batch.value
        self.time[tag] = batch.time
        self.quality[tag] = batch.quality
        alive = batch.quality != BAD
        self.arrived[tag if alive.all() else tag[alive]] = now.monotonic

    def alive(self, now: Instant) -> NDArray[np.bool_]:
        """Return per tag index: it has a value that is not BAD and is not silent."""
        size = self._table.size
        arrived, quality = self.arrived[:size], self.quality[:size]
        age = now.monotonic - arrived
        fresh = (self._table.stale_after_ns == 0) | (age <= self._table.stale_after_ns)
        alive: NDArray[np.bool_] = self._table.known & (arrived > 0) & fresh & (quality != BAD)
        return alive

    def device(self, condition: Condition) -> None:
        """Learn from a communication condition which devices are down."""
        name = condition.alarm.removeprefix("device.").removesuffix(".communication")
        if condition.active:
            self._down.add(name)
        else:
            self._down.discard(name)

    def look(self, now: Instant) -> Iterable[Condition]:
        """Return the changes of silence since the last look; at most once a second."""
        if now.monotonic < self._next_look:
            return ()
        self._next_look = now.monotonic + LOOK_PERIOD_NS
        since = np.maximum(self.arrived[self._watched], self._started)
        late = self._watched[now.monotonic - since > self._limit]
        silent: dict[str, set[str]] = {}
        for index in late:
            tag = self._table.by_index[int(index)]
            if tag.device and tag.device not in self._down:
                silent.setdefault(tag.device, set()).add(tag.name)
        return [
            self._condition(device, frozenset(silent.get(device, ())))
            for device in sorted(self._silent.keys() | silent.keys())
            if self._silent.get(device, frozenset()) != silent.get(device, set())
        ]

    def _condition(self, device: str, names: frozenset[str]) -> Condition:
        if names:
            self._silent[device] = names
        else:
            self._silent.pop(device, None)
        return Condition(
            alarm=f"device.{device}.silent",
            active=bool(names),
            message=self._sentence(device, sorted(names)),
            priority="high",
            data={"device": device, "tags": sorted(names)},
        )

    def _sentence(self, device: str, names: list[str]) -> str:
        if not names:
            return f"no tag of {device} is silent" if device not in self._down else f"{device} is not connected"
        more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
        subject = "1 tag is" if len(names) == 1 else f"{len(names)} tags are"
        return (
            f"{device} is connected but {subject} silent: {', '.join(names[:NAMED_MAX])}{more}; "
            "check that the values change on the device, or raise stale_after_s in tags.csv"
        )
