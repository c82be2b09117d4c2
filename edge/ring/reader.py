"""SQL for people: one read-only statement over the ring, and the export of a stretch of time.

Four fences, each sufficient against most harm: only a statement that reads is accepted, it runs in a transaction
that cannot write, the engine may touch no file outside the ring's folders, and its settings are locked.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb

from edge.ring import views
from edge.ring.errors import RingError, ring_error
from edge.ring.ring import Ring
from edge.ring.segment import quoted

STATEMENT_MAX: Final = 100_000
"""Characters of a statement."""
ROWS_MAX: Final = 1_000_000
TIMEOUT_S_MAX: Final = 3600.0
_DAMAGE_TEXTS: Final = ("Corrupt database file", "Could not read enough bytes")
_TRIES_MAX: Final = 3
"""A file that is trimmed between planning and running makes a query fail; then it is planned again."""
_GONE_TEXT: Final = "does not exist because schema"
_EXPORT: Final = """
COPY (SELECT * FROM readings WHERE time >= make_timestamp({start}) AND time < make_timestamp({end}))
TO '{path}' (FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION v2)
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """columns and types: one per column, types in SQL's words. rows: at most as many as were asked for.

    truncated: there were more rows than that. note: what else the reader must know, "" if nothing.
    """

    columns: list[str]
    types: list[str]
    rows: list[Sequence[Any]]
    truncated: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class Extra:
    """Tables that are not the ring's: events and alarm book of the journal, as columns in the order of the tables.

    note: what is missing in them.
    """

    events: Mapping[str, Any]
    alarm_book: Mapping[str, Any]
    note: str = ""


def query(ring: Ring, sql: str, *, rows_max: int, timeout_s: float, extra: Extra | None = None) -> Answer:
    """Run one statement that only reads. Raises RingError with a sentence for the person who asked.

    Runs in the caller's thread, for at most `timeout_s`, and returns at most `rows_max` rows.
    """
    check(sql)
    rows_max = max(1, min(rows_max, ROWS_MAX))
    for attempt in range(_TRIES_MAX):
        with ring.reader() as cursor:
            try:
                return _query(cursor, sql, rows_max, timeout_s, extra)
            except duckdb.CatalogException as error:
                if _GONE_TEXT in str(error) and attempt + 1 < _TRIES_MAX:
                    continue
                raise RingError(_sentence(error)) from error
            except duckdb.InterruptException as error:
                raise RingError(
                    f"the query was stopped after {timeout_s:g} s: ask for less time, e.g. "
                    "WHERE time > now() - INTERVAL 1 HOUR, or for fewer tags"
                ) from error
            except duckdb.OutOfMemoryException as error:
                raise RingError(
                    f"the query needs more memory than it may have ({ring.options.memory_bytes_max // 1_000_000} MB): "
                    "ask for less time or fewer tags, or export the readings and work on the file"
                ) from error
            except duckdb.Error as error:
                raise RingError(_sentence(error)) from error
    raise RingError("the files of the ring change faster than the query can be planned: ask again")


def export(ring: Ring, start: int, end: int, path: Path, timeout_s: float) -> None:
    """Write the readings of [start, end) (ns UTC) to a Parquet file. Raises RingError and leaves no file then.

    `path` must lie in a folder that the ring was given for exports.
    """
    sql = _EXPORT.format(start=start // 1000, end=end // 1000, path=quoted(path.resolve()))
    try:
        with ring.reader() as cursor, _deadline(cursor, timeout_s):
            cursor.execute(sql)
    except duckdb.InterruptException as error:
        path.unlink(missing_ok=True)
        raise RingError(f"the export was stopped after {timeout_s:g} s: export less time") from error
    except (duckdb.Error, OSError) as error:
        path.unlink(missing_ok=True)
        raise ring_error(error, "export the readings") from error


def is_damage(error: BaseException) -> bool:
    """Tell whether a failed query or export means that a file is damaged."""
    return any(text in str(error) for text in _DAMAGE_TEXTS)


def check(sql: str) -> None:
    """Refuse what is not exactly one statement that reads. Raises RingError."""
    if len(sql) > STATEMENT_MAX:
        raise RingError(f"the statement is longer than {STATEMENT_MAX} characters")
    try:
        statements = duckdb.extract_statements(sql)
    except duckdb.Error as error:
        raise RingError(_sentence(error)) from error
    if len(statements) != 1:
        raise RingError(f"one statement at a time, please: this is {len(statements)}")
    if statements[0].type != duckdb.StatementType.SELECT:
        kind = str(statements[0].type).rsplit(".", 1)[-1]
        raise RingError(f"only SELECT, DESCRIBE, SHOW and SUMMARIZE are allowed here, not {kind}")


def _query(cursor: duckdb.DuckDBPyConnection, sql: str, rows_max: int, timeout_s: float, extra: Extra | None) -> Answer:
    with _deadline(cursor, timeout_s):
        if extra is not None:
            _show(cursor, extra)
        cursor.execute("BEGIN TRANSACTION READ ONLY")
        try:
            cursor.execute(sql)
            description = cursor.description or []
            rows = cursor.fetchmany(rows_max + 1)
        finally:
            with suppress(duckdb.Error):
                cursor.rollback()
    return Answer(
        [str(column[0]) for column in description],
        [str(column[1]) for column in description],
        rows[:rows_max],
        len(rows) > rows_max,
        extra.note if extra is not None else "",
    )


def _show(cursor: duckdb.DuckDBPyConnection, extra: Extra) -> None:
    # Temporary tables belong to this connection only, and hide the empty ones of the same name.
    for table, columns in (("events", extra.events), ("alarm_book", extra.alarm_book)):
        cursor.execute(f"CREATE TEMP TABLE {table} AS FROM memory.main.{table} LIMIT 0")
        if len(next(iter(columns.values()))):
            views.load(cursor, f"temp.{table}", dict(columns))
    cursor.execute(views.ALARMS.format(scope="TEMP"))
    cursor.execute(views.LEDGER.format(scope="TEMP", minutes=views.COUNT_INTERVAL_MINUTES))


@contextmanager
def _deadline(cursor: duckdb.DuckDBPyConnection, timeout_s: float) -> Iterator[None]:
    timer = threading.Timer(min(timeout_s, TIMEOUT_S_MAX), cursor.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _sentence(error: duckdb.Error) -> str:
    # The engine's message carries the statement with a marker below it: worth showing, in one piece.
    return str(error).strip()
