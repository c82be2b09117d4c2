"""A configuration that changes while the gateway runs: what differs changes, the rest never notices."""

import shutil

import pytest
from e2e_peers import Daemon, Subscriber, until

TRIGGER = "press.guard.open"


@pytest.fixture(autouse=True)
def restored(daemon: Daemon, tmp_path):
    """Every test leaves the configuration as it found it, and in force."""
    kept = tmp_path / "kept"
    shutil.copytree(daemon.folder, kept)
    yield
    shutil.rmtree(daemon.folder)
    shutil.copytree(kept, daemon.folder)
    with daemon.control() as control:
        control.reload()
    daemon.wait_alive()


def events(daemon: Daemon, action: str) -> int:
    return daemon.scalar(f"select count(*) from events where kind = 'gateway' and body->>'$.action' = '{action}'")


def reload(daemon: Daemon) -> None:
    """As systemd does it, by SIGHUP; wait until it is in force."""
    before = events(daemon, "reloaded")
    daemon.hang_up()
    until(lambda: events(daemon, "reloaded") > before, lambda: f"reloaded: {daemon.tail()}")


def connections(daemon: Daemon) -> dict[str, tuple[int, int]]:
    """Since when each device is in its state, and how often it came back."""
    return {device.name: (device.since, device.reconnects) for device in daemon.status_now().devices}


def test_a_changed_limit_is_in_force_and_no_device_notices(daemon: Daemon, scada: Subscriber):
    before = connections(daemon)
    daemon.set_cell("alarms.csv", "press.bearing.hot", "limit", "-15")
    reload(daemon)
    alarm = until(lambda: daemon.active("press.bearing.hot"), "the new limit holds")
    assert alarm.limit == -15
    until(lambda: scada.events(alarm="press.bearing.hot", transition="activate"), "and SCADA is told")
    assert connections(daemon) == before


def test_a_changed_device_reconnects_and_the_others_go_on_without_a_gap(daemon: Daemon):
    before = connections(daemon)
    counts = {device.name: device.readings for device in daemon.status().devices}
    daemon.set("device press", timeout_ms=1234)
    reload(daemon)

    def back() -> bool:
        return connections(daemon)["press"] != before["press"] and daemon.device("press").state == "connected"

    until(back, "the press is connected anew")
    daemon.wait_alive()
    after = connections(daemon)
    for name in ("cnc", "strip", "inspection"):
        assert after[name] == before[name]
        until(lambda name=name: daemon.device(name).readings > counts[name], f"{name} goes on")
    until(lambda: not daemon.active("device.press.communication"), "no alarm is left")
    # A break would show as BAD readings of devices that nobody touched.
    bad = """select count(*) from readings join tags using (tag)
        where quality = 0 and device <> '' and device <> 'press'"""
    assert daemon.scalar(bad) == 0


def test_a_mistake_changes_nothing_and_is_told_with_file_and_line(daemon: Daemon):
    before = connections(daemon)
    refused = events(daemon, "reload_refused")
    logged = len(daemon.lines())
    daemon.set_cell("alarms.csv", "press.bearing.hot", "tag", "press.bearing_temperatur")
    daemon.set("device press", timeout_msec=1234)
    daemon.hang_up()
    until(lambda: events(daemon, "reload_refused") > refused, "the refusal is an event")
    (line,) = [x for x in daemon.lines()[logged:] if x["level"] == "warning"]
    assert "alarms.csv:" in str(line["problems"])
    assert "gateway.toml:" in str(line["problems"])

    answer = daemon.run("reload")
    assert answer.returncode != 0
    where = next(x for x in answer.stderr.splitlines() if "alarms.csv:" in x)
    assert "press.bearing_temperatur" in where
    assert "did you mean 'press.bearing_temperature'?" in where
    where = next(x for x in answer.stderr.splitlines() if "gateway.toml:" in x)
    assert "timeout_msec" in where
    number = int(where.partition("gateway.toml:")[2].partition(":")[0])
    assert "timeout_msec" in (daemon.folder / "gateway.toml").read_text().splitlines()[number - 1]
    assert connections(daemon) == before
    daemon.wait_alive()


def test_a_new_tag_appears_and_every_index_stays(daemon: Daemon):
    before = dict(daemon.sql("select tag, index from tags"))
    connected = connections(daemon)
    with (daemon.folder / "tags.csv").open("a") as file:
        file.write("aaa.power,strip,2/input/0,float32,ABCD,,,kW,,,,,10,,,The same power again\n")
    answer = daemon.run("reload")
    assert answer.returncode == 0, answer.stderr
    assert "strip" in answer.stdout
    tag = until(
        lambda: (t := daemon.tags().get("aaa.power")) and t["value"] is not None and t, "the new tag has a value"
    )
    assert tag["unit"] == "kW"
    after = dict(daemon.sql("select tag, index from tags"))
    assert {name: after[name] for name in before} == before
    assert after["aaa.power"] > max(before.values())
    assert connections(daemon)["cnc"] == connected["cnc"]
    until(lambda: daemon.scalar("select count(*) from readings where tag = 'aaa.power'"), "and is kept")


def test_a_changed_scale_holds_without_touching_the_device(daemon: Daemon):
    before = connections(daemon)
    value = daemon.tags()["press.pressure"]["value"]
    assert value is not None
    daemon.set_cell("tags.csv", "press.pressure", "scale", "-0.1")
    reload(daemon)
    until(lambda: daemon.tags()["press.pressure"]["value"] < 0, "the new scale holds")
    assert connections(daemon) == before


def test_a_removed_device_is_gone_with_its_alarms(daemon: Daemon):
    path = daemon.folder / "tags.csv"
    rows = [row for row in path.read_text().splitlines() if not row.startswith("inspection.")]
    path.write_text("\n".join(rows) + "\n")
    toml = (daemon.folder / "gateway.toml").read_text()
    start = toml.index('[[device]]\nname = "inspection"')
    end = toml.index("# ----", start)
    (daemon.folder / "gateway.toml").write_text(toml[:start] + toml[end:])
    reload(daemon)
    until(lambda: {device.name for device in daemon.status().devices} == {"cnc", "press", "strip"}, "it is gone")
    assert not [
        alarm for alarm in daemon.status().alarms if alarm.alarm.startswith("device.inspection") and alarm.active
    ]
    daemon.wait_alive()


def test_what_only_a_restart_can_change_is_said(daemon: Daemon):
    daemon.set("web", streams_max=3)
    answer = daemon.run("reload")
    assert answer.returncode == 0, answer.stderr
    assert "restart" in answer.stdout
    assert "[web]" in answer.stdout


def test_nothing_changed_touches_nothing(daemon: Daemon):
    before = connections(daemon)
    reload(daemon)
    assert connections(daemon) == before
    assert daemon.noise() == []
