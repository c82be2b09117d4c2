"""What machines do becomes states, parts and OEE; what people correct restates them; what counters invent does not."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from e2e_peers import Daemon, SimulatedPlant, Subscriber, until

from edge.view import MachineView
from plant.instant import NS_PER_S

SOON_S = 3.0
"""A state is read twice a second, told at once, and this machine has other work too."""
SPEED = 4.0
STROKES_PER_S_MAX = 20.0
STRIP = "finishing/line3/strip"


@pytest.fixture(scope="module")
def plant(folder) -> Iterator[SimulatedPlant]:
    plant = SimulatedPlant(folder, SPEED)
    yield plant
    plant.stop()


@pytest.fixture(scope="module")
def daemon(prepared: Daemon) -> Daemon:
    # One shift without breaks, whose change is half a day away whenever the tests run.
    start = f"{(datetime.now(UTC).hour + 12) % 24:02}:00"
    (prepared.folder / "shifts.toml").write_text(f'[[shift]]\nname = "test"\nstart = "{start}"\nend = "{start}"\n')
    prepared.set("site", time_zone="UTC")
    prepared.set("device strip", period_ms=500)
    prepared.start()
    prepared.wait_alive()
    return prepared


def machine(daemon: Daemon, name: str) -> MachineView:
    return next(machine for machine in daemon.status().machines if machine.name == name)


def test_a_stop_is_an_event_with_its_reason_at_once(daemon: Daemon, plant: SimulatedPlant, scada: Subscriber):
    plant.fault("start", machine="press")
    until(lambda: machine(daemon, "press").state == "running", "the press runs", 60)
    before, at = time.monotonic(), time.time_ns()
    plant.fault("stop", machine="press", reason="quality_issue")
    event = until(
        lambda: [
            e for e in scada.events(kind="status_change") if e["asset"].endswith("press") and e["state"] == "down"
        ],
        "the stop is told",
    )[-1]
    assert time.monotonic() - before < SOON_S
    assert event["reason"] == "quality_issue"
    until(lambda: machine(daemon, "press").reason == "quality_issue", "shown with its reason")
    told = datetime.fromisoformat(event["time"]).timestamp() * NS_PER_S
    assert abs(told - at) < SOON_S * NS_PER_S
    plant.fault("start", machine="press")
    until(lambda: machine(daemon, "press").state == "running", "the press runs again")


def test_a_stop_lowers_availability_and_oee_while_it_lasts(daemon: Daemon, plant: SimulatedPlant):
    plant.fault("start", machine="strip")
    before = until(
        lambda: (m := machine(daemon, "strip")) and m.state == "running" and m.oee and m.availability and m,
        "strip runs",
    )
    plant.fault("stop", machine="strip", reason="no_material")
    lower = until(
        lambda: (m := machine(daemon, "strip")) and m.availability < before.availability - 0.05 and m,
        lambda: f"availability falls: {before} {machine(daemon, 'strip')}",
    )
    assert lower.state == "idle"
    assert lower.reason == "no_material"
    until(lambda: machine(daemon, "strip").oee < before.oee, "and so does OEE")
    until(lambda: daemon.tags()["strip.availability"]["value"] < before.availability, "the tag follows")


def test_a_correction_restates_the_past_and_says_who_and_why(daemon: Daemon, scada: Subscriber):
    """The machine stands since the test before: nothing else changes its figures."""
    changes = (
        "select epoch_ns(time) from events where kind = 'status_change' and asset = '{}' order by seq desc limit 1"
    )
    stop = daemon.scalar(changes.format(STRIP))
    before = machine(daemon, "strip")
    end = time.time_ns()
    reply = daemon.do("correct", asset="strip", start=stop, end=end, state="running", why="sensor was off")
    assert reply.ok, reply
    after = until(
        lambda: (m := machine(daemon, "strip")) and m.availability > before.availability + 0.05 and m,
        "recomputed",
        SOON_S,
    )
    assert after.produced == before.produced
    (event,) = until(lambda: scada.events(kind="correction"), "SCADA is told")
    assert (event["user"], event["why"], event["asset"]) == ("anna", "sensor was off", STRIP)

    reply = daemon.do("correct", asset="strip", start=stop, end=end, rejected=2, produced=-1, why="scrap found")
    assert reply.ok, reply
    wanted = before.produced - 1, before.rejected + 2
    until(lambda: (m := machine(daemon, "strip")) and (m.produced, m.rejected) == wanted, "parts recomputed", SOON_S)
    refused = daemon.do("correct", asset="strip", start=stop, end=end, produced=-(10**6), why="typing error")
    assert not refused.ok
    assert refused.message


def test_a_counter_that_starts_again_is_an_anomaly_and_makes_no_parts(
    daemon: Daemon, plant: SimulatedPlant, scada: Subscriber
):
    plant.fault("start", machine="press")
    until(lambda: machine(daemon, "press").produced > 3, "the press has made parts")
    before, at = machine(daemon, "press").produced, time.monotonic()
    plant.fault("reset", value="press.strokes")
    event = until(lambda: scada.events(kind="counter_anomaly"), "the anomaly is told")[-1]
    assert event["tag"] == "press.strokes"
    assert event["after"] < event["before"]
    until(lambda: machine(daemon, "press").produced > before, "counting goes on")
    made = machine(daemon, "press").produced - before
    assert 0 < made <= (time.monotonic() - at) * STROKES_PER_S_MAX


def test_an_implausible_jump_makes_no_parts_either(daemon: Daemon, plant: SimulatedPlant, scada: Subscriber):
    plant.fault("start", machine="press")
    before, at = machine(daemon, "press").produced, time.monotonic()
    plant.fault("set", value="press.strokes", to=3_000_000)
    until(lambda: scada.events(kind="counter_anomaly", after=3_000_000.0), "the jump is told")
    plant.fault("unset", value="press.strokes")
    until(lambda: scada.events(kind="counter_anomaly", before=3_000_000.0), "the way back is told")
    until(lambda: machine(daemon, "press").produced > before, "counting goes on")
    assert machine(daemon, "press").produced - before <= (time.monotonic() - at) * STROKES_PER_S_MAX
