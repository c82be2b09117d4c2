"""Alarms as metrics of the edge node: `Alarms/<name>/Active` and so on.

The gateway judges alarms and keeps their states, so they belong to the node and not to the device: they stay true, and
can be told, while the device is dead. Owns what the host was told of each alarm.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from edge.outlets.sparkplug import payload
from edge.outlets.sparkplug.payload import Described, Value
from edge.sparkplug_payload import DataType
from plant.events import AlarmTransition
from plant.instant import NS_PER_MS

ALIAS_BASE: Final = 1 << 32
"""Aliases of tags lie below: a tag's index has 32 bits."""
NORMAL: Final = "A"
FIELDS: Final[tuple[tuple[str, int], ...]] = (
    *((flag, DataType.BOOLEAN) for flag in (
        "Active", "Acknowledged", "Latched", "Shelved", "Suppressed", "Out of Service", "Annunciated",
    )),
    *((text, DataType.STRING) for text in ("State", "Priority", "Asset", "Message")),
    ("Value", DataType.DOUBLE),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class AlarmName:
    """An alarm that there is, or may be."""

    name: str
    asset: str = ""
    priority: str = ""


def _of_transition(alarm: AlarmTransition) -> tuple[Value, ...]:
    return (
        alarm.active, alarm.acknowledged, alarm.latched, alarm.shelved, alarm.suppressed, alarm.out_of_service,
        alarm.annunciated, alarm.state, alarm.priority, alarm.asset, alarm.message, alarm.value,
    )  # fmt: skip


def _normal(alarm: AlarmName) -> tuple[Value, ...]:
    """An alarm of which nothing has been heard."""
    known = (alarm.priority or None, alarm.asset or None)
    return (False, True, False, False, False, False, True, NORMAL, *known, None, None)


@dataclass(slots=True)
class _Told:
    number: int
    values: tuple[Value, ...]


class AlarmMetrics:
    """The alarms that the last NBIRTH named, and what changed since."""

    def __init__(self) -> None:
        self._told: dict[str, _Told] = {}
        self._numbers: dict[str, int] = {}
        self._waiting: list[AlarmTransition] = []

    def put(self, alarm: AlarmTransition) -> bool:
        """Let a transition wait to be told. False: the host does not know this alarm, a birth must name it."""
        if alarm.alarm not in self._told:
            return False
        self._waiting.append(alarm)
        return True

    def birth(
        self, known: Iterable[AlarmName], last: Iterable[AlarmTransition], now_ms: int
    ) -> list[tuple[int, bytes]]:
        """Return (time in ms, metric) of everything there is to say; it counts as told."""
        self._waiting.clear()
        self._told.clear()
        states: dict[str, tuple[int, tuple[Value, ...]]] = {a.name: (now_ms, _normal(a)) for a in known}
        for alarm in last:
            states[alarm.alarm] = (alarm.time // NS_PER_MS, _of_transition(alarm))
        metrics = []
        for name, (time_ms, values) in states.items():
            number = self._numbers.setdefault(name, len(self._numbers))
            self._told[name] = _Told(number, values)
            for k, ((field, datatype), value) in enumerate(zip(FIELDS, values, strict=True)):
                fixed = Described(f"Alarms/{name}/{field}", _alias(number, k), datatype).encode()
                metrics.append((time_ms, payload.metric(fixed, time_ms, datatype, value)))
        return metrics

    def changes(self) -> list[tuple[int, bytes]]:
        """Return (time in ms, metric) of what changed since it was told, in the order in which it happened."""
        metrics = []
        for alarm in self._waiting:
            told = self._told.get(alarm.alarm)
            if told is None:
                continue
            values, time_ms = _of_transition(alarm), alarm.time // NS_PER_MS
            for k, ((_, datatype), value, before) in enumerate(zip(FIELDS, values, told.values, strict=True)):
                if value != before:
                    fixed = payload.by_alias(_alias(told.number, k))
                    metrics.append((time_ms, payload.metric(fixed, time_ms, datatype, value)))
            told.values = values
        self._waiting.clear()
        return metrics


def _alias(number: int, field: int) -> int:
    return ALIAS_BASE + number * len(FIELDS) + field
