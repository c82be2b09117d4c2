"""Production: states, parts, orders and OEE of every machine, from its tags, as events and virtual tags."""

from edge.production.options import MachineOptions, ShiftsOptions, calendar_of, check_shifts
from edge.production.production import Production
from edge.production.virtual import STATE_CODES, virtual_tags

__all__ = [
    "STATE_CODES",
    "MachineOptions",
    "Production",
    "ShiftsOptions",
    "calendar_of",
    "check_shifts",
    "virtual_tags",
]
