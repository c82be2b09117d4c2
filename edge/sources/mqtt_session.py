"""One connection of a source to a broker: opened, subscribed, then a bounded queue of messages.

Owns the link and the queue between the link's thread and the event loop. The queue drops its oldest messages and counts
them: with live data the newest one counts. While the event loop itself stands still, nothing is read from the broker.
Leaves the meaning of the messages to the source and connecting again to the supervisor.
"""

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from paho.mqtt.enums import MQTTProtocolVersion

from edge import clock as edge_clock
from edge.errors import Disconnected, Unreachable
from edge.mqtt.link import Link
from edge.mqtt.wire import Closed, LinkEvent, Message, Opened, Received, Subscribed
from edge.sources.mqtt_options import SubscriberOptions
from plant.instant import Instant

FILTERS_PER_PACKET_MAX: Final = 100
LINK_SHARE: Final = 4
"""The link takes this part of the queue at a time, so that what waited in it does not overflow the queue."""
GOODBYE_S: Final = 0.5
"""Longest wait for the last word to leave."""
ALIVE_S: Final = 1.0
"""A connection without messages says so this often: it is the keep-alive that finds a dead one."""
MESSAGES_PER_READ_MAX: Final = 200
SIZE_PER_READ_MAX: Final = 65_536
"""Bytes. More would hold up the event loop (5 ms); the rest follows in the next read."""

Arrived = tuple[int, Received]
"""A message and when it arrived, ns UTC."""


class Session:
    """`open`, then `messages` until it raises, then `close`; and again. dropped: messages, a running total."""

    def __init__(self, options: SubscriberOptions, clock: Callable[[], Instant] = edge_clock.now) -> None:
        self._options = options
        self._clock = clock
        self._client_id = options.client_id or f"andon-{options.name}-{secrets.token_hex(4)}"
        self._protocol = MQTTProtocolVersion.MQTTv311 if options.protocol == "3.1.1" else MQTTProtocolVersion.MQTTv5
        self._link: Link | None = None
        self._queue: deque[Arrived] = deque(maxlen=options.queue_max)
        self._changed = asyncio.Event()
        self._opened = False
        self._closed: Closed | None = None
        self._answers: dict[str, str] = {}
        self.dropped = 0

    @property
    def peer(self) -> str:
        return f"device {self._options.name} at {self._options.address}"

    async def open(self, filters: Sequence[str], *, qos: int) -> dict[str, str]:
        """Connect and subscribe; returns the filters that the broker refused, each with its reason.

        Raises Unreachable or Refused.
        """
        await self.close()
        await self._connect()
        link = self._link
        assert link is not None
        for first in range(0, len(filters), FILTERS_PER_PACKET_MAX):
            link.subscribe(filters[first : first + FILTERS_PER_PACKET_MAX], qos=qos)
        try:
            async with asyncio.timeout(self._options.connect_timeout_s):
                while len(self._answers) < len(filters):
                    self._raise_if_over()
                    await self._change()
        except TimeoutError as error:
            raise Unreachable(f"{self.peer}: the broker did not answer the subscription") from error
        except Disconnected as error:
            raise Unreachable(str(error)) from error
        return {name: why for name, why in self._answers.items() if why}

    async def messages(self) -> list[Arrived]:
        """Wait for messages, at most ALIVE_S, and take them, oldest first. Raises Disconnected after the last one."""
        if not self._queue and self._closed is None:
            try:
                async with asyncio.timeout(ALIVE_S):
                    await self._change()
            except TimeoutError:
                return []
        queue = self._queue
        if not queue:
            self._raise_if_over()
        taken: list[Arrived] = []
        size = 0
        while queue and len(taken) < MESSAGES_PER_READ_MAX and size < SIZE_PER_READ_MAX:
            taken.append(queue.popleft())
            size += len(taken[-1][1].payload)
        return taken

    def send(self, message: Message) -> None:
        """Publish a message, if there is a connection."""
        if self._link is not None and self._closed is None:
            self._link.send([message])

    async def close(self) -> None:
        """Say goodbye and free everything; idempotent, bounded in time."""
        link = self._link
        if link is None:
            return
        if self._opened and self._closed is None:
            link.goodbye()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GOODBYE_S):
                    while self._closed is None:
                        await self._change()
        await link.close()
        self._link = None
        self._queue.clear()

    async def _connect(self) -> None:
        """Open a link; with protocol `auto` MQTT 3.1.1 is tried if the broker does not speak 5."""
        while True:
            self._begin()
            while not self._opened and self._closed is None:
                await self._change()
            closed = self._closed
            if closed is None:
                return
            tries_311 = self._protocol is MQTTProtocolVersion.MQTTv5 and self._options.protocol == "auto"
            if not tries_311 or not (closed.unanswered or closed.version_unknown):
                if self._options.protocol == "auto":
                    self._protocol = MQTTProtocolVersion.MQTTv5
                self._raise_if_over()
            await self.close()
            self._protocol = MQTTProtocolVersion.MQTTv311

    def _begin(self) -> None:
        self._opened = False
        self._closed = None
        self._answers = {}
        self._queue.clear()
        self._changed.clear()
        link: Link

        def take(events: Sequence[LinkEvent]) -> None:
            if link is self._link:
                self._take(events)

        link = self._link = Link(
            self._options,
            self._client_id,
            self._protocol,
            None,
            take,
            inbound_max=max(1, self._options.queue_max // LINK_SHARE),
            reads_on=False,
        )
        link.start()

    async def _change(self) -> None:
        """Wait until the link has told something."""
        await self._changed.wait()
        self._changed.clear()

    def _raise_if_over(self) -> None:
        if self._closed is None:
            return
        error = self._closed.error
        raise type(error)(f"device {self._options.name}: {error}") from error

    def _take(self, events: Sequence[LinkEvent]) -> None:
        now = self._clock().utc
        queue = self._queue
        for event in events:
            match event:
                case Received():
                    if len(queue) == queue.maxlen:
                        self.dropped += 1
                    queue.append((now, event))
                case Opened():
                    self._opened = True
                case Subscribed(filters, why, whys):
                    whys = whys if len(whys) == len(filters) else (why,) * len(filters)
                    self._answers |= dict(zip(filters, whys, strict=True))
                case Closed():
                    self._closed = event
                case _:
                    pass
        self._changed.set()
