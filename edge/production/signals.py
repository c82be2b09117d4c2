"""From columns to changes: what the readings of one tag say about a machine.

Owns: where a tag's rows become changes, as arrays, so that a signal at 1 kHz costs as little as one at 1 Hz. Leaves to
others: what a change means (`edge.production.machine`).
"""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from plant.counters import Anomaly, Counter
from plant.tags import Tag
from plant.texts import Texts

Role = Literal["product", "order", "state", "running", "reason", "produced", "good", "rejected"]
ROLES: Final[tuple[Role, ...]] = ("product", "order", "state", "running", "reason", "produced", "good", "rejected")
"""In the order in which changes at the same time are taken: a part belongs to the order that has just begun."""
COUNTERS: Final[frozenset[Role]] = frozenset({"produced", "good", "rejected"})


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one tag at `time` (ns UTC): a text ("state", "order", ...), a truth ("running") or a count."""

    time: int
    role: Role
    value: str | float
    anomaly: Anomaly | None = None


def changed(values: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the rows whose value differs from the row before; the first row always."""
    return np.flatnonzero(np.concatenate(([True], values[1:] != values[:-1])))


def running(
    values: NDArray[np.float64], above: float, below: float, *, was: bool | None
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return the rows at which a signal begins or ceases to run, and what it does from there on.

    Running begins above `above` and ends below `below` (or at it, where both are the same); between them it stays what
    it was. `was` None: not known yet.
    """
    ceased = values <= below if below == above else values < below
    verdict = np.where(values > above, 1, np.where(ceased, 0, -1))
    rows = np.flatnonzero(verdict >= 0)
    said = verdict[rows]
    if not len(rows):
        return rows, said > 0
    before = np.concatenate(([-1 if was is None else int(was)], said[:-1]))
    turns = said != before
    return rows[turns], said[turns] > 0


@dataclass(slots=True)
class Input:
    """One tag in one role for one machine. runs: what a running signal last said."""

    role: Role
    tag: Tag
    texts: Texts
    counter: Counter | None = None
    above: float = 0.0
    below: float = 0.0
    runs: bool | None = None

    def changes(self, times: NDArray[np.int64], values: NDArray[np.float64]) -> list[Change]:
        """Return the changes in rows that are not BAD; shapes (n,), n > 0."""
        if self.counter is not None:
            counts, anomalies = self.counter.take(times, values)
            return [Change(time, self.role, parts) for time, parts in counts] + [
                Change(anomaly.time, self.role, 0.0, anomaly) for anomaly in anomalies
            ]
        if self.role == "running":
            rows, runs = running(values, self.above, self.below, was=self.runs)
            if len(rows):
                self.runs = bool(runs[-1])
                return [
                    Change(time, self.role, run) for time, run in zip(times[rows].tolist(), runs.tolist(), strict=True)
                ]
            # Said again, it still ends a time in which nobody knew.
            return [] if self.runs is None else [Change(int(times[-1]), self.role, self.runs)]
        rows = changed(values)
        return [
            Change(time, self.role, self.text(value))
            for time, value in zip(times[rows].tolist(), values[rows].tolist(), strict=True)
        ]

    def text(self, value: float) -> str:
        """Return what the configuration calls a value: the text of a text tag, otherwise the number ("7", "2.5")."""
        if self.tag.text:
            return self.texts.text(self.tag.index, int(value)) or ""
        return str(int(value)) if value == int(value) else repr(value)
