"""kill -9 at any moment under load: both stores open, nothing that was reported is lost, nothing is there twice.

ANDON_KILL_CYCLES sets how many times; ANDON_KILL_REPORT names a file for the figures.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from crash_writer import OPTIONS

from edge.store import open_storage

CYCLES = int(os.environ.get("ANDON_KILL_CYCLES", "10"))
SEED = int(os.environ.get("ANDON_KILL_SEED", "1"))
ROOT = Path(__file__).parents[2]


def killed(state_dir, run, after_s):
    """Run the writer, kill it after a while; return (rows, events) that it reported as committed."""
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "crash_writer.py"), str(state_dir), str(run)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as writer:
        lines = [writer.stdout.readline()]
        time.sleep(after_s)
        writer.send_signal(signal.SIGKILL)
        lines += writer.stdout.read().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith(b"\n")]
    rows, events = whole[-1].split()
    return int(rows), int(events)


def rows_of(ring, run):
    """Numbers and values of the readings of one run."""
    seqs, values = [], []
    seq = 0
    while True:
        first, batch = ring.read_from(seq, 100_000)
        if not len(batch):
            break
        mine = np.flatnonzero(batch.tag == run)
        seqs.append(first + mine)
        values.append(batch.value[mine])
        seq = first + len(batch)
    return np.concatenate(seqs), np.concatenate(values)


def test_kill_9_loses_nothing_that_was_reported(tmp_path):
    chance = random.Random(SEED)
    figures = []
    for run in range(CYCLES):
        rows, events = killed(tmp_path, run, chance.uniform(0, 1.2))
        began = time.perf_counter()
        ring, journal = open_storage(tmp_path, OPTIONS, time.time_ns())
        opened_ms = (time.perf_counter() - began) * 1000
        assert ring.is_open
        assert ring.take_news() == []
        assert (journal.origin, journal.notes) == ("kept", [])

        seqs, values = rows_of(ring, run)
        assert len(values) == 0 or values[-1] == values[0] + len(values) - 1
        assert np.array_equal(np.diff(values), np.ones(max(len(values) - 1, 0)))
        assert np.array_equal(np.diff(seqs), np.ones(max(len(seqs) - 1, 0)))
        found = int(values[-1]) + 1 if len(values) else 0
        assert found >= rows, f"run {run}: {rows} rows were reported, {found} are there"

        kept = journal.events("a/l/c", 0)
        numbers = [int(event.id.split("-")[1]) for event in kept if event.id.startswith(f"{run}-")]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) >= events
        assert len({event.id for event in kept}) == len(kept)
        texts = [code for tag, code, _ in journal.texts() if tag == run]
        assert texts == [3 * (i + 1) for i in range(len(texts))]
        figures.append((opened_ms, found - rows, len(numbers) - events, rows))
        assert ring.size <= OPTIONS.bytes_max
        # As a crash would: without a checkpoint every second time.
        if run % 2:
            ring.close()
        else:
            ring._give_up()
            ring._lock.drop()
        journal.close()
    report = {
        "cycles": CYCLES,
        "opened": len(figures),
        "lost_reported_rows": 0,
        "lost_reported_events": 0,
        "open_ms_max": round(max(f[0] for f in figures), 1),
        "unreported_rows_found_max": max(f[1] for f in figures),
        "unreported_events_found_max": max(f[2] for f in figures),
        "rows_reported": sum(f[3] for f in figures),
    }
    if path := os.environ.get("ANDON_KILL_REPORT"):
        Path(path).write_text(json.dumps(report))
