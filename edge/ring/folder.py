"""The folder of the ring as files: what lies there, how much it takes, who may open it."""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from edge.ring.errors import RingLocked, ring_error
from edge.ring.segment import DAMAGED, first_of, size_of, wal_of

LOCK_NAME: Final = ".lock"
_PROBE_NAME: Final = ".probe"
Reason = Literal["bytes", "age", "disk_full"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """A file that was unlinked to make room. rows, oldest, newest (ns UTC): its readings, 0 if nobody knows."""

    path: Path
    reason: Reason
    size: int
    rows: int = 0
    oldest: int = 0
    newest: int = 0


@dataclass(frozen=True, slots=True)
class Damage:
    """Something of the ring could not be read. first: number of the first row that may be lost, None if no row was."""

    sentence: str
    first: int | None


class Lock:
    """Says who may have the ring open: one writer, or any number of readers, never both.

    The engine's own locks would do the same per file, but a file that cannot be opened must mean damage, not company.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK_NAME
        self._descriptor = -1

    def take(self, *, shared: bool) -> None:
        """Take the lock or raise RingLocked at once; taking it again is no error."""
        if self._descriptor >= 0:
            return
        try:
            descriptor = os.open(self.path, os.O_RDONLY if shared else os.O_RDWR | os.O_CREAT, 0o640)
        except OSError as error:
            raise ring_error(error, f"open {self.path}") from error
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise RingLocked(
                f"another process has {self.path.parent} open: a gateway, or a command that reads its files"
            ) from error
        self._descriptor = descriptor

    def drop(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def ring_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return (files of the ring in order of their rows, foreign database files). Raises OSError."""
    ours: list[Path] = []
    foreign: list[Path] = []
    for path in folder.glob("*.duckdb"):
        (foreign if first_of(path) is None else ours).append(path)
    return sorted(ours), sorted(foreign)


def damaged_files(folder: Path) -> list[Path]:
    """Return what was set aside, oldest rows first; foreign files come before all."""
    found = folder.glob(f"*{DAMAGED}*")
    return sorted(found, key=lambda path: (-1 if (first := first_of(path)) is None else first, path.name))


def orphaned_logs(folder: Path) -> list[Path]:
    """Return logs whose file is gone."""
    return [log for log in folder.glob("*.duckdb.wal") if not log.with_name(log.name.removesuffix(".wal")).exists()]


def unlink(path: Path) -> int:
    """Remove a file and its log; return the bytes that they took. Raises RingError."""
    size = size_of(path)
    try:
        path.unlink(missing_ok=True)
        wal_of(path).unlink(missing_ok=True)
    except OSError as error:
        raise ring_error(error, f"remove {path}") from error
    return size


def free_bytes(folder: Path) -> int:
    """Bytes that are free on the disk for this process. Raises OSError."""
    state = os.statvfs(folder)
    return state.f_bavail * state.f_frsize


def probe(folder: Path) -> None:
    """Write a file and take it away again. Raises RingError if the disk does not take it."""
    path = folder / _PROBE_NAME
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(descriptor, b"?")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
            path.unlink(missing_ok=True)
    except OSError as error:
        raise ring_error(error, f"write to {folder}") from error
