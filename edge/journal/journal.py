"""`Journal`: the little that must never be lost, in one SQLite file.

Owns events, alarm book, cursors of consumers, tag indices, texts and small state. Leaves to others: when to commit,
and what an event means. What `commit` returned is on the disk: WAL with synchronous=FULL.

One thread at a time uses a journal: whoever opens it at first, the store thread afterwards.
"""

import contextlib
import errno
import sqlite3
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, Protocol, Self

import msgspec

from edge.journal import backup as copies
from edge.journal.errors import JournalError, is_damage, journal_error
from edge.journal.options import JournalOptions
from edge.journal.records import TAG_COLUMNS, TagRecord, body_of, encode, event_of, tag_of
from edge.journal.schema import last_of, migrate, refuse_strangers, refuse_stumps
from plant.events import AlarmTransition, Event, Gap

EVENTS_READ_MAX: Final = 100_000
"""Events that one call returns at most."""
TRIM_ROWS_MAX: Final = 5_000
"""Events that one `trim` drops at most, so that it does not delay a commit."""
CHECK_BYTES_MAX: Final = 64_000_000
"""A journal up to this size is read whole at each start, a larger one only after a crash."""
PAGE_BYTES_MIN: Final = 512
NS_PER_DAY: Final = 86_400_000_000_000

Text = tuple[int, int, str]
Origin = Literal["kept", "new", "restored"]


