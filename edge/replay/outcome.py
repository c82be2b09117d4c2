"""What came of a run: which alarms, when, how long; OEE per shift and machine; readings kept; how two runs differ."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from edge.config import Config
from edge.production import calendar_of
from plant.calendar import Shift
from plant.events import (
    AlarmTransition,
    Correction,
    CounterAnomaly,
    Event,
    PartsProduced,
    PartsRejected,
    StateChanged,
)
from plant.instant import NS_PER_S
from plant.oee import fold, kpis

EVENTS_MAX: Final = 200_000
"""Events of a machine that are kept before the shifts that are over are folded."""
LATE_NS: Final = 120 * NS_PER_S
"""Parts of a shift may become events this long after it."""
SAME_S: Final = 0.1
"""Two durations that differ by less are the same."""
SAME_OEE: Final = 1e-9
_OF_MACHINES: Final = (StateChanged, PartsProduced, PartsRejected, Correction, CounterAnomaly)


@dataclass(frozen=True, slots=True)
class Activation:
    """One occurrence of an alarm. start, end: ns UTC; end 0 = it still stood at the end."""

    start: int
    end: int
    value: float | None
    limit: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmResult:
    """An alarm that occurred. until: when the run ended, ns UTC: as long as a standing alarm has lasted so far."""

    alarm: str
    asset: str
    priority: str
    tag: str
    message: str
    until: int
    activations: tuple[Activation, ...]

    @property
    def count(self) -> int:
        return len(self.activations)

    @property
    def standing(self) -> bool:
        return self.activations[-1].end == 0

    @property
    def durations_s(self) -> tuple[float, ...]:
        return tuple(((a.end or self.until) - a.start) / NS_PER_S for a in self.activations)

    @property
    def total_s(self) -> float:
        return sum(self.durations_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftResult:
    """A machine in a shift, as far as it was recorded. start, end, until: ns UTC. KPIs: fractions, None = unknown."""

    machine: str
    asset: str
    shift: str
    start: int
    end: int
    until: int
    availability: float | None
    performance: float | None
    quality: float | None
    oee: float | None
    produced: float
    rejected: float
    unknown_s: float
    unobserved_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """rows: in the recording. computed: of tags that the gateway computes: they are computed again. used: of tags that
    the configuration reads. kept: that would be stored.

    by_tag: name -> (used, kept). ignored: names of the recording that the configuration does not have. missing: tags
    of the configuration that the recording does not have.
    """

    rows: int
    computed: int
    used: int
    kept: int
    by_tag: Mapping[str, tuple[int, int]]
    ignored: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A run of [start, end] (ns UTC, first and last row) through the configuration in `folder`."""

    folder: str
    start: int
    end: int
    readings: Readings
    alarms: tuple[AlarmResult, ...]
    shifts: tuple[ShiftResult, ...]
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmDifference:
    alarm: str
    count_a: int
    count_b: int
    total_s_a: float
    total_s_b: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftDifference:
    """a, b: the same machine and shift in either run, None where it is not."""

    a: ShiftResult | None
    b: ShiftResult | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """only_a, only_b: alarms that occurred in one run only. changed: in both, but not as often or as long."""

    only_a: tuple[AlarmResult, ...]
    only_b: tuple[AlarmResult, ...]
    changed: tuple[AlarmDifference, ...]
    shifts: tuple[ShiftDifference, ...]
    kept_a: int
    kept_b: int

    @property
    def any(self) -> bool:
        return bool(self.only_a or self.only_b or self.changed or self.shifts or self.kept_a != self.kept_b)


def compare(a: Outcome, b: Outcome) -> Differences:
    """Return how two runs of one recording differ."""
    of_a, of_b = {r.alarm: r for r in a.alarms}, {r.alarm: r for r in b.alarms}
    shifts_a, shifts_b = {_key(s): s for s in a.shifts}, {_key(s): s for s in b.shifts}
    return Differences(
        only_a=tuple(result for name, result in of_a.items() if name not in of_b),
        only_b=tuple(result for name, result in of_b.items() if name not in of_a),
        changed=tuple(
            AlarmDifference(
                alarm=name,
                count_a=of_a[name].count,
                count_b=of_b[name].count,
                total_s_a=of_a[name].total_s,
                total_s_b=of_b[name].total_s,
            )
            for name in sorted(of_a.keys() & of_b.keys())
            if of_a[name].count != of_b[name].count or abs(of_a[name].total_s - of_b[name].total_s) > SAME_S
        ),
        shifts=tuple(
            ShiftDifference(a=shifts_a.get(key), b=shifts_b.get(key))
            for key in sorted(shifts_a.keys() | shifts_b.keys())
            if not _same(shifts_a.get(key), shifts_b.get(key))
        ),
        kept_a=a.readings.kept,
        kept_b=b.readings.kept,
    )


