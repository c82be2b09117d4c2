"""PLCs that fall away, hang and come back changed: what survived is read again soon, the others never notice."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_peers import Daemon, SimulatedPlant, until
from e2e_tap import Tap, modbus_functions, opcua_services

BACK_S = 15.0
STALL_S = 5.0
"""Longest time without a reading from a device that is not concerned. Its slowest period is a second; the rest is for
a busy machine.

The inspection station has nothing to say between two parts; of it only the connection is watched.
"""

OPCUA_READS = {
    428: "GetEndpoints",
    461: "CreateSession",
    467: "ActivateSession",
    473: "CloseSession",
    452: "CloseSecureChannel",
    631: "Read",
    751: "CreateMonitoredItems",
    763: "ModifyMonitoredItems",
    781: "DeleteMonitoredItems",
    787: "CreateSubscription",
    826: "Publish",
    832: "Republish",
    847: "DeleteSubscriptions",
    554: "TranslateBrowsePathsToNodeIds",
}
"""Every service that reading needs, by the node id of its request's binary encoding (OPC 10000-6, annex A)."""


class Halls:
    """The plant in two processes: building a new OPC UA server in one does not hold up the PLCs of the other."""

    def __init__(self, folder: Path) -> None:
        self.halls = [SimulatedPlant(folder, plcs=plcs) for plcs in ("cnc,inspection", "press,strip")]
        self.ports = {name: port for hall in self.halls for name, port in hall.ports.items() if name != "control"}

    def fault(self, fault: str, *, plc: str, **arguments: object) -> None:
        hall = next(hall for hall in self.halls if plc in hall.ports)
        hall.fault(fault, plc=plc, **arguments)

    def stop(self) -> None:
        for hall in self.halls:
            hall.stop()


@pytest.fixture(scope="module")
def plant(folder: Path) -> Iterator[Halls]:
    halls = Halls(folder)
    yield halls
    halls.stop()


@pytest.fixture(scope="module")
def taps(plant: Halls) -> Iterator[dict[str, Tap]]:
    with Tap(plant.ports["strip"]) as strip, Tap(plant.ports["cnc"]) as cnc, Tap(plant.ports["press"]) as press:
        yield {"strip": strip, "cnc": cnc, "press": press}


@pytest.fixture(scope="module")
def prepared(folder, plant: Halls, broker, taps: dict[str, Tap]) -> Iterator[Daemon]:
    ports = plant.ports | {name: tap.port for name, tap in taps.items()}
    daemon = Daemon(folder, ports, broker.port)
    # On a busy machine the plant answers late, and that is no loss of a device here.
    daemon.set("device press", timeout_ms=5000)
    daemon.set("device strip", timeout_ms=2000, quarantine_retry_s=5)
    for name in ("cnc", "inspection"):
        daemon.set(f"device {name}", deadline_ms=10_000, keepalive_ms=10_000)
    yield daemon
    daemon.kill()


class Watch:
    """Looks at the devices that must not notice anything, whenever it is asked."""

    def __init__(self, daemon: Daemon, *but: str) -> None:
        self.daemon = daemon
        views = [device for device in daemon.status().devices if device.name not in but]
        now = time.monotonic()
        self.seen = {view.name: (now, view.readings) for view in views}
        self.reconnects = {view.name: view.reconnects for view in views}
        self.longest = dict.fromkeys(self.seen, 0.0)

    def look(self) -> bool:
        now = time.monotonic()
        for view in self.daemon.status().devices:
            if view.name in self.seen:
                at, readings = self.seen[view.name]
                self.longest[view.name] = max(self.longest[view.name], now - at)
                if view.readings != readings:
                    self.seen[view.name] = (now, view.readings)
                assert view.reconnects == self.reconnects[view.name], view
        return True

    def undisturbed(self, stall_s: float = STALL_S) -> bool:
        return all(stall < stall_s for name, stall in self.longest.items() if name != "inspection")


def alive_but(daemon: Daemon, plc: str, missing: set[str]) -> bool:
    view = daemon.device(plc)
    return view.state == "connected" and view.alive == view.tags - len(missing) and set(view.problems) == missing


def restart(
    daemon: Daemon, plant: Halls, plc: str, missing: set[str], *, lost_for_s: float = 0.5, **how: object
) -> float:
    """Restart a PLC, wait until all that survived is alive; return how long that took after it was there again."""
    watch = Watch(daemon, plc)
    before = daemon.device(plc).reconnects
    plant.fault("restart", plc=plc, seconds=lost_for_s, **how)
    off = time.monotonic()

    def back() -> bool:
        return watch.look() and daemon.device(plc).reconnects > before and alive_but(daemon, plc, missing)

    until(back, lambda: f"{plc} is back: {daemon.device(plc)}", BACK_S + lost_for_s)
    took = time.monotonic() - off - lost_for_s
    assert watch.undisturbed(), watch.longest
    return took


