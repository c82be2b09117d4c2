"""Servers that stop telling although the connection stands: each kind of trouble, and the cheapest step that helps.

asyncua's server is made to misbehave: its clock stops, its items or subscriptions fall silent, its answers vanish.
"""

import asyncio
import contextlib

import pytest
import pytest_asyncio
from asyncua import ua
from opcua_peers import Plc, Proxy, collect, connected, has, point, source

from edge.errors import Disconnected, Unreachable
from edge.sources.opcua_recovery import HANG_UP_NS, RECUR_NS, TOLD_NS, Recovery, Step
from edge.sources.supervisor import Backoff, Supervisor
from edge.tick import Occurred
from plant.batch import GOOD, concat
from plant.instant import NS_PER_S, Instant

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    # asyncua's server drops callbacks of items whose node is removed.
    pytest.mark.filterwarnings("ignore:.*datachange_callback:pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:.*datachange_callback:RuntimeWarning"),
]
MODES = pytest.mark.parametrize("mode", ["subscribe", "read"])
WATCHFUL = {"check_ms": 100, "frozen_ms": 1500, "repeat_ms": 0}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server():
    async with Plc() as plc:
        yield plc


@pytest_asyncio.fixture(loop_scope="module")
async def plc(server):
    yield server
    for name in list(server.nodes):
        await server.remove(name)


def subscriptions(plc):
    return list(plc.server.iserver.subscription_service.subscriptions.values())


async def steps(one, count, deadline_s=15.0):
    """Read until so many steps were taken; return what was read."""
    got = []
    async with asyncio.timeout(deadline_s):
        while one._lasting.recovery.count < count:
            got.append(await one.read())
    return concat([batch for batch in got if len(batch)])


@contextlib.asynccontextmanager
async def clock_stopped(plc):
    """The server's own time stands still; everything else works."""
    inner = plc.server.iserver
    inner._time_task_stop = True
    await inner.time_task
    try:
        yield
    finally:
        inner._time_task_stop = False
        inner.time_task = asyncio.create_task(inner._set_current_time_loop())


@MODES
async def test_a_server_whose_time_stands_still_hangs_and_is_not_taken_back_until_it_goes_on(plc, mode):
    await plc.add("speed", 1.0)
    one = source(plc.url, [point(1, "speed")], mode=mode, **WATCHFUL)
    await one.connect()
    try:
        await collect(one, has(1, 1.0))
        async with clock_stopped(plc):
            with pytest.raises(Disconnected, match="its own time stands still at"):
                await collect(one, lambda got: False)
            with pytest.raises(Unreachable, match="its own time stands still at"):
                await one.connect()
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(Unreachable):
                    await one.connect()
                    break
        await collect(one, has(1, 1.0))
    finally:
        await one.close()


async def test_a_server_that_keeps_telling_news_is_not_judged_by_its_clock(plc):
    await plc.add("speed", 0.0)
    async with clock_stopped(plc), connected(plc.url, [point(1, "speed")], **WATCHFUL) as one:
        await collect(one, has(1, 0.0))
        loop = asyncio.get_running_loop()
        end = loop.time() + 2.5
        value = 0.0
        while loop.time() < end:
            value += 1.0
            await plc.write("speed", value)
            await collect(one, has(1, value))
            await asyncio.sleep(0.1)


def silence(plc, names):
    """Take the server's listeners off some nodes: items stay, nothing is told of them any more."""
    space = plc.server.iserver.aspace
    for name in names:
        node = space._nodes[plc.nodes[name].nodeid]
        node.attributes[ua.AttributeIds.Value].datachange_callbacks.clear()


async def test_a_node_that_the_server_forgot_is_read_and_set_up_anew_and_the_others_are_left_alone(plc):
    names = [f"n{n}" for n in range(6)]
    for name in names:
        await plc.add(name, 0.0)
    async with connected(plc.url, [point(n, name) for n, name in enumerate(names)], **WATCHFUL) as one:
        await collect(one, lambda got: set(got.tag) == set(range(6)))
        (before,) = subscriptions(plc)
        silence(plc, ["n3"])
        await plc.write("n3", 7.0)
        await collect(one, has(3, 7.0, GOOD))
        assert "monitored items were set up anew" in one.recovery
        assert "n3" in one.recovery
        assert subscriptions(plc) == [before]
        await plc.write("n3", 8.0)
        await collect(one, has(3, 8.0, GOOD))
        assert one._lasting.recovery.count == 1


