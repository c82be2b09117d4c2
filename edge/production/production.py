"""`Production`: the machines as one stage of the line.

Owns: which tags concern which machine, when to look (arrival, timers), clocks that step, devices that fall silent, and
the virtual readings. Leaves to others: what a change means (`edge.production.machine`).

Rules:
- A step without a tag of ours and without a due timer returns after one look at a column.
- Time here never goes back. A clock that is set back is waited for up to FREEZE_MAX; beyond that everything starts
  again from the log as of the new time. A clock that jumps forward leaves unknown time, not production.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from edge.production.commands import ARGUMENTS, Invalid, execute
from edge.production.machine import Machine
from edge.production.options import MachineOptions
from edge.production.signals import ROLES, Change, Input
from edge.production.watch import QUIET_NS, Watch, group_by_device, restore_raw, view, virtual, watch
from edge.tick import Command, Derived, Reply
from edge.view import MachineView
from plant.batch import BAD, Batch, concat
from plant.calendar import Calendar, Shift
from plant.events import Event, EventIds, MachineState, UnknownEvent
from plant.instant import NS_PER_S, Instant
from plant.tags import TagTable
from plant.texts import Texts

TIMER_NS: Final = NS_PER_S
"""Between two looks at silence, shifts and figures while nothing arrives."""
CLOCK_STEP_NS: Final = 60 * NS_PER_S
"""The wall clock ran this much further than the monotonic one: it was set, or the computer slept."""
FREEZE_MAX_NS: Final = 3600 * NS_PER_S
"""A clock that was set back by less is waited for."""
NOTHING: Final = Derived()
_ORDER: Final = {role: i for i, role in enumerate(ROLES)}


@dataclass(frozen=True, slots=True)
class Running:
    """A machine and its open shift. log: states and corrections that the shift is folded from, in log order."""

    name: str
    asset: str
    shift: Shift | None
    log: tuple[Event, ...]


class Production:
    """All machines of the gateway.

    `derive` raises nothing for any reading; `restore` comes before the first `derive`. The table must hold every tag
    that a machine names and all of `virtual_tags(machines)`; a missing one is a KeyError at construction.
    """

    def __init__(
        self, machines: Sequence[MachineOptions], table: TagTable, calendar: Calendar, texts: Texts, ids: EventIds
    ) -> None:
        self._watches = [watch(options, table, calendar, texts, ids) for options in machines]
        self._inputs: dict[int, list[tuple[Watch, Input]]] = {}
        self._wanted = np.zeros(table.size, np.bool_)
        self._calendar = calendar
        self._groups, self._group_count = group_by_device(self._watches, table)
        self._heard = [-QUIET_NS] * self._group_count
        self._due = 0
        self._utc = 0
        self._clock: Instant | None = None
        self._events: list[Event] = []
        self._record: Mapping[str, Any] = {}
        for watched in self._watches:
            for entry in watched.inputs:
                self._wanted[entry.tag.index] = True
                self._inputs.setdefault(entry.tag.index, []).append((watched, entry))

    # -- the line ------------------------------------------------------------------------------------------------

    def derive(self, readings: Batch, now: Instant) -> Derived:
        """Take the calibrated readings of a step; return the events and virtual readings that follow."""
        concerned = False
        if len(readings):
            concerned = bool(self._wanted[readings.tag].any())
            if self._group_count:
                self._listen(readings, now)
        if not concerned and now.monotonic < self._due:
            return NOTHING
        utc = self._advance(now)
        if concerned:
            self._take(readings, utc, now)
        if now.monotonic >= self._due:
            self._due = now.monotonic + TIMER_NS
            for watched in self._watches:
                self._check(watched, utc, now)
        for watched in self._watches:
            machine = watched.machine
            if now.monotonic - machine.flushed >= watched.parts_period_ns:
                if machine.pending.made or machine.pending.scrapped:
                    machine.flushed = now.monotonic
                machine.flush()
        return Derived(self._readings(utc, now), self._collect())

    def _listen(self, readings: Batch, now: Instant) -> None:
        """Note from which devices anything good arrived."""
        alive = self._groups[readings.tag]
        if (readings.quality == BAD).any():
            alive = alive[readings.quality != BAD]
        for group in np.flatnonzero(np.bincount(alive, minlength=self._group_count + 1)[1:]).tolist():
            self._heard[group] = now.monotonic

    def _advance(self, now: Instant) -> int:
        """Return the time of this step, ns UTC, never earlier than that of the step before."""
        before = self._clock
        self._clock = now
        if before is None:
            self._begin(now)
            return self._utc
        if now.utc < self._utc - FREEZE_MAX_NS:
            self._utc = now.utc
            for watched in self._watches:
                watched.machine.restart(now.utc)
            return self._utc
        jumped = now.utc - self._utc - (now.monotonic - before.monotonic) > CLOCK_STEP_NS
        if jumped and now.utc > self._utc:
            for watched in self._watches:
                machine = watched.machine
                if not machine.lost:
                    state, reason = machine.state, machine.reason
                    machine.set_state(self._utc, MachineState.UNKNOWN, None, "clock")
                    machine.set_state(now.utc, state, reason, "clock")
        self._utc = max(self._utc, now.utc)
        return self._utc

    def _take(self, readings: Batch, utc: int, now: Instant) -> None:
        """Hand the changes of our tags to their machines, each machine's in order of time."""
        rows = np.flatnonzero(self._wanted[readings.tag])
        ours = readings.select(rows) if len(rows) < len(readings) else readings
        believed = (ours.quality != BAD) & np.isfinite(ours.value)
        changes: dict[int, list[Change]] = {}
        for index in np.unique(ours.tag).tolist():
            of_tag = ours.tag == index
            good = np.flatnonzero(of_tag & believed)
            times, numbers = ours.time[good], ours.value[good]
            last_is_bad = not believed[np.flatnonzero(of_tag)[-1]]
            for watched, entry in self._inputs[index]:
                if entry.role in {"state", "running"}:
                    watched.bad = last_is_bad
                    if len(good):
                        watched.said, watched.spoke = now.monotonic, True
                if len(good):
                    changes.setdefault(id(watched), []).extend(entry.changes(times, numbers))
        for watched in self._watches:
            found = changes.get(id(watched))
            if found:
                found.sort(key=lambda change: (change.time, _ORDER[change.role]))
                watched.machine.take(found, utc)

    def _check(self, watched: Watch, utc: int, now: Instant) -> None:
        """Look at what happens without a reading: a shift ends, a device falls silent, a part is not judged good."""
        machine = watched.machine
        if utc >= machine.boundary:
            machine.flush()
            machine.roll(utc)
        machine.judge(utc, now.monotonic)
        heard = self._heard[watched.group]
        last = watched.said if watched.bad else max(heard, watched.said)
        late = now.monotonic - last - watched.unknown_after_ns
        if late > 0:
            machine.lose(utc - late)
        elif machine.lost and watched.spoke and not watched.bad and now.monotonic - heard <= TIMER_NS:
            # Its device speaks again; a state that has not changed is not sent again by a subscription.
            machine.resume(utc)

    def _readings(self, utc: int, now: Instant) -> Batch:
        """Return the virtual readings of the machines that changed or whose figures are due."""
        batches = []
        for watched in self._watches:
            machine = watched.machine
            period = TIMER_NS if machine.account is not None else QUIET_NS
            if machine.dirty or now.monotonic - watched.shown >= period:
                machine.dirty = False
                watched.shown = now.monotonic
                batches.append(virtual(watched, utc))
        return concat(batches)

    def _collect(self) -> tuple[Event, ...]:
        events: list[Event] = []
        for watched in self._watches:
            events += watched.machine.out
            watched.machine.out = []
        return tuple(events)

    # -- people --------------------------------------------------------------------------------------------------

    def command(self, command: Command, now: Instant) -> tuple[Reply, tuple[Event, ...]]:
        """Carry out "correct", "set_state", "start_order" or "end_order"; see `edge.production.commands`.

        The figures follow with the next step.
        """
        utc = self._advance(now)
        before = self._collect()
        try:
            machine = self._machine(command)
            message = execute(machine, command, utc)
            reply = Reply(command=command.id, origin=command.origin, ok=True, code="ok", message=message)
        except Invalid as error:
            reply = Reply(command=command.id, origin=command.origin, ok=False, code="invalid", message=str(error))
        # The machine is dirty now: the next step shows it without waiting for the timer.
        self._due = 0
        return reply, before + self._collect()

    def _machine(self, command: Command) -> Machine:
        if command.name not in ARGUMENTS:
            raise Invalid(f"unknown command {command.name}; known: {', '.join(ARGUMENTS)}")
        asset = command.arguments.get("asset")
        for watched in self._watches:
            if asset in {watched.machine.asset, watched.machine.options.name}:
                return watched.machine
        known = ", ".join(watched.machine.asset for watched in self._watches) or "none"
        raise Invalid(f"no machine {asset!r}; known: {known}")

    def views(self, now: Instant) -> list[MachineView]:
        """Return what there is to show of every machine."""
        if self._clock is None:
            self._advance(now)
        utc = max(self._utc, now.utc)
        return [view(watched, utc) for watched in self._watches]

    def running(self, name: str) -> Running | None:
        """Return what is known of the open shift of a machine (by name or asset), None if there is no such machine."""
        for watched in self._watches:
            machine = watched.machine
            if name in {machine.asset, machine.options.name}:
                return Running(
                    machine.options.name, machine.asset, machine.shift, (*machine.states, *machine.corrections)
                )
        return None

    # -- across restarts -----------------------------------------------------------------------------------------

    def restore_since(self, now: Instant) -> int:
        """Return the time (ns UTC) from which on `restore` needs the journal's events."""
        shifts = [self._calendar.at(watched.machine.asset, now.utc) for watched in self._watches]
        return min((shift.start for shift in shifts if shift is not None), default=now.utc)

    def restore(self, events: Iterable[Event], counters: Mapping[str, Any]) -> None:
        """Take over what was before a restart; call once, before the first `derive`.

        events: in journal order, all with a time of `restore_since` or later (more does no harm). counters: what
        `counters` returned for the last commit, or {}. A record that cannot be read is passed over for its machine:
        counting then goes on from the first value.
        """
        self._events = list(events)
        self._record = counters

    def counters(self) -> dict[str, Any]:
        """Return what the journal must keep beside the events, as JSON types, small.

        Committed together with the events of the same step, it makes a restart count every part exactly once. `seen`:
        until when the machine was watched, ns UTC; time after it is unknown.
        """
        if self._clock is None:
            return dict(self._record)
        return {
            watched.machine.options.name: watched.machine.record()
            | {
                "seen": self._utc,
                "raw": {
                    entry.role: [entry.counter.raw, entry.counter.time]
                    for entry in watched.inputs
                    if entry.counter is not None and entry.counter.raw is not None
                },
            }
            for watched in self._watches
        }

    def _begin(self, now: Instant) -> None:
        """Start every machine from the log at the time of the first step."""
        by_asset: dict[str, list[Event]] = {}
        latest = now.utc
        for event in self._events:
            # What a wrong clock wrote into the future is no past to start from; a little ahead is waited for.
            if event.time <= now.utc + FREEZE_MAX_NS:
                by_asset.setdefault(event.asset, []).append(event)
                latest = max(latest, event.time)
        self._utc = latest
        for watched in self._watches:
            machine = watched.machine
            watched.said = now.monotonic
            watched.shown = now.monotonic - QUIET_NS
            machine.flushed = now.monotonic - watched.parts_period_ns
            events = by_asset.get(machine.asset, [])
            record = dict(self._record.get(machine.options.name) or {})
            try:
                machine.restore(events, record, latest)
                seen = int(record.get("seen", now.utc))
                restore_raw(watched, record.get("raw") or {})
            except (UnknownEvent, KeyError, TypeError, ValueError):
                machine.restore(events, {}, latest)
                seen = now.utc
            if now.utc - seen > watched.unknown_after_ns:
                watched.spoke = False
                machine.lose(seen)
        self._events, self._record = [], {}
