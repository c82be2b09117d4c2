"""Copies of the journal, and what happens when the journal itself cannot be read."""

import contextlib
import os
import re
import sqlite3
from pathlib import Path
from typing import Final

from edge.journal.errors import JournalError

BACKUPS_MAX: Final = 2
DAMAGED_MAX: Final = 3
"""Journals set aside that are kept; the oldest goes."""
_NAME: Final = re.compile(r"^journal-(\d{8})\.sqlite$")
_SIDE_FILES: Final = ("-wal", "-shm", "-journal")


def backups(folder: Path) -> list[Path]:
    """Return the backups in a folder, newest first."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.match(path.name)), reverse=True)


def back_up(path: Path, folder: Path) -> Path:
    """Copy the journal while it is in use, verify the copy, keep the newest ones; return its path.

    Opens its own connections: may run in any thread. Raises JournalError and leaves the older backups as they are.
    """
    newest = backups(folder)
    number = int(newest[0].name[8:16]) + 1 if newest else 1
    target = folder / f"journal-{number:08d}.sqlite"
    partial = target.with_suffix(".partial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        with (
            contextlib.closing(sqlite3.connect(path, timeout=5.0)) as source,
            contextlib.closing(sqlite3.connect(partial)) as copy,
        ):
            source.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
            check(copy)
        _sync(partial)
        partial.rename(target)
        _sync(folder)
        for old in backups(folder)[BACKUPS_MAX:]:
            old.unlink(missing_ok=True)
    except (sqlite3.Error, OSError) as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise JournalError(f"cannot back up {path} to {folder}: {error}") from error
    return target


def restore(backup: Path, path: Path) -> None:
    """Put a copy of a backup in the place of the journal. Raises OSError."""
    partial = path.with_suffix(".partial")
    partial.write_bytes(backup.read_bytes())
    _sync(partial)
    partial.rename(path)
    _sync(path.parent)


def set_aside(path: Path) -> Path:
    """Rename a journal that cannot be read, with its side files; return the new name. Raises OSError."""
    number = 1
    while (target := path.with_name(f"{path.name}.damaged.{number}")).exists():
        number += 1
    for side in _SIDE_FILES:
        part = path.with_name(path.name + side)
        if part.exists():
            part.rename(target.with_name(target.name + side))
    path.rename(target)
    # Only the newest few are kept: a disk that damages files must not fill itself with them.
    for old in range(1, number - DAMAGED_MAX + 1):
        for side in ("", *_SIDE_FILES):
            path.with_name(f"{path.name}.damaged.{old}{side}").unlink(missing_ok=True)
    _sync(path.parent)
    return target


def probe(folder: Path) -> None:
    """Write a file and take it away again. Raises OSError if the disk does not take it."""
    path = folder / ".journal-probe"
    try:
        path.write_bytes(b"?")
        _sync(path)
    finally:
        path.unlink(missing_ok=True)


def damaged(path: Path) -> list[Path]:
    """Return the journals that were set aside."""
    return sorted(path.parent.glob(f"{path.name}.damaged.*"))


def check(connection: sqlite3.Connection) -> None:
    """Read the whole file and compare its structure. Raises sqlite3.DatabaseError if something is wrong."""
    answer = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if answer != "ok":
        raise sqlite3.DatabaseError(f"database disk image is malformed: {answer}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
