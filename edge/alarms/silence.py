"""Silence: when each watched tag last arrived, by the monotonic clock, and which have been silent for too long."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge.alarms.rules import AlarmRule
from edge.alarms.timers import NEVER
from edge.alarms.watch import Edge
from plant.instant import NS_PER_S
from plant.tags import TagTable


class Silence:
    """The rules of condition `stale`. False in a Boolean sense if there are none, and then nobody needs to feed it."""

    def __init__(self, rules: Sequence[AlarmRule], table: TagTable) -> None:
        chosen = [(i, rule, table[rule.tag]) for i, rule in enumerate(rules) if rule.condition == "stale"]
        self._rules = [i for i, _, _ in chosen]
        self._row = {rule: row for row, rule in enumerate(self._rules)}
        self._tags = np.array([tag.index for _, _, tag in chosen], np.intp)
        self._limit = np.array(
            [tag.stale_after_ns if math.isnan(rule.limit) else round(rule.limit * NS_PER_S) for _, rule, tag in chosen],
            np.int64,
        )
        self._holds: NDArray[np.bool_] = np.zeros(len(chosen), np.bool_)
        self._silent: NDArray[np.bool_] = np.zeros(table.size, np.bool_)
        self._any = False
        self._arrived: NDArray[np.int64] = np.full(table.size, -1, np.int64)
        self._started = False

    def __bool__(self) -> bool:
        return bool(self._rules)

    def start(self, monotonic: int) -> None:
        """Count silence from the first step on for whatever has not been heard."""
        if not self._started:
            self._started = True
            self._arrived[self._arrived < 0] = monotonic

    def holds(self, rule: int) -> bool:
        row = self._row.get(rule)
        return row is not None and bool(self._holds[row])

    def assume(self, rule: int, *, holds: bool) -> None:
        row = self._row.get(rule)
        if row is not None:
            self._holds[row] = holds
            self._settle()

    @property
    def arrived(self) -> NDArray[np.int64]:
        """When each tag was last heard, by tag index; empty where nobody noted it."""
        return self._arrived if self and self._started else self._arrived[:0]

    def inherit(self, arrived: NDArray[np.int64]) -> None:
        """Take over when the first tags were last heard."""
        self._arrived[: len(arrived)] = arrived

    def arrive(self, index: NDArray[np.intp], monotonic: int, edges: list[Edge]) -> int:
        """Note that tags were heard; what was silent is silent no more. Returns when to listen again at the latest."""
        self._arrived[index] = monotonic
        if not (self._any and np.count_nonzero(self._silent.take(index))):
            return NEVER
        back = np.flatnonzero(self._holds & (self._arrived.take(self._tags) == monotonic))
        edges.extend(Edge(self._rules[row], False, math.nan, 0) for row in back.tolist())
        self._holds[back] = False
        self._settle()
        return monotonic + int(self._limit[back].min(initial=NEVER - monotonic - 1)) + 1

    def listen(self, monotonic: int, edges: list[Edge]) -> int:
        """Find what has fallen silent; return when to listen again (monotonic ns)."""
        ends = self._arrived.take(self._tags) + self._limit
        # With a tick of its own a tag is not late: silence must be longer than the limit.
        gone = np.flatnonzero((ends < monotonic) & ~self._holds)
        if len(gone):
            edges.extend(Edge(self._rules[row], True, math.nan, 0) for row in gone.tolist())
            self._holds[gone] = True
            self._settle()
        waiting = ends[~self._holds]
        return int(waiting.min()) + 1 if len(waiting) else NEVER

    def _settle(self) -> None:
        self._silent[:] = False
        self._silent[self._tags[self._holds]] = True
        self._any = bool(self._holds.any())
