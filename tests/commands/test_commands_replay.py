"""A recording through the line again: the same alarms and OEE as live, twice the same, and what another set changes."""

import asyncio
import functools
import json

import duckdb
import pytest
from click.testing import CliRunner
from commands_peers import andon
from modbus_peers import Scripted
from replay_rig import GATEWAY, START, activations, folder, live

from edge.app import App
from edge.commands.replay import replay
from edge.config import load
from edge.replay.outcome import compare
from edge.replay.recording import NEVER, Recording
from edge.replay.run import run
from edge.replay.stored import stored
from edge.replay.tell import outcome_record
from edge.tick import Command
from plant.instant import NS_PER_S

WITHIN_S = 0.2
"""An alarm of a replay may begin so much earlier or later than it did: a step, and the way of the reading."""
REPEAT_S = 1
"""A value that stays is repeated this often: a rate returns to 0 so much later."""
HEARTBEAT_S = 60
"""Silence begins somewhere in the heartbeat after the last stored value; a replay says the beginning."""


@pytest.fixture(scope="module")
def plant(tmp_path_factory):
    path = folder(tmp_path_factory.mktemp("replay") / "config")
    events, views = asyncio.run(live(path))
    return path, events, views


def call(*arguments):
    return CliRunner().invoke(replay, [str(a) for a in arguments])


@functools.cache
def replayed(path, against=None):
    config = load(path)
    with stored(config.state_dir, "control.sock", 0, NEVER) as recording:
        a = run(config, recording, stored=config)
        return a if against is None else (a, run(load(against), recording, stored=config))


def test_a_replay_of_what_was_stored_gives_the_alarms_that_were_raised_live(plant):
    path, events, _ = plant
    expected = activations(events)
    assert {"press.hot", "press.low", "press.down", "press.silent", "press.falls"} <= expected.keys()
    assert "device.press.communication" in expected
    assert "press.no_value" not in expected  # the lost device says it all, live and in a replay
    found = {}
    for result in replayed(path).alarms:
        for activation in result.activations:
            steps = found.setdefault(result.alarm, [])
            steps.append(("activate", activation.start))
            if activation.end:
                steps.append(("clear", activation.end))
    assert found.keys() == expected.keys()
    for alarm, steps in expected.items():
        assert [name for name, _ in found[alarm]] == [name for name, _ in steps], alarm
        for (name, at), (_, was) in zip(found[alarm], steps, strict=True):
            early_s = HEARTBEAT_S if (alarm, name) == ("press.silent", "activate") else WITHIN_S
            late_s = WITHIN_S + (REPEAT_S if alarm == "press.falls" else 0)
            assert -early_s <= (at - was) / NS_PER_S <= late_s, (alarm, name, (at - was) / NS_PER_S)


def test_a_replay_counts_the_parts_and_the_oee_that_were_counted_live(plant):
    path, _, views = plant
    shifts = {result.shift: result for result in replayed(path).shifts}
    assert shifts.keys() == {"early", "late"}
    late, view = shifts["late"], views[0]
    assert late.produced == view.produced
    # Unknown time begins when the device was heard last, here: when it was stored last.
    assert late.oee == pytest.approx(view.oee, abs=0.005)
    assert late.availability == pytest.approx(view.availability, abs=0.005)


def test_what_people_said_about_a_machine_is_said_again(plant):
    path, *_ = plant
    config = load(path)
    with stored(config.state_dir, "control.sock", 0, NEVER) as recording:
        names = [signal.name for _, signal in recording.signals if isinstance(signal, Command)]
        assert names == ["correct", "set_state"]
        outcome = run(config, recording, stored=config)
        recording.signals = ()
        without = run(config, recording, stored=config)
    assert outcome.shifts[1].produced == without.shifts[1].produced + 12
    assert outcome.shifts[1].availability < without.shifts[1].availability


def test_two_replays_are_the_same_to_the_last_bit(plant):
    path, *_ = plant
    first, second = call("--config", path, "--json"), call("--config", path, "--json")
    assert first.exit_code == 0, first.output
    assert first.output == second.output
    assert json.loads(first.output)["a"]["alarms"]


def test_what_was_stored_is_stored_again(plant):
    path, *_ = plant
    readings = replayed(path).readings
    assert readings.kept == readings.used > 500
    assert readings.missing == ()


def test_another_alarm_list_shows_what_would_be_different(plant, tmp_path):
    path, *_ = plant
    other = folder(tmp_path / "other", limit=200)
    a, b = replayed(path, other)
    differences = compare(a, b)
    assert [result.alarm for result in differences.only_a] == ["press.hot"]
    assert not differences.only_b
    assert not differences.shifts
    span = ("--from", "2027-01-15T09:27:00+00:00", "--to", "2027-01-15T09:31:00+00:00")
    told = call("--config", path, "--against", other, *span)
    assert told.exit_code == 0, told.output
    assert "- press.hot: once" in told.output
    assert "never in B" in told.output


def test_another_deadband_shows_how_much_less_is_stored(plant, tmp_path):
    path, *_ = plant
    a, b = replayed(path, folder(tmp_path / "other", deadband="1"))
    assert b.readings.kept < a.readings.kept
    assert b.readings.by_tag["press.temperature"][1] < a.readings.by_tag["press.temperature"][1] / 2


def test_another_scale_applies_to_what_the_first_one_stored(plant, tmp_path):
    path, *_ = plant
    text = (path / "tags.csv").read_text()
    halved = text.replace("0.1,-20", "0.05,-20")
    assert halved != text
    _, b = replayed(path, folder(tmp_path / "other", tags=halved))
    assert "press.hot" not in {result.alarm for result in b.alarms}


