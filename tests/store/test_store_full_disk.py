"""A full disk costs readings in the stated order, never an event; it heals by itself.

The disk is a small tmpfs, which only root can mount.
"""

import asyncio
import os
import subprocess

import pytest
from ring_data import noise
from store_rig import Rig

from edge.clock import now
from edge.store import StorageOptions, open_offline
from edge.tick import Tick
from plant.batch import EMPTY

DISK = 24_000_000
OPTIONS = StorageOptions(
    bytes_max=100_000_000, ballast_bytes=1_000_000, free_bytes_min=0, commit_period_ms=100, queue_bytes_max=2_000_000
)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tmpfs needs root (CAP_SYS_ADMIN)")


@pytest.fixture
def disk(tmp_path):
    """A disk of 24 MB."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(path)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.strip()}: needs CAP_SYS_ADMIN")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def fill(path, leave=0):
    """Take all space but `leave` bytes."""
    state = os.statvfs(path)
    size = state.f_bavail * state.f_frsize - leave
    with path.joinpath("filler").open("ab", buffering=0) as file:
        try:
            while size > 0:
                size -= file.write(b"x" * min(size, 1 << 16))
        except OSError:
            return


def offer_noise(rig, seed, count=5000, events=1):
    batch = noise(count, seed=seed)
    rig.readings += count
    rig.store.offer(Tick(now(), batch, batch, rig.produced(events), ()))


async def test_a_budget_larger_than_the_disk_costs_the_oldest_readings_only(disk):
    rig = Rig(disk, OPTIONS)
    rig.store.start()
    for group in range(30):
        offer_noise(rig, group, count=50_000)
        wanted = rig.readings
        await rig.until(lambda wanted=wanted: rig.committed_rows + rig.store.dropped >= wanted)
    assert "storage.disk_full" in {condition.alarm for condition in rig.conditions if condition.active}
    assert "storage.ring" not in rig.active()
    assert rig.store.dropped == 0
    assert rig.committed_rows == 1_500_000
    assert rig.ring.read_from(0, 1)[0] > 0
    await rig.until(lambda: len(rig.committed_events) >= 30)
    await rig.store.stop()
    with open_offline(disk) as store:
        [(gone,)] = store.query("SELECT sum(dropped) FROM ledger WHERE reason = 'disk_full'").rows
        [(others,)] = store.query("SELECT count(*) FROM ledger WHERE reason NOT IN ('', 'disk_full')").rows
        [(first,)] = store.query("SELECT min(seq) FROM readings").rows
    assert first == gone > 0
    assert others == 0


async def test_a_disk_filled_by_others_stops_readings_not_the_gateway_and_heals(disk):
    rig = Rig(disk, OPTIONS)
    rig.store.start()
    offer_noise(rig, 0)
    await rig.until(lambda: rig.committed_rows == 5000 and rig.ring.ballast.complete)
    group = 0
    # Whatever the store frees is taken away at once: ballast and old files are soon gone.
    while "storage.ring" not in rig.active():
        group += 1
        fill(disk)
        offer_noise(rig, group)
        await asyncio.sleep(0.02)
        assert group < 1000
    assert rig.store.status().state == "down"
    assert "storage.disk_full" in rig.active()
    assert not rig.ring.ballast.complete
    while not rig.store.dropped:
        group += 1
        fill(disk)
        offer_noise(rig, group)
        await asyncio.sleep(0.01)
        assert group < 3000
    told = len(rig.committed_events)
    (disk / "filler").unlink()
    await rig.until(lambda: rig.active() == set(), "healing")
    assert rig.store.status().state == "ok"
    assert rig.ring.ballast.complete
    before = rig.committed_rows
    offer_noise(rig, group + 1)
    await rig.until(lambda: rig.committed_rows > before)
    made = {f"e{i}" for i in range(rig.events)}
    await rig.until(lambda: made <= {event_id for _, event_id in rig.committed_events})
    assert told <= len(rig.committed_events)
    order = [event_id for _, event_id in rig.committed_events if event_id in made]
    assert order == [f"e{i}" for i in range(rig.events)]
    lost, committed = rig.store.dropped, rig.committed_rows
    assert lost + committed == rig.readings
    await rig.store.stop()
    with open_offline(disk) as store:
        gaps = dict(store.query("SELECT reason, sum(dropped) FROM ledger WHERE reason <> '' GROUP BY reason").rows)
        [(stored,)] = store.query("SELECT count(*) FROM readings").rows
    assert stored == committed
    assert gaps.pop("disk_full") >= lost
    assert set(gaps) <= {"ring_down", "queue_overflow"}


async def test_a_start_on_a_full_disk_succeeds(disk):
    rig = Rig(disk, OPTIONS)
    rig.store.start()
    for group in range(20):
        offer_noise(rig, group, count=10_000)
        await rig.until(lambda wanted=rig.readings: rig.committed_rows >= wanted)
    await rig.until(lambda: rig.ring.ballast.complete)
    await rig.store.stop()
    fill(disk)
    again = Rig(disk, OPTIONS, prefix="f")
    again.store.start()
    again.store.offer(Tick(now(), EMPTY, EMPTY, again.produced(3), ()))
    offer_noise(again, 99)
    await again.until(lambda: len(again.committed_events) >= 4)
    await again.until(lambda: again.committed_rows == 5000)
    await again.store.stop()
