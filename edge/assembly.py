"""How the stages of the line are made from a configuration: the same for the running gateway and for a recording that
is run through it.
"""

from edge.alarms import Alarms
from edge.config import Config
from edge.line import Line
from edge.production import Production, calendar_of
from plant.events import EventIds
from plant.instant import Instant
from plant.tags import TagTable
from plant.texts import Texts


def make_production(config: Config, table: TagTable, texts: Texts, ids: EventIds) -> Production:
    """Build the machines of a configuration with its calendar; nothing is restored yet."""
    calendar = calendar_of(config.shifts, config.file.site.time_zone)
    return Production(config.file.machine, table, calendar, texts, ids)


def make_alarms(config: Config, table: TagTable, ids: EventIds) -> Alarms:
    """Build the alarms of a configuration; nothing is restored yet."""
    return Alarms(config.rules, table, ids, config.file.alarms)


def make_line(table: TagTable, production: Production, alarms: Alarms, ids: EventIds, started: Instant) -> Line:
    """Put the stages in their order."""
    return Line(table, production, alarms, ids, started)
