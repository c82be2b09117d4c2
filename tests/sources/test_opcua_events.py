"""Events and alarms of a server come into the log of events, also after its subscription was set up anew."""

import asyncio

import pytest
import pytest_asyncio
from asyncua import ua
from opcua_peers import Plc, collect, connected, has, point

from edge.sources.opcua_events import EVENTS_MAX
from edge.sources.supervisor import Supervisor
from edge.tick import Occurred
from plant.events import DeviceEvent, from_record, to_record

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plc():
    async with Plc() as one:
        await one.add("speed", 1.0)
        yield one


async def fire(plc, message, severity=500, kind=ua.ObjectIds.BaseEventType):
    generator = await plc.server.get_event_generator(kind, plc.server.nodes.server)
    generator.event.Severity = severity
    generator.event.SourceName = "spindle"
    await generator.trigger(message=message)


async def told(one, count, deadline_s=10.0):
    events = []
    async with asyncio.timeout(deadline_s):
        while len(events) < count:
            await one.read()
            events += one.take_events()
    return events


async def test_an_event_of_the_server_arrives_with_its_time_source_text_and_severity(plc):
    async with connected(plc.url, [point(1, "speed")], events=True) as one:
        await collect(one, has(1, 1.0))
        assert one._lasting.events.problem == ""
        await fire(plc, "coolant is low", 700)
        (event,) = await told(one, 1)
        assert isinstance(event, DeviceEvent)
        assert (event.device, event.asset, event.source) == ("plc", "a/b/c", "spindle")
        assert (event.message, event.severity, event.type) == ("coolant is low", 700, "BaseEventType")
        assert (event.condition, event.active, event.acknowledged) == ("", None, None)
        assert len(event.event_id) > 8
        assert from_record(to_record(event)) == event
        assert has(1, 1.0)(await _value(plc, one))


async def _value(plc, one):
    await plc.write("speed", 2.0)
    await collect(one, has(1, 2.0))
    await plc.write("speed", 1.0)
    return await collect(one, has(1, 1.0))


async def test_events_go_on_after_the_subscription_was_set_up_anew(plc):
    async with connected(plc.url, [point(1, "speed")], events=True) as one:
        await collect(one, has(1, 1.0))
        (subscription,) = one._reader._subscriptions.values()
        await one._reader._renew(subscription)
        await fire(plc, "door is open")
        assert [event.message for event in await told(one, 1)] == ["door is open"]


async def test_nothing_is_asked_for_by_default(plc):
    async with connected(plc.url, [point(1, "speed")]) as one:
        await collect(one, has(1, 1.0))
        await fire(plc, "nobody listens")
        await _value(plc, one)
        assert one.take_events() == []


async def test_a_flood_of_events_is_bounded_and_counted(plc):
    async with connected(plc.url, [point(1, "speed")], events=True) as one:
        await collect(one, has(1, 1.0))
        events = one._lasting.events
        for n in range(EVENTS_MAX + 5):
            events.arrived.append(n)
        await fire(plc, "one more")
        async with asyncio.timeout(10):
            while not events.lost:
                await one.read()
        assert len(events.arrived) == EVENTS_MAX
        assert events.lost == one.lost == 6


async def test_events_reach_the_line_as_signals(plc):
    signals = []

    async def take(_batch):
        pass

    from opcua_peers import source

    one = source(plc.url, [point(1, "speed")], events=True, keepalive_ms=100)
    task = asyncio.create_task(Supervisor(one, tags={1: "speed"}, put=take, signal=signals.append).run())
    try:
        async with asyncio.timeout(15):
            while one._reader is None or not signals:
                await asyncio.sleep(0.01)
            await fire(plc, "tool is worn")
            while not [s for s in signals if isinstance(s, Occurred) and isinstance(s.event, DeviceEvent)]:
                await asyncio.sleep(0.01)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
