"""The MQTT outlet: alarms, events, live values and status to SCADA, commands from it.

Puts the parts together and owns no protocol: `connection` keeps the broker reachable, `outbox` bounds what is on its
way, `alarms` decides what may not be lost, `live` what may, `commands` reads what comes in. Everything here runs in
the event loop's thread; only the link has a thread of its own.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import structlog

from edge import clock
from edge.errors import Disconnected, StorageError
from edge.mqtt.link import Link
from edge.mqtt.wire import Acknowledged, Closed, LinkEvent, Message, Opened, Received, Subscribed
from edge.outlets import payloads
from edge.outlets.alarms import AlarmStates, EventLog, EventStream
from edge.outlets.commands import CommandDesk
from edge.outlets.connection import Connection
from edge.outlets.live import LiveValues
from edge.outlets.options import MqttOptions
from edge.outlets.outbox import Outbox
from edge.outlets.topics import Topics
from edge.tick import Command, Reply, Tick
from edge.view import BrokerView
from plant.events import AlarmTransition
from plant.instant import NS_PER_S, Instant
from plant.tags import TagTable
from plant.texts import Texts

CURSOR: Final = "mqtt"
"""The outlet's name as a consumer of the journal."""
SNAPSHOT_ALARMS_MAX: Final = 200
"""Alarms in one part of a snapshot."""
LEFTOVER_S: Final = 5.0
"""How long after the last retained alarm of ours the broker is still listened to for more."""
JOURNAL_RETRY_S: Final = 2.0

log = structlog.get_logger(__name__)


