"""What a server does seldom: gaps in the sequence, limits that it does not announce, subscriptions that it ends.

The session is scripted: it answers the services as the standard has them, in the encoding of asyncua.
"""

import asyncio

import numpy as np
import pytest
from asyncua import ua
from asyncua.ua import UaStatusCodeError
from asyncua.ua.ua_binary import struct_to_binary
from opcua_peers import collect, has, last

from edge.errors import Disconnected
from edge.sources.opcua import OpcuaOptions, OpcuaPoint, parse_node
from edge.sources.opcua_audit import Canary
from edge.sources.opcua_backlog import Backlog
from edge.sources.opcua_events import Events
from edge.sources.opcua_intake import Intake
from edge.sources.opcua_items import Learned
from edge.sources.opcua_points import Namespaces
from edge.sources.opcua_recovery import Lasting, Recovery
from edge.sources.opcua_subscribe import SEQUENCE_MAX, Subscriber
from plant.batch import BAD, GOOD
from plant.texts import Texts


def response(cls, **parameters):
    one = cls()
    for name, value in parameters.items():
        setattr(one.Parameters if hasattr(one, "Parameters") else one, name, value)
    return one


def message(sequence, values, *, available=(), cls=ua.PublishResponse, subscription=1):
    change = ua.DataChangeNotification()
    change.MonitoredItems = [
        ua.MonitoredItemNotification(handle, ua.DataValue(ua.Variant(float(value), ua.VariantType.Double)))
        for handle, value in values
    ]
    one = cls()
    if cls is ua.RepublishResponse:
        note = one.NotificationMessage
    else:
        one.Parameters.SubscriptionId = subscription
        one.Parameters.AvailableSequenceNumbers = list(available)
        note = one.Parameters.NotificationMessage
    note.SequenceNumber = sequence
    note.NotificationData = [change] if values else []
    return struct_to_binary(one)


class ScriptedSession:
    """Takes at most `per_call` items in one call and `total` in all, and knows no deadband; publishes what stands in
    `published` and repeats what stands in `kept`.
    """

    where = "device plc (scripted)"

    def __init__(self, per_call=1000, total=1_000_000):
        self.per_call = per_call
        self.total = total
        self.published = asyncio.Queue()
        self.kept = {}
        self.calls = []
        self.acknowledged = []
        self.subscriptions = 0
        self.reopened = 0
        self.when_created = {}

    async def call(self, request, _response):
        if isinstance(request, ua.DeleteSubscriptionsRequest):
            return ua.DeleteSubscriptionsResponse()
        if isinstance(request, ua.CreateSubscriptionRequest):
            self.subscriptions += 1
            if self.subscriptions in self.when_created:
                self.published.put_nowait(self.when_created[self.subscriptions])
            return response(
                ua.CreateSubscriptionResponse,
                SubscriptionId=self.subscriptions,
                RevisedPublishingInterval=100.0,
                RevisedMaxKeepAliveCount=10,
            )
        items = request.Parameters.ItemsToCreate
        self.calls.append(len(items))
        if len(items) > self.per_call:
            raise UaStatusCodeError(ua.StatusCodes.BadTooManyOperations)
        one = ua.CreateMonitoredItemsResponse()
        for item in items:
            code = ua.StatusCodes.Good
            if isinstance(item.RequestedParameters.Filter, ua.DataChangeFilter):
                code = ua.StatusCodes.BadMonitoredItemFilterUnsupported
            elif self.total == 0:
                code = ua.StatusCodes.BadTooManyMonitoredItems
            else:
                self.total -= 1
            one.Results.append(ua.MonitoredItemCreateResult(StatusCode=ua.StatusCode(code), MonitoredItemId=7))
        return one

    async def read_namespaces(self):
        return ["http://opcfoundation.org/UA/"]

    async def reopen(self):
        self.reopened += 1

    async def send(self, request, *, timeout_s=None):
        if isinstance(request, ua.RepublishRequest):
            body = self.kept.get(request.Parameters.RetransmitSequenceNumber)
            if body is None:
                raise UaStatusCodeError(ua.StatusCodes.BadMessageNotAvailable)
            return body
        self.acknowledged += [one.SequenceNumber for one in request.Parameters.SubscriptionAcknowledgements]
        body = await self.published.get()
        if isinstance(body, Exception):
            raise body
        return body


