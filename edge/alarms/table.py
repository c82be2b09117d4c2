"""The state table of ISA-18.2-2016 / IEC 62682:2022, pure.

An alarm is a core state (normal, unacknowledged, acknowledged, returned, latched) and three flags that are orthogonal
to it (shelved, suppressed by design, out of service), as OPC UA Part 9 (OPC 10000-9 §5.8) models them: the core goes on
under every flag. The letter A..I is derived for display. What the table does not list cannot happen.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from typing import Any, Final


class Core(StrEnum):
    """The core states with their ISA-18.2 letters."""

    NORMAL = "A"
    UNACKNOWLEDGED = "B"
    ACKNOWLEDGED = "C"
    RETURNED = "D"
    """Returned to normal before anybody acknowledged it."""
    LATCHED_UNACKNOWLEDGED = "E"
    LATCHED_ACKNOWLEDGED = "F"


class Step(StrEnum):
    """What can happen to an alarm; the words of `AlarmTransition.transition`."""

    ACTIVATE = "activate"
    CLEAR = "clear"
    ACKNOWLEDGE = "acknowledge"
    RESET = "reset"
    REARM = "rearm"
    SHELVE = "shelve"
    UNSHELVE = "unshelve"
    SUPPRESS = "suppress"
    UNSUPPRESS = "unsuppress"
    OUT_OF_SERVICE = "out_of_service"
    IN_SERVICE = "in_service"


CORE: Final[Mapping[tuple[Core, Step], tuple[Core | None, Core | None]]] = {
    # (from, step): (to for an ordinary alarm, to for a latching one); None = not in the table.
    (Core.NORMAL, Step.ACTIVATE): (Core.UNACKNOWLEDGED, Core.UNACKNOWLEDGED),
    (Core.UNACKNOWLEDGED, Step.ACKNOWLEDGE): (Core.ACKNOWLEDGED, Core.ACKNOWLEDGED),
    (Core.UNACKNOWLEDGED, Step.CLEAR): (Core.RETURNED, Core.LATCHED_UNACKNOWLEDGED),
    (Core.UNACKNOWLEDGED, Step.REARM): (Core.UNACKNOWLEDGED, Core.UNACKNOWLEDGED),
    (Core.ACKNOWLEDGED, Step.CLEAR): (Core.NORMAL, Core.LATCHED_ACKNOWLEDGED),
    (Core.ACKNOWLEDGED, Step.REARM): (Core.UNACKNOWLEDGED, Core.UNACKNOWLEDGED),
    (Core.RETURNED, Step.ACKNOWLEDGE): (Core.NORMAL, None),
    (Core.RETURNED, Step.ACTIVATE): (Core.UNACKNOWLEDGED, None),
    (Core.LATCHED_UNACKNOWLEDGED, Step.ACKNOWLEDGE): (None, Core.LATCHED_ACKNOWLEDGED),
    (Core.LATCHED_UNACKNOWLEDGED, Step.ACTIVATE): (None, Core.UNACKNOWLEDGED),
    (Core.LATCHED_ACKNOWLEDGED, Step.RESET): (None, Core.NORMAL),
    (Core.LATCHED_ACKNOWLEDGED, Step.ACTIVATE): (None, Core.UNACKNOWLEDGED),
}

FLAGS: Final[Mapping[Step, tuple[str, bool]]] = {
    # A flag step is possible in every core state, and only when it changes the flag.
    Step.SHELVE: ("shelved", True),
    Step.UNSHELVE: ("shelved", False),
    Step.SUPPRESS: ("suppressed", True),
    Step.UNSUPPRESS: ("suppressed", False),
    Step.OUT_OF_SERVICE: ("out_of_service", True),
    Step.IN_SERVICE: ("out_of_service", False),
}

_ACTIVE: Final = frozenset({Core.UNACKNOWLEDGED, Core.ACKNOWLEDGED})
_ACKNOWLEDGED: Final = frozenset({Core.NORMAL, Core.ACKNOWLEDGED, Core.LATCHED_ACKNOWLEDGED})


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The whole state of one alarm. latching: the alarm's type, it never changes within the table."""

    core: Core = Core.NORMAL
    latching: bool = False
    shelved: bool = False
    suppressed: bool = False
    out_of_service: bool = False

    @property
    def active(self) -> bool:
        """The condition is present (after its delays)."""
        return self.core in _ACTIVE

    @property
    def acknowledged(self) -> bool:
        return self.core in _ACKNOWLEDGED

    @property
    def latched(self) -> bool:
        """LatchedState of Part 9: true from the activation of a latching alarm to its reset."""
        return self.latching and self.core is not Core.NORMAL

    @property
    def annunciated(self) -> bool:
        """No flag keeps the alarm from the operator (Part 9: not SuppressedOrShelved)."""
        return not (self.shelved or self.suppressed or self.out_of_service)

    @property
    def normal(self) -> bool:
        """Nothing to tell: core state normal and no flag set."""
        return self.core is Core.NORMAL and self.annunciated

    @property
    def letter(self) -> str:
        """The ISA-18.2 letter. A flag hides the core: out of service before suppressed before shelved."""
        if self.out_of_service:
            return "I"
        if self.suppressed:
            return "H"
        return "G" if self.shelved else self.core.value


@cache  # 72 states times 11 steps at most
def follow(state: State, step: Step) -> State | None:
    """Return the state after `step`, or None where the table has no such transition."""
    flag = FLAGS.get(step)
    if flag is not None:
        name, value = flag
        if getattr(state, name) is value:
            return None
        changes: dict[str, Any] = {name: value}
        return replace(state, **changes)
    core = CORE.get((state.core, step), (None, None))[state.latching]
    return None if core is None else replace(state, core=core)


def core_of(*, active: bool, acknowledged: bool, latched: bool, latching: bool) -> Core:
    """Return the core state of a stored alarm: from its Booleans, and `latching`, the type its rule has today.

    Where the type was changed, nothing unacknowledged is lost: a latched alarm that no longer latches goes on as
    returned or normal, a returned one that now latches as latched.
    """
    if active:
        return Core.ACKNOWLEDGED if acknowledged else Core.UNACKNOWLEDGED
    if not acknowledged:
        return Core.LATCHED_UNACKNOWLEDGED if latching else Core.RETURNED
    return Core.LATCHED_ACKNOWLEDGED if latched and latching else Core.NORMAL
