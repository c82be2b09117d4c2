"""Timers on the monotonic clock: one per (kind, key), set again or cancelled at will."""

import heapq
from typing import Final

NEVER: Final = 2**63 - 1
_SLACK: Final = 64
"""The heap is rebuilt when entries that no longer count outnumber the live ones by this."""


class Timers:
    """At most one pending timer for each (kind, key). `due`: monotonic ns of the earliest one, NEVER if none."""

    def __init__(self) -> None:
        self.due = NEVER
        self._pending: dict[tuple[str, str], int] = {}
        self._heap: list[tuple[int, str, str]] = []

    def __len__(self) -> int:
        return len(self._pending)

    def set(self, kind: str, key: str, due: int) -> None:
        """Start the timer, or move it."""
        self._pending[kind, key] = due
        heapq.heappush(self._heap, (due, kind, key))
        self._tidy()

    def cancel(self, kind: str, key: str) -> None:
        """Stop the timer if it runs."""
        if self._pending.pop((kind, key), None) is not None:
            self._tidy()

    def runs(self, kind: str, key: str) -> bool:
        """Return whether the timer is pending."""
        return (kind, key) in self._pending

    def pop(self, monotonic: int) -> list[tuple[str, str]]:
        """Take out every timer that is due, the earliest first."""
        fired = []
        while self.due <= monotonic:
            _, kind, key = heapq.heappop(self._heap)
            del self._pending[kind, key]
            fired.append((kind, key))
            self._tidy()
        return fired

    def _tidy(self) -> None:
        heap = self._heap
        if len(heap) > 2 * len(self._pending) + _SLACK:
            heap[:] = [(due, kind, key) for (kind, key), due in self._pending.items()]
            heapq.heapify(heap)
        while heap and self._pending.get((heap[0][1], heap[0][2])) != heap[0][0]:
            heapq.heappop(heap)
        self.due = heap[0][0] if heap else NEVER
