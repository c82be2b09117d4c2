"""Who may do what on the page: three roles, each with all that the ones before it may."""

from enum import StrEnum
from typing import Final


class Role(StrEnum):
    """The roles of IEC 62443-4-2 CR 2.1 that a gateway needs."""

    VIEWER = "viewer"
    """Looks, changes nothing."""
    OPERATOR = "operator"
    """Acknowledges, shelves and resets alarms, says what a machine did."""
    ENGINEER = "engineer"
    """Takes alarms out of service, asks in SQL."""


_RANK: Final = {role: rank for rank, role in enumerate(Role)}
COMMANDS: Final = {
    Role.OPERATOR: frozenset(
        {"acknowledge", "reset", "shelve", "unshelve", "correct", "set_state", "start_order", "end_order"}
    ),
    Role.ENGINEER: frozenset({"suppress", "unsuppress", "out_of_service", "in_service"}),
}
"""Command -> the least role that may give it; a command that stands nowhere is nobody's."""


def covers(role: Role, needed: Role) -> bool:
    """Tell whether `role` may do what `needed` may."""
    return _RANK[role] >= _RANK[needed]


def role_for(command: str) -> Role | None:
    """Return the least role that may give a command, None if the page gives none of that name."""
    return next((role for role, names in COMMANDS.items() if command in names), None)
