"""Readings from a device's history in the store: marked in the file, clean for whoever reads, named in the ledger."""

import numpy as np
from store_rig import OPTIONS, Rig, running

from edge.clock import now
from edge.ring import query
from edge.tick import Tick
from plant.batch import BACKFILL, BAD, EMPTY, GOOD, Batch
from plant.events import Backfill, Gap


def history(count, quality=GOOD):
    rows = np.arange(count)
    return Batch(
        np.zeros(count, np.uint32),
        now().utc - (count - rows) * 1_000_000_000,
        np.where(quality == BAD, np.nan, rows.astype(np.float64)),
        np.full(count, quality | BACKFILL, np.uint8),
    )


def offer(rig, batch, events=()):
    rig.store.offer(Tick(now(), EMPTY, EMPTY, events, (), batch), (), None)


async def test_history_is_marked_in_sql_and_its_quality_is_clean_everywhere(tmp_path):
    async with running(tmp_path) as rig:
        rig.offer(readings=20)
        offer(rig, history(5))
        offer(rig, history(2, BAD))
        await rig.until(lambda: rig.committed_rows == 27)
        answer = await rig.store.query(
            "SELECT backfilled, quality, count(*) FROM readings GROUP BY ALL ORDER BY backfilled, quality"
        )
        assert [tuple(row) for row in answer.rows] == [(False, 192, 20), (True, 0, 2), (True, 192, 5)]
        first, rows = await rig.store.call(lambda: rig.ring.read_from(0, 100))
        assert first == 0
        assert sorted(set(rows.quality.tolist())) == [BAD, GOOD]
        ordered = await rig.store.query("SELECT time FROM readings WHERE tag = 'cell.t0' AND quality > 0 ORDER BY time")
        assert len(ordered.rows) == 6


async def test_the_ledger_shows_a_gap_and_beside_it_what_was_filled(tmp_path):
    at = now().utc
    span = {"time": at, "asset": "", "start": at - 60_000_000_000, "end": at, "device": "plc"}
    async with running(tmp_path) as rig:
        offer(rig, EMPTY, (Gap(id="g", reason="disconnected", **span),))
        offer(rig, history(7), (Backfill(id="b", count=7, tags=1, **span),))
        await rig.until(lambda: rig.committed_rows == 7 and len(rig.committed_events) == 2)
        answer = await rig.store.query("SELECT device, reason, dropped, backfilled FROM ledger WHERE reason <> ''")
        assert sorted(tuple(row) for row in answer.rows) == [
            ("plc", "backfill", None, 7),
            ("plc", "disconnected", None, None),
        ]
    again = Rig(tmp_path)
    counted = query(again.ring, "SELECT sum(received), sum(kept) FROM ledger", rows_max=9, timeout_s=20.0)
    assert [tuple(row) for row in counted.rows] in ([], [(None, None)])  # filled readings are not received twice
    await again.store.stop()


async def test_history_gives_way_like_any_reading_when_the_queue_is_full_and_that_is_counted(tmp_path):
    options = OPTIONS.model_copy(update={"queue_bytes_max": 1_000_000})
    rig = Rig(tmp_path, options)
    for _ in range(10):
        offer(rig, history(10_000))
    rig.store.start()
    await rig.until(lambda: rig.committed_rows > 0)
    await rig.store.stop()
    dropped = rig.store.status().dropped
    assert 0 < dropped < 100_000
    assert rig.committed_rows + dropped == 100_000
