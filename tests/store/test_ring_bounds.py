"""The ring keeps its bounds in bytes and age, and what it dropped is known."""

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from ring_data import DAY, MINUTE, T0, noise, readings, values

from edge.ring import Ring, RingError, RingLocked, RingOptions, TagRow, export, query

SMALL = RingOptions(bytes_max=8_000_000, ballast_bytes=500_000, free_bytes_min=0)


@pytest.fixture
def ring(tmp_path):
    ring = Ring(tmp_path / "ring", SMALL)
    ring.open(T0)
    yield ring
    ring.close()


def size_on_disk(ring):
    return sum(path.stat().st_size for path in ring.folder.iterdir())


def test_bytes_are_bounded_and_ingest_never_stops(ring):
    appended = 0
    dropped = []
    for group in range(60):
        dropped += ring.trim(10_000)
        ring.append(noise(10_000, seed=group), T0)
        appended += 10_000
        assert size_on_disk(ring) <= SMALL.bytes_max
    assert ring.next_seq == appended
    assert dropped
    assert all(gone.reason == "bytes" and gone.rows > 0 and not gone.path.exists() for gone in dropped)
    first, _ = ring.read_from(0, 1)
    assert first == sum(gone.rows for gone in dropped)


def test_age_is_bounded(tmp_path):
    ring = Ring(tmp_path / "ring", RingOptions(age_max_days=2, segment_minutes=240, free_bytes_min=0, ballast_bytes=0))
    ring.open(T0)
    for hour in range(0, 96, 3):
        now = T0 + hour * 60 * MINUTE
        ring.append(readings(100, start=hour * 100, at=now), now)
        ring.drop_aged(now)
    oldest = min(value for _, value in values(ring))
    assert 96 - 48 - 10 <= oldest / 100 <= 96 - 48
    ring.close()


def test_a_file_in_use_by_a_query_is_dropped_without_harm_to_either(ring):
    now = T0
    for day in range(3):
        now = T0 + day * DAY
        ring.append(readings(1000, start=day * 1000, at=now), now)
    with ring.reader() as cursor:
        answer = cursor.execute(f"SELECT value FROM {ring.segments[0].alias}.readings")
        first = answer.fetchone()
        assert ring.drop_oldest("disk_full") is not None
        assert first == (0.0,)
        assert len(answer.fetchall()) == 999
    assert [seq for seq, _ in values(ring)] == list(range(1000, 3000))


def test_numbers_continue_after_a_reopening(ring):
    ring.append(readings(500), T0)
    ring.close()
    again = Ring(ring.folder, SMALL)
    again.open(T0 + 1)
    assert again.next_seq == 500
    again.append(readings(5, start=500), T0 + 2)
    assert [seq for seq, _ in values(again)] == list(range(505))
    assert len(again.segments) == 1
    again.close()


def test_two_gateways_cannot_share_a_folder(ring):
    other = Ring(ring.folder, SMALL)
    with pytest.raises(RingLocked, match="another process"):
        other.open(T0)
    other.close()


def test_readers_wait_while_a_gateway_runs_and_the_other_way_round(ring):
    reader = Ring(ring.folder, SMALL)
    with pytest.raises(RingLocked):
        reader.open_read_only()
    ring.append(readings(3), T0)
    ring.close()
    reader.open_read_only()
    with pytest.raises(RingLocked):
        ring.open(T0)
    reader.close()
    ring.open(T0)
    assert ring.next_seq == 3


def test_reading_only_changes_no_file(ring):
    ring.append(readings(1000), T0)
    ring._give_up()
    ring._lock.drop()
    before = {path.name: path.read_bytes() for path in ring.folder.iterdir()}
    reader = Ring(ring.folder, SMALL)
    reader.open_read_only()
    reader.describe([TagRow(index=i, name=f"t{i}") for i in range(10)], [])
    assert query(reader, "SELECT count(*) FROM readings", rows_max=1, timeout_s=10).rows == [(1000,)]
    with pytest.raises(RingError):
        reader.append(readings(1), T0)
    reader.close()
    assert {path.name: path.read_bytes() for path in ring.folder.iterdir()} == before


def test_the_ballast_takes_real_space_and_gives_it_back(ring):
    ring.ballast.fill()
    assert ring.ballast.complete
    assert ring.ballast.path.stat().st_blocks * 512 >= SMALL.ballast
    assert ring.size >= SMALL.ballast
    assert ring.ballast.release() == SMALL.ballast
    assert not ring.ballast.path.exists()


def test_values_survive_unchanged(ring):
    batch = readings(5)
    batch.value[:] = [np.nan, -0.0, 1e-320, 1.7976931348623157e308, 0.1]
    batch.quality[:] = [0, 64, 192, 192, 192]
    ring.append(batch, T0)
    _, found = ring.read_from(0, 10)
    assert np.array_equal(found.value, batch.value, equal_nan=True)
    assert np.signbit(found.value[1])
    assert found.quality.tolist() == [0, 64, 192, 192, 192]
    assert found.time.tolist() == batch.time.tolist()


def test_names_are_in_every_file(tmp_path):
    ring = Ring(tmp_path / "ring", RingOptions(free_bytes_min=0, ballast_bytes=0))
    ring.open(T0)
    ring.describe([TagRow(index=0, name="a", text=True), TagRow(index=1, name="b")], [(0, 1, "running")])
    ring.append(readings(2), T0)
    ring.append(readings(2), T0 + DAY, texts=[(0, 2, "down")])
    ring.drop_oldest("bytes")
    ring.close()
    again = Ring(tmp_path / "ring", RingOptions(free_bytes_min=0, ballast_bytes=0))
    again.open(T0 + DAY)
    tags, texts = again.names_found()
    assert tags == {"a": 0, "b": 1}
    assert sorted(texts) == [(0, 1, "running"), (0, 2, "down")]
    again.close()


def test_options_refuse_what_cannot_work():
    with pytest.raises(ValidationError, match="raise segment_minutes"):
        RingOptions(age_max_days=90, segment_minutes=60)
    with pytest.raises(ValidationError, match="quarter"):
        RingOptions(bytes_max=8_000_000, ballast_bytes=4_000_000)
    assert RingOptions().ballast == 64_000_000
    assert RingOptions(bytes_max=100_000_000).ballast == 5_000_000


def test_a_folder_may_be_relative_or_behind_a_link(tmp_path, monkeypatch):
    (tmp_path / "real's").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real's")
    monkeypatch.chdir(tmp_path)
    for folder in (Path("link/ring"), Path("real's/ring"), tmp_path / "link" / "ring"):
        ring = Ring(folder, SMALL, folder.parent / "export")
        ring.open(T0)
        ring.append(readings(1), T0)
        export(ring, T0, T0 + DAY, folder.parent / "export" / "x.parquet", 10)
        ring.close()
    assert len(list((tmp_path / "real's" / "ring").glob("*.duckdb"))) == 1
