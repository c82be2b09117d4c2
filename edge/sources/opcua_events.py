"""Events and alarms of an OPC UA server into the log of events.

Owns the monitored item on the Server object, its filter and the meaning of the fields (OPC 10000-5, 6.4.2; conditions:
OPC 10000-9, 5.5.2 and 5.7.2). Nothing is acknowledged on the server from here. Events are rare and are decoded by
asyncua; more than EVENTS_MAX between two reads are counted as lost, the oldest first.
"""

from collections import deque
from datetime import UTC, datetime
from typing import Any, Final

from asyncua import ua
from asyncua.ua import UaStatusCodeError
from asyncua.ua.ua_binary import struct_from_binary

from edge import clock
from edge.errors import Disconnected
from edge.sources.opcua_intake import explain
from edge.sources.opcua_items import Subscription
from edge.sources.opcua_session import LIBRARY_ERRORS, Session
from edge.sources.opcua_wire import Notification
from plant.events import DeviceEvent

EVENT_LIST: Final = 916
"""Numeric id of EventNotificationList_Encoding_DefaultBinary (namespace 0)."""
EVENTS_MAX: Final = 1000
TEXT_MAX: Final = 1000
"""Characters of a message that are kept."""
_QUEUE: Final = 1000
_BASE: Final = ua.ObjectIds.BaseEventType
_CONDITION: Final = ua.ObjectIds.ConditionType
_FIELDS: Final = (
    ("EventId", _BASE, ("EventId",)),
    ("EventType", _BASE, ("EventType",)),
    ("SourceName", _BASE, ("SourceName",)),
    ("Time", _BASE, ("Time",)),
    ("Message", _BASE, ("Message",)),
    ("Severity", _BASE, ("Severity",)),
    ("ConditionName", _CONDITION, ("ConditionName",)),
    ("Active", ua.ObjectIds.AlarmConditionType, ("ActiveState", "Id")),
    ("Acked", ua.ObjectIds.AcknowledgeableConditionType, ("AckedState", "Id")),
)
"""What is asked of each event: our name, the type that has the field, and its browse path."""


class Events:
    """The events of one device. arrived: what was not taken yet. lost: events that did not fit. problem: why the
    server tells none, "" = it does.
    """

    def __init__(self, device: str, asset: str) -> None:
        self.arrived: deque[DeviceEvent] = deque()
        self.lost = 0
        self.problem = ""
        self._device = device
        self._asset = asset

    async def listen(self, session: Session, subscription: Subscription, handle: int) -> None:
        """Ask for the events of the Server object. Raises Disconnected; a server that refuses is a `problem`."""
        item = ua.MonitoredItemCreateRequest()
        item.ItemToMonitor = ua.ReadValueId(ua.NodeId(ua.ObjectIds.Server), ua.AttributeIds.EventNotifier)
        item.MonitoringMode = ua.MonitoringMode.Reporting
        wanted = item.RequestedParameters
        wanted.ClientHandle = handle
        wanted.QueueSize = _QUEUE
        wanted.DiscardOldest = True
        wanted.Filter = _filter()
        request = ua.CreateMonitoredItemsRequest()
        request.Parameters.SubscriptionId = subscription.id
        request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
        request.Parameters.ItemsToCreate = [item]
        try:
            (result,) = (await session.call(request, ua.CreateMonitoredItemsResponse)).Results
        except UaStatusCodeError as error:
            self.problem = explain(error.code)
            return
        self.problem = explain(result.StatusCode.value) if result.StatusCode.is_bad() else ""

    def take(self, body: bytes, part: Notification, where: str) -> None:
        """Decode one EventNotificationList. Raises Disconnected if it is none."""
        try:
            whole = struct_from_binary(ua.EventNotificationList, ua.utils.Buffer(body[part.start : part.end]))
        except LIBRARY_ERRORS as error:
            raise Disconnected(f"{where} sent something that is no list of events: {error}") from error
        for one in whole.Events:
            values = [variant.Value for variant in one.EventFields]
            self.arrived.append(self._event(dict(zip((name for name, _, _ in _FIELDS), values, strict=False))))
        while len(self.arrived) > EVENTS_MAX:
            self.arrived.popleft()
            self.lost += 1

    def drain(self) -> list[DeviceEvent]:
        """Hand over what arrived."""
        events = list(self.arrived)
        self.arrived.clear()
        return events

    def _event(self, fields: dict[str, Any]) -> DeviceEvent:
        now = clock.now().utc
        time = fields.get("Time")
        identity = fields.get("EventId")
        return DeviceEvent(
            id="",
            time=_ns(time) if isinstance(time, datetime) else now,
            asset=self._asset,
            device=self._device,
            source=_text(fields.get("SourceName")),
            type=_text(fields.get("EventType")),
            message=_text(fields.get("Message")),
            severity=int(fields.get("Severity") or 0),
            event_id=identity.hex() if isinstance(identity, bytes) else "",
            condition=_text(fields.get("ConditionName")),
            active=fields.get("Active"),
            acknowledged=fields.get("Acked"),
        )


def _filter() -> ua.EventFilter:
    chosen = ua.EventFilter()
    for _, owner, path in _FIELDS:
        operand = ua.SimpleAttributeOperand()
        operand.TypeDefinitionId = ua.NodeId(owner)
        operand.BrowsePath = [ua.QualifiedName(name, 0) for name in path]
        operand.AttributeId = ua.AttributeIds.Value
        chosen.SelectClauses.append(operand)
    return chosen


def _ns(time: datetime) -> int:
    aware = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1e6) * 1000


def _text(value: Any) -> str:
    if isinstance(value, ua.LocalizedText):
        value = value.Text
    if isinstance(value, ua.NodeId):
        number = value.Identifier if not value.NamespaceIndex else None
        value = ua.ObjectIdNames.get(number, value.to_string()) if isinstance(number, int) else value.to_string()
    return str(value)[:TEXT_MAX] if value is not None else ""
