"""What a person may ask, and what nobody can do through the door for questions."""

import threading
import time

import pytest
from ring_data import DAY, T0, readings

from edge.ring import Ring, RingError, RingOptions, TagRow, export, query
from plant.batch import of_rows

ROWS = 3000


@pytest.fixture
def ring(tmp_path):
    ring = Ring(tmp_path / "ring", RingOptions(free_bytes_min=0, ballast_bytes=0), tmp_path / "export")
    ring.open(T0)
    tags = [TagRow(index=i, name=f"cell.t{i}", asset="a/l/c", unit="Cel", text=i == 3) for i in range(10)]
    ring.describe(tags, [(3, 13, "thirteen")])
    for day in range(3):
        ring.append(readings(1000, start=day * 1000, at=T0 + day * DAY), T0 + day * DAY)
    (tmp_path / "secret.txt").write_text("nobody reads this")
    yield ring
    ring.close()


def ask(ring, sql, rows_max=100, timeout_s=20.0):
    return query(ring, sql, rows_max=rows_max, timeout_s=timeout_s)


def test_readings_have_names_and_texts_over_all_files(ring):
    assert len(ring.segments) == 3
    answer = ask(ring, "SELECT * FROM readings WHERE seq = 13")
    assert answer.columns == ["seq", "time", "tag", "value", "text", "quality", "unit", "asset", "backfilled"]
    assert answer.types[1] == "TIMESTAMP"
    row = dict(zip(answer.columns, answer.rows[0], strict=True))
    assert row["time"].isoformat() == "2027-01-15T08:00:00.013000"
    assert (row["tag"], row["value"], row["text"], row["unit"]) == ("cell.t3", 13.0, "thirteen", "Cel")
    assert ask(ring, "SELECT count(*), min(seq), max(seq) FROM readings").rows == [(3000, 0, 2999)]


def test_now_compares_with_the_time_of_a_reading(ring):
    assert ask(ring, "SELECT count(*) FROM readings WHERE time > now() + INTERVAL 100 YEAR").rows == [(0,)]


@pytest.mark.parametrize("sql", ["DESCRIBE readings", "SHOW TABLES", "SUMMARIZE tags", "FROM tags", "VALUES (1)"])
def test_statements_that_read_are_welcome(ring, sql):
    assert ask(ring, sql).rows


def test_too_many_rows_are_cut_and_said(ring):
    answer = ask(ring, "SELECT * FROM readings", rows_max=7)
    assert len(answer.rows) == 7
    assert answer.truncated
    assert not ask(ring, "SELECT * FROM readings LIMIT 7", rows_max=7).truncated


def test_a_query_that_takes_too_long_is_stopped(ring):
    began = time.monotonic()
    with pytest.raises(RingError, match="was stopped"):
        ask(ring, "SELECT sum(sqrt(a.range * b.range)) FROM range(1000000) a, range(1000000) b", timeout_s=0.3)
    assert time.monotonic() - began < 10


