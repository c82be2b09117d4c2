"""The edge node: readings and alarms to Sparkplug hosts, rebirths at their request.

Puts the parts together: `session` knows the rules, `values`, `alarms` and `backlog` know what there is to say, the
connection carries it. One task says everything, so that births, data and history never interleave. Host applications
cannot write: nothing subscribes to DCMD, and a command other than a rebirth is refused and audited.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import numpy as np
import structlog
from numpy.typing import NDArray

from edge import clock
from edge.errors import StorageError
from edge.mqtt.link import Link
from edge.mqtt.wire import Closed, LinkEvent, Message, Opened, Received, Subscribed
from edge.outlets.connection import Connection
from edge.outlets.options import MqttOptions
from edge.outlets.sparkplug import columns, payload
from edge.outlets.sparkplug.alarms import AlarmMetrics, AlarmName
from edge.outlets.sparkplug.backlog import CHUNK_ROWS_MAX, STATE_KEY, Backlog, History
from edge.outlets.sparkplug.options import SparkplugOptions
from edge.outlets.sparkplug.payload import Unreadable
from edge.outlets.sparkplug.plan import NODE, Plan, alias_of
from edge.outlets.sparkplug.session import Session, Timed, in_order
from edge.outlets.sparkplug.values import Values
from edge.tick import Occurred, Tick
from edge.view import BrokerView
from plant.batch import GOOD, Batch
from plant.events import AlarmTransition, Audit
from plant.instant import NS_PER_MS, NS_PER_S, Instant
from plant.tags import Tag, TagTable
from plant.texts import Texts

METRICS_PER_MESSAGE_MAX: Final = 5_000
METRICS_PER_TURN: Final = 500
"""Metrics of a birth that are made before the loop may do something else."""
UNSURE_S: Final = 1.0
"""What was sent within this time before a connection broke is owed again."""
SILENT_KEEPALIVES: Final = 2.0
"""... and if the broker had fallen silent, within so many keep-alives."""
REBIRTH_PERIOD_S: Final = 1.0
"""Requests for a rebirth that come faster than this are answered by one."""
RETRY_S: Final = 2.0
COMMANDS_AUDITED_PER_S: Final = 1.0
ORIGIN: Final = "sparkplug"

log = structlog.get_logger(__name__)


class SparkplugNode:
    """A way out. `offer`, `committed`, `use`, `state` and `view` return at once; `run` owns the connection.

    broker: the section [mqtt]. alarm_names: every alarm that there may be. alarms_snapshot: the last transition of
    every alarm, at least of those not normal. submit: takes the audit record of a refused command.
    """

    def __init__(
        self,
        options: SparkplugOptions,
        broker: MqttOptions,
        *,
        group: str,
        gateway: str,
        table: TagTable,
        texts: Texts,
        history: History,
        alarm_names: Callable[[], Iterable[AlarmName]],
        alarms_snapshot: Callable[[], Iterable[AlarmTransition]],
        submit: Callable[[Occurred], None],
        now: Callable[[], Instant] = clock.now,
    ) -> None:
        self.options = options
        self._texts = texts
        self._history = history
        self._alarm_names = alarm_names
        self._alarms_snapshot = alarms_snapshot
        self._submit = submit
        self._now = now
        self.plan = Plan(table, options.assets)
        self.values = Values(self.plan)
        self._alarms = AlarmMetrics()
        self._backlog = Backlog()
        self.session = Session(options.group_id or group, options.edge_node_id or gateway, options.primary_host_id)
        self._broker = broker
        client_id = options.client_id or f"andon-{gateway}-sparkplug"
        self._connection = Connection(
            broker.model_copy(update={"enabled": options.enabled}),
            client_id,
            will=self.session.death,
            prepare=self._number_connection,
            on_events=self._on_events,
            watch=lambda _link, _now: None,
            now=now,
        )
        self._wake = asyncio.Event()
        self._birth_wanted = False
        self._birth_at = 0
        self._due = 0
        self._history_due = 0
        self._audit_due = 0
        self._known = False
        self._live = False
        self._denied = ""
        self._published: dict[str, int] = {}
        self._historical = 0
        self._commands_refused = 0
        self._births = 0

    # What the rest of the gateway calls.

    def offer(self, tick: Tick) -> None:
        """Take the result of a step: alarms leave now, readings with the next message of their device."""
        if not self.options.enabled:
            return
        self.values.note(tick.readings)
        if self.session.phase != "born":
            return  # the ring keeps what is owed
        if not self.values.queue(tick.kept):
            self._owe(UNSURE_S)
        for event in tick.events:
            if isinstance(event, AlarmTransition):
                self._birth_wanted = not self._alarms.put(event) or self._birth_wanted
                self._wake.set()

    def committed(self, next_seq: int) -> None:
        """Take the number that the next reading in the ring will get."""
        self._backlog.committed(self._now().monotonic, next_seq)

    def use(self, table: TagTable) -> None:
        """Take another tag table and alarm list: everything is born anew."""
        self.plan = Plan(table, self.options.assets)
        self.values.use(self.plan, table)
        self._birth_wanted = True
        self._wake.set()

    def state(self) -> dict[str, int | None] | None:
        """Return what the next run must know; None as long as we do not know what the last run knew."""
        if not self._known:
            return None
        start = self._backlog.start
        if start is None:
            start = self._backlog.position_before(self._now().monotonic - self._unsure_ns(UNSURE_S))
        return {"bd_seq": self.session.bd_seq, "position": start}

    def view(self) -> BrokerView:
        """Return what there is to say about the broker now."""
        connection = self._connection
        waits = f"waits for primary host {self.options.primary_host_id!r}" if self.session.waits_for_host else ""
        return BrokerView(
            state=connection.state,
            sentence=connection.sentence or self._denied or waits,
            address=self._broker.address,
            published=sum(self._published.values()),
            dropped=connection.inbound_dropped,
            unacknowledged=0,
        )

    def counters(self) -> dict[str, int]:
        """Return what was counted since the start; the last word of a name is what was counted."""
        kinds = {f"published_{kind.lower()}_messages": n for kind, n in sorted(self._published.items())}
        return kinds | {
            "offered_readings": self.values.offered,
            "unchanged_readings": self.values.unchanged,
            "historical_readings": self._historical,
            "skipped_historical_readings": self._backlog.skipped,
            "refused_commands": self._commands_refused,
            "births": self._births,
        }

    async def run(self) -> None:
        """Keep the hosts up to date until cancelled."""
        if not self.options.enabled:
            await asyncio.Event().wait()
        await self._remember()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._connection.run(self.session.death), name="sparkplug connection")
            tasks.create_task(self._speak(), name="sparkplug messages")

    # The connection

    async def _remember(self) -> None:
        """Continue the numbers of the last run."""
        while not self._known:
            try:
                state = await self._history.recall(STATE_KEY)
                position = None if state is None else state["position"]
                self._backlog.start = await self._history.position() if position is None else position
                if state is not None:
                    self.session.resume(state["bd_seq"])
                self._known = True
            except StorageError as error:
                self._connection.waits(f"the journal does not say which bdSeq was last: {error}")
                await asyncio.sleep(RETRY_S)

    async def _number_connection(self) -> None:
        """Give the next CONNECT a number that no later run will use again, even if this one is killed."""
        self.session.number_connection()
        try:
            await self._history.keep(STATE_KEY, self.state() or {})
        except StorageError as error:
            log.warning("sparkplug cannot keep bdSeq", reason=str(error))

    def _on_events(self, events: Sequence[LinkEvent]) -> None:
        for event in events:
            match event:
                case Opened():
                    link = self._connection.ready
                    if link is not None:
                        link.subscribe(self.session.opened(), qos=1)
                case Subscribed():
                    self.session.subscribed()
                    self._denied = f"no commands or states from hosts: {event.why}" if event.why else ""
                    self._birth_wanted = True
                case Received():
                    self._on_received(event)
                case Closed():
                    silent = self._broker.keepalive_s * SILENT_KEEPALIVES if event.silent else 0.0
                    self._stop_live(UNSURE_S + silent)
                    self.session.closed(attempted=event.attempted)
                case _:
                    pass
        self._wake.set()

    def _on_received(self, message: Received) -> None:
        try:
            if message.topic == self.session.state_topic:
                if self.session.host_says(payload.host_state(message.payload)):
                    self._leave()
            elif message.topic == self.session.command_topic and not message.retain:
                asked = payload.command(message.payload)
                if asked.rebirth:
                    self._birth_wanted = True
                if asked.others:
                    self._refuse(", ".join(asked.others[:10]))
        except Unreadable as error:
            self._refuse(str(error))

    def _refuse(self, what: str) -> None:
        self._commands_refused += 1
        now = self._now()
        if now.monotonic < self._audit_due:
            return
        self._audit_due = now.monotonic + int(NS_PER_S / COMMANDS_AUDITED_PER_S)
        audit = Audit(
            id="", time=now.utc, asset="", user=ORIGIN, action="command", outcome="refused", detail={"metrics": what}
        )
        self._submit(Occurred(event=audit))

    def _leave(self) -> None:
        """The primary host is gone: say so, disconnect, connect anew and wait."""
        link = self._connection.ready
        if link is not None:
            log.info("sparkplug primary host offline", host=self.options.primary_host_id)
            self._stop_live(UNSURE_S)
            self._send(link, [self.session.death()], "NDEATH")
            link.goodbye()

    def _stop_live(self, unsure_s: float) -> None:
        if self._live:
            self._owe(unsure_s)
        self._live = False
        self.values.drop()

    def _owe(self, unsure_s: float) -> None:
        self._backlog.lost(self._now().monotonic - self._unsure_ns(unsure_s))

    def _unsure_ns(self, unsure_s: float) -> int:
        return int(unsure_s * NS_PER_S) + self.options.publish_period_ms * NS_PER_MS

    # The task that speaks

    async def _speak(self) -> None:
        while True:
            wait_s = max(self._next_due() - self._now().monotonic, 0) / NS_PER_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            self._wake.clear()
            link = self._connection.ready
            if link is None or link.congested:
                self._due = max(self._due, self._now().monotonic + 10 * NS_PER_MS)
                continue
            now = self._now().monotonic
            if self._birth_wanted and self.session.may_be_born and now >= self._birth_at:
                await self._be_born(link)
            if self.session.phase == "born" and not self._birth_wanted:
                self._tell_alarms(link)
                if now >= self._due:
                    self._due = now + self.options.publish_period_ms * NS_PER_MS
                    await self._tell_values(link)
                if self._backlog.start is not None and now >= self._history_due:
                    await self._tell_history(link)

    def _next_due(self) -> int:
        due = self._due
        if self._birth_wanted and self.session.may_be_born:
            due = min(due, self._birth_at)
        if self._backlog.start is not None and self.session.phase == "born":
            due = min(due, self._history_due)
        return due

    def _still(self, link: Link) -> bool:
        """Tell whether what has been begun on this link may go on."""
        return link is self._connection.ready and self.session.phase == "born"

    def _send(self, link: Link, messages: list[Message], kind: str) -> None:
        self._published[kind] = self._published.get(kind, 0) + len(messages)
        link.send(messages)

    async def _be_born(self, link: Link) -> None:
        """NBIRTH, then DBIRTH of every device that lives; while something is owed, of all, so that it can be told."""
        self._birth_wanted = False
        now = self._now()
        self._birth_at = now.monotonic + int(REBIRTH_PERIOD_S * NS_PER_S)
        now_ms = now.utc // NS_PER_MS
        self._births += 1
        gone = self.session.born_devices - {device.id for device in self.plan.devices}
        for device in sorted(gone):
            self._send(link, [self.session.ddeath(device, now_ms)], "DDEATH")
        before = self.values.take()
        self._live = True
        metrics = [
            *self._alarms.birth(self._alarm_names(), self._alarms_snapshot(), now_ms),
            *self._metrics(self.plan.node_tags, now_ms),
        ]
        self._send(link, [self.session.nbirth(metrics, now_ms)], "NBIRTH")
        plan = self.plan
        for number in self._living(everything=self._backlog.start is not None):
            if not await self._dbirth(link, plan, number) or plan is not self.plan:
                self.values.queue(before)
                return
        if len(before):
            self._tell(link, before, historical=True)

    def _living(self, *, everything: bool) -> list[int]:
        if everything:
            return list(range(len(self.plan.devices)))
        return [int(number) for number in np.flatnonzero(self.plan.alive(self.values.good))]

    async def _dbirth(self, link: Link, plan: Plan, number: int) -> bool:
        device = plan.devices[number]
        now_ms = self._now().utc // NS_PER_MS
        metrics: list[Timed] = []
        for first in range(0, len(device.tags), METRICS_PER_TURN):
            if plan is not self.plan:
                return False
            metrics += self._metrics(device.tags[first : first + METRICS_PER_TURN], now_ms)
            await asyncio.sleep(0)
        if not self._still(link):
            return False
        self._send(link, [self.session.dbirth(device.id, metrics, now_ms)], "DBIRTH")
        return True

    def _metrics(self, tags: Sequence[Tag], now_ms: int) -> Iterator[Timed]:
        values = self.values
        for tag in tags:
            i = tag.index
            seen, value = bool(values.seen[i]), float(values.value[i])
            time_ms = int(values.time[i]) // NS_PER_MS if seen else now_ms
            shown = self._texts.text(i, int(value)) if tag.text and np.isfinite(value) else value
            fixed = self.plan.fixed(tag, int(values.quality[i]))
            said = shown if seen and not (tag.text and isinstance(shown, float)) else None
            yield time_ms, payload.metric(fixed, time_ms, self.plan.datatype(tag), said)
        values.told(np.array([tag.index for tag in tags], np.intp))

    # Data

    def _tell_alarms(self, link: Link) -> None:
        changes = self._alarms.changes()
        if changes:
            message = self.session.ndata(in_order(changes), self._now().utc // NS_PER_MS)
            self._send(link, [message], "NDATA")

    async def _tell_values(self, link: Link) -> None:
        """Births and deaths of devices as their data come and go, then what changed."""
        rows = self.values.take()
        born = self.session.born_devices
        if self._backlog.start is None:
            alive = self.plan.alive(self.values.good)
            plan = self.plan
            now_ms = self._now().utc // NS_PER_MS
            fresh = np.zeros(len(plan.devices) + 1, np.bool_)
            for number, device in enumerate(plan.devices):
                if alive[number] and device.id not in born:
                    fresh[number] = True
                    if not await self._dbirth(link, plan, number):
                        self.values.queue(rows)
                        return
                elif not alive[number] and device.id in born:
                    self._send(link, [self.session.ddeath(device.id, now_ms)], "DDEATH")
            # The birth told the newest; what was before it is history.
            at_birth = fresh[plan.device_of[rows.tag]]
            if at_birth.any():
                self._tell(link, rows.select(at_birth), historical=True)
                rows = rows.select(~at_birth)
        if len(rows):
            self._tell(link, rows, historical=False)

    def _tell(self, link: Link, rows: Batch, *, historical: bool) -> None:
        """Publish rows, one message per device, or a few where they are many."""
        plan, rows = self.plan, self.values.published(rows)
        if historical:
            states = rows.quality != GOOD
            self._historical += len(rows)
        else:
            rows, states = self.values.changes(rows)
        device = plan.device_of[rows.tag]
        ids = [plan.devices[d].id for d in range(len(plan.devices))]
        living = np.array([name in self.session.born_devices for name in ids] + [True], np.bool_)
        order = np.lexsort((rows.time, device))
        order = order[living[device[order]]]
        if not len(order):
            return
        rows, states, device = rows.select(order), states[order], device[order]
        data, bounds = self._encode(rows, states, historical=historical)
        cuts = np.flatnonzero(np.diff(device)) + 1
        now_ms = self._now().utc // NS_PER_MS
        messages = []
        for start, end in zip([0, *cuts.tolist()], [*cuts.tolist(), len(rows)], strict=True):
            number = int(device[start])
            for first in range(start, end, METRICS_PER_MESSAGE_MAX):
                last = min(first + METRICS_PER_MESSAGE_MAX, end)
                part = [data[bounds[first] : bounds[last]]]
                if number == NODE:
                    messages.append(self.session.ndata(part, now_ms))
                else:
                    messages.append(self.session.ddata(ids[number], part, now_ms))
        self._send(link, messages, "DATA")

    def _encode(self, rows: Batch, states: NDArray[np.bool_], *, historical: bool) -> tuple[bytes, NDArray[np.intp]]:
        alias = rows.tag.astype(np.uint64) + np.uint64(alias_of(0))
        text_rows = np.flatnonzero(self.plan.text[rows.tag] & np.isfinite(rows.value)).tolist()
        texts = [self._texts.text(int(rows.tag[i]), int(rows.value[i])) or "" for i in text_rows]
        return columns.encode(rows, alias, states, historical=historical, text_rows=text_rows, texts=texts)

    # History

    async def _tell_history(self, link: Link) -> None:
        """Publish the next stretch of what is owed; the first time, find its end, where telling live began."""
        backlog = self._backlog
        if not self.options.history:
            backlog.forgive()
        pace = CHUNK_ROWS_MAX * NS_PER_S // self.options.history_rows_per_s
        self._history_due = self._now().monotonic + pace
        try:
            if backlog.end is None:
                position = await self._history.position()
                if self._still(link):
                    backlog.close(position, self.options.history_rows_max)
                    self._history_due = 0
                return
            start, end = backlog.start or 0, backlog.end
            first, rows = await self._history.read(start, min(CHUNK_ROWS_MAX, end - start))
        except StorageError as error:
            log.warning("sparkplug cannot read the ring", reason=str(error))
            self._history_due = self._now().monotonic + int(RETRY_S * NS_PER_S)
            return
        if not self._still(link) or self._birth_wanted or backlog.end != end:
            return
        backlog.skipped += min(first, end) - start
        backlog.advance(first + len(rows) if len(rows) else end)
        rows = self.values.published(rows.select(np.arange(len(rows)) < end - first))
        if len(rows):
            self._tell(link, rows, historical=True)
