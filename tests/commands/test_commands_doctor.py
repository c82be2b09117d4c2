"""The doctor: what is wrong is said with its cause and what to do, and nothing is changed by asking."""

import asyncio
import contextlib
import datetime as dt
import json
import sys
from pathlib import Path

import pytest
from commands_peers import andon, call

sys.path.append(str(Path(__file__).parents[1] / "outlets"))

import opcua_peers
from modbus_peers import Scripted
from outlets_peers import mosquitto

from edge.app import App
from edge.commands.doctor import doctor
from edge.config import load
from edge.doctor.finding import Finding, needs_person
from edge.doctor.machine import certificates, clock, disk, journal
from edge.doctor.running import list_problems, of_snapshot
from edge.view import AlarmView, BrokerView, DeviceView, RingView, Snapshot
from plant.instant import NS_PER_S

PATIENCE_S = 20
NOW = 1_800_000_000 * NS_PER_S
GATEWAY = """
[site]
enterprise = "acme"
site = "plant1"
[gateway]
name = "gw1"
state_dir = "state"
[storage]
bytes_max = 40_000_000
free_bytes_min = 0
ballast_bytes = 0
[mqtt]
{mqtt}
[web]
enabled = false
{devices}
"""
MODBUS = """[[device]]
name = "{name}"
type = "modbus"
host = "127.0.0.1"
port = {port}
timeout_ms = 200
period_ms = 50
"""
OPCUA = '[[device]]\nname = "{name}"\ntype = "opcua"\nurl = "{url}"\n{more}\n'


def folder(path, devices="", tags=(), mqtt="enabled = false"):
    path.mkdir(parents=True, exist_ok=True)
    (path / "gateway.toml").write_text(GATEWAY.format(devices=devices, mqtt=mqtt))
    (path / "tags.csv").write_text("tag,device,address,type,order\n" + "\n".join(tags) + "\n")
    (path / "alarms.csv").write_text("alarm,tag,condition,limit\n")
    (path / "shifts.toml").write_text("")
    return path


async def findings(path):
    """Run `andon doctor --json`; return its findings by kind and name, and the exit code."""
    told = await andon("doctor", "--config", path, "--json")
    record = json.loads(told.stdout)
    assert record["healthy"] is (told.exit_code == 0)
    return {(f["kind"], f["name"]): f for f in record["findings"]}, told.exit_code


async def test_a_device_that_answers_is_said_to_answer(tmp_path):
    async with Scripted() as plc:
        path = folder(
            tmp_path / "c",
            MODBUS.format(name="press", port=plc.port),
            ["a,press,holding/5,uint16,", "b,press,holding/9,uint16,"],
        )
        found, _ = await findings(path)
    assert found["device", "press"]["state"] == "ok"
    assert "2 of 2 tags have a value" in found["device", "press"]["sentence"]
    assert found["gateway", ""]["state"] == "note"
    assert found["configuration", str(path)]["state"] == "ok"
    assert not (tmp_path / "c" / "state").exists()


async def test_a_silent_unit_id_behind_a_device_that_answers_is_named(tmp_path):
    async with Scripted(script=lambda asked: None if asked.unit == 7 else asked.right()) as plc:
        path = folder(
            tmp_path / "c",
            MODBUS.format(name="press", port=plc.port),
            ["a,press,holding/5,uint16,", "b,press,7/holding/9,uint16,"],
        )
        found, code = await findings(path)
    press = found["device", "press"]
    assert code == 1
    assert press["state"] == "act"
    assert "1 of 2 tags have a value" in press["sentence"]
    assert "b: unit 7" in press["cause"]
    assert "tags.csv" in press["next_step"]


async def test_a_device_that_accepts_tcp_and_says_nothing_is_told_from_one_that_is_away(tmp_path):
    async with Scripted(script=lambda asked: None) as plc:
        path = folder(
            tmp_path / "c",
            MODBUS.format(name="mute", port=plc.port) + MODBUS.format(name="away", port=opcua_peers.free_port()),
            ["a,mute,holding/5,uint16,", "b,away,holding/9,uint16,"],
        )
        found, code = await findings(path)
    assert code == 1
    assert "answers TCP" in found["device", "mute"]["cause"]
    assert "answers TCP" not in found["device", "away"]["cause"]
    assert "refuses TCP (Connection refused)" in found["device", "away"]["cause"]


