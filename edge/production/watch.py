"""A machine bound to its tags: which columns speak of it, when they last spoke, and what there is to show.

Owns: the binding and the figures as virtual readings and as a view. Leaves to others: when to look
(`edge.production.production`), what changes mean (`edge.production.machine`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.production.machine import Machine
from edge.production.options import MachineOptions
from edge.production.signals import COUNTERS, ROLES, Input
from edge.production.virtual import DOUBTFUL_WHEN_UNKNOWN, SUSPECT_WITH_PERFORMANCE, VIRTUAL, values, virtual_tags
from edge.view import MachineView
from plant.batch import BAD, GOOD, UNCERTAIN, Batch
from plant.calendar import Calendar
from plant.counters import Counter
from plant.events import EventIds, MachineState
from plant.instant import NS_PER_S
from plant.losses import FACTOR, big_losses
from plant.oee import Kpis, TimeElements, is_early, kpis
from plant.tags import TagTable
from plant.texts import Texts

QUIET_NS: Final = 60 * NS_PER_S
"""Between two sets of virtual readings while no shift runs and nothing changes."""
_SUSPECT: Final = np.array([suffix in SUSPECT_WITH_PERFORMANCE for suffix, _, _ in VIRTUAL])
_DOUBTFUL: Final = np.array([suffix in DOUBTFUL_WHEN_UNKNOWN for suffix, _, _ in VIRTUAL])


class Watch:
    """What the stage keeps about one machine besides the machine.

    bad: the last reading of the state was BAD. said: when its state last came, shown: when its figures last went out
    (monotonic ns). spoke: False after a restart that left a gap, until the state has come again: what it was before
    proves nothing.
    """

    def __init__(self, machine: Machine, table: TagTable, inputs: list[Input]) -> None:
        self.machine = machine
        self.inputs = inputs
        names = [name for name, *_ in virtual_tags([machine.options])]
        self.tags = np.array([table[name].index for name in names], np.uint32)
        self.unknown_after_ns = round(machine.options.unknown_after_s * NS_PER_S)
        self.parts_period_ns = round(machine.options.parts_period_s * NS_PER_S)
        self.group = 0
        self.bad = False
        self.said = 0
        self.spoke = True
        self.shown = -QUIET_NS

    def look(self, utc: int) -> tuple[TimeElements, Kpis] | None:
        """Return the figures of the open shift at `utc`, None between shifts."""
        account = self.machine.account
        if account is None:
            return None
        elements = account.elements(utc)
        return elements, kpis(elements)


def watch(options: MachineOptions, table: TagTable, calendar: Calendar, texts: Texts, ids: EventIds) -> Watch:
    """Bind a machine to its tags."""
    inputs: list[Input] = []
    for role in ROLES:
        name = getattr(options, f"{role}_tag")
        if name is None:
            continue
        entry = Input(role, table[name], texts)
        if role in COUNTERS:
            entry.counter = Counter(options.counter_rule)
        if role == "running":
            entry.above = options.running_above
            entry.below = options.running_above if options.running_below is None else options.running_below
        inputs.append(entry)
    return Watch(Machine(options, calendar, ids), table, inputs)


def group_by_device(watches: Sequence[Watch], table: TagTable) -> tuple[NDArray[np.int64], int]:
    """Number the devices of the state tags from 0; return per tag index its device's number + 1, 0 for others."""
    numbers: dict[str, int] = {}
    for watched in watches:
        device = next(entry.tag.device for entry in watched.inputs if entry.role in {"state", "running"})
        watched.group = numbers.setdefault(device, len(numbers))
    groups = np.zeros(table.size, np.int64)
    for tag in table.tags:
        if not tag.virtual and tag.device in numbers:
            groups[tag.index] = numbers[tag.device] + 1
    return groups, len(numbers)


def restore_raw(watched: Watch, raw: Mapping[str, Sequence[float]]) -> None:
    for entry in watched.inputs:
        if entry.counter is not None and entry.role in raw:
            value, time = raw[entry.role]
            entry.counter.raw, entry.counter.time = float(value), int(time)


def suspect(machine: Machine, elements: TimeElements, figures: Kpis) -> bool:
    """Tell whether performance, and what it is a factor of, is impossible or rests on not even one ideal cycle."""
    return figures.performance_suspect or is_early(elements, machine.rating.ideal(machine.product))


def virtual(watched: Watch, utc: int) -> Batch:
    machine = watched.machine
    elements, figures = watched.look(utc) or (None, None)
    stopped = machine.state not in {MachineState.RUNNING, MachineState.UNKNOWN}
    row = values(
        elements,
        figures,
        machine.rating.ideal(machine.product),
        machine.state,
        machine.reason,
        max(0, utc - machine.since) if stopped else 0,
    )
    value = np.array(row, np.float64)
    quality = np.where(np.isnan(value), np.uint8(BAD), np.uint8(GOOD))
    if elements is not None and figures is not None:
        if suspect(machine, elements, figures):
            quality[_SUSPECT & (quality == GOOD)] = UNCERTAIN
        if figures.much_unknown:
            quality[_DOUBTFUL & (quality == GOOD)] = UNCERTAIN
    return Batch(watched.tags, np.full(len(value), utc, np.int64), value, quality)


def view(watched: Watch, utc: int) -> MachineView:
    machine, options = watched.machine, watched.machine.options
    elements, figures = watched.look(utc) or (TimeElements(), kpis(TimeElements()))
    losses: list[dict[str, object]] = [
        {"factor": FACTOR[row.loss], "currency": options.currency, **asdict(row), "loss": str(row.loss)}
        for row in sorted(big_losses(elements, options.cost_per_hour), key=lambda row: -row.minutes)
        if row.minutes
    ]
    shift = machine.shift
    return MachineView(
        name=options.name,
        asset=options.asset,
        state=str(machine.state),
        reason=None if machine.reason is None else str(machine.reason),
        state_since=machine.since,
        shift=shift.name if shift else "",
        shift_start=shift.start if shift else 0,
        shift_end=shift.end if shift else 0,
        order=machine.order,
        product=machine.product,
        produced=elements.pq,
        rejected=elements.rq,
        availability=figures.availability,
        performance=figures.performance,
        quality=figures.quality,
        oee=figures.oee,
        teep=figures.teep,
        utilisation=figures.utilisation,
        target_oee=options.target_oee,
        performance_suspect=figures.performance_suspect,
        unknown_s=elements.unknown / NS_PER_S,
        unobserved_s=elements.unobserved / NS_PER_S,
        uncertain=figures.much_unknown or suspect(machine, elements, figures),
        losses=losses,
    )
