"""Subscriptions: the server tells what has changed.

Owns the set-up of subscriptions and monitored items, the watch over keep-alives and sequence numbers, the nodes that
the server refuses, which are tried again for ever beside the others, and the steps that bring data back when it stops
although the connection stands. Leaves requests to `Publisher`, the choice of the step to `Recovery`, looking behind
the server's words to `Audit`, the judgement of values to `Intake` and reconnecting to the supervisor.
"""

import asyncio
import struct
from collections.abc import Sequence
from typing import Final

import numpy as np
from asyncua import ua
from asyncua.ua import UaStatusCodeError

from edge import clock
from edge.errors import Disconnected
from edge.sources.opcua_audit import Audit, Findings
from edge.sources.opcua_decode import Decoder
from edge.sources.opcua_events import EVENT_LIST
from edge.sources.opcua_intake import Intake, explain
from edge.sources.opcua_items import Learned, MonitoredItems, Subscription, subscribe, unsubscribe
from edge.sources.opcua_options import OpcuaOptions
from edge.sources.opcua_points import Namespaces, NodeAddress
from edge.sources.opcua_publish import Failure, Publisher
from edge.sources.opcua_recovery import NO_SESSION, NO_SUBSCRIPTION, Lasting, Step
from edge.sources.opcua_retry import Retry
from edge.sources.opcua_session import Session, codes
from edge.sources.opcua_wire import DATA_CHANGE, STATUS_CHANGE, Malformed, Message, status_of
from plant.batch import Batch, concat
from plant.instant import NS_PER_MS, NS_PER_S

REPUBLISH_MAX: Final = 100
"""Missed messages that are asked for again after one gap; a wider gap is counted as lost."""
SEQUENCE_MAX: Final = 2**32 - 1

