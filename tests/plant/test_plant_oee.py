"""Time elements, figures and losses: by hand, against a brute-force model, and the running sum against the fold."""

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plant.account import Account
from plant.calendar import Period, merged, overlap_ns
from plant.events import (
    Correction,
    CounterAnomaly,
    DowntimeReason,
    Event,
    MachineState,
    PartsProduced,
    PartsRejected,
    StateChanged,
)
from plant.losses import Loss, big_losses, pareto
from plant.oee import Rating, Startup, TimeElements, fold, is_early, judge, kpis, merge, percent
from plant.timeline import STOPS, Element, element_of, timeline

S = 1_000_000_000
MIN = 60 * S
HOUR = 60 * MIN
ASSET = "line/press"
RUN, IDLE, SETUP, DOWN, MAINT, UNK = (
    MachineState.RUNNING,
    MachineState.IDLE,
    MachineState.SETUP,
    MachineState.DOWN,
    MachineState.MAINTENANCE,
    MachineState.UNKNOWN,
)


class Log:
    """Builds an event log; times in minutes."""

    def __init__(self):
        self.events: list[Event] = []

    def _key(self, minute: float) -> dict:
        return {"id": f"e{len(self.events)}", "time": round(minute * MIN), "asset": ASSET}

    def state(self, minute, state, reason=None):
        self.events.append(StateChanged(**self._key(minute), state=state, reason=reason))
        return self

    def made(self, minute, count, product=""):
        self.events.append(PartsProduced(**self._key(minute), count=count, product=product))
        return self

    def scrapped(self, minute, count, **kw):
        self.events.append(PartsRejected(**self._key(minute), count=count, **kw))
        return self

    def reset(self, minute, since):
        key = self._key(minute) | {"start": round(since * MIN)}
        self.events.append(CounterAnomaly(**key, tag="parts", before=9, after=0, anomaly="reset"))
        return self

    def correct(self, start, end, made_at=999, **kw):
        key = self._key(made_at)
        self.events.append(
            Correction(**key, start=round(start * MIN), end=round(end * MIN), user="eva", why="was there", **kw)
        )
        return self


def period(minutes: float, *breaks: tuple[float, float], start: float = 0) -> Period:
    edges = [round(start * MIN)]
    for low, high in breaks:
        edges += [round(low * MIN), round(high * MIN)]
    edges.append(round((start + minutes) * MIN))
    busy = merged(zip(edges[::2], edges[1::2], strict=True))
    return Period(edges[0], edges[-1], busy)


def test_figures_of_a_shift_worked_out_by_hand():
    # 480 min shift, 30 min break: PBT 450. Down 45 min: APT 405, A = 405/450 = 0.9. Target 60 parts/h: PRI 1 min.
    # 324 parts: P = 324/405 = 0.8. 16.2 rejects would be 5 %; 18 of 324: Q = 306/324 = 0.94444.
    # OEE = 0.9 * 0.8 * 306/324 = 306/450 = 0.68.
    log = (
        Log().state(0, RUN).state(100, DOWN, DowntimeReason.BREAKDOWN).state(145, RUN).made(440, 324).scrapped(441, 18)
    )
    e = fold(log.events, ASSET, period(480, (240, 270)), Rating(ideal_ns=MIN))
    k = kpis(e)
    assert (e.pbt, e.apt, e.adet) == (450 * MIN, 405 * MIN, 45 * MIN)
    assert (k.availability, k.performance) == (0.9, 0.8)
    assert k.quality == pytest.approx(306 / 324)
    assert k.oee == pytest.approx(0.68)
    assert k.utilisation == 450 / 480
    assert k.teep == pytest.approx(306 / 480)
    assert k.nee == pytest.approx(0.68)
    assert k.scrap_ratio == pytest.approx(18 / 324)
    assert (k.mtbf_s, k.mttr_s) == (405 * 60, 45 * 60)
    assert percent(k.oee) == Decimal("68.00")


