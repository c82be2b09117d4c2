"""The production stage: readings in, events and virtual readings out; the account of the shift equals its log."""

import json
from datetime import UTC, datetime
from itertools import count

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.production import MachineOptions, Production, ShiftsOptions, calendar_of, virtual_tags
from edge.tick import Command
from plant.batch import BAD, EMPTY, GOOD, UNCERTAIN, Batch, of_rows
from plant.events import (
    Audit,
    Correction,
    CounterAnomaly,
    DowntimeReason,
    EventIds,
    MachineState,
    OrderEnded,
    OrderStarted,
    PartsProduced,
    PartsRejected,
    StateChanged,
    from_record,
    to_record,
)
from plant.instant import Instant
from plant.oee import fold, kpis
from plant.tags import Tag, TagTable
from plant.texts import Texts

S = 1_000_000_000
MIN = 60 * S
HOUR = 60 * MIN
ASSET = "pressing/line2/press"
DEVICE_TAGS = ("state", "parts", "good", "rejects", "power", "reason", "order", "product", "temperature")
TEXT_TAGS = frozenset({"order", "product"})


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * S


DAY = at("2026-06-01T00:00:00")
SHIFTS = {
    "time_zone": "UTC",
    "shift": [
        {"name": "early", "start": "06:00", "end": "14:00", "break": [{"start": "10:00", "end": "10:30"}]},
        {"name": "late", "start": "14:00", "end": "22:00"},
    ],
}
MACHINE = {
    "name": "press",
    "asset": ASSET,
    "state_tag": "state",
    "states": {"1": "running", "2": "idle", "3": "setup", "4": "down", "5": "maintenance"},
    "produced_tag": "parts",
    "rejected_tag": "rejects",
    "counter_maximum": 65535,
    "max_step_per_s": 50,
    "ideal_cycle_s": 10,
    "micro_stop_s": 30,
}


class Plant:
    """One machine behind the stage, with a clock of its own and everything that came out of it."""

    def __init__(self, start="2026-06-01T06:00:00", shifts=None, log=(), counters=None, texts=None, **options):
        self.options = MachineOptions.model_validate(MACHINE | options)
        names = [*DEVICE_TAGS, "other"]
        virtual = [name for name, *_ in virtual_tags([self.options])]
        self.table = TagTable(
            [Tag(name=n, index=i, device="plc", text=n in TEXT_TAGS) for i, n in enumerate(names[:-1])]
            + [Tag(name="other", index=9, device="elsewhere")]
            + [Tag(name=n, index=20 + i, virtual=True) for i, n in enumerate(virtual)]
        )
        self.texts = texts or Texts()
        self.calendar = calendar_of(ShiftsOptions.model_validate(SHIFTS if shifts is None else shifts), "UTC")
        self.production = Production([self.options], self.table, self.calendar, self.texts, EventIds(f"p{len(log)}"))
        self.events = list(log)
        if log or counters:
            self.production.restore(self.events, counters or {})
        self.shown: dict[str, tuple[float, int]] = {}
        self.utc = at(start) if isinstance(start, str) else start
        self.monotonic = 5 * S

    @property
    def now(self) -> Instant:
        return Instant(self.utc, self.monotonic)

    def step(self, *rows, quality=GOOD, batch=None) -> list:
        if batch is None:
            batch = of_rows(
                [
                    (
                        self.table[name].index,
                        self.utc,
                        self.texts.code(self.table[name].index, v) if isinstance(v, str) else v,
                        quality,
                    )
                    for name, v in rows
                ]
            )
        derived = self.production.derive(batch, self.now)
        self.take(derived)
        return list(derived.events)

    def take(self, derived):
        self.events += derived.events
        for tag, time, value, quality in zip(
            derived.readings.tag, derived.readings.time, derived.readings.value, derived.readings.quality, strict=True
        ):
            self.shown[self.table.by_index[int(tag)].name.removeprefix("press.")] = (float(value), int(quality))
            assert int(time) <= max(self.utc, int(time))

    def wait(self, seconds: float, *rows, quality=GOOD):
        self.utc += round(seconds * S)
        self.monotonic += round(seconds * S)
        return self.step(*rows, quality=quality)

    def alive(self, seconds: float, period: float = 30.0):
        """Let time pass while the device goes on sending something."""
        left = seconds
        while left > 0:
            self.wait(min(period, left), ("temperature", 20.0))
            left -= period

    def ask(self, name, user="eva", **arguments):
        reply, events = self.production.command(
            Command(id="c1", name=name, user=user, arguments={"asset": ASSET} | arguments), self.now
        )
        self.events += events
        return reply

    def elements(self):
        shift = self.calendar.at(ASSET, self.utc)
        return fold(self.events, ASSET, shift.period, self.options.rating, self.utc)

    def agrees(self):
        """The account of the open shift equals the fold of the log; the instant after, so that it holds this one."""
        account = self.production._watches[0].machine.account
        want = fold(self.events, ASSET, account.period, self.options.rating, self.utc + 1)
        assert account.elements(self.utc + 1) == want

    @property
    def view(self):
        (view,) = self.production.views(self.now)
        return view

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


