"""Alarm rules: one row of alarms.csv each, read and checked.

Owns the columns, their meaning and every sentence about a mistake in them. Leaves evaluation to `limits`.

| condition | holds while | limit | deadband |
|---|---|---|---|
| HH, H | value > limit | required | returns at limit - deadband |
| L, LL | value < limit | required | returns at limit + deadband |
| deviation | |value - setpoint| > limit | required, > 0 | returns at limit - deadband |
| rate | |change| per second of source time > limit | required, > 0 | returns at limit - deadband |
| discrete | value = limit | default 1 | none |
| stale | nothing but BAD readings for longer than limit seconds | default: the tag's stale_after_s | none |
| bad_quality | quality is not GOOD | none | none |
"""

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from plant.instant import NS_PER_S
from plant.tags import TagTable

CONDITIONS: Final = ("HH", "H", "L", "LL", "deviation", "rate", "discrete", "stale", "bad_quality")
PRIORITIES: Final = ("critical", "high", "medium", "low")
SEVERITY: Final[Mapping[str, int]] = {"critical": 900, "high": 700, "medium": 500, "low": 200}
"""Severity 1..1000 of OPC UA Part 5 for each priority, near the middle of its band."""
COLUMNS: Final = (
    "alarm", "tag", "condition", "limit", "setpoint", "deadband", "on_delay_s", "off_delay_s", "priority", "latch",
    "group", "suppress_when", "message", "cause", "consequence", "action", "respond_within_s", "asset",
)  # fmt: skip
DELAY_S_MAX: Final = 86_400.0
NAME_LENGTH_MAX: Final = 200
SUGGESTIONS_MAX: Final = 50
"""A search for a similar name among 10,000 tags takes milliseconds; after so many unknown tags it stops."""

_LIMIT_REQUIRED: Final = frozenset({"HH", "H", "L", "LL", "deviation", "rate"})
_EXPRESSION: Final = re.compile(r"\s*([^\s<>=!]+)\s*(==|!=|<=|>=|<|>)\s*(\S+)\s*")
_TRUE: Final = frozenset({"true", "yes", "1"})
_FALSE: Final = frozenset({"", "false", "no", "0"})
_TOPIC_WILDCARDS: Final = frozenset("+#/\0")


