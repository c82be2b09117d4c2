"""What is wrong with storage, as conditions that come and go, and as one word and one sentence."""

from collections.abc import Callable
from typing import Final, Literal

from edge.tick import Condition
from plant.instant import NS_PER_S

RING: Final = "storage.ring"
JOURNAL: Final = "storage.journal"
DISK_FULL: Final = "storage.disk_full"
DAMAGED: Final = "storage.damaged"
QUEUE: Final = "storage.queue"
BACKUP: Final = "storage.backup"
ALARMS: Final = (RING, JOURNAL, DISK_FULL, DAMAGED, QUEUE, BACKUP)
"""Every alarm that storage can raise, the gravest first."""
_PRIORITIES: Final = {
    RING: "high",
    JOURNAL: "high",
    DISK_FULL: "high",
    DAMAGED: "medium",
    QUEUE: "medium",
    BACKUP: "low",
}
RATE_AFTER_S: Final = 600
"""A forecast needs at least this much time of writing behind it."""


class Health:
    """Remembers which conditions hold and tells every change once."""

    def __init__(self, tell: Callable[[Condition], None]) -> None:
        self._tell = tell
        self._sentences: dict[str, str] = {}

    def put(self, alarm: str, sentence: str) -> None:
        """The condition holds for the reason in `sentence`; "" = it does not hold."""
        had = self._sentences.get(alarm, "")
        if sentence:
            self._sentences[alarm] = sentence
        else:
            self._sentences.pop(alarm, None)
        if bool(had) != bool(sentence):
            self._tell(Condition(alarm=alarm, active=bool(sentence), message=sentence, priority=_PRIORITIES[alarm]))

    def holds(self, alarm: str) -> bool:
        return alarm in self._sentences

    @property
    def state(self) -> Literal["ok", "degraded", "down"]:
        if RING in self._sentences or JOURNAL in self._sentences:
            return "down"
        return "degraded" if self._sentences else "ok"

    @property
    def sentence(self) -> str:
        """The gravest trouble, "" if all is well."""
        return next((self._sentences[alarm] for alarm in ALARMS if alarm in self._sentences), "")


class Forecast:
    """Says when the byte budget will be used up, from what was written since the start."""

    def __init__(self) -> None:
        self._since = 0
        self._at_start = 0
        self._dropped = 0
        self._was_full = False

    def dropped(self, size: int, *, by_budget: bool) -> None:
        """A file of `size` bytes was unlinked."""
        self._dropped += size
        self._was_full = self._was_full or by_budget

    def full_at(self, utc: int, monotonic: int, size: int, bytes_max: int, age_max_days: float) -> int:
        """Return ns UTC; 0 = not foreseeable, or age will drop files first. size: bytes of the ring now."""
        if self._was_full:
            return utc
        if not self._since:
            self._since, self._at_start = monotonic, size
        passed_s = (monotonic - self._since) / NS_PER_S
        written = size + self._dropped - self._at_start
        if passed_s < RATE_AFTER_S or written <= 0:
            return 0
        seconds = (bytes_max - size) * passed_s / written
        if seconds > age_max_days * 86_400:
            return 0
        return utc + int(max(seconds, 0) * NS_PER_S)