def test_every_figure_and_every_loss_of_a_shift_worked_out_by_hand():
    # Early shift 06:00-14:00, 480 min; breaks 15 + 30 min: PBT 435. Ideal cycle 30 s. Micro-stop below 2 min.
    #
    #   0- 20 set-up, 6 parts in it, all 6 rejected      AUST 20, start-up rejects
    #  20-100 runs                                        80
    # 100-101.5 idle                                       1.5  micro-stop, stays in APT
    # 101.5-180 runs                                      78.5
    # 180-195 break                                       not planned
    # 195-225 down, breakdown                            ADET 30
    # 225-270 runs                                        45
    # 270-282 idle, no material                          ADOT 12
    # 282-330 runs                                        48
    # 330-360 break                                       not planned
    # 360-390 connection lost, 40 parts counted after it UNKNOWN 30, bridged
    # 390-405 connection lost, counter reset             UNKNOWN 15, unobserved
    # 405-475 runs                                        70
    # 475-480 maintenance                                 5
    #
    # APT = 80 + 1.5 + 78.5 + 45 + 48 + 70 = 323. Sum: 323 + 20 + 30 + 12 + 5 + 45 = 435. Observed: 435 - 15 = 420.
    # PQ = 6 + 594 = 600, RQ = 6 + 18 = 24 (of them 5 rework), GQ = 576. Ideal time of all parts 300 min, of good 288.
    log = Log().state(0, SETUP).made(19, 6).scrapped(19, 6).state(20, RUN).state(100, IDLE).state(101.5, RUN)
    log.state(195, DOWN, DowntimeReason.BREAKDOWN).state(225, RUN).state(270, IDLE, DowntimeReason.NO_MATERIAL)
    log.made(260, 414).scrapped(260, 13).state(282, RUN).state(360, UNK).made(389, 40).state(390, RUN).state(390, UNK)
    log.reset(405, since=390).state(405, RUN).made(474, 140).scrapped(474, 5, rework=True).state(475, MAINT)
    shift = period(480, (180, 195), (330, 360))
    e = fold(log.events, ASSET, shift, Rating(ideal_ns=30 * S, micro_stop_ns=2 * MIN, startup_ns=5 * MIN))
    minutes = {name: getattr(e, name) / MIN for name in ("pbt", "observed", "apt", "aust", "adet", "adot")}
    assert minutes == {"pbt": 435, "observed": 420, "apt": 323, "aust": 20, "adet": 30, "adot": 12}
    assert (e.maintenance, e.unknown, e.unobserved) == (5 * MIN, 45 * MIN, 15 * MIN)
    assert (e.micro_stops, e.failures, e.pq, e.rq, e.gq, e.ideal) == (1, 1, 600, 24, 576, 300 * MIN)
    k = kpis(e)
    assert k.availability == pytest.approx(323 / 420)  # 0.7690
    assert k.performance == pytest.approx(300 / 323)  # 0.9288
    assert k.quality == pytest.approx(0.96)
    assert k.oee == pytest.approx(288 / 420)  # 0.6857, and 0.7690 x 0.9288 x 0.96
    assert k.oee == pytest.approx(k.availability * k.performance * k.quality)
    assert k.utilisation == pytest.approx(435 / 480)
    assert k.teep == pytest.approx(288 / 420 * 435 / 480)
    assert k.nee == pytest.approx(343 / 420 * 300 / 323 * 0.96)
    assert k.utilisation_efficiency == pytest.approx(323 / 373)
    assert k.allocation_efficiency == pytest.approx(373 / 420)
    assert k.technical_efficiency == pytest.approx(323 / 353)
    assert k.setup_ratio == pytest.approx(20 / 343)
    assert (k.scrap_ratio, k.rework_ratio) == (pytest.approx(19 / 600), pytest.approx(5 / 600))
    assert (k.mtbf_s, k.mttr_s) == (323 * 60, 30 * 60)
    assert (k.known, k.much_unknown) == (pytest.approx(390 / 435), True)
    assert (k.performance_suspect, k.quality_suspect) == (False, False)
    # Reduced speed: 323 - 1.5 - 300 = 21.5. A rejected part costs its half minute. At 120 an hour a minute costs 2.
    rows = {row.loss.value: row for row in big_losses(e, cost_per_hour=120)}
    lost = {name: round(row.minutes, 9) for name, row in rows.items()}
    assert lost == {
        "breakdowns": 30,
        "setup_and_adjustment": 20,
        "minor_stops": 1.5,
        "reduced_speed": 21.5,
        "process_defects": 9,
        "startup_rejects": 3,
        "waiting": 12,
        "maintenance": 5,
        "unknown": 30,
        "unobserved": 15,
    }
    assert sum(lost.values()) + 288 == 435
    assert (rows["breakdowns"].parts, rows["breakdowns"].money) == (60, 60)


