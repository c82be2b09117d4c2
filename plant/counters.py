"""What a total counter of a PLC says about parts: steps, rollovers, resets and jumps.

Owns: the step from two raw values to a count or an anomaly. Leaves to others: where the last raw value is kept, so that
a restart neither counts twice nor loses.

Rules:
- A rise is counted if it is plausible for the time that passed.
- A fall is a rollover only if the counter has a known maximum and the step across it is plausible; then it is counted.
- Everything else is an anomaly: nothing is added, counting goes on from the new value.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from plant.instant import NS_PER_S

ROLLOVER_SHARE: Final = 0.01
"""Without a stated largest step a rollover may be at most this share of the counter's range."""
SECONDS_MIN: Final = 1.0
"""A step is judged as if at least this long had passed: counters are polled and arrive in bursts."""


@dataclass(frozen=True, slots=True)
class CounterRule:
    """maximum: the highest value before the counter starts again at 0 (65535), None when it does not wrap.

    max_step_per_s: the fastest the machine can count, None when nobody stated it.
    """

    maximum: float | None = None
    max_step_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class Anomaly:
    """kind: "reset" (fell to where it cannot have rolled over), "implausible_step" (rose too fast).

    start: when the counter was last read before, time: when it was read with the new value; ns UTC.
    """

    kind: str
    before: float
    after: float
    start: int
    time: int


def step(before: float, after: float, elapsed_s: float, rule: CounterRule) -> tuple[float, str]:
    """Return (parts, "") for a step that counts, (0, kind of anomaly) for one that does not."""
    limit = None if rule.max_step_per_s is None else rule.max_step_per_s * max(elapsed_s, SECONDS_MIN)
    rise = after - before
    if rise >= 0:
        return (rise, "") if limit is None or rise <= limit else (0.0, "implausible_step")
    if rule.maximum is None or not 0 <= after <= rule.maximum or before > rule.maximum:
        return 0.0, "reset"
    across = rise + rule.maximum + 1
    allowed = rule.maximum * ROLLOVER_SHARE if limit is None else min(limit, rule.maximum / 2)
    return (across, "") if across <= allowed else (0.0, "reset")


@dataclass(slots=True)
class Counter:
    """One counter. raw: the last value that was judged, None before the first; time: when it was, ns UTC."""

    rule: CounterRule
    raw: float | None = None
    time: int = 0

    def take(
        self, times: NDArray[np.int64], values: NDArray[np.float64]
    ) -> tuple[list[tuple[int, float]], list[Anomaly]]:
        """Judge the good values of one batch in order, shapes (n,).

        Returns the counts as (time, parts), one per change, and the anomalies. The first value ever counts nothing.
        """
        finite = np.isfinite(values)
        if not finite.all():
            times, values = times[finite], values[finite]
        counts: list[tuple[int, float]] = []
        anomalies: list[Anomaly] = []
        if not len(values):
            return counts, anomalies
        if self.raw is None:
            self.raw, self.time = float(values[0]), int(times[0])
        # Only changes cost Python; a counter that stands still is looked at as a column.
        changed = np.flatnonzero(values != np.concatenate(((self.raw,), values[:-1])))
        seen = np.concatenate(((self.time,), times))
        for i in changed.tolist():
            after, start, time = float(values[i]), int(seen[i]), int(times[i])
            parts, kind = step(self.raw, after, (time - start) / NS_PER_S, self.rule)
            if kind:
                anomalies.append(Anomaly(kind, self.raw, after, start, time))
            elif parts:
                counts.append((time, parts))
            self.raw = after
        self.time = int(times[-1])
        return counts, anomalies
