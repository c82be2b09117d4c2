"""ISA-18.2 / IEC 62682 alarms: limits find conditions, the table says what follows, the book remembers.

`rules` is what an engineer writes, `limits` turns readings into edges of conditions, `table` is the standard's state
table and nothing else, `book` keeps the current state of every alarm, `commands` is what people may ask, `alarms`
composes them into the one object that the line calls.
"""

from edge.alarms.alarms import Alarms
from edge.alarms.options import AlarmOptions
from edge.alarms.rules import COLUMNS, AlarmRule, RuleFaults, check, parse_rule, warnings
from edge.alarms.statistics import AlarmStatistics

__all__ = [
    "COLUMNS",
    "AlarmOptions",
    "AlarmRule",
    "AlarmStatistics",
    "Alarms",
    "RuleFaults",
    "check",
    "parse_rule",
    "warnings",
]
