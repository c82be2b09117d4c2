"""What people tell about a machine: corrections of the past, reasons, orders. Checks first, then makes events.

Owns: which request is acceptable, and the sentence that says why one is not. Leaves to others: who may ask (whoever
accepted the command) and what the events do (`edge.production.machine`).

Arguments, all by name. asset: path or name of the machine, always needed. Times are ISO 8601; without an offset they
are local time of the calendar.
- correct: start, end, why, and at least one of state (with reason), produced, rejected. replace = true allows cutting
  into an earlier correction.
- set_state: state and/or reason. A reason alone holds for the present stop from its start.
- start_order: order; product, quantity.
- end_order: order (the running one may be left out).
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, TypeVar

from edge.production.machine import OPERATOR, Machine
from edge.tick import Command
from plant.events import (
    Audit,
    Correction,
    DowntimeReason,
    MachineState,
    OrderEnded,
    OrderStarted,
)
from plant.instant import NS_PER_S

ARGUMENTS: Final = {
    "correct": frozenset({"asset", "start", "end", "why", "state", "reason", "produced", "rejected", "replace"}),
    "set_state": frozenset({"asset", "state", "reason"}),
    "start_order": frozenset({"asset", "order", "product", "quantity"}),
    "end_order": frozenset({"asset", "order"}),
}
CORRECTION_AGE_DAYS_MAX: Final = 400
TEXT_LENGTH_MAX: Final = 500
COUNT_MAX: Final = 1e9
_NOT_ENTERED: Final = MachineState.UNKNOWN

Word = TypeVar("Word", bound=StrEnum)


class Invalid(ValueError):
    """The request cannot be meant; the text says why and what would be right."""


def execute(machine: Machine, command: Command, now: int) -> str:
    """Carry out a command on its machine and return a sentence that says what was done. Raises Invalid.

    The events stand in `machine.out` afterwards, the last of them the audit entry. now: ns UTC.
    """
    arguments = command.arguments
    unknown = sorted(set(arguments) - ARGUMENTS[command.name])
    if unknown:
        known = ", ".join(sorted(ARGUMENTS[command.name]))
        raise Invalid(f"{command.name} does not know {', '.join(unknown)}; it takes {known}")
    if not command.user.strip():
        raise Invalid(f"{command.name} needs the name of the person who asks")
    match command.name:
        case "correct":
            done = _correct(machine, command, now)
        case "set_state":
            done = _set_state(machine, command, now)
        case "start_order":
            done = _start_order(machine, arguments, now)
        case _:
            done = _end_order(machine, arguments, now)
    detail = {name: _plain(value) for name, value in arguments.items()}
    machine.put(
        Audit(
            id=machine.ids(),
            time=now,
            asset=machine.asset,
            user=command.user,
            action=command.name,
            outcome="ok",
            detail=detail,
        )
    )
    return done


def _plain(value: object) -> object:
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _correct(machine: Machine, command: Command, now: int) -> str:
    arguments = command.arguments
    start, end = _time(machine, arguments, "start"), _time(machine, arguments, "end")
    if end <= start:
        raise Invalid("a correction must end after it starts")
    if end > now:
        raise Invalid(f"a correction is about the past: its end {arguments['end']} has not come yet")
    if start < now - CORRECTION_AGE_DAYS_MAX * 86_400 * NS_PER_S:
        raise Invalid(f"a correction reaches back {CORRECTION_AGE_DAYS_MAX} days at most")
    why = _text(arguments, "why")
    state = _word(arguments, "state", MachineState)
    reason = _word(arguments, "reason", DowntimeReason)
    if reason is not None and state in {None, MachineState.RUNNING, MachineState.UNKNOWN}:
        raise Invalid("a reason belongs to a stop: give state idle, setup, down or maintenance with it")
    produced, rejected = _number(arguments, "produced", -COUNT_MAX), _number(arguments, "rejected", -COUNT_MAX)
    if state is None and not produced and not rejected:
        raise Invalid("a correction needs a state, or parts produced or rejected")
    if state is not None and arguments.get("replace") is not True:
        _refuse_overlap(machine, start, end)
    machine.flush()
    _refuse_negative(machine, start, produced, rejected)
    machine.put(
        Correction(
            id=machine.ids(),
            time=now,
            asset=machine.asset,
            start=start,
            end=end,
            user=command.user,
            why=why,
            state=state,
            reason=reason,
            produced=produced,
            rejected=rejected,
        )
    )
    return f"corrected {machine.options.name} from {_local(machine, start)} to {_local(machine, end)}"


def _refuse_overlap(machine: Machine, start: int, end: int) -> None:
    """Two people may not cut into each other's corrections unawares; covering one wholly restates it."""
    for earlier in machine.corrections:
        touches = earlier.state is not None and earlier.start < end and start < earlier.end
        if touches and not (start <= earlier.start and earlier.end <= end):
            raise Invalid(
                f"overlaps the correction of {machine.options.name} by {earlier.user} "
                f"({_local(machine, earlier.start)} to {_local(machine, earlier.end)}, {earlier.state}); "
                "cover it wholly, choose another time, or repeat with replace = true"
            )


