"""What all simulated PLCs have in common, and the faults that sit between a machine and its PLC.

A PLC owns a real server. `publish` takes what the machine shows; `Faults` decides what of it the PLC still tells.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from edge.errors import Refused
from edge.simulator.machine import Value

STOP_TIMEOUT_S = 5.0
"""A server that does not close within this time is left to the end of the process."""


@dataclass(slots=True)
class Faults:
    """frozen: values that no longer change. forced: values that say something else. clock_offset_ns: how far the
    PLC's clock is wrong.
    """

    frozen: set[str] = field(default_factory=set)
    forced: dict[str, Value] = field(default_factory=dict)
    clock_offset_ns: int = 0

    def changes(self, values: Mapping[str, Value], shown: Mapping[str, Value]) -> dict[str, Value]:
        """Return what the PLC must write now, given what it shows already."""
        changed: dict[str, Value] = {}
        for name, value in values.items():
            told = self.forced.get(name, value)
            if name not in self.frozen and shown.get(name) != told:
                changed[name] = told
        return changed


class Plc(Protocol):
    """A simulated PLC: a real server on loopback.

    names: the values that it serves. port: where it listens, known after `start`.
    """

    name: str
    port: int
    faults: Faults

    @property
    def names(self) -> Collection[str]: ...

    async def start(self) -> None:
        """Listen. Raises Unreachable if the port cannot be bound."""
        ...

    async def stop(self) -> None:
        """Stop for good; idempotent."""
        ...

    async def publish(self, values: Mapping[str, Value], time: int) -> None:
        """Show new values at `time` (ns UTC); values of other PLCs are passed over."""
        ...

    async def cut(self) -> None:
        """Close the listening socket and every connection; the memory of the PLC stays."""
        ...

    async def restore(self) -> None:
        """Listen again at the same port after `cut`."""
        ...

    async def restart(self, without: Collection[str], namespace_shift: int) -> None:
        """Start anew, as after a download of a changed program: `without` some values, with the namespace index
        moved (OPC UA; a Modbus PLC has none and passes it over).
        """
        ...

    def answer_exceptions(self, names: Collection[str]) -> None:
        """Answer these values with an exception from now on; none = all answer again."""
        ...


def convert(told: Value, like: Value) -> Value:
    """Return a value given from outside as the type that the PLC has. Raises Refused."""
    try:
        match like:
            case bool():
                return told.lower() in {"1", "true", "on"} if isinstance(told, str) else bool(told)
            case int():
                return int(float(told))
            case float():
                return float(told)
            case _:
                return str(told)
    except (ValueError, OverflowError) as error:
        raise Refused(f"{told!r} is no {type(like).__name__}") from error
