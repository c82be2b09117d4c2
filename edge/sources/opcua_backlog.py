"""What was missed: per point the stretch between the last reading before a break and the first one after it.

Owns which stretches are open, which wait to be read from the server's history, and what came of it. Outlives the
sessions of a device, so that a break within a break is not forgotten. Leaves reading to `History`.

A stretch without its two ends is open in the mathematical sense too: the reading before it and the one after it came
live, so that nothing between them can come twice. A point that comes back with the reading it had missed nothing.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.sources import Filled
from edge.sources.opcua_intake import TICK_NS, Intake

SPANS_MAX: Final = 100_000
"""Stretches that wait; beyond that the oldest is given up and counted."""


@dataclass(slots=True)
class Span:
    """A stretch of one point. since, until: ns UTC in the source's clock, both readings are known already.

    rows: readings that the history gave so far.
    """

    position: int
    since: int
    until: int
    rows: int = 0


@dataclass(slots=True)
class _Account:
    """What came of the stretches since the last report."""

    start: int = 0
    end: int = 0
    rows: int = 0
    tags: set[int] = field(default_factory=set)
    without: set[int] = field(default_factory=set)
    cut: set[int] = field(default_factory=set)


class Backlog:
    """The stretches of one device. `open` when data breaks off, `note` every reading, `take` and `close` to fill."""

    def __init__(self, intake: Intake) -> None:
        n = len(intake.tags)
        self.spans: deque[Span] = deque()
        self._intake = intake
        self._waiting: NDArray[np.bool_] = np.zeros(n, np.bool_)
        self._any = False
        self._since: NDArray[np.int64] = np.zeros(n, np.int64)
        self._account = _Account()
        self._arrived = asyncio.Event()

    def open(self, positions: NDArray[np.intp] | None = None) -> None:
        """Data of these points (None = all) breaks off now; those that are open or were never read stay as they are."""
        chosen = np.arange(len(self._waiting)) if positions is None else positions
        chosen = chosen[(self._intake.stamp[chosen] > 0) & ~self._waiting[chosen]]
        self._since[chosen] = self._intake.stamp[chosen]
        self._waiting[chosen] = True
        self._any = self._any or bool(len(chosen))

    def note(self, positions: NDArray[np.intp] | NDArray[np.uint32], time: NDArray[np.int64]) -> None:
        """Live readings arrived: the first one of an open point ends its stretch."""
        if not self._any:
            return
        rows = np.flatnonzero(self._waiting[positions])
        if not len(rows):
            return
        points, first = np.unique(positions[rows], return_index=True)
        until = time[rows[first]]
        for position, end in zip(points.tolist(), until.tolist(), strict=True):
            since = int(self._since[position])
            if end > since + TICK_NS:
                self.spans.append(Span(position, since, end))
                while len(self.spans) > SPANS_MAX:
                    self._account.cut.add(self.spans.popleft().position)
        self._waiting[points] = False
        self._any = bool(self._waiting.any())
        if self.spans:
            self._arrived.set()

    async def wait(self) -> None:
        """Wait until there is something to fill."""
        while not self.spans:
            self._arrived.clear()
            await self._arrived.wait()

    def close(self, span: Span, *, has_history: bool = True, cut: bool = False) -> None:
        """A stretch was filled, as far as it can be. has_history: the node has one. cut: it held more than we take."""
        account = self._account
        account.start = min(account.start or span.since, span.since)
        account.end = max(account.end, span.until)
        account.rows += span.rows
        if span.rows:
            account.tags.add(span.position)
        if not has_history:
            account.without.add(span.position)
        if cut:
            account.cut.add(span.position)

    def report(self) -> Filled:
        """Return what came of the stretches that were closed since the last report."""
        account, self._account = self._account, _Account()
        return Filled(
            start=account.start,
            end=account.end,
            count=account.rows,
            tags=len(account.tags),
            without=len(account.without),
            cut=len(account.cut),
        )