class Subscribed:
    """A Subscriber on a scripted session, as an async context."""

    def __init__(self, session, count=3, **point):
        options = OpcuaOptions(name="plc", url="opc.tcp://plc", items_per_call=200, check_ms=0)
        points = [OpcuaPoint(tag=n, node=f"i={n + 1}", **point) for n in range(count)]
        self.intake = Intake(points, Texts(), "plc")
        self.learned = Learned(options.items_per_call, options.nodes_per_read)
        addresses = [parse_node(one.node) for one in points]
        self.lasting = Lasting(Canary(options.frozen_ms), Recovery("plc"), Backlog(self.intake), Events("plc", ""))
        limits = 1_000_000, 1_000_000
        self.reader = Subscriber(
            session, options, addresses, Namespaces(), self.intake, self.learned, *limits, self.lasting
        )

    async def __aenter__(self):
        await self.reader.start()
        return self

    async def __aexit__(self, *error):
        await self.reader.stop()

    async def read(self):
        return await self.reader.read()


async def test_messages_that_were_missed_are_asked_for_again_and_come_in_order():
    session = ScriptedSession()
    for sequence in (2, 3):
        session.kept[sequence] = message(sequence, [(0, sequence)], cls=ua.RepublishResponse)
    async with Subscribed(session) as one:
        session.published.put_nowait(message(1, [(0, 1)]))
        session.published.put_nowait(message(4, [(0, 4)], available=(2, 3, 4)))
        batch = await collect(one, has(0, 4.0))
        assert batch.value.tolist() == [1, 2, 3, 4]
        assert one.intake.lost == 0
        session.published.put_nowait(message(5, [(0, 5)]))
        await collect(one, has(0, 5.0))
        assert set(session.acknowledged) >= {1, 2, 3, 4}


async def test_messages_that_nobody_has_any_more_are_counted_as_lost():
    session = ScriptedSession()
    async with Subscribed(session) as one:
        session.published.put_nowait(message(1, [(0, 1)]))
        session.published.put_nowait(message(4, [(0, 4)], available=(3, 4)))  # 3 is announced and yet not there
        await collect(one, has(0, 4.0))
        assert one.intake.lost == 2
        session.published.put_nowait(message(1_000_000, [(0, 9)]))
        await collect(one, has(0, 9.0))
        assert one.intake.lost == 2 + 1_000_000 - 5


async def test_a_keep_alive_names_the_next_number_or_the_last_one_and_neither_is_a_gap():
    session = ScriptedSession()
    async with Subscribed(session) as one:
        for body in (
            message(1, []),
            message(1, [(0, 1)]),
            message(2, []),
            message(1, []),
            message(2, [(0, 2)]),
        ):
            session.published.put_nowait(body)
        await collect(one, has(0, 2.0))
        assert one.intake.lost == 0


async def test_sequence_numbers_wrap_from_the_largest_to_one():
    session = ScriptedSession()
    async with Subscribed(session) as one:
        next(iter(one.reader._subscriptions.values())).expected = SEQUENCE_MAX
        session.published.put_nowait(message(SEQUENCE_MAX, [(0, 1)]))
        session.published.put_nowait(message(1, [(0, 2)]))
        await collect(one, has(0, 2.0))
        assert one.intake.lost == 0


async def test_calls_shrink_to_what_the_server_takes_and_stay_so():
    session = ScriptedSession(per_call=30)
    async with Subscribed(session, count=100) as one:
        assert session.calls == [100, 50, 25, 25, 25, 25]
        assert one.learned.items_per_call == 25
        assert not one.intake.problems


async def test_nodes_beyond_what_the_server_watches_are_named_and_the_others_run():
    session = ScriptedSession(total=2)
    async with Subscribed(session) as one:
        session.published.put_nowait(message(1, [(0, 1), (1, 2)]))
        batch = await collect(one, has(1, 2.0, GOOD))
        assert last(batch, 2)[1] == BAD
        assert "BadTooManyMonitoredItems" in one.intake.problems[2]


async def test_a_server_without_deadbands_is_asked_without_and_not_asked_again():
    session = ScriptedSession()
    async with Subscribed(session, deadband=0.5) as one:
        assert session.calls == [3, 3]
        assert one.learned.without_filter == {0, 1, 2}
        assert not one.intake.problems


