"""One step of the line."""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from edge.line.calibrate import Calibration
from edge.line.keep import Deadband
from edge.line.liveness import Liveness
from edge.tick import Command, Condition, Derivation, Derived, Occurred, Reply, Signal, Tick
from plant.batch import EMPTY, Batch, concat
from plant.events import Event, EventIds
from plant.instant import NS_PER_S, Instant
from plant.tags import TagTable

PAST_MAX_NS = 24 * 3600 * NS_PER_S
FUTURE_MAX_NS = 60 * NS_PER_S


class Production(Derivation, Protocol):
    """The part of the line that knows machines: states, counts, OEE."""

    def command(self, command: Command, now: Instant) -> tuple[Reply, tuple[Event, ...]]: ...


class Judge(Protocol):
    """The part of the line that knows alarms."""

    def evaluate(self, readings: Batch, now: Instant) -> tuple[Event, ...]: ...
    def condition(self, condition: Condition, now: Instant) -> tuple[Event, ...]: ...
    def command(self, command: Command, now: Instant) -> tuple[Reply, tuple[Event, ...]]: ...


PRODUCTION_COMMANDS = frozenset({"correct", "set_state", "start_order", "end_order"})


class Line:
    """Owns the order of the stages and nothing else; each stage keeps its own state."""

    def __init__(
        self,
        table: TagTable,
        production: Production,
        alarms: Judge,
        ids: EventIds,
        started: Instant,
        derivations: Sequence[Derivation] = (),
    ) -> None:
        self._production = production
        self._derivations = (*derivations, production)
        self._alarms = alarms
        self._ids = ids
        self.calibration = Calibration(table, PAST_MAX_NS, FUTURE_MAX_NS)
        self.deadband = Deadband(table)
        self.liveness = Liveness(table, started)
        self.readings = 0
        self.steps = 0

    def use(self, table: TagTable, production: Production) -> None:
        """Go on with another tag table and production between two steps; what is known of each tag stays."""
        self._derivations = (*(d for d in self._derivations if d is not self._production), production)
        self._production = production
        self.calibration = Calibration(table, PAST_MAX_NS, FUTURE_MAX_NS, self.calibration.counts)
        self.deadband.use(table)
        self.liveness.use(table)

    def step(self, readings: Batch, signals: Sequence[Signal], now: Instant, history: Batch = EMPTY) -> Tick:
        """Take all that has arrived and return what follows from it.

        readings: raw rows of any number of sources, in order of arrival per tag; may be empty (a timer tick).
        history: what a device recorded during a break. It is calibrated, marked and handed on; nothing is derived from
        it, it judges nothing and is no sign of life.
        """
        self.steps += 1
        self.readings += len(readings)
        events: list[Event] = []
        replies: list[Reply] = []
        batch = self.calibration.apply(readings, now) if len(readings) else EMPTY
        for derivation in self._derivations:
            derived: Derived = derivation.derive(batch, now)
            events.extend(derived.events)
            if len(derived.readings):
                batch = concat((batch, derived.readings)) if len(batch) else derived.readings
        if len(batch):
            self.liveness.note(batch, now)
        for signal in signals:
            self._take(signal, now, events, replies)
        for condition in self.liveness.look(now):
            events.extend(self._alarms.condition(condition, now))
        events.extend(self._alarms.evaluate(batch, now))
        past = self.calibration.apply_history(history) if len(history) else EMPTY
        return Tick(now, batch, self.deadband.apply(batch), tuple(events), tuple(replies), past)

    def _take(self, signal: Signal, now: Instant, events: list[Event], replies: list[Reply]) -> None:
        match signal:
            case Condition():
                if signal.alarm.endswith(".communication"):
                    self.liveness.device(signal)
                events.extend(self._alarms.condition(signal, now))
            case Occurred(event=event):
                events.append(dataclasses.replace(event, id=self._ids()))
            case Command():
                judge = self._production if signal.name in PRODUCTION_COMMANDS else self._alarms
                reply, followed = judge.command(signal, now)
                replies.append(reply)
                events.extend(followed)
