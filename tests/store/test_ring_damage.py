"""Whatever lies in the folder, the ring opens, says what it set aside and never gives a number twice."""

import os

import duckdb
import pytest
from ring_data import DAY, T0, readings, values

from edge.ring import Ring, RingError, RingOptions, TagRow, is_damage, query
from edge.ring.segment import SEQ_JUMP

OPTIONS = RingOptions(bytes_max=40_000_000, ballast_bytes=0, free_bytes_min=0)
ROWS = 20_000


@pytest.fixture
def folder(tmp_path):
    """Three files of 20,000 rows: two closed, one open."""
    ring = Ring(tmp_path / "ring", OPTIONS)
    ring.open(T0)
    for day in range(3):
        ring.append(readings(ROWS, start=day * ROWS, at=T0 + day * DAY), T0 + day * DAY)
    assert len(ring.segments) == 3
    ring.close()
    return ring.folder


def files(folder):
    return sorted(folder.glob("r*.duckdb"))


def opened(folder):
    ring = Ring(folder, OPTIONS)
    ring.open(T0 + 2 * DAY)
    return ring


@pytest.mark.parametrize("content", [b"", b"hello\n" * 1000, os.urandom(50_000)], ids=["empty", "text", "noise"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_file_that_is_no_database_is_set_aside(folder, which, content):
    files(folder)[which].write_bytes(content)
    ring = opened(folder)
    news = ring.take_news()
    assert [damage.first for damage in news] == [which * ROWS]
    assert "set aside" in news[0].sentence
    assert len(ring.damaged) == 1
    kept = [seq for seq, _ in values(ring)]
    assert kept == [seq for seq in range(3 * ROWS) if seq // ROWS != which]
    ring.append(readings(10), T0 + 2 * DAY)
    after = values(ring)[-10:]
    if which == 2:
        assert after[0][0] == 2 * ROWS + SEQ_JUMP
    else:
        assert after[0][0] == 3 * ROWS
    ring.close()
    again = opened(folder)
    assert again.take_news() == []
    assert values(again)[-10:] == after
    again.close()


def test_foreign_databases_are_set_aside(folder):
    stranger = duckdb.connect(str(folder / "other.duckdb"))
    stranger.execute("CREATE TABLE readings (x INTEGER)")
    stranger.close()
    stranger = duckdb.connect(str(folder / f"r{7:019d}.duckdb"))
    stranger.execute("CREATE TABLE readings (x INTEGER)")
    stranger.close()
    (folder / "notes.txt").write_text("not ours, not touched")
    ring = opened(folder)
    assert sorted(damage.sentence.split()[0] for damage in ring.take_news()) == ["other.duckdb", f"r{7:019d}.duckdb"]
    assert len(values(ring)) == 3 * ROWS
    assert ring.next_seq == 3 * ROWS
    ring.close()
    assert (folder / "notes.txt").exists()
    assert (folder / "other.duckdb.damaged").exists()


def test_a_copy_of_a_file_under_another_number_is_set_aside(folder):
    (folder / f"r{9 * ROWS:019d}.duckdb").write_bytes(files(folder)[0].read_bytes())
    ring = opened(folder)
    assert "says of itself" in ring.take_news()[0].sentence
    assert len(values(ring)) == 3 * ROWS
    assert ring.next_seq == 9 * ROWS + SEQ_JUMP
    ring.close()


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9, 0.999])
def test_a_truncated_file_never_blocks_the_start(folder, share):
    victim = files(folder)[1]
    os.truncate(victim, int(victim.stat().st_size * share))
    ring = opened(folder)
    assert len(ring.take_news()) == 1
    assert [seq for seq, _ in values(ring)] == [*range(ROWS), *range(2 * ROWS, 3 * ROWS)]
    ring.close()


def with_log(folder):
    """Leave the open file as a crash would: rows in its log only."""
    ring = opened(folder)
    for group in range(10):
        ring.append(readings(100, start=3 * ROWS + group * 100), T0 + 2 * DAY)
    ring._give_up()
    ring._lock.drop()
    log = files(folder)[2].with_name(files(folder)[2].name + ".wal")
    return log, log.read_bytes(), files(folder)[2].read_bytes()


def test_a_torn_log_gives_a_prefix(folder):
    log, content, file = with_log(folder)
    for cut in [*range(0, 200, 37), *range(200, len(content), len(content) // 12), len(content) - 1]:
        log.write_bytes(content[:cut])
        files(folder)[2].write_bytes(file)
        ring = opened(folder)
        assert ring.take_news() == []
        rows = values(ring)
        assert [seq for seq, _ in rows] == [int(value) for _, value in rows] == list(range(len(rows)))
        assert 3 * ROWS <= len(rows) < 3 * ROWS + 1000
        assert len(rows) % 100 == 0
        ring.close()


def test_a_flipped_bit_in_the_log_costs_the_log_at_most(folder):
    log, content, file = with_log(folder)
    told = 0
    for position in range(len(content) // 20, len(content), len(content) // 20):
        broken = bytearray(content)
        broken[position] ^= 0xFF
        log.write_bytes(broken)
        files(folder)[2].write_bytes(file)
        ring = opened(folder)
        rows = values(ring)
        assert [seq for seq, _ in rows] == [int(value) for _, value in rows] == list(range(len(rows)))
        assert len(rows) >= 3 * ROWS
        if news := ring.take_news():
            told += 1
            assert "up to there is kept" in news[0].sentence
            assert len(rows) == 3 * ROWS
            assert ring.next_seq == 2 * ROWS + SEQ_JUMP
        ring.close()
        for path in [*folder.glob("*.damaged*"), *folder.glob(f"r{2 * ROWS + SEQ_JUMP:019d}*")]:
            path.unlink()
    assert told


def test_a_flipped_bit_in_a_closed_file_is_found_by_the_query_that_meets_it(folder):
    victim = files(folder)[1]
    content = victim.read_bytes()
    for position in range(12_288 + 100, len(content), 8192):
        broken = bytearray(content)
        broken[position] ^= 0xFF
        victim.write_bytes(broken)
        ring = opened(folder)
        ring.describe([TagRow(index=i, name=f"t{i}") for i in range(10)], [])
        if not ring.take_news():
            try:
                query(ring, "SELECT sum(value) FROM readings", rows_max=1, timeout_s=10)
            except RingError as error:
                met = error
                break
        ring.close()
        for path in folder.glob("*.damaged*"):
            path.unlink()
    else:
        pytest.fail("no flipped bit was noticed")
    assert is_damage(met)
    [(first, why)] = ring.find_damage()
    assert first == ROWS
    ring.set_aside(first, why, T0 + 2 * DAY)
    assert query(ring, "SELECT count(value) FROM readings", rows_max=1, timeout_s=10).rows == [(2 * ROWS,)]
    ring.append(readings(1), T0 + 2 * DAY)
    assert ring.next_seq == 3 * ROWS + 1
    ring.close()


def test_damaged_files_count_and_go_in_their_turn(folder):
    files(folder)[0].write_bytes(b"x" * 1_000_000)
    ring = opened(folder)
    assert ring.size >= 1_000_000
    gone = ring.drop_oldest("bytes")
    assert gone is not None
    assert gone.path.name.endswith(".damaged")
    assert ring.damaged == []
    assert ring.size < 1_000_000
    ring.close()


def test_what_a_crash_left_of_a_new_file_is_discarded(folder):
    (folder / "new.duckdb").write_bytes(b"half")
    (folder / "new.duckdb.wal").write_bytes(b"half")
    ring = opened(folder)
    assert ring.take_news() == []
    assert not (folder / "new.duckdb").exists()
    assert len(values(ring)) == 3 * ROWS
    ring.close()


def test_an_orphaned_log_is_set_aside(folder):
    (folder / f"r{77 * ROWS:019d}.duckdb.wal").write_bytes(b"x" * 100)
    ring = opened(folder)
    assert len(ring.take_news()) == 1
    assert ring.next_seq > 77 * ROWS
    ring.close()