class MqttOutlet:
    """A way out that also takes commands. `offer`, `committed` and `view` return at once; `run` owns the connection.

    event_log: the journal. alarms_snapshot: the last transition of every alarm, at least of those not normal.
    submit: takes a command that arrived; its reply comes back in a tick with origin "mqtt".
    """

    def __init__(
        self,
        options: MqttOptions,
        *,
        enterprise: str,
        site: str,
        gateway: str,
        table: TagTable,
        texts: Texts,
        event_log: EventLog,
        alarms_snapshot: Callable[[], Iterable[AlarmTransition]],
        submit: Callable[[Command], None],
        version: str = "",
        now: Callable[[], Instant] = clock.now,
    ) -> None:
        self.options = options
        self.topics = Topics(options.root, enterprise, site, gateway)
        self._gateway = gateway
        self._event_log = event_log
        self._alarms_snapshot = alarms_snapshot
        self._version = version
        self._now = now
        self._states = AlarmStates(self.topics)
        self._stream = EventStream(frozenset(options.event_kinds), options.events_queue_max)
        self._outbox = Outbox(gateway, self.topics, self._states, self._stream)
        self._live = LiveValues(gateway, self.topics, table, texts, int(options.live_refresh_s * NS_PER_S))
        self._desk = CommandDesk(
            gateway,
            self.topics,
            enabled=options.commands_enabled,
            size_max=options.command_size_max,
            submit=submit,
            take_snapshot=self._take_snapshot,
        )
        self._connection = Connection(
            options,
            options.client_id or f"andon-{gateway}",
            will=lambda: self._status(online=False, reason="connection lost"),
            on_events=self._on_events,
            watch=self._watch,
            now=now,
        )
        self._behind = asyncio.Event()
        self._advanced = 0
        self._commands_denied = ""
        self._denied = ""
        self._denial_told = False
        self._retry_at = 0
        self._listens_until = 0
        self._live_messages = 0

    # What the rest of the gateway calls.

    def offer(self, tick: Tick) -> None:
        """Take the result of a step: alarms and events leave now, values when they are due."""
        if not self.options.enabled:
            return
        if self.options.live:
            self._live.offer(tick.readings)
        if self._connection.ready is not None:  # otherwise the snapshot at the next connection has the alarms
            for event in tick.events:
                if isinstance(event, AlarmTransition):
                    self._states.put(event)
        self._stream.offer(tick.events)
        for reply in tick.replies:
            if reply.origin == payloads.ORIGIN:
                self._outbox.say(self._desk.reply(reply, tick.now.utc))
        if tick.events or tick.replies:
            self._pump()

    def committed(self, pairs: Sequence[tuple[int, str]]) -> None:
        """Take (sequence number, event id) of what the journal has committed, in order."""
        if self.options.enabled:
            self._stream.committed(pairs)
            self._progress()

    def use(self, table: TagTable) -> None:
        """Take another tag table, and correct the retained alarms after a change of the alarm list."""
        self._live.use(table)
        if self._connection.ready is not None:
            self._states.reset(self._alarms_snapshot())
            self._pump()

    def view(self) -> BrokerView:
        """Return what there is to say about the broker now."""
        connection = self._connection
        denied = connection.state == "connected" and self._outbox.denied > 0
        return BrokerView(
            state="refused" if denied else connection.state,
            sentence=connection.sentence or self._denied or self._commands_denied,
            address=self.options.address,
            published=sum(self._outbox.published.values()) + self._live_messages,
            dropped=self._outbox.control_dropped + connection.inbound_dropped,
            unacknowledged=self._stream.unacknowledged,
        )

    def counters(self) -> dict[str, int]:
        """Return what was counted since the start; the last word of a name is what was counted."""
        return {
            "published_control_messages": self._outbox.published["control"],
            "published_state_messages": self._outbox.published["state"],
            "published_event_messages": self._outbox.published["event"],
            "published_value_messages": self._live_messages,
            "published_readings": self._live.published,
            "superseded_readings": self._live.superseded,
            "unchanged_readings": self._live.unchanged,
            "coalesced_states": self._states.coalesced,
            "dropped_control_messages": self._outbox.control_dropped,
            "dropped_inbound_messages": self._connection.inbound_dropped,
            "denied_messages": self._outbox.denials,
            "received_commands": self._desk.received,
            "invalid_commands": self._desk.invalid,
            "repeated_commands": self._desk.repeated,
            "reconnects": self._connection.reconnects,
            "refusals": self._connection.refusals,
        }

    async def run(self) -> None:
        """Keep the broker up to date until cancelled."""
        if not self.options.enabled:
            await asyncio.Event().wait()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_connected(), name="mqtt connection")
            tasks.create_task(self._read_journal(), name="mqtt journal")
            if self.options.live:
                tasks.create_task(self._publish_live(), name="mqtt live values")

    # Its tasks.

    async def _keep_connected(self) -> None:
        while True:
            try:
                self._advanced = await self._event_log.cursor(CURSOR)
                break
            except StorageError as error:
                self._connection.waits(f"the journal does not say what was sent already: {error}")
                await asyncio.sleep(JOURNAL_RETRY_S)
        self._stream.begin(self._advanced)
        await self._connection.run(lambda: self._status(online=False, reason="stopped"))

    async def _read_journal(self) -> None:
        """Bring the stream up to date from the journal whenever it is behind."""
        failing = False
        while True:
            await self._behind.wait()
            self._behind.clear()
            while self._connection.ready and self._stream.behind and (limit := self._stream.room):
                start, tail = self._stream.read, self._stream.tail
                try:
                    rows = await self._event_log.after(start, limit)
                except StorageError as error:
                    if not failing:
                        log.warning("mqtt cannot read the journal", reason=str(error))
                    failing = True
                    await asyncio.sleep(JOURNAL_RETRY_S)
                    continue
                failing = False
                self._stream.extend(start, tail, rows, exhausted=len(rows) < limit)
                self._progress()

    async def _publish_live(self) -> None:
        while True:
            await asyncio.sleep(self.options.live_period_ms / 1000)
            link = self._connection.ready
            if link is None or link.congested:
                continue
            now = self._now()
            for due in self._live.messages(now.utc, now.monotonic):
                link.send([Message(due.topic, due.payload, qos=0)])
                self._live_messages += 1
                await asyncio.sleep(0)  # text for thousands of tags must not hold up a step
                if link is not self._connection.ready or link.congested:
                    break

    # What the connection tells.

    def _on_events(self, events: Sequence[LinkEvent]) -> None:
        for event in events:
            match event:
                case Acknowledged():
                    topic = self._outbox.acknowledged(event)
                    if topic is not None:
                        self._on_denied(topic, event.why)
                case Received():
                    self._on_received(event)
                case Opened():
                    self._on_opened(event)
                case Subscribed():
                    self._on_subscribed(event)
                case Closed():
                    self._outbox.close()
                    self._commands_denied = ""
        self._progress()

    def _on_opened(self, opened: Opened) -> None:
        link = self._connection.ready
        if link is None:
            return
        self._outbox.open(min(self.options.inflight_max, opened.receive_max))
        self._outbox.say(self._status(online=True, reason="connected"))
        self._states.reset(self._alarms_snapshot())
        self._live.refresh()
        link.subscribe([self.topics.command], qos=1)
        # What an earlier life left at the broker and is not so any more shows itself here, and is cleared.
        link.subscribe(self.topics.alarm_filters(), qos=1)
        self._listens_until = self._now().monotonic + int(LEFTOVER_S * NS_PER_S)

    def _on_subscribed(self, subscribed: Subscribed) -> None:
        if not subscribed.why:
            return
        if self.topics.command in subscribed.filters:
            self._commands_denied = (
                f"{self.options.address} does not let us read {self.topics.command}: {subscribed.why}"
            )
            log.warning("mqtt commands denied", address=self.options.address, reason=subscribed.why)
        else:
            self._listens_until = 0
            self._states.clear_normal()

    def _on_received(self, message: Received) -> None:
        now = self._now()
        if message.topic == self.topics.command:
            answer = self._desk.receive(message, now.utc)
            if answer is not None:
                self._outbox.say(answer)
        elif message.retain and message.payload and payloads.owner(message.payload) == self._gateway:
            self._listens_until = now.monotonic + int(LEFTOVER_S * NS_PER_S)
            self._states.found(message.topic)

    def _on_denied(self, topic: str, why: str) -> None:
        """The broker took a message and said no: that one is tried again after a while, the others go on."""
        self._retry_at = self._retry_at or self._now().monotonic + int(self.options.refused_delay_s * NS_PER_S)
        self._denied = f"{self.options.address} does not let us publish to {topic}: {why}; check its access control"
        if not self._denial_told:
            self._denial_told = True
            log.error("mqtt publish denied", address=self.options.address, topic=topic, reason=why)

    def _watch(self, link: Link, now: int) -> None:
        """Look once a second at what does not happen by itself. now: monotonic ns."""
        oldest = self._outbox.oldest
        if oldest is not None and now - oldest > self.options.ack_timeout_s * NS_PER_S:
            link.fail(Disconnected(f"{self.options.address} acknowledged nothing for {self.options.ack_timeout_s} s"))
            return
        if self._listens_until and now >= self._listens_until:
            self._listens_until = 0
            link.unsubscribe(self.topics.alarm_filters())
        if self._retry_at and now >= self._retry_at:
            self._retry_at = 0
            self._denied = ""
            self._outbox.try_denied()
            self._pump()
        elif not self._retry_at:
            self._denial_told = False

    # What leaves.

    def _progress(self) -> None:
        """Move the cursor to what is acknowledged, read on if behind, and send what may be sent."""
        if self._stream.cursor > self._advanced:
            self._advanced = self._stream.cursor
            self._event_log.advance(CURSOR, self._advanced)
        if self._stream.behind and self._stream.room and self._connection.ready:
            self._behind.set()
        self._pump()

    def _pump(self) -> None:
        """Hand over, in one go, as much as may be in flight."""
        link = self._connection.ready
        if link is not None:
            messages = self._outbox.hand_over(self._now().monotonic)
            if messages:
                link.send(messages)

    def _status(self, *, online: bool, reason: str) -> Message:
        payload = payloads.status(
            self._gateway,
            online=online,
            time=self._now().utc,
            session=self._connection.session,
            reason=reason,
            version=self._version,
        )
        return Message(self.topics.status, payload, retain=True)

    def _take_snapshot(self, command: Command) -> Reply:
        alarms = [transition for transition in self._alarms_snapshot() if transition.state != payloads.NORMAL]
        parts = max(1, -(-len(alarms) // SNAPSHOT_ALARMS_MAX))
        now = self._now().utc
        for part in range(parts):
            chunk = alarms[part * SNAPSHOT_ALARMS_MAX : (part + 1) * SNAPSHOT_ALARMS_MAX]
            payload = payloads.snapshot(
                self._gateway, command=command.id, time=now, part=part + 1, parts=parts, alarms=chunk
            )
            self._outbox.say(Message(self.topics.snapshot, payload))
        self._live.refresh()
        return Reply(
            command=command.id, origin=command.origin, ok=True, code="ok", data={"alarms": len(alarms), "parts": parts}
        )
