"""What the edge node says and when: births, deaths, data, alarms, history.

One task says everything, so that births, data and history never interleave. Knows nothing of the connection but the
link to speak on; `session` has the rules.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import numpy as np
import structlog
from numpy.typing import NDArray

from edge.errors import StorageError
from edge.mqtt.link import Link
from edge.mqtt.wire import Message
from edge.outlets.sparkplug import columns, payload
from edge.outlets.sparkplug.alarms import AlarmMetrics, AlarmName
from edge.outlets.sparkplug.backlog import CHUNK_ROWS_MAX, Backlog, History
from edge.outlets.sparkplug.options import SparkplugOptions
from edge.outlets.sparkplug.plan import NODE, Plan, alias_of
from edge.outlets.sparkplug.session import Session, Timed, in_order
from edge.outlets.sparkplug.values import Values
from plant.batch import GOOD, Batch
from plant.events import AlarmTransition
from plant.instant import NS_PER_MS, NS_PER_S, Instant
from plant.tags import Tag
from plant.texts import Texts

METRICS_PER_MESSAGE_MAX: Final = 5_000
ROWS_PER_TURN: Final = 10_000
"""Readings that become messages before the loop may do something else."""
METRICS_PER_TURN: Final = 500
"""Metrics of a birth that are made before the loop may do something else."""
REBIRTH_PERIOD_S: Final = 1.0
"""Requests for a rebirth that come faster than this are answered by one."""
RETRY_S: Final = 2.0
CONGESTED_NS: Final = 10 * NS_PER_MS
"""How long a link that takes nothing is left alone."""

log = structlog.get_logger(__name__)


class Speaker:
    """Holds what is to be said. link: returns the link while the broker accepts messages on it."""

    def __init__(
        self,
        options: SparkplugOptions,
        plan: Plan,
        texts: Texts,
        session: Session,
        history: History,
        alarm_names: Callable[[], Iterable[AlarmName]],
        alarms_snapshot: Callable[[], Iterable[AlarmTransition]],
        link: Callable[[], Link | None],
        now: Callable[[], Instant],
    ) -> None:
        self._options = options
        self._texts = texts
        self._session = session
        self._history = history
        self._alarm_names = alarm_names
        self._alarms_snapshot = alarms_snapshot
        self._link = link
        self._now = now
        self.plan = plan
        self.values = Values(plan)
        self.alarms = AlarmMetrics()
        self.backlog = Backlog()
        self.published: Counter[str] = Counter()
        self.historical = 0
        self._awake = asyncio.Event()
        self._birth_wanted = False
        self._birth_at = 0
        self._due = 0
        self._history_due = 0

    def wake(self) -> None:
        """Look now whether there is something to say."""
        self._awake.set()

    def want_birth(self) -> None:
        """Say everything anew, as soon as that is allowed. No data follow before."""
        self._birth_wanted = True
        self._awake.set()

    async def run(self) -> None:
        """Speak until cancelled."""
        while True:
            due = self._next_due()
            wait_s = None if due is None else max(due - self._now().monotonic, 0) / NS_PER_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._awake.wait()
            self._awake.clear()
            link = self._link()
            now = self._now().monotonic
            if link is None or link.congested:
                self._due = max(self._due, now + CONGESTED_NS)
                self._history_due = max(self._history_due, now + CONGESTED_NS)
                self._birth_at = max(self._birth_at, now + CONGESTED_NS)
                continue
            if self._birth_wanted and self._session.may_be_born and now >= self._birth_at:
                await self._be_born(link)
            if self._may_tell(link):
                self._tell_alarms(link)
                if now >= self._due:
                    self._due = now + self._options.publish_period_ms * NS_PER_MS
                    await self._tell_values(link)
            if self.backlog.start is not None and now >= self._history_due and self._may_tell(link):
                await self._tell_history(link)

    def _next_due(self) -> int | None:
        """Return when there may be something to say (monotonic ns), None if somebody must wake us for it."""
        if self._link() is None or not self._session.may_be_born:
            return None
        if self._birth_wanted:
            return self._birth_at
        if self._session.phase != "born":
            return None
        return self._due if self.backlog.start is None else min(self._due, self._history_due)

    def _still(self, link: Link) -> bool:
        """Tell whether what has been begun on this link may go on."""
        return link is self._link() and self._session.phase == "born"

    def _may_tell(self, link: Link) -> bool:
        return self._still(link) and not self._birth_wanted

    def _send(self, link: Link, kind: str, messages: list[Message]) -> None:
        self.published[kind] += len(messages)
        link.send(messages)

    def _now_ms(self) -> int:
        return self._now().utc // NS_PER_MS

    # Births and deaths

    async def _be_born(self, link: Link) -> None:
        """NBIRTH, then DBIRTH of every device that lives; while something is owed, of all, so that it can be told."""
        self._birth_wanted = False
        self._birth_at = self._now().monotonic + int(REBIRTH_PERIOD_S * NS_PER_S)
        plan = self.plan
        for device in sorted(self._session.born_devices - {device.id for device in plan.devices}):
            self._send(link, "DDEATH", [self._session.ddeath(device, self._now_ms())])
        before = self.values.take()
        now_ms = self._now_ms()
        metrics = [
            *self.alarms.birth(self._alarm_names(), self._alarms_snapshot(), now_ms),
            *self._metrics(plan, plan.node_tags, now_ms),
        ]
        self._send(link, "NBIRTH", [self._session.nbirth(metrics, now_ms)])
        alive = plan.alive(self.values.good)
        for number in range(len(plan.devices)):
            if (alive[number] or self.backlog.start is not None) and not await self._dbirth(link, plan, number):
                self.values.queue(before)
                return
        # What waited is older than what the births told.
        self._tell(link, before, historical=True)

    async def _dbirth(self, link: Link, plan: Plan, number: int) -> bool:
        """Let a device be born; False if the link or the plan has gone meanwhile."""
        device = plan.devices[number]
        now_ms = self._now_ms()
        metrics: list[Timed] = []
        for first in range(0, len(device.tags), METRICS_PER_TURN):
            metrics += self._metrics(plan, device.tags[first : first + METRICS_PER_TURN], now_ms)
            await asyncio.sleep(0)
            if plan is not self.plan or not self._still(link):
                return False
        self._send(link, "DBIRTH", [self._session.dbirth(device.id, metrics, now_ms)])
        return True

    def _metrics(self, plan: Plan, tags: Sequence[Tag], now_ms: int) -> Iterator[Timed]:
        values = self.values
        for tag in tags:
            i = tag.index
            time_ms = int(values.time[i]) // NS_PER_MS if values.seen[i] else now_ms
            value: payload.Value = float(values.value[i])  # NaN where nothing is known
            if tag.text:
                value = self._texts.text(i, int(values.value[i])) if np.isfinite(values.value[i]) else None
            fixed = plan.fixed(tag, int(values.quality[i]))
            yield time_ms, payload.metric(fixed, time_ms, plan.datatype(tag), value)
        values.told(np.array([tag.index for tag in tags], np.intp))

    # Data

    def _tell_alarms(self, link: Link) -> None:
        changes = self.alarms.changes()
        if changes:
            self._send(link, "NDATA", [self._session.ndata(in_order(changes), self._now_ms())])

    async def _tell_values(self, link: Link) -> None:
        """Births and deaths of devices as their data come and go, then what changed."""
        rows, plan = self.values.take(), self.plan
        if self.backlog.start is None:
            born, alive = self._session.born_devices, plan.alive(self.values.good)
            fresh = np.zeros(len(plan.devices) + 1, np.bool_)  # the last is the node's own
            for number, device in enumerate(plan.devices):
                if alive[number] and device.id not in born:
                    fresh[number] = True
                    if not await self._dbirth(link, plan, number):
                        self.values.queue(rows)
                        return
                elif not alive[number] and device.id in born:
                    self._send(link, "DDEATH", [self._session.ddeath(device.id, self._now_ms())])
            # The birth told the newest; what was before it is history.
            before = fresh[plan.device_of[rows.tag]]
            self._tell(link, rows.select(before), historical=True)
            rows = rows.select(~before)
        await self._tell_in_turns(link, rows)
        if self._may_tell(link):
            self._tell(link, self.values.take_past(), historical=True)

    async def _tell_in_turns(self, link: Link, rows: Batch) -> None:
        for first in range(0, len(rows), ROWS_PER_TURN):
            self._tell(link, rows.select(np.arange(first, min(first + ROWS_PER_TURN, len(rows)))), historical=False)
            await asyncio.sleep(0)
            if not self._may_tell(link):
                # A lost link owes the rest anyhow; a birth that is wanted comes first.
                if self._still(link):
                    self.values.queue(rows.select(np.arange(min(first + ROWS_PER_TURN, len(rows)), len(rows))))
                return

    def _tell(self, link: Link, rows: Batch, *, historical: bool) -> None:
        """Publish rows of devices that are born: one message per device, or a few where they are many."""
        plan, rows = self.plan, self.values.published(rows)
        if historical:
            states = rows.quality & 0xC0 != GOOD
            self.historical += len(rows)
        else:
            rows, states = self.values.changes(rows)
        device = plan.device_of[rows.tag]
        living = np.array([d.id in self._session.born_devices for d in plan.devices] + [True], np.bool_)
        order = np.lexsort((rows.time, device))
        order = order[living[device[order]]]
        if not len(order):
            return
        rows, states, device = rows.select(order), states[order], device[order]
        data, bounds = self._encode(rows, states, historical=historical)
        cuts = (np.flatnonzero(np.diff(device)) + 1).tolist()
        now_ms = self._now_ms()
        for start, end in zip([0, *cuts], [*cuts, len(rows)], strict=True):
            number = int(device[start])
            for first in range(start, end, METRICS_PER_MESSAGE_MAX):
                last = min(first + METRICS_PER_MESSAGE_MAX, end)
                part = [data[bounds[first] : bounds[last]]]
                if number == NODE:
                    self._send(link, "NDATA", [self._session.ndata(part, now_ms)])
                else:
                    self._send(link, "DDATA", [self._session.ddata(plan.devices[number].id, part, now_ms)])

    def _encode(self, rows: Batch, states: NDArray[np.bool_], *, historical: bool) -> tuple[bytes, NDArray[np.intp]]:
        alias = rows.tag.astype(np.uint64) + np.uint64(alias_of(0))
        text_rows = np.flatnonzero(self.plan.text[rows.tag] & np.isfinite(rows.value)).tolist()
        texts = [self._texts.text(int(rows.tag[i]), int(rows.value[i])) or "" for i in text_rows]
        return columns.encode(rows, alias, states, historical=historical, text_rows=text_rows, texts=texts)

    # History

    async def _tell_history(self, link: Link) -> None:
        """Publish the next stretch of what is owed; the first time, find its end, where telling live began."""
        backlog, options = self.backlog, self._options
        if not options.history:
            backlog.forgive()
            return
        self._history_due = self._now().monotonic + CHUNK_ROWS_MAX * NS_PER_S // options.history_rows_per_s
        try:
            if backlog.end is None:
                position = await self._history.position()
                if self._may_tell(link):
                    backlog.close(self._now().monotonic, position, options.history_rows_max)
                    self._history_due = 0
                return
            start, end = backlog.start or 0, backlog.end
            first, rows = await self._history.read(start, min(CHUNK_ROWS_MAX, end - start))
        except StorageError as error:
            log.warning("sparkplug cannot read the ring", reason=str(error))
            self._history_due = self._now().monotonic + int(RETRY_S * NS_PER_S)
            return
        if not self._may_tell(link) or (backlog.start, backlog.end) != (start, end):
            return
        backlog.skipped += min(first, end) - start
        backlog.advance(self._now().monotonic, first + len(rows) if len(rows) else end)
        self._tell(link, rows.select(np.arange(len(rows)) < end - first), historical=True)