@pytest.mark.parametrize("plc", ["cnc", "inspection", "press", "strip"])
def test_a_restarted_plc_is_read_again_and_nobody_else_notices(daemon: Daemon, plant: Halls, plc: str):
    assert restart(daemon, plant, plc, set()) < BACK_S
    until(lambda: not daemon.active(f"device.{plc}.communication"), "no alarm is left")
    gaps = until(
        lambda: daemon.sql(
            f"select epoch_ns(since) < epoch_ns(until) from ledger where device = '{plc}' and reason = 'disconnected'"
        ),
        "the gap is in the ledger",
    )
    assert gaps == [(True,)]


def test_a_new_program_with_a_node_removed_and_the_namespace_moved_costs_that_node_only(daemon: Daemon, plant: Halls):
    took = restart(daemon, plant, "cnc", {"cnc.x_current"}, without="x_current", namespace_shift=3)
    assert took < BACK_S
    alarm = until(lambda: daemon.active("device.cnc.no_data"), "the missing node is an alarm")
    assert "cnc.x_current" in alarm.message
    assert "X.Current" in alarm.message
    assert daemon.tags()["cnc.x_current"]["quality"] == 0
    before = daemon.tags()["cnc.x_position"]
    until(lambda: daemon.tags()["cnc.x_position"]["time"] > before["time"], "the others move on")
    took = restart(daemon, plant, "cnc", set(), namespace_shift=0)
    assert took < BACK_S
    until(lambda: not daemon.active("device.cnc.no_data"), "with its node back the alarm goes")


def test_a_register_that_is_gone_costs_that_register_only(daemon: Daemon, plant: Halls):
    assert restart(daemon, plant, "press", {"press.pressure"}, without="pressure") < BACK_S
    alarm = until(lambda: daemon.active("device.press.no_data"), "the missing register is an alarm")
    assert "press.pressure" in alarm.message
    assert "input/3" in alarm.message
    assert restart(daemon, plant, "press", set()) < BACK_S
    until(lambda: not daemon.active("device.press.no_data"), "with its register back the alarm goes")


def test_a_plc_that_hangs_without_hanging_up_delays_nobody(daemon: Daemon, plant: Halls, taps: dict[str, Tap]):
    """The strip line's PLC takes every request and never answers."""
    watch = Watch(daemon, "strip")
    taps["strip"].deaf.set()
    try:
        until(
            lambda: watch.look() and daemon.active("device.strip.communication"), "the hanging PLC is an alarm", BACK_S
        )
        until(lambda: watch.look() and daemon.device("strip").alive == 0, "its tags are bad")
        end = time.monotonic() + 3
        until(lambda: watch.look() and time.monotonic() > end, "some attempts later")
        assert watch.undisturbed(2.5), watch.longest
        assert not daemon.active("device.strip.silent"), "one alarm says it all"
        shown = daemon.device("strip").sentence
        assert "strip" in shown
        assert "since" in shown
    finally:
        taps["strip"].deaf.clear()
    until(lambda: alive_but(daemon, "strip", set()), lambda: f"it is back: {daemon.device('strip')}", BACK_S)


def test_an_exception_for_some_registers_costs_these_only(daemon: Daemon, plant: Halls):
    watch = Watch(daemon)
    plant.fault("exceptions", plc="strip", values="co2,rejects")
    try:
        until(lambda: watch.look() and alive_but(daemon, "strip", {"strip.co2", "strip.rejects"}), "these two only")
        alarm = until(lambda: daemon.active("device.strip.no_data"), "an alarm names them")
        assert "strip.co2" in alarm.message
        assert "strip.rejects" in alarm.message
    finally:
        plant.fault("exceptions", plc="strip")
    until(lambda: watch.look() and alive_but(daemon, "strip", set()), "tried again until they answer", 90)


def test_nothing_was_ever_written_to_a_machine(daemon: Daemon, taps: dict[str, Tap]):
    """Last in this file: it judges every byte that the gateway has sent in all the tests before."""
    for plc in ("press", "strip"):
        functions = modbus_functions(taps[plc].said)
        assert functions.total() > 20
        assert set(functions) <= {1, 2, 3, 4}, functions
    services = opcua_services(taps["cnc"].said)
    assert services[826] > 20, "publish requests were heard, so the count means something"
    assert set(services) <= set(OPCUA_READS), services
    assert daemon.noise() == []
