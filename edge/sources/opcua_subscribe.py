"""Subscriptions: the server tells what has changed.

Owns the set-up of subscriptions and monitored items, several PublishRequests on the way at once, the watch over
keep-alives and sequence numbers, and the nodes that the server refuses, which are tried again for ever beside the
others. Leaves the judgement of values to `Intake` and reconnecting to the supervisor.

Back-pressure reaches the server: a worker sends its next PublishRequest only after `read` has taken its last answer.
"""

import asyncio
import contextlib
import struct
from collections.abc import Sequence
from typing import Final

from asyncua import ua
from asyncua.ua import UaStatusCodeError

from edge import clock
from edge.errors import Disconnected
from edge.sources.opcua_decode import Decoder
from edge.sources.opcua_intake import Intake, explain
from edge.sources.opcua_items import Learned, MonitoredItems, Subscription
from edge.sources.opcua_options import OpcuaOptions
from edge.sources.opcua_points import Namespaces, NodeAddress
from edge.sources.opcua_session import Session
from edge.sources.opcua_wire import (
    DATA_CHANGE,
    STATUS_CHANGE,
    Malformed,
    Message,
    parse_publish,
    parse_republish,
    status_of,
)
from plant.batch import Batch, concat
from plant.instant import NS_PER_MS, NS_PER_S

PUBLISH_MAX: Final = 8
"""PublishRequests on the way; two more than subscriptions, up to this, save a round trip per message."""
NOTIFICATIONS_PER_PUBLISH_MAX: Final = 10_000
REPUBLISH_MAX: Final = 100
"""Missed messages that are asked for again after one gap; a wider gap is counted as lost."""
SILENCE_MARGIN: Final = 1.5
SILENCE_SLACK_NS: Final = NS_PER_S
"""A subscription is dead when nothing came for its keep-alive time, as revised by the server, x margin + slack."""
SEQUENCE_MAX: Final = 2**32 - 1

_NO_MORE_SUBSCRIPTIONS: Final = int(ua.StatusCodes.BadTooManySubscriptions)
UNSUPPORTED: Final = frozenset(
    int(getattr(ua.StatusCodes, name)) for name in ("BadServiceUnsupported", "BadNotSupported", "BadNotImplemented")
)


class NoSubscriptions(Exception):
    """The server has no subscriptions; timed reads are the way."""