def test_a_shift_is_followed_from_readings_to_figures():
    # 06:00-07:00: run 30 min, down 15, run 15. 180 parts of 10 s = 30 min of ideal time, 9 rejected.
    # A = 45/60, P = 30/45, Q = 171/180, OEE = 30 * 0.95 / 60 = 0.475.
    plant = Plant()
    plant.step(("state", 1), ("parts", 1000), ("rejects", 10))
    plant.alive(1800)
    plant.step(("state", 4), ("parts", 1120), ("rejects", 14))
    plant.alive(900)
    plant.step(("state", 1))
    plant.alive(900)
    plant.step(("parts", 1180), ("rejects", 19))
    view = plant.view
    assert (view.shift, view.produced, view.rejected) == ("early", 180, 9)
    assert view.availability == pytest.approx(0.75)
    assert view.performance == pytest.approx(30 / 45)
    assert view.quality == pytest.approx(0.95)
    assert view.oee == pytest.approx(0.475)
    assert plant.shown["oee"] == (pytest.approx(0.475), GOOD)
    assert plant.shown["state"][0] == 1
    plant.agrees()


def test_figures_follow_an_event_within_the_same_step_and_each_second_without_one():
    plant = Plant()
    plant.step(("state", 1), ("parts", 0))
    plant.wait(10, ("parts", 1))
    assert plant.shown["produced"][0] == 1
    before = plant.shown["oee"][0]
    plant.wait(1.0)
    assert plant.shown["oee"][0] < before


def test_a_step_that_does_not_concern_the_machines_yields_nothing():
    plant = Plant()
    plant.step(("state", 1))
    plant.utc += 1000
    plant.monotonic += 1000
    derived = plant.production.derive(of_rows([(plant.table["other"].index, plant.utc, 1.0, GOOD)]), plant.now)
    assert len(derived.readings) == 0
    assert derived.events == ()
    assert len(plant.production.derive(EMPTY, plant.now).readings) == 0


def test_a_running_signal_with_hysteresis_gives_the_state():
    plant = Plant(state_tag=None, states={}, running_tag="power", running_above=5.0, running_below=3.0)
    index = plant.table["power"].index
    plant.step()
    plant.wait(10)
    power = np.array([0.1, 4.0, 6.0, 4.0, 5.5, 2.0, 4.0, 4.5])
    n = len(power)
    times = plant.utc - (n - np.arange(n)) * S
    plant.step(batch=Batch(np.full(n, index, np.uint32), times, power, np.full(n, GOOD, np.uint8)))
    assert [(e.state, e.time) for e in plant.of(StateChanged)] == [
        (MachineState.IDLE, int(times[0])),
        (MachineState.RUNNING, int(times[2])),
        (MachineState.IDLE, int(times[5])),
    ]


def test_a_state_code_without_a_mapping_is_unknown_time():
    plant = Plant()
    plant.step(("state", 77))
    plant.alive(60)
    assert plant.view.state == "unknown"
    assert plant.view.unknown_s == 60
    assert plant.shown["oee"][1] == BAD


def test_good_and_rejected_counters_add_up_to_parts_produced():
    plant = Plant(produced_tag=None, good_tag="good")
    plant.step(("state", 1), ("good", 100), ("rejects", 5))
    plant.wait(10, ("good", 107), ("rejects", 8))
    assert (plant.view.produced, plant.view.rejected) == (10, 3)
    assert plant.view.quality == pytest.approx(0.7)


def test_with_produced_and_good_counters_a_late_judgement_is_no_reject_but_a_missing_one_is():
    plant = Plant(rejected_tag=None, good_tag="good", judged_within_s=5)
    plant.step(("state", 1), ("parts", 0), ("good", 0))
    for part in range(1, 21):
        plant.wait(1, ("parts", part))
        plant.wait(1, ("good", part))
    assert plant.of(PartsRejected) == []
    plant.wait(1, ("parts", 21))
    for _ in range(12):
        plant.wait(1)
    assert (plant.view.produced, plant.view.rejected) == (21, 1)


def test_a_rollover_counts_and_a_reset_is_told_and_counts_nothing():
    plant = Plant()
    plant.step(("state", 1), ("parts", 65530), ("rejects", 0))
    plant.wait(1, ("parts", 5))
    assert plant.view.produced == 11
    plant.wait(1, ("parts", 45))
    plant.wait(1, ("parts", 3))
    (anomaly,) = plant.of(CounterAnomaly)
    assert (anomaly.tag, anomaly.before, anomaly.after, anomaly.anomaly) == ("parts", 45, 3, "reset")
    plant.wait(1, ("parts", 4))
    assert plant.view.produced == 11 + 40 + 1


