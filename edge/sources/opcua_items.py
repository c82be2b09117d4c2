"""Monitored items: which nodes of which subscription the server watches, and which it refuses.

Owns the calls that set items up, in the sizes that the server takes; each node is judged by its own result.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from asyncua import ua
from asyncua.ua import UaStatusCodeError
from numpy.typing import NDArray

from edge.errors import Disconnected
from edge.sources.opcua_intake import Intake
from edge.sources.opcua_options import OpcuaOptions
from edge.sources.opcua_points import Namespaces, NodeAddress, Unresolved
from edge.sources.opcua_session import TOO_MUCH, Session

_NO_FILTER: Final = frozenset(
    int(getattr(ua.StatusCodes, name))
    for name in ("BadMonitoredItemFilterUnsupported", "BadFilterNotAllowed", "BadDeadbandFilterInvalid")
)


@dataclass(slots=True, eq=False)
class Subscription:
    """One subscription. silence_ns: if we wait without a word for longer than this it is dead. heard: monotonic ns of
    the last message; waiting: since when we wait for the next one. expected: the sequence number of the next one.
    items: position -> id of the monitored item; positions: the same positions, sorted.
    """

    id: int
    silence_ns: int
    heard: int
    waiting: int
    expected: int = 1
    items: dict[int, int] = field(default_factory=dict)
    positions: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, np.intp))


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
    in the intake's problems.
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

    async def delete(self, subscription: Subscription, positions: Sequence[int]) -> None:
        """Delete monitored items whose node is gone; the server may have done so itself."""
        size = min(self._learned.items_per_call, self._per_call_max)
        for first in range(0, len(positions), size):
            request = ua.DeleteMonitoredItemsRequest()
            request.Parameters.SubscriptionId = subscription.id
            chunk = positions[first : first + size]
            request.Parameters.MonitoredItemIds = [subscription.items.pop(position) for position in chunk]
            await self._session.call(request, ua.DeleteMonitoredItemsResponse)