_NO_MORE_SUBSCRIPTIONS: Final = int(ua.StatusCodes.BadTooManySubscriptions)
UNSUPPORTED: Final = codes("BadServiceUnsupported", "BadNotSupported", "BadNotImplemented")


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
        nodes_per_read_max: int,
        lasting: Lasting,
    ) -> None:
        self._session = session
        self._options = options
        self._namespaces = namespaces
        self._intake = intake
        self._items = MonitoredItems(session, options, addresses, namespaces, intake, learned, items_per_call_max)
        self._lasting = lasting
        nodes_per_read = min(learned.nodes_per_read, nodes_per_read_max)
        self._audit = Audit(session, addresses, namespaces, intake, self._items, nodes_per_read)
        self._publisher = Publisher(session, options.name)
        self._count = len(addresses)
        self._decoder = Decoder()
        self._subscriptions: dict[int, Subscription] = {}
        self._troubles: list[tuple[Subscription, str]] = []
        self._ready: list[Batch] = []
        self._look: asyncio.Task[list[tuple[Subscription, Findings]]] | None = None
        self._look_at = 0
        self._retry = Retry(options, self._try_refused)
        self._repeat_at = 0
        self._left_at = 0
        self._full = False

    async def start(self) -> None:
        """Set up everything. Raises NoSubscriptions, Disconnected or UaStatusCodeError."""
        await self._subscribe_all()
        now = clock.now()
        if self._items.refused:
            self._ready.append(self._intake.refused(sorted(self._items.refused), now))
            self._retry.plan(now.monotonic)
        self._left_at = now.monotonic
        if self._options.repeat_ms:
            self._repeat_at = now.monotonic + int(self._options.repeat_ms * NS_PER_MS)
        self._look_later()

    async def _subscribe_all(self) -> None:
        """Set up all subscriptions of the session and ask for their messages."""
        self._subscriptions.clear()
        size = self._options.items_per_subscription
        subscription = await self._first()
        for first in range(0, self._count, size):
            if first and not self._full:
                subscription = await self._next(subscription)
            positions = range(first, min(first + size, self._count))
            subscription.members += positions
            await self._items.create(subscription, positions)
        await self._listen(next(iter(self._subscriptions.values())))
        now = clock.now().monotonic
        for subscription in self._subscriptions.values():
            subscription.heard = subscription.waiting = now
        self._publisher.forget()
        self._publisher.start(len(self._subscriptions))

    async def _listen(self, subscription: Subscription) -> None:
        """Ask for the events of the server in its first subscription."""
        if self._options.events and subscription.place == 0:
            await self._lasting.events.listen(self._session, subscription, self._count)

    async def stop(self) -> None:
        """End all tasks; the session deletes the subscriptions when it closes."""
        await self._retry.stop()
        look, self._look = self._look, None
        if look is not None:
            look.cancel()
            await asyncio.gather(look, return_exceptions=True)
        await self._publisher.stop()

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

    async def _subscribe(self, place: int | None = None) -> Subscription:
        place = len(self._subscriptions) if place is None else place
        subscription = await subscribe(self._session, self._options, place)
        self._subscriptions[subscription.id] = subscription
        return subscription

    async def read(self) -> Batch:
        """Wait for messages and return their readings; empty after a mere sign of life. Raises Disconnected."""
        away = clock.now().monotonic - self._left_at
        for one in self._subscriptions.values():
            one.waiting += away  # while nobody asked, the server could not answer
        arrived = self._publisher.arrived
        batches, self._ready = self._ready, []
        if arrived.empty() and not batches:
            await self._wait(batches)
        while not arrived.empty():
            await self._receive(arrived.get_nowait(), batches)
        while self._troubles:
            subscription, reason = self._troubles.pop(0)
            if subscription.id in self._subscriptions:
                await self._recover(subscription, Step.SUBSCRIPTION, reason)
        await self._tend(batches)
        self._left_at = clock.now().monotonic
        return concat([batch for batch in batches if len(batch)])

    async def _wait(self, batches: list[Batch]) -> None:
        """Wait for a message, at most until something else is due; a subscription that is silent is trouble."""
        now = clock.now().monotonic
        quiet_at = min(one.waiting + one.silence_ns for one in self._subscriptions.values())
        due = min(at for at in (quiet_at, self._retry.at, self._repeat_at, self._look_at) if at)
        try:
            async with asyncio.timeout(max((due - now) / NS_PER_S, 0)):
                arrived = await self._publisher.arrived.get()
        except TimeoutError:
            now = clock.now().monotonic
            for one in self._subscriptions.values():
                if now >= one.waiting + one.silence_ns and self._publisher.arrived.empty():
                    silence = f"no keep-alive of subscription {one.id} for {(now - one.waiting) / NS_PER_S:.1f} s"
                    self._troubles.append((one, f"{self._session.where} is silent: {silence}"))
            return
        await self._receive(arrived, batches)

    async def _receive(self, arrived: tuple[bytes, Message] | Failure | None, batches: list[Batch]) -> None:
        if arrived is None:
            return
        if not isinstance(arrived, Failure):
            await self._take(*arrived, batches)
            return
        if self._publisher.is_stale(arrived):
            return
        error = arrived.error
        if isinstance(error, Disconnected):
            raise error
        what = explain(error.code) if isinstance(error, UaStatusCodeError) else str(error)
        reason = f"{self._session.where} does not publish any more: {what}"
        code = error.code if isinstance(error, UaStatusCodeError) else 0
        if code in NO_SESSION:
            await self._recover(None, Step.SESSION, reason)
        elif code in NO_SUBSCRIPTION:
            for one in list(self._subscriptions.values()):
                await self._recover(one, Step.SUBSCRIPTION, reason)
        else:
            raise Disconnected(reason) from error

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
        lost = max(missed - REPUBLISH_MAX, 0)
        for n in range(min(missed, REPUBLISH_MAX)):
            sequence = (subscription.expected + n - 1) % SEQUENCE_MAX + 1
            again = await self._publisher.again(subscription.id, sequence) if sequence in available else None
            if again is None:
                lost += 1
            else:
                self._decode(*again, batches)
        if lost:
            self._intake.lost += lost
            self._lasting.backlog.open(subscription.positions)

    def _decode(self, body: bytes, message: Message, batches: list[Batch]) -> None:
        at = clock.now()
        for part in message.notifications:
            if part.encoding == STATUS_CHANGE:
                one = self._subscriptions.get(message.subscription)
                if one is not None:
                    what = explain(status_of(body, part))
                    self._troubles.append((one, f"{self._session.where} ended subscription {one.id}: {what}"))
                continue
            if part.encoding == EVENT_LIST:
                self._lasting.events.take(body, part, self._session.where)
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
            batch = self._intake.take(columns, columns.handle, at)
            self._lasting.backlog.note(columns.handle, batch.time)
            batches.append(batch)

    async def _tend(self, batches: list[Batch]) -> None:
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
        fault = self._retry.tend(now.monotonic, wanted=bool(self._items.refused))
        if fault is not None and fault.code in NO_SUBSCRIPTION:
            what = f"{self._session.where} does not know a subscription any more: {explain(fault.code)}"
            self._troubles += [(one, what) for one in self._subscriptions.values()]
        if self._look is not None and self._look.done():
            look, self._look = self._look, None
            self._look_later()
            await self._follow(look, batches)
        elif self._look is None and self._look_at and now.monotonic >= self._look_at:
            self._look_at = 0
            self._look = asyncio.create_task(self._inspect(), name=f"opcua-audit-{self._options.name}")
            self._look.add_done_callback(self._publisher.wake)

    def _forget_gone(self) -> None:
        """Let nodes that vanished while they were monitored join the refused ones."""
        self._items.refused |= self._intake.gone
        self._intake.gone.clear()
        self._await_refused()

    async def _try_refused(self) -> bool:
        """Set up the refused nodes once more; return whether one came alive."""
        self._namespaces.update(await self._session.read_namespaces())
        before = set(self._items.refused)
        for subscription in list(self._subscriptions.values()):
            await self._items.renew(subscription, sorted(before.intersection(subscription.members)))
        return bool(before - self._items.refused)

    # Looking behind the server's words

    def _look_later(self) -> None:
        if self._options.check_ms:
            self._look_at = clock.now().monotonic + int(self._options.check_ms * NS_PER_MS)

    async def _inspect(self) -> list[tuple[Subscription, Findings]]:
        told = int(self._intake.told.max(initial=0))
        await self._lasting.canary.look(self._session, told)
        return [
            (one, await self._audit.look(one.positions, one.publishing_ns))
            for one in list(self._subscriptions.values())
        ]

    async def _follow(self, look: "asyncio.Task[list[tuple[Subscription, Findings]]]", batches: list[Batch]) -> None:
        """Act on what a look found. Raises Disconnected if the server hangs or does not answer."""
        try:
            found = look.result()
        except UaStatusCodeError as error:
            if error.code in NO_SESSION:
                reason = f"{self._session.where} does not know the session any more: {explain(error.code)}"
                await self._recover(None, Step.SESSION, reason)
            return
        for one, findings in found:
            if not len(findings.mute) or self._subscriptions.get(one.id) is not one:
                continue
            batches.append(findings.readings)
            reason = (
                f"{self._session.where} tells nothing of {len(findings.mute)} nodes that changed, e.g. "
                f"{self._intake.points[int(findings.mute[0])].node}"
            )
            most = 2 * len(findings.mute) > findings.asked
            last = self._lasting.recovery.last(one.place)
            if not most or (last is not None and last >= Step.SESSION and not self._lasting.recovery.may_hang_up()):
                # A few nodes, or a server that nothing helps: their values are read at each look, the others run.
                fresh = self._lasting.recovery.news(findings.mute.tolist())
                if fresh:
                    self._lasting.recovery.take(one.place, Step.ITEM, reason)
                    await self._items.renew(one, fresh)
            else:
                await self._recover(one, Step.ITEM, reason, findings.mute.tolist())

    # Recovery

    async def _recover(
        self, subscription: Subscription | None, least: Step, reason: str, positions: Sequence[int] = ()
    ) -> None:
        """Take the cheapest step that can help; if the server refuses it, the next. Raises Disconnected."""
        place = -1 if subscription is None else subscription.place
        await self._retry.stop()
        self._await_refused()
        step = self._lasting.recovery.climb(place, least, reason)
        while step < Step.CLIENT:
            try:
                if step is Step.ITEM and subscription is not None:
                    await self._items.renew(subscription, positions)
                elif step is Step.SUBSCRIPTION and subscription is not None:
                    await self._renew(subscription)
                else:
                    await self._renew_session()
            except (UaStatusCodeError, NoSubscriptions) as error:
                what = explain(error.code) if isinstance(error, UaStatusCodeError) else str(error)
                reason = f"{reason}; then {what}"
                step = self._lasting.recovery.take(place, Step(step + 1), reason)
            else:
                return
        raise Disconnected(reason)

    async def _renew(self, old: Subscription) -> None:
        """Set up one subscription anew, with its items: each then tells its present value."""
        self._lasting.backlog.open(old.positions)
        self._intake.lost += 1  # nobody knows how many changes the old one did not tell
        await unsubscribe(self._session, old)
        self._subscriptions.pop(old.id, None)
        self._namespaces.update(await self._session.read_namespaces())
        new = await self._subscribe(old.place)
        new.members = old.members
        await self._items.create(new, new.members)
        await self._listen(new)
        new.heard = new.waiting = clock.now().monotonic
        self._publisher.start(len(self._subscriptions))
        self._await_refused()

    async def _renew_session(self) -> None:
        self._lasting.backlog.open(np.arange(self._count))
        self._intake.lost += 1
        await self._session.reopen()
        self._namespaces.update(await self._session.read_namespaces())
        await self._subscribe_all()
        self._await_refused()

    def _await_refused(self) -> None:
        if self._items.refused:
            self._retry.plan(clock.now().monotonic)
