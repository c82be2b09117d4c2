"""Subscriptions and monitored items: which nodes the server watches, and which it refuses.

Owns the calls that set items up, in the sizes that the server takes; each node is judged by its own result.
"""

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from asyncua import ua
from asyncua.ua import UaStatusCodeError
from numpy.typing import NDArray

from edge import clock
from edge.errors import Disconnected
from edge.sources.opcua_intake import Intake
from edge.sources.opcua_options import OpcuaOptions
from edge.sources.opcua_points import Namespaces, NodeAddress, Unresolved
from edge.sources.opcua_session import TOO_MUCH, Session
from plant.instant import NS_PER_MS, NS_PER_S

NOTIFICATIONS_PER_PUBLISH_MAX: Final = 10_000
SILENCE_MARGIN: Final = 1.5
SILENCE_SLACK_NS: Final = NS_PER_S
"""A subscription is dead when nothing came for its keep-alive time, as revised by the server, x margin + slack."""
SAMPLING_MS_MAX: Final = 86_400_000.0
"""What a server may say about its sampling; more is no time to wait for."""

_NO_FILTER: Final = frozenset(
    int(getattr(ua.StatusCodes, name))
    for name in ("BadMonitoredItemFilterUnsupported", "BadFilterNotAllowed", "BadDeadbandFilterInvalid")
)


@dataclass(slots=True, eq=False)
class Subscription:
    """One subscription. silence_ns: if we wait without a word for longer than this it is dead. heard: monotonic ns of
    the last message; waiting: since when we wait for the next one. expected: the sequence number of the next one.
    members: the positions that belong here, watched or refused. items: position -> id of the monitored item;
    positions: the positions of `items`, sorted. place: the number of the subscription on this device, from 0, which
    stays when it is set up anew. publishing_ns: as revised by the server.
    """

    id: int
    silence_ns: int
    heard: int
    waiting: int
    place: int = 0
    publishing_ns: int = 0
    expected: int = 1
    members: list[int] = field(default_factory=list)
    items: dict[int, int] = field(default_factory=dict)
    positions: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, np.intp))


async def subscribe(session: Session, options: OpcuaOptions, place: int) -> Subscription:
    """Create a subscription without items. Raises UaStatusCodeError or Disconnected."""
    request = ua.CreateSubscriptionRequest()
    wanted = request.Parameters
    wanted.RequestedPublishingInterval = options.publishing_ms
    wanted.RequestedMaxKeepAliveCount = max(1, round(options.keepalive_ms / options.publishing_ms))
    # The lifetime must outlast the session's, and be at least three keep-alives (OPC 10000-4, 5.14.2).
    lifetime = round(options.session_timeout_s * 1000 / options.publishing_ms)
    wanted.RequestedLifetimeCount = max(3 * wanted.RequestedMaxKeepAliveCount, lifetime)
    wanted.MaxNotificationsPerPublish = NOTIFICATIONS_PER_PUBLISH_MAX
    wanted.PublishingEnabled = True
    revised = (await session.call(request, ua.CreateSubscriptionResponse)).Parameters
    keepalive_ns = revised.RevisedPublishingInterval * max(revised.RevisedMaxKeepAliveCount, 1) * NS_PER_MS
    silence_ns = int(keepalive_ns * SILENCE_MARGIN) + SILENCE_SLACK_NS
    now = clock.now().monotonic
    publishing_ns = int(revised.RevisedPublishingInterval * NS_PER_MS)
    return Subscription(revised.SubscriptionId, silence_ns, now, now, place=place, publishing_ns=publishing_ns)


async def unsubscribe(session: Session, subscription: Subscription) -> None:
    """Delete a subscription, if the server still has it. Raises Disconnected."""
    request = ua.DeleteSubscriptionsRequest()
    request.Parameters.SubscriptionIds = [subscription.id]
    with contextlib.suppress(UaStatusCodeError):
        await session.call(request, ua.DeleteSubscriptionsResponse)


@dataclass(slots=True, eq=False)
class Learned:
    """What a server taught us and the next session need not learn again.

    without_filter: positions whose node takes no deadband.
    """

    items_per_call: int
    nodes_per_read: int
    without_filter: set[int] = field(default_factory=set)


