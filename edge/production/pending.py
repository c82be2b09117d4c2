"""Parts that are counted but not in an event yet.

Owns: how two counters of a machine make up what it produced and rejected, and until when a part may be judged. Leaves
to others: when the parts become events, and of which shift (`edge.production.machine`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge.production.options import MachineOptions
from edge.production.signals import Role
from plant.instant import NS_PER_S


@dataclass(slots=True)
class Pending:
    """made, scrapped: parts since the last event. time: of the last of them, ns UTC.

    unjudged: produced, not yet good. low: its least since `low_since` (monotonic ns).
    """

    made: float = 0.0
    scrapped: float = 0.0
    time: int = 0
    unjudged: float = 0.0
    low: float = 0.0
    low_since: int = 0

    def count(self, role: Role, parts: float, time: int, options: MachineOptions) -> None:
        """Take the rise of one counter."""
        self.time = time
        if role == "rejected":
            self.scrapped += parts
            self.made += parts if options.produced_tag is None else 0.0
            return
        if role == "produced" or options.produced_tag is None:
            self.made += parts
        if options.produced_tag is not None and options.good_tag is not None:
            self.unjudged += parts if role == "produced" else -parts
            self.low = min(self.low, self.unjudged)

    def judge(self, now: int, monotonic: int, options: MachineOptions) -> None:
        """Reject the parts that were made but not counted good for as long as judging may take."""
        if self.unjudged == 0 and self.low == 0:
            self.low_since = monotonic
            return
        if monotonic - self.low_since < options.judged_within_s * NS_PER_S:
            return
        if self.low > 0:
            self.scrapped += self.low
            self.unjudged -= self.low
            self.time = now
        self.low, self.low_since = self.unjudged, monotonic

    def record(self) -> dict[str, float]:
        """Return what a restart needs."""
        return {"made": self.made, "scrapped": self.scrapped, "time": self.time, "unjudged": self.unjudged}


def pending_from(record: Mapping[str, Any]) -> Pending:
    """Return the parts of a `Pending.record`. Raises KeyError, TypeError or ValueError when it is none."""
    unjudged = float(record["unjudged"])
    return Pending(
        made=float(record["made"]),
        scrapped=float(record["scrapped"]),
        time=int(record["time"]),
        unjudged=unjudged,
        low=unjudged,
    )