async def test_a_subscription_that_lost_its_nodes_is_climbed_up_from_items_to_subscription(plc):
    names = [f"n{n}" for n in range(4)]
    for name in names:
        await plc.add(name, 0.0)
    async with connected(plc.url, [point(n, name) for n, name in enumerate(names)], **WATCHFUL) as one:
        await collect(one, lambda got: set(got.tag) == set(range(4)))
        (before,) = subscriptions(plc)
        for round_ in (1.0, 2.0):
            silence(plc, names)
            for name in names:
                await plc.write(name, round_)
            await collect(one, lambda got, value=round_: all(has(n, value, GOOD)(got) for n in range(4)))
        assert one._lasting.recovery.count == 2
        assert "a subscription was set up anew" in one.recovery
        await plc.write("n0", 9.0)
        await collect(one, has(0, 9.0))
        assert before not in subscriptions(plc)
        assert len(subscriptions(plc)) == 1


async def test_a_subscription_that_the_server_dropped_without_a_word_is_set_up_anew(plc):
    await plc.add("speed", 1.0)
    async with connected(plc.url, [point(1, "speed")], **WATCHFUL) as one:
        await collect(one, has(1, 1.0))
        (gone,) = subscriptions(plc)
        await gone.stop()
        del plc.server.iserver.subscription_service.subscriptions[gone.data.SubscriptionId]
        await plc.write("speed", 2.0)
        await collect(one, has(1, 2.0))
        assert one._lasting.recovery.count == 1
        assert len(subscriptions(plc)) == 1


async def test_a_session_that_the_server_forgot_is_opened_anew_on_the_same_connection(plc):
    await plc.add("speed", 1.0)
    async with connected(plc.url, [point(1, "speed")], **WATCHFUL) as one:
        await collect(one, has(1, 1.0))
        transport = one._session.client.uaclient.protocol.transport
        session = one._session
        one._reader._publisher.arrived.put_nowait(failure(one, "BadSessionIdInvalid"))
        await plc.write("speed", 2.0)
        await collect(one, has(1, 2.0))
        await plc.write("speed", 3.0)
        await collect(one, has(1, 3.0))
        assert one._session is session
        assert session.client.uaclient.protocol.transport is transport
        assert "the session was opened anew" in one.recovery


def failure(one, code):
    from edge.sources.opcua_publish import Failure

    return Failure(ua.UaStatusCodeError(getattr(ua.StatusCodes, code)), one._reader._publisher._round)


class Sieve(Proxy):
    """A wire that swallows the answers of the server to PublishRequests while `swallows`."""

    swallows = False
    swallowed = 0

    async def _answer(self, reader, writer):
        while True:
            try:
                head = await reader.readexactly(8)
            except asyncio.IncompleteReadError:
                return
            body = await reader.readexactly(int.from_bytes(head[4:], "little") - 8)
            await self.flows.wait()
            # After channel, token, sequence and request: the node id of a PublishResponse, i=829 in four bytes.
            sequence = int.from_bytes(body[8:12], "little") - self.swallowed
            if self.swallows and head[:3] == b"MSG" and body[16:20] == b"\x01\x00" + (829).to_bytes(2, "little"):
                self.swallowed += 1
                continue
            # The channel counts its messages; nobody is to see that some are missing.
            writer.write(head + body[:8] + sequence.to_bytes(4, "little") + body[12:])


async def test_publish_responses_that_vanish_on_the_way_are_found_and_asked_for_anew(plc):
    await plc.add("speed", 1.0)
    async with (
        Sieve(plc.port) as wire,
        connected(f"opc.tcp://127.0.0.1:{wire.port}/plc", [point(1, "speed")], **WATCHFUL) as one,
    ):
        await collect(one, has(1, 1.0))
        wire.swallows = True
        await plc.write("speed", 2.0)
        async with asyncio.timeout(5):
            while not wire.swallowed:
                await asyncio.sleep(0.01)
        wire.swallows = False
        await collect(one, has(1, 2.0))
        await plc.write("speed", 3.0)
        await collect(one, has(1, 3.0))
        assert len(subscriptions(plc)) <= 1


async def test_a_server_that_answers_all_but_publishes_nothing_goes_up_the_whole_ladder(plc):
    await plc.add("speed", 1.0)
    async with (
        Sieve(plc.port) as wire,
        connected(f"opc.tcp://127.0.0.1:{wire.port}/plc", [point(1, "speed")], **WATCHFUL | {"check_ms": 0}) as one,
    ):
        await collect(one, has(1, 1.0))
        wire.swallows = True
        with pytest.raises(Disconnected, match="silent"):
            await collect(one, lambda got: False, 15.0)
        assert one._lasting.recovery.count == 3
        assert "the connection is opened anew" in one.recovery