async def test_an_opcua_server_is_read_and_a_missing_node_is_named(tmp_path):
    async with opcua_peers.Plc() as plc:
        await plc.add("good", 1.5)
        rows = [f"x,cnc,nsu={opcua_peers.URI};s=good,,", f"y,cnc,nsu={opcua_peers.URI};s=gone,,"]
        path = folder(tmp_path / "c", OPCUA.format(name="cnc", url=plc.url, more=""), rows)
        found, _ = await findings(path)
    cnc = found["device", "cnc"]
    assert cnc["state"] == "act"
    assert "1 of 2 tags have a value" in cnc["sentence"]
    assert "y: " in cnc["cause"]


async def test_a_secured_device_before_the_gateway_has_a_certificate_leaves_no_trace(tmp_path):
    more = 'security_policy = "Basic256Sha256"\nsecurity_mode = "SignAndEncrypt"'
    path = folder(
        tmp_path / "c", OPCUA.format(name="cnc", url="opc.tcp://127.0.0.1:1", more=more), ["x,cnc,ns=2;i=5,,"]
    )
    found, _ = await findings(path)
    assert found["device", "cnc"]["state"] == "note"
    assert "andon cert create" in found["device", "cnc"]["next_step"]
    assert not (path / "state").exists()


async def test_a_broker_is_tried_with_the_credentials_and_a_wrong_password_is_named(tmp_path):
    passwords = tmp_path / "passwords"
    passwords.touch(mode=0o600)
    import subprocess

    subprocess.run(["mosquitto_passwd", "-b", str(passwords), "gw1", "right"], check=True, capture_output=True)
    with mosquitto(tmp_path, f"password_file {passwords}", anonymous=False) as broker:
        told = {}
        for word in ("right", "wrong"):
            secret = tmp_path / word
            secret.write_text(word)
            mqtt = f'port = {broker.port}\nuser = "gw1"\npassword_file = "{secret}"'
            found, _ = await findings(folder(tmp_path / f"c-{word}", mqtt=mqtt))
            told[word] = next(f for (kind, _), f in found.items() if kind == "broker")
    assert told["right"]["state"] == "ok"
    assert told["wrong"]["state"] == "act"
    assert "password_file" in told["wrong"]["next_step"]


async def test_asking_does_not_throw_the_real_client_out_of_the_broker(tmp_path):
    import paho.mqtt.client as paho

    with mosquitto(tmp_path) as broker:
        dropped = []
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="andon-gw1")
        client.on_disconnect = lambda *args: dropped.append(args)
        client.connect("127.0.0.1", broker.port)
        client.loop_start()
        try:
            found, _ = await findings(folder(tmp_path / "c", mqtt=f"port = {broker.port}"))
        finally:
            was_connected = client.is_connected()
            client.disconnect()
            client.loop_stop()
    assert next(f for (kind, _), f in found.items() if kind == "broker")["state"] == "ok"
    assert was_connected


def test_a_configuration_with_mistakes_is_the_first_thing_to_correct(tmp_path):
    path = folder(tmp_path / "c", tags=["a,nobody,holding/5,uint16,"])
    told = call("doctor", "--config", path)
    assert told.exit_code == 1
    assert "unknown device 'nobody'" in told.stdout
    assert "andon check" in told.stdout


def test_no_configuration_at_all_is_a_mistake_in_the_call(tmp_path):
    told = call("doctor", "--config", tmp_path)
    assert told.exit_code == 2
    assert "gateway.toml" in told.stderr


@contextlib.asynccontextmanager
async def gateway(path):
    app = App(load(path))
    task = asyncio.create_task(app.run())
    try:
        async with asyncio.timeout(PATIENCE_S):
            await app.ready.wait()
        yield app
    finally:
        app.stop.set()
        await task