def test_bad_counter_values_are_ignored_and_what_they_hid_is_counted_after_them():
    plant = Plant()
    plant.step(("state", 1), ("parts", 10))
    plant.wait(1, ("parts", 0), quality=BAD)
    plant.wait(1, ("parts", float("nan")), quality=BAD)
    plant.wait(1, ("parts", 14), quality=UNCERTAIN)
    assert plant.view.produced == 4
    assert plant.of(CounterAnomaly) == []


def test_parts_are_gathered_into_one_event_a_period():
    plant = Plant(parts_period_s=10)
    plant.step(("state", 1), ("parts", 0))
    for part in range(1, 41):
        plant.wait(0.5, ("parts", part))
    made = plant.of(PartsProduced)
    assert len(made) <= 3
    plant.wait(10)
    assert sum(event.count for event in plant.of(PartsProduced)) == 40


def test_performance_over_one_is_shown_uncertain_and_flagged():
    plant = Plant(ideal_cycle_s=100)
    plant.step(("state", 1), ("parts", 0))
    plant.wait(10, ("parts", 1))
    assert plant.view.performance == pytest.approx(10)
    assert plant.view.performance_suspect
    assert plant.shown["performance"] == (pytest.approx(10), UNCERTAIN)
    assert plant.shown["availability"] == (1, GOOD)


def test_a_change_of_product_changes_the_cycle_of_the_parts_that_follow():
    plant = Plant(product_tag="product", order_tag="order", products={"A": 30, "B": 90})
    plant.step(("state", 1), ("product", "A"), ("order", "o1"), ("parts", 0))
    plant.wait(60, ("parts", 2))
    plant.wait(1, ("product", "B"), ("order", "o2"))
    plant.wait(119, ("parts", 3))
    made = plant.of(PartsProduced)
    assert [(e.count, e.product, e.order) for e in made] == [(2, "A", "o1"), (1, "B", "o2")]
    assert plant.view.performance == pytest.approx(150 / 180)
    assert [(type(e), e.order) for e in plant.events if isinstance(e, OrderStarted | OrderEnded)] == [
        (OrderStarted, "o1"),
        (OrderEnded, "o1"),
        (OrderStarted, "o2"),
    ]
    assert plant.of(OrderStarted)[1].product == "B"
    assert plant.shown["target_rate_per_h"][0] == 40


def test_a_reason_that_comes_during_the_stop_holds_from_its_start():
    plant = Plant(reason_tag="reason", reasons={"7": "no_material"})
    plant.step(("state", 1))
    plant.wait(60, ("state", 4))
    stop = plant.utc
    plant.alive(120)
    plant.step(("reason", 7))
    last = plant.of(StateChanged)[-1]
    assert (last.time, last.state, last.reason) == (stop, MachineState.DOWN, DowntimeReason.NO_MATERIAL)
    elements = plant.elements()
    assert (elements.adot, elements.adet) == (120 * S, 0)
    assert plant.view.reason == "no_material"
    plant.wait(1, ("state", 1))
    assert plant.view.reason is None


def test_silence_of_the_whole_device_is_unknown_after_its_time_and_ends_with_its_first_word():
    plant = Plant(unknown_after_s=60)
    plant.step(("state", 1))
    plant.alive(300)
    assert plant.view.state == "running"
    silent = plant.utc
    for _ in range(100):
        plant.wait(1, ("other", 1.0))
    assert plant.view.state == "unknown"
    assert plant.of(StateChanged)[-1].time == silent + 60 * S
    plant.wait(1, ("temperature", 20.0))
    assert plant.view.state == "running"
    assert plant.view.unknown_s == pytest.approx(41)


def test_a_bad_state_becomes_unknown_although_the_device_still_talks():
    plant = Plant(unknown_after_s=10)
    plant.step(("state", 1))
    plant.wait(1, ("state", float("nan")), quality=BAD)
    plant.alive(9, 1)
    assert plant.view.state == "running"
    plant.alive(5, 1)
    assert plant.view.state == "unknown"
    plant.wait(1, ("state", 1))
    assert plant.view.state == "running"


def test_the_next_shift_starts_at_zero_and_knows_the_state():
    plant = Plant(start="2026-06-01T13:50:00")
    plant.step(("state", 1), ("parts", 0))
    plant.wait(590, ("parts", 50))
    plant.wait(20, ("parts", 52))
    view = plant.view
    assert (view.shift, view.produced, view.availability) == ("late", 2, 1)
    assert view.shift_start == at("2026-06-01T14:00:00")
    early = plant.calendar.at(ASSET, at("2026-06-01T13:59:00"))
    assert fold(plant.events, ASSET, early.period, plant.options.rating).pq == 50