def _key(result: ShiftResult) -> tuple[int, str, str]:
    return result.start, result.machine, result.shift


def _same(a: ShiftResult | None, b: ShiftResult | None) -> bool:
    if a is None or b is None:
        return False
    pairs = (
        (a.oee, b.oee), (a.availability, b.availability), (a.performance, b.performance), (a.quality, b.quality),
        (a.produced, b.produced), (a.rejected, b.rejected),
    )  # fmt: skip
    return all(x == y or (x is not None and y is not None and abs(x - y) <= SAME_OEE) for x, y in pairs)


@dataclass(slots=True)
class _Log:
    """The events of one alarm so far: its last transition and its activations."""

    last: AlarmTransition
    done: list[Activation] = field(default_factory=list)
    open: Activation | None = None


class Fold:
    """Gathers what follows from the events of a run."""

    def __init__(self, config: Config, first: int, last: int) -> None:
        calendar = calendar_of(config.shifts, config.file.site.time_zone)
        self._machines = config.file.machine
        self._due: dict[str, list[Shift]] = {
            machine.name: calendar.shifts(machine.asset, first, last + 1) for machine in self._machines
        }
        self._assets = {machine.asset for machine in self._machines}
        self._events: dict[str, list[Event]] = defaultdict(list)
        self._shifts: list[ShiftResult] = []
        self._alarms: dict[str, _Log] = {}
        self._end = 0

    def take(self, events: Iterable[Event], now: int) -> None:
        """Take the events of a step at `now` (ns UTC)."""
        for event in events:
            if isinstance(event, AlarmTransition):
                self._alarm(event)
            elif isinstance(event, _OF_MACHINES) and event.asset in self._assets:
                log = self._events[event.asset]
                log.append(event)
                if len(log) >= EVENTS_MAX:
                    self._settle(now)

    def close(self, now: int) -> None:
        """The run ended at `now` (ns UTC): fold what is open."""
        self._end = now
        for machine in self._machines:
            for shift in self._due.pop(machine.name):
                self._fold(machine.name, shift, now)

    def alarms(self) -> tuple[AlarmResult, ...]:
        """Return the alarms that occurred, by name."""
        return tuple(
            AlarmResult(
                alarm=name,
                asset=log.last.asset,
                priority=log.last.priority,
                tag=log.last.tag,
                message=log.last.message,
                until=self._end,
                activations=tuple(log.done + ([log.open] if log.open else [])),
            )
            for name, log in sorted(self._alarms.items())
            if log.done or log.open
        )

    def shifts(self) -> tuple[ShiftResult, ...]:
        """Return machines and shifts in order of time."""
        return tuple(sorted(self._shifts, key=_key))

    def _alarm(self, event: AlarmTransition) -> None:
        log = self._alarms.setdefault(event.alarm, _Log(event))
        log.last = event
        if event.transition == "activate":
            log.open = Activation(event.time, 0, event.value, event.limit)
        elif not event.active and log.open is not None:
            log.done.append(Activation(log.open.start, event.time, log.open.value, log.open.limit))
            log.open = None

    def _settle(self, now: int) -> None:
        """Fold the shifts that are surely over and forget their events; of the past only the last state is needed."""
        for machine in self._machines:
            due = self._due[machine.name]
            while due and now >= due[0].end + LATE_NS:
                self._fold(machine.name, due.pop(0), now)
        for asset, log in self._events.items():
            begins = min((self._begin(machine.name) for machine in self._machines if machine.asset == asset), default=0)
            states = [event for event in log if isinstance(event, StateChanged) and event.time <= begins]
            self._events[asset] = states[-1:] + [event for event in log if event.time > begins]

    def _begin(self, machine: str) -> int:
        due: Sequence[Shift] = self._due[machine]
        return due[0].start if due else 0

    def _fold(self, name: str, shift: Shift, now: int) -> None:
        machine = next(machine for machine in self._machines if machine.name == name)
        until = min(shift.end, now)
        elements = fold(self._events[machine.asset], machine.asset, shift.period, machine.rating, until)
        figures = kpis(elements)
        self._shifts.append(
            ShiftResult(
                machine=name,
                asset=machine.asset,
                shift=shift.name,
                start=shift.start,
                end=shift.end,
                until=until,
                availability=figures.availability,
                performance=figures.performance,
                quality=figures.quality,
                oee=figures.oee,
                produced=elements.pq,
                rejected=elements.rq,
                unknown_s=elements.unknown / NS_PER_S,
                unobserved_s=elements.unobserved / NS_PER_S,
            )
        )
