"""The machines without their PLCs: counts, states and values follow the recordings."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.simulator.finishing import ENERGY_AT_START_KWH, KWH_PER_STRIP, START_SAMPLE, StripLine
from edge.simulator.machine import PRESS_STATE_CODES, REASON_CODES, STATE_CODES
from edge.simulator.milling import PLAYLIST, MillingCell
from edge.simulator.pressing import SAMPLES_PER_S, PressLine
from edge.simulator.recording import RECORDINGS_DIR, pictures, read
from plant.events import DowntimeReason, MachineState

MILLING = read(RECORDINGS_DIR / "milling/milling.parquet")
RUNS = read(RECORDINGS_DIR / "milling/runs.parquet")
BEARING = read(RECORDINGS_DIR / "bearing/bearing.parquet")
ENERGY = read(RECORDINGS_DIR / "energy/energy.parquet")
PICTURES = pictures(RECORDINGS_DIR / "surface")


def cnc():
    return MillingCell(MILLING, RUNS)


def press():
    return PressLine(BEARING, random.Random(1))


def strip():
    return StripLine(ENERGY, PICTURES, random.Random(1))


def until(machine, holds, step_s=0.5, limit_s=2000.0):
    """Advance until the values hold, return them and the seconds that it took."""
    seconds = 0.0
    while not holds(values := machine.values()):
        machine.advance(step_s)
        seconds += step_s
        assert seconds < limit_s
    return values, seconds


def test_one_round_of_the_mill_makes_the_parts_and_the_scrap_of_the_recording():
    machine = cnc()
    values, seconds = until(machine, lambda v: v["parts"] == len(PLAYLIST))
    assert values["rejects"] == sum(run in (4, 8) for run in PLAYLIST)
    assert 15 <= seconds / len(PLAYLIST) <= 35, "a part should appear every 20 to 30 seconds"


def test_the_mill_shows_real_rows_also_while_it_stands():
    machine = cnc()
    rows = {tuple(MILLING.at(i).values()) for i in range(MILLING.rows)}
    for _ in range(300):
        machine.advance(0.37)
        values = machine.values()
        shown = {name: values[name] for name in MILLING.columns if name != "run"}
        assert (float(machine.run), *shown.values()) in rows


def test_a_part_that_came_loose_stops_the_mill_with_a_breakdown():
    machine = cnc()
    values, _ = until(machine, lambda v: v["workpiece_lost"])
    assert values["state_word"] == STATE_CODES[MachineState.DOWN]
    assert values["reason_word"] == REASON_CODES[DowntimeReason.BREAKDOWN]
    assert values["rejects"] == 1
    assert machine.run == 4
    values, _ = until(machine, lambda v: not v["workpiece_lost"])
    assert values["state_word"] == STATE_CODES[MachineState.RUNNING]


def test_a_change_of_product_is_a_changeover_and_a_new_order():
    machine = cnc()
    before = machine.values()
    values, _ = until(machine, lambda v: v["reason_word"] == REASON_CODES[DowntimeReason.CHANGEOVER])
    assert values["state_word"] == STATE_CODES[MachineState.SETUP]
    after, _ = until(machine, lambda v: v["state_word"] == STATE_CODES[MachineState.RUNNING])
    assert (before["product"], after["product"]) == ("S-BLOCK-F06", "S-BLOCK-F20")
    assert before["order"] != after["order"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.0, 60.0), min_size=1, max_size=20))
def test_the_mill_makes_the_same_parts_in_many_steps_as_in_one(steps):
    many, one = cnc(), cnc()
    for step in steps:
        many.advance(step)
    one.advance(sum(steps))
    # Rounding may put a boundary on either side, never more than a part.
    assert abs(many.values()["parts"] - one.values()["parts"]) <= 1
    assert many.values()["rejects"] <= many.values()["parts"]


@pytest.mark.parametrize(
    ("make", "counter"), [(cnc, "parts"), (press, "strokes"), (strip, "strips")], ids=["cnc", "press", "strip"]
)
def test_a_stopped_machine_counts_nothing_and_goes_on_after_start(make, counter):
    machine = make()
    values, _ = until(machine, lambda v: v[counter] > 0)
    machine.stop(DowntimeReason.NO_OPERATOR)
    machine.advance(100.0)
    stopped = machine.values()
    assert stopped[counter] == values[counter]
    assert stopped["reason_word"] == REASON_CODES[DowntimeReason.NO_OPERATOR]
    machine.start()
    until(machine, lambda v: v[counter] > values[counter])


@pytest.mark.parametrize("make", [cnc, press, strip], ids=["cnc", "press", "strip"])
def test_every_counter_can_be_reset_and_counts_on(make):
    machine = make()
    machine.advance(60.0) if make is cnc else [machine.advance(0.5) for _ in range(120)]
    for counter in machine.counters:
        machine.reset(counter)
        assert machine.values()[counter] == 0
    before = machine.values()
    counting = next(c for c in ("parts", "strokes", "strips") if c in machine.counters)
    until(machine, lambda v: v[counting] > before[counting])


def test_the_press_breaks_down_within_minutes_and_stands_while_the_bearing_is_cold():
    machine = press()
    values, seconds = until(machine, lambda v: v["state_word"] == PRESS_STATE_CODES[MachineState.DOWN], 0.25)
    assert 60 <= seconds <= 180
    assert values["bearing_temperature"] < 60
    assert values["reason_word"] == REASON_CODES[DowntimeReason.BREAKDOWN]
    strokes = values["strokes"]
    while values["state_word"] == PRESS_STATE_CODES[MachineState.DOWN]:
        assert values["strokes"] == strokes
        assert values["bearing_temperature"] < 68
        machine.advance(0.25)
        values = machine.values()
    assert values["bearing_temperature"] >= 68


def test_a_round_of_the_press_has_the_three_failures_and_the_planned_shutdown():
    machine = press()
    seen = []
    for _ in range(BEARING.rows):
        machine.advance(1 / SAMPLES_PER_S)
        values = machine.values()
        if values["state_word"] in (PRESS_STATE_CODES[MachineState.DOWN], PRESS_STATE_CODES[MachineState.MAINTENANCE]):
            segment = int(BEARING.numbers("segment")[machine.sample])
            if (segment, values["reason_word"]) not in seen:
                seen.append((segment, values["reason_word"]))
    broken, planned = REASON_CODES[DowntimeReason.BREAKDOWN], REASON_CODES[DowntimeReason.PLANNED_MAINTENANCE]
    assert seen == [(2, broken), (3, broken), (4, broken), (1, planned)]


def test_the_vibration_of_the_press_passes_ten_before_it_stands():
    machine = press()
    vibrations = []
    while machine.values()["state_word"] != PRESS_STATE_CODES[MachineState.DOWN]:
        vibrations.append(machine.values()["vibration"])
        machine.advance(0.25)
    assert max(vibrations) > 10
    assert machine.values()["vibration"] < 1


def test_the_same_seed_gives_the_same_press():
    one, other = press(), press()
    for _ in range(2000):
        one.advance(0.3)
        other.advance(0.3)
    assert one.values() == other.values()


def test_the_strip_line_follows_the_electricity_of_the_plant():
    machine = strip()
    usage = ENERGY.numbers("usage_kwh")
    assert machine.sample == START_SAMPLE
    used_kwh = 0.0
    for _ in range(96):
        used_kwh += usage[machine.sample] if usage[machine.sample] >= 10 else 0.0
        values = machine.values()
        assert values["power"] == usage[machine.sample] * 4
        running = values["state_word"] == STATE_CODES[MachineState.RUNNING]
        assert running == (usage[machine.sample] >= 10)
        machine.advance(2.0)
    assert machine.values()["strips"] == int(used_kwh / KWH_PER_STRIP + 1e-9)
    assert machine.values()["rejects"] == machine.values()["trigger"]


def test_power_and_energy_counter_agree_on_the_clock():
    machine = strip()
    power = machine.values()["power"]
    machine.advance(1.0)
    assert machine.values()["energy"] == pytest.approx(ENERGY_AT_START_KWH + power / 3600)


def test_the_inspection_station_shows_every_picture_in_turn():
    machine = strip()
    shown = []
    while len(shown) < len(PICTURES):
        before = machine.values()["trigger"]
        values, _ = until(machine, lambda v, before=before: v["trigger"] > before, limit_s=5000)
        assert values["part_id"].startswith("ST-")
        shown.append(values["picture"])
    assert sorted(shown) == [str(path) for path in PICTURES]


def test_the_loop_of_the_recordings_ends_where_it_began():
    machine = strip()
    machine.advance(ENERGY.rows / 0.5)
    assert machine.sample == START_SAMPLE
    assert np.isfinite(machine.values()["energy"])
