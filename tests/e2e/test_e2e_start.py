"""Starting in a world that is not as it should be: a sentence, an exit code, and nothing destroyed."""

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_peers import Daemon, SimulatedPlant, until

CONFIG = 2


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("start")


@pytest.fixture
def fresh(place: Path, plant: SimulatedPlant, broker) -> Iterator[Daemon]:
    daemon = Daemon(place, plant.ports, broker.port)
    yield daemon
    daemon.kill()


def refused(daemon: Daemon, code: int) -> str:
    """Start a gateway that cannot run; return the sentence that it leaves."""
    daemon.launch()
    assert daemon.process is not None
    assert daemon.process.wait(30) == code, daemon.tail()
    text = daemon.tail()
    assert "Traceback" not in text
    assert "nanobind" not in text
    return text


def test_a_mistake_in_the_configuration_starts_nothing(fresh: Daemon):
    fresh.set("mqtt", live_perod_ms=5)
    assert "gateway.toml:" in refused(fresh, CONFIG)
    assert not fresh.state_dir.exists()


def test_a_state_folder_that_cannot_be_made_is_named(fresh: Daemon, place: Path):
    (place / "file").write_text("")
    fresh.set("gateway", state_dir=str(place / "file" / "state"))
    text = refused(fresh, CONFIG)
    assert str(place / "file" / "state") in text
    assert "state_dir" in text


@contextlib.contextmanager
def mounted(path: Path, options: str) -> Iterator[None]:
    """A small file system of its own at `path`; without the right to mount one the test is skipped."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def test_a_state_folder_that_may_not_be_written_is_named(fresh: Daemon):
    with mounted(fresh.state_dir, "ro,size=1m"):
        text = refused(fresh, CONFIG)
    assert "gateway.toml" in text
    assert f"state_dir {fresh.state_dir} cannot be used: Read-only file system" in text


def test_a_second_gateway_on_the_same_state_is_refused_and_harms_nothing(fresh: Daemon, plant: SimulatedPlant):
    fresh.start()
    fresh.wait_alive()
    second = Daemon.__new__(Daemon)
    second.__dict__.update(fresh.__dict__)
    second.stderr = fresh.stderr.with_name("second.log")
    second.process = None
    text = refused(second, CONFIG)
    assert "another gateway runs on" in text
    assert str(fresh.state_dir) in text
    assert fresh.all_alive()
    assert fresh.stop() == 0


def test_a_taken_port_is_named_with_what_to_change(fresh: Daemon):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", fresh.web_port))
        taken.listen()
        text = refused(fresh, CONFIG)
    assert str(fresh.web_port) in text
    assert "[web] port" in text


def test_a_damaged_journal_is_set_aside_the_tags_keep_their_indices_and_an_alarm_says_so(fresh: Daemon):
    fresh.start()
    fresh.wait_alive()
    before = dict(fresh.sql("select tag, index from tags"))
    until(lambda: fresh.scalar("select count(distinct tag) from readings") >= len(before) * 3 // 4, "readings are kept")
    rows = fresh.scalar("select count(*) from readings")
    fresh.kill()
    for path in fresh.state_dir.glob("journal.sqlite-*"):
        path.unlink()
    (fresh.state_dir / "journal.sqlite").write_bytes(b"this is no database at all, but it is long enough" * 1000)
    fresh.start()
    fresh.wait_alive()
    alarm = until(lambda: fresh.active("storage.damaged"), "the damage is an alarm")
    assert "journal" in alarm.message
    after = dict(fresh.sql("select tag, index from tags"))
    kept = {tag for (tag,) in fresh.sql("select distinct tag from readings")}
    assert {tag: after[tag] for tag in before if tag in kept} == {tag: before[tag] for tag in before if tag in kept}
    assert fresh.scalar("select count(*) from readings") > rows
    assert list(fresh.state_dir.glob("journal*damaged*")), list(fresh.state_dir.iterdir())
    assert fresh.noise() == []
    assert fresh.stop() == 0


def test_a_damaged_ring_file_is_set_aside_and_the_gateway_runs_on_a_new_one(fresh: Daemon):
    fresh.start()
    fresh.wait_alive()
    until(lambda: fresh.scalar("select count(*) from readings") > 100, "readings are kept")
    assert fresh.stop() == 0
    (file,) = fresh.state_dir.glob("ring/*.duckdb")
    with file.open("r+b") as open_file:
        open_file.write(os.urandom(20_000))
    fresh.start()
    fresh.wait_alive()
    alarm = until(lambda: fresh.active("storage.damaged"), "the damage is an alarm")
    assert file.name in alarm.message
    until(lambda: fresh.scalar("select count(*) from readings") > 0, "a new file takes the readings")
    assert fresh.scalar("select count(*) from events where kind = 'gateway'") >= 3, "the journal is whole"
    assert fresh.noise() == []
    assert fresh.stop() == 0


def test_a_full_disk_is_an_alarm_and_the_gateway_goes_on(fresh: Daemon):
    fresh.set("storage", bytes_max=16_000_000, free_bytes_min=2_000_000)
    with mounted(fresh.state_dir, "size=40m"):
        try:
            fresh.start()
            fresh.wait_alive()
            rows = fresh.scalar("select count(*) from readings")
            filler = fresh.state_dir / "somebody-else.bin"
            filler.write_bytes(bytes(shutil.disk_usage(fresh.state_dir).free - 100_000))
            alarm = until(lambda: fresh.active("storage.disk_full"), lambda: f"an alarm: {fresh.tail()}", 60)
            assert str(fresh.state_dir) in alarm.message
            until(fresh.all_alive, "reading and judging go on")
            filler.unlink()
            until(lambda: not fresh.active("storage.disk_full"), "with room it goes", 60)
            until(lambda: fresh.scalar("select count(*) from readings") > rows, "and readings are kept again")
            assert fresh.noise() == []
            assert fresh.stop() == 0
        finally:
            fresh.kill()