async def test_while_nothing_is_published_the_audit_brings_the_values(plc):
    await plc.add("speed", 1.0)
    async with (
        Sieve(plc.port) as wire,
        connected(f"opc.tcp://127.0.0.1:{wire.port}/plc", [point(1, "speed")], **WATCHFUL) as one,
    ):
        await collect(one, has(1, 1.0))
        wire.swallows = True
        await plc.write("speed", 2.0)
        with contextlib.suppress(Disconnected):
            await collect(one, has(1, 2.0), 15.0)
        assert one._lasting.recovery.count >= 1


async def test_a_channel_that_cannot_be_renewed_is_a_lost_connection(plc):
    await plc.add("speed", 1.0)
    async with connected(plc.url, [point(1, "speed")], **WATCHFUL) as one:
        await collect(one, has(1, 1.0))
        session = one._session
        session._renewal.cancel()
        session.client.secure_channel_timeout = 100

        async def refused(renew=False):
            raise ua.UaStatusCodeError(ua.StatusCodes.BadSecureChannelTokenUnknown)

        session.client.open_secure_channel = refused
        session.start_renewal()
        with pytest.raises(Disconnected, match="connection was lost"):
            await collect(one, lambda got: False)


async def test_a_step_stands_in_the_sentence_of_the_device_while_it_is_connected(plc):
    await plc.add("speed", 1.0)
    signals, batches = [], []

    async def take(batch):
        batches.append(batch)

    one = source(plc.url, [point(1, "speed")], **WATCHFUL)
    quick = Backoff(first_s=0.01, least_s=0.01)
    supervisor = Supervisor(one, tags={1: "speed"}, put=take, signal=signals.append, backoff=quick)
    task = asyncio.create_task(supervisor.run())
    try:
        async with asyncio.timeout(15):
            while not (batches and has(1, 1.0)(concat(batches))):
                await asyncio.sleep(0.01)
            assert supervisor.status.sentence == ""
            silence(plc, ["speed"])
            await plc.write("speed", 2.0)
            while not has(1, 2.0)(concat(batches)):
                await asyncio.sleep(0.01)
            await asyncio.sleep(0)
            assert supervisor.status.state == "connected"
            assert "were set up anew" in supervisor.status.sentence
        assert not [s for s in signals if isinstance(s, Occurred)]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Time:
    def __init__(self):
        self.now = Instant(1_700_000_000 * NS_PER_S, 1)

    def __call__(self):
        return self.now

    def pass_(self, ns):
        self.now = Instant(self.now.utc + ns, self.now.monotonic + ns)


async def test_each_step_is_followed_by_the_next_one_only_while_the_trouble_is_fresh():
    time = Time()
    ladder = Recovery("plc", time)
    assert [ladder.climb(0, Step.ITEM, "x") for _ in range(5)] == [1, 2, 3, 4, 4]
    assert ladder.climb(1, Step.ITEM, "x") is Step.CLIENT  # what was done for all subscriptions counts for each
    time.pass_(RECUR_NS + 1)
    assert ladder.climb(0, Step.ITEM, "x") is Step.ITEM
    assert ladder.climb(1, Step.SUBSCRIPTION, "x") is Step.SUBSCRIPTION
    assert ladder.climb(0, Step.SUBSCRIPTION, "x") is Step.SUBSCRIPTION
    assert ladder.last(0) is Step.SUBSCRIPTION
    assert ladder.sentence.startswith("At 2023-11-14T22:14:20Z a subscription was set up anew: x.")
    time.pass_(TOLD_NS + 1)
    assert ladder.sentence == ""
    assert ladder.last(0) is None


async def test_silent_nodes_that_nothing_helps_do_not_cost_the_others_their_connection_again_and_again():
    time = Time()
    ladder = Recovery("plc", time)
    assert ladder.may_hang_up()
    assert not ladder.may_hang_up()
    assert ladder.news([1, 2]) == [1, 2]
    assert ladder.news([2, 3]) == [3]
    time.pass_(HANG_UP_NS + 1)
    assert ladder.may_hang_up()
    assert ladder.news([2]) == [2]


async def test_a_node_whose_first_notification_never_came_is_set_up_anew_but_a_slow_server_has_its_time(
    plc, monkeypatch
):
    await plc.add("speed", 1.0)
    await plc.add("late", 5.0)
    async with connected(plc.url, [point(1, "speed"), point(2, "late")], **WATCHFUL) as one:
        await collect(one, lambda got: set(got.tag) == {1, 2})
        one._intake.told[1] = 0  # as if nothing had come for it
        loop = asyncio.get_running_loop()
        end = loop.time() + 2.0
        while loop.time() < end:
            await one.read()
        assert one._lasting.recovery.count == 0
        monkeypatch.setattr("edge.sources.opcua_audit.FIRST_NS", 0)
        await steps(one, 1)
        await collect(one, lambda got: 2 in got.tag)
        assert one._intake.told[1] > 0
