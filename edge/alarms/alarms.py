"""`Alarms`: what the line calls. Composes limits, delays, the book and commands; synchronous, no I/O, no clock.

Order within a step: a replacement of the rules, timers that are due, then the readings. A delay whose end has come
counts as held until now, because the readings of a step arrive at `now`. A delay that ends while the tag's quality is
not good waits: it completes in the first step after which the quality is good again, unless the value broke it.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any, Final

from edge.alarms.book import FLOOD, Book
from edge.alarms.commands import Commands
from edge.alarms.entry import SYSTEM, Entry, state_after
from edge.alarms.limits import Limits
from edge.alarms.options import AlarmOptions
from edge.alarms.rules import AlarmRule, check
from edge.alarms.statistics import AlarmStatistics
from edge.alarms.table import State
from edge.alarms.timers import NEVER
from edge.alarms.watch import Edge
from edge.tick import Command, Condition, Reply
from edge.view import AlarmView
from plant.batch import Batch
from plant.events import AlarmTransition, Event, EventIds
from plant.instant import NS_PER_S, Instant
from plant.tags import TagTable

CONFIGURATION: Final = "configuration"
"""The user of what a change of the configuration does."""
RETURN_NS: Final = 10 * NS_PER_S
"""Time a device has after its return to send values before its silent or bad tags are alarms of their own."""


class Alarms:
    """All alarms of a gateway: those of rules, judged by readings, and those that its parts raise by name."""

    def __init__(
        self, rules: Sequence[AlarmRule], table: TagTable, ids: EventIds, options: AlarmOptions | None = None
    ) -> None:
        """Raises ValueError if a rule does not fit the tags; `edge.alarms.check` names every mistake beforehand."""
        _refuse_faults(rules, table)
        self.options = options or AlarmOptions()
        self._table = table
        self._limits = Limits(rules, table)
        self._book = Book(ids, self.options)
        self._commands = Commands(self._book, self._logic)
        self._entries: list[Entry] = []
        self._waiting: dict[str, str] = {}
        self._held: dict[str, set[str]] = {}
        self._replacement: tuple[Sequence[AlarmRule], TagTable, str] | None = None
        for i, rule in enumerate(rules):
            self._entries.append(self._new(rule, i, table))

    @property
    def rules(self) -> tuple[AlarmRule, ...]:
        """The rules in force."""
        return self._limits.rules

    @property
    def next_due(self) -> int | None:
        """Monotonic ns at which `evaluate` must be called even without readings; None = not foreseeable."""
        if self._book.events or self._replacement is not None:
            return 0
        due = min(self._book.timers.due, self._limits.due)
        return None if due == NEVER else due

    def evaluate(self, readings: Batch, now: Instant) -> tuple[Event, ...]:
        """Judge the readings of one step and everything that is due. Returns the events in order."""
        book, limits, monotonic = self._book, self._limits, now.monotonic
        if book.started is None:
            book.started = now
        if self._replacement is not None:
            self._replace(now)
            limits = self._limits
        if book.timers.due <= monotonic:
            self._fire(now)
        if len(readings) or limits.due <= monotonic:
            for edge in limits.observe(readings, monotonic):
                self._apply(edge, now)
            if self._waiting:
                self._release(now)
        return book.take()

    def condition(self, condition: Condition, now: Instant) -> tuple[Event, ...]:
        """Take what a part of the gateway found; its alarm is made at first sight."""
        if self._book.started is None:
            self._book.started = now
        self._book.system(condition, now)
        if not condition.active:
            self._returned(condition.alarm, now.monotonic + RETURN_NS)
        return self._book.take()

    def command(self, command: Command, now: Instant) -> tuple[Reply, tuple[Event, ...]]:
        """Answer a command; see `edge.alarms.commands` for names, arguments and codes."""
        if self._replacement is not None:
            self._replace(now)
        reply = self._commands.handle(command, now)
        return reply, self._book.take()

    def snapshot(self, now: Instant) -> tuple[AlarmTransition, ...]:  # noqa: ARG002
        """Return the present state of every alarm that is not normal, as its last transition."""
        return self._book.snapshot()

    def views(self, now: Instant) -> list[AlarmView]:  # noqa: ARG002
        """Return the alarms that are not normal, the most urgent first."""
        return self._book.views()

    def statistics(self, now: Instant) -> AlarmStatistics:
        """Return the key figures of the alarm system since the start."""
        return self._book.statistics(now)

    def restore(self, transitions: Iterable[AlarmTransition], now: Instant) -> None:
        """Continue after a restart, once, before the first step.

        transitions: in order, the whole log or any end of it that holds the last transition of each alarm. What
        follows from the time that has passed (expired shelves, removed alarms) comes out of the next `evaluate`.
        """
        last = {transition.alarm: transition for transition in transitions}
        for name, transition in last.items():
            entry = self._book.entries.get(name)
            if entry is None and transition.condition == SYSTEM:
                if transition.state != "A":
                    self._book.resume_system(transition, now)
            elif entry is None or (transition.tag, transition.condition) != (entry.tag, entry.condition):
                self._close_unknown(transition, now)
            else:
                self._book.resume(entry, transition, now)
                by_logic = entry.state.suppressed and entry.suppressed_by == "logic"
                if by_logic and entry.rule is not None and entry.rule.suppress_when is None:
                    self._book.unsuppress(entry, now, CONFIGURATION, "suppress_when was removed")
                self._limits.assume(entry.index, holds=entry.state.active, suppressed=by_logic or None)

    def replace_rules(
        self, rules: Sequence[AlarmRule], table: TagTable | None = None, user: str = CONFIGURATION
    ) -> None:
        """Put other rules in force at the next step; alarms whose rule is the same or only adjusted keep their state.

        Raises ValueError, and changes nothing, if a rule does not fit the tags. Every change of a rule is audited
        under `user`.
        """
        table = table or self._table
        _refuse_faults(rules, table)
        self._replacement = (rules, table, user)

    def _new(self, rule: AlarmRule, index: int, table: TagTable) -> Entry:
        entry = Entry(name=rule.name, state=State(latching=rule.latch))
        entry.configure(rule, index, table[rule.tag])
        self._book.entries[rule.name] = entry
        return entry

    def _logic(self, entry: Entry) -> bool:
        return entry.rule is not None and self._limits.suppression(entry.index)

    def _apply(self, edge: Edge, now: Instant) -> None:
        """Start, complete or break the delays of a condition that began or ceased to hold."""
        entry = self._entries[edge.rule]
        book, rule = self._book, entry.rule
        assert rule is not None
        if edge.suppression:
            book.suppress_by_logic(entry, now, holds=edge.holds)
            return
        begins, ends = ("on", "off") if edge.holds else ("off", "on")
        book.timers.cancel(ends, entry.name)
        if self._waiting.get(entry.name) == ends:
            del self._waiting[entry.name]
        if self._held and not edge.holds:
            self._held.get(self._device(entry), set()).discard(entry.name)
        if entry.state.active is edge.holds:
            return
        entry.pending = (edge.value, edge.time)
        if edge.holds and self._caused_by_device(entry):
            self._held.setdefault(self._device(entry), set()).add(entry.name)
            return
        delay = rule.on_delay_ns if edge.holds else rule.off_delay_ns
        if delay:
            book.timers.set(begins, entry.name, now.monotonic + delay)
        else:
            self._complete(entry, begins, now)

    def _complete(self, entry: Entry, kind: str, now: Instant) -> None:
        if kind == "on":
            self._book.activate(entry, now, *entry.pending)
        else:
            self._book.clear(entry, now, *entry.pending)

    def _device(self, entry: Entry) -> str:
        return self._table[entry.tag].device

    def _caused_by_device(self, entry: Entry) -> bool:
        """Return whether the alarm is about an instrument behind a device that is known to be down: the alarm of the
        device says it all, one for the device and not one for each tag.
        """
        return entry.rule is not None and not entry.rule.process and self._down(self._device(entry))

    def _down(self, device: str) -> bool:
        alarm = self._book.entries.get(_communication(device))
        return self._book.timers.runs("return", device) or (alarm is not None and alarm.state.active)

    def _returned(self, alarm: str, due: int) -> None:
        """A device answers again: it has until `due` to send values before its tags are to blame."""
        device = alarm.removeprefix("device.").removesuffix(".communication")
        if alarm == _communication(device):
            self._book.timers.set("return", device, due)

    def _blame(self, device: str, now: Instant) -> None:
        """Start the delays of the alarms that were held while their device was down."""
        if self._down(device):
            return
        for name in sorted(self._held.pop(device, ())):
            entry = self._book.entries[name]
            assert entry.rule is not None
            self._book.timers.set("on", name, now.monotonic + entry.rule.on_delay_ns)

    def _fire(self, now: Instant) -> None:
        for kind, name in self._book.timers.pop(now.monotonic):
            entry = self._book.entries.get(name)
            if kind == "return":
                self._blame(name, now)
            elif kind not in {"on", "off"}:
                self._book.fire(kind, entry, now)
                if kind == "confirm":
                    self._returned(name, now.monotonic)
            elif entry is not None and entry.rule is not None:
                if entry.rule.process and not self._limits.good(entry.index):
                    self._waiting[name] = kind
                elif kind == "on" and self._caused_by_device(entry):
                    self._held.setdefault(self._device(entry), set()).add(name)
                else:
                    self._complete(entry, kind, now)

    def _release(self, now: Instant) -> None:
        """Complete the delays that waited for a good value."""
        ready = [name for name in self._waiting if self._limits.good(self._book.entries[name].index)]
        for name in ready:
            self._complete(self._book.entries[name], self._waiting.pop(name), now)

    def _close_unknown(self, last: AlarmTransition, now: Instant) -> None:
        """End an alarm that the log knows and the rules do not, or no longer with this tag and condition."""
        if last.state == "A":
            return
        current = self._book.entries.get(last.alarm)
        entry = Entry(name=last.alarm, asset=last.asset, priority=last.priority, condition=last.condition)
        entry.tag, entry.limit, entry.message = last.tag, last.limit, last.message
        entry.state = state_after(last, latching=last.latched)
        entry.remember(last, now)
        self._book.close(entry, now, "no longer configured")
        if current is not None:
            self._book.entries[current.name] = current

    def _replace(self, now: Instant) -> None:
        assert self._replacement is not None
        (rules, table, user), self._replacement = self._replacement, None
        book, old, before = self._book, self._limits, {e.name: e for e in self._entries}
        fresh = Limits(rules, table)
        fresh.inherit(old)
        entries: list[Entry] = []
        added: list[str] = []
        for i, rule in enumerate(rules):
            entry = before.pop(rule.name, None)
            if entry is not None and (entry.tag, entry.condition) != (rule.tag, rule.condition):
                self._drop(entry, now)
                entry = None
            if entry is None:
                added.append(rule.name)
                entries.append(self._new(rule, i, table))
                continue
            suppressed = old.suppression(entry.index) if _same_logic(entry, rule) else None
            fresh.assume(i, holds=old.holds(entry.index), suppressed=suppressed)
            self._adjust(entry, rule, i, table, user, now)
            entries.append(entry)
        for entry in before.values():
            self._drop(entry, now)
        if added or before:
            book.audit(user, "replace_alarm_rules", "ok", "", {"added": added, "removed": sorted(before)}, now)
        self._entries, self._limits, self._table = entries, fresh, table
        for edge in fresh.review():
            self._apply(edge, now)

    def _adjust(self, entry: Entry, rule: AlarmRule, index: int, table: TagTable, user: str, now: Instant) -> None:
        """Continue an alarm under a rule that may differ in anything but its tag and condition."""
        was = entry.rule
        entry.configure(rule, index, table[rule.tag])
        if was == rule or was is None:
            return
        old, new = _difference(was, rule)
        detail = {"alarm": rule.name, "old": old, "new": new}
        self._book.audit(user, "change_alarm_rule", "ok", entry.asset, detail, now)
        timers, name = self._book.timers, entry.name
        for kind, delay in (("on", rule.on_delay_ns), ("off", rule.off_delay_ns)):
            if timers.runs(kind, name):
                timers.set(kind, name, now.monotonic + delay)
        if was.latch is not rule.latch:
            self._book.relatch(entry, now, latching=rule.latch)
        if entry.suppressed_by == "logic" and rule.suppress_when is None:
            self._book.unsuppress(entry, now, user, "suppress_when was removed")

    def _drop(self, entry: Entry, now: Instant) -> None:
        self._waiting.pop(entry.name, None)
        for held in self._held.values():
            held.discard(entry.name)
        self._book.close(entry, now, "no longer configured")


def _refuse_faults(rules: Sequence[AlarmRule], table: TagTable) -> None:
    faults = check(rules, table)
    if faults:
        raise ValueError("; ".join(text for _, text in faults))
    if any(rule.name == FLOOD for rule in rules):
        raise ValueError(f"alarm {FLOOD} is the gateway's own: choose another name")


def _communication(device: str) -> str:
    """Return the name of the alarm by which the gateway tells that a device is lost."""
    return f"device.{device}.communication"


def _same_logic(entry: Entry, rule: AlarmRule) -> bool:
    return entry.rule is not None and entry.rule.suppress_when == rule.suppress_when


def _difference(old: AlarmRule, new: AlarmRule) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fields that differ, before and after, as JSON types."""
    names = [f.name for f in fields(AlarmRule) if getattr(old, f.name) != getattr(new, f.name)]
    return {n: _plain(getattr(old, n)) for n in names}, {n: _plain(getattr(new, n)) for n in names}


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