def test_the_same_configuration_against_itself_has_no_difference(plant):
    path, *_ = plant
    span = ("--from", "2027-01-15T09:27:00+00:00", "--to", "2027-01-15T09:30:00+00:00")
    told = call("--config", path, "--against", path, *span)
    assert "none: the same alarms" in told.output
    record = json.loads(call("--config", path, "--against", path, "--json", *span).output)
    assert record["differences"]["same"] is True


def test_a_stretch_of_time_is_all_that_is_replayed(plant):
    path, *_ = plant
    told = json.loads(
        call(
            "--config", path, "--from", "2027-01-15T09:21:00+00:00", "--to", "2027-01-15T09:23:00+00:00", "--json"
        ).output
    )
    assert 0 < told["a"]["readings"]["recorded"] < replayed(path).readings.rows / 5
    assert {shift["shift"] for shift in told["a"]["oee"]} == {"early"}


def wide(path, rows):
    """Write a wide recording: time and a column per tag."""
    lines = ["time,press.state_word,press.parts,press.temperature,press.pressure,unknown.column"]
    lines += [f"{START // NS_PER_S + s},{state},{parts},{t},100,7" for s, state, parts, t in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_wide_file_of_raw_values_is_scaled_as_the_device_would_be(tmp_path):
    path = folder(tmp_path / "config")
    file = wide(tmp_path / "r.csv", [(s, 1, s // 2, 1100 if 100 <= s < 200 else 500) for s in range(300)])
    told = json.loads(call("--config", path, "--recording", file, "--raw", "--json").output)["a"]
    (hot,) = [alarm for alarm in told["alarms"] if alarm["alarm"] == "press.hot"]
    assert hot["count"] == 1
    assert hot["activations"][0]["start"].startswith("2027-01-15T09:21:45")
    assert hot["activations"][0]["value"] == pytest.approx(90.0)
    assert hot["total_s"] == pytest.approx(100, abs=1)
    assert told["readings"]["ignored"] == ["unknown.column"]
    assert told["readings"]["missing"] == ["press.recipe"]


def test_engineering_values_of_a_file_are_not_scaled_again(tmp_path):
    path = folder(tmp_path / "config")
    file = wide(tmp_path / "r.csv", [(s, 1, s // 2, 90 if 100 <= s < 200 else 30) for s in range(300)])
    told = json.loads(call("--config", path, "--recording", file, "--json").output)["a"]
    assert [alarm["count"] for alarm in told["alarms"] if alarm["alarm"] == "press.hot"] == [1]


def test_a_long_file_of_the_kind_that_export_writes_is_read(tmp_path):
    path = folder(tmp_path / "config")
    file = tmp_path / "r.parquet"
    duckdb.sql(
        f"""COPY (SELECT i AS seq, make_timestamp({START // 1000} + i * 1000000) AS time, 'press.pressure' AS tag,
        CASE WHEN i BETWEEN 50 AND 59 THEN 20.0 ELSE 90.0 END AS value, NULL::VARCHAR AS text, 192::UTINYINT AS quality
        FROM range(120) r(i)) TO '{file}' (FORMAT parquet)"""
    )
    outcome = outcome_record(run_file(path, file))
    counts = {alarm["alarm"]: alarm["count"] for alarm in outcome["alarms"]}
    assert counts == {"press.falls": 2, "press.low": 1}  # down and up again


def run_file(path, file):
    config = load(path)
    with Recording(file) as recording:
        return run(config, recording, stored=config)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("tag,value\na,1\n", "has no column time"),
        ("time,press.pressure\n", "holds no reading"),
        (None, "there is no recording"),
    ],
)
def test_a_file_that_is_no_recording_is_refused_with_a_reason(tmp_path, content, says):
    path = folder(tmp_path / "config")
    file = tmp_path / "r.csv"
    if content is not None:
        file.write_text(content)
    told = call("--config", path, "--recording", file)
    assert told.exit_code == 1
    assert says in told.output


def test_a_gateway_that_never_ran_has_nothing_to_replay(tmp_path):
    told = call("--config", folder(tmp_path / "config"))
    assert told.exit_code == 1
    assert "no gateway has run" in told.output
    assert "--recording" in told.output


def test_a_long_silence_takes_no_long_time_and_ends_in_unknown_state(tmp_path):
    path = folder(tmp_path / "config")
    day = 86_400
    rows = [(s, 1, s // 2, 500) for s in range(120)] + [(3 * day + s, 1, s // 2, 500) for s in range(120)]
    config = load(path)
    with Recording(wide(tmp_path / "r.csv", rows)) as recording:
        outcome = run(config, recording, stored=None)
    assert outcome.steps < 10_000
    full = [result for result in outcome.shifts if START // NS_PER_S + day < result.start // NS_PER_S]
    assert full[0].oee is None
    assert full[0].unknown_s == pytest.approx((full[0].end - full[0].start) / NS_PER_S)


async def test_what_a_running_gateway_stored_is_replayed_without_stopping_it(tmp_path):
    async with Scripted() as plc:
        text = GATEWAY.replace('host = "127.0.0.1"', f'host = "127.0.0.1"\nport = {plc.port}\nperiod_ms = 50')
        path = folder(tmp_path / "config", gateway=text + "[web]\nenabled = false\n")
        app = App(load(path))
        task = asyncio.create_task(app.run())
        try:
            async with asyncio.timeout(20):
                await app.ready.wait()
                while app.store.status().rows < 20:
                    await asyncio.sleep(0.02)
            told = await andon("replay", "--config", path, "--json")
            assert not task.done()
        finally:
            app.stop.set()
            await task
    assert told.exit_code == 0, told.stderr
    assert json.loads(told.stdout)["a"]["readings"]["by_tag"].keys() >= {"press.pressure", "press.parts"}
