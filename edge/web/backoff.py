"""`Backoff`: who has failed to log in waits, each time twice as long. Per user name and per address.

A name that does not exist waits like one that does, so waiting tells nothing. No wait is longer than `wait_s_max`:
somebody who guesses at a name can delay its owner, not lock him out.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from edge import clock as wall
from plant.instant import NS_PER_S, Instant

KEYS_MAX: Final = 2_000
"""Names and addresses that are remembered; those that failed longest ago are forgotten first."""
QUIET_NS: Final = 3600 * NS_PER_S
"""After this time without a failure a key begins anew."""


@dataclass(slots=True)
class _Entry:
    failures: int = 0
    failed: int = 0
    until: int = 0


class Backoff:
    """free: failures without a wait, as typing mistakes happen."""

    def __init__(self, free: int, wait_s_max: float, clock: Callable[[], Instant] = wall.now) -> None:
        self._free = free
        self._longest = wait_s_max
        self._clock = clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    def wait_s(self, key: str) -> float:
        """Return how long the next attempt must wait, 0.0 if it may come now."""
        entry = self._entries.get(key)
        return 0.0 if entry is None else max(0, entry.until - self._clock().monotonic) / NS_PER_S

    def failed(self, key: str) -> float:
        """Count a failure and return the wait that follows from it. Count first, check the password afterwards:
        attempts at the same time cannot slip past each other then.
        """
        now = self._clock().monotonic
        entry = self._entries.get(key)
        if entry is None or now - entry.failed > QUIET_NS:
            entry = self._entries[key] = _Entry()
        self._entries.move_to_end(key)
        while len(self._entries) > KEYS_MAX:
            self._entries.popitem(last=False)
        entry.failures += 1
        entry.failed = now
        beyond = entry.failures - self._free
        wait_s = 0.0 if beyond < 0 else min(self._longest, 2.0 ** min(beyond, 30))
        entry.until = now + round(wait_s * NS_PER_S)
        return wait_s

    def succeeded(self, key: str, *, wholly: bool) -> None:
        """Take back the attempt that was counted; wholly: forget all before it too."""
        entry = self._entries.get(key)
        if entry is None:
            return
        entry.failures -= 1
        entry.until = 0
        if wholly or entry.failures <= 0:
            del self._entries[key]
