"""A store under load, made to be killed: `crash_writer.py STATE_DIR RUN`.

The readings of a run have the run's number as their tag and count up from 0 in their value; its events are
"RUN-<n>". After each commit a line "<rows> <events>" says how many of this run are durable.
"""

import asyncio
import os
import random
import sys
import time
from pathlib import Path

import numpy as np

from edge.clock import now
from edge.store import StorageOptions, Store, open_storage
from edge.tick import Tick
from plant.batch import Batch
from plant.events import PartsProduced
from plant.tags import Tag

OPTIONS = StorageOptions(bytes_max=12_000_000, ballast_bytes=100_000, free_bytes_min=0, commit_period_ms=100)
TAGS = 1_000


async def main(state_dir, run):
    ring, journal = open_storage(state_dir, OPTIONS, time.time_ns())
    journal.register_tags(Tag(name=f"run{i}", index=0) for i in range(TAGS))
    rows = events = 0

    def committed(report):
        nonlocal rows, events
        rows += report.rows
        events += sum(event_id.startswith(f"{run}-") for _, event_id in report.events)
        os.write(1, f"{rows} {events}\n".encode())

    store = Store(ring, journal, OPTIONS, committed)
    store.start()
    offered = made = 0
    random.seed(run)
    while True:
        count = random.choice((10, 100, 1_000, 3_000))
        values = np.arange(offered, offered + count, dtype=np.float64)
        offered += count
        batch = Batch(
            np.full(count, run, np.uint32), np.full(count, time.time_ns()), values, np.full(count, 192, np.uint8)
        )
        happened = tuple(
            PartsProduced(id=f"{run}-{made + i}", time=time.time_ns(), asset="a/l/c", count=1.0) for i in range(3)
        )
        made += 3
        store.offer(Tick(now(), batch, batch, happened, ()), [(run, made, f"text {made}")])
        await asyncio.sleep(0.005)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
