"""What the gateway shows of itself: one snapshot for the terminal, the local page, `andon status` and `/healthz`."""

from typing import Literal

import msgspec


class DeviceView(msgspec.Struct, frozen=True, kw_only=True):
    """state: "connected" | "connecting" | "down" | "refused" | "parked". since: ns UTC of the last change of state.

    sentence: what is the matter, in one sentence for a person; "" when all is well.
    """

    name: str
    type: str
    state: str
    since: int
    sentence: str
    tags: int
    alive: int
    readings: int
    lost: int
    reconnects: int
    problems: dict[str, str]


class MachineView(msgspec.Struct, frozen=True, kw_only=True):
    """KPIs are fractions 0..1 of the current shift so far, None where nothing can be said yet.

    unknown_s: planned time of which nobody knows the state; unobserved_s: the part of it that is in no figure.
    uncertain: the figures are not to be acted on.
    """

    name: str
    asset: str
    state: str
    reason: str | None
    state_since: int
    shift: str
    shift_start: int
    shift_end: int
    order: str
    product: str
    produced: float
    rejected: float
    availability: float | None
    performance: float | None
    quality: float | None
    oee: float | None
    teep: float | None
    utilisation: float | None
    target_oee: float
    performance_suspect: bool
    unknown_s: float
    unobserved_s: float = 0.0
    uncertain: bool = False
    losses: list[dict[str, object]]


class AlarmView(msgspec.Struct, frozen=True, kw_only=True):
    """One alarm that is active, unacknowledged, latched, shelved, suppressed or out of service."""

    alarm: str
    asset: str
    priority: str
    state: str
    active: bool
    acknowledged: bool
    annunciated: bool
    shelved_until: int
    occurrence: str
    since: int
    tag: str
    value: float | None
    limit: float | None
    message: str


class RingView(msgspec.Struct, frozen=True, kw_only=True):
    state: Literal["ok", "degraded", "down"]
    sentence: str
    files: int
    rows: int
    bytes: int
    bytes_max: int
    oldest: int
    newest: int
    committed: int
    dropped: int
    full_at: int
    """ns UTC when the byte budget will be full at today's rate; 0 = not foreseeable. From then on the oldest goes."""


class BrokerView(msgspec.Struct, frozen=True, kw_only=True):
    state: Literal["connected", "connecting", "refused", "off"]
    sentence: str
    address: str
    published: int
    dropped: int
    unacknowledged: int
    """Events that the broker has not acknowledged yet."""


class TagView(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    unit: str
    asset: str
    device: str
    value: float | str | None
    quality: int
    time: int
    age_s: float


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    gateway: str
    version: str
    time: int
    started: int
    healthy: bool
    sentence: str
    tags: int
    tags_alive: int
    readings: int
    readings_per_s: float
    step_ms_p99: float
    rss_bytes: int
    devices: list[DeviceView]
    machines: list[MachineView]
    alarms: list[AlarmView]
    ring: RingView
    broker: BrokerView
    time_zone: str = "UTC"
    """IANA name of the site's: a screen shows shifts and alarms in the time of the plant, wherever it stands."""