def test_between_shifts_no_figure_is_good_and_the_state_still_is():
    shifts = {"time_zone": "UTC", "shift": [{"name": "early", "start": "06:00", "end": "06:01"}]}
    plant = Plant(shifts=shifts)
    plant.step(("state", 1), ("parts", 0))
    plant.wait(30, ("parts", 2))
    assert plant.shown["oee"][1] == GOOD
    plant.wait(60, ("parts", 4))
    assert plant.view.shift == ""
    assert plant.view.oee is None
    assert plant.shown["oee"][1] == BAD
    assert plant.shown["state"] == (1, GOOD)
    plant.utc = at("2026-06-02T06:00:10")
    plant.monotonic += 8 * HOUR
    plant.wait(1, ("state", 1))
    assert plant.view.shift == "early"


def test_the_break_is_not_planned_time_and_parts_made_in_it_do_not_raise_performance():
    plant = Plant(start="2026-06-01T09:59:00", ideal_cycle_s=60)
    plant.step(("state", 1), ("parts", 0))
    plant.alive(60)
    plant.wait(600, ("parts", 10), ("state", 1))
    assert plant.view.produced == 10
    assert plant.elements().unplanned_run == 600 * S
    assert plant.view.performance == 0


def test_the_night_of_the_clock_change_is_planned_with_its_real_length():
    shifts = {"time_zone": "Europe/Berlin", "shift": [{"name": "night", "start": "22:00", "end": "06:00"}]}
    for evening, hours in (("2026-03-28T21:00:00", 7), ("2026-10-24T20:00:00", 9)):
        plant = Plant(start=evening, shifts=shifts)
        plant.step(("state", 1))
        assert plant.view.shift_end - plant.view.shift_start == hours * HOUR
        plant.alive(hours * 3600 - 1, 50)
        assert plant.view.shift == "night"
        assert plant.elements().pbt == hours * HOUR - S
        plant.alive(2)
        assert plant.view.shift == ""


def test_a_clock_that_steps_back_makes_no_negative_time():
    plant = Plant(start="2026-06-01T07:00:00")
    plant.step(("state", 1), ("parts", 0))
    plant.alive(600)
    plant.utc -= 20 * MIN
    for state in (4, 1, 4, 1):
        plant.wait(10, ("state", state), ("parts", 1))
        elements = plant.production._watches[0].machine.account.elements(plant.utc + 1)
        assert min(elements.apt, elements.adet, elements.unknown) >= 0
    times = [event.time for event in plant.of(StateChanged)]
    assert times == sorted(times)
    plant.alive(1800)
    plant.agrees()


def test_a_clock_that_was_a_year_ahead_does_not_stop_the_figures_for_a_year():
    plant = Plant(start="2027-06-01T07:00:00")
    plant.step(("state", 1), ("parts", 0))
    plant.alive(60)
    plant.utc = at("2026-06-01T07:00:00")
    plant.step(("state", 1), ("parts", 5))
    plant.alive(60, 1)
    view = plant.view
    assert view.shift_start == at("2026-06-01T06:00:00")
    assert view.state == "running"
    assert view.unknown_s == pytest.approx(3600, abs=2)


def test_a_clock_that_jumps_ahead_leaves_unknown_time_and_no_production():
    plant = Plant()
    plant.step(("state", 1))
    plant.alive(60)
    plant.utc += 2 * HOUR
    plant.wait(1, ("state", 1))
    elements = plant.elements()
    assert elements.unknown == 2 * HOUR + S
    assert elements.apt == 60 * S
    assert plant.view.state == "running"


MINUTE = {"start": "2026-06-01T06:01:00", "end": "2026-06-01T06:02:00"}


def span(start: str, end: str) -> dict:
    return {"start": start, "end": end, "state": "idle"}


# -- people -----------------------------------------------------------------------------------------------------


def test_a_correction_restates_the_shift_at_once_and_leaves_the_log():
    plant = Plant()
    plant.step(("state", 1), ("parts", 0))
    plant.alive(600)
    plant.step(("state", 4))
    plant.alive(600)
    plant.step(("state", 1))
    plant.alive(600)
    before = list(plant.events)
    assert plant.view.availability == pytest.approx(2 / 3)
    reply = plant.ask(
        "correct",
        start="2026-06-01T06:10:00",
        end="2026-06-01T06:20:00",
        state="running",
        why="sensor fault",
        produced=30,
        rejected=3,
    )
    assert (reply.ok, reply.code) == (True, "ok")
    assert plant.events[: len(before)] == before
    (correction,) = plant.of(Correction)
    assert (correction.user, correction.why) == ("eva", "sensor fault")
    assert plant.of(Audit)[0].action == "correct"
    view = plant.view
    assert (view.availability, view.produced, view.rejected) == (1, 30, 3)
    plant.wait(1)
    assert plant.shown["availability"][0] == 1
    plant.alive(300)
    plant.step(("state", 2))
    plant.alive(300)
    plant.agrees()


