"""sd_notify over a real datagram socket."""

import os
import socket
import time

import pytest

from edge import systemd


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path, monkeypatch):
    address = (
        str(tmp_path / "notify") if request.param == "path" else f"@andon-test-{os.getpid()}-{time.monotonic_ns()}"
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address.replace("@", "\0", 1))
        sock.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        yield sock


def test_each_message_is_one_datagram(manager):
    assert systemd.ready("Data flows\nfrom 3 devices")
    assert manager.recv(4096) == b"READY=1\nSTATUS=Data flows from 3 devices"
    assert systemd.status("press is down")
    assert manager.recv(4096) == b"STATUS=press is down"
    assert systemd.watchdog()
    assert manager.recv(4096) == b"WATCHDOG=1"
    assert systemd.stopping()
    assert manager.recv(4096) == b"STOPPING=1"


def test_reloading_carries_the_monotonic_time(manager):
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert systemd.reloading()
    first, second = manager.recv(4096).decode().split("\n")
    assert first == "RELOADING=1"
    assert before <= int(second.removeprefix("MONOTONIC_USEC=")) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


@pytest.mark.parametrize("address", [None, "", "relative", "/nowhere/at/all"])
def test_without_a_manager_nothing_happens(monkeypatch, address):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert systemd.ready("x") is False


@pytest.mark.parametrize(
    ("usec", "pid", "period"), [("30000000", "", 10.0), ("30000000", "1", None), ("", "", None), ("0", "", None)]
)
def test_the_watchdog_is_fed_three_times_per_limit(monkeypatch, usec, pid, period):
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", pid)
    assert systemd.watchdog_period_s() == period
