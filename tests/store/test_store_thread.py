"""The store thread commits what it was offered, says so, and stays reachable while it does."""

import asyncio
import time

import pytest
from pydantic import ValidationError
from ring_data import T0
from store_rig import OPTIONS, TAGS, Rig, running

from edge.clock import now
from edge.errors import StorageError
from edge.ring import Ring
from edge.store import StorageOptions, Store, open_offline, open_storage
from edge.store.counts import KEPT, RECEIVED, Counts
from edge.store.health import Forecast
from edge.tick import Tick
from plant.batch import EMPTY, of_rows
from plant.events import GatewayEvent
from plant.instant import Instant

MINUTE = 60_000_000_000


async def test_what_was_offered_is_committed_and_reported(tmp_path):
    async with running(tmp_path) as rig:
        for _ in range(10):
            rig.offer(readings=50, events=2)
        await rig.until(lambda: rig.committed_rows == 500 and len(rig.committed_events) == 20)
        assert rig.committed_events == [(i + 1, f"e{i}") for i in range(20)]
        assert rig.reports[-1].next_seq == 500
        assert len(rig.reports) < 10
        assert [event.id for _, event in await rig.store.after(17, 10)] == ["e17", "e18", "e19"]
        view = rig.store.status()
        assert (view.state, view.sentence, view.rows, view.committed) == ("ok", "", 500, 500)
    assert rig.conditions == []


async def test_stop_commits_what_still_waits(tmp_path):
    async with running(tmp_path) as rig:
        rig.offer(readings=1234, events=3, texts=[(3, 1, "running")], state={"counter": 7})
    again = Rig(tmp_path)
    assert again.ring.next_seq == 1234
    assert again.journal.last_seq == 3
    assert again.journal.texts() == [(3, 1, "running")]
    assert again.journal.get_state("counter") == 7
    await again.store.stop()