class MonitoredItems:
    """Sets up and removes monitored items. refused: positions that the server does not watch now; the reason stands
    in the intake's problems. created: monotonic ns when each item was set up last. sampling_ns: how often the server
    samples it, as revised.
    """

    def __init__(
        self,
        session: Session,
        options: OpcuaOptions,
        addresses: Sequence[NodeAddress],
        namespaces: Namespaces,
        intake: Intake,
        learned: Learned,
        per_call_max: int,
    ) -> None:
        self.refused: set[int] = set()
        self._session = session
        self._options = options
        self._addresses = addresses
        self._namespaces = namespaces
        self._intake = intake
        self._learned = learned
        self._per_call_max = per_call_max
        self.created: NDArray[np.int64] = np.zeros(len(addresses), np.int64)
        self.sampling_ns: NDArray[np.int64] = np.zeros(len(addresses), np.int64)

    async def create(self, subscription: Subscription, positions: Iterable[int]) -> None:
        """Create monitored items; positions that the server refuses go to `refused` with the reason noted."""
        left = []
        for position in positions:
            try:
                left.append((position, self._namespaces.resolve(self._addresses[position])))
            except Unresolved as error:
                sentence = f"BadNodeIdUnknown: {error}; check {self._intake.points[position].node} in tags.csv"
                self._refuse(position, int(ua.StatusCodes.BadNodeIdUnknown), sentence)
        again: list[tuple[int, ua.NodeId]] = []
        while left or again:
            if not left:
                left, again = again, []
            size = min(self._learned.items_per_call, self._per_call_max)
            chunk, left = left[:size], left[size:]
            try:
                results = await self._call(subscription, chunk)
            except UaStatusCodeError as error:
                if error.code not in TOO_MUCH:
                    raise
                if len(chunk) == 1:
                    self._refuse(chunk[0][0], error.code)
                else:
                    self._learned.items_per_call = len(chunk) // 2
                    left = chunk + left
                continue
            for (position, node), result in zip(chunk, results, strict=True):
                code = result.StatusCode.value
                if code in _NO_FILTER and position not in self._learned.without_filter:
                    self._learned.without_filter.add(position)
                    again.append((position, node))
                elif result.StatusCode.is_bad():
                    self._refuse(position, code)
                else:
                    self.refused.discard(position)
                    self._intake.note(position, 0)
                    subscription.items[position] = result.MonitoredItemId
                    self.created[position] = clock.now().monotonic
                    revised_ms = min(max(result.RevisedSamplingInterval, 0.0), SAMPLING_MS_MAX)
                    self.sampling_ns[position] = int(revised_ms * NS_PER_MS)
        subscription.positions = np.array(sorted(subscription.items), np.intp)

    def _refuse(self, position: int, code: int, sentence: str = "") -> None:
        self.refused.add(position)
        self._intake.note(position, code, sentence)

    async def _call(self, subscription: Subscription, chunk: Sequence[tuple[int, ua.NodeId]]) -> list[Any]:
        request = ua.CreateMonitoredItemsRequest()
        request.Parameters.SubscriptionId = subscription.id
        request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
        request.Parameters.ItemsToCreate = [self._item(position, node) for position, node in chunk]
        response = await self._session.call(request, ua.CreateMonitoredItemsResponse)
        if len(response.Results) != len(chunk):
            raise Disconnected(f"{self._session.where} answered {len(response.Results)} of {len(chunk)} nodes")
        return list(response.Results)

    def _item(self, position: int, node: ua.NodeId) -> ua.MonitoredItemCreateRequest:
        point = self._intake.points[position]
        item = ua.MonitoredItemCreateRequest()
        item.ItemToMonitor = ua.ReadValueId(node, ua.AttributeIds.Value)
        item.MonitoringMode = ua.MonitoringMode.Reporting
        wanted = item.RequestedParameters
        wanted.ClientHandle = position
        wanted.SamplingInterval = self._options.sampling_ms if point.sampling_ms is None else point.sampling_ms
        wanted.QueueSize = self._options.queue_size
        wanted.DiscardOldest = True
        if point.deadband > 0 and not point.text and position not in self._learned.without_filter:
            change = ua.DataChangeFilter()
            change.Trigger = ua.DataChangeTrigger.StatusValue
            change.DeadbandType = int(ua.DeadbandType.Absolute)
            change.DeadbandValue = point.deadband
            wanted.Filter = change
        return item

    async def renew(self, subscription: Subscription, positions: Sequence[int]) -> None:
        """Set up some items anew, whether the server still knows them or not."""
        await self.delete(subscription, [one for one in positions if one in subscription.items])
        await self.create(subscription, positions)

    async def delete(self, subscription: Subscription, positions: Sequence[int]) -> None:
        """Delete monitored items whose node is gone; the server may have done so itself."""
        size = min(self._learned.items_per_call, self._per_call_max)
        for first in range(0, len(positions), size):
            request = ua.DeleteMonitoredItemsRequest()
            request.Parameters.SubscriptionId = subscription.id
            chunk = positions[first : first + size]
            request.Parameters.MonitoredItemIds = [subscription.items.pop(position) for position in chunk]
            with contextlib.suppress(UaStatusCodeError):
                await self._session.call(request, ua.DeleteMonitoredItemsResponse)