def test_an_operator_names_the_reason_of_the_present_stop_from_its_start():
    plant = Plant()
    plant.step(("state", 1))
    plant.alive(60)
    plant.step(("state", 2))
    plant.alive(300)
    assert plant.ask("set_state", reason="no_operator").ok
    assert plant.view.reason == "no_operator"
    assert plant.of(StateChanged)[-1].origin == "operator:eva"
    assert plant.of(StateChanged)[-1].time == at("2026-06-01T06:01:00")
    plant.agrees()


def test_a_state_that_a_person_enters_holds_until_the_machine_reports_another():
    plant = Plant(unknown_after_s=60)
    plant.step(("state", 2))
    plant.alive(60)
    assert plant.ask("set_state", state="maintenance", reason="planned_maintenance").ok
    plant.wait(10, ("state", 2))
    assert plant.view.state == "maintenance"
    plant.wait(600)
    assert plant.view.state == "maintenance"
    plant.wait(1, ("state", 2))
    assert plant.view.state == "maintenance"
    plant.wait(1, ("state", 1))
    assert plant.view.state == "running"


def test_orders_are_started_and_ended_by_command_and_stand_in_the_parts():
    plant = Plant(products={"A": 20})
    plant.step(("state", 1), ("parts", 0))
    assert plant.ask("start_order", order="o7", product="A", quantity=100).ok
    plant.wait(60, ("parts", 3))
    assert (plant.view.order, plant.view.product) == ("o7", "A")
    assert plant.of(PartsProduced)[-1].order == "o7"
    assert "o7 is running" in plant.ask("start_order", order="o8").message
    assert not plant.ask("end_order", order="o8").ok
    assert plant.ask("end_order").ok
    assert plant.view.order == ""


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("correct", span("2026-06-01T06:10:00", "2026-06-01T06:05:00"), "end after it starts"),
        ("correct", span("2026-06-01T06:10:00", "2026-06-01T09:00:00"), "has not come yet"),
        ("correct", span("2024-06-01T06:10:00", "2024-06-01T09:00:00"), "400 days"),
        ("correct", span("noon", "2026-06-01T09:00:00"), "start must be a time"),
        ("correct", MINUTE | {"state": "asleep"}, "'asleep' is not one of"),
        ("correct", MINUTE, "needs a state"),
        ("correct", MINUTE | {"state": "running", "reason": "breakdown"}, "belongs to a stop"),
        ("correct", MINUTE | {"produced": -5}, "has counted 0"),
        ("correct", MINUTE | {"produced": float("nan")}, "must be a number"),
        ("correct", MINUTE | {"state": "idle", "why": " "}, "why is missing"),
        ("correct", {"asset": "nowhere", "start": 0, "end": 1}, "no machine 'nowhere'; known: pressing/line2/press"),
        ("correct", {"strat": 0}, "does not know strat"),
        ("set_state", {}, "needs a state, a reason"),
        ("set_state", {"reason": "breakdown"}, "press is running"),
        ("set_state", {"state": "unknown"}, "nobody enters"),
        ("set_state", {"state": "running", "reason": "breakdown"}, "press is running"),
        ("start_order", {}, "order is missing"),
        ("end_order", {}, "no order is running"),
        ("make_coffee", {}, "unknown command"),
    ],
)  # fmt: skip
def test_a_request_that_cannot_be_meant_is_refused_with_a_sentence(name, arguments, says):
    plant = Plant()
    plant.step(("state", 1), ("parts", 0))
    plant.alive(1800)
    before = len(plant.events)
    given_why = {"why": "because"} if name == "correct" else {}
    reply = plant.ask(name, **(given_why | arguments))
    assert (reply.ok, reply.code) == (False, "invalid")
    assert says in reply.message
    assert len(plant.events) == before


def test_a_correction_that_cuts_into_another_is_refused_unless_it_covers_it_or_says_so():
    plant = Plant()
    plant.step(("state", 1))
    plant.alive(3600)
    fix = {"state": "down", "why": "jam"}
    assert plant.ask("correct", start="2026-06-01T06:10:00", end="2026-06-01T06:20:00", **fix).ok
    cut = {"start": "2026-06-01T06:15:00", "end": "2026-06-01T06:30:00"}
    reply = plant.ask("correct", user="max", **cut, **fix)
    assert not reply.ok
    assert "overlaps the correction of press by eva" in reply.message
    assert plant.ask("correct", **cut, **fix, replace=True).ok
    assert plant.ask("correct", start="2026-06-01T06:05:00", end="2026-06-01T06:40:00", **fix).ok
    elements = plant.elements()
    assert elements.adet == 35 * MIN
    plant.agrees()