async def test_a_running_gateway_is_asked_and_tells_since_when_a_device_is_silent(tmp_path):
    async with Scripted(illegal={9}) as plc:
        devices = MODBUS.format(name="press", port=plc.port) + MODBUS.format(name="away", port=opcua_peers.free_port())
        rows = ["a,press,holding/5,uint16,", "b,press,holding/9,uint16,", "c,away,holding/1,uint16,"]
        path = folder(tmp_path / "c", devices, rows)
        async with gateway(path) as app, asyncio.timeout(PATIENCE_S):
            while {d.name: d.state for d in app.face.snapshot().devices} != {"press": "connected", "away": "down"}:
                await asyncio.sleep(0.02)
            while not any(d.problems for d in app.face.snapshot().devices):
                await asyncio.sleep(0.02)
            found, code = await findings(path)
    assert code == 1
    assert "has been running for" in found["gateway", "gw1"]["sentence"]
    press, away = found["device", "press"], found["device", "away"]
    assert "1 of 2 tags have a value" in press["sentence"]
    assert "b: illegal data address holding/9" in press["cause"]
    assert away["state"] == "act"
    assert away["since"].startswith("20")
    assert "since" in away["sentence"]
    assert "refuses TCP" in away["cause"]
    assert found["disk", "ring"]["state"] == "ok"


async def test_devices_of_a_gateway_that_runs_but_cannot_be_asked_are_left_alone(tmp_path):
    async with Scripted() as plc:
        path = folder(tmp_path / "c", MODBUS.format(name="press", port=plc.port), ["a,press,holding/5,uint16,"])
        (path / "state").mkdir()
        server = await asyncio.start_unix_server(lambda _, writer: writer.close(), path / "state" / "control.sock")
        async with server:
            found, code = await findings(path)
        assert plc.connections == 0
    assert code == 1
    assert found["gateway", ""]["state"] == "act"
    assert ("device", "press") not in found


def test_text_marks_findings_by_words_too(tmp_path):
    path = folder(
        tmp_path / "c", MODBUS.format(name="away", port=opcua_peers.free_port()), ["c,away,holding/1,uint16,"]
    )
    told = call("doctor", "--config", path)
    assert told.exit_code == 1
    lines = told.stdout.splitlines()
    assert any(line.startswith("ACT  device") for line in lines)
    assert any(line.startswith("ok   configuration") for line in lines)
    assert any(line.strip().startswith("do:") for line in lines)
    assert "\x1b[" not in told.stdout


# -- the parts, without a network --------------------------------------------------------------------------------


def device(**more):
    base = {
        "name": "press", "type": "modbus", "state": "connected", "since": NOW - 3600 * NS_PER_S, "sentence": "",
        "tags": 3, "alive": 3, "readings": 10, "lost": 0, "reconnects": 0, "problems": {},
    }  # fmt: skip
    return DeviceView(**(base | more))


def snapshot(devices=(), alarms=(), ring=None, broker=None):
    return Snapshot(
        gateway="gw1", version="1", time=NOW, started=NOW - 60 * NS_PER_S, healthy=True, sentence="", tags=3,
        tags_alive=3, readings=0, readings_per_s=0.0, step_ms_p99=0.0, rss_bytes=0, devices=list(devices), machines=[],
        alarms=list(alarms),
        ring=RingView(**({
            "state": "ok", "sentence": "", "files": 1, "rows": 5, "bytes": 10, "bytes_max": 100, "oldest": 0,
            "newest": NOW, "committed": 5, "dropped": 0, "full_at": 0,
        } | (ring or {}))),
        broker=BrokerView(**({
            "state": "connected", "sentence": "", "address": "mqtt://b:1883", "published": 1, "dropped": 0,
            "unacknowledged": 0,
        } | (broker or {}))),
    )  # fmt: skip


def alarm(name, message):
    return AlarmView(
        alarm=name, asset="", priority="high", state="B", active=True, acknowledged=False, annunciated=True,
        shelved_until=0, occurrence="x", since=NOW, tag="", value=None, limit=None, message=message,
    )  # fmt: skip


def about(kind, shot, now=NOW):
    return next(finding for finding in of_snapshot(shot, now) if finding.kind == kind)


