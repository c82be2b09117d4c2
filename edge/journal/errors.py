"""The journal's own trouble, sorted by what helps against it."""

import sqlite3
from pathlib import Path
from typing import Final

from edge.errors import StorageError

_DAMAGED: Final = (
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    # A table or column is missing: a database, but no journal.
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_IOERR_READ,
    sqlite3.SQLITE_IOERR_SHORT_READ,
    sqlite3.SQLITE_IOERR_CORRUPTFS,
)
_FULL: Final = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)


class JournalError(StorageError):
    """The journal did not take or give what it was asked for. full: space on the disk would help."""

    def __init__(self, message: str, *, full: bool = False) -> None:
        super().__init__(message)
        self.full = full


def is_damage(error: sqlite3.DatabaseError) -> bool:
    """Tell whether the file itself is damaged or is no journal, so that no retry will help."""
    code = _code(error)
    if code is None:
        # Raised by our own checks.
        return type(error) is sqlite3.DatabaseError
    return code in _DAMAGED or code & 0xFF in _DAMAGED


def journal_error(error: sqlite3.Error, path: Path, doing: str) -> JournalError:
    """Turn SQLite's error into ours; `doing` says what was tried."""
    return JournalError(f"cannot {doing} in {path}: {error}", full=_code(error) in _FULL)


def _code(error: sqlite3.Error) -> int | None:
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return code
