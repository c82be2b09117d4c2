"""The whole gateway as a Sparkplug edge node: births, kill -9, an outage of the broker, a host that goes away."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e_peers import Broker, Daemon, until

# The independent host application belongs to the tests of the outlets.
sys.path.append(str(Path(__file__).parents[1] / "outlets"))
from sparkplug_claims import covers
from sparkplug_peers import Host, metric, seq_gaps

TAG = "press.bearing_temperature"
DEVICES = {"milling:line1:cnc", "pressing:line2:press", "finishing:line3:strip"}


@pytest.fixture(scope="module")
def node(prepared: Daemon) -> Daemon:
    prepared.set("sparkplug", enabled=True, primary_host_id="scada1", publish_period_ms=200)
    return prepared


@pytest.fixture(scope="module")
def spb_host(broker: Broker) -> Iterator[Host]:
    with Host(broker.port) as host:
        host.tell(state=True, timestamp=1)
        yield host


def born(host: Host, count: int) -> dict[str, Any]:
    """The NBIRTH of that number, when all devices of it are born too."""

    def complete() -> dict[str, Any] | None:
        births = host.of("NBIRTH")
        if len(births) < count:
            return None
        later = host.messages[host.messages.index(births[count - 1]) :]
        devices = {m["topic"].split("/")[-1] for m in later if "/DBIRTH/" in m["topic"]}
        return births[count - 1] if devices == DEVICES else None

    return until(complete, lambda: f"birth {count}: {host.kinds()[-20:]}")


def told(host: Host, tag: str) -> set[tuple[int, float]]:
    """(time in ms, value) of everything that a host heard of a tag, live, in a birth or as history."""
    births = [m for message in host.of("DBIRTH") for m in message["payload"]["metrics"] if m["name"] == tag]
    alias = births[0]["alias"]
    data = [m for message in host.of("DDATA") for m in message["payload"]["metrics"] if m.get("alias") == alias]
    return {(m["timestamp"], m["value"]) for m in births + data}


@covers("payloads-ndeath-will-message-publisher")
def test_nothing_is_missing_after_kill_outage_and_absence(node: Daemon, broker: Broker, spb_host: Host) -> None:
    host = spb_host
    node.start()
    node.wait_alive()
    first = born(host, 1)
    press = next(m for m in host.of("DBIRTH") if m["topic"].endswith("press"))
    assert metric(press, TAG)["type"] == "Double"
    assert metric(press, "press.oee")["type"] == "Double"
    assert metric(first, "Alarms/device.press.communication/Active")["value"] is False
    assert metric(first, "bdSeq")["value"] == 0
    time.sleep(0.8)

    node.kill()
    until(lambda: host.of("NDEATH"), "the last will")
    assert metric(host.of("NDEATH")[0], "bdSeq")["value"] == 0
    node.start()
    assert metric(born(host, 2), "bdSeq")["value"] == 1
    node.wait_alive()
    time.sleep(0.6)

    broker.stop()
    time.sleep(1.0)
    broker.start()
    until(lambda: host.subscribed == 2, "the host is back")
    host.tell(state=True, timestamp=2)
    assert metric(born(host, 3), "bdSeq")["value"] == 2

    host.tell(state=False, timestamp=10)
    until(lambda: metric(host.of("NDEATH")[-1], "bdSeq")["value"] == 2, "the node leaves with the host")
    time.sleep(0.8)
    host.tell(state=True, timestamp=11)
    assert metric(born(host, 4), "bdSeq")["value"] == 3
    time.sleep(1.0)
    kept = node.sql(
        f"SELECT epoch_us(time) // 1000, value FROM readings WHERE tag = '{TAG}' AND quality >= 192 ORDER BY time"
    )
    until(lambda: not missing(kept, host), lambda: f"not told: {missing(kept, host)[:10]} of {len(kept)}")
    assert any(m.get("isHistorical") for d in host.of("DDATA") for m in d["payload"]["metrics"])
    assert seq_gaps(host) == []
    assert node.stop() == 0
    until(lambda: metric(host.of("NDEATH")[-1], "bdSeq")["value"] == 3, "the last word")
    assert node.noise() == []


def missing(kept: list[tuple[Any, ...]], host: Host) -> list[tuple[int, float]]:
    """What the ring has and no host heard: repeated values need not be told."""
    heard = told(host, TAG)
    gone, before = [], None
    for at, value in kept:
        if (at, value) not in heard and value != before:
            gone.append((at, value))
        before = value
    return gone