class Subscriber:
    """The subscriptions of one session. `start`, then `read` again and again, then `stop`."""

    def __init__(
        self,
        session: Session,
        options: OpcuaOptions,
        addresses: Sequence[NodeAddress],
        namespaces: Namespaces,
        intake: Intake,
        learned: Learned,
        items_per_call_max: int,
    ) -> None:
        self._session = session
        self._options = options
        self._namespaces = namespaces
        self._intake = intake
        self._items = MonitoredItems(session, options, addresses, namespaces, intake, learned, items_per_call_max)
        self._count = len(addresses)
        self._decoder = Decoder()
        self._subscriptions: dict[int, Subscription] = {}
        self._arrived: asyncio.Queue[tuple[bytes, Message] | Exception] = asyncio.Queue(PUBLISH_MAX)
        self._acknowledgements: list[ua.SubscriptionAcknowledgement] = []
        self._workers: list[asyncio.Task[None]] = []
        self._ready: list[Batch] = []
        self._retry: asyncio.Task[bool] | None = None
        self._retry_ns = int(options.retry_ms * NS_PER_MS)
        self._retry_at = 0
        self._repeat_at = 0
        self._left_at = 0
        self._full = False

    async def start(self) -> None:
        """Set up everything. Raises NoSubscriptions, Disconnected or UaStatusCodeError."""
        positions = range(self._count)
        size = self._options.items_per_subscription
        subscription = await self._first()
        for first in range(0, self._count, size):
            if first and not self._full:
                subscription = await self._next(subscription)
            await self._items.create(subscription, positions[first : first + size])
        now = clock.now()
        if self._items.refused:
            self._ready.append(self._intake.refused(sorted(self._items.refused), now))
            self._retry_at = now.monotonic + self._retry_ns
        for subscription in self._subscriptions.values():
            subscription.heard = subscription.waiting = now.monotonic
        self._left_at = now.monotonic
        if self._options.repeat_ms:
            self._repeat_at = now.monotonic + int(self._options.repeat_ms * NS_PER_MS)
        count = min(len(self._subscriptions) + 2, PUBLISH_MAX)
        self._workers = [
            asyncio.create_task(self._publish(), name=f"opcua-publish-{self._options.name}-{n}") for n in range(count)
        ]

    async def stop(self) -> None:
        """End all tasks; the session deletes the subscriptions when it closes."""
        tasks = [*self._workers, *([self._retry] if self._retry else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._workers = []
        self._retry = None

    async def _first(self) -> Subscription:
        try:
            return await self._subscribe()
        except UaStatusCodeError as error:
            if error.code in UNSUPPORTED or error.code == _NO_MORE_SUBSCRIPTIONS:
                raise NoSubscriptions(explain(error.code)) from error
            raise

    async def _next(self, subscription: Subscription) -> Subscription:
        """Return one more subscription, or the same where the server has no more: it takes the rest of the nodes."""
        try:
            return await self._subscribe()
        except UaStatusCodeError as error:
            if error.code != _NO_MORE_SUBSCRIPTIONS:
                raise
            self._full = True
            return subscription

    async def _subscribe(self) -> Subscription:
        options = self._options
        request = ua.CreateSubscriptionRequest()
        wanted = request.Parameters
        wanted.RequestedPublishingInterval = options.publishing_ms
        wanted.RequestedMaxKeepAliveCount = max(1, round(options.keepalive_ms / options.publishing_ms))
        # The lifetime must outlast the session's, and be at least three keep-alives (OPC 10000-4, 5.14.2).
        lifetime = round(options.session_timeout_s * 1000 / options.publishing_ms)
        wanted.RequestedLifetimeCount = max(3 * wanted.RequestedMaxKeepAliveCount, lifetime)
        wanted.MaxNotificationsPerPublish = NOTIFICATIONS_PER_PUBLISH_MAX
        wanted.PublishingEnabled = True
        revised = (await self._session.call(request, ua.CreateSubscriptionResponse)).Parameters
        keepalive_ns = revised.RevisedPublishingInterval * max(revised.RevisedMaxKeepAliveCount, 1) * NS_PER_MS
        silence_ns = int(keepalive_ns * SILENCE_MARGIN) + SILENCE_SLACK_NS
        now = clock.now().monotonic
        subscription = Subscription(revised.SubscriptionId, silence_ns, now, now)
        self._subscriptions[subscription.id] = subscription
        return subscription

    async def _publish(self) -> None:
        """Keep one PublishRequest on the way; hand its answer to `read`, an error too, and end after an error."""
        while True:
            request = ua.PublishRequest()
            taken, self._acknowledgements = self._acknowledgements, []
            request.Parameters.SubscriptionAcknowledgements = taken
            try:
                body = await self._session.send(request, timeout_s=0)
                message = parse_publish(body)
            except UaStatusCodeError as error:
                self._acknowledgements += taken
                if error.code == ua.StatusCodes.BadTimeout:
                    continue
                if error.code == ua.StatusCodes.BadTooManyPublishRequests and len(self._workers) > 1:
                    self._workers = [worker for worker in self._workers if worker is not asyncio.current_task()]
                    return
                await self._arrived.put(error)
                return
            except (Disconnected, Malformed) as error:
                await self._arrived.put(error)
                return
            if message.notifications:
                self._acknowledgements.append(ua.SubscriptionAcknowledgement(message.subscription, message.sequence))
            await self._arrived.put((body, message))

    async def read(self) -> Batch:
        """Wait for messages and return their readings; empty after a mere sign of life. Raises Disconnected."""
        away = clock.now().monotonic - self._left_at
        for one in self._subscriptions.values():
            one.waiting += away  # while nobody asked, the server could not answer
        if self._arrived.empty() and not self._ready:
            await self._wait()
        batches, self._ready = self._ready, []
        while not self._arrived.empty():
            arrived = self._arrived.get_nowait()
            if isinstance(arrived, Exception):
                raise self._lost(arrived) from arrived
            await self._take(*arrived, batches)
        self._tend(batches)
        self._left_at = clock.now().monotonic
        return concat([batch for batch in batches if len(batch)])

    async def _wait(self) -> None:
        """Wait for a message, at most until something else is due. Raises Disconnected if the server is silent."""
        now = clock.now().monotonic
        quiet_at = min(one.waiting + one.silence_ns for one in self._subscriptions.values())
        due = min(at for at in (quiet_at, self._retry_at, self._repeat_at) if at)
        try:
            async with asyncio.timeout(max((due - now) / NS_PER_S, 0)):
                arrived = await self._arrived.get()
        except TimeoutError:
            now = clock.now().monotonic
            for one in self._subscriptions.values():
                if now >= one.waiting + one.silence_ns and self._arrived.empty():
                    raise Disconnected(
                        f"{self._session.where} is silent: no keep-alive of subscription {one.id} for "
                        f"{(now - one.waiting) / NS_PER_S:.1f} s"
                    ) from None
            return
        if isinstance(arrived, Exception):
            raise self._lost(arrived) from arrived
        await self._take(*arrived, self._ready)

    def _lost(self, error: Exception) -> Disconnected:
        if isinstance(error, Disconnected):
            return error
        what = explain(error.code) if isinstance(error, UaStatusCodeError) else str(error)
        return Disconnected(f"{self._session.where} does not publish any more: {what}")

    async def _take(self, body: bytes, message: Message, batches: list[Batch]) -> None:
        """Check the sequence of one message and append its readings to `batches`."""
        subscription = self._subscriptions.get(message.subscription)
        if subscription is None:
            return
        subscription.heard = subscription.waiting = clock.now().monotonic
        ahead = (message.sequence - subscription.expected) % SEQUENCE_MAX
        if ahead < SEQUENCE_MAX // 2:  # otherwise it repeats an old number, which some servers do in keep-alives
            if ahead:
                await self._close_gap(subscription, message, ahead, batches)
            subscription.expected = message.sequence
            if message.notifications:
                subscription.expected = message.sequence % SEQUENCE_MAX + 1
        self._decode(body, message, batches)

    async def _close_gap(self, subscription: Subscription, message: Message, missed: int, batches: list[Batch]) -> None:
        """Ask again for the `missed` messages before this one; each that is not there counts as one lost reading, as
        nobody knows how many it held.
        """
        available = set(message.available)
        for n in range(min(missed, REPUBLISH_MAX)):
            sequence = (subscription.expected + n - 1) % SEQUENCE_MAX + 1
            again = await self._republish(subscription.id, sequence) if sequence in available else None
            if again is None:
                self._intake.lost += 1
            else:
                self._decode(*again, batches)
        self._intake.lost += max(missed - REPUBLISH_MAX, 0)

    async def _republish(self, subscription: int, sequence: int) -> tuple[bytes, Message] | None:
        request = ua.RepublishRequest()
        request.Parameters.SubscriptionId = subscription
        request.Parameters.RetransmitSequenceNumber = sequence
        try:
            body = await self._session.send(request)
            message = parse_republish(body)
        except (UaStatusCodeError, Malformed):
            return None
        self._acknowledgements.append(ua.SubscriptionAcknowledgement(subscription, sequence))
        return body, message

    def _decode(self, body: bytes, message: Message, batches: list[Batch]) -> None:
        at = clock.now()
        for part in message.notifications:
            if part.encoding == STATUS_CHANGE:
                what = explain(status_of(body, part))
                raise Disconnected(f"{self._session.where} ended subscription {message.subscription}: {what}")
            if part.encoding != DATA_CHANGE:
                continue
            try:
                (count,) = struct.unpack_from("<i", body, part.start)
                columns, _ = self._decoder.decode(body, part.start + 4, max(count, 0), 4, part.end)
            except (Malformed, struct.error) as error:
                raise Disconnected(f"{self._session.where} sent something that is no notification: {error}") from error
            if columns.handle is None or not len(columns.handle):
                continue
            if int(columns.handle.max()) >= self._count:
                raise Disconnected(f"{self._session.where} sent a value that nobody asked for")
            batches.append(self._intake.take(columns, columns.handle, at))

    def _tend(self, batches: list[Batch]) -> None:
        """Do what is due beside the messages: repeat steady values, retry refused nodes."""
        now = clock.now()
        if self._options.repeat_ms and now.monotonic >= self._repeat_at:
            repeat_ns = int(self._options.repeat_ms * NS_PER_MS)
            self._repeat_at = now.monotonic + repeat_ns // 4
            batches += [
                self._intake.unchanged(one.positions, one.heard, repeat_ns) for one in self._subscriptions.values()
            ]
        if self._intake.gone:
            self._forget_gone()
        if self._retry is not None and self._retry.done():
            retry, self._retry = self._retry, None
            revived = False
            with contextlib.suppress(UaStatusCodeError):  # the whole call failed: the same nodes, later
                revived = retry.result()
            if revived:
                self._retry_ns = int(self._options.retry_ms * NS_PER_MS)
            self._retry_at = now.monotonic + self._retry_ns if self._items.refused else 0
        elif self._retry is None and self._retry_at and now.monotonic >= self._retry_at:
            self._retry_at = 0
            self._retry_ns = min(self._retry_ns * 2, int(self._options.retry_ms_max * NS_PER_MS))
            self._retry = asyncio.create_task(self._try_refused(), name=f"opcua-retry-{self._options.name}")

    def _forget_gone(self) -> None:
        """Let nodes that vanished while they were monitored join the refused ones."""
        self._items.refused |= self._intake.gone
        self._intake.gone.clear()
        if not self._retry_at and self._retry is None:
            self._retry_at = clock.now().monotonic + self._retry_ns

    async def _try_refused(self) -> bool:
        """Set up the refused nodes once more; return whether one came alive."""
        self._namespaces.update(await self._session.read_namespaces())
        before = set(self._items.refused)
        subscriptions = list(self._subscriptions.values())
        size = self._options.items_per_subscription
        for n, subscription in enumerate(subscriptions):
            mine = sorted(one for one in before if min(one // size, len(subscriptions) - 1) == n)
            if mine:
                await self._items.delete(subscription, [one for one in mine if one in subscription.items])
                await self._items.create(subscription, mine)
        return bool(before - self._items.refused)
