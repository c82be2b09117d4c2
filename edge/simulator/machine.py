"""What all simulated machines have in common: the words for their states, and how a fault reaches them.

A machine is pure: `advance` moves it on by machine time, `values` says what its PLC would show. It knows no protocol
and no clock. The code tables are those of the simulated PLCs, repeated in the sample configuration.
"""

from collections.abc import Mapping
from typing import Protocol

from plant.events import DowntimeReason, MachineState

Value = float | int | str | bool

STATE_CODES: Mapping[MachineState, int] = {
    MachineState.UNKNOWN: 0,
    MachineState.RUNNING: 1,
    MachineState.IDLE: 2,
    MachineState.SETUP: 3,
    MachineState.DOWN: 4,
    MachineState.MAINTENANCE: 5,
}

PRESS_STATE_CODES: Mapping[MachineState, int] = {
    MachineState.UNKNOWN: 0,
    MachineState.IDLE: 10,
    MachineState.RUNNING: 20,
    MachineState.SETUP: 30,
    MachineState.DOWN: 40,
    MachineState.MAINTENANCE: 50,
}
"""An older controller with a numbering of its own, as plants have them."""

REASON_CODES: Mapping[DowntimeReason | None, int] = {
    None: 0,
    DowntimeReason.PLANNED_MAINTENANCE: 1,
    DowntimeReason.BREAKDOWN: 2,
    DowntimeReason.CHANGEOVER: 3,
    DowntimeReason.NO_OPERATOR: 4,
    DowntimeReason.NO_MATERIAL: 5,
    DowntimeReason.QUALITY_ISSUE: 6,
}

STATE_OF_REASON: Mapping[DowntimeReason, MachineState] = {
    DowntimeReason.PLANNED_MAINTENANCE: MachineState.MAINTENANCE,
    DowntimeReason.BREAKDOWN: MachineState.DOWN,
    DowntimeReason.CHANGEOVER: MachineState.SETUP,
    DowntimeReason.NO_OPERATOR: MachineState.IDLE,
    DowntimeReason.NO_MATERIAL: MachineState.IDLE,
    DowntimeReason.QUALITY_ISSUE: MachineState.DOWN,
}
"""The state that a machine stopped by command shows for a reason."""


class Machine(Protocol):
    """A simulated machine.

    counters: names of the values that `reset` may set to zero.
    """

    name: str
    counters: frozenset[str]

    def advance(self, elapsed_s: float) -> None:
        """Move on by `elapsed_s` seconds of machine time."""
        ...

    def values(self) -> Mapping[str, Value]:
        """Return what the PLC shows now, by value name."""
        ...

    def stop(self, reason: DowntimeReason) -> None:
        """Stand still for a reason until `start`."""
        ...

    def start(self) -> None:
        """Go on after `stop`."""
        ...

    def reset(self, counter: str) -> None:
        """Set a counter to zero, as a PLC does after a battery change."""
        ...
