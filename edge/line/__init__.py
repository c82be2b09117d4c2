"""The line: what has arrived goes in, a Tick comes out. calibrate -> derive -> judge -> keep.

No I/O, no clock, nothing awaits between the inbox and the tick: live running, replay, tests and benches
call the very same `Line.step`.
"""

from edge.line.inbox import Inbox
from edge.line.step import Line

__all__ = ["Inbox", "Line"]
