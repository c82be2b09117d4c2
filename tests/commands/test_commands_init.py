"""`andon init`: a first configuration that passes `andon check`, with and without somebody who answers."""

import json

import pytest
import pytest_asyncio
from asyncua import ua
from commands_peers import andon, call
from modbus_peers import Scripted
from opcua_peers import Plc

from edge.commands.init import machine_zone
from edge.config import load

pytestmark = pytest.mark.asyncio(loop_scope="module")


def checked(folder):
    result = call("check", "--config", folder)
    assert result.exit_code == 0, result.stderr
    return load(folder)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plc():
    async with Plc() as plc:
        index = plc.index
        press = await plc.server.nodes.objects.add_object(ua.NodeId("Press", index), f"{index}:Press")
        for name, value in (("Öl Temp", 41.5), ("Order", "WO-1"), ("Strokes", 7), ("Curve", [1.0])):
            await press.add_variable(ua.NodeId(f"Press.{name}", index), f"{index}:{name}", value)
        yield plc


async def test_defaults_alone_pass_the_check(tmp_path):
    result = await andon("init", tmp_path / "site", "--yes")
    assert result.exit_code == 0, result.stderr
    config = checked(tmp_path / "site")
    assert config.file.site.time_zone == machine_zone()
    assert [shift.name for shift in config.shifts.shift] == ["early", "late", "night"]
    assert config.state_dir == tmp_path / "site" / "state"


async def test_a_server_that_is_there_fills_the_tag_list(plc, tmp_path):
    folder = tmp_path / "site"
    result = await andon(
        "init", folder, "--yes", "--enterprise", "acme", "--site", "ulm", "--time-zone", "Europe/Berlin",
        "--gateway", "g7", "--device", "opcua", "--device-name", "press", "--asset", "pressing/line2/press",
        "--url", plc.url, "--json",
        "--broker", "broker.example:8883", "--shifts", "two",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["reached"] is True
    config = checked(folder)
    assert {(row.tag, row.type) for row in config.tags} == {
        ("Press.Oel_Temp", ""), ("Press.Order", "string"), ("Press.Strokes", ""),
    }  # fmt: skip
    assert (config.file.mqtt.host, config.file.mqtt.port) == ("broker.example", 8883)
    browsed = await andon("browse", "press", "--config", folder, "--csv", "-")
    assert browsed.stdout.splitlines()[1:] == [
        line for line in (folder / "tags.csv").read_text().splitlines() if line.startswith("Press.")
    ]


async def test_answers_are_asked_for_again_until_they_can_be_used(plc, tmp_path):
    answers = ["acme corp", "acme", "", "Berlin", "Europe/Berlin", "", "", "four", "one", "-", "opcua", "press", ""]
    stdin = "\n".join([*answers, plc.url.removeprefix("opc.tcp://"), ""])
    result = await andon("init", tmp_path / "site", stdin=stdin)
    assert result.exit_code == 0, result.stderr
    assert "without spaces" in result.stderr
    assert "did you mean Europe/Berlin?" in result.stderr
    assert "'four' is none of none, one, two, three" in result.stderr
    config = checked(tmp_path / "site")
    assert config.file.site.enterprise == "acme"
    assert not config.file.mqtt.enabled
    assert config.file.device[0].url == plc.url
    assert len(config.tags) == 3


async def test_a_device_that_is_not_there_is_told_and_written_all_the_same(tmp_path):
    folder = tmp_path / "a"
    result = await andon("init", folder, "--yes", "--device", "opcua", "--url", "opc.tcp://127.0.0.1:1", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["reached"] is False
    assert "cannot be reached" in result.stderr
    assert checked(folder).file.device[0].url == "opc.tcp://127.0.0.1:1"
    result = await andon("init", tmp_path / "b", "--yes", "--device", "modbus", "--host", "127.0.0.1:1")
    assert result.exit_code == 0
    assert "listens on 502" in result.stderr
    assert checked(tmp_path / "b").file.device[0].port == 1


async def test_a_modbus_device_is_asked_at_once(tmp_path):
    async with Scripted() as device:
        result = await andon(
            "init", tmp_path / "site", "--yes", "--device", "modbus", "--host", f"127.0.0.1:{device.port}", "--unit", 3
        )
        assert "holding/0..9" in result.stderr
        assert {asked.unit for asked in device.asked} == {3}
    assert checked(tmp_path / "site").file.device[0].unit_id == 3
    assert "andon probe plc1" in result.stdout


async def test_a_recording_gives_its_columns(tmp_path):
    recording = tmp_path / "run.csv"
    recording.write_text("time,speed [m/s],program\n2026-01-01 00:00:00,1.5,P1\n2026-01-01 00:00:01,1.6,P1\n")
    folder = tmp_path / "site"
    result = await andon(
        "init", folder, "--yes", "--device", "replay", "--recording", recording, "--device-name", "line"
    )
    assert result.exit_code == 0, result.stderr
    tags = checked(folder).tags
    assert {(row.tag, row.address, row.type) for row in tags} == {
        ("line.speed_m_s", "speed [m/s]", ""), ("line.program", "program", "string"),
    }  # fmt: skip


async def test_nothing_is_ever_overwritten(tmp_path):
    (tmp_path / "alarms.csv").write_text("mine")
    result = await andon("init", tmp_path, "--yes")
    assert result.exit_code == 2
    assert "alarms.csv already" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["alarms.csv"]
    assert (tmp_path / "alarms.csv").read_text() == "mine"


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--site", "two words", "without spaces"),
        ("--time-zone", "Europe/Berln", "did you mean Europe/Berlin"),
        ("--gateway", "a/b", "letters, digits"),
        ("--broker", "http://x", "host:port"),
    ],
)
async def test_an_option_that_cannot_be_used_ends_with_2(tmp_path, option, value, words):
    result = await andon("init", tmp_path / "site", "--yes", option, value)
    assert result.exit_code == 2
    assert words in result.stderr
    assert not (tmp_path / "site").exists()


async def test_csv_rows_of_browse_pass_the_check_and_an_existing_file_stays(plc, tmp_path):
    folder = tmp_path / "site"
    await andon("init", folder, "--yes", "--device", "opcua", "--url", plc.url, "--device-name", "plc", "--no-contact")
    assert checked(folder).tags == ()
    (folder / "tags.csv").unlink()
    result = await andon("browse", "plc", "--config", folder, "--csv", folder / "tags.csv")
    assert result.exit_code == 0, result.stderr
    assert {row.tag for row in checked(folder).tags} == {"plc.Press.Oel_Temp", "plc.Press.Order", "plc.Press.Strokes"}
    again = await andon("browse", "plc", "--config", folder, "--csv", folder / "tags.csv")
    assert again.exit_code == 2
    assert "nothing is overwritten" in again.stderr
