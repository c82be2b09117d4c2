"""The whole gateway at work: what four PLCs say arrives everywhere, and it stops as asked."""

import json
import math
import subprocess
import time

import duckdb
import pytest
from e2e_peers import GATEWAY, SITE, Daemon, SimulatedPlant, Subscriber, needed, until

from edge.errors import AndonError
from plant.instant import NS_PER_S

SOURCES = {"cnc", "press", "strip", "inspection"}
KPIS = ("oee", "availability", "performance", "quality")


@pytest.fixture(scope="module")
def daemon(prepared: Daemon) -> Daemon:
    prepared.start()
    prepared.wait_alive()
    return prepared


def test_every_tag_of_every_device_is_alive(daemon: Daemon):
    status = daemon.status()
    assert {device.name for device in status.devices} == SOURCES
    for device in status.devices:
        assert (device.state, device.sentence, device.problems) == ("connected", "", {}), device
        assert device.alive == device.tags > 0
    assert status.healthy
    tags = daemon.tags()
    assert tags["press.bearing_temperature"]["unit"] == "Cel"
    assert isinstance(tags["cnc.order"]["value"], str)
    assert all(tag["quality"] in (64, 192) for tag in tags.values() if tag["device"])


def test_values_are_those_of_the_machine_after_scaling(daemon: Daemon, plant: SimulatedPlant):
    plant.fault("set", value="press.bearing_temperature", to=104)
    plant.fault("set", value="press.vibration", to=3.21)
    plant.fault("set", value="inspection.part_id", to="strip 4711 é")
    try:
        until(lambda: math.isclose(daemon.tags()["press.bearing_temperature"]["value"], 40.0), "104 F are 40 Cel")
        until(lambda: math.isclose(daemon.tags()["press.vibration"]["value"], 3.21), "hundredths are scaled")
        until(lambda: daemon.tags()["inspection.part_id"]["value"] == "strip 4711 é", "text arrives")
    finally:
        for value in ("press.bearing_temperature", "press.vibration", "inspection.part_id"):
            plant.fault("unset", value=value)


def test_machines_have_states_and_their_key_figures_are_tags(daemon: Daemon):
    machines = {machine.name: machine for machine in daemon.status().machines}
    assert set(machines) == {"cnc", "press", "strip"}
    for machine in machines.values():
        assert machine.state in {"running", "idle", "setup", "down", "maintenance"}, machine
        assert machine.order
    tags = daemon.tags()
    for name in machines:
        for kpi in KPIS:
            tag = tags[f"{name}.{kpi}"]
            assert tag["device"] == ""
            assert tag["value"] is None or tag["value"] >= 0.0, tag


def test_sql_sees_readings_tags_events_alarms_oee_and_ledger(daemon: Daemon):
    until(lambda: daemon.scalar("select count(distinct tag) from readings") >= 59, "every tag has readings in the ring")
    assert daemon.scalar("select count(*) from tags where device <> ''") == 59
    assert daemon.scalar("select count(*) from events where kind = 'gateway'") >= 1
    until(lambda: daemon.scalar("select count(*) from oee where oee is not null") > 0, "OEE in the ring")
    for view in ("alarms", "ledger"):
        assert daemon.sql(f"select * from {view} limit 1") is not None
    shown = daemon.run("sql", "select count(*) as n from readings", "--format", "json")
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)[0]["n"] > 100


@pytest.mark.parametrize(
    "statement", ["delete from readings", "create table x (i int)", "attach 'x.db'", "copy readings to '/tmp/x.csv'"]
)
def test_sql_changes_nothing(daemon: Daemon, statement: str):
    with pytest.raises(AndonError, match=r"\w+ \w+"):
        daemon.sql(statement)


def test_a_query_with_a_mistake_gets_a_sentence_and_exit_code_1(daemon: Daemon):
    answer = daemon.run("sql", "select nothing from nowhere")
    assert answer.returncode == 1
    assert "nowhere" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_status_prints_every_device_and_says_by_its_exit_code_that_all_is_well(daemon: Daemon):
    shown = daemon.run("status")
    assert shown.returncode == 0, shown.stderr
    for name in SOURCES:
        assert name in shown.stdout
    snapshot = json.loads(daemon.run("status", "--json").stdout)
    assert snapshot["tags_alive"] == snapshot["tags"] == 59


def test_health_metrics_and_page_are_served(daemon: Daemon):
    status, body = daemon.get("/healthz")
    assert status == 200, body
    status, metrics = daemon.get("/metrics")
    assert status == 200
    check = subprocess.run(
        [needed("promtool", "prometheus"), "check", "metrics"],
        input=metrics,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (check.returncode, check.stdout, check.stderr) == (0, "", "")
    for source in SOURCES:
        (line,) = [x for x in metrics.splitlines() if x.startswith(f'andon_readings_total{{source="{source}"')]
        assert float(line.rsplit(" ", 1)[1]) > 0
    status, page = daemon.get("/")
    assert status == 200
    assert "<title>" in page


def test_an_export_reads_back_as_what_sql_shows(daemon: Daemon, folder):
    path = folder / "out.parquet"
    end = time.time_ns()
    until(lambda: daemon.scalar("select epoch_ns(max(time)) from readings") > end, "readings after the end")
    answer = daemon.run("export", "--from", "-1h", "--to", "now", str(path))
    assert answer.returncode == 0, answer.stderr
    with duckdb.connect() as db:
        columns = [row[0] for row in db.execute(f"describe select * from '{path}'").fetchall()]
        exported = db.execute(
            f"select count(*), count(distinct tag) from '{path}' where epoch_ns(time) < {end}"
        ).fetchone()
    assert {"time", "tag", "value", "quality"} <= set(columns)
    assert exported == daemon.sql(f"select count(*), count(distinct tag) from readings where epoch_ns(time) < {end}")[0]


def test_live_values_and_status_are_at_the_broker(daemon: Daemon, scada: Subscriber):
    value = until(lambda: scada.last(f"{SITE}/pressing/line2/press/value"), "live values of the press")
    assert value["gateway"] == "gw1"
    until(lambda: (scada.last(f"{GATEWAY}/status") or {}).get("state") == "online", "retained status")


def test_it_stops_as_asked_says_so_and_leaves_nothing_open(daemon: Daemon, scada: Subscriber):
    started = daemon.scalar("select count(*) from events where kind = 'gateway' and body like '%\"started\"%'")
    before = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - before < 10
    status = until(lambda: (s := scada.last(f"{GATEWAY}/status")) and s["state"] == "offline" and s, "offline")
    assert status["reason"] != "connection lost"
    assert daemon.noise() == []
    assert daemon.stdout.read_text() == ""
    assert not (daemon.state_dir / "control.sock").exists()
    # Without a gateway `andon sql` reads the files themselves: the last event is the stop.
    shown = daemon.run("sql", "select body from events where kind = 'gateway' order by seq", "--format", "json")
    assert shown.returncode == 0, shown.stderr
    bodies = [json.loads(row["body"]) for row in json.loads(shown.stdout)]
    assert bodies[-1]["action"] == "stopped"
    assert [b["action"] for b in bodies].count("started") == started
    assert time.time_ns() - bodies[-1]["time"] < 60 * NS_PER_S
    until(lambda: scada.events(kind="gateway", action="stopped"), "the stop is told to SCADA before it leaves", 2)
