"""`Trail`: what people did and tried on the page, on its way into the log of events.

What a logged-in person does is always kept. Refusals of strangers are kept up to a number per minute and counted beyond
it, so that nobody can fill the journal by knocking.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from edge import clock as wall
from plant.instant import NS_PER_S, Instant

REFUSALS_PER_MINUTE_MAX: Final = 30
TEXT_MAX: Final = 500
MINUTE_NS: Final = 60 * NS_PER_S

Keep = Callable[[str, str, str, Mapping[str, Any]], None]
"""user, action, outcome, detail."""


class Trail:
    def __init__(self, keep: Keep, clock: Callable[[], Instant] = wall.now) -> None:
        self._keep = keep
        self._clock = clock
        self._minute = 0
        self._kept = 0
        self._left_out = 0

    def did(self, user: str, action: str, outcome: str, **detail: object) -> None:
        """Keep what a known person did."""
        self._keep(user, action, outcome, {name: _short(value) for name, value in detail.items()})

    def refused(self, user: str, action: str, outcome: str, **detail: object) -> None:
        """Keep what was refused, within the bounds."""
        now = self._clock().monotonic
        if now - self._minute >= MINUTE_NS:
            self._minute, self._kept = now, 0
        if self._kept >= REFUSALS_PER_MINUTE_MAX:
            self._left_out += 1
            return
        self._kept += 1
        if self._left_out:
            detail["left_out"] = self._left_out
            self._left_out = 0
        self.did(user[:TEXT_MAX], action, outcome, **detail)


def _short(value: object) -> object:
    return value if isinstance(value, int | float | bool | None) else str(value)[:TEXT_MAX]