async def test_work_on_the_thread_returns_and_raises_to_its_caller(tmp_path):
    async with running(tmp_path) as rig:
        assert await rig.store.call(lambda: rig.journal.get_state("x")) is None
        with pytest.raises(ZeroDivisionError):
            await rig.store.call(lambda: 1 // 0)
        assert await rig.store.call(lambda: 5) == 5
    with pytest.raises(StorageError, match="not running"):
        await rig.store.call(lambda: 5)


async def test_cursors_are_written_with_the_next_commit(tmp_path):
    async with running(tmp_path) as rig:
        rig.offer(events=9)
        rig.store.advance("mqtt", 9)
        assert await rig.store.cursor("mqtt") == 9
        assert await rig.store.cursor("nobody") == 0
    again = Rig(tmp_path)
    assert again.journal.cursor("mqtt") == 9
    await again.store.stop()


async def test_new_tags_show_at_once(tmp_path):
    async with running(tmp_path) as rig:
        tag = of_rows([(TAGS, T0, 1.5, 192)])
        indices = await rig.store.register_tags([*rig.journal.tags(), _described("cell.new")])
        assert indices["cell.new"] == TAGS
        rig.store.offer(Tick(now(), tag, tag, (), ()))
        await rig.until(lambda: rig.committed_rows == 1)
        answer = await rig.store.query("SELECT tag, value, unit FROM readings")
        assert answer.rows == [("cell.new", 1.5, "mm/s")]


def _described(name):
    from plant.tags import Tag

    return Tag(name=name, index=0, unit="mm/s")


async def test_sql_sees_both_stores_while_the_gateway_runs(tmp_path):
    async with running(tmp_path) as rig:
        rig.offer(readings=100, events=3, texts=[(3, 3, "three")])
        await rig.until(lambda: rig.committed_rows == 100)
        assert (await rig.store.query("SELECT text FROM readings WHERE value = 3")).rows == [("three",)]
        assert (await rig.store.query("SELECT kind, count(*) FROM events GROUP BY kind")).rows == [("part_produced", 3)]
        assert (await rig.store.query("SELECT count(*) FROM alarms")).rows == [(0,)]
        assert (await rig.store.query("SELECT count(*) FROM tags")).rows == [(TAGS,)]
        with pytest.raises(StorageError, match="only SELECT"):
            await rig.store.query("DROP TABLE tags")
        assert len((await rig.store.query("FROM readings", rows_max=5)).rows) == 5


async def test_too_many_queries_are_refused(tmp_path):
    async with running(tmp_path) as rig:
        slow = "SELECT sum(sqrt(a.range * b.range)) FROM range(1000000) a, range(1000000) b"
        outcomes = await asyncio.gather(
            *(rig.store.query(slow, timeout_s=0.2) for _ in range(12)), return_exceptions=True
        )
        assert all(isinstance(outcome, StorageError) for outcome in outcomes)
        assert sum("already" in str(outcome) for outcome in outcomes) == 4


async def test_the_same_folder_can_be_asked_when_the_gateway_is_down(tmp_path):
    async with running(tmp_path) as rig:
        rig.offer(readings=100, events=3)
        with pytest.raises(StorageError, match="another process"), open_offline(tmp_path):
            pass
    with open_offline(tmp_path) as store:
        assert store.query("SELECT count(*) FROM readings WHERE tag = 'cell.t1'").rows == [(5,)]
        assert store.query("SELECT count(*) FROM events").rows == [(3,)]
        store.export(0, 1 << 62, tmp_path / "out.parquet")
        answer = store.query("SELECT count(*) FROM readings")
        assert answer.rows == [(100,)]
        with pytest.raises(StorageError):
            store.export(0, 1, tmp_path / "no" / "such" / "out.parquet")
    assert (tmp_path / "out.parquet").read_bytes()[:4] == b"PAR1"


async def test_an_export_of_the_running_gateway_is_a_file_to_take_away(tmp_path):
    async with running(tmp_path) as rig:
        rig.offer(readings=100)
        await rig.until(lambda: rig.committed_rows == 100)
        path = await rig.store.export(0, time.time_ns() + MINUTE)
        assert path.parent == tmp_path / "export"
        answer = await rig.store.query(f"SELECT count(*), max(value) FROM read_parquet('{path}')")
        assert answer.rows == [(100, 99.0)]
        path.unlink()


async def test_the_ledger_adds_up(tmp_path):
    async with running(tmp_path) as rig:
        batch = rig.batch(100)
        batch.quality[:10] = 0
        rig.store.offer(Tick(now(), batch, batch.select(batch.value >= 40), (), ()))
    with open_offline(tmp_path) as store:
        answer = store.query(
            "SELECT sum(received), sum(kept), sum(suppressed), sum(bad), sum(dropped), count(DISTINCT tag) FROM ledger"
        )
    assert answer.rows == [(100, 60, 40, 10, 0, TAGS)]


async def test_a_full_queue_drops_the_oldest_readings_never_an_event(tmp_path):
    options = OPTIONS.model_copy(update={"queue_bytes_max": 1_000_000})
    rig = Rig(tmp_path, options)
    for _ in range(100):
        rig.offer(readings=1000, events=5)
    lost = rig.store.dropped
    assert lost >= 100_000 - 1_000_000 // 26 - 1000
    rig.store.start()
    await rig.until(lambda: len(rig.committed_events) >= 501 and rig.committed_rows)
    assert rig.committed_rows == 100_000 - lost
    first, batch = rig.ring.read_from(0, 1)
    assert (first, batch.value[0]) == (0, float(lost))
    await rig.until(lambda: any(c.alarm == "storage.queue" for c in rig.conditions))
    await rig.store.stop()
    with open_offline(tmp_path) as store:
        answer = store.query("SELECT reason, dropped FROM ledger WHERE reason <> ''")
        assert answer.rows == [("queue_overflow", lost)]
        counted = store.query("SELECT sum(received), sum(kept), sum(dropped) FROM ledger WHERE reason = ''").rows
    assert counted == [(100_000, 100_000 - lost, lost)]


async def test_a_lost_journal_learns_its_tags_from_the_ring(tmp_path):
    async with running(tmp_path) as rig:
        rig.offer(readings=40, texts=[(3, 1, "running")])
    for path in [*tmp_path.glob("journal*"), *tmp_path.glob("backup/*")]:
        path.unlink()
    again = Rig(tmp_path)
    assert again.journal.origin == "new"
    assert again.indices == rig.indices
    assert again.journal.texts() == [(3, 1, "running")]
    assert again.journal.epoch != rig.journal.epoch
    await again.store.stop()


async def test_damage_is_told_and_stands_until_somebody_looks(tmp_path):
    async with running(tmp_path) as rig:
        rig.offer(readings=40)
    [victim] = tmp_path.glob("ring/r*.duckdb")
    victim.write_bytes(b"x" * 1000)
    async with running(tmp_path, prefix="f") as rig:
        rig.offer(readings=5)
        await rig.until(lambda: rig.active() == {"storage.damaged"})
        assert rig.store.status().state == "degraded"
        [aside] = tmp_path.glob("ring/*.damaged")
        aside.unlink()
        await rig.until(lambda: rig.active() == set())
        await rig.until(lambda: rig.committed_events)
        told = [event for _, event in await rig.store.after(0, 10)]
    assert any(isinstance(event, GatewayEvent) and "set aside" in event.detail["sentence"] for event in told)
    assert any(event.kind == "gap" and event.reason == "ring_file_damaged" for event in told)


async def test_a_ring_in_use_elsewhere_is_waited_for_while_events_go_on(tmp_path):
    async with running(tmp_path) as rig:
        rig.offer(readings=10)
    other = Ring(tmp_path / "ring", OPTIONS)
    other.open_read_only()
    async with running(tmp_path, prefix="f") as rig:
        rig.offer(readings=10, events=4)
        await rig.until(lambda: len(rig.committed_events) >= 4)
        assert rig.committed_rows == 0
        await rig.until(lambda: rig.active() == {"storage.ring"})
        assert rig.store.status().state == "down"
        other.close()
        await rig.until(lambda: rig.committed_rows == 10)
        await rig.until(lambda: rig.active() == set())


async def test_the_journal_is_backed_up_while_it_runs(tmp_path, monkeypatch):
    monkeypatch.setattr("edge.store.store.FIRST_BACKUP_NS", 0)
    async with running(tmp_path) as rig:
        rig.offer(events=5)
        await rig.until(lambda: list(tmp_path.glob("backup/journal-*.sqlite")))


async def test_an_unknown_error_ends_the_thread_and_reaches_who_waits(tmp_path):
    rig = Rig(tmp_path)
    rig.store.start()
    rig.store.offer(Tick(now(), EMPTY, EMPTY, ("no event",), ()))
    with pytest.raises(AttributeError):
        await rig.store.wait()
    with pytest.raises(AttributeError):
        await rig.store.stop()


async def test_a_store_that_never_started_closes_its_files(tmp_path):
    ring, journal = open_storage(tmp_path, OPTIONS, T0)
    await Store(ring, journal, OPTIONS).stop()
    again, _ = open_storage(tmp_path, OPTIONS, T0)
    assert again.is_open
    again.close()


def test_counts_survive_a_failed_write():
    counts = Counts()
    batch = of_rows([(1, T0, 1.0, 192), (1, T0, 1.0, 192), (5, T0, 1.0, 192)])
    counts.add(T0, RECEIVED, batch.tag)
    counts.add(T0, KEPT, batch.tag[:1])
    assert counts.take(T0) is None
    taken = counts.take(T0 + 20 * MINUTE)
    counts.give_back(taken)
    counts.add(T0, RECEIVED, batch.tag)
    again = counts.take(T0 + 20 * MINUTE)
    assert again["tag"].tolist() == [1, 5]
    assert again["received"].tolist() == [4, 2]
    assert again["kept"].tolist() == [1, 0]
    assert counts.take(T0 + 40 * MINUTE) is None


def test_the_forecast_says_when_the_budget_is_used_up():
    forecast = Forecast()
    start = Instant(T0, 1)
    assert forecast.full_at(start.utc, start.monotonic, 1000, 101_000, 90) == 0
    later = 20 * MINUTE
    full_at = forecast.full_at(T0 + later, 1 + later, 21_000, 101_000, 90)
    assert full_at == pytest.approx(T0 + later + 80 * MINUTE, abs=1e9)
    assert forecast.full_at(T0 + later, 1 + later, 21_000, 101_000, 0.01) == 0
    forecast.dropped(100, by_budget=True)
    assert forecast.full_at(T0 + later, 1 + later, 21_000, 101_000, 90) == T0 + later


def test_options_are_bounded():
    with pytest.raises(ValidationError):
        StorageOptions(commit_period_ms=50)
    with pytest.raises(ValidationError):
        StorageOptions(no_such_option=1)