def test_a_figure_in_mid_shift_uses_the_planned_time_that_has_elapsed():
    # One hour into an eight-hour shift, running throughout at the ideal rate: everything is 1, not 1/8.
    log = Log().state(0, RUN).made(59, 60)
    k = kpis(fold(log.events, ASSET, period(480), Rating(ideal_ns=MIN), until=60 * MIN))
    assert (k.availability, k.performance, k.quality, k.oee) == (1, 1, 1, 1)


def test_rejects_are_punished_once():
    # 100 parts at the ideal rate in 100 min, 10 rejected: performance 1, quality 0.9, OEE 0.9 (not 0.81).
    log = Log().state(0, RUN).made(50, 100).scrapped(50, 10)
    k = kpis(fold(log.events, ASSET, period(100), Rating(ideal_ns=MIN)))
    assert (k.performance, k.quality) == (1, 0.9)
    assert k.oee == pytest.approx(0.9)


def test_performance_over_one_is_flagged_and_not_clipped():
    log = Log().state(0, RUN).made(50, 150)
    k = kpis(fold(log.events, ASSET, period(100), Rating(ideal_ns=MIN)))
    assert k.performance == 1.5
    assert k.performance_suspect
    assert k.oee == 1.5
    assert [
        row.minutes for row in big_losses(fold(log.events, ASSET, period(100), Rating(ideal_ns=MIN))) if row.minutes
    ] == [-50]


def test_parts_without_any_running_time_are_suspect_and_more_rejects_than_parts_too():
    k = kpis(fold(Log().state(0, IDLE).made(5, 3).events, ASSET, period(10), Rating(ideal_ns=MIN)))
    assert k.performance is None
    assert k.performance_suspect
    k = kpis(fold(Log().state(0, RUN).made(5, 3).scrapped(6, 4).events, ASSET, period(10), Rating(ideal_ns=MIN)))
    assert k.quality_suspect


def test_a_change_of_product_weights_each_part_with_its_own_cycle():
    # 60 parts of A at 30 s and 20 of B at 90 s: ideal time 30 + 30 = 60 min in 80 min of running: 0.75.
    # An average cycle of 60 s would give 80/80 = 1.
    rating = Rating(ideal_ns=999 * S, products={"A": 30 * S, "B": 90 * S})
    log = Log().state(0, RUN).made(40, 60, "A").made(79, 20, "B")
    assert kpis(fold(log.events, ASSET, period(80), rating)).performance == 0.75


def test_without_an_ideal_cycle_there_is_no_performance_and_no_oee():
    log = Log().state(0, RUN).made(5, 7)
    k = kpis(fold(log.events, ASSET, period(10), Rating()))
    assert (k.availability, k.performance, k.quality, k.oee) == (1, None, 1, None)


def test_a_machine_that_was_down_all_shift_has_oee_zero_but_one_nobody_saw_has_none():
    k = kpis(fold(Log().state(0, DOWN).events, ASSET, period(60), Rating(ideal_ns=MIN)))
    assert (k.availability, k.performance, k.quality, k.oee) == (0, None, None, 0)
    k = kpis(fold([], ASSET, period(60), Rating(ideal_ns=MIN)))
    assert (k.availability, k.oee, k.known) == (None, None, 0)


def test_outside_planned_time_nothing_is_said():
    e = fold(Log().state(0, RUN).made(5, 10).events, ASSET, Period(0, 10 * MIN, ()), Rating(ideal_ns=MIN))
    k = kpis(e)
    assert (e.pbt, e.unplanned_run, e.pq, e.pq_planned) == (0, 10 * MIN, 10, 0)
    assert (k.availability, k.oee, k.teep, k.utilisation) == (None, None, None, 0)


