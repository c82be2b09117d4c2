"""One machine: its state, its open shift and its counts, as events and as the running account of the shift.

Owns: what a change of a tag means for the log, and that the account equals the fold of the log. Leaves to others: which
rows are changes (`edge.production.signals`), parts that are no event yet (`edge.production.pending`), time and devices
(`edge.production.production`), people (`edge.production.commands`).

Rules:
- Everything that counts is an event first; the account takes nothing else.
- A state never begins before the one it follows, whatever a clock does, nor, after a time in which nobody watched,
  before somebody watches again. Parts carry the time of their counter.
- The reason of a stop that becomes known during the stop holds from its start.
- A state that a person sets holds until the machine reports another one than before.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from edge.production.options import MachineOptions
from edge.production.pending import Pending, pending_from
from edge.production.signals import Change
from plant.account import Account, Parts
from plant.calendar import LOOK_AHEAD_DAYS, Calendar, Shift
from plant.counters import Anomaly
from plant.events import (
    Correction,
    CounterAnomaly,
    DowntimeReason,
    Event,
    EventIds,
    MachineState,
    OrderEnded,
    OrderStarted,
    PartsProduced,
    PartsRejected,
    StateChanged,
    UnknownEvent,
    from_record,
    to_record,
)
from plant.instant import NS_PER_S
from plant.oee import Startup
from plant.timeline import timeline

CORRECTIONS_MAX: Final = 10_000
"""Corrections that are remembered to find overlaps; the oldest are forgotten first."""
OPERATOR: Final = "operator:"
"""Origin of states that a person entered; the name follows."""
ANOMALIES_MAX: Final = 10_000
"""Counter anomalies of one shift that are kept to fold it again; beyond, the oldest are forgotten."""
STATES_MAX: Final = 200_000
"""States of one shift that are kept to fold it again after a correction; a machine that flaps more loses the oldest."""
_DAY_NS: Final = 86_400 * NS_PER_S
_NO_REASON: Final = frozenset({MachineState.RUNNING, MachineState.UNKNOWN})


class Machine:
    """The state of one machine between two steps. `now` is ns UTC that never goes back."""

    def __init__(self, options: MachineOptions, calendar: Calendar, ids: EventIds) -> None:
        self.options = options
        self.rating = options.rating
        self.asset = options.asset
        self.calendar = calendar
        self.ids = ids
        self.state = MachineState.UNKNOWN
        self.reason: DowntimeReason | None = None
        self.since = 0
        self.reported: MachineState | None = None
        self.reported_reason: DowntimeReason | None = None
        self.lost = True
        self.entered = False
        self.order = ""
        self.product = ""
        self.pending = Pending()
        self.flushed = 0
        self.states: list[StateChanged] = []
        self.corrections: list[Correction] = []
        self.anomalies: list[CounterAnomaly] = []
        self.watched_since = 0
        self.startup = Startup(self.rating.startup_ns)
        self.shift: Shift | None = None
        self.account: Account | None = None
        self.boundary = 0
        self.dirty = True
        self.out: list[Event] = []

    # -- the shift -----------------------------------------------------------------------------------------------

    def roll(self, time: int) -> None:
        """Open the shift that holds `time` if the present one (or the pause between two) is over."""
        if time < self.boundary:
            return
        self.shift = self.calendar.at(self.asset, time)
        if self.shift is None:
            self.boundary = self.calendar.next_start(self.asset, time) or time + LOOK_AHEAD_DAYS * _DAY_NS
            opening = time
        else:
            self.boundary = self.shift.end
            opening = self.shift.start
        # Of what lies before the shift only the state that it begins with is needed again.
        first = self._opening(opening)
        self.states = ([first] if first else []) + [event for event in self.states if event.time > opening]
        self.anomalies = [event for event in self.anomalies if event.time > opening]
        self.rebuild(None)
        self.dirty = True

    def _opening(self, time: int) -> StateChanged | None:
        """Return the state event that holds at `time`."""
        before = [event for event in self.states if event.time <= time]
        latest = max((event.time for event in before), default=0)
        return next((event for event in reversed(before) if event.time == latest), None)

    def rebuild(self, parts: Parts | None) -> None:
        """Fold the states of the open shift again; `parts` are those counted so far."""
        if self.shift is None:
            self.account = None
            return
        period = self.shift.period
        self.account = Account(period, self.rating, parts)
        for anomaly in self.anomalies:
            self.account.blind(anomaly.start, anomaly.time)
        log: list[Event] = [*self.states, *self.corrections]
        self.account.feed(timeline(log, self.asset, period.start, period.end))

    # -- events --------------------------------------------------------------------------------------------------

    def put(self, event: Event) -> None:
        """Append an event to the log and to the account."""
        self.out.append(event)
        self.dirty = True
        account = self.account
        match event:
            case StateChanged():
                self.startup.state(event.time, event.state)
                self.states.append(event)
                self.state, self.reason, self.since = event.state, event.reason, event.time
                if account is None:
                    # The next shift needs only the state that it begins with.
                    self.states = [event]
                    return
                del self.states[:-STATES_MAX]
                if event.time >= account.began and not self._restated(event.time):
                    account.state(event.time, event.state, event.reason)
                else:
                    self.rebuild(account.parts)
            case PartsProduced() if account is not None:
                account.produced(event)
            case PartsRejected() if account is not None:
                account.rejected(event, startup=self.startup.holds(event.time))
            case Correction():
                self.corrections.append(event)
                del self.corrections[:-CORRECTIONS_MAX]
                if account is not None:
                    account.corrected(event)
                    self.rebuild(account.parts)
            case CounterAnomaly():
                self.anomalies.append(event)
                del self.anomalies[:-ANOMALIES_MAX]
                if account is not None:
                    account.blind(event.start, event.time)
            case OrderStarted():
                self.order, self.product = event.order, event.product or self.product
            case OrderEnded():
                self.order = ""

    def _restated(self, time: int) -> bool:
        """Tell whether a correction reaches beyond `time`, so that a state from then on is not all that holds."""
        return any(c.end > time and c.state is not None for c in self.corrections)

    def set_state(
        self, time: int, state: MachineState, reason: DowntimeReason | None, origin: str, *, from_start: bool = False
    ) -> None:
        """Enter a state, or with `from_start` say what the present one has been since it began."""
        self.flush()
        begins = self.since if from_start else max(time, self.since)
        if not from_start:
            self.entered = origin.startswith(OPERATOR)
        self.roll(begins)
        self.put(StateChanged(id=self.ids(), time=begins, asset=self.asset, state=state, reason=reason, origin=origin))

    # -- what tags say -------------------------------------------------------------------------------------------

    def take(self, changes: Iterable[Change], now: int) -> None:
        """Take the changes of one step, in order of time; none of them is later than `now`."""
        for change in changes:
            time = min(change.time, now)
            match change.role:
                case "state":
                    self.report(time, self.options.states.get(str(change.value), MachineState.UNKNOWN))
                case "running":
                    self.report(time, MachineState.RUNNING if change.value else self.options.stopped_state)
                case "reason":
                    self._report_reason(time, self.options.reasons.get(str(change.value)))
                case "order":
                    self._change_order(time, str(change.value))
                case "product":
                    if change.value != self.product:
                        self.flush()
                        self.product = str(change.value)
                        self.dirty = True
                case "produced" | "good" | "rejected":
                    self._count(time, change)

    def report(self, time: int, state: MachineState) -> None:
        """The machine says in which state it is."""
        if state is self.reported and (self.entered or not self.lost):
            self.lost = False
            return
        if self.lost:
            time = max(time, self.watched_since)
        self.reported = state
        self.lost = self.entered = False
        reason = None if state in _NO_REASON else self.reported_reason
        if (state, reason) != (self.state, self.reason) or not self.states:
            self.set_state(time, state, reason, "plc")

    def _report_reason(self, time: int, reason: DowntimeReason | None) -> None:
        if reason is self.reported_reason:
            return
        self.reported_reason = reason
        if self.state in _NO_REASON or self.lost or reason is None or reason is self.reason:
            return
        self.set_state(time, self.state, reason, "plc", from_start=self.reason is None)

    def lose(self, time: int, origin: str = "gateway") -> None:
        """Nobody knows any more what the machine does, unless a person has said so."""
        if self.lost:
            return
        self.lost = True
        if self.state is not MachineState.UNKNOWN and not self.entered:
            self.set_state(time, MachineState.UNKNOWN, None, origin)

    def resume(self, time: int) -> None:
        """The machine is heard again and has not said anything else about its state."""
        if self.reported is not None:
            self.report(time, self.reported)

    def _change_order(self, time: int, order: str) -> None:
        if order == self.order:
            return
        self.flush()
        if self.order:
            self.put(OrderEnded(id=self.ids(), time=time, asset=self.asset, order=self.order))
        if order:
            self.put(OrderStarted(id=self.ids(), time=time, asset=self.asset, order=order, product=self.product))

    def _count(self, time: int, change: Change) -> None:
        if change.anomaly is not None:
            self._tell(time, change.role, change.anomaly)
            return
        if time >= self.boundary:
            self.flush()
            self.roll(time)
        if not self.states:
            # The counter is watched from here on, whatever the state is.
            self.set_state(max(time, self.watched_since), MachineState.UNKNOWN, None, "gateway")
        opened = self.shift.start if self.shift else 0
        if (time < opened) != (self.pending.time < opened):
            # A late count belongs to the shift before; it must not draw others along.
            self.flush()
        self.pending.count(change.role, float(change.value), time, self.options)

    def _tell(self, time: int, role: str, fault: Anomaly) -> None:
        key = {"id": self.ids(), "asset": self.asset, "tag": getattr(self.options, f"{role}_tag")}
        self.put(
            CounterAnomaly(
                time=time, before=fault.before, after=fault.after, anomaly=fault.kind, start=fault.start, **key
            )
        )

    def judge(self, now: int, monotonic: int) -> None:
        """Reject the parts that were not judged good in time."""
        self.pending.judge(now, monotonic, self.options)

    def flush(self) -> None:
        """Put the pending parts into events."""
        pending = self.pending
        if not pending.made and not pending.scrapped:
            return
        time, made, scrapped = pending.time, pending.made, pending.scrapped
        pending.made = pending.scrapped = 0.0
        asset, product, order = self.asset, self.product, self.order
        if made:
            self.put(PartsProduced(id=self.ids(), time=time, asset=asset, count=made, product=product, order=order))
        if scrapped:
            self.put(PartsRejected(id=self.ids(), time=time, asset=asset, count=scrapped, product=product, order=order))

    # -- across restarts -----------------------------------------------------------------------------------------

    def record(self) -> dict[str, Any]:
        """Return what the log does not hold, as JSON types; it belongs to the same commit as the last events."""
        opening = self._opening(self.shift.start if self.shift else self.since)
        return {
            **self.pending.record(),
            "order": self.order,
            "product": self.product,
            "reported": self.reported,
            "reported_reason": self.reported_reason,
            "lost": self.lost,
            "entered": self.entered,
            "opening": None if opening is None else to_record(opening),
        }

    def restore(self, events: Sequence[Event], record: dict[str, Any], now: int) -> None:
        """Rebuild from the log (in order, since the open shift began) and the record that was kept beside it.

        Raises UnknownEvent, KeyError, TypeError or ValueError when the record is not one of `record`.
        """
        opening = record.get("opening")
        if opening is not None:
            event = from_record(opening)
            if not isinstance(event, StateChanged):
                raise UnknownEvent(f"machine {self.options.name}: the kept opening state is a {event.kind}")
            if all(event.id != known.id for known in events):
                events = [event, *events]
        self.states = [event for event in events if isinstance(event, StateChanged)]
        self.corrections = [event for event in events if isinstance(event, Correction)][-CORRECTIONS_MAX:]
        self.anomalies = [event for event in events if isinstance(event, CounterAnomaly)][-ANOMALIES_MAX:]
        self.watched_since = now
        self._stand()
        self.reported = self.state if self.states else None
        self.boundary = 0
        self.roll(now)
        for event in events:
            self._count_again(event)
        if record:
            self._take_record(record)

    def restart(self, now: int) -> None:
        """Begin again at an earlier time: the clock was wrong, and what it wrote into the future does not hold."""
        self.flush()
        shift, parts = self.shift, self.account.parts if self.account else None
        self.states = [event for event in self.states if event.time <= now]
        self.corrections = [event for event in self.corrections if event.end <= now]
        self.anomalies = [event for event in self.anomalies if event.time <= now]
        self.watched_since = now
        self._stand()
        self.lost, self.entered = True, False
        self.boundary = 0
        self.roll(now)
        if self.shift == shift:
            self.rebuild(parts)

    def _stand(self) -> None:
        """Take the present state from the states in the log."""
        last = max(enumerate(self.states), key=lambda item: (item[1].time, item[0]), default=None)
        self.state, self.reason, self.since = MachineState.UNKNOWN, None, 0
        if last is not None:
            self.state, self.reason, self.since = last[1].state, last[1].reason, last[1].time
        self.lost = self.state is MachineState.UNKNOWN

    def _count_again(self, event: Event) -> None:
        account = self.account
        match event:
            case StateChanged():
                self.startup.state(event.time, event.state)
            case PartsProduced() if account is not None:
                account.produced(event)
            case PartsRejected() if account is not None:
                account.rejected(event, startup=self.startup.holds(event.time))
            case Correction() if account is not None:
                account.corrected(event)
            case OrderStarted():
                self.order, self.product = event.order, event.product or self.product
            case OrderEnded():
                self.order = ""

    def _take_record(self, record: dict[str, Any]) -> None:
        reported, reason = record["reported"], record["reported_reason"]
        pending = pending_from(record)
        self.reported = None if reported is None else MachineState(reported)
        self.reported_reason = None if reason is None else DowntimeReason(reason)
        self.lost, self.entered = bool(record["lost"]), bool(record["entered"])
        self.order, self.product = str(record["order"]), str(record["product"])
        self.pending = pending
