"""OEE after ISO 22400-2: time elements and quantities as a fold over events, figures as ratios of them.

Owns: `TimeElements`, the pure `fold`, `merge`, the KPIs. Leaves to others: planned time (`plant.calendar`), which state
held when (`plant.timeline`), the running sum of a live shift (`plant.account`).

Rules:
- Fractions are 0..1 inside the product; `percent` is for people only.
- Periods are merged by adding time elements and quantities. OEE figures are never averaged.
- Every denominator is elapsed planned time, so a figure in the middle of a shift is as true as at its end.
- Unknown time that a counter bridges stays in the denominators and is not production: it lowers availability and never
  flatters, and the parts made in it are counted. Unobserved time (`plant.timeline`) leaves the denominators: nothing is
  known of it, so nothing is claimed. OEE = ideal time of good parts / observed time, however that time is split.
- Rejects count once: effectiveness uses all parts (PQ), quality takes the rejects out.
- What is impossible (effectiveness over 1, more rejects than parts) is flagged, not clipped.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final, Literal

from plant.calendar import Period, overlap_ns
from plant.events import Correction, Event, MachineState, PartsProduced, PartsRejected, StateChanged
from plant.instant import NS_PER_S
from plant.timeline import Element, blind, judged, timeline, unobserved

TARGET_OEE: Final = 0.85
UNKNOWN_SHARE_MAX: Final = 0.10
"""With more of the planned time unknown than this, figures are not to be acted on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    """What a machine could do. All lengths in ns.

    ideal_ns: planned run time per item (PRI) of products without their own; None when nobody stated one.
    products: PRI by product. micro_stop_ns: a stop shorter than this costs performance, not availability; 0 = none.
    startup_ns: rejects during set-up and this long after it are start-up rejects. counted: the machine has a counter.
    """

    ideal_ns: float | None = None
    products: Mapping[str, float] = field(default_factory=dict)
    micro_stop_ns: int = 0
    startup_ns: int = 0
    counted: bool = True

    def ideal(self, product: str) -> float | None:
        """Return PRI of a product in ns."""
        return self.products.get(product, self.ideal_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeElements:
    """Times in ns and quantities of one asset over one or more periods. Adding two is field by field.

    calendar: length of the period. pbt: planned busy time = apt + aust + adet + adot + maintenance + unknown.
    apt .. unknown: see `plant.timeline.Element`. unobserved: the part of unknown that leaves the denominators.
    uncounted: pbt of machines without a counter and without a part. micro_stop: the part of apt in micro_stops stops.
    unplanned_run: ran outside planned busy time (a break, a planned stop). failures, repair: failure events and the
    planned time lost to them. pq: parts produced, good and bad. pq_planned: those made in planned busy time.
    rq: rejected parts; of them rework can be repaired and startup_rq fell at start-up. ideal: PRI x parts over
    pq_planned, ns. unrated: parts of pq_planned whose ideal time nobody stated.
    """

    calendar: int = 0
    pbt: int = 0
    apt: int = 0
    aust: int = 0
    adet: int = 0
    adot: int = 0
    maintenance: int = 0
    unknown: int = 0
    unobserved: int = 0
    uncounted: int = 0
    micro_stop: int = 0
    micro_stops: int = 0
    unplanned_run: int = 0
    failures: int = 0
    repair: int = 0
    pq: float = 0.0
    pq_planned: float = 0.0
    rq: float = 0.0
    rework: float = 0.0
    startup_rq: float = 0.0
    ideal: float = 0.0
    unrated: float = 0.0

    @property
    def gq(self) -> float:
        """Good parts (GQ)."""
        return self.pq - self.rq

    @property
    def observed(self) -> int:
        """Planned busy time without what nobody can know, ns: the denominator of availability, OEE and NEE."""
        return self.pbt - self.unobserved

    @property
    def aupt(self) -> int:
        """Actual unit processing time = APT + AUST, ns."""
        return self.apt + self.aust

    @property
    def aubt(self) -> int:
        """Actual unit busy time = AUPT + ADET, ns."""
        return self.apt + self.aust + self.adet


_SUMMED: Final = tuple(f.name for f in fields(TimeElements))


def merge(parts: Iterable[TimeElements]) -> TimeElements:
    """Add the time elements and quantities of several periods or machines."""
    parts = list(parts)
    return TimeElements(**{name: sum(getattr(part, name) for part in parts) for name in _SUMMED})


def rated(
    quantity: float, corrected: float, ideal: float, unrated: float, default_ns: float | None
) -> tuple[float, float, float]:
    """Return (pq_planned, ideal, unrated) with `corrected` parts added at the mean ideal time of the others."""
    if not corrected:
        return quantity, ideal, unrated
    if quantity > 0:
        scale = (quantity + corrected) / quantity
        return quantity + corrected, ideal * scale, unrated * scale
    if default_ns is None:
        return quantity + corrected, ideal, unrated + corrected
    return quantity + corrected, ideal + corrected * default_ns, unrated


def fold(events: Iterable[Event], asset: str, period: Period, rating: Rating, until: int | None = None) -> TimeElements:
    """Return the time elements of `asset` over the part of `period` before `until` (ns UTC, default its end).

    events: in log order, holding the last StateChanged at or before the period and everything after it. Parts
    belong to the period in which they were counted, corrected parts to the one in which the correction starts. A
    counter that turns out later not to have gone on leaves out the time since it was last read, in any period.
    """
    events = [event for event in events if event.asset == asset]
    end = period.end if until is None else max(period.start, min(until, period.end))
    sums = dict.fromkeys(Element, 0)
    blinds, left_out = blind(events, asset), 0
    micro_stop = micro_stops = failures = repair = unplanned_run = 0
    was_micro = False
    for item in judged(timeline(events, asset, period.start, end), period.start, rating.micro_stop_ns):
        planned = overlap_ns(period.busy, item.segment.start, item.segment.end)
        sums[item.element] += planned
        for low, high in unobserved(item.segment, blinds, counted=rating.counted):
            left_out += overlap_ns(period.busy, low, high)
        if item.micro_stop:
            micro_stop += planned
            micro_stops += not was_micro
        was_micro = item.micro_stop
        failures += item.failed
        repair += planned if item.failure else 0
        if item.segment.state is MachineState.RUNNING:
            unplanned_run += item.segment.end - item.segment.start - planned
    parts = _parts(events, period, end, rating)
    pbt = overlap_ns(period.busy, period.start, end)
    return TimeElements(
        calendar=end - period.start,
        pbt=pbt,
        apt=sums[Element.APT],
        aust=sums[Element.AUST],
        adet=sums[Element.ADET],
        adot=sums[Element.ADOT],
        maintenance=sums[Element.MAINTENANCE],
        unknown=sums[Element.UNKNOWN],
        unobserved=left_out,
        uncounted=0 if rating.counted or parts["pq"] else pbt,
        micro_stop=micro_stop,
        micro_stops=micro_stops,
        unplanned_run=unplanned_run,
        failures=failures,
        repair=repair,
        **parts,
    )


def _parts(events: Iterable[Event], period: Period, end: int, rating: Rating) -> dict[str, float]:
    """Fold the quantities, in log order."""
    pq = pq_planned = rq = rework = startup_rq = ideal = unrated = corrected = 0.0
    startup = Startup(rating.startup_ns)
    for event in events:
        if isinstance(event, StateChanged):
            startup.state(event.time, event.state)
        elif isinstance(event, Correction):
            if period.start <= event.start < end:
                pq += event.produced
                corrected += event.produced
                rq += event.rejected
        elif not period.start <= event.time < end:
            continue
        elif isinstance(event, PartsProduced):
            pq += event.count
            if overlap_ns(period.busy, event.time, event.time + 1):
                pri = rating.ideal(event.product)
                pq_planned += event.count
                ideal += event.count * (pri or 0.0)
                unrated += event.count if pri is None else 0.0
        elif isinstance(event, PartsRejected):
            rq += event.count
            rework += event.count if event.rework else 0.0
            startup_rq += event.count if startup.holds(event.time) else 0.0
    pq_planned, ideal, unrated = rated(pq_planned, corrected, ideal, unrated, rating.ideal_ns)
    return {
        "pq": pq,
        "pq_planned": pq_planned,
        "rq": rq,
        "rework": rework,
        "startup_rq": startup_rq,
        "ideal": ideal,
        "unrated": unrated,
    }


class Startup:
    """Remembers whether a machine is in set-up or has just left it, from states in log order."""

    def __init__(self, startup_ns: int) -> None:
        self.startup_ns = startup_ns
        self.in_setup = False
        self.until = -1

    def state(self, time: int, state: MachineState) -> None:
        """Take the next state."""
        if self.in_setup and state is not MachineState.SETUP:
            self.until = time + self.startup_ns
        self.in_setup = state is MachineState.SETUP

    def holds(self, time: int) -> bool:
        """Tell whether a reject at `time` is one of start-up; never where the rating states no start-up time."""
        return self.startup_ns > 0 and (self.in_setup or time < self.until)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kpis:
    """Figures of one set of time elements; fractions 0..1, times in s. None where nothing can be said.

    OPBT is the observed part of PBT. availability APT/OPBT, performance (ISO: effectiveness) PRI x PQ/APT, quality
    (quality ratio) GQ/PQ, oee their product. nee: net equipment effectiveness, AUPT/OPBT x effectiveness x quality.
    utilisation: PBT/calendar, with all of PBT: what was planned is known. teep: oee x utilisation.
    utilisation_efficiency APT/AUBT, allocation_efficiency AUBT/OPBT, technical_efficiency APT/(APT + ADET),
    setup_ratio AUST/AUPT, scrap_ratio (parts beyond repair)/PQ, rework_ratio. mtbf_s: production time per failure;
    mttr_s: planned time lost per failure (IEC 60050-192; None without a failure).
    known: share of PBT that is not unknown. much_unknown: more than UNKNOWN_SHARE_MAX of it is. performance_suspect:
    effectiveness is over 1, so the ideal cycle, the counter or the state is wrong. quality_suspect: more rejects than
    parts.
    """

    availability: float | None
    performance: float | None
    quality: float | None
    oee: float | None
    teep: float | None
    utilisation: float | None
    nee: float | None
    utilisation_efficiency: float | None
    allocation_efficiency: float | None
    technical_efficiency: float | None
    setup_ratio: float | None
    scrap_ratio: float | None
    rework_ratio: float | None
    mtbf_s: float | None
    mttr_s: float | None
    known: float | None
    much_unknown: bool
    performance_suspect: bool
    quality_suspect: bool


def _ratio(numerator: float, denominator: float) -> float | None:
    return numerator / denominator if denominator > 0 else None


def kpis(e: TimeElements) -> Kpis:
    """Return the figures of time elements.

    OEE is ideal time of good parts / observed PBT, which is the product of its three factors wherever all exist. It is
    0 while no part was made in known time, and None when the whole planned time is unknown, no ideal cycle was stated
    or nobody counts the parts.
    """
    said = e.unknown < e.pbt
    rated_parts = not e.unrated and not e.uncounted
    availability = _ratio(e.apt, e.observed) if said else None
    performance = _ratio(e.ideal, e.apt) if rated_parts else None
    quality = _ratio(e.gq, e.pq)
    oee: float | None = None
    if said and rated_parts:
        oee = 0.0 if e.pq == 0 else None if quality is None else e.ideal * quality / e.observed
    utilisation = _ratio(e.pbt, e.calendar)
    processing = _ratio(e.aupt, e.apt)
    return Kpis(
        availability=availability,
        performance=performance,
        quality=quality,
        oee=oee,
        teep=None if oee is None or utilisation is None else oee * utilisation,
        utilisation=utilisation,
        nee=None if oee is None or processing is None else oee * processing,
        utilisation_efficiency=_ratio(e.apt, e.aubt),
        allocation_efficiency=_ratio(e.aubt, e.observed),
        technical_efficiency=_ratio(e.apt, e.apt + e.adet),
        setup_ratio=_ratio(e.aust, e.aupt),
        scrap_ratio=_ratio(e.rq - e.rework, e.pq),
        rework_ratio=_ratio(e.rework, e.pq),
        mtbf_s=_ratio(e.apt / NS_PER_S, e.failures),
        mttr_s=_ratio(e.repair / NS_PER_S, e.failures),
        known=_ratio(e.pbt - e.unknown, e.pbt),
        much_unknown=e.unknown > UNKNOWN_SHARE_MAX * e.pbt,
        performance_suspect=(performance is not None and performance > 1) or (e.apt == 0 and e.ideal > 0),
        quality_suspect=e.rq > e.pq,
    )


def is_early(e: TimeElements, ideal_ns: float | None) -> bool:
    """Tell whether less time than one ideal cycle (ns) was observed: not even a perfect machine has made a part yet."""
    return ideal_ns is not None and e.observed < ideal_ns


@dataclass(frozen=True, slots=True)
class Judgement:
    """OEE against its target. improvement_potential: max(0, target - oee)."""

    status: Literal["meeting_target", "below_target"]
    improvement_potential: float


def judge(oee: float | None, target: float = TARGET_OEE) -> Judgement | None:
    """Compare OEE with its target (both 0..1); None when there is no figure."""
    if oee is None:
        return None
    return Judgement("meeting_target" if oee >= target else "below_target", max(0.0, target - oee))


def percent(fraction: float) -> Decimal:
    """Return a fraction 0..1 as percent with two decimals, for people: 0.83333 -> Decimal("83.33")."""
    return (Decimal(repr(fraction)) * 100).quantize(Decimal("0.01"), rounding=ROUND_HALF_EVEN)