def test_unknown_time_is_its_own_bucket_and_never_production():
    log = Log().state(0, RUN).state(60, UNK).state(90, RUN).made(100, 60)
    e = fold(log.events, ASSET, period(120), Rating(ideal_ns=MIN))
    k = kpis(e)
    assert (e.unknown, e.apt) == (30 * MIN, 90 * MIN)
    assert (k.availability, k.known) == (0.75, 0.75)
    assert k.oee == 0.5


def test_time_before_the_first_state_is_unknown_and_leaves_the_denominators():
    # Watched from minute 60 on, 30 of 60 parts: OEE 0.5 of what was observed, while utilisation is as planned.
    e = fold(Log().state(60, RUN).made(100, 30).events, ASSET, period(150, (0, 30)), Rating(ideal_ns=MIN))
    k = kpis(e)
    assert (e.pbt, e.unknown, e.unobserved, e.apt, e.observed) == (120 * MIN, 30 * MIN, 30 * MIN, 90 * MIN, 90 * MIN)
    assert (k.availability, k.oee, k.nee) == (1, pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert (k.utilisation, k.teep) == (120 / 150, pytest.approx(120 / 150 / 3))
    assert (k.known, k.much_unknown) == (0.75, True)


def test_unknown_time_is_left_out_where_the_counter_did_not_go_on():
    log = Log().state(0, RUN).state(20, UNK).state(50, RUN).made(51, 70)
    bridged = fold(log.events, ASSET, period(100), Rating(ideal_ns=MIN))
    assert (bridged.unknown, bridged.unobserved) == (30 * MIN, 0)
    assert kpis(bridged).oee == pytest.approx(0.7)
    # The counter was last read at minute 15 and next at 50, from zero: its running time counts, the unknown does not.
    e = fold(log.reset(50, since=15).events, ASSET, period(100), Rating(ideal_ns=MIN))
    assert (e.unknown, e.unobserved, e.apt) == (30 * MIN, 30 * MIN, 70 * MIN)
    assert kpis(e).oee == pytest.approx(1)
    assert kpis(e).availability == 1
    rows = {row.loss: row for row in big_losses(e, cost_per_hour=60)}
    assert (rows[Loss.UNKNOWN].minutes, rows[Loss.UNOBSERVED].minutes) == (0, 30)
    assert (rows[Loss.UNOBSERVED].parts, rows[Loss.UNOBSERVED].money) == (None, None)
    # A person who was there can say what happened: that is observed again.
    e = fold(log.correct(30, 40, state=RUN, produced=10).events, ASSET, period(100), Rating(ideal_ns=MIN))
    assert (e.unknown, e.unobserved, e.apt) == (20 * MIN, 20 * MIN, 80 * MIN)


def test_a_reset_found_in_the_next_shift_is_told_of_the_shift_before_too():
    log = Log().state(0, RUN).state(50, UNK).state(70, RUN).reset(70, since=50)
    first = fold(log.events, ASSET, period(60), Rating())
    second = fold(log.events, ASSET, period(60, start=60), Rating())
    assert (first.unobserved, second.unobserved) == (10 * MIN, 10 * MIN)
    assert merge([first, second]).unobserved == 20 * MIN


def test_two_counters_that_are_reset_together_leave_out_the_time_once():
    log = Log().state(0, RUN).state(20, UNK).state(50, RUN).reset(50, since=15).reset(51, since=19)
    assert fold(log.events, ASSET, period(100), Rating()).unobserved == 30 * MIN


def test_a_machine_without_a_counter_cannot_bridge_unknown_time_and_has_no_oee():
    log = Log().state(0, RUN).state(20, UNK).state(50, RUN)
    rating = Rating(ideal_ns=MIN, counted=False)
    k = kpis(fold(log.events, ASSET, period(100), rating))
    assert (k.availability, k.performance, k.oee) == (1, None, None)
    k = kpis(fold(log.correct(0, 100, produced=35).events, ASSET, period(100), rating))
    assert (k.performance, k.oee) == (0.5, 0.5)


def test_before_one_ideal_cycle_has_been_observed_nothing_can_have_been_made():
    log = Log().state(60, RUN)
    assert is_early(fold(log.events, ASSET, period(100), Rating(), until=62 * MIN), 3 * MIN)
    assert not is_early(fold(log.events, ASSET, period(100), Rating(), until=63 * MIN), 3 * MIN)
    assert not is_early(TimeElements(), None)


def test_merging_adds_time_elements_and_does_not_average_oee():
    # 10 min at OEE 1 and 90 min at OEE 0.2: 28/100, not the mean 0.6.
    rating = Rating(ideal_ns=MIN)
    good = fold(Log().state(0, RUN).made(5, 10).events, ASSET, period(10), rating)
    poor = fold(Log().state(0, RUN).made(5, 18).events, ASSET, period(90), rating)
    assert kpis(merge([good, poor])).oee == pytest.approx(0.28)
    assert merge([]) == TimeElements()


def test_a_stop_below_the_threshold_costs_performance_and_one_above_it_availability():
    log = Log().state(0, RUN).state(10, IDLE).state(11, RUN).state(30, IDLE).state(33, DOWN).state(35, RUN)
    e = fold(log.events, ASSET, period(60), Rating(ideal_ns=MIN, micro_stop_ns=2 * MIN))
    # The idle minute is a micro-stop; 3 min idle + 2 min down are one stop of 5 min although the 2 min alone are not.
    assert (e.micro_stop, e.micro_stops, e.adot, e.adet, e.apt) == (MIN, 1, 3 * MIN, 2 * MIN, 55 * MIN)


def test_a_stop_that_started_before_the_shift_is_judged_by_its_whole_length():
    log = Log().state(-60, IDLE).state(1, RUN)
    e = fold(log.events, ASSET, period(60), Rating(micro_stop_ns=5 * MIN))
    assert (e.micro_stops, e.adot) == (0, MIN)


def test_a_failure_is_counted_in_the_period_in_which_it_begins():
    log = Log().state(0, RUN).state(50, DOWN).state(70, RUN).state(80, DOWN).state(85, DOWN, DowntimeReason.BREAKDOWN)
    log.state(90, RUN).state(95, DOWN, DowntimeReason.NO_MATERIAL).state(99, RUN)
    first = fold(log.events, ASSET, period(60), Rating())
    second = fold(log.events, ASSET, period(60, start=60), Rating())
    assert (first.failures, first.repair) == (1, 10 * MIN)
    assert (second.failures, second.repair, second.adot) == (1, 20 * MIN, 4 * MIN)
    both = kpis(merge([first, second]))
    assert both.mttr_s == 15 * 60


def test_a_correction_restates_the_past_and_the_last_one_counts():
    log = Log().state(0, RUN).state(20, DOWN).state(50, RUN).made(55, 30)
    rating = Rating(ideal_ns=MIN)
    assert fold(log.events, ASSET, period(60), rating).adet == 30 * MIN
    log.correct(20, 50, state=MAINT, reason=DowntimeReason.PLANNED_MAINTENANCE)
    e = fold(log.events, ASSET, period(60), rating)
    assert (e.adet, e.maintenance) == (0, 30 * MIN)
    log.correct(30, 50, state=RUN)
    e = fold(log.events, ASSET, period(60), rating)
    assert (e.maintenance, e.apt) == (10 * MIN, 50 * MIN)
    # The events that were corrected are still in the log, and the segments name what holds now.
    assert [type(event).__name__ for event in log.events[:3]] == ["StateChanged"] * 3
    assert [s.event for s in timeline(log.events, ASSET, 0, 60 * MIN)] == ["e0", "e4", "e5", "e2"]


def test_corrections_that_overlap_cannot_make_availability_negative():
    log = Log().state(0, RUN)
    for shift in range(5):
        log.correct(shift, 50 + shift, state=DOWN)
    e = fold(log.events, ASSET, period(60), Rating())
    assert (e.adet, e.apt) == (54 * MIN, 6 * MIN)
    assert kpis(e).availability == 0.1


def test_corrected_parts_count_at_the_mean_cycle_of_the_period():
    log = Log().state(0, RUN).made(10, 10, "A").made(20, 10, "B").correct(5, 6, produced=10, rejected=2)
    e = fold(log.events, ASSET, period(60), Rating(products={"A": MIN, "B": 2 * MIN}))
    assert (e.pq, e.rq, e.ideal) == (30, 2, 45 * MIN)
    assert fold(log.events, ASSET, period(60, start=60), Rating()).pq == 0


def test_a_reason_moves_a_stop_to_its_element_and_never_touches_running():
    assert element_of(DOWN, DowntimeReason.CHANGEOVER) is Element.AUST
    assert element_of(DOWN, DowntimeReason.NO_OPERATOR) is Element.ADOT
    assert element_of(IDLE, DowntimeReason.BREAKDOWN) is Element.ADET
    assert element_of(RUN, DowntimeReason.BREAKDOWN) is Element.APT
    assert element_of(UNK, DowntimeReason.NO_OPERATOR) is Element.UNKNOWN


def test_events_of_other_assets_do_not_count():
    other = [
        StateChanged(id="x", time=0, asset="other", state=RUN),
        PartsProduced(id="y", time=1, asset="other", count=9),
    ]
    e = fold(other, ASSET, period(10), Rating(ideal_ns=MIN))
    assert (e.pq, e.unknown) == (0, 10 * MIN)


def test_target_and_alert_are_separate_and_the_potential_is_what_is_missing():
    assert judge(0.9).status == "meeting_target"
    assert judge(0.9).improvement_potential == 0
    below = judge(0.6, target=0.75)
    assert below.status == "below_target"
    assert below.improvement_potential == pytest.approx(0.15)
    assert judge(None) is None


@pytest.mark.parametrize(
    ("fraction", "shown"), [(0.83333, "83.33"), (1.0, "100.00"), (0.00005, "0.00"), (0.00015, "0.02")]
)
def test_percent_has_two_decimals(fraction, shown):
    assert percent(fraction) == Decimal(shown)


def test_losses_add_up_to_planned_time_and_cost_money():
    log = (
        Log().state(0, SETUP).state(10, RUN).scrapped(9, 2).made(60, 50).scrapped(60, 3).state(70, IDLE).state(71, RUN)
    )
    log.state(80, DOWN).state(90, MAINT).state(95, UNK).state(98, IDLE, DowntimeReason.NO_OPERATOR)
    e = fold(log.events, ASSET, period(120), Rating(ideal_ns=MIN, micro_stop_ns=2 * MIN, startup_ns=MIN))
    rows = {row.loss: row for row in big_losses(e, cost_per_hour=120)}
    assert list(rows) == list(Loss)
    assert rows[Loss.STARTUP_REJECTS].minutes == 2
    assert rows[Loss.PROCESS_DEFECTS].minutes == 3
    assert rows[Loss.BREAKDOWNS].minutes == 10
    assert rows[Loss.BREAKDOWNS].money == 20
    assert rows[Loss.BREAKDOWNS].parts == 10
    assert rows[Loss.MINOR_STOPS].minutes == 1
    good = 45
    assert sum(row.minutes for row in rows.values()) + good == pytest.approx(120)
    assert big_losses(e)[0].money is None


def test_the_pareto_ranks_by_minutes_or_by_count_and_names_its_events():
    log = Log().state(0, RUN)
    for minute in (10, 12, 14):
        log.state(minute, IDLE, DowntimeReason.NO_MATERIAL).state(minute + 1, RUN)
    log.state(20, DOWN, DowntimeReason.BREAKDOWN).state(40, RUN).state(50, IDLE).state(50.5, RUN)
    rating = Rating(micro_stop_ns=45 * S)
    rows = pareto(log.events, ASSET, period(60), rating)
    assert [(r.cause, r.minutes, r.count) for r in rows] == [
        ("breakdown", 20, 1),
        ("no_material", 3, 3),
        ("micro_stop", 0.5, 1),
    ]
    assert rows[0].events == ("e7",)
    assert rows[-1].cumulative == pytest.approx(1)
    assert pareto(log.events, ASSET, period(60), rating, by="count")[0].cause == "no_material"


# -- properties ---------------------------------------------------------------------------------------------------

states = st.sampled_from(list(MachineState))
reasons = st.one_of(st.none(), st.sampled_from(list(DowntimeReason)))
PERIOD = Period(20, 100, ((20, 45), (50, 70), (72, 95)))
RATING = Rating(ideal_ns=2.0, products={"B": 3.0}, micro_stop_ns=6, startup_ns=5)


@st.composite
def logs(draw) -> list[Event]:
    """A log in arrival order: time never falls, states and parts mixed."""
    events: list[Event] = []
    time = 0
    for i in range(draw(st.integers(0, 30))):
        time += draw(st.integers(0, 12))
        key = {"id": f"e{i}", "time": time, "asset": ASSET}
        kind = draw(st.sampled_from(["state", "state", "made", "scrapped", "reset"]))
        if kind == "state":
            events.append(StateChanged(**key, state=draw(states), reason=draw(reasons)))
        elif kind == "reset":
            since = time - draw(st.integers(-2, 30))
            events.append(CounterAnomaly(**key, tag="t", before=2, after=1, anomaly="reset", start=since))
        elif kind == "made":
            events.append(PartsProduced(**key, count=draw(st.integers(0, 5)), product=draw(st.sampled_from("AB"))))
        else:
            events.append(PartsRejected(**key, count=draw(st.integers(0, 3)), rework=draw(st.booleans())))
    return events


corrections = st.lists(
    st.tuples(st.integers(0, 120), st.integers(0, 120), states, reasons, st.integers(-2, 3)), max_size=4
).map(
    lambda rows: [
        Correction(
            id=f"c{i}", time=200 + i, asset=ASSET, start=a, end=b, user="u", why="w", state=s, reason=r, produced=n
        )
        for i, (a, b, s, r, n) in enumerate(rows)
    ]
)


def brute_force(events: list[Event], until: int, micro_stop: int = 6) -> dict[str, int]:
    """Instant by instant: which state holds, which stop is it in, is it planned."""
    holds: dict[int, tuple] = {}
    lost: dict[int, bool] = {}
    for t in range(-1, until):
        current = (UNK, None)
        watched = False
        for event in sorted((e for e in events if isinstance(e, StateChanged)), key=lambda e: e.time):
            if event.time <= t:
                current, watched = (event.state, event.reason), True
        for event in events:
            if isinstance(event, Correction) and event.start <= t < event.end:
                current, watched = (event.state, event.reason), True
        blind = any(isinstance(e, CounterAnomaly) and 0 < e.start <= t < e.time for e in events)
        lost[t] = current[0] is UNK and (blind or not watched)
        holds[t] = current
    counts = {element.value: 0 for element in Element} | {"micro_stop": 0, "pbt": 0, "unobserved": 0}
    t = PERIOD.start
    previous = None
    while t < until:
        element = element_of(*holds[t])
        if element not in STOPS:
            stretch, value, micro = 1, [element], False
        else:
            last = t
            while last < until and element_of(*holds[last]) in STOPS:
                last += 1
            stretch = last - t
            value = [element_of(*holds[i]) for i in range(t, last)]
            micro = previous in {None, Element.APT} and stretch < micro_stop
        for i in range(stretch):
            if overlap_ns(PERIOD.busy, t + i, t + i + 1):
                counts["pbt"] += 1
                counts["unobserved"] += lost[t + i]
                counts["micro_stop"] += micro
                counts[Element.APT.value if micro else value[i].value] += 1
        previous = Element.APT if micro else value[-1]
        t += stretch
    return counts


@settings(max_examples=200)
@given(logs(), corrections, st.integers(20, 100))
def test_the_fold_agrees_with_looking_at_every_instant(log, fixes, until):
    # The model does not know how long a stop lasted before the period, so the log starts with it.
    events = [event for event in log if event.time >= PERIOD.start] + [c for c in fixes if c.start >= PERIOD.start]
    e = fold(events, ASSET, PERIOD, RATING, until)
    model = brute_force(events, until)
    assert {name: getattr(e, name) for name in model} == model


@settings(max_examples=200)
@given(logs(), corrections, st.integers(0, 130))
def test_time_elements_are_never_negative_and_add_up_to_planned_time(log, fixes, until):
    e = fold(log + fixes, ASSET, PERIOD, RATING, until)
    times = (e.apt, e.aust, e.adet, e.adot, e.maintenance, e.unknown)
    assert min(times) >= 0
    assert sum(times) == e.pbt <= e.calendar
    assert 0 <= e.unobserved <= e.unknown
    assert e.micro_stop <= e.apt
    assert e.repair <= e.adet
    if e.pq_planned > 0:
        lost = sum(row.minutes for row in big_losses(e)) * MIN
        assert lost + e.ideal * (1 - e.rq / e.pq) == pytest.approx(e.pbt, abs=1e-6) if e.pq > 0 else True


@settings(max_examples=300)
@given(logs(), st.lists(st.integers(20, 130), max_size=4))
def test_the_running_sum_equals_the_fold_at_every_moment(log, looks):
    account = Account(PERIOD, RATING)
    startup = Startup(RATING.startup_ns)
    for i, event in enumerate(log):
        if isinstance(event, StateChanged):
            startup.state(event.time, event.state)
            account.state(event.time, event.state, event.reason)
        elif isinstance(event, PartsProduced):
            account.produced(event)
        elif isinstance(event, PartsRejected):
            account.rejected(event, startup=startup.holds(event.time))
        elif isinstance(event, CounterAnomaly):
            account.blind(event.start, event.time)
        now = event.time + 1
        assert account.elements(now) == fold(log[: i + 1], ASSET, PERIOD, RATING, now)
    latest = log[-1].time if log else 0
    for look in looks:
        now = latest + look
        assert account.elements(now) == fold(log, ASSET, PERIOD, RATING, now)


@settings(max_examples=200)
@given(logs(), corrections, logs())
def test_a_rebuilt_running_sum_equals_the_fold_with_its_corrections(log, fixes, later):
    now = 60
    past = [event for event in log if event.time <= now]
    fixes = [c for c in fixes if c.end <= now]
    account = Account(PERIOD, RATING)
    for event in past:
        if isinstance(event, CounterAnomaly):
            account.blind(event.start, event.time)
    account.feed(timeline(past + fixes, ASSET, PERIOD.start, now + 1))
    states_later = [
        replace(event, time=now + 1 + event.time) for event in later if isinstance(event, StateChanged | CounterAnomaly)
    ]
    for event in states_later:
        if isinstance(event, StateChanged):
            account.state(event.time, event.state, event.reason)
        else:
            account.blind(event.start, event.time)
    e, want = account.elements(150), fold(past + fixes + states_later, ASSET, PERIOD, RATING)
    names = (
        "calendar",
        "pbt",
        "apt",
        "aust",
        "adet",
        "adot",
        "maintenance",
        "unknown",
        "unobserved",
        "micro_stop",
        "failures",
        "repair",
    )
    assert {n: getattr(e, n) for n in names} == {n: getattr(want, n) for n in names}
    assert e.micro_stops == want.micro_stops


@given(logs(), logs())
def test_merging_two_shifts_of_plain_production_equals_folding_both(first, second):
    # Without a threshold no stop depends on what lies across the boundary.
    rating = Rating(ideal_ns=2.0)
    log = [
        *first,
        *(
            StateChanged(id=e.id, time=e.time + 400, asset=ASSET, state=e.state)
            for e in second
            if isinstance(e, StateChanged)
        ),
    ]
    a, b = Period(0, 50, ((0, 50),)), Period(50, 900, ((50, 900),))
    both = merge([fold(log, ASSET, a, rating), fold(log, ASSET, b, rating)])
    assert both == fold(log, ASSET, Period(0, 900, ((0, 900),)), rating)
