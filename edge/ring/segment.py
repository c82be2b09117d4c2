"""One file of the ring: its name, its tables, and how it is made, opened, checked and set aside.

A file `r<first>.duckdb` holds readings in the order of their arrival; the sequence number of a row is the number in
the name plus its row id, because rows are only ever appended. A file also holds the counts of the loss ledger, and
the names and texts of its tags, so that it explains itself without the journal.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb

from edge.ring.errors import RingError, ring_error

FORMAT: Final = 1
SEQ_JUMP: Final = 1 << 40
"""Added after a file that was lost: more than any file can hold, so that a number is never given twice."""
DAMAGED: Final = ".damaged"
_NAME: Final = re.compile(r"^r(\d{19})\.duckdb$")
_HEADER_BYTES: Final = 12_288
_UNFINISHED: Final = "new.duckdb"

_CREATE: Final = """
CREATE TABLE fresh.readings (time TIMESTAMP, tag UINTEGER, value DOUBLE, quality UTINYINT);
CREATE TABLE fresh.counts (
    since TIMESTAMP, tag UINTEGER, received UINTEGER, kept UINTEGER, bad UINTEGER, dropped UINTEGER);
CREATE TABLE fresh.tags (index UINTEGER, tag VARCHAR);
CREATE TABLE fresh.texts (tag UINTEGER, code UINTEGER, text VARCHAR);
CREATE TABLE fresh.segment AS
    SELECT {format}::INTEGER AS format, {first}::BIGINT AS first, {created}::BIGINT AS created;
"""
_ATTACH: Final = "ATTACH '{path}' AS {alias} ({options})"
_SCHEMA: Final = """
SELECT (SELECT list(column_name || ' ' || data_type ORDER BY table_name, column_index) FROM duckdb_columns()
        WHERE database_name = '{alias}' AND table_name IN ('readings', 'counts', 'segment'))
"""
_COLUMNS: Final = [
    "since TIMESTAMP", "tag UINTEGER", "received UINTEGER", "kept UINTEGER", "bad UINTEGER", "dropped UINTEGER",
    "time TIMESTAMP", "tag UINTEGER", "value DOUBLE", "quality UTINYINT",
    "format INTEGER", "first BIGINT", "created BIGINT",
]  # fmt: skip
_ABOUT: Final = "SELECT format, first, created FROM {alias}.segment"
_ROWS: Final = "SELECT count(*), epoch_us(min(time)), epoch_us(max(time)) FROM {alias}.readings"
_SIZE: Final = "SELECT block_size * total_blocks FROM pragma_database_size() WHERE database_name = '{alias}'"
_SCAN: Final = """
SELECT count(epoch_us(time)), sum(tag), max(value), sum(quality) FROM {alias}.readings
"""


@dataclass(slots=True)
class Segment:
    """A file of the ring that is attached.

    first: sequence number of its first row. created: ns UTC when it was made. oldest, newest: ns UTC of its readings,
    0 without any. size: bytes of file and log when last looked.
    """

    path: Path
    first: int
    created: int
    rows: int
    oldest: int
    newest: int
    size: int

    @property
    def alias(self) -> str:
        return alias(self.first)

    @property
    def next(self) -> int:
        """Sequence number after the last row."""
        return self.first + self.rows

    def measure(self) -> int:
        """Look at the sizes of file and log again."""
        self.size = size_of(self.path)
        return self.size


def alias(first: int) -> str:
    """Return the name under which the engine knows the file."""
    return f"s{first}"


def path_of(folder: Path, first: int) -> Path:
    return folder / f"r{first:019d}.duckdb"


def first_of(path: Path) -> int | None:
    """Return the sequence number in the name of a ring file (also a damaged one), None for any other file."""
    name = path.name.split(DAMAGED, 1)[0].removesuffix(".wal")
    match = _NAME.match(name)
    return int(match.group(1)) if match else None


def quoted(path: Path) -> str:
    """Return a path as it stands between the quotes of an SQL string."""
    return str(path).replace("'", "''")


def wal_of(path: Path) -> Path:
    return path.with_name(path.name + ".wal")


def size_of(path: Path) -> int:
    """Bytes of a file and its log."""
    size = 0
    for part in (path, wal_of(path)):
        try:
            size += part.stat().st_size
        except FileNotFoundError:
            continue
    return size


def sync_folder(folder: Path) -> None:
    """Make names in the folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def create(connection: duckdb.DuckDBPyConnection, folder: Path, first: int, now: int, block_bytes: int) -> Path:
    """Make an empty file whose first row gets the number `first`. Raises RingError.

    It is made under another name and renamed when it is complete: a crash leaves no half file.
    """
    unfinished = folder / _UNFINISHED
    path = path_of(folder, first)
    try:
        discard_unfinished(folder)
        connection.execute(_ATTACH.format(path=quoted(unfinished), alias="fresh", options=f"BLOCK_SIZE {block_bytes}"))
        try:
            connection.begin()
            connection.execute(_CREATE.format(format=FORMAT, first=first, created=now))
            connection.commit()
            connection.execute("CHECKPOINT fresh")
        finally:
            _detach(connection, "fresh")
        unfinished.rename(path)
        sync_folder(folder)
    except (duckdb.Error, OSError) as error:
        raise ring_error(error, f"create {path}") from error
    return path


