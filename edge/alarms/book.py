"""The book: the current state of every alarm. Applies steps of the table, makes the events, keeps shelves and counts.

Leaves to others: finding conditions (`limits`), delays (`alarms`), judging requests (`commands`). Every change of an
alarm passes `_step`, the only caller of the table. `events` collects what happened until somebody takes it.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from edge.alarms.entry import Entry, state_after
from edge.alarms.options import AlarmOptions
from edge.alarms.rules import SEVERITY
from edge.alarms.statistics import AlarmStatistics, Annunciations, key_figures
from edge.alarms.table import State, Step, core_of, follow
from edge.alarms.timers import Timers
from edge.tick import Condition
from edge.view import AlarmView
from plant.events import AlarmTransition, Audit, Event, EventIds, GatewayEvent
from plant.instant import NS_PER_S, Instant

FLOOD: Final = "alarm_flood"
SYSTEM_ALARMS_MAX: Final = 10_000
"""Beyond this many, system alarms that are normal are forgotten; the others are bounded by devices and tags."""
UPDATE: Final = "update"
"""A transition that changes what is told of an alarm, not its state."""

_RANK: Final = {"critical": 0, "high": 1, "medium": 2, "low": 3}


class Book:
    """All alarms by name; `abnormal` has those that are not normal; `started`: when the figures begin."""

    def __init__(self, ids: EventIds, options: AlarmOptions) -> None:
        self.options = options
        self.entries: dict[str, Entry] = {}
        self.abnormal: dict[str, Entry] = {}
        self.timers = Timers()
        self.events: list[Event] = []
        self.annunciations = Annunciations(
            options.flood_start_count, options.flood_end_count, round(options.flood_window_s * NS_PER_S)
        )
        self._ids = ids
        self._groups: dict[str, set[str]] = {}
        self._group_began: dict[str, int] = {}
        self._system = 0
        self.started: Instant | None = None

    def take(self) -> tuple[Event, ...]:
        """Hand over the events that were made since the last call."""
        if not self.events:
            return ()
        taken = tuple(self.events)
        self.events.clear()
        return taken

    # What the process does.

    def activate(self, entry: Entry, now: Instant, value: float = math.nan, source_time: int = 0) -> None:
        """The condition holds: a new occurrence begins, unless the alarm is active already."""
        if entry.state.active:
            return
        entry.occurrence = self._ids()
        entry.value = value if math.isfinite(value) else None
        entry.source_time = source_time
        entry.activated = now.utc
        entry.activated_monotonic = now.monotonic
        entry.fleeting = False
        entry.rearms = 0
        self._join_group(entry, now)
        begins = self._chatters(entry, now)
        self._step(entry, Step.ACTIVATE, now, event_id=entry.occurrence)
        if begins:
            detail = {
                "alarm": entry.name,
                "activations": len(entry.recent),
                "window_s": self.options.chatter_window_s,
                "message": f"alarm {entry.name} is chattering: check its deadband and delays, or the instrument",
            }
            self.tell("alarm_chattering", entry.asset, detail, now)
        self._rearm_later(entry, now)

    def clear(self, entry: Entry, now: Instant, value: float = math.nan, source_time: int = 0) -> None:
        """The condition is gone."""
        if not entry.state.active:
            return
        entry.value = value if math.isfinite(value) else None
        entry.source_time = source_time
        fleeting_ns = self.options.fleeting_s * NS_PER_S
        entry.fleeting = not entry.state.acknowledged and now.monotonic - entry.activated_monotonic < fleeting_ns
        self.annunciations.fleeting += entry.fleeting
        self._groups.get(entry.static.get("group", ""), set()).discard(entry.name)
        self.timers.cancel("rearm", entry.name)
        self._step(entry, Step.CLEAR, now)
        if entry.one_shot and entry.state.shelved:
            self.unshelve(entry, now, comment="one shot: the alarm returned to normal")

    def suppress_by_logic(self, entry: Entry, now: Instant, *, holds: bool) -> None:
        """The rule's suppress_when began or ceased to hold. What a person suppressed, a person ends."""
        if holds and not entry.state.suppressed:
            why = str(entry.rule.suppress_when) if entry.rule is not None else ""
            self.suppress(entry, now, by="logic", comment=why)
        elif not holds and entry.suppressed_by == "logic":
            self.unsuppress(entry, now)

    def system(self, condition: Condition, now: Instant) -> None:
        """Take what a part of the gateway says of itself."""
        entry = self.entries.get(condition.alarm)
        if entry is None:
            if not condition.active:
                return
            entry = self._new_system(condition.alarm)
        self.timers.cancel("confirm", entry.name)
        changed = bool(condition.message) and condition.message != entry.message
        entry.details = dict(condition.data)
        entry.message = condition.message or entry.message
        if entry.rule is None:
            entry.asset = condition.asset
            entry.priority = condition.priority
            entry.static = {"severity": SEVERITY.get(condition.priority, SEVERITY["high"])}
        if condition.active and not entry.state.active:
            self.activate(entry, now)
        elif not condition.active:
            self.clear(entry, now)
        elif changed:
            self._emit(entry, UPDATE, now)

    def fire(self, kind: str, entry: Entry | None, now: Instant) -> None:
        """Do what a timer of the book asks for."""
        match kind, entry:
            case "shelf", Entry():
                self.unshelve(entry, now, comment="shelving expired")
            case "rearm", Entry():
                entry.rearms += 1
                if self._step(entry, Step.REARM, now):
                    self._rearm_later(entry, now)
            case "chatter", Entry():
                entry.chattering = False
                entry.recent.clear()
                self._emit(entry, UPDATE, now)
            case "confirm", Entry():
                entry.details = {**entry.details, "unconfirmed": True}
                self.clear(entry, now)
            case "flood", _:
                self._flood_ends(now)

    # What people ask; `commands` has judged whether they may.

    def acknowledge(self, entry: Entry, now: Instant, user: str, comment: str) -> bool:
        return self._step(entry, Step.ACKNOWLEDGE, now, user, comment)

    def reset(self, entry: Entry, now: Instant, user: str, comment: str) -> bool:
        return self._step(entry, Step.RESET, now, user, comment)

    def shelve(self, entry: Entry, now: Instant, user: str, reason: str, duration_ns: int, *, one_shot: bool) -> bool:
        """Shelve for a duration on the monotonic clock; the wall time is kept for a restart."""
        if entry.state.shelved:
            return False
        entry.shelved_until = now.utc + duration_ns
        entry.one_shot = one_shot
        entry.flags["shelve"] = {"user": user, "reason": reason, "one_shot": one_shot}
        self.timers.set("shelf", entry.name, now.monotonic + duration_ns)
        return self._step(entry, Step.SHELVE, now, user, reason)

    def unshelve(self, entry: Entry, now: Instant, user: str = "", comment: str = "") -> bool:
        entry.shelved_until = 0
        entry.one_shot = False
        entry.flags.pop("shelve", None)
        self.timers.cancel("shelf", entry.name)
        return self._step(entry, Step.UNSHELVE, now, user, comment)

    def suppress(self, entry: Entry, now: Instant, by: str, user: str = "", comment: str = "") -> bool:
        if entry.state.suppressed:
            return False
        entry.suppressed_by = by
        entry.flags["suppress"] = {"by": by, "user": user, "reason": comment}
        return self._step(entry, Step.SUPPRESS, now, user, comment)

    def unsuppress(self, entry: Entry, now: Instant, user: str = "", comment: str = "") -> bool:
        entry.suppressed_by = ""
        entry.flags.pop("suppress", None)
        return self._step(entry, Step.UNSUPPRESS, now, user, comment)

    def hand_to_logic(self, entry: Entry, now: Instant, user: str, comment: str) -> None:
        """A person ends his suppression while suppress_when holds: the alarm stays suppressed, by design."""
        entry.suppressed_by = "logic"
        why = str(entry.rule.suppress_when) if entry.rule is not None else ""
        entry.flags["suppress"] = {"by": "logic", "user": "", "reason": why}
        self._emit(entry, UPDATE, now, user, comment)

    def out_of_service(self, entry: Entry, now: Instant, user: str, comment: str) -> bool:
        if entry.state.out_of_service:
            return False
        entry.flags["out_of_service"] = {"user": user, "comment": comment}
        return self._step(entry, Step.OUT_OF_SERVICE, now, user, comment)

    def in_service(self, entry: Entry, now: Instant, user: str, comment: str) -> bool:
        entry.flags.pop("out_of_service", None)
        return self._step(entry, Step.IN_SERVICE, now, user, comment)

    def audit(self, user: str, action: str, outcome: str, asset: str, detail: Mapping[str, Any], now: Instant) -> None:
        """Note who asked for what."""
        self.events.append(
            Audit(
                id=self._ids(), time=now.utc, asset=asset, user=user, action=action, outcome=outcome, detail=detail
            )
        )  # fmt: skip

    def tell(self, action: str, asset: str, detail: Mapping[str, Any], now: Instant) -> None:
        """Note what the alarm system finds about itself."""
        self.events.append(GatewayEvent(id=self._ids(), time=now.utc, asset=asset, action=action, detail=detail))

    # The life of the book.

    def resume(self, entry: Entry, last: AlarmTransition, now: Instant) -> None:
        """Continue an alarm where its last transition left it; nothing is announced a second time."""
        entry.state = state_after(last, latching=entry.rule is not None and entry.rule.latch)
        entry.remember(last, now)
        if last.shelved:
            entry.one_shot = bool(entry.flags.get("shelve", {}).get("one_shot", False))
            entry.shelved_until = last.shelved_until
            # The clock may have been set while the gateway was down: a shelf never gets longer than the longest one.
            remaining = min(max(last.shelved_until - now.utc, 0), round(self.options.max_shelve_s * NS_PER_S))
            self.timers.set("shelf", entry.name, now.monotonic + remaining)
        if entry.state.active:
            group = entry.static.get("group", "")
            if group:
                self._groups.setdefault(group, set()).add(entry.name)
            self._rearm_later(entry, now)
        if not entry.state.normal:
            self.abnormal[entry.name] = entry
        if entry.state.latched != last.latched:
            self._emit(entry, UPDATE, now, comment="the alarm's type was changed")

    def resume_system(self, last: AlarmTransition, now: Instant) -> None:
        """Continue an alarm of the gateway itself; while active, its owner must confirm it or it clears."""
        entry = self._new_system(last.alarm)
        entry.asset = last.asset
        entry.priority = last.priority
        entry.message = last.message
        entry.static = {"severity": SEVERITY.get(last.priority, SEVERITY["high"])}
        self.resume(entry, last, now)
        if entry.state.active:
            self.timers.set("confirm", entry.name, now.monotonic + round(self.options.confirm_s * NS_PER_S))

    def relatch(self, entry: Entry, now: Instant, *, latching: bool) -> None:
        """Change the type of an alarm; nothing unacknowledged is lost."""
        state = entry.state
        core = core_of(
            active=state.active, acknowledged=state.acknowledged, latched=state.latched, latching=latching
        )  # fmt: skip
        entry.state = replace(state, core=core, latching=latching)
        if entry.last is not None and entry.state.latched != state.latched:
            self._emit(entry, UPDATE, now, comment="the alarm's type was changed")

    def close(self, entry: Entry, now: Instant, comment: str) -> None:
        """End an alarm that is no longer configured: say once that it is normal, then forget it."""
        self.forget(entry)
        if not entry.state.normal:
            entry.state = State(latching=entry.state.latching)
            entry.shelved_until = 0
            entry.flags.clear()
            entry.details = {"removed": True}
            self._emit(entry, Step.CLEAR, now, comment=comment)
        self.abnormal.pop(entry.name, None)

    def forget(self, entry: Entry) -> None:
        """Drop an alarm and everything that is pending for it."""
        for kind in ("on", "off", "shelf", "rearm", "chatter", "confirm"):
            self.timers.cancel(kind, entry.name)
        self._groups.get(entry.static.get("group", ""), set()).discard(entry.name)
        self.entries.pop(entry.name, None)

    # What others want to see.

    def snapshot(self) -> tuple[AlarmTransition, ...]:
        """Return the last transition of every alarm that is not normal: it carries the whole state."""
        return tuple(entry.last for entry in self.abnormal.values() if entry.last is not None)

    def views(self) -> list[AlarmView]:
        """Return the alarms that are not normal, the most urgent and newest first."""
        shown = sorted(
            self.abnormal.values(), key=lambda e: (_RANK.get(e.priority, 1), e.state.acknowledged, -e.activated)
        )
        return [entry.view() for entry in shown]

    def statistics(self, now: Instant) -> AlarmStatistics:
        """Return the key figures of the alarm system."""
        stale_ns = round(self.options.stale_alarm_s * NS_PER_S)
        return key_figures(self.annunciations, self.entries.values(), self.started or now, now, stale_ns)

    # Inside.

    def _step(
        self, entry: Entry, step: Step, now: Instant, user: str = "", comment: str = "", event_id: str = ""
    ) -> bool:
        """Follow the table. False and nothing changed where it has no such transition."""
        after = follow(entry.state, step)
        if after is None:
            return False
        before, entry.state = entry.state, after
        self._emit(entry, step, now, user, comment, event_id)
        again = not before.annunciated and after.active and not after.acknowledged
        told = again or step in {Step.ACTIVATE, Step.REARM}
        if told and after.annunciated:
            self._count(entry, now)
        return True

    def _emit(
        self, entry: Entry, transition: str, now: Instant, user: str = "", comment: str = "", event_id: str = ""
    ) -> None:
        entry.last = entry.transition(event_id or self._ids(), transition, now, user, comment)
        self.events.append(entry.last)
        if entry.state.normal:
            self.abnormal.pop(entry.name, None)
        else:
            self.abnormal[entry.name] = entry

    def _count(self, entry: Entry, now: Instant) -> None:
        """Count an annunciation. The flood alarm tells of the others and is not one of them."""
        if entry.name == FLOOD:
            return
        counts = self.annunciations
        if counts.add(entry.name, entry.priority, now):
            minutes = self.options.flood_window_s / 60
            message = (
                f"more than {self.options.flood_start_count} alarms in {minutes:g} minutes: "
                "look for the common cause, the first alarms come first"
            )
            data = {"start": now.utc, "count": len(counts.window)}
            self.system(Condition(alarm=FLOOD, active=True, message=message, data=data), now)
        if counts.flood is not None:
            self.timers.set("flood", "", counts.ends_at())

    def _flood_ends(self, now: Instant) -> None:
        flood = self.annunciations.ended(now.monotonic)
        if flood is not None:
            data = {"start": flood.start, "end": now.utc, "alarms": flood.alarms, "peak": flood.peak}
            self.system(Condition(alarm=FLOOD, active=False, data=data), now)

    def _chatters(self, entry: Entry, now: Instant) -> bool:
        """Note an activation; True when it makes the alarm chattering."""
        window = round(self.options.chatter_window_s * NS_PER_S)
        recent = entry.recent
        recent.append(now.monotonic)
        while recent[0] <= now.monotonic - window or len(recent) > self.options.chatter_count:
            recent.popleft()
        if len(recent) < self.options.chatter_count:
            return False
        begins, entry.chattering = not entry.chattering, True
        self.timers.set("chatter", entry.name, now.monotonic + window)
        return begins

    def _join_group(self, entry: Entry, now: Instant) -> None:
        """Mark the first alarm of a group: no other is active and none began within the window before."""
        group = entry.static.get("group", "")
        if not group:
            return
        others = self._groups.setdefault(group, set())
        window = round(self.options.first_out_window_s * NS_PER_S)
        began = self._group_began.get(group)
        entry.first_in_group = not others and (began is None or now.monotonic - began > window)
        others.add(entry.name)
        self._group_began[group] = now.monotonic

    def _rearm_later(self, entry: Entry, now: Instant) -> None:
        after = self.options.realarm_after_s
        if after and entry.rearms < self.options.realarm_repeats_max:
            self.timers.set("rearm", entry.name, now.monotonic + round(after * NS_PER_S))

    def _new_system(self, name: str) -> Entry:
        if self._system >= SYSTEM_ALARMS_MAX:
            for old in [e for e in self.entries.values() if e.rule is None and e.state.normal]:
                self.forget(old)
                self._system -= 1
        self._system += 1
        entry = Entry(name=name, asset="", priority="high")
        self.entries[name] = entry
        return entry