class RuleFaults(ValueError):
    """A row that is no alarm rule; `faults` has one sentence per mistake."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = tuple(faults)


@dataclass(frozen=True, slots=True)
class Expression:
    """`tag op number`, e.g. `cnc.state != 1`."""

    tag: str
    op: str
    number: float

    def __str__(self) -> str:
        return f"{self.tag} {self.op} {self.number:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmRule:
    """One alarm as configured.

    limit: in the tag's unit; units per second for rate, seconds for stale; NaN where the condition has none.
    setpoint: for deviation, a number or the name of a tag. on_delay_s, off_delay_s: how long the condition must
    hold, or be gone, without a break. asset: ISA-95 path; "" takes the tag's.
    """

    name: str
    tag: str
    condition: str
    limit: float = math.nan
    setpoint: float | str | None = None
    deadband: float = 0.0
    on_delay_s: float = 0.0
    off_delay_s: float = 0.0
    priority: str = "medium"
    latch: bool = False
    group: str = ""
    suppress_when: Expression | None = None
    message: str = ""
    cause: str = ""
    consequence: str = ""
    action: str = ""
    respond_within_s: float = 0.0
    asset: str = ""

    @property
    def on_delay_ns(self) -> int:
        return round(self.on_delay_s * NS_PER_S)

    @property
    def off_delay_ns(self) -> int:
        return round(self.off_delay_s * NS_PER_S)

    @property
    def process(self) -> bool:
        """The condition judges a value, so that a value of doubtful quality can neither raise nor clear it."""
        return self.condition not in {"stale", "bad_quality"}

    def tags(self) -> tuple[str, ...]:
        """Names of all tags that the rule reads, its own first."""
        names = [self.tag]
        if isinstance(self.setpoint, str):
            names.append(self.setpoint)
        if self.suppress_when is not None:
            names.append(self.suppress_when.tag)
        return tuple(names)


class _Row:
    """Reads the cells of one row and collects what is wrong with them."""

    def __init__(self, row: Mapping[str, str]) -> None:
        self._row = row
        self.faults: list[str] = []

    def text(self, column: str) -> str:
        return (self._row.get(column) or "").strip()

    def number(self, column: str, default: float, low: float = -math.inf, high: float = math.inf) -> float:
        text = self.text(column)
        if not text:
            return default
        value = _number(text)
        if value is None:
            self.faults.append(f"{column} is {text!r}: expected a number such as 80 or 0.75 (decimal point, no unit)")
            return default
        if not low <= value <= high:
            bounds = f"at least {low:g}" if math.isinf(high) else f"between {low:g} and {high:g}"
            self.faults.append(f"{column} is {text}: expected {bounds}")
            return default
        return value

    def choice(self, column: str, choices: Sequence[str], default: str) -> str:
        text = self.text(column)
        if not text and default:
            return default
        for choice in choices:
            if text.lower() == choice.lower():
                return choice
        close = difflib.get_close_matches(text, choices, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        self.faults.append(f"{column} is {text!r}: expected one of {', '.join(choices)}{hint}")
        return default

    def flag(self, column: str) -> bool:
        text = self.text(column).lower()
        if text not in _TRUE and text not in _FALSE:
            self.faults.append(f"{column} is {text!r}: expected true or false")
        return text in _TRUE


def parse_rule(row: Mapping[str, str]) -> AlarmRule:
    """Read one row of alarms.csv. Raises RuleFaults (a ValueError) with one sentence per mistake."""
    cells = _Row(row)
    faults = cells.faults
    name, tag = cells.text("alarm"), cells.text("tag")
    if not name:
        faults.append("alarm is empty: every alarm needs a name")
    elif len(name) > NAME_LENGTH_MAX or _TOPIC_WILDCARDS & set(name):
        faults.append(f"alarm is {name[:40]!r}: a name has at most {NAME_LENGTH_MAX} characters and none of + # /")
    if not tag:
        faults.append("tag is empty: expected the name of a tag in tags.csv")
    condition = cells.choice("condition", CONDITIONS, "")
    rule = AlarmRule(
        name=name,
        tag=tag,
        condition=condition,
        limit=_limit(cells, condition),
        setpoint=_setpoint(cells, condition),
        deadband=cells.number("deadband", 0.0, low=0.0),
        on_delay_s=cells.number("on_delay_s", 0.0, 0.0, DELAY_S_MAX),
        off_delay_s=cells.number("off_delay_s", 0.0, 0.0, DELAY_S_MAX),
        priority=cells.choice("priority", PRIORITIES, "medium"),
        latch=cells.flag("latch"),
        group=cells.text("group"),
        suppress_when=_expression(cells),
        message=cells.text("message"),
        cause=cells.text("cause"),
        consequence=cells.text("consequence"),
        action=cells.text("action"),
        respond_within_s=cells.number("respond_within_s", 0.0, low=0.0),
        asset=cells.text("asset"),
    )
    if condition in {"deviation", "rate"} and rule.deadband >= rule.limit > 0:
        faults.append(
            f"deadband is {rule.deadband:g}: expected less than the limit {rule.limit:g}, else the alarm never clears"
        )
    if condition in {"discrete", "stale", "bad_quality"} and rule.deadband > 0:
        faults.append(f"deadband is {rule.deadband:g}: a {condition} alarm has none, leave it empty")
    if faults:
        raise RuleFaults(faults)
    return rule


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _limit(cells: _Row, condition: str) -> float:
    if condition in _LIMIT_REQUIRED and not cells.text("limit"):
        cells.faults.append(f"limit is empty: a {condition} alarm needs one")
        return math.nan
    if condition == "bad_quality" and cells.text("limit"):
        cells.faults.append("limit is set: a bad_quality alarm has none, leave it empty")
    default = 1.0 if condition == "discrete" else math.nan
    limit = cells.number("limit", default)
    if condition in {"deviation", "rate", "stale"} and limit <= 0:
        cells.faults.append(f"limit is {limit:g}: a {condition} alarm needs one above 0")
    return limit


def _setpoint(cells: _Row, condition: str) -> float | str | None:
    text = cells.text("setpoint")
    if condition != "deviation":
        if text and condition:
            cells.faults.append(f"setpoint is {text!r}: only a deviation alarm has a setpoint, leave it empty")
        return None
    if not text:
        cells.faults.append("setpoint is empty: a deviation alarm needs a number or the name of a tag")
        return None
    number = _number(text)
    return text if number is None else number


def _expression(cells: _Row) -> Expression | None:
    text = cells.text("suppress_when")
    if not text:
        return None
    match = _EXPRESSION.fullmatch(text)
    number = _number(match[3]) if match else None
    if match is None or number is None:
        cells.faults.append(
            f"suppress_when is {text!r}: expected a tag, one of == != < <= > >= and a number, e.g. cnc.state != 1"
        )
        return None
    return Expression(match[1], match[2], number)


def warnings(rule: AlarmRule) -> list[str]:
    """Return what is missing for a rationalised alarm (ISA-18.2 §9); such a rule works all the same."""
    missing = [name for name in ("cause", "consequence", "action") if not getattr(rule, name)]
    found = []
    if missing:
        found.append(f"{', '.join(missing)} not given: an operator will not know what the alarm means or what to do")
    if not rule.respond_within_s:
        found.append("respond_within_s not given: how soon must somebody act?")
    return found


def check(rules: Iterable[AlarmRule], table: TagTable) -> list[tuple[str, str]]:
    """Check rules against each other and the tags. Returns (alarm, sentence) for every mistake."""
    found: list[tuple[str, str]] = []
    seen: set[str] = set()
    for rule in rules:
        if rule.name in seen:
            found.append((rule.name, f"alarm {rule.name} stands twice: every alarm needs its own name"))
        seen.add(rule.name)
        for name in rule.tags():
            if name not in table.by_name:
                close = difflib.get_close_matches(name, table.by_name, 1) if len(found) < SUGGESTIONS_MAX else []
                hint = f"; did you mean {close[0]}?" if close else ""
                found.append((rule.name, f"alarm {rule.name} reads the tag {name}, which is not in tags.csv{hint}"))
        tag = table.by_name.get(rule.tag)
        if rule.condition == "stale" and math.isnan(rule.limit) and tag is not None and tag.stale_after_ns <= 0:
            found.append(
                (rule.name, f"alarm {rule.name}: give a limit in seconds, or a stale_after_s of tag {rule.tag}")
            )
    return found


def sentence(rule: AlarmRule, unit: str) -> str:
    """Return the message of a rule that has none of its own."""
    suffix = "" if unit in {"", "1"} else f" {unit}"
    match rule.condition:
        case "HH" | "H":
            return f"{rule.tag} is above {rule.limit:g}{suffix}"
        case "LL" | "L":
            return f"{rule.tag} is below {rule.limit:g}{suffix}"
        case "deviation":
            return f"{rule.tag} is more than {rule.limit:g}{suffix} away from {rule.setpoint}"
        case "rate":
            return f"{rule.tag} changes by more than {rule.limit:g}{suffix} per second"
        case "discrete":
            return f"{rule.tag} is {rule.limit:g}"
        case "stale":
            return f"{rule.tag} is silent"
        case _:
            return f"{rule.tag} has no good value"
