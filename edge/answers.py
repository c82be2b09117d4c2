"""Answers to commands, held until what the command did is on disk: whoever is told "done" may rely on it.

Alarms and events leave at once (they can be told again); an answer cannot be taken back. The wait is a commit group.
"""

import dataclasses
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from edge.tick import Reply, Tick
from plant.instant import NS_PER_S, Instant

WAIT_S_MAX: Final = 3.0
"""An answer that the disk keeps waiting for longer goes out and says so."""
NOT_KEPT: Final = "done, but not on disk yet: see the storage alarms"


class HeldAnswers:
    """tick -> the same tick without the answers that must wait. deliver: takes them when they may go."""

    def __init__(self, deliver: Callable[[tuple[Reply, ...], Instant], None]) -> None:
        self._deliver = deliver
        self._held: deque[tuple[str, tuple[Reply, ...], Instant]] = deque()

    def hold(self, tick: Tick) -> Tick:
        """Keep the answers of a tick that changed something; others go with it."""
        self._hurry(tick.now)
        if not tick.replies or not tick.events:
            return tick
        self._held.append((tick.events[-1].id, tick.replies, tick.now))
        return dataclasses.replace(tick, replies=())

    def committed(self, events: Sequence[tuple[int, str]], now: Instant) -> None:
        """Take (number, id) of the events that are on disk now, in order."""
        if not self._held:
            return
        ids = {key for _, key in events}
        while self._held and self._held[0][0] in ids:
            self._deliver(self._held.popleft()[1], now)

    def _hurry(self, now: Instant) -> None:
        while self._held and now.monotonic - self._held[0][2].monotonic > WAIT_S_MAX * NS_PER_S:
            replies = self._held.popleft()[1]
            self._deliver(tuple(_with_caveat(reply) for reply in replies), now)


def _with_caveat(reply: Reply) -> Reply:
    if not reply.ok:
        return reply
    return dataclasses.replace(reply, message=f"{reply.message}; {NOT_KEPT}" if reply.message else NOT_KEPT)
