"""What people and systems may ask of alarms: judged here, done by the book, audited always.

A command that comes again (same origin and id, as MQTT redelivers) gets the same reply and changes nothing.

| name | arguments besides `alarm` |
|---|---|
| acknowledge | occurrence; comment |
| reset | comment |
| shelve | reason, duration_s (at most max_shelve_s; may be left out when one_shot); one_shot |
| unshelve, unsuppress, in_service | comment |
| suppress | reason |
| out_of_service | comment, required |
| snapshot | no alarm; every alarm that is not normal comes in the reply's data as `alarms` |
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from edge.alarms.book import Book
from edge.alarms.entry import Entry
from edge.tick import Command, Reply
from plant.events import to_record
from plant.instant import NS_PER_S, Instant

REPLIES_MAX: Final = 1000
"""Replies remembered for commands that come again."""
TEXT_MAX: Final = 500
"""Longest reason or comment, in characters."""

NAMES: Final = frozenset(
    {"acknowledge", "reset", "shelve", "unshelve", "suppress", "unsuppress", "out_of_service", "in_service", "snapshot"}
)
_ARGUMENTS: Final = ("alarm", "occurrence", "reason", "comment", "duration_s", "one_shot")

Verdict = tuple[str, str]
"""A code ("ok" or why not) and a sentence."""
OK: Final[Verdict] = ("ok", "")


def _invalid(sentence: str) -> Verdict:
    return "invalid", sentence


class Commands:
    """Answers commands against one book. logic(entry): whether the alarm's suppress_when holds."""

    def __init__(self, book: Book, logic: Callable[[Entry], bool]) -> None:
        self._book = book
        self._logic = logic
        self._replies: OrderedDict[tuple[str, str], Reply] = OrderedDict()

    def handle(self, command: Command, now: Instant) -> Reply:
        """Judge and do one command; its events are in the book."""
        key = (command.origin, command.id)
        known = self._replies.get(key)
        if known is not None and command.id:
            return known
        arguments = {name: _short(command.arguments[name]) for name in _ARGUMENTS if name in command.arguments}
        if command.name == "snapshot":
            entry, verdict = None, OK
        else:
            entry, verdict = self._judge(command, now)
        code, message = verdict
        data: dict[str, Any] = {}
        if entry is not None:
            data = {"alarm": entry.name, "state": entry.state.letter, "occurrence": entry.occurrence}
        detail = {"command": command.id, "origin": command.origin, **arguments, **({"why": message} if message else {})}
        self._book.audit(command.user, command.name, code, entry.asset if entry else "", detail, now)
        reply = Reply(command=command.id, origin=command.origin, ok=code == "ok", code=code, message=message, data=data)
        if command.name == "snapshot":  # always fresh, and too large to remember
            alarms = [to_record(transition) for transition in self._book.snapshot()]
            return Reply(
                command=command.id, origin=command.origin, ok=True, code="ok", data={"time": now.utc, "alarms": alarms}
            )
        self._replies[key] = reply
        while len(self._replies) > REPLIES_MAX:
            self._replies.popitem(last=False)
        return reply

    def _judge(self, command: Command, now: Instant) -> tuple[Entry | None, Verdict]:
        if command.name not in NAMES:
            return None, _invalid(
                f"alarms know no command {command.name!r}: expected one of {', '.join(sorted(NAMES))}"
            )
        if not command.user:
            return None, _invalid("user is empty: whoever asks must be named")
        name = command.arguments.get("alarm")
        entry = self._book.entries.get(name) if isinstance(name, str) else None
        if entry is None:
            return None, ("unknown_alarm", f"there is no alarm {str(name)[:TEXT_MAX]!r}")
        for argument in ("reason", "comment"):
            text = command.arguments.get(argument, "")
            if not isinstance(text, str) or len(text) > TEXT_MAX:
                return entry, _invalid(f"{argument} must be text of at most {TEXT_MAX} characters")
        match command.name:
            case "acknowledge":
                verdict = self._acknowledge(entry, command, now)
            case "reset":
                verdict = self._reset(entry, command, now)
            case "shelve":
                verdict = self._shelve(entry, command, now)
            case "suppress":
                verdict = self._suppress(entry, command, now)
            case "unsuppress":
                verdict = self._unsuppress(entry, command, now)
            case "out_of_service":
                verdict = self._out_of_service(entry, command, now)
            case "unshelve":
                done = self._book.unshelve(entry, now, command.user, _remark(command))
                verdict = OK if done else _invalid(f"alarm {entry.name} is not shelved")
            case _:
                done = self._book.in_service(entry, now, command.user, _remark(command))
                verdict = OK if done else _invalid(f"alarm {entry.name} is in service")
        return entry, verdict

    def _acknowledge(self, entry: Entry, command: Command, now: Instant) -> Verdict:
        occurrence = command.arguments.get("occurrence")
        if not isinstance(occurrence, str) or not occurrence:
            return _invalid("occurrence is missing: an acknowledgement names the occurrence that was seen")
        if occurrence != entry.occurrence:
            return "stale_occurrence", (
                f"alarm {entry.name} has come again since: its occurrence is {entry.occurrence!r}, look at it first"
            )
        if entry.state.acknowledged:
            return "already_acknowledged", f"occurrence {occurrence} of alarm {entry.name} is acknowledged already"
        self._book.acknowledge(entry, now, command.user, _remark(command))
        return OK

    def _reset(self, entry: Entry, command: Command, now: Instant) -> Verdict:
        if self._book.reset(entry, now, command.user, _remark(command)):
            return OK
        if not entry.state.latched:
            return _invalid(f"alarm {entry.name} is not latched: there is nothing to reset")
        if entry.state.active:
            return _invalid(f"alarm {entry.name} is still active: remove the cause, then reset")
        return _invalid(f"alarm {entry.name} is not acknowledged: acknowledge it, then reset")

    def _shelve(self, entry: Entry, command: Command, now: Instant) -> Verdict:
        arguments, longest = command.arguments, self._book.options.max_shelve_s
        one_shot = arguments.get("one_shot", False)
        if not isinstance(one_shot, bool):
            return _invalid("one_shot must be true or false")
        duration = arguments.get("duration_s", longest if one_shot else None)
        if isinstance(duration, bool) or not isinstance(duration, int | float) or not 0 < duration <= longest:
            return _invalid(f"duration_s must be a number above 0 and at most {longest:g} seconds")
        reason = _remark(command)
        if not reason:
            return _invalid("reason is missing: say why the alarm is shelved")
        if entry.state.shelved:
            return _invalid(f"alarm {entry.name} is shelved already: unshelve it first")
        self._book.shelve(entry, now, command.user, reason, round(duration * NS_PER_S), one_shot=one_shot)
        return OK

    def _suppress(self, entry: Entry, command: Command, now: Instant) -> Verdict:
        reason = _remark(command)
        if not reason:
            return _invalid("reason is missing: say why the alarm is suppressed")
        if not self._book.suppress(entry, now, "command", command.user, reason):
            return _invalid(f"alarm {entry.name} is suppressed already, by {entry.suppressed_by}")
        return OK

    def _unsuppress(self, entry: Entry, command: Command, now: Instant) -> Verdict:
        if not entry.state.suppressed:
            return _invalid(f"alarm {entry.name} is not suppressed")
        why = str(entry.rule.suppress_when) if entry.rule is not None else ""
        if entry.suppressed_by == "logic":
            return _invalid(f"alarm {entry.name} is suppressed by design: it ends when {why} no longer holds")
        if self._logic(entry):
            self._book.hand_to_logic(entry, now, command.user, _remark(command))
            return "ok", f"alarm {entry.name} stays suppressed by design while {why}"
        self._book.unsuppress(entry, now, command.user, _remark(command))
        return OK

    def _out_of_service(self, entry: Entry, command: Command, now: Instant) -> Verdict:
        comment = _remark(command)
        if not comment:
            return _invalid("comment is missing: say why the alarm is taken out of service")
        if not self._book.out_of_service(entry, now, command.user, comment):
            return _invalid(f"alarm {entry.name} is out of service already")
        return OK


def _remark(command: Command) -> str:
    """Return the reason or comment of a command, whichever was given."""
    return str(command.arguments.get("reason") or command.arguments.get("comment") or "").strip()


def _short(value: Any) -> Any:
    """Return an argument as it may stand in the audit: plain and bounded."""
    plain = value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value))
    return value if plain else str(value)[:TEXT_MAX]