def _refuse_negative(machine: Machine, start: int, produced: float, rejected: float) -> None:
    account = machine.account
    if account is None or not account.period.start <= start < account.period.end:
        return
    for what, counted, added in (
        ("produced", account.parts.pq, produced),
        ("rejected", account.parts.rq, rejected),
    ):
        if counted + added < 0:
            raise Invalid(f"cannot take away {-added:g} {what} parts: the shift has counted {counted:g}")


def _set_state(machine: Machine, command: Command, now: int) -> str:
    state = _word(command.arguments, "state", MachineState)
    reason = _word(command.arguments, "reason", DowntimeReason)
    if state is None and reason is None:
        raise Invalid("set_state needs a state, a reason, or both")
    if state is _NOT_ENTERED:
        raise Invalid("nobody enters the state unknown; say what the machine does")
    name, origin = machine.options.name, OPERATOR + command.user
    if state is None or state is machine.state:
        if machine.state in {MachineState.RUNNING, MachineState.UNKNOWN}:
            raise Invalid(f"{name} is {machine.state}: a reason belongs to a stop; for a past stop use correct")
        if reason is None or reason is machine.reason:
            return f"{name} is {machine.state} already"
        machine.set_state(now, machine.state, reason, origin, from_start=True)
        return f"the stop of {name} since {_local(machine, machine.since)} is due to {reason}"
    if reason is not None and state is MachineState.RUNNING:
        raise Invalid("a running machine has no reason for a stop")
    machine.set_state(now, state, reason, origin)
    return f"{name} is {state} until it reports another state than before"


def _start_order(machine: Machine, arguments: Mapping[str, Any], now: int) -> str:
    order = _text(arguments, "order")
    name = machine.options.name
    if machine.options.order_tag is not None:
        raise Invalid(f"the orders of {name} come from tag {machine.options.order_tag}")
    if machine.order:
        raise Invalid(f"order {machine.order} is running on {name}; end it first")
    product = _text(arguments, "product") if arguments.get("product") else machine.product
    if machine.options.product_tag is not None and product != machine.product:
        raise Invalid(
            f"the product of {name} comes from tag {machine.options.product_tag}: {machine.product or 'none'}"
        )
    quantity = _number(arguments, "quantity", 0.0)
    machine.flush()
    machine.put(
        OrderStarted(id=machine.ids(), time=now, asset=machine.asset, order=order, product=product, quantity=quantity)
    )
    return f"order {order} started on {name}"


def _end_order(machine: Machine, arguments: Mapping[str, Any], now: int) -> str:
    name = machine.options.name
    if machine.options.order_tag is not None:
        raise Invalid(f"the orders of {name} come from tag {machine.options.order_tag}")
    if not machine.order:
        raise Invalid(f"no order is running on {name}")
    order = _text(arguments, "order") if arguments.get("order") else machine.order
    if order != machine.order:
        raise Invalid(f"order {order} is not running on {name}; {machine.order} is")
    machine.flush()
    machine.put(OrderEnded(id=machine.ids(), time=now, asset=machine.asset, order=order))
    return f"order {order} ended on {name}"


def _text(arguments: Mapping[str, Any], name: str) -> str:
    value = arguments.get(name)
    if not isinstance(value, str) or not value.strip():
        raise Invalid(f"{name} is missing: a text is expected")
    if len(value) > TEXT_LENGTH_MAX:
        raise Invalid(f"{name} is longer than {TEXT_LENGTH_MAX} characters")
    return value.strip()


def _number(arguments: Mapping[str, Any], name: str, least: float) -> float:
    value = arguments.get(name, 0.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= COUNT_MAX:
        raise Invalid(f"{name} must be a number from {least:g} to {COUNT_MAX:g}, got {value!r}")
    return float(value)


def _word(arguments: Mapping[str, Any], name: str, words: type[Word]) -> Word | None:
    value = arguments.get(name)
    if value is None:
        return None
    try:
        return words(value)
    except ValueError as error:
        raise Invalid(f"{name} {value!r} is not one of {', '.join(words)}") from error


def _time(machine: Machine, arguments: Mapping[str, Any], name: str) -> int:
    value = arguments.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        moment = None
    if moment is None:
        raise Invalid(f"{name} must be a time such as 2026-11-20T06:30:00+01:00 (or ns since 1970), got {value!r}")
    if moment.tzinfo is None:
        return machine.calendar.utc_ns(moment)
    whole = moment.replace(microsecond=0)
    return int(whole.timestamp()) * NS_PER_S + moment.microsecond * 1000


def _local(machine: Machine, time: int) -> str:
    return datetime.fromtimestamp(time // NS_PER_S, machine.calendar.zone).strftime("%Y-%m-%d %H:%M:%S")
