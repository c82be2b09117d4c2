"""Limits: turns readings into edges of conditions. Knows nothing of delays, acknowledgement or people.

Every channel (a tag's value, or the rate of change of a tag) has a *quiet band*, the interval of values at which none
of the conditions that look at it would change. The band is the intersection over its watches and moves only when one
of them flips. So a step over n readings costs a handful of array operations, whatever the number of rules, and sees
every reading: a row outside its band is an edge (or moves a band); all others can change nothing, in whatever number
and order they come. Only the rows of channels with such a row are walked in Python.

Rules: the rows of one tag stand in the order in which they were read; rows of different tags are walked by source time,
never against that order (clocks of devices may step). A value that is not GOOD, or NaN, changes no process condition.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge.alarms.rules import AlarmRule
from edge.alarms.silence import Silence
from edge.alarms.timers import NEVER
from edge.alarms.watch import ANYTHING, NOTHING, Edge, Watch
from plant.batch import BAD, GOOD, Batch
from plant.instant import NS_PER_S
from plant.tags import TagTable

_OPERATORS: Final = {"HH": ">", "H": ">", "LL": "<", "L": "<", "deviation": "away", "rate": ">", "discrete": "=="}


class Knowledge(NamedTuple):
    """What limits know of tags, by tag index: columns that outlive a change of the rules.

    last: value (NaN = none yet). rate_value, rate_time: the last good reading of tags with a rate rule.
    arrived: monotonic ns, empty where nobody noted it.
    """

    last: NDArray[np.float64]
    not_good: NDArray[np.bool_]
    rate_value: NDArray[np.float64]
    rate_time: NDArray[np.int64]
    arrived: NDArray[np.int64]


class Limits:
    """The conditions of all rules, fed with batches. `due`: monotonic ns at which silence must be looked for."""

    def __init__(self, rules: Sequence[AlarmRule], table: TagTable) -> None:
        self.rules = tuple(rules)
        size = table.size
        rate_tags = sorted({table[r.tag].index for r in rules if r.condition == "rate"})
        channels = size + len(rate_tags)
        self.due = NEVER
        self._size = size
        self._low = np.full(channels, -np.inf)
        self._high = np.full(channels, np.inf)
        self._low_of_tag = self._low[:size]
        self._high_of_tag = self._high[:size]
        self._last = np.full(channels, np.nan)
        self._marked = np.zeros(channels, np.bool_)
        self._watches: dict[int, list[Watch]] = defaultdict(list)
        self._centres: dict[int, list[Watch]] = defaultdict(list)
        self._watch_of: dict[int, Watch] = {}
        self._suppression_of: dict[int, Watch] = {}
        self._not_good: NDArray[np.bool_] = np.zeros(size, np.bool_)
        self._any_not_good = False
        self._quality_rules: dict[int, list[int]] = defaultdict(list)
        self._quality_watched: NDArray[np.bool_] = np.zeros(size, np.bool_)
        self._quality_holds: dict[int, bool] = {}
        self._rate_channel: NDArray[np.intp] = np.full(size, -1, np.intp)
        self._rate_channel[rate_tags] = np.arange(size, channels)
        self._rates_wanted = bool(rate_tags)
        self._rate_value = np.full(size, np.nan)
        self._rate_time: NDArray[np.int64] = np.zeros(size, np.int64)
        self._slot: NDArray[np.intp] = np.zeros(size, np.intp)
        self._tag_of: list[int] = []
        self._build(rules, table)
        self._silence = Silence(rules, table)
        if self._silence:
            self.due = 0

    def _build(self, rules: Sequence[AlarmRule], table: TagTable) -> None:
        for i, rule in enumerate(rules):
            tag = table[rule.tag].index
            self._tag_of.append(tag)
            if rule.suppress_when is not None:
                expression = rule.suppress_when
                channel = table[expression.tag].index
                watch = Watch(i, channel, expression.op, expression.number, suppression=True)
                self._watches[channel].append(watch)
                self._suppression_of[i] = watch
            if rule.condition == "bad_quality":
                self._quality_rules[tag].append(i)
                self._quality_watched[tag] = True
                self._quality_holds[i] = False
            op = _OPERATORS.get(rule.condition)
            if op is None:
                continue
            channel = int(self._rate_channel[tag]) if rule.condition == "rate" else tag
            watch = Watch(i, channel, op, rule.limit)
            watch.deadband = rule.deadband
            if isinstance(rule.setpoint, str):
                self._centres[table[rule.setpoint].index].append(watch)
            elif rule.setpoint is not None:
                watch.centre = rule.setpoint
            self._watches[channel].append(watch)
            self._watch_of[i] = watch
        for channel in self._watches.keys() | self._centres.keys():
            self._quieten(channel)

    def good(self, rule: int) -> bool:
        """Return whether the last reading of the rule's tag was of good quality (or there was none)."""
        return not self._not_good[self._tag_of[rule]]

    def holds(self, rule: int) -> bool:
        """Return whether the rule's own condition holds as far as is known."""
        watch = self._watch_of.get(rule)
        if watch is not None:
            return bool(watch.holds)
        return self._quality_holds.get(rule, False) or self._silence.holds(rule)

    def suppression(self, rule: int) -> bool:
        """Return whether the rule's suppress_when holds as far as is known."""
        watch = self._suppression_of.get(rule)
        return watch is not None and bool(watch.holds)

    def assume(self, rule: int, *, holds: bool, suppressed: bool | None = None) -> None:
        """Set what is known of a rule from before a restart; the next reading confirms or ends it."""
        watch = self._watch_of.get(rule)
        if watch is not None:
            watch.holds = holds
            self._quieten(watch.channel)
        elif rule in self._quality_holds:
            self._quality_holds[rule] = holds
            if holds:
                self._not_good[self._tag_of[rule]] = True
                self._any_not_good = True
        else:
            self._silence.assume(rule, holds=holds)
        expression = self._suppression_of.get(rule)
        if expression is not None and suppressed is not None:
            expression.holds = suppressed
            self._quieten(expression.channel)

    @property
    def knowledge(self) -> "Knowledge":
        """What is known of the tags, by tag index."""
        return Knowledge(self._last, self._not_good, self._rate_value, self._rate_time, self._silence.arrived)

    def inherit(self, old: "Limits") -> None:
        """Take over what another set of limits knows of the tags (their indices are for life)."""
        known = old.knowledge
        n = min(self._size, len(known.not_good))
        self._last[:n] = known.last[:n]
        self._not_good[:n] = known.not_good[:n]
        self._rate_value[:n] = known.rate_value[:n]
        self._rate_time[:n] = known.rate_time[:n]
        self._any_not_good = bool(self._not_good.any())
        self._silence.inherit(known.arrived[:n])
        for tag, watches in self._centres.items():
            for watch in watches:
                watch.centre = float(self._last[tag])
        for channel in self._watches.keys() | self._centres.keys():
            self._quieten(channel)

    def review(self) -> list[Edge]:
        """Judge every rule by the last known value: after a reload, a tag that seldom changes must count at once."""
        edges: list[Edge] = []
        for channel in sorted(self._watches):
            v = float(self._last[channel])
            if channel < self._size and not math.isnan(v) and not self._not_good[channel]:
                self._judge(channel, v, 0, edges)
        for tag, rules in self._quality_rules.items():
            self._flip_quality(rules, holds=bool(self._not_good[tag]), value=math.nan, time=0, edges=edges)
        return edges

    def observe(self, readings: Batch, monotonic: int) -> list[Edge]:
        """Take the readings of one step; return the edges they make, in order."""
        edges: list[Edge] = []
        self._silence.start(monotonic)
        if len(readings):
            self._read(readings, monotonic, edges)
        if monotonic >= self.due:
            self.due = self._silence.listen(monotonic, edges)
        return edges

    def _read(self, readings: Batch, monotonic: int, edges: list[Edge]) -> None:
        index = readings.tag.astype(np.intp)
        value, time = readings.value, readings.time
        try:
            low = self._low_of_tag.take(index)
        except IndexError:  # a tag that this configuration does not know: no rule can look at it
            known = index < self._size
            if known.any():
                self._read(readings.select(known), monotonic, edges)
            return
        good = readings.quality == GOOD
        good &= ~np.isnan(value)  # NaN is no value, whatever its quality says
        all_good = np.count_nonzero(good) == len(index)
        hit = value < low
        hit |= value > self._high_of_tag.take(index)
        if not all_good:
            hit &= good
        if self._silence:
            heard = index if all_good else index[readings.quality != BAD]  # a BAD reading is no sign of life
            self.due = min(self.due, self._silence.arrive(heard, monotonic, edges))
        if self._any_not_good or not all_good:
            self._judge_quality(index, value, time, good, edges)
        rate = self._rates(index, value, time, good) if self._rates_wanted else None
        if np.count_nonzero(hit) or rate is not None:
            self._walk(index, value, time, good, hit, rate, edges)
        if all_good:
            self._last[index] = value
        else:
            self._last[index[good]] = value[good]

    def _judge_quality(
        self,
        index: NDArray[np.intp],
        value: NDArray[np.float64],
        time: NDArray[np.int64],
        good: NDArray[np.bool_],
        edges: list[Edge],
    ) -> None:
        changed = good == self._not_good.take(index)
        if not np.count_nonzero(changed):
            return
        watched = index[changed & self._quality_watched.take(index)]
        if len(watched):
            self._marked[watched] = True
            rows = np.flatnonzero(self._marked.take(index))
            self._marked[watched] = False
            columns = (index[rows].tolist(), value[rows].tolist(), time[rows].tolist(), good[rows].tolist())
            for tag, v, t, is_good in zip(*columns, strict=True):
                self._flip_quality(self._quality_rules[tag], holds=not is_good, value=v, time=t, edges=edges)
        self._not_good[index] = ~good
        self._any_not_good = bool(self._not_good.any())

    def _flip_quality(self, rules: list[int], *, holds: bool, value: float, time: int, edges: list[Edge]) -> None:
        for rule in rules:
            if self._quality_holds[rule] is not holds:
                self._quality_holds[rule] = holds
                edges.append(Edge(rule, holds, value, time))

    def _rates(
        self,
        index: NDArray[np.intp],
        value: NDArray[np.float64],
        time: NDArray[np.int64],
        good: NDArray[np.bool_],
    ) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]] | None:
        """Return (rows, their rate channels, rates per second) of all rows of channels that left their band.

        A rate is taken between successive good readings of a tag; where source time did not advance there is none.
        """
        channel = self._rate_channel.take(index)
        rows = np.flatnonzero((channel >= 0) & good & np.isfinite(value))
        if not len(rows):
            return None
        tags, v, t, channel = index[rows], value[rows], time[rows], channel[rows]
        v_before, t_before = self._rate_value.take(tags), self._rate_time.take(tags)
        order = np.arange(len(rows))
        self._slot[tags] = order
        if np.count_nonzero(self._slot.take(tags) != order):  # a tag stands more than once in the batch
            order = np.argsort(tags, kind="stable")
            again = tags[order[1:]] == tags[order[:-1]]
            v_before[order[1:][again]] = v[order[:-1][again]]
            t_before[order[1:][again]] = t[order[:-1][again]]
        self._rate_value[tags] = v
        self._rate_time[tags] = t
        passed = (t - t_before).astype(np.float64)
        passed[passed <= 0] = np.nan
        with np.errstate(over="ignore"):
            rate = np.abs(v - v_before) / passed * NS_PER_S
        hit = (rate < self._low.take(channel)) | (rate > self._high.take(channel))
        if not np.count_nonzero(hit):
            return None
        hot = channel[hit]
        self._marked[hot] = True
        chosen = self._marked.take(channel) & ~np.isnan(rate)
        self._marked[hot] = False
        return rows[chosen], channel[chosen], rate[chosen]

    def _walk(
        self,
        index: NDArray[np.intp],
        value: NDArray[np.float64],
        time: NDArray[np.int64],
        good: NDArray[np.bool_],
        hit: NDArray[np.bool_],
        rate: tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]] | None,
        edges: list[Edge],
    ) -> None:
        """Go through the rows of every channel that left its band, one by one."""
        hot = set(index[hit].tolist())
        for tag in tuple(hot):
            hot.update(watch.channel for watch in self._centres.get(tag, ()))
        chosen = np.fromiter(hot, np.intp, len(hot))
        self._marked[chosen] = True
        rows = np.flatnonzero(self._marked.take(index) & good)
        self._marked[chosen] = False
        channels, values = index[rows], value[rows]
        if rate is not None:
            rows = np.concatenate([rows, rate[0]])
            channels = np.concatenate([channels, rate[1]])
            values = np.concatenate([values, rate[2]])
        found = list(
            zip(
                rows.tolist(),
                channels.tolist(),
                values.tolist(),
                time[rows].tolist(),
                index[rows].tolist(),
                strict=True,
            )
        )
        if len(found) > 1:
            found = _in_order(found)
        low, high = self._low, self._high
        for _, channel, v, t, _ in found:
            if not low.item(channel) <= v <= high.item(channel):
                self._judge(channel, v, t, edges)
            self._last[channel] = v

    def _judge(self, channel: int, v: float, time: int, edges: list[Edge]) -> None:
        """Judge all watches of a channel at `v` and move its quiet band."""
        for watch in self._watches.get(channel, ()):
            self._decide(watch, v, time, edges)
        for watch in self._centres.get(channel, ()):
            watch.centre = v
            main = watch.channel
            last = float(self._last[main])
            # A setpoint that moves must not raise an alarm on a value that is doubtful or was never seen.
            if not self._not_good[main] and not math.isnan(last):
                self._decide(watch, last, time, edges)
                self._quieten(main)
            else:
                self._low[main], self._high[main] = NOTHING
        self._quieten(channel, v)

    def _decide(self, watch: Watch, v: float, time: int, edges: list[Edge]) -> None:
        holds = watch.judge(v)
        if holds is not None and holds is not watch.holds:
            watch.holds = holds
            edges.append(Edge(watch.rule, holds, v, time, watch.suppression))

    def _quieten(self, channel: int, v: float | None = None) -> None:
        """Compute the quiet band of a channel at its present value."""
        if v is None:
            v = float(self._last[channel])
        low, high = ANYTHING
        for watch in self._watches.get(channel, ()):
            band = watch.band(v)
            low, high = max(low, band[0]), min(high, band[1])
        if channel in self._centres:
            # Every change of a setpoint moves the limits of the alarms that follow it.
            low, high = NOTHING if math.isnan(v) else (max(low, v), min(high, v))
        self._low[channel] = low
        self._high[channel] = high


def _in_order(found: list[tuple[int, int, float, int, int]]) -> list[tuple[int, int, float, int, int]]:
    """Sort (row, channel, value, time, tag) by source time, but keep each tag's own order of rows."""
    found.sort()
    latest: dict[int, int] = {}
    keyed = []
    for item in found:
        tag = item[4]
        latest[tag] = max(item[3], latest.get(tag, item[3]))
        keyed.append((latest[tag], item))
    keyed.sort()
    return [item for _, item in keyed]
