"""When a plant means to work: shifts, breaks, planned stops and special days in an IANA time zone.

Owns: the step from wall-clock rules to intervals of UTC nanoseconds. Leaves to others: what the machine did in them.

Rules:
- Wall-clock rules are resolved per local day, lengths are then taken in UTC. A night shift 22:00-06:00 in Berlin lasts
  7 h when summer time begins and 9 h when it ends.
- A local time that occurs twice means its first occurrence; one that does not exist is moved forward by the gap (02:30
  becomes 03:30): `fold=0` of PEP 495. A break keeps its nominal length on such days, a shift ends by the wall clock.
- A shift belongs to the local day on which it starts.
- Rules name assets by prefix; the longest prefix that holds an asset wins, so one line can differ from the plant.
- Two shifts never hold the same instant: a mistake is reported by `problems`, and resolved by clipping the later shift.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import combinations, pairwise
from typing import Final
from zoneinfo import ZoneInfo

from plant.assets import closest
from plant.instant import NS_PER_S

Interval = tuple[int, int]
"""[start, end) in ns UTC."""

MINUTES_PER_DAY: Final = 24 * 60
MINUTES_PER_WEEK: Final = 7 * MINUTES_PER_DAY
DAYS_MAX: Final = 4000
"""The longest stretch that one question may cover."""
LOOK_AHEAD_DAYS: Final = 32
"""How far `next_start` looks for the next shift."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def merged(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    """Return the union as ascending, disjoint, non-empty intervals."""
    result: list[Interval] = []
    for start, end in sorted(intervals):
        if end <= start:
            continue
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(result[-1][1], end))
        else:
            result.append((start, end))
    return tuple(result)


def minus(intervals: Sequence[Interval], holes: Iterable[Interval]) -> tuple[Interval, ...]:
    """Return `intervals` without `holes`."""
    left = merged(intervals)
    for hole_start, hole_end in merged(holes):
        pieces: list[Interval] = []
        for start, end in left:
            pieces += [(start, min(end, hole_start)), (max(start, hole_end), end)]
        left = merged(pieces)
    return left


def clipped(intervals: Iterable[Interval], start: int, end: int) -> tuple[Interval, ...]:
    """Return the parts of `intervals` inside [start, end)."""
    return merged((max(s, start), min(e, end)) for s, e in intervals)


def overlap_ns(intervals: Sequence[Interval], start: int, end: int) -> int:
    """Return how many ns of [start, end) lie inside disjoint `intervals`; 0 when end <= start."""
    total = 0
    for s, e in intervals:
        low, high = max(s, start), min(e, end)
        if high > low:
            total += high - low
    return total


@dataclass(frozen=True, slots=True)
class Period:
    """A stretch of time and the planned busy intervals in it (ascending, disjoint, inside [start, end))."""

    start: int
    end: int
    busy: tuple[Interval, ...]


@dataclass(frozen=True, slots=True)
class Break:
    """A pause in a shift; start, end: minutes after local midnight, 0..1440."""

    name: str
    start: int
    end: int

    @property
    def length(self) -> int:
        """Minutes by the clock on the wall."""
        return (self.end - self.start) % MINUTES_PER_DAY


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftRule:
    """A shift that recurs. start, end: minutes after local midnight; end <= start means the next day.

    days: weekdays on which it starts, Monday 0. assets: prefixes, empty for the whole site.
    """

    name: str
    start: int
    end: int
    days: frozenset[int] = frozenset(range(7))
    assets: tuple[str, ...] = ()
    breaks: tuple[Break, ...] = ()

    @property
    def length(self) -> int:
        """Minutes by the clock on the wall, 1..1440; equal start and end mean a whole day."""
        return (self.end - self.start) % MINUTES_PER_DAY or MINUTES_PER_DAY


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStop:
    """No production is planned from start to end (naive local times) on the assets."""

    start: datetime
    end: datetime
    reason: str
    assets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialDay:
    """On `day` exactly the named shifts start, whatever their weekdays say; no names: closed."""

    day: date
    name: str
    shifts: tuple[str, ...] = ()
    assets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Shift:
    """One shift on one day: [start, end) in ns UTC, and its planned busy time without breaks and planned stops."""

    name: str
    day: date
    start: int
    end: int
    busy: tuple[Interval, ...]

    @property
    def period(self) -> Period:
        """The shift as a period to fold events over."""
        return Period(self.start, self.end, self.busy)


@dataclass(frozen=True, slots=True)
class CalendarProblem:
    """A rule that cannot be meant. names: the shifts, breaks or stops that are involved."""

    what: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calendar:
    """The rules of a site. Without any shift rule production is planned round the clock, one shift "day" per day."""

    zone: ZoneInfo
    rules: tuple[ShiftRule, ...] = ()
    stops: tuple[PlannedStop, ...] = ()
    special_days: tuple[SpecialDay, ...] = ()

    def shifts(self, asset: str, start: int, end: int) -> list[Shift]:
        """Return the shifts of `asset` that touch [start, end), ascending and disjoint.

        Raises ValueError when the stretch is longer than DAYS_MAX days.
        """
        stops = self._stops(asset)
        found: list[Shift] = []
        latest = start - 2 * MINUTES_PER_DAY * 60 * NS_PER_S
        for rule, day, shift_start, shift_end in self._occurrences(asset, start, end):
            begin = max(shift_start, latest)
            if shift_end <= begin:
                continue
            latest = shift_end
            if shift_end > start and begin < end:
                pauses = self._breaks(rule, day)
                found.append(
                    Shift(rule.name, day, begin, shift_end, minus([(begin, shift_end)], [*pauses, *stops])),
                )
        return found

    def at(self, asset: str, time: int) -> Shift | None:
        """Return the shift that holds `time`, None between shifts."""
        return next(iter(self.shifts(asset, time, time + 1)), None)

    def next_start(self, asset: str, time: int) -> int | None:
        """Return when the first shift after `time` starts, None when none does within LOOK_AHEAD_DAYS."""
        horizon = time + LOOK_AHEAD_DAYS * MINUTES_PER_DAY * 60 * NS_PER_S
        return next((shift.start for shift in self.shifts(asset, time, horizon) if shift.start > time), None)

    def busy(self, asset: str, start: int, end: int) -> tuple[Interval, ...]:
        """Return the planned busy intervals inside [start, end)."""
        return clipped((piece for shift in self.shifts(asset, start, end) for piece in shift.busy), start, end)

    def period(self, asset: str, start: int, end: int) -> Period:
        """Return any stretch (a day, a week, an order) as a period to fold events over."""
        return Period(start, end, self.busy(asset, start, end))

    def utc_ns(self, local: datetime) -> int:
        """Return the instant of a naive local time in ns UTC (first of two; moved forward if it does not exist)."""
        since = local.replace(tzinfo=self.zone, fold=0).astimezone(UTC) - _EPOCH
        return (since.days * 86_400 + since.seconds) * NS_PER_S + since.microseconds * 1000

    def _rules(self, asset: str) -> list[ShiftRule]:
        """Return the rules with the longest prefix that holds `asset`."""
        if not self.rules:
            return [ShiftRule(name="day", start=0, end=0)]
        ranked = [(closest(asset, rule.assets), rule) for rule in self.rules]
        best = max((rank for rank, _ in ranked), default=-1)
        return [rule for rank, rule in ranked if rank == best >= 0]

    def _stops(self, asset: str) -> list[Interval]:
        return [(self.utc_ns(s.start), self.utc_ns(s.end)) for s in self.stops if closest(asset, s.assets) >= 0]

    def _rules_on(self, day: date, rules: Sequence[ShiftRule], asset: str) -> list[ShiftRule]:
        """Return the rules of `rules` that start a shift on `day`."""
        special = max(
            (s for s in self.special_days if s.day == day and closest(asset, s.assets) >= 0),
            key=lambda s: closest(asset, s.assets),
            default=None,
        )
        regular = [rule for rule in rules if day.weekday() in rule.days]
        if special is None:
            return regular
        chosen: list[ShiftRule] = []
        for name in special.shifts:
            same_name = [r for r in regular if r.name == name] or [r for r in rules if r.name == name][:1]
            chosen += same_name
        return chosen

    def _occurrences(self, asset: str, start: int, end: int) -> list[tuple[ShiftRule, date, int, int]]:
        """Return (rule, day, start, end) of every shift that may touch [start, end), by start, not yet clipped."""
        first = datetime.fromtimestamp(start // NS_PER_S, self.zone).date() - timedelta(days=2)
        last = datetime.fromtimestamp(end // NS_PER_S, self.zone).date()
        if (last - first).days > DAYS_MAX:
            raise ValueError(f"a calendar answers for at most {DAYS_MAX} days at a time, asked for {last - first}")
        rules = self._rules(asset)
        found: list[tuple[ShiftRule, date, int, int]] = []
        for ahead in range((last - first).days + 1):
            day = first + timedelta(days=ahead)
            for rule in self._rules_on(day, rules, asset):
                opens = datetime.combine(day, datetime.min.time()) + timedelta(minutes=rule.start)
                closes = opens + timedelta(minutes=rule.length)
                found.append((rule, day, self.utc_ns(opens), self.utc_ns(closes)))
        return sorted(found, key=lambda item: (item[2], item[3]))

    def _breaks(self, rule: ShiftRule, day: date) -> list[Interval]:
        opens = datetime.combine(day, datetime.min.time()) + timedelta(minutes=rule.start)
        pauses: list[Interval] = []
        for pause in rule.breaks:
            begin = self.utc_ns(opens + timedelta(minutes=(pause.start - rule.start) % MINUTES_PER_DAY))
            pauses.append((begin, begin + pause.length * 60 * NS_PER_S))
        return pauses

    def problems(self) -> list[CalendarProblem]:
        """Return every rule that cannot be meant: overlaps, breaks outside their shift, unknown names, empty stops."""
        found = [problem for rule in self.rules for problem in _break_problems(rule)]
        prefixes = sorted({prefix for rule in self.rules for prefix in (rule.assets or ("",))})
        for prefix in prefixes:
            rules = [rule for rule in self.rules if prefix in (rule.assets or ("",))]
            found += [_overlap(a, b, prefix) for a, b in combinations(rules, 2) if _weekly_overlap(a, b)]
            if not found:
                found += self._special_day_overlaps(prefix)
        found += self._stop_problems()
        found += self._special_day_problems()
        return list(dict.fromkeys(found))

    def _special_day_overlaps(self, asset: str) -> list[CalendarProblem]:
        """Find shifts that overlap only because a special day moved one of them."""
        found = []
        for special in self.special_days:
            noon = self.utc_ns(datetime.combine(special.day, datetime.min.time()) + timedelta(hours=12))
            day_ns = 86_400 * NS_PER_S
            shifts = self._occurrences(asset, noon - day_ns, noon + day_ns)
            for (a, _, _, a_end), (b, _, b_start, _) in pairwise(shifts):
                # A clock change can make neighbours touch by its own length; that is resolved by clipping.
                if a_end - b_start > 3600 * NS_PER_S:
                    what = f'shifts "{a.name}" and "{b.name}" overlap around the special day {special.day}'
                    found.append(CalendarProblem(what, (a.name, b.name, special.name)))
        return found

    def _stop_problems(self) -> list[CalendarProblem]:
        found = [
            CalendarProblem(f'planned stop "{s.reason}" ends at {s.end}, not after its start {s.start}', (s.reason,))
            for s in self.stops
            if s.end <= s.start
        ]
        for a, b in combinations(self.stops, 2):
            if set(a.assets or ("",)) & set(b.assets or ("",)) and a.start < b.end and b.start < a.end:
                what = f'planned stops "{a.reason}" ({a.start}) and "{b.reason}" ({b.start}) overlap'
                found.append(CalendarProblem(what, (a.reason, b.reason)))
        return found

    def _special_day_problems(self) -> list[CalendarProblem]:
        known = {rule.name for rule in self.rules} or {"day"}
        found = [
            CalendarProblem(
                f'special day {s.day} "{s.name}" names a shift "{name}" that does not exist', (s.name, name)
            )
            for s in self.special_days
            for name in s.shifts
            if name not in known
        ]
        for a, b in combinations(self.special_days, 2):
            if a.day == b.day and set(a.assets or ("",)) & set(b.assets or ("",)):
                found.append(
                    CalendarProblem(f'special day {a.day} is given twice: "{a.name}", "{b.name}"', (a.name, b.name))
                )
        return found


def _weekly_spans(rule: ShiftRule) -> list[tuple[int, int]]:
    return [(d * MINUTES_PER_DAY + rule.start, d * MINUTES_PER_DAY + rule.start + rule.length) for d in rule.days]


def _weekly_overlap(a: ShiftRule, b: ShiftRule) -> bool:
    """Compare two rules on the circle of one week, by the clock on the wall."""
    return any(
        a_start < b_end + turn and b_start + turn < a_end
        for a_start, a_end in _weekly_spans(a)
        for b_start, b_end in _weekly_spans(b)
        for turn in (-MINUTES_PER_WEEK, 0, MINUTES_PER_WEEK)
    )


def _overlap(a: ShiftRule, b: ShiftRule, prefix: str) -> CalendarProblem:
    one, other = (f'"{rule.name}" ({clock(rule.start)}-{clock(rule.end)})' for rule in (a, b))
    return CalendarProblem(f"shifts {one} and {other} overlap on {prefix or 'the whole site'}", (a.name, b.name))


def _break_problems(rule: ShiftRule) -> list[CalendarProblem]:
    found = []
    spans = [(b, (b.start - rule.start) % MINUTES_PER_DAY) for b in rule.breaks]
    for pause, offset in spans:
        if pause.length == 0:
            found.append(
                CalendarProblem(f'break "{pause.name}" of shift "{rule.name}" is empty', (rule.name, pause.name))
            )
        elif offset + pause.length > rule.length:
            what = (
                f'break "{pause.name}" ({clock(pause.start)}-{clock(pause.end)}) lies outside its shift "{rule.name}" '
                f"({clock(rule.start)}-{clock(rule.end)})"
            )
            found.append(CalendarProblem(what, (rule.name, pause.name)))
    for (a, a_offset), (b, b_offset) in combinations(spans, 2):
        if a_offset < b_offset + b.length and b_offset < a_offset + a.length:
            what = f'breaks "{a.name}" and "{b.name}" of shift "{rule.name}" overlap'
            found.append(CalendarProblem(what, (rule.name, a.name, b.name)))
    return found


def clock(minutes: int) -> str:
    """Return minutes after midnight as "06:00"."""
    return f"{minutes // 60:02d}:{minutes % 60:02d}"