def ended(subscription):
    one = ua.PublishResponse()
    one.Parameters.SubscriptionId = subscription
    one.Parameters.NotificationMessage.SequenceNumber = 1
    change = ua.StatusChangeNotification(Status=ua.StatusCode(ua.StatusCodes.BadTimeout))
    one.Parameters.NotificationMessage.NotificationData = [change]
    return struct_to_binary(one)


@pytest.mark.parametrize("code", ["BadSessionIdInvalid", "BadSessionClosed"])
async def test_a_session_that_the_server_dropped_is_opened_anew_on_the_same_channel(code):
    session = ScriptedSession()
    async with Subscribed(session) as one:
        session.when_created[2] = message(1, [(0, 5.0)], subscription=2)
        session.published.put_nowait(UaStatusCodeError(getattr(ua.StatusCodes, code)))
        await collect(one, has(0, 5.0))
        assert (session.reopened, session.subscriptions) == (1, 2)
        assert code in one.lasting.recovery.sentence
        for _ in range(10):  # for each request on the way, as a server does
            session.published.put_nowait(UaStatusCodeError(getattr(ua.StatusCodes, code)))
        with pytest.raises(Disconnected, match=code):  # it did not help: connect anew
            await collect(one, lambda got: False)


@pytest.mark.parametrize("trouble", [UaStatusCodeError(ua.StatusCodes.BadNoSubscription), ended(1)])
async def test_a_subscription_that_the_server_ended_is_set_up_anew_then_the_session_then_the_connection(trouble):
    session = ScriptedSession()
    async with Subscribed(session) as one:
        session.when_created[2] = message(1, [(0, 5.0)], subscription=2)
        session.when_created[3] = message(1, [(0, 6.0)], subscription=3)
        session.published.put_nowait(trouble)
        await collect(one, has(0, 5.0))
        assert (session.reopened, session.subscriptions) == (0, 2)
        assert "a subscription was set up anew" in one.lasting.recovery.sentence
        session.published.put_nowait(ended(2))
        await collect(one, has(0, 6.0))
        assert (session.reopened, session.subscriptions) == (1, 3)
        assert "the session was opened anew" in one.lasting.recovery.sentence
        session.published.put_nowait(ended(3))
        with pytest.raises(Disconnected, match="BadTimeout"):
            await collect(one, lambda got: False)
        assert one.lasting.recovery.count == 3


async def test_what_breaks_the_channel_is_a_lost_connection_at_once():
    session = ScriptedSession()
    async with Subscribed(session) as one:
        session.published.put_nowait(UaStatusCodeError(ua.StatusCodes.BadSecureChannelIdInvalid))
        with pytest.raises(Disconnected, match="BadSecureChannelIdInvalid"):
            await collect(one, lambda got: False)
        assert (session.reopened, session.subscriptions) == (0, 1)


async def test_fewer_publish_requests_than_the_server_takes_are_enough():
    session = ScriptedSession()
    async with Subscribed(session) as one:
        for _ in range(2):
            session.published.put_nowait(UaStatusCodeError(ua.StatusCodes.BadTooManyPublishRequests))
        session.published.put_nowait(message(1, [(0, 1)]))
        await collect(one, has(0, 1.0))
        assert one.reader._publisher.count == 1


@pytest.mark.parametrize("body", [b"", b"\1\0\x3a\3" + bytes(40), message(1, [(99, 1.0)]), message(1, [(0, 1.0)])[:-9]])
async def test_a_message_that_makes_no_sense_is_a_lost_connection(body):
    session = ScriptedSession()
    async with Subscribed(session) as one:
        session.published.put_nowait(body)
        with pytest.raises(Disconnected):
            await collect(one, lambda got: False, 2)


async def test_two_readings_of_a_point_in_one_message_leave_the_last_state():
    session = ScriptedSession()
    async with Subscribed(session) as one:
        session.published.put_nowait(message(1, [(0, np.nan), (0, 5.0), (1, 5.0), (1, np.nan)]))
        batch = await collect(one, lambda got: len(got) == 4)
        assert batch.quality.tolist() == [BAD, GOOD, GOOD, BAD]
        assert set(one.intake.problems) == {1}
        session.published.put_nowait(message(2, [(1, 6.0)]))
        await collect(one, has(1, 6.0))
        assert not one.intake.problems