def test_a_query_that_needs_too_much_memory_is_refused_and_ingest_goes_on(ring):
    with pytest.raises(RingError, match="more memory"):
        ask(ring, "SELECT array_agg(a.range || 'some text that takes room') FROM range(30000000) a")
    ring.append(readings(5, start=3000), T0 + 2 * DAY)
    assert ask(ring, "SELECT count(*) FROM readings").rows == [(3005,)]


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM s0.readings",
        "INSERT INTO s0.readings VALUES (now(), 1, 1, 1)",
        "UPDATE s0.readings SET value = 0",
        "DROP TABLE s0.readings",
        "DROP VIEW readings",
        "CREATE TABLE x AS SELECT 1",
        "CREATE TEMP TABLE x AS SELECT 1",
        "ATTACH '{folder}/x.duckdb'",
        "DETACH s0",
        "COPY readings TO '{folder}/x.csv'",
        "COPY (SELECT 1) TO '{export}/x.csv'",
        "EXPORT DATABASE '{export}'",
        "IMPORT DATABASE '{export}'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET memory_limit = '10GB'",
        "RESET memory_limit",
        "PRAGMA enable_profiling",
        "CALL enable_logging()",
        "EXPLAIN ANALYZE DELETE FROM s0.readings",
        "CHECKPOINT s0",
        "BEGIN",
        "COMMIT",
        "VACUUM",
        "USE s0",
        "PREPARE x AS DELETE FROM s0.readings",
        "EXECUTE x",
        "CREATE MACRO m() AS 1",
        "CREATE SECRET s (TYPE s3)",
        "SELECT 1; DROP TABLE s0.readings",
        "WITH gone AS (DELETE FROM s0.readings RETURNING *) SELECT * FROM gone",
        "WITH more AS (INSERT INTO s0.readings FROM s0.readings RETURNING *) SELECT * FROM more",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_blob('/etc/passwd')",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_json('/etc/passwd')",
        "SELECT * FROM read_parquet('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM read_text('{folder}/../secret.txt')",
        "SELECT * FROM read_text('{folder}/link')",
        "SELECT * FROM read_text('http://127.0.0.1:9/x')",
        "SELECT * FROM read_duckdb('/tmp/x.duckdb')",
        "SELECT * FROM query('DELETE FROM s0.readings')",
        "SELECT * FROM enable_logging('file')",
        "SELECT * FROM cursor",
        "SELECT * FROM ring",
        "SELECT getenv('HOME')",
        "",
        "no such thing",
    ],
)
def test_harm_is_refused(ring, tmp_path, sql):
    (ring.folder / "link").symlink_to(tmp_path / "secret.txt")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    with pytest.raises(RingError):
        ask(ring, sql.format(folder=ring.folder, export=tmp_path / "export"))
    assert ask(ring, "SELECT count(*), sum(value) FROM readings").rows == [(ROWS, sum(range(ROWS)))]
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_questions_and_ingest_do_not_wait_for_each_other(ring):
    stop = threading.Event()
    counts = []

    def ask_again_and_again():
        while not stop.is_set():
            counts.append(ask(ring, "SELECT count(*) FROM readings").rows[0][0])

    thread = threading.Thread(target=ask_again_and_again)
    thread.start()
    for group in range(30):
        now = T0 + (3 + group) * DAY
        ring.append(readings(100, start=3000 + group * 100, at=now), now)
        if group % 5 == 4:
            ring.drop_oldest("bytes")
    stop.set()
    thread.join()
    assert len(counts) > 3
    assert ask(ring, "SELECT count(*) FROM readings").rows[0][0] == sum(s.rows for s in ring.segments)


def test_an_export_holds_exactly_the_span(ring, tmp_path):
    path = tmp_path / "export" / "x.parquet"
    export(ring, T0 + DAY, T0 + DAY + 500 * 1_000_000, path, 30)
    answer = ask(ring, f"SELECT count(*), min(value), max(value) FROM read_parquet('{path}')")
    assert answer.rows == [(500, 1000.0, 1499.0)]
    compression = ask(ring, f"SELECT DISTINCT compression FROM parquet_metadata('{path}')").rows
    assert compression == [("ZSTD",)]


def test_an_export_goes_nowhere_else(ring, tmp_path):
    with pytest.raises(RingError):
        export(ring, T0, T0 + DAY, tmp_path / "x.parquet", 30)
    assert not (tmp_path / "x.parquet").exists()


def test_oee_has_one_row_per_machine_and_moment_with_the_last_known_figures(ring):
    names = ["press.oee", "press.availability", "cnc.oee", "press.other"]
    ring.describe([TagRow(index=i, name=name, asset="a/l/c", virtual=True) for i, name in enumerate(names)], [])
    ring.drop_oldest("bytes")
    now = T0 + 10 * DAY
    rows = [(0, now, 0.7, 192), (1, now, 0.9, 192), (2, now, 0.5, 192), (0, now + 10**9, 0.8, 192), (3, now, 9.0, 192)]
    ring.append(of_rows([*rows, (0, now + 2 * 10**9, float("nan"), 0)]), now)
    answer = ask(ring, f"SELECT machine, oee, availability, teep FROM oee WHERE time >= make_timestamp({now // 1000})")
    assert sorted(answer.rows) == [("cnc", 0.5, None, None), ("press", 0.7, 0.9, None), ("press", 0.8, 0.9, None)]