@pytest.mark.parametrize(
    ("view", "state", "says"),
    [
        (device(), "ok", "3 of 3 tags"),
        (device(state="down", sentence="No data since noon."), "act", "No data since noon."),
        (device(state="refused", sentence="No."), "act", "No."),
        (device(state="connecting", since=NOW - NS_PER_S), "note", "being connected"),
        (device(state="connecting"), "act", "connecting"),
        (device(problems={"t": "gone"}), "act", "1 have a problem"),
        (device(alive=0), "act", "0 of 3"),
        (device(tags=0, alive=0), "note", "no row of tags.csv"),
        (device(lost=7), "ok", "7 readings were lost"),
    ],
)
def test_a_device_needs_a_person_when_it_gives_no_data(view, state, says):
    finding = about("device", snapshot([view]))
    assert finding.state == state
    assert says in finding.sentence


def test_a_connected_device_that_is_silent_or_has_a_wrong_clock_says_so():
    shot = snapshot([device()], [alarm("device.press.silent", "press is silent"), alarm("device.other.clock", "no")])
    finding = about("device", shot)
    assert finding.state == "act"
    assert finding.cause == "press is silent"


def test_storage_and_broker_troubles_need_a_person():
    assert (
        about("disk", snapshot(ring={"state": "degraded", "sentence": "the disk is full"})).cause == "the disk is full"
    )
    broker = about("broker", snapshot(broker={"state": "refused", "sentence": "not authorised", "unacknowledged": 12}))
    assert broker.state == "act"
    assert "12 events wait" in broker.sentence
    assert about("journal", snapshot(alarms=[alarm("storage.journal", "no journal")])).sentence == "no journal"
    assert about("broker", snapshot(broker={"state": "off"})).state == "note"


def test_a_clock_behind_what_is_stored_is_found_running_and_stopped():
    shot = snapshot(ring={"newest": NOW + 3600 * NS_PER_S})
    assert "1 h 0 min behind" in about("clock", shot).sentence
    assert any(f.name == "stored" and f.state == "act" for f in clock(NOW + 3600 * NS_PER_S, NOW))
    assert not any(f.name == "stored" for f in clock(NOW - NS_PER_S, NOW))


def test_tags_with_the_same_problem_stand_together():
    assert list_problems({"b": "gone", "a": "gone", "c": "no right"}) == "a, b: gone; c: no right"
    many = list_problems({f"t{i}": "gone" for i in range(9)})
    assert many == "t0, t1, t2, t3, t4 and 4 more: gone"


def test_a_budget_that_the_disk_cannot_hold_is_found(tmp_path):
    path = folder(tmp_path / "c")
    assert disk(load(path)).state == "ok"
    text = (path / "gateway.toml").read_text()
    (path / "gateway.toml").write_text(text.replace("40_000_000", "9_000_000_000_000_000"))
    finding = disk(load(path))
    assert finding.state == "act"
    assert "bytes_max" in finding.next_step


def test_a_damaged_journal_is_found_and_left_as_it_is(tmp_path):
    path = folder(tmp_path / "c")
    assert journal(load(path)).state == "note"
    file = path / "state" / "journal.sqlite"
    file.parent.mkdir()
    file.write_bytes(b"no database at all" * 100)
    finding = journal(load(path))
    assert finding.state == "act"
    assert file.read_bytes() == b"no database at all" * 100


def test_certificates_are_told_before_they_expire(tmp_path):
    path = folder(tmp_path / "c", OPCUA.format(name="cnc", url="opc.tcp://127.0.0.1:1", more=""))
    own, _ = opcua_peers.certificate("us", days=365)
    server, _ = opcua_peers.certificate("plc", days=365)
    opcua_peers.put(path / "state" / "pki" / "own" / "certs", "us.der", own)
    opcua_peers.put(path / "state" / "pki" / "trusted" / "certs", "plc.der", server)
    config, end = load(path), own.not_valid_after_utc
    (good,) = certificates(config, end - dt.timedelta(days=60))
    assert good.state == "ok"
    assert "2 certificates" in good.sentence
    soon = certificates(config, end - dt.timedelta(days=5))
    assert {finding.state for finding in soon} == {"act"}
    assert any("expires in 5 days" in finding.sentence for finding in soon)
    assert any("expired" in finding.sentence for finding in certificates(config, end + dt.timedelta(days=2)))


def test_a_finding_that_asks_for_a_person_decides():
    ok = Finding(kind="clock", state="ok", sentence="")
    assert not needs_person([ok, Finding(kind="clock", state="note", sentence="")])
    assert needs_person([ok, Finding(kind="clock", state="act", sentence="")])
    assert doctor.name == "doctor"
