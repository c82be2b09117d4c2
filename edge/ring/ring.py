"""`Ring`: readings in a folder of files, bounded by bytes and age.

Owns the files, their numbering and their removal. Leaves to others: when to commit, what to do about trouble, who
may ask. One thread appends, trims and recovers; queries run on cursors of their own (`reader`).

Rules: rows are only appended; room is made by unlinking whole files, never by deleting rows, because only unlinking
works on a full disk; after any error the position is asked from the file, never guessed.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import duckdb

from edge.ring import rows, views
from edge.ring import segment as files
from edge.ring.ballast import Ballast
from edge.ring.engine import connect
from edge.ring.errors import RingError, ring_error
from edge.ring.folder import (
    Damage,
    Dropped,
    Lock,
    Reason,
    damaged_files,
    free_bytes,
    orphaned_logs,
    probe,
    ring_files,
    unlink,
)
from edge.ring.names import Names, TagRow, Text, found
from edge.ring.options import RingOptions
from edge.ring.rows import Counts
from edge.ring.segment import SEQ_JUMP, Segment
from plant.batch import EMPTY, Batch

NS_PER_DAY: Final = 86_400_000_000_000
NS_PER_MINUTE: Final = 60_000_000_000
WAL_ROW_BYTES: Final = 21
"""A row in the log, before the checkpoint compresses it."""
READ_ROWS_MAX: Final = 1_000_000
"""Rows that one `read_from` returns at most."""
_REPLAY_TEXT: Final = "replaying WAL"


class Ring:
    """The ring of one gateway. `export_folder` is the only place besides its own where the engine may write."""

    def __init__(self, folder: Path, options: RingOptions, export_folder: Path | None = None) -> None:
        self.folder = folder
        self.options = options
        self.export_folder = export_folder
        self.ballast = Ballast(folder, options.ballast)
        self.segments: list[Segment] = []
        self.damaged: list[Path] = []
        self.news: list[Damage] = []
        self._damaged_size = 0
        self._lock = Lock(folder)
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._healthy = False
        self.names = Names()
        self._readers: set[duckdb.DuckDBPyConnection] = set()
        self._guard = threading.Lock()

    # Opening and closing

    @property
    def is_open(self) -> bool:
        """Rows can be appended: open, and no error since."""
        return self._healthy

    def open(self, now: int) -> None:
        """Open every file; what cannot be read is set aside and becomes `news`.

        Raises RingLocked if another process has the ring, RingError if there is no way to write at all.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if self.export_folder is not None:
                self.export_folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ring_error(error, f"make the folder {self.folder}") from error
        self._lock.take(shared=False)
        try:
            files.discard_unfinished(self.folder)
            ours, foreign = ring_files(self.folder)
            for path in foreign + orphaned_logs(self.folder):
                self._set_aside(path, "it is no file of this ring")
            self._give_up()
            with ExitStack() as undo:
                connection = connect(self.options, self._folders)
                undo.callback(connection.close)
                self.segments = [s for path in ours if (s := self._attach(connection, path)) is not None]
                self.look_at_damaged()
                views.create_base(connection)
                self._continue(connection, now)
                self.names.show(connection)
                undo.pop_all()
        except (duckdb.Error, OSError) as error:
            raise ring_error(error, f"open the ring in {self.folder}") from error
        self._connection = connection
        self._healthy = True

    def open_read_only(self) -> None:
        """Open what is there for queries only and change nothing; unreadable files become `news`.

        Raises RingError, RingLocked.
        """
        self._lock.take(shared=True)
        try:
            ours, _ = ring_files(self.folder)
            with ExitStack() as undo:
                connection = connect(self.options, self._folders)
                undo.callback(connection.close)
                self.segments = []
                for path in ours:
                    try:
                        self.segments.append(files.attach(connection, path, read_only=True))
                    except RingError as error:
                        self.news.append(Damage(f"{error}: left out", files.first_of(path)))
                views.create_base(connection)
                views.create_views(connection, self.segments)
                undo.pop_all()
        except (duckdb.Error, OSError) as error:
            raise ring_error(error, f"open the ring in {self.folder}") from error
        self._connection = connection

    def close(self) -> None:
        """Checkpoint the open file if that is possible and let go of everything; never raises."""
        if self._healthy and self._connection is not None:
            with suppress(duckdb.Error):
                self._connection.execute(f"CHECKPOINT {self.segments[-1].alias}")
        self._give_up()
        self._lock.drop()

    @property
    def _folders(self) -> list[Path]:
        return [self.folder] if self.export_folder is None else [self.folder, self.export_folder]

    def _give_up(self) -> None:
        self._healthy = False
        with self._guard:
            readers, self._readers = self._readers, set()
            connection, self._connection = self._connection, None
        for reader in readers:
            reader.interrupt()
        if connection is not None:
            connection.close()

    def _interrupt_readers(self) -> None:
        with self._guard:
            for reader in self._readers:
                reader.interrupt()

    def _attach(self, connection: duckdb.DuckDBPyConnection, path: Path) -> Segment | None:
        try:
            return files.attach(connection, path)
        except RingError as error:
            if error.blameless:
                raise
            # A disk that takes nothing now says nothing about the file.
            probe(self.folder)
            if _REPLAY_TEXT in str(error):
                log = files.set_aside(path, log_only=True)
                sentence = f"{error}. It was set aside as {log.name}; what the file holds up to there is kept"
                self.news.append(Damage(sentence, files.first_of(path)))
                return self._attach(connection, path)
            self._set_aside(path, str(error))
            return None

    def _set_aside(self, path: Path, why: str) -> None:
        aside = files.set_aside(path)
        self.news.append(Damage(f"{path.name} was set aside as {aside.name}: {why}", files.first_of(path)))

    def take_news(self) -> list[Damage]:
        """Hand over what was found damaged since the last call."""
        news, self.news = self.news, []
        return news

    def around(self, first: int) -> tuple[int, int]:
        """Return the time (ns UTC) of the last reading before and of the first reading after row `first`; 0 = none."""
        before = max((s.newest for s in self.segments if s.first < first), default=0)
        after = min((s.oldest for s in self.segments if s.first > first and s.rows), default=0)
        return before, after

    def _continue(self, connection: duckdb.DuckDBPyConnection, now: int) -> None:
        # A lost file or log may have given numbers that nobody knows: the next number lies beyond all of them.
        lost = max((first for path in self.damaged if (first := files.first_of(path)) is not None), default=-1)
        last = self.segments[-1] if self.segments else None
        if last is not None and last.first > lost and not self._is_due(last, now):
            views.create_views(connection, self.segments)
            return
        first = last.next if last is not None else 0
        if lost >= 0 and (last is None or lost >= last.first):
            first = max(first, lost + SEQ_JUMP)
        self._start_segment(connection, first, now)

    # Appending

    @property
    def next_seq(self) -> int:
        """Number that the next row will get."""
        return self.segments[-1].next if self.segments else 0

    def append(self, batch: Batch, now: int, counts: Counts | None = None, texts: Sequence[Text] = ()) -> None:
        """Append a group of rows in one durable transaction. Raises RingError; then `recover` must come first."""
        connection = self._ready()
        try:
            if self._is_due(self.segments[-1], now):
                self._rotate(connection, now)
            open_ = self.segments[-1]
            log = files.wal_of(open_.path)
            logged = files.size_of(log)
            rows.insert(connection, open_, batch, counts, texts)
            if texts:
                self.names.add_texts(connection, texts)
            if logged == 0 or files.size_of(log) < logged:
                # A new log: its rows are on the disk, its name must be as well.
                files.sync_folder(self.folder)
        except OSError as error:
            self._healthy = False
            raise ring_error(error, f"append to {self.segments[-1].path}") from error
        except duckdb.Error as error:
            self._healthy = False
            if isinstance(error, duckdb.OutOfMemoryException):
                # Queries share the engine's memory; ingest comes first.
                self._interrupt_readers()
            raise ring_error(error, f"append to {self.segments[-1].path}") from error
        except RingError:
            self._healthy = False
            raise
        if len(batch):
            open_.oldest = min(open_.oldest or int(batch.time.min()), int(batch.time.min()))
            open_.newest = max(open_.newest, int(batch.time.max()))
            open_.rows += len(batch)

    def _is_due(self, last: Segment, now: int) -> bool:
        full = last.measure() >= self.options.segment_bytes
        return full or (last.rows > 0 and now - last.created >= self.options.segment_minutes * NS_PER_MINUTE)

    def _rotate(self, connection: duckdb.DuckDBPyConnection, now: int) -> None:
        closing = self.segments[-1]
        connection.execute(f"CHECKPOINT {closing.alias}")
        closing.measure()
        self._start_segment(connection, closing.next, now)

    def _start_segment(self, connection: duckdb.DuckDBPyConnection, first: int, now: int) -> None:
        path = files.create(connection, self.folder, first, now, self.options.block_bytes)
        self.segments.append(files.attach(connection, path))
        self.names.write(connection, self.segments[-1])
        views.create_views(connection, self.segments)

    def recover(self, now: int) -> None:
        """Come back after an error: open the last file again, or everything. Rows are counted afresh.

        Raises RingError if it does not work yet; try again later.
        """
        connection, last = self._connection, self.segments[-1] if self.segments else None
        if connection is None or last is None:
            self.open(now)
            return
        files.detach(connection, last)
        try:
            self.segments[-1] = files.attach(connection, last.path)
            views.create_views(connection, self.segments)
            self.names.write(connection, self.segments[-1])
        except (RingError, duckdb.Error) as error:
            if isinstance(error, RingError) and error.blameless:
                raise
            self.open(now)
        self._healthy = True

    # Making room

    @property
    def size(self) -> int:
        """Bytes that the ring takes: files, logs, what was set aside, ballast."""
        return sum(s.size for s in self.segments) + self._damaged_size + self.ballast.held

    @property
    def free(self) -> int:
        """Bytes free on the disk. Raises OSError."""
        return free_bytes(self.folder)

    def look_at_damaged(self) -> None:
        """Look again which files were set aside: a person may have taken them away."""
        self.damaged = damaged_files(self.folder)
        self._damaged_size = sum(path.stat().st_size for path in self.damaged if path.exists())

    def trim(self, coming: int = 0) -> list[Dropped]:
        """Unlink the oldest files until `coming` more rows fit into the byte budget. Raises RingError."""
        dropped: list[Dropped] = []
        if self.segments:
            self.segments[-1].measure()
        # A checkpoint writes new blocks before it frees the log.
        headroom = coming * WAL_ROW_BYTES + self.options.wal_bytes
        while self.size + headroom > self.options.bytes_max:
            gone = self.drop_oldest("bytes")
            if gone is None:
                break
            dropped.append(gone)
        return dropped

    def drop_aged(self, now: int) -> Dropped | None:
        """Unlink the oldest file if all of it is older than the age limit. Raises RingError.

        One file at a time: a clock that is wrong for a moment must not cost the whole ring.
        """
        horizon = now - int(self.options.age_max_days * NS_PER_DAY)
        if len(self.segments) > 1 and self.segments[1].created < horizon:
            return self._drop_segment("age")
        return None

    def drop_oldest(self, reason: Reason) -> Dropped | None:
        """Unlink the oldest file that is not being written; None if there is none. Raises RingError.

        Works without the engine as well: on a full disk nothing may open any more.
        """
        closed = self.segments[0] if len(self.segments) > 1 else None
        if self.damaged and (closed is None or (files.first_of(self.damaged[0]) or 0) <= closed.first):
            path = self.damaged[0]
            size = unlink(path)
            self.look_at_damaged()
            return Dropped(path=path, reason=reason, size=size)
        if closed is not None:
            return self._drop_segment(reason)
        if self._connection is None:
            ours = ring_files(self.folder)[0]
            if len(ours) > 1:
                return Dropped(path=ours[0], reason=reason, size=unlink(ours[0]))
        return None

    def _drop_segment(self, reason: Reason) -> Dropped:
        gone = self.segments[0]
        size = unlink(gone.path)
        del self.segments[0]
        if self._connection is not None:
            # Queries that run on the file keep it until they end; new ones no longer see it.
            with suppress(duckdb.Error):
                views.create_views(self._connection, self.segments)
            files.detach(self._connection, gone)
        return Dropped(path=gone.path, reason=reason, size=size, rows=gone.rows, oldest=gone.oldest, newest=gone.newest)

    def set_aside(self, first: int, why: str, now: int) -> None:
        """Take a file that turned out to be damaged out of the ring. Raises RingError."""
        connection = self._ready()
        bad = next((s for s in self.segments if s.first == first), None)
        if bad is None:
            return
        files.detach(connection, bad)
        self._set_aside(bad.path, why)
        self.segments.remove(bad)
        self.look_at_damaged()
        self._continue(connection, now)
        if self.segments[-1].first > first:
            views.create_views(connection, self.segments)

    # Names

    def describe(self, tags: Iterable[TagRow], texts: Iterable[Text]) -> None:
        """Tell the ring the names behind the numbers, all of them. Raises RingError."""
        self.names.put(tags, texts)
        if self._connection is None:
            return
        try:
            self.names.show(self._connection)
            if self._healthy:
                self.names.write(self._connection, self.segments[-1])
        except duckdb.Error as error:
            raise ring_error(error, "store the names of tags") from error

    def names_found(self) -> tuple[dict[str, int], list[Text]]:
        """Return the names and texts that the files themselves know: for a journal that was lost. Raises RingError."""
        try:
            with self.reader() as cursor:
                return found(cursor, self.segments)
        except duckdb.Error as error:
            raise ring_error(error, "read the names of tags") from error

    def find_damage(self) -> list[tuple[int, str]]:
        """Read every file whole; return (first row, what is wrong) of those that fail. May run in any thread."""
        bad: list[tuple[int, str]] = []
        with self.reader() as cursor:
            for s in list(self.segments):
                try:
                    files.scan(cursor, s)
                except RingError as error:
                    bad.append((s.first, str(error)))
        return bad

    # Reading

    @contextmanager
    def reader(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Lend a connection of its own to another thread. Raises RingError if the ring is not open."""
        with self._guard:
            if self._connection is None:
                raise RingError("the ring is not open")
            cursor = self._connection.cursor()
            self._readers.add(cursor)
        try:
            yield cursor
        finally:
            with self._guard:
                self._readers.discard(cursor)
            cursor.close()

    def read_from(self, seq: int, limit: int) -> tuple[int, Batch]:
        """Return (number of the first row, up to `limit` rows in order) from number `seq` on; rows without a hole.

        The first row may lie beyond `seq`: older ones were trimmed. Raises RingError.
        """
        segment = next((s for s in self.segments if s.next > seq and s.rows), None)
        if segment is None:
            return max(seq, self.next_seq), EMPTY
        start = max(seq - segment.first, 0)
        try:
            with self.reader() as cursor:
                return segment.first + start, rows.read(cursor, segment, start, start + min(limit, READ_ROWS_MAX))
        except duckdb.Error as error:
            raise ring_error(error, f"read {segment.path}") from error

    def _ready(self) -> duckdb.DuckDBPyConnection:
        if self._connection is None or not self._healthy:
            raise RingError("the ring is not open for writing")
        return self._connection
