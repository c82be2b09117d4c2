"""The ring behaves as a deque: rows go in at one end, whole files leave at the other, numbers never move."""

import shutil
import tempfile
from collections import deque
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from edge.ring import Ring, RingOptions
from plant.batch import Batch

MINUTE = 60_000_000_000
OPTIONS = RingOptions(
    bytes_max=50_000_000, age_max_days=10 / 1440, segment_minutes=1, ballast_bytes=0, free_bytes_min=0
)


class RingModel(RuleBasedStateMachine):
    @initialize()
    def start(self):
        self.folder = Path(tempfile.mkdtemp(prefix="andon-ring-"))
        self.now = 1_800_000_000_000_000_000
        self.ring = Ring(self.folder / "ring", OPTIONS)
        self.ring.open(self.now)
        self.files = deque([(self.now, deque())])
        self.value = 0
        self.next_seq = 0

    @rule(count=st.integers(0, 300))
    def append(self, count):
        values = np.arange(self.value, self.value + count, dtype=np.float64)
        self.value += count
        batch = Batch(
            (values.astype(np.int64) % 7).astype(np.uint32),
            self.now + np.arange(count, dtype=np.int64) * 1000,
            values,
            np.full(count, 192, np.uint8),
        )
        created, rows = self.files[-1]
        if rows and self.now - created >= MINUTE:
            self.files.append((self.now, deque()))
        self.ring.append(batch, self.now)
        self.files[-1][1].extend((self.next_seq + i, v) for i, v in enumerate(values))
        self.next_seq += count

    @rule(seconds=st.integers(1, 200))
    def time_passes(self, seconds):
        self.now += seconds * 1_000_000_000

    @rule()
    def trim(self):
        assert self.ring.trim() == []
        while self.ring.drop_aged(self.now) is not None:
            pass
        while len(self.files) > 1 and self.files[1][0] < self.now - 10 * MINUTE:
            self.files.popleft()

    @rule()
    def drop_oldest(self):
        gone = self.ring.drop_oldest("disk_full")
        if len(self.files) > 1:
            rows = self.files.popleft()[1]
            assert gone is not None
            assert gone.rows == len(rows)
        else:
            assert gone is None

    @rule(clean=st.booleans())
    def reopen(self, clean):
        if clean:
            self.ring.close()
        else:
            self.ring._give_up()
            self.ring._lock.drop()
        self.ring = Ring(self.folder / "ring", OPTIONS)
        self.ring.open(self.now)
        assert self.ring.take_news() == []
        created, rows = self.files[-1]
        if rows and self.now - created >= MINUTE:
            self.files.append((self.now, deque()))

    @rule()
    def recover(self):
        self.ring.recover(self.now)

    @invariant()
    def holds_the_same_rows(self):
        expected = [row for _, rows in self.files for row in rows]
        assert self.ring.next_seq == self.next_seq
        found = []
        seq = 0
        while True:
            first, batch = self.ring.read_from(seq, 100)
            if not len(batch):
                break
            found.extend((first + i, v) for i, v in enumerate(batch.value.tolist()))
            seq = first + len(batch)
        assert found == expected

    def teardown(self):
        if hasattr(self, "ring"):
            self.ring.close()
            shutil.rmtree(self.folder)


TestRingIsADeque = RingModel.TestCase
TestRingIsADeque.settings = settings(max_examples=12, stateful_step_count=20, deadline=None)
