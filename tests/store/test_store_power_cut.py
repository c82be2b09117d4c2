"""A power cut: what was not on the disk is gone. What was reported as committed is there.

The disk is an ext4 file system in a file, shut down in mid-write (FS_IOC_SHUTDOWN), which only root can do.
ANDON_POWER_CUTS sets how many times.
"""

import array
import asyncio
import fcntl
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from crash_writer import OPTIONS
from store_rig import Rig
from test_store_kill import rows_of

from edge.errors import StorageError
from edge.store import open_storage

CUTS = int(os.environ.get("ANDON_POWER_CUTS", "3"))
FS_IOC_SHUTDOWN = 0x8004587D
"""EXT4_IOC_SHUTDOWN of the kernel's fs/ext4/ext4.h; 2 = without flushing the log of the file system."""
NO_FLUSH = 2
ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a loop device needs root (CAP_SYS_ADMIN)")


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot make a disk to cut: {' '.join(command)}: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path):
    image, mount = tmp_path / "image", tmp_path / "mount"
    with image.open("wb") as file:
        file.truncate(256_000_000)
    mount.mkdir()
    run("mkfs.ext4", "-q", "-F", str(image))
    run("mount", "-o", "loop", str(image), str(mount))
    yield image, mount
    subprocess.run(["umount", "-l", str(mount)], check=False)


def cut_power(mount):
    descriptor = os.open(mount, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(descriptor, FS_IOC_SHUTDOWN, array.array("i", [NO_FLUSH]))
    finally:
        os.close(descriptor)


def test_a_power_cut_loses_nothing_that_was_reported(disk):
    image, mount = disk
    state_dir = mount / "state"
    chance = random.Random(1)
    for number in range(CUTS):
        with subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "crash_writer.py"), str(state_dir), str(number)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        ) as writer:
            lines = [writer.stdout.readline()]
            time.sleep(chance.uniform(0, 1.5))
            cut_power(mount)
            writer.kill()
            lines += writer.stdout.read().splitlines(keepends=True)
        rows, events = map(int, [line for line in lines if line.endswith(b"\n")][-1].split())
        run("umount", str(mount))
        run("mount", "-o", "loop", str(image), str(mount))

        ring, journal = open_storage(state_dir, OPTIONS, time.time_ns())
        assert ring.is_open
        assert [damage.sentence for damage in ring.take_news()] == []
        assert (journal.origin, journal.notes) == ("kept", [])
        _, values = rows_of(ring, number)
        assert values.tolist() == list(range(int(values[0]), int(values[-1]) + 1))
        assert values[-1] + 1 >= rows
        numbers = [int(e.id.split("-")[1]) for e in journal.events("a/l/c", 0) if e.id.startswith(f"{number}-")]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) >= events
        ring.close()
        journal.close()


async def test_a_dying_disk_stops_neither_the_gateway_nor_blames_a_file(disk):
    image, mount = disk
    rig = Rig(mount / "state")
    rig.store.start()
    rig.offer(readings=1000, events=3)
    await rig.until(lambda: rig.committed_rows == 1000 and len(rig.committed_events) == 3)
    cut_power(mount)
    rig.offer(readings=500, events=2)
    await rig.until(lambda: rig.active() >= {"storage.ring", "storage.journal"})
    assert rig.store.status().state == "down"
    rig.offer(readings=500, events=2)
    with pytest.raises(StorageError):
        await rig.store.after(0, 10)
    await asyncio.sleep(1.2)
    await rig.store.stop()
    assert rig.committed_rows == 1000
    run("umount", str(mount))
    run("mount", "-o", "loop", str(image), str(mount))
    again = Rig(mount / "state", prefix="f")
    assert again.ring.take_news() == []
    assert again.journal.notes == []
    assert again.ring.next_seq == 1000
    assert again.journal.last_seq == 3
    await again.store.stop()