class Described(Protocol):
    """A tag as the configuration describes it."""

    @property
    def name(self) -> str: ...
    @property
    def asset(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def text(self) -> bool: ...
    @property
    def virtual(self) -> bool: ...


class Journal:
    """The journal of one gateway. Made by `Journal.open`.

    epoch: names this line of sequence numbers; a journal that was lost or restored continues under another epoch.
    origin: "kept", "new" or "restored". notes: sentences about what had to be done to open it.
    """

    def __init__(self, path: Path, options: JournalOptions, backup_folder: Path) -> None:
        self.path = path
        self.options = options
        self.backup_folder = backup_folder
        self.epoch = ""
        self.origin: Origin = "kept"
        self.notes: list[str] = []
        self._connection: sqlite3.Connection | None = None
        self._last = 0

    @classmethod
    def open(cls, path: Path, options: JournalOptions | None = None, backup_folder: Path | None = None) -> Self:
        """Open or create a journal; a damaged one is set aside and the newest good backup takes its place.

        Raises JournalError if that is impossible: no space, no permission, a newer version.
        """
        journal = cls(path, options or JournalOptions(), backup_folder or path.parent / "backup")
        journal.reopen()
        return journal

    def reopen(self) -> None:
        """Close and open again, with the checks of a start; what is committed is there again. Raises JournalError."""
        self._release()
        self.origin = "kept"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            candidates = copies.backups(self.backup_folder)
            if not self.path.exists():
                self._begin_anew("the journal was missing", candidates)
            while self._connection is None:
                try:
                    self._connection = self._connect()
                except sqlite3.DatabaseError as error:
                    if not is_damage(error):
                        raise
                    # A disk that takes nothing now says nothing about the file.
                    copies.probe(self.path.parent)
                    aside = copies.set_aside(self.path)
                    self._begin_anew(f"the journal was damaged ({error}) and set aside as {aside.name}", candidates)
            self._settle(self._connection)
        except sqlite3.Error as error:
            self._release()
            raise journal_error(error, self.path, "open the journal") from error
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise JournalError(f"cannot open the journal {self.path}: {error.strerror}", full=full) from error

    def _connect(self) -> sqlite3.Connection:
        if self.path.exists() and self.path.stat().st_size < PAGE_BYTES_MIN:
            # SQLite would take such a stump for a new database.
            raise sqlite3.DatabaseError("it is empty")
        unclean = self.path.with_name(self.path.name + "-wal").exists()
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=5.0)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA journal_size_limit = 8000000")
            # A flipped bit in a text must not end the gateway.
            connection.text_factory = lambda text: text.decode("utf-8", "replace")
            refuse_strangers(connection)
            if not unclean:
                refuse_stumps(connection, self.path.stat().st_size)
            if unclean or self.path.stat().st_size <= CHECK_BYTES_MAX:
                copies.check(connection)
            migrate(connection)
            connection.execute("SELECT 1 FROM tags, meta, cursors, state LIMIT 1").fetchone()
        except BaseException:
            connection.close()
            raise
        return connection

    def _begin_anew(self, why: str, candidates: list[Path]) -> None:
        if candidates:
            backup = candidates.pop(0)
            copies.restore(backup, self.path)
            self.origin = "restored"
            self.notes.append(f"{why}; {backup.name} took its place: events since that backup are missing")
            return
        self.origin = "new"
        if copies.damaged(self.path):
            self.notes.append(f"{why}; there is no usable backup: it starts empty")

    def _settle(self, connection: sqlite3.Connection) -> None:
        if self.origin != "kept":
            connection.execute(
                "INSERT INTO meta VALUES ('epoch', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (uuid.uuid4().hex,),
            )
        row = connection.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()
        if row is None:
            # A crash between making the tables and this line.
            self.origin = "new"
            self._settle(connection)
            return
        self.epoch = row[0]
        self._last = last_of(connection)

    @property
    def damaged(self) -> list[Path]:
        """Journals that were set aside and still lie there."""
        return copies.damaged(self.path)

    def close(self) -> None:
        """Let go of the file; idempotent."""
        self._release()

    def _release(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    # Events

    @property
    def last_seq(self) -> int:
        """Number of the newest event, 0 before the first."""
        return self._last

    def append(self, events: Sequence[Event]) -> int:
        """Commit events in order; return the number of the last event in the journal. Raises JournalError."""
        self.commit(events)
        return self._last

    def commit(
        self, events: Sequence[Event], texts: Sequence[Text] = (), state: Mapping[str, Any] | None = None
    ) -> list[tuple[int, str]]:
        """Commit events, new texts and state in one transaction; return (number, id) of each event.

        An event whose id is in the journal already keeps its number and is not kept twice. The alarm book follows
        every AlarmTransition. Raises JournalError; nothing was kept then, or everything, and a repetition is safe.
        """
        connection = self._open_connection()
        try:
            connection.execute("BEGIN IMMEDIATE")
            self._last = last_of(connection)
            numbers = self._insert_events(connection, events)
            connection.executemany("INSERT OR IGNORE INTO texts VALUES (?, ?, ?)", texts)
            if state:
                connection.executemany(
                    "INSERT INTO state VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET json = excluded.json",
                    [(key, encode(value)) for key, value in state.items()],
                )
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._undo(connection)
            raise journal_error(error, self.path, f"commit {len(events)} events") from error
        self._last = max(self._last, max((seq for seq, _ in numbers), default=0))
        return numbers

    def _insert_events(self, connection: sqlite3.Connection, events: Sequence[Event]) -> list[tuple[int, str]]:
        numbers: list[tuple[int, str]] = []
        seq = self._last
        for event in events:
            body = body_of(event)
            row = (seq + 1, event.id, event.time, event.kind, event.asset, body)
            try:
                connection.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", row)
                seq += 1
                numbers.append((seq, event.id))
            except sqlite3.IntegrityError:
                had = connection.execute("SELECT seq FROM events WHERE id = ?", (event.id,)).fetchone()
                if had is None:
                    raise
                numbers.append((had[0], event.id))
            if isinstance(event, AlarmTransition):
                connection.execute(
                    "INSERT INTO alarms VALUES (?, ?, ?) ON CONFLICT (alarm) DO UPDATE SET seq = excluded.seq, "
                    "body = excluded.body WHERE excluded.seq > alarms.seq",
                    (event.alarm, numbers[-1][0], body),
                )
        return numbers

    def after(self, seq: int, limit: int) -> list[tuple[int, Event]]:
        """Return up to `limit` events with a number above `seq`, in order. Raises JournalError."""
        rows = self._read(
            "SELECT seq, body FROM events WHERE seq > ? ORDER BY seq LIMIT ?", (seq, min(limit, EVENTS_READ_MAX))
        )
        return [(number, event_of(body)) for number, body in rows]

    def events(self, asset: str, since: int, limit: int = EVENTS_READ_MAX) -> list[Event]:
        """Return the events of an asset that happened at `since` (ns UTC) or later, in the order they were kept.

        If there are more than `limit`, the newest ones. Raises JournalError.
        """
        rows = self._read(
            "SELECT body FROM (SELECT seq, body FROM events WHERE asset = ? AND time >= ? "
            "ORDER BY seq DESC LIMIT ?) ORDER BY seq",
            (asset, since, min(limit, EVENTS_READ_MAX)),
        )
        return [event_of(body) for (body,) in rows]

    def alarms(self) -> list[AlarmTransition]:
        """Return the latest transition of every alarm. Raises JournalError."""
        found = (event_of(body) for (body,) in self._read("SELECT body FROM alarms ORDER BY alarm"))
        return [event for event in found if isinstance(event, AlarmTransition)]

    # Consumers

    def cursor(self, name: str) -> int:
        """Return the number up to which a consumer is done, 0 before its first. Raises JournalError."""
        rows = self._read("SELECT seq FROM cursors WHERE name = ?", (name,))
        return rows[0][0] if rows else 0

    def advance(self, name: str, seq: int) -> None:
        """Remember that a consumer is done up to `seq`; a smaller number changes nothing. Raises JournalError."""
        self._write(
            "INSERT INTO cursors VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET seq = max(seq, excluded.seq)",
            [(name, seq)],
        )

    def forget(self, name: str) -> None:
        """Drop a consumer that will not come back: events are no longer kept for it. Raises JournalError."""
        self._write("DELETE FROM cursors WHERE name = ?", [(name,)])

    # Tags and texts

    def register_tags(self, descriptions: Iterable[Described]) -> dict[str, int]:
        """Return the index of each tag, for life; a new name gets the next one. Raises JournalError."""
        rows = list(descriptions)
        known = self.tag_indices()
        highest = max(known.values(), default=-1)
        for row in rows:
            if row.name not in known:
                highest += 1
                known[row.name] = highest
        self._write(
            'INSERT INTO tags ("index", name, asset, device, unit, description, text, virtual) '
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET asset = excluded.asset, "
            "device = excluded.device, unit = excluded.unit, description = excluded.description, "
            "text = excluded.text, virtual = excluded.virtual",
            [(known[r.name], r.name, r.asset, r.device, r.unit, r.description, r.text, r.virtual) for r in rows],
        )
        return {row.name: known[row.name] for row in rows}

    def adopt_names(self, tags: Mapping[str, int], texts: Iterable[Text]) -> None:
        """Take over names that a lost journal had given; what is known here stays. Raises JournalError."""
        self._write('INSERT OR IGNORE INTO tags ("index", name) VALUES (?, ?)', [(i, name) for name, i in tags.items()])
        self._write("INSERT OR IGNORE INTO texts VALUES (?, ?, ?)", list(texts))

    def tag_indices(self) -> dict[str, int]:
        """Return every name that ever was, with its index. Raises JournalError."""
        return dict(self._read('SELECT name, "index" FROM tags'))

    def tags(self) -> list[TagRecord]:
        """Return every tag that ever was, by index. Raises JournalError."""
        rows = self._read(f'SELECT {TAG_COLUMNS} FROM tags ORDER BY "index"')  # noqa: S608
        return [tag_of(row) for row in rows]

    def texts(self) -> list[Text]:
        """Return the dictionary of texts as (tag index, code, text). Raises JournalError."""
        return self._read("SELECT tag, code, text FROM texts ORDER BY tag, code")

    # Small state

    def get_state(self, key: str) -> Any:
        """Return the value under a key as JSON types, None if there is none. Raises JournalError."""
        rows = self._read("SELECT json FROM state WHERE key = ?", (key,))
        return msgspec.json.decode(rows[0][0]) if rows else None

    def put_state(self, key: str, value: Any) -> None:
        """Keep a small value under a key. Raises JournalError."""
        self.commit((), state={key: value})

    # Care

    @property
    def size(self) -> int:
        """Bytes in use; the file may be larger, what is free in it is used again. Raises JournalError."""
        (pages,), (free,), (size,) = (
            self._read(f"PRAGMA {what}")[0] for what in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def trim(self, now: int) -> Gap | None:
        """Drop events that are too old or do not fit, at most TRIM_ROWS_MAX at a time. Raises JournalError.

        Too old ones go only when every consumer is done with them. What does not fit goes in any case, and the Gap
        returned says what a consumer will miss; it has no id yet.
        """
        oldest = self._read("SELECT time FROM events ORDER BY seq LIMIT 1")
        horizon = now - int(self.options.journal_retention_days * NS_PER_DAY)
        if not oldest or (oldest[0][0] >= horizon and self.size <= self.options.journal_bytes_max):
            return None
        ((done,),) = self._read("SELECT coalesce(min(seq), ?) FROM cursors", (self._last,))
        rows = self._read("SELECT seq, time FROM events ORDER BY seq LIMIT ?", (TRIM_ROWS_MAX,))
        old = 0
        for seq, time in rows:
            if time >= horizon or seq > done:
                break
            old = seq
        if old:
            self._write("DELETE FROM events WHERE seq <= ?", [(old,)])
            return None
        if not rows or self.size <= self.options.journal_bytes_max:
            return None
        self._write("DELETE FROM events WHERE seq <= ?", [(rows[-1][0],)])
        missed = [(seq, time) for seq, time in rows if seq > done]
        if not missed:
            return None
        return Gap(
            id="",
            time=now,
            asset="",
            start=missed[0][1],
            end=missed[-1][1],
            reason="journal_full",
            count=len(missed),
        )

    def back_up(self) -> Path:
        """Copy the journal into the backup folder; may run in any thread. Raises JournalError."""
        return copies.back_up(self.path, self.backup_folder)

    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise JournalError(f"the journal {self.path} is not open")
        return self._connection

    def _read(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        try:
            return self._open_connection().execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise journal_error(error, self.path, "read") from error

    def _write(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        connection = self._open_connection()
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(sql, rows)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._undo(connection)
            raise journal_error(error, self.path, "write") from error

    def _undo(self, connection: sqlite3.Connection) -> None:
        with contextlib.suppress(sqlite3.Error):
            if connection.in_transaction:
                connection.execute("ROLLBACK")
