"""`Store`: the thread that owns ring and journal, and the way to it.

`offer` never waits. What was offered is committed in groups; `on_commit` then says what is durable. Trouble comes as
conditions through `on_condition`; both are called in the event loop's thread. `call` runs a bounded piece of work on
the store thread, `query` and `export` run beside it.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from edge import clock as wall
from edge.errors import StorageError
from edge.journal import Described, Journal, JournalError
from edge.ring import Answer, Ring, RingError, is_damage
from edge.store.counts import Counts
from edge.store.health import BACKUP, Health
from edge.store.intake import Intake, Text
from edge.store.options import StorageOptions
from edge.store.sql import ask, discard_exports, export_to, new_export
from edge.store.writer import CommitReport, Writer
from edge.tick import Condition, Tick
from edge.view import RingView
from plant.events import Event
from plant.instant import NS_PER_MS, NS_PER_S, Instant

T = TypeVar("T")

CALLS_MAX: Final = 1_000
"""Pieces of work that may wait for the store thread."""
QUERIES_MAX: Final = 8
"""Queries and exports that may run or wait; two run at a time."""
CARE_NS: Final = NS_PER_S
FIRST_BACKUP_NS: Final = 10 * NS_PER_S
TEXTS_BACKUP_NS: Final = 60 * NS_PER_S
"""New texts are backed up within this time."""
STOP_S: Final = 30.0
"""How long `stop` waits for the last commit."""


class Store:
    """Ring and journal of a running gateway. `start`, then `offer`; `stop` at the end.

    ring, journal: from `open_storage`; the store closes them. Until `start` the caller may use them itself.
    """

    def __init__(
        self,
        ring: Ring,
        journal: Journal,
        options: StorageOptions,
        on_commit: Callable[[CommitReport], None] | None = None,
        on_condition: Callable[[Condition], None] | None = None,
        clock: Callable[[], Instant] = wall.now,
    ) -> None:
        self.ring = ring
        self.journal = journal
        self.options = options
        self._on_commit = on_commit
        self._on_condition = on_condition
        self._clock = clock
        self._counts = Counts()
        self._intake = Intake(options.queue_bytes_max, self._counts)
        self._health = Health(self._tell)
        self._writer = Writer(ring, journal, options, self._intake, self._counts, self._health, clock)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._ended: Future[None] = Future()
        self._wake = threading.Condition()
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._cursors: dict[str, int] = {}
        self._stopping = False
        self._view: RingView | None = None
        self._queries = ThreadPoolExecutor(2, thread_name_prefix="andon-query")
        self._queries_running = 0
        self._backup: threading.Thread | None = None
        self._backup_error = ""
        self._backup_at = 0

    # From the event loop

    def start(self) -> None:
        """Start the thread; call it in the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="andon-store", daemon=True)
        self._thread.start()

    def offer(self, tick: Tick, fresh_texts: Sequence[Text] = (), state: Mapping[str, Any] | None = None) -> None:
        """Take what a step made; returns at once.

        fresh_texts: texts that got a code since the last call. state: small values that are kept in the same
        transaction as the events of this tick (JSON types or what msgspec encodes), the latest of each key wins.
        """
        was_waiting = self._intake.waiting
        if self._intake.offer(tick, fresh_texts, state or {}) and not was_waiting:
            with self._wake:
                self._wake.notify()

    async def call(self, work: Callable[[], T]) -> T:
        """Run a short piece of work with ring or journal on the store thread and return what it returns.

        Raises what it raises, StorageError if the store is stopped or too many wait.
        """
        future: Future[T] = Future()
        with self._wake:
            if self._stopping or self._thread is None or self._ended.done():
                raise StorageError("the store is not running")
            if len(self._calls) >= CALLS_MAX:
                raise StorageError("the store has too much to do: try again")
            self._calls.append((work, future))
            self._wake.notify()
        return await asyncio.wrap_future(future)

    async def flush(self) -> None:
        """Return when all that was offered so far is committed. Raises StorageError."""
        await self.call(self._commit)

    async def after(self, seq: int, limit: int) -> list[tuple[int, Event]]:
        """Return up to `limit` committed events with a number above `seq`, in order. Raises StorageError."""
        return await self.call(lambda: self.journal.after(seq, limit))

    async def cursor(self, name: str) -> int:
        """Return the number up to which a consumer is done, 0 before its first. Raises StorageError."""
        waiting = self._cursors.get(name)
        return waiting if waiting is not None else await self.call(lambda: self.journal.cursor(name))

    def advance(self, name: str, seq: int) -> None:
        """Remember that a consumer is done up to `seq`; written with the next commit."""
        self._cursors[name] = max(seq, self._cursors.get(name, 0))

    async def register_tags(self, descriptions: Sequence[Described]) -> dict[str, int]:
        """Return the index of each tag, for life, and show the new descriptions in SQL. Raises StorageError."""

        def register() -> dict[str, int]:
            indices = self.journal.register_tags(descriptions)
            self._writer.tell_names()
            self._backup_at = 0
            return indices

        return await self.call(register)

    async def query(self, sql: str, rows_max: int | None = None, timeout_s: float | None = None) -> Answer:
        """Run one read-only statement over ring and journal, beside the ingest. Raises StorageError.

        Above the bounds of the options the options hold.
        """
        rows = min(rows_max or self.options.query_rows_max, self.options.query_rows_max)
        seconds = min(timeout_s or self.options.query_timeout_s, self.options.query_timeout_s)
        return await self._beside(lambda: ask(self.ring, self.journal.path, sql, rows, seconds))

    async def export(self, start: int, end: int, timeout_s: float = 600.0) -> Path:
        """Write the readings of [start, end) (ns UTC) to a new Parquet file; the caller takes it away.

        Raises StorageError. What nobody takes away within an hour is removed.
        """

        def work() -> Path:
            path = new_export(self.ring, self.options.free_bytes_min)
            export_to(self.ring, start, end, path, timeout_s)
            return path

        return await self._beside(work)

    def status(self) -> RingView:
        """Return the state as of the last commit or second."""
        view = self._view
        return self._writer.view() if view is None else view

    @property
    def dropped(self) -> int:
        """Readings that were dropped before they were stored, since the start."""
        return self._intake.dropped

    async def wait(self) -> None:
        """Return when the store has stopped. Raises what ended its thread, if that was an error."""
        await asyncio.shield(asyncio.wrap_future(self._ended))

    async def stop(self) -> None:
        """Commit what waits, close both stores, end the thread. Raises what ended the thread, if that was an error."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._queries.shutdown(wait=False, cancel_futures=True)
        if self._thread is None:
            self._writer.close()
            return
        await asyncio.wait_for(self.wait(), STOP_S)
        await asyncio.to_thread(self._thread.join)
        await asyncio.to_thread(self._queries.shutdown)

    async def _beside(self, work: Callable[[], T]) -> T:
        if self._queries_running >= QUERIES_MAX:
            raise StorageError(f"{QUERIES_MAX} queries are running already: try again")
        self._queries_running += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._queries, work)
        except RingError as error:
            if is_damage(error):
                await self._find_damage()
            raise
        finally:
            self._queries_running -= 1

    async def _find_damage(self) -> None:
        bad = await asyncio.get_running_loop().run_in_executor(self._queries, self.ring.find_damage)
        for first, why in bad:
            await self.call(lambda first=first, why=why: self._writer.set_aside(first, why))  # type: ignore[misc]

    # On the store thread

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            # Handed to whoever waits for the thread, not handled: an unknown error ends the gateway.
            self._ended.set_exception(error)
        else:
            self._ended.set_result(None)

    def _work(self) -> None:
        self._writer.open_ring()
        self._backup_at = self._clock().monotonic + FIRST_BACKUP_NS
        period = self.options.commit_period_ms * NS_PER_MS
        committed_at = self._clock().monotonic - period
        care_at = 0
        try:
            while not self._stopping:
                self._wait(committed_at + period, care_at)
                self._serve()
                now = self._clock()
                waiting = self._intake.waiting or self._cursors or self._writer.waiting
                if waiting and now.monotonic >= committed_at + period:
                    committed_at = now.monotonic
                    self._commit()
                if now.monotonic >= care_at:
                    care_at = now.monotonic + CARE_NS
                    self._care(now)
            # The first leaves counts and gaps of its own behind, the second takes them.
            self._commit(last=True)
            self._commit(last=True)
        finally:
            self._serve()
            if self._backup is not None:
                self._backup.join()
            self._writer.close()

    def _wait(self, commit_at: int, care_at: int) -> None:
        with self._wake:
            while not self._stopping and not self._calls:
                now = self._clock().monotonic
                until = min(commit_at, care_at) if self._intake.waiting else care_at
                if now >= until:
                    return
                self._wake.wait((until - now) / NS_PER_S)

    def _serve(self) -> None:
        while self._calls:
            work, future = self._calls.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(work())
            except BaseException as error:
                # The caller's error goes back to the caller.
                future.set_exception(error)

    def _commit(self, last: bool = False) -> None:
        report = self._writer.commit(last=last)
        self._write_cursors()
        self._view = self._writer.view()
        if report is not None and self._on_commit is not None:
            self._in_loop(self._on_commit, report)

    def _write_cursors(self) -> None:
        for name, seq in list(self._cursors.items()):
            try:
                self.journal.advance(name, seq)
            except JournalError:
                # The commit reports the journal's trouble; the number is written when it is over.
                return
            if self._cursors.get(name) == seq:
                del self._cursors[name]

    def _care(self, now: Instant) -> None:
        self._writer.care()
        self._view = self._writer.view()
        discard_exports(self.ring, now.utc)
        if self._backup is not None and not self._backup.is_alive():
            self._backup.join()
            self._backup = None
            self._health.put(BACKUP, self._backup_error)
        if self._writer.texts_changed:
            self._writer.texts_changed = False
            self._backup_at = min(self._backup_at, now.monotonic + TEXTS_BACKUP_NS)
        if self._backup is None and now.monotonic >= self._backup_at:
            self._backup_at = now.monotonic + int(self.options.journal_backup_minutes * 60 * NS_PER_S)
            self._backup = threading.Thread(target=self._back_up, name="andon-backup", daemon=True)
            self._backup.start()

    def _back_up(self) -> None:
        # In a thread of its own: copying the journal must not delay a commit.
        try:
            self.journal.back_up()
            self._backup_error = ""
        except JournalError as error:
            self._backup_error = str(error)

    def _tell(self, condition: Condition) -> None:
        if self._on_condition is not None:
            self._in_loop(self._on_condition, condition)

    def _in_loop(self, tell: Callable[[T], None], what: T) -> None:
        if self._loop is None or self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(tell, what)
