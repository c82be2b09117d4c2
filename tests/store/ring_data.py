"""Readings for the tests of the stores."""

import numpy as np

from plant.batch import Batch

T0 = 1_800_000_000_000_000_000
DAY = 86_400_000_000_000
MINUTE = 60_000_000_000


def readings(count, start=0, at=T0, tags=10):
    """`count` readings whose value is a running number, one ms apart."""
    rows = np.arange(start, start + count, dtype=np.int64)
    return Batch(
        (rows % tags).astype(np.uint32),
        at + (rows - start) * 1_000_000,
        rows.astype(np.float64),
        np.full(count, 192, np.uint8),
    )


def noise(count, at=T0, seed=0):
    """`count` readings that do not compress."""
    generator = np.random.default_rng(seed)
    return Batch(
        generator.integers(0, 20, count).astype(np.uint32),
        at + generator.integers(0, 10**12, count),
        generator.random(count),
        np.full(count, 192, np.uint8),
    )


def values(ring):
    """All values of the ring in order of their rows, with the number of each."""
    found = []
    seq = 0
    while True:
        first, batch = ring.read_from(seq, 100_000)
        if not len(batch):
            return found
        found.extend((first + i, v) for i, v in enumerate(batch.value.tolist()))
        seq = first + len(batch)