def test_a_command_needs_a_user():
    plant = Plant()
    assert "name of the person" in plant.ask("set_state", user=" ", state="idle").message


# -- restarts ---------------------------------------------------------------------------------------------------


def reborn(plant: Plant, counters: dict) -> Plant:
    """Start again from what a journal holds: JSON of the events and of the record."""
    log = [from_record(json.loads(json.dumps(to_record(event)))) for event in plant.events]
    options = plant.options.model_dump(exclude_unset=True)
    again = Plant(start=plant.utc, log=log, counters=json.loads(json.dumps(counters)), texts=plant.texts, **options)
    again.monotonic = 77 * S
    return again


def test_after_a_restart_the_figures_are_what_they_were():
    plant = Plant(products={"A": 20})
    plant.step(("state", 1), ("parts", 100), ("rejects", 1))
    plant.alive(600)
    plant.step(("state", 4), ("parts", 130), ("rejects", 3))
    plant.alive(300)
    plant.ask("set_state", reason="breakdown")
    plant.ask("start_order", order="o1", product="A")
    plant.step(("state", 1))
    plant.alive(60)
    plant.wait(1, ("parts", 140))
    plant.ask("correct", start="2026-06-01T06:02:00", end="2026-06-01T06:03:00", state="idle", why="coffee", produced=2)
    again = reborn(plant, plant.production.counters())
    assert again.view == plant.view
    for step in ((("parts", 150),), (("state", 2),), (("parts", 151), ("rejects", 4))):
        plant.wait(5, *step)
        again.wait(5, *step)
    assert again.view == plant.view


def test_a_restart_neither_loses_nor_doubles_parts_counted_meanwhile():
    plant = Plant()
    plant.step(("state", 1), ("parts", 65_500))
    plant.wait(10, ("parts", 65_510))
    kept = plant.production.counters()
    again = reborn(plant, kept)
    again.wait(30, ("state", 1), ("parts", 20))
    assert again.view.produced == 10 + 46
    assert again.of(CounterAnomaly) == []


def test_parts_that_were_not_in_an_event_yet_survive_a_restart():
    plant = Plant(parts_period_s=60)
    plant.step(("state", 1), ("parts", 0))
    plant.wait(1, ("parts", 1))
    plant.wait(1, ("parts", 5))
    assert plant.view.produced == 1
    again = reborn(plant, plant.production.counters())
    again.wait(61, ("state", 1), ("parts", 6))
    again.wait(61, ("state", 1))
    assert again.view.produced == 6


def test_a_gateway_that_starts_in_the_middle_of_a_shift_speaks_of_the_time_since_then():
    # Commissioned at 10:30, 4 h of planned time into the shift; one hour at full speed is an OEE of 1, not of 0.2.
    plant = Plant(start="2026-06-01T10:30:00")
    plant.step(("state", 1), ("parts", 7000))
    for made in range(6, 361, 6):
        plant.wait(60, ("parts", 7000 + made))
    view = plant.view
    assert (view.oee, view.availability) == (pytest.approx(1), pytest.approx(1))
    assert (view.unknown_s, view.unobserved_s) == (4 * 3600, 4 * 3600)
    assert view.utilisation == pytest.approx(5 / 5.5)
    # Most of the shift is not in the figure: it is shown, and no alarm acts on it.
    assert view.uncertain
    assert plant.shown["oee"] == (pytest.approx(1), UNCERTAIN)
    assert plant.shown["unobserved_s"] == (4 * 3600, GOOD)
    assert {row["loss"]: row["minutes"] for row in view.losses} == {"unobserved": 240}
    plant.agrees()


def test_a_state_that_is_older_than_the_gateway_begins_with_the_gateway():
    # A subscription tells when the value changed; what was made since then was counted by nobody.
    plant = Plant(start="2026-06-01T08:00:00")
    plant.step(batch=of_rows([(plant.table["state"].index, at("2026-06-01T06:30:00"), 1.0, GOOD)]))
    assert plant.of(StateChanged)[0].time == at("2026-06-01T08:00:00")
    plant.wait(1)
    assert plant.elements().unobserved == 2 * HOUR


def test_a_counter_that_moves_before_the_state_is_known_ends_the_unobserved_time():
    plant = Plant(start="2026-06-01T07:00:00")
    plant.step(("parts", 0))
    plant.wait(60, ("parts", 6))
    plant.alive(60)
    plant.step(("state", 1))
    elements = plant.elements()
    assert (elements.pq, elements.unobserved, elements.unknown) == (6, 61 * MIN, 62 * MIN)
    plant.agrees()


