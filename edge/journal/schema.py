"""The tables of the journal, and how an older journal becomes a newer one."""

import sqlite3
from typing import Final

from edge.journal.errors import JournalError

VERSION: Final = 1

_TABLES: Final = (
    # AUTOINCREMENT: the number of an event is never given again, also after the newest events were dropped.
    """CREATE TABLE events (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, time INTEGER NOT NULL,
        kind TEXT NOT NULL, asset TEXT NOT NULL, body TEXT NOT NULL)""",
    "CREATE INDEX events_of_asset ON events (asset, time)",
    "CREATE TABLE alarms (alarm TEXT PRIMARY KEY, seq INTEGER NOT NULL, body TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE cursors (name TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID",
    """CREATE TABLE tags (
        "index" INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, asset TEXT NOT NULL DEFAULT '',
        device TEXT NOT NULL DEFAULT '', unit TEXT NOT NULL DEFAULT '', description TEXT NOT NULL DEFAULT '',
        text INTEGER NOT NULL DEFAULT 0, virtual INTEGER NOT NULL DEFAULT 0)""",
    """CREATE TABLE texts (
        tag INTEGER NOT NULL, code INTEGER NOT NULL, text TEXT NOT NULL, PRIMARY KEY (tag, code)) WITHOUT ROWID""",
    "CREATE TABLE state (key TEXT PRIMARY KEY, json TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
)
_MIGRATIONS: Final[dict[int, tuple[str, ...]]] = {}
"""Version -> the statements that lead from it to the next one."""


def version_of(connection: sqlite3.Connection) -> int:
    """Return the version of the tables, 0 for an empty file. Raises sqlite3.Error."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def migrate(connection: sqlite3.Connection) -> None:
    """Make the tables, or bring older ones up to date, in one transaction. Raises JournalError, sqlite3.Error."""
    version = version_of(connection)
    if version == VERSION:
        return
    if version > VERSION:
        raise JournalError(f"the journal is of version {version}, this gateway knows {VERSION}: install a newer one")
    connection.execute("BEGIN IMMEDIATE")
    try:
        if version == 0:
            for statement in _TABLES:
                connection.execute(statement)
        else:
            for step in range(version, VERSION):
                for statement in _MIGRATIONS[step]:
                    connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except sqlite3.Error:
        connection.rollback()
        raise


def refuse_strangers(connection: sqlite3.Connection) -> None:
    """Raise sqlite3.DatabaseError if the file is a database of something else."""
    if version_of(connection) == 0 and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise sqlite3.DatabaseError("it is the database of something else")


def last_of(connection: sqlite3.Connection) -> int:
    """Return the highest number that an event ever got, 0 before the first. Raises sqlite3.Error."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    return row[0] if row else 0


def refuse_stumps(connection: sqlite3.Connection, size: int) -> None:
    """Raise sqlite3.DatabaseError if a file of `size` bytes that has no log is shorter than it says.

    SQLite reads what is missing of the last page as zeros.
    """
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    page_size = connection.execute("PRAGMA page_size").fetchone()[0]
    if size < pages * page_size:
        raise sqlite3.DatabaseError(f"it is shorter than it says: {size} of {pages * page_size} bytes")
