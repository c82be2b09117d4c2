"""The faults that the simulated plant can be told to have, as requests with checked arguments."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from edge.errors import Refused
from plant.events import DowntimeReason

SECONDS_MAX = 86_400.0


def _names(value: Any) -> Any:
    return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
"""A list of names; one text with commas is taken apart, for the command line."""


class _Fault(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StopMachine(_Fault):
    """A machine stands still for a reason; its counters stop, its PLC goes on talking."""

    fault: Literal["stop"] = "stop"
    machine: str = Field(description="cnc, press or strip")
    reason: DowntimeReason = Field(DowntimeReason.BREAKDOWN, description="what the reason word shows")


class StartMachine(_Fault):
    """A stopped machine goes on."""

    fault: Literal["start"] = "start"
    machine: str = Field(description="cnc, press or strip")


class Cut(_Fault):
    """A PLC closes its socket and every connection; its memory stays."""

    fault: Literal["cut"] = "cut"
    plc: str = Field(description="cnc, press, strip or inspection")
    seconds: float | None = Field(None, gt=0, le=SECONDS_MAX, description="restored by itself after; none = until told")


class Restore(_Fault):
    """A cut PLC listens again."""

    fault: Literal["restore"] = "restore"
    plc: str = Field(description="cnc, press, strip or inspection")


class Freeze(_Fault):
    """A value no longer changes, nor does its source timestamp; the connection stands."""

    fault: Literal["freeze"] = "freeze"
    value: str = Field(description="<plc>.<value>, e.g. press.bearing_temperature; <plc>.* = all of them")


class Unfreeze(_Fault):
    """A frozen value moves again."""

    fault: Literal["unfreeze"] = "unfreeze"
    value: str = Field(description="as for freeze")


class ResetCounter(_Fault):
    """A counter starts again at zero."""

    fault: Literal["reset"] = "reset"
    value: str = Field(description="<machine>.<counter>, e.g. press.strokes")


class SetValue(_Fault):
    """A value says something else than the machine does, in the unit of the PLC."""

    fault: Literal["set"] = "set"
    value: str = Field(description="<plc>.<value>, e.g. press.bearing_temperature")
    to: float | str = Field(description="what it says from now on")


class UnsetValue(_Fault):
    """A value says again what the machine does."""

    fault: Literal["unset"] = "unset"
    value: str = Field(description="as for set")


class ShiftClock(_Fault):
    """The clock of a PLC is wrong: source timestamps and its current time are off. 0 = right again."""

    fault: Literal["clock"] = "clock"
    plc: str = Field(description="cnc or inspection; Modbus has no timestamps")
    seconds: float = Field(description="how far the clock is ahead (negative: behind)")


class Restart(_Fault):
    """A PLC starts anew, as after a download of a changed program. Sessions are gone."""

    fault: Literal["restart"] = "restart"
    plc: str = Field(description="cnc, press, strip or inspection")
    without: Names = Field((), description="values that the new program does not have any more")
    namespace_shift: int = Field(0, ge=0, le=50, description="namespaces inserted before the PLC's own (OPC UA)")
    seconds: float = Field(0.0, ge=0, le=SECONDS_MAX, description="how long it is off in between")


class Exceptions(_Fault):
    """Some values answer with an exception (Modbus) or a bad status (OPC UA). None named = all answer again."""

    fault: Literal["exceptions"] = "exceptions"
    plc: str = Field(description="cnc, press, strip or inspection")
    values: Names = Field((), description="names of values of this PLC")


class ListPlant(_Fault):
    """Change nothing; say what there is."""

    fault: Literal["list"] = "list"


Fault = (
    StopMachine | StartMachine | Cut | Restore | Freeze | Unfreeze | ResetCounter | SetValue | UnsetValue | ShiftClock
    | Restart | Exceptions | ListPlant
)  # fmt: skip

_ADAPTER: TypeAdapter[Fault] = TypeAdapter(Annotated[Fault, Field(discriminator="fault")])
FAULT_KINDS: tuple[type[_Fault], ...] = (
    StopMachine, StartMachine, Cut, Restore, Freeze, Unfreeze, ResetCounter, SetValue, UnsetValue, ShiftClock,
    Restart, Exceptions, ListPlant,
)  # fmt: skip


def describe_faults() -> str:
    """Return every fault with what it does and its arguments, for the command line."""
    lines: list[str] = []
    for kind in FAULT_KINDS:
        lines.append(f"{kind.model_fields['fault'].default}: {kind.__doc__}")
        lines += [
            f"    {name}={'...' if field.is_required() else field.default}  {field.description}"
            for name, field in kind.model_fields.items()
            if name != "fault"
        ]
    return "\n".join(lines)


def parse_fault(request: Any) -> Fault:
    """Check a request. Raises Refused with every mistake in one sentence."""
    try:
        return _ADAPTER.validate_python(request)
    except ValidationError as error:
        mistakes = [f"{'.'.join(str(part) for part in e['loc']) or 'request'}: {e['msg']}" for e in error.errors()]
        raise Refused("not understood: " + "; ".join(mistakes)) from error