@pytest.mark.parametrize(("after", "unobserved_s", "produced"), [(1360, 0, 360), (3, 3600, 0)])
def test_an_hour_without_the_gateway_counts_if_the_counter_went_on_and_is_left_out_if_not(
    after, unobserved_s, produced
):
    plant = Plant()
    plant.step(("state", 1), ("parts", 1000))
    kept = plant.production.counters()
    again = reborn(plant, kept)
    again.utc += HOUR
    # The device says since when it has run: before the gateway was there to see it.
    state = (again.table["state"].index, again.utc - 20 * MIN, 1.0, GOOD)
    again.step(batch=of_rows([state, (again.table["parts"].index, again.utc, float(after), GOOD)]))
    again.wait(1)
    view = again.view
    assert (view.unknown_s, view.unobserved_s, view.produced) == (3600, unobserved_s, produced)
    again.agrees()
    # Then half an hour at full speed: 180 parts of 10 s.
    for made in range(6, 181, 6):
        again.wait(60, ("parts", after + made))
    assert again.view.oee == pytest.approx(1, abs=1e-3)
    again.agrees()
    third = reborn(again, again.production.counters())
    assert third.view == again.view


def test_a_lost_connection_is_bridged_by_parts_and_by_no_parts_but_not_by_a_reset():
    for after, unobserved_s in ((20, 0), (10, 0), (4, 541)):
        plant = Plant(unknown_after_s=60)
        plant.step(("state", 1), ("parts", 10))
        plant.alive(600)
        plant.step(("parts", 10))
        for _ in range(60):
            plant.wait(10)
        plant.wait(1, ("state", 1), ("parts", after))
        plant.wait(1)
        # Silence is taken for running for the first minute.
        assert (plant.view.unknown_s, plant.view.unobserved_s) == (541, unobserved_s)
        plant.agrees()


def test_the_reset_of_a_counter_that_is_watched_costs_no_time():
    plant = Plant(unknown_after_s=10)
    plant.step(("state", 1), ("parts", 10))
    for second in range(100):
        plant.wait(1, ("state", 77), ("parts", 10 if second < 50 else 3))
    plant.wait(1, ("state", 1))
    assert len(plant.of(CounterAnomaly)) == 1
    assert (plant.view.unknown_s, plant.view.unobserved_s) == (100, 1)
    plant.agrees()


def test_a_machine_without_a_counter_has_an_availability_and_no_oee():
    plant = Plant(produced_tag=None, rejected_tag=None, unknown_after_s=60)
    plant.step(("state", 1))
    plant.alive(600)
    plant.step(("state", 2))
    plant.alive(600)
    for _ in range(11):
        plant.wait(60)
    plant.wait(1, ("state", 1))
    view = plant.view
    assert (view.unknown_s, view.unobserved_s) == (601, 601)
    assert view.availability == pytest.approx(600 / 1260)
    assert (view.performance, view.oee) == (None, None)
    plant.agrees()


def test_a_little_unknown_time_leaves_the_figures_good_and_more_than_a_tenth_makes_them_uncertain():
    plant = Plant(unknown_after_s=1)
    plant.step(("state", 1), ("parts", 0))
    plant.alive(1000, 1)
    plant.step(("parts", 90))
    for expected in (GOOD, UNCERTAIN):
        plant.wait(1, ("state", 77))
        plant.alive(70, 1)
        plant.wait(1, ("state", 1))
        names = ("oee", "availability", "performance", "quality", "nee", "teep")
        assert {plant.shown[name][1] for name in names} == {expected}
        assert plant.shown["utilisation"][1] == GOOD


def test_no_figure_of_the_first_cycle_is_acted_on():
    # An OEE of 0 before the first part can be finished says nothing about the machine.
    plant = Plant(ideal_cycle_s=30)
    plant.step(("state", 1), ("parts", 0))
    plant.alive(29, 1)
    assert plant.shown["oee"] == (0, UNCERTAIN)
    assert plant.shown["availability"] == (1, GOOD)
    plant.alive(2, 1)
    assert plant.shown["oee"] == (0, GOOD)


def test_the_time_in_which_nobody_watched_is_unknown():
    plant = Plant(unknown_after_s=60)
    plant.step(("state", 1))
    plant.alive(600)
    again = reborn(plant, plant.production.counters())
    again.utc += 15 * MIN
    again.step(("temperature", 20.0))
    assert again.view.state == "unknown"
    again.wait(5, ("state", 1))
    assert again.view.unknown_s == pytest.approx(15 * 60 + 5)
    assert again.view.state == "running"
    again.agrees()


