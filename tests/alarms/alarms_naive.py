"""Alarm evaluation as one would write it first: every reading, every rule, one after the other. The reference."""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass

from edge.alarms import AlarmRule
from plant.batch import BAD, GOOD, Batch
from plant.instant import NS_PER_S
from plant.tags import TagTable

OPERATORS = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


@dataclass
class Judged:
    holds: bool = False
    active: bool = False
    due: int | None = None
    waiting: bool = False
    suppressed: bool = False


class Naive:
    """step() returns (alarm, transition, annunciated) in the order in which they happen for each alarm."""

    def __init__(self, rules: Sequence[AlarmRule], table: TagTable) -> None:
        self.rules = rules
        self.table = table
        self.of = {rule.name: Judged() for rule in rules}
        self.value: dict[str, float] = {}
        self.rate: dict[str, tuple[float, int]] = {}
        self.good: dict[str, bool] = {}
        self.heard: dict[str, int] = {}
        self.started: int | None = None
        self.out: list[tuple[str, str, bool]] = []

    def step(self, batch: Batch, now: int) -> list[tuple[str, str, bool]]:
        self.out = []
        if self.started is None:
            self.started = now
        self._timers(now)
        names = [self.table.by_index[i].name for i in batch.tag.tolist()]
        rows = [
            (name, time, value, BAD + 1 if quality != BAD and math.isnan(value) else quality)
            for name, time, value, quality in zip(
                names, batch.time.tolist(), batch.value.tolist(), batch.quality.tolist(), strict=True
            )
        ]
        for name, _, _, quality in rows:
            if quality != BAD:
                self.heard[name] = now
        for rule in self.rules:
            if rule.condition == "stale" and self.of[rule.name].holds and self.heard.get(rule.tag) == now:
                self._edge(rule, False, now)
        for name, _, _, quality in rows:
            self.good[name] = quality == GOOD
            for rule in self.rules:
                if rule.condition == "bad_quality" and rule.tag == name:
                    self._edge(rule, quality != GOOD, now)
        for name, time, value in _ordered(rows):
            self._value(name, time, value, now)
        for rule in self.rules:
            if rule.condition == "stale":
                limit = self.table[rule.tag].stale_after_ns if math.isnan(rule.limit) else rule.limit * NS_PER_S
                if now - self.heard.get(rule.tag, self.started) > limit:
                    self._edge(rule, True, now)
        for rule in self.rules:
            if self.of[rule.name].waiting and self.good.get(rule.tag, True):
                self._toggle(rule)
        return self.out

    def _timers(self, now: int) -> None:
        due = [(j.due, r.name, r) for r in self.rules if (j := self.of[r.name]).due is not None and j.due <= now]
        for _, _, rule in sorted(due, key=lambda item: item[:2]):
            judged = self.of[rule.name]
            judged.due = None
            if rule.condition not in {"stale", "bad_quality"} and not self.good.get(rule.tag, True):
                judged.waiting = True
            else:
                self._toggle(rule)

    def _value(self, name: str, time: int, value: float, now: int) -> None:
        for rule in self.rules:
            judged = self.of[rule.name]
            expression = rule.suppress_when
            if expression is not None and expression.tag == name:
                suppressed = OPERATORS[expression.op](value, expression.number)
                if suppressed is not judged.suppressed:
                    judged.suppressed = suppressed
                    self.out.append((rule.name, "suppress" if suppressed else "unsuppress", not suppressed))
            if rule.tag == name and rule.condition not in {"rate", "stale", "bad_quality"}:
                self._edge(rule, self._holds(rule, value), now)
            if rule.tag == name and rule.condition == "rate" and math.isfinite(value):
                v, t = self.rate.get(name, (math.nan, 0))
                if time > t and not math.isnan(v):
                    rate = abs(value - v) / float(time - t) * NS_PER_S
                    self._edge(rule, rate > rule.limit - (rule.deadband if judged.holds else 0), now)
        if math.isfinite(value):
            self.rate[name] = value, time
        self.value[name] = value
        for rule in self.rules:
            if rule.setpoint == name:
                main = self.value.get(rule.tag, math.nan)
                if not math.isnan(main) and self.good[rule.tag]:
                    self._edge(rule, self._holds(rule, main), now)

    def _holds(self, rule: AlarmRule, v: float) -> bool:
        held = self.of[rule.name].holds
        band = rule.deadband if held else 0.0
        match rule.condition:
            case "HH" | "H":
                return v > rule.limit - band
            case "LL" | "L":
                return v < rule.limit + band
            case "discrete":
                return v == rule.limit
            case _:
                centre = self.value.get(rule.setpoint, math.nan) if isinstance(rule.setpoint, str) else rule.setpoint
                if math.isnan(centre):
                    return held
                return v > centre + (rule.limit - band) or v < centre - (rule.limit - band)

    def _edge(self, rule: AlarmRule, holds: bool, now: int) -> None:
        judged = self.of[rule.name]
        if holds is judged.holds:
            return
        judged.holds = holds
        judged.due, judged.waiting = None, False
        if judged.active is holds:
            return
        delay = rule.on_delay_ns if holds else rule.off_delay_ns
        if delay:
            judged.due = now + delay
        else:
            self._toggle(rule)

    def _toggle(self, rule: AlarmRule) -> None:
        judged = self.of[rule.name]
        judged.waiting = False
        judged.active = not judged.active
        self.out.append((rule.name, "activate" if judged.active else "clear", not judged.suppressed))


def _ordered(rows: list[tuple[str, int, float, int]]) -> list[tuple[str, int, float]]:
    """Good rows by source time, yet never against the order in which one tag was read."""
    latest: dict[str, int] = {}
    keyed = []
    for i, (name, time, value, quality) in enumerate(rows):
        if quality == GOOD:
            latest[name] = max(time, latest.get(name, time))
            keyed.append((latest[name], i, name, time, value))
    return [(name, time, value) for _, _, name, time, value in sorted(keyed)]
