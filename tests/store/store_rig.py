"""A store on its thread, and ticks for it."""

import asyncio
import contextlib
import time
from pathlib import Path

import numpy as np

from edge.clock import now
from edge.store import StorageOptions, Store, open_storage
from edge.tick import Tick
from plant.batch import EMPTY, Batch
from plant.events import PartsProduced
from plant.tags import Tag

OPTIONS = StorageOptions(bytes_max=40_000_000, ballast_bytes=0, free_bytes_min=0, commit_period_ms=100)
TAGS = 20
PATIENCE_S = 30.0


class Rig:
    """A running store that numbers its readings (value) and its events (id), and remembers what it was told."""

    def __init__(self, state_dir: Path, options: StorageOptions = OPTIONS, prefix: str = "e") -> None:
        self.ring, self.journal = open_storage(state_dir, options, time.time_ns())
        self.indices = self.journal.register_tags(
            Tag(name=f"cell.t{i}", index=0, asset="a/l/c", text=i == 3) for i in range(TAGS)
        )
        self.reports = []
        self.conditions = []
        self.store = Store(self.ring, self.journal, options, self.reports.append, self.conditions.append)
        self.prefix = prefix
        self.readings = 0
        self.events = 0

    def batch(self, count):
        rows = np.arange(self.readings, self.readings + count, dtype=np.int64)
        self.readings += count
        return Batch(
            (rows % TAGS).astype(np.uint32),
            time.time_ns() + rows - rows[:1].sum(),
            rows.astype(np.float64),
            np.full(count, 192, np.uint8),
        )

    def produced(self, count):
        made = tuple(
            PartsProduced(id=f"{self.prefix}{self.events + i}", time=time.time_ns(), asset="a/l/c", count=1.0)
            for i in range(count)
        )
        self.events += count
        return made

    def offer(self, readings=0, events=0, texts=(), state=None):
        batch = self.batch(readings) if readings else EMPTY
        self.store.offer(Tick(now(), batch, batch, self.produced(events), ()), texts, state)

    @property
    def committed_rows(self):
        return sum(report.rows for report in self.reports)

    @property
    def committed_events(self):
        return [event for report in self.reports for event in report.events]

    def active(self):
        """Names of the alarms that stand."""
        standing = {}
        for condition in self.conditions:
            standing[condition.alarm] = condition.active
        return {alarm for alarm, active in standing.items() if active}

    async def until(self, true, what="it"):
        deadline = time.monotonic() + PATIENCE_S
        while not true():
            assert time.monotonic() < deadline, f"waited {PATIENCE_S} s for {what}: {self.store.status()}"
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def running(state_dir, options=OPTIONS, prefix="e"):
    rig = Rig(state_dir, options, prefix)
    rig.store.start()
    try:
        yield rig
    finally:
        await rig.store.stop()