def discard_unfinished(folder: Path) -> None:
    """Remove what a crash left of a file in the making. Raises OSError."""
    for left in (folder / _UNFINISHED, wal_of(folder / _UNFINISHED)):
        left.unlink(missing_ok=True)


def attach(connection: duckdb.DuckDBPyConnection, path: Path, *, read_only: bool = False) -> Segment:
    """Open a file and check that it is whole and ours. Raises RingError; the file is not attached then."""
    first = first_of(path)
    if first is None:
        raise RingError(f"{path} is not named like a file of the ring")
    name = alias(first)
    options = "READ_ONLY" if read_only else "READ_WRITE"
    try:
        connection.execute(_ATTACH.format(path=quoted(path), alias=name, options=options))
    except duckdb.Error as error:
        raise ring_error(error, f"open {path}") from error
    try:
        return _check(connection, path, first)
    except (duckdb.Error, OSError) as error:
        _detach(connection, name)
        raise ring_error(error, f"read {path}") from error
    except RingError:
        _detach(connection, name)
        raise


def _check(connection: duckdb.DuckDBPyConnection, path: Path, first: int) -> Segment:
    name = alias(first)
    if _one(connection, _SCHEMA.format(alias=name))[0] != _COLUMNS:
        raise RingError(f"{path} is a database, but not one of this ring")
    form, said_first, created = _one(connection, _ABOUT.format(alias=name))
    if form != FORMAT or said_first != first:
        raise RingError(f"{path} says of itself that it is format {form}, first row {said_first}")
    size = _one(connection, _SIZE.format(alias=name))[0]
    segment = Segment(path, first, created, 0, 0, 0, size_of(path))
    recount(connection, segment)
    if size and path.stat().st_size < size + _HEADER_BYTES:
        # Torn, or only its last free blocks were never written, as after a crash: reading it whole tells.
        scan(connection, segment)
    return segment


def recount(connection: duckdb.DuckDBPyConnection, segment: Segment) -> None:
    """Ask the file how many rows it has and of what time. Raises duckdb.Error."""
    rows, oldest, newest = _one(connection, _ROWS.format(alias=segment.alias))
    segment.rows = rows
    segment.oldest = (oldest or 0) * 1000
    segment.newest = (newest or 0) * 1000


def scan(connection: duckdb.DuckDBPyConnection, segment: Segment) -> None:
    """Read every block of the readings. Raises RingError if one is damaged."""
    try:
        connection.execute(_SCAN.format(alias=segment.alias)).fetchall()
    except duckdb.Error as error:
        raise ring_error(error, f"read {segment.path}") from error


def detach(connection: duckdb.DuckDBPyConnection, segment: Segment) -> None:
    """Let go of a file; running queries finish on it. Never raises."""
    _detach(connection, segment.alias)


def set_aside(path: Path, *, log_only: bool = False) -> Path:
    """Rename a file and its log so that nobody opens them again; return the new name. Raises RingError.

    log_only: only the log is damaged, the file is sound up to its last checkpoint.
    """
    log = wal_of(path)
    parts = [log] if log_only else [log, path]
    number, suffix = 1, DAMAGED
    while any(part.with_name(part.name + suffix).exists() for part in parts):
        number += 1
        suffix = f"{DAMAGED}.{number}"
    try:
        for part in parts:
            if part.exists():
                part.rename(part.with_name(part.name + suffix))
        sync_folder(path.parent)
    except OSError as error:
        raise ring_error(error, f"rename the damaged {path}") from error
    return parts[-1].with_name(parts[-1].name + suffix)


def _detach(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    try:
        connection.execute(f"DETACH {name}")
    except duckdb.Error:
        # An invalidated or never attached database: what counts is that it is gone, and the next attach will tell.
        return


def _one(connection: duckdb.DuckDBPyConnection, sql: str) -> tuple[Any, ...]:
    row: tuple[Any, ...] | None = connection.execute(sql).fetchone()
    if row is None:
        raise duckdb.InvalidInputException(f"no answer to {sql}")
    return row
