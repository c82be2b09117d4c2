"""SQL and exports over both stores: what the ring alone cannot answer is fetched from the journal."""

import re
import uuid
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from edge.errors import StorageError
from edge.journal import read_columns, read_names
from edge.ring import Answer, Extra, Ring, RingOptions, TagRow, export, query
from edge.store.places import Places
from plant.instant import NS_PER_S

EXPORT_AGE_S: Final = 3600
"""An export that nobody took away is removed after this time."""
_NEEDS_JOURNAL: Final = re.compile(r"\b(events|alarms|alarm_book|ledger)\b", re.IGNORECASE)


def ask(ring: Ring, journal: Path, sql: str, rows_max: int, timeout_s: float) -> Answer:
    """Run one read-only statement; events and alarm book are loaded only if it names them. Raises StorageError."""
    extra = None
    if _NEEDS_JOURNAL.search(sql):
        columns = read_columns(journal)
        note = f"only the newest events were searched, {columns.missing} older ones were not" if columns.missing else ""
        extra = Extra(columns.events, columns.alarms, note)
    return query(ring, sql, rows_max=rows_max, timeout_s=timeout_s, extra=extra)


def new_export(ring: Ring, free_bytes_min: int) -> Path:
    """Return the path of a new export. Raises StorageError if the disk has no room for one."""
    if ring.export_folder is None:
        raise StorageError("there is no folder for exports")
    try:
        free = ring.free
    except OSError as error:
        raise StorageError(f"cannot look at the disk of {ring.folder}: {error.strerror}") from error
    if free < free_bytes_min:
        raise StorageError(f"only {free // 1_000_000} MB are free on the disk: an export would fill it")
    return ring.export_folder / f"{uuid.uuid4().hex}.parquet"


def export_to(ring: Ring, start: int, end: int, path: Path, timeout_s: float) -> None:
    """Write the readings of [start, end) (ns UTC); a crash leaves no half file under the final name."""
    partial = path.with_suffix(".partial")
    export(ring, start, end, partial, timeout_s)
    try:
        partial.rename(path)
    except OSError as error:
        raise StorageError(f"cannot name the export {path}: {error.strerror}") from error


def discard_exports(ring: Ring, now: int) -> None:
    """Remove exports that nobody took away. now: ns UTC."""
    if ring.export_folder is None:
        return
    with suppress(OSError):
        for path in ring.export_folder.iterdir():
            if now / NS_PER_S - path.stat().st_mtime > EXPORT_AGE_S:
                path.unlink()


class Offline:
    """Ring and journal of a gateway that is not running, for reading. Use as a context manager."""

    def __init__(self, state_dir: Path, options: RingOptions | None = None) -> None:
        self._places = Places(state_dir)
        self._options = options or RingOptions()
        self._ring: Ring | None = None

    def __enter__(self) -> Self:
        self._ring = self._open(None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._ring is not None:
            self._ring.close()
            self._ring = None

    def query(self, sql: str, rows_max: int = 100_000, timeout_s: float = 600.0) -> Answer:
        """Run one read-only statement. Raises StorageError."""
        return ask(self._opened(), self._places.journal, sql, rows_max, timeout_s)

    def export(self, start: int, end: int, path: Path, timeout_s: float = 600.0) -> None:
        """Write the readings of [start, end) (ns UTC) to a Parquet file; an existing one is replaced whole.

        Raises StorageError.
        """
        self._opened().close()
        partial = path.resolve().with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
        # The engine may write only where it was told before it was locked.
        self._ring = self._open(partial.parent)
        try:
            export(self._ring, start, end, partial, timeout_s)
            partial.replace(path)
        except OSError as error:
            raise StorageError(f"cannot write {path}: {error.strerror}") from error
        finally:
            partial.unlink(missing_ok=True)

    def _opened(self) -> Ring:
        if self._ring is None:
            raise StorageError("the stores are not open")
        return self._ring

    def _open(self, export_folder: Path | None) -> Ring:
        ring = Ring(self._places.ring, self._options, export_folder)
        ring.open_read_only()
        try:
            tags, texts = read_names(self._places.journal)
            rows = [
                TagRow(
                    index=tag.index, name=tag.name, asset=tag.asset, device=tag.device, unit=tag.unit,
                    description=tag.description, text=tag.text, virtual=tag.virtual,
                )
                for tag in tags
            ]  # fmt: skip
        except StorageError:
            # Without its journal the ring still knows the names of its tags.
            names, texts = ring.names_found()
            rows = [TagRow(index=index, name=name) for name, index in names.items()]
        ring.describe(rows, texts)
        return ring


def open_offline(state_dir: Path, options: RingOptions | None = None) -> Offline:
    """Return ring and journal in `state_dir` for reading, as a context manager that raises StorageError on entry."""
    return Offline(state_dir, options)