def test_after_a_reload_a_state_that_is_not_sent_again_still_comes_back_from_silence():
    plant = Plant(unknown_after_s=60)
    plant.step(("state", 1))
    plant.alive(600)
    again = reborn(plant, plant.production.counters())
    for _ in range(70):
        again.wait(1)
    assert again.view.state == "unknown"
    again.wait(1, ("temperature", 20.0))
    assert again.view.state == "running"


def test_only_the_events_since_the_shift_began_are_needed():
    plant = Plant(start="2026-06-01T13:00:00")
    plant.step(("state", 1), ("parts", 0))
    plant.alive(1800)
    plant.step(("state", 4))
    plant.alive(3600)
    plant.ask("set_state", reason="no_material")
    plant.wait(1, ("parts", 3))
    plant.wait(2)
    since = plant.production.restore_since(plant.now)
    assert since == at("2026-06-01T14:00:00")
    kept = plant.production.counters()
    view = plant.view
    plant.events = [event for event in plant.events if event.time >= since]
    assert reborn(plant, kept).view == view


@pytest.mark.parametrize(
    "damage", [{"press": {"opening": {"kind": "nonsense"}}}, {"press": {"raw": 5}}, {"press": {"made": "x"}}]
)
def test_a_record_that_cannot_be_read_does_not_stop_the_start(damage):
    plant = Plant()
    plant.step(("state", 1), ("parts", 0))
    plant.wait(10, ("parts", 2))
    again = reborn(plant, damage)
    assert again.view.produced == 2
    again.wait(1, ("parts", 50), ("state", 1))
    again.wait(1, ("parts", 51))
    assert again.view.produced == 3


def test_a_tag_that_the_table_does_not_hold_is_an_error_at_construction():
    options = MachineOptions.model_validate(MACHINE)
    with pytest.raises(KeyError, match="parts"):
        Production(
            [options],
            TagTable([Tag(name="state", index=0)]),
            calendar_of(ShiftsOptions(), "UTC"),
            Texts(),
            EventIds("x"),
        )


# -- the property -----------------------------------------------------------------------------------------------

moves = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "state",
                "state",
                "parts",
                "rejects",
                "reason",
                "product",
                "quiet",
                "bad",
                "fix",
                "name",
                "restart",
                "away",
                "reset",
                "back",
            ]
        ),
        st.integers(0, 6),
        st.integers(1, 400),
    ),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(moves, st.sampled_from(["06:00:00", "09:50:00", "13:45:00"]))
def test_the_account_equals_the_fold_of_the_log_whatever_happens(script, clock):
    plant = Plant(
        start=f"2026-06-01T{clock}",
        product_tag="product",
        reason_tag="reason",
        reasons={"1": "breakdown", "2": "no_material", "3": "changeover"},
        products={"A": 7, "B": 31},
        startup_s=40,
    )
    parts = count(5)
    rejects = 0
    plant.step(("parts", 4), ("rejects", 0))
    for what, number, seconds in script:
        match what:
            case "state" | "reason":
                plant.wait(seconds, (what, number))
            case "parts":
                plant.wait(seconds, ("parts", next(parts)))
            case "rejects":
                rejects += number % 2
                plant.wait(seconds, ("rejects", rejects))
            case "product":
                plant.wait(seconds, ("product", "ABC"[number % 3]))
            case "quiet":
                plant.wait(seconds)
            case "bad":
                plant.wait(seconds, ("state", 1.0), quality=BAD)
            case "fix":
                end = plant.utc - number * 20 * S
                state = list(MachineState)[number % 6]
                plant.ask(
                    "correct", start=end - seconds * S, end=end, state=state, why="w", produced=number, replace=True
                )
            case "name":
                plant.ask("set_state", reason=list(DowntimeReason)[number % 6])
            case "restart":
                plant = reborn(plant, plant.production.counters())
            case "away":
                kept = plant.production.counters()
                plant.utc += seconds * S
                plant = reborn(plant, kept)
            case "reset":
                parts = count(number)
                plant.wait(seconds, ("parts", next(parts)))
            case "back":
                plant.utc -= seconds * S
        # The stage's own time never goes back, and a part counted now belongs to the past of the next instant.
        plant.wait(1e-9)
        account = plant.production._watches[0].machine.account
        utc = plant.production._utc
        if account is not None:
            want = fold(plant.events, ASSET, account.period, plant.options.rating, max(utc, account.began) + 1)
            got = account.elements(max(utc, account.began) + 1)
            assert got.pq == pytest.approx(want.pq)
            assert got.ideal == pytest.approx(want.ideal)
            for name in (
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
                "rq",
                "startup_rq",
            ):
                assert getattr(got, name) == getattr(want, name), name
            assert kpis(got).oee == pytest.approx(kpis(want).oee) if kpis(want).oee else True
