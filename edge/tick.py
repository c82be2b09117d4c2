"""What goes into a step of the line besides readings, and what comes out of it: the vocabulary that the parts of
the gateway share so that none of them needs to import another.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from plant.batch import EMPTY, Batch
from plant.events import Event
from plant.instant import Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A request from a person or a system, already authenticated by whoever accepted it.

    name: "acknowledge", "reset", "shelve", "unshelve", "suppress", "unsuppress", "out_of_service", "in_service",
    "snapshot", "correct", "set_state", "start_order", "end_order".
    origin: where the answer goes, e.g. "mqtt" or "control".
    """

    id: str
    name: str
    user: str
    origin: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A part of the gateway found something that an alarm should tell: a lost device, silent tags, a full disk.

    alarm: name of the system alarm, e.g. "device.press.communication". active: the condition holds.
    message: one sentence for the person who reads it: what, where, what to do.
    """

    alarm: str
    active: bool
    message: str = ""
    asset: str = ""
    priority: str = "high"
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Occurred:
    """An event that happened outside the line and must pass through it to be kept and told."""

    event: Event


Signal = Command | Condition | Occurred


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The answer to a command. code: "ok", "unknown_alarm", "stale_occurrence", "already_acknowledged", "invalid"."""

    command: str
    origin: str
    ok: bool
    code: str
    message: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Derived:
    """What a derivation adds to a step: virtual readings and events."""

    readings: Batch = EMPTY
    events: tuple[Event, ...] = ()


class Derivation(Protocol):
    """A part of the line: synchronous, no I/O, no clock; bad input gives BAD output."""

    def derive(self, readings: Batch, now: Instant) -> Derived: ...


@dataclass(frozen=True, slots=True)
class Tick:
    """The result of one step. Immutable: every consumer gets the same object.

    readings: calibrated readings and virtual ones. kept: those that passed the deadband, for the ring.
    events: in order, with ids. replies: answers to the step's commands. history: readings from before, which a device
    recorded during a break; marked BACKFILL, to be kept, and neither live nor judged.
    """

    now: Instant
    readings: Batch
    kept: Batch
    events: tuple[Event, ...]
    replies: tuple[Reply, ...]
    history: Batch = EMPTY


class Outlet(Protocol):
    """A way out of the gateway. `offer` returns at once, drops and counts; `run` owns the connection."""

    def offer(self, tick: Tick) -> None: ...
    async def run(self) -> None: ...
