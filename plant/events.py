"""Events: what happened, as an immutable log. Every state in the product is a fold over these.

Each class has a `kind`, the word that travels on the wire and stands in the journal. `to_record` and
`from_record` turn an event into plain JSON types and back; unknown kinds raise `UnknownEvent`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, ClassVar


class MachineState(StrEnum):
    """What a machine does, in the words of the shop floor."""

    RUNNING = "running"
    IDLE = "idle"
    SETUP = "setup"
    DOWN = "down"
    MAINTENANCE = "maintenance"
    UNKNOWN = "unknown"
    """Nobody knows: no data, or a state code without a mapping. Its time is a bucket of its own."""


class DowntimeReason(StrEnum):
    """Why a machine does not run."""

    PLANNED_MAINTENANCE = "planned_maintenance"
    BREAKDOWN = "breakdown"
    CHANGEOVER = "changeover"
    NO_OPERATOR = "no_operator"
    NO_MATERIAL = "no_material"
    QUALITY_ISSUE = "quality_issue"


class UnknownEvent(ValueError):
    """A record whose kind or fields this version does not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """id: unique for ever, assigned where the event is made. time: ns UTC, when it happened. asset: ISA-95 path."""

    kind: ClassVar[str] = ""
    id: str
    time: int
    asset: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChanged(Event):
    """A machine entered `state`; it holds until the next StateChanged of the asset."""

    kind: ClassVar[str] = "status_change"
    state: MachineState
    reason: DowntimeReason | None = None
    origin: str = "plc"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartsProduced(Event):
    """`count` parts left the machine, good and bad together (ISO 22400 PQ). May be fractional (metres, kg)."""

    kind: ClassVar[str] = "part_produced"
    count: float
    product: str = ""
    order: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartsRejected(Event):
    """`count` of the produced parts were rejected (scrap; `rework` if they can be repaired)."""

    kind: ClassVar[str] = "part_rejected"
    count: float
    product: str = ""
    order: str = ""
    rework: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterAnomaly(Event):
    """A counter did something that cannot be counted: reset, jump back, implausible step. Nothing was added.

    start: when it was last read before that, ns UTC; from then to `time` nobody counted. 0: not known.
    """

    kind: ClassVar[str] = "counter_anomaly"
    tag: str
    before: float
    after: float
    anomaly: str
    start: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderStarted(Event):
    kind: ClassVar[str] = "order_started"
    order: str
    product: str
    quantity: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderEnded(Event):
    kind: ClassVar[str] = "order_ended"
    order: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction(Event):
    """A person restates the past: from `start` to `end` (ns UTC) the machine was in `state` for `reason`,
    or `produced`/`rejected` parts are added (negative takes away). The corrected events stay in the log.
    """

    kind: ClassVar[str] = "correction"
    start: int
    end: int
    user: str
    why: str
    state: MachineState | None = None
    reason: DowntimeReason | None = None
    produced: float = 0.0
    rejected: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmTransition(Event):
    """One step of one alarm through the ISA-18.2 state table; carries the whole state after the step.

    occurrence: id of the activation that the step belongs to; an acknowledgement must name it.
    transition: "activate", "clear", "acknowledge", "reset", "shelve", "unshelve", "suppress", "unsuppress",
        "out_of_service", "in_service", "rearm", "update" (what is told changed, the state did not).
    state: the ISA-18.2 letter A..I after the step. active, acknowledged, latched, shelved, suppressed,
    out_of_service: the Booleans of OPC UA Part 9.
    data: whatever explains the step further (limit, list of tags, contributions), JSON types only.
    """

    kind: ClassVar[str] = "alarm"
    alarm: str
    occurrence: str
    transition: str
    state: str
    active: bool
    acknowledged: bool
    latched: bool = False
    shelved: bool = False
    suppressed: bool = False
    out_of_service: bool = False
    annunciated: bool = True
    priority: str = "medium"
    condition: str = ""
    tag: str = ""
    value: float | None = None
    limit: float | None = None
    message: str = ""
    user: str = ""
    comment: str = ""
    shelved_until: int = 0
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit(Event):
    """Somebody asked for something: what, who, and what came of it."""

    kind: ClassVar[str] = "audit"
    user: str
    action: str
    outcome: str
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayEvent(Event):
    """The gateway speaks of itself: started, stopped, reloaded, storage trouble."""

    kind: ClassVar[str] = "gateway"
    action: str
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap(Event):
    """An entry of the loss ledger: readings of `tag` (or of a whole `device`) between `start` and `end` were
    lost. count: how many, -1 if nobody can know. reason: "disconnected", "inbox_full", "disk_full", "queue_overflow",
    "ring_file_damaged", ...
    """

    kind: ClassVar[str] = "gap"
    start: int
    end: int
    reason: str
    device: str = ""
    tag: str = ""
    count: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Backfill(Event):
    """The companion of a Gap: after a break the history of `device` gave `count` readings of `tags` tags from `start`
    to `end` (ns UTC, in the device's clock). without: tags that changed meanwhile and have no history. cut: tags
    whose history held more than is taken.
    """

    kind: ClassVar[str] = "backfill"
    start: int
    end: int
    device: str
    count: int
    tags: int = 0
    without: int = 0
    cut: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceEvent(Event):
    """An event or alarm that a device told by itself (OPC UA Part 5 and Part 9); the gateway's own alarms are others.

    type: name of its type. severity: 1..1000. event_id: the device's own id, hex. condition: its name, "" for a mere
    event; active, acknowledged: its state on the device, None = it has none.
    """

    kind: ClassVar[str] = "device_event"
    device: str
    source: str
    type: str
    message: str
    severity: int
    event_id: str = ""
    condition: str = ""
    active: bool | None = None
    acknowledged: bool | None = None


KINDS: dict[str, type[Event]] = {
    c.kind: c
    for c in (
        StateChanged, PartsProduced, PartsRejected, CounterAnomaly, OrderStarted, OrderEnded, Correction,
        AlarmTransition, Audit, GatewayEvent, Gap, Backfill, DeviceEvent,
    )
}  # fmt: skip


def to_record(event: Event) -> dict[str, Any]:
    """Return the event as JSON types, `kind` first."""
    record: dict[str, Any] = {"kind": event.kind}
    for f in fields(event):
        value = getattr(event, f.name)
        record[f.name] = dict(value) if isinstance(value, Mapping) else value
    return record


def from_record(record: Mapping[str, Any]) -> Event:
    """Rebuild an event. Raises UnknownEvent for a kind or a field that this version does not know."""
    try:
        cls = KINDS[record["kind"]]
        values = {name: value for name, value in record.items() if name != "kind"}
        if "state" in values and cls in (StateChanged, Correction) and values["state"] is not None:
            values["state"] = MachineState(values["state"])
        if values.get("reason") is not None and cls in (StateChanged, Correction):
            values["reason"] = DowntimeReason(values["reason"])
        return cls(**values)
    except (KeyError, TypeError, ValueError) as error:
        raise UnknownEvent(f"cannot read event {record!r}: {error}") from error


class EventIds:
    """Hands out event ids "<stream>-<n>": unique as long as `stream` is, ordered within it, no clock needed."""

    def __init__(self, stream: str, first: int = 0) -> None:
        self.stream = stream
        self._next = first

    def __call__(self) -> str:
        n = self._next
        self._next = n + 1
        return f"{self.stream}-{n:08x}"
