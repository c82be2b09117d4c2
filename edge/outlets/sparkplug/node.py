"""The edge node: readings and alarms to Sparkplug hosts, rebirths at their request.

Puts the parts together: the connection carries, `session` knows the rules, `speaker` says what there is to say. Hosts
cannot write: nothing subscribes to DCMD, and a command other than a rebirth is refused and audited.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import structlog

from edge import clock
from edge.errors import StorageError
from edge.mqtt.wire import Closed, LinkEvent, Opened, Received, Subscribed
from edge.outlets.connection import Connection
from edge.outlets.options import MqttOptions
from edge.outlets.sparkplug import payload
from edge.outlets.sparkplug.alarms import AlarmName
from edge.outlets.sparkplug.backlog import STATE_KEY, History
from edge.outlets.sparkplug.options import SparkplugOptions
from edge.outlets.sparkplug.payload import Unreadable
from edge.outlets.sparkplug.plan import Plan
from edge.outlets.sparkplug.session import Session
from edge.outlets.sparkplug.speaker import RETRY_S, Speaker
from edge.tick import Occurred, Tick
from edge.view import BrokerView
from plant.events import AlarmTransition, Audit
from plant.instant import NS_PER_MS, NS_PER_S, Instant
from plant.tags import TagTable
from plant.texts import Texts

UNSURE_S: Final = 1.0
"""What was sent within this time before a connection broke is owed again."""
SILENT_KEEPALIVES: Final = 2.0
"""... and if the broker had fallen silent, within so many keep-alives."""
AUDIT_PERIOD_S: Final = 1.0
"""Refused commands that come faster than this are counted, not audited one by one."""
NAMED_MAX: Final = 10
USER: Final = "sparkplug"

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
        self._broker = broker
        self._history = history
        self._submit = submit
        self._now = now
        self.session = Session(options.group_id or group, options.edge_node_id or gateway, options.primary_host_id)
        self._connection = Connection(
            broker.model_copy(update={"enabled": options.enabled}),
            options.client_id or f"andon-{gateway}-sparkplug",
            will=self.session.death,
            prepare=self._number_connection,
            on_events=self._on_events,
            watch=lambda _link, _now: None,
            now=now,
        )
        self.speaker = Speaker(
            options,
            Plan(table, options.assets),
            texts,
            self.session,
            history,
            alarm_names,
            alarms_snapshot,
            lambda: self._connection.ready,
            now,
        )
        self._known = False
        self._denied = ""
        self._audit_due = 0
        self._commands_refused = 0

    # What the rest of the gateway calls.

    def offer(self, tick: Tick) -> None:
        """Take the result of a step: alarms leave now, readings with the next message of their device."""
        if not self.options.enabled:
            return
        speaker = self.speaker
        speaker.values.note(tick.readings)
        if self.session.phase != "born":
            return  # the ring keeps what is owed
        if not speaker.values.queue(tick.kept, tick.history):
            self._owe(UNSURE_S)
        for event in tick.events:
            if isinstance(event, AlarmTransition):
                if speaker.alarms.put(event):
                    speaker.wake()
                else:
                    speaker.want_birth()

    def committed(self, next_seq: int) -> None:
        """Take the number that the next reading in the ring will get."""
        self.speaker.backlog.committed(self._now().monotonic, next_seq)

    def use(self, table: TagTable) -> None:
        """Take another tag table and alarm list: everything is born anew."""
        speaker = self.speaker
        speaker.plan = Plan(table, self.options.assets)
        speaker.values.use(speaker.plan, table)
        speaker.want_birth()

    def state(self) -> dict[str, int | None] | None:
        """Return what the next run must know; None as long as we do not know what the last run knew."""
        if not self._known:
            return None
        told = self.speaker.backlog.told_until(self._now().monotonic - self._unsure_ns(UNSURE_S))
        return {"bd_seq": self.session.bd_seq, "position": told}

    def view(self) -> BrokerView:
        """Return what there is to say about the broker now."""
        connection = self._connection
        waits = f"waits for primary host {self.options.primary_host_id!r}" if self.session.waits_for_host else ""
        return BrokerView(
            state=connection.state,
            sentence=connection.sentence or self._denied or waits,
            address=self._broker.address,
            published=self.speaker.published.total(),
            dropped=connection.inbound_dropped,
            unacknowledged=0,
        )

    def counters(self) -> dict[str, int]:
        """Return what was counted since the start; the last word of a name is what was counted."""
        speaker = self.speaker
        kinds = {f"published_{kind.lower()}_messages": n for kind, n in sorted(speaker.published.items())}
        return kinds | {
            "offered_readings": speaker.values.offered,
            "unchanged_readings": speaker.values.unchanged,
            "historical_readings": speaker.historical,
            "skipped_historical_readings": speaker.backlog.skipped,
            "refused_commands": self._commands_refused,
            "reconnects": self._connection.reconnects,
        }

    async def run(self) -> None:
        """Keep the hosts up to date until cancelled."""
        if not self.options.enabled:
            await asyncio.Event().wait()
        await self._remember()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._connection.run(self.session.death), name="sparkplug connection")
            tasks.create_task(self.speaker.run(), name="sparkplug messages")

    # The numbers of an earlier run

    async def _remember(self) -> None:
        while not self._known:
            try:
                state = await self._history.recall(STATE_KEY)
                position = None if state is None else state["position"]
                self.speaker.backlog.start = await self._history.position() if position is None else position
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

    # What the connection tells

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
                    self.speaker.want_birth()
                case Received():
                    self._on_received(event)
                case Closed():
                    silent = self._broker.keepalive_s * SILENT_KEEPALIVES if event.silent else 0.0
                    self._stop_live(UNSURE_S + silent)
                    self.session.closed(attempted=event.attempted)
                case _:
                    pass

    def _on_received(self, message: Received) -> None:
        try:
            if message.topic == self.session.state_topic:
                if self.session.host_died(payload.host_state(message.payload)):
                    self._leave()
                elif self.session.may_be_born:
                    self.speaker.wake()
            elif message.topic == self.session.command_topic and not message.retain:
                asked = payload.command(message.payload)
                if asked.rebirth:
                    self.speaker.want_birth()
                if asked.others:
                    self._refuse(", ".join(asked.others[:NAMED_MAX]))
        except Unreadable as error:
            self._refuse(str(error))

    def _refuse(self, what: str) -> None:
        self._commands_refused += 1
        now = self._now()
        if now.monotonic < self._audit_due:
            return
        self._audit_due = now.monotonic + int(AUDIT_PERIOD_S * NS_PER_S)
        audit = Audit(
            id="", time=now.utc, asset="", user=USER, action="command", outcome="refused", detail={"metrics": what}
        )
        self._submit(Occurred(event=audit))

    def _leave(self) -> None:
        """The primary host is gone: say so, disconnect, connect anew and wait."""
        link = self._connection.ready
        if link is not None:
            log.info("sparkplug primary host offline", host=self.options.primary_host_id)
            self._stop_live(UNSURE_S)
            self.session.leave()
            link.send([self.session.death()])
            link.goodbye()

    def _stop_live(self, unsure_s: float) -> None:
        if self.session.phase == "born":
            self._owe(unsure_s)
        self.speaker.values.drop()

    def _owe(self, unsure_s: float) -> None:
        self.speaker.backlog.lost(self._now().monotonic - self._unsure_ns(unsure_s))

    def _unsure_ns(self, unsure_s: float) -> int:
        return int(unsure_s * NS_PER_S) + self.options.publish_period_ms * NS_PER_MS
