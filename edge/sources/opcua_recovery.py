"""What is done when data stops although the connection stands: the cheapest step first, the next if it did not help.

    item          the monitored item is set up anew
    subscription  the subscription and its items are set up anew
    session       a new session on the same channel, with all its subscriptions
    client        hang up and connect anew; from there on the supervisor waits longer each time

Owns the choice of the step, its line in the log and its sentence for the person who looks at the device. Leaves the
steps themselves to the subscriptions, and detection to the audit and to what the server says.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import Final

import structlog

from edge import clock as edge_clock
from edge.sources.opcua_audit import Canary
from edge.sources.opcua_backlog import Backlog
from edge.sources.opcua_events import Events
from edge.sources.opcua_session import codes
from plant.instant import NS_PER_S, Instant

RECUR_NS: Final = 60 * NS_PER_S
"""Trouble that comes back within this time after a step was not helped by it: the next step is taken."""
TOLD_NS: Final = 600 * NS_PER_S
"""So long a step is part of the device's sentence."""
HANG_UP_NS: Final = 600 * NS_PER_S
"""Silent items alone make us hang up at most this often: the others have data and must not suffer for ever."""

NO_SUBSCRIPTION: Final = codes("BadNoSubscription", "BadSubscriptionIdInvalid")
"""The session stands, the subscription does not."""
NO_SESSION: Final = codes("BadSessionIdInvalid", "BadSessionClosed", "BadSessionNotActivated")
"""The channel stands, the session does not."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Step(IntEnum):
    """How much is set up anew."""

    ITEM = 1
    SUBSCRIPTION = 2
    SESSION = 3
    CLIENT = 4


_WORDS: Final = {
    Step.ITEM: "monitored items were set up anew",
    Step.SUBSCRIPTION: "a subscription was set up anew",
    Step.SESSION: "the session was opened anew",
    Step.CLIENT: "the connection is opened anew",
}


@dataclass(slots=True)
class _Taken:
    step: Step
    at: int


class Recovery:
    """The steps taken on one device; outlives its sessions. count: steps since the start."""

    def __init__(self, device: str, clock: Callable[[], Instant] = edge_clock.now) -> None:
        self.count = 0
        self._device = device
        self._clock = clock
        self._taken: dict[int, _Taken] = {}
        self._odd: dict[int, int] = {}
        self._hung_up_at: int | None = None
        self._told_at = 0
        self._sentence = ""

    @property
    def sentence(self) -> str:
        """What was done last, while that is news; "" otherwise."""
        if self._sentence and self._clock().monotonic - self._told_at > TOLD_NS:
            self._sentence = ""
        return self._sentence

    def climb(self, place: int, least: Step, reason: str) -> Step:
        """Choose and tell the step against trouble at `place`, the number of a subscription; `least` is the cheapest
        that can help. What was done for all subscriptions counts for each.
        """
        now = self._clock()
        step = least
        for one in (self._taken.get(place), self._taken.get(-1)):
            if one is not None and now.monotonic - one.at < RECUR_NS and one.step >= step:
                step = Step(min(one.step + 1, Step.CLIENT))
        return self.take(place, step, reason)

    def may_hang_up(self) -> bool:
        """Tell whether silent items alone are a reason to connect anew; if so, it counts as done."""
        now = self._clock().monotonic
        if self._hung_up_at is not None and now - self._hung_up_at < HANG_UP_NS:
            return False
        self._hung_up_at = now
        return True

    def news(self, positions: Sequence[int]) -> list[int]:
        """Return those items that were not set up anew for being silent within HANG_UP_NS; now they count as such."""
        now = self._clock().monotonic
        self._odd = {one: at for one, at in self._odd.items() if now - at < HANG_UP_NS}
        fresh = [one for one in positions if one not in self._odd]
        self._odd.update(dict.fromkeys(fresh, now))
        return fresh

    def last(self, place: int) -> Step | None:
        """Return the step that was taken at `place` within RECUR_NS."""
        one = self._taken.get(place)
        return one.step if one is not None and self._clock().monotonic - one.at < RECUR_NS else None

    def take(self, place: int, step: Step, reason: str) -> Step:
        """Remember and tell a step."""
        now = self._clock()
        self.count += 1
        self._taken[-1 if step >= Step.SESSION else place] = _Taken(step, now.monotonic)
        at = datetime.fromtimestamp(now.utc // NS_PER_S, UTC).isoformat().replace("+00:00", "Z")
        self._told_at = now.monotonic
        self._sentence = f"At {at} {_WORDS[step]}: {reason}."
        log.warning("recovering", device=self._device, step=step.name.lower(), reason=reason)
        return step


@dataclass(frozen=True, slots=True)
class Lasting:
    """What outlives the sessions of a device beside its points."""

    canary: Canary
    recovery: Recovery
    backlog: Backlog
    events: Events
