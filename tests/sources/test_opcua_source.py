"""The OPC UA source against asyncua's server: values, quality, time, problems, loss and return of the connection."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import pytest_asyncio
from asyncua import ua
from asyncua.common.utils import ServiceError
from opcua_peers import (
    URI,
    Plc,
    Proxy,
    Users,
    collect,
    connected,
    free_port,
    has,
    last,
    point,
    source,
)

from edge.errors import Disconnected, Refused, Unreachable
from edge.sources.opcua import OpcuaPoint
from plant.batch import BAD, GOOD, UNCERTAIN
from plant.texts import Texts

pytestmark = pytest.mark.asyncio(loop_scope="module")

VT = ua.VariantType
MODES = pytest.mark.parametrize("mode", ["subscribe", "read"])
VALUES = {
    "double": (1.5, VT.Double, 1.5),
    "float": (0.25, VT.Float, 0.25),
    "int16": (-7, VT.Int16, -7),
    "uint32": (4_000_000_000, VT.UInt32, 4_000_000_000),
    "int64": (-(2**40), VT.Int64, -(2**40)),
    "boolean": (True, VT.Boolean, 1),
    "byte": (200, VT.Byte, 200),
    "date": (datetime(2026, 1, 1, tzinfo=UTC), VT.DateTime, 1_767_225_600),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server():
    async with Plc() as plc:
        yield plc


@pytest_asyncio.fixture(loop_scope="module")
async def plc(server):
    """One server for all tests, as its start takes a second; each finds it without nodes."""
    yield server
    for name in list(server.nodes):
        await server.remove(name)


@MODES
async def test_every_kind_of_number_arrives_with_its_value_and_the_source_time(plc, mode):
    for name, (value, kind, _) in VALUES.items():
        await plc.add(name, value, kind)
    stamp = datetime(2026, 5, 4, 3, 2, 1, 234_567, tzinfo=UTC)
    await plc.nodes["double"].write_value(ua.DataValue(ua.Variant(1.5, VT.Double), SourceTimestamp=stamp))
    points = [point(10 * n, name) for n, name in enumerate(VALUES)]
    async with connected(plc.url, points, mode=mode) as one:
        batch = await collect(one, lambda got: set(got.tag) == set(one.tags))
        for n, (_, _, number) in enumerate(VALUES.values()):
            assert last(batch, 10 * n) == (number, GOOD)
        assert (
            batch.time[batch.tag == 0][0]
            == int((stamp - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1)) * 1000
        )
        assert one.problems == {}
        assert one.mode == mode


@MODES
async def test_quality_follows_the_status_and_what_is_no_number_is_bad(plc, mode):
    good = ua.Variant(5.0, VT.Double)
    cases = {
        1: (ua.DataValue(good, StatusCode=ua.StatusCode(ua.StatusCodes.UncertainLastUsableValue)), UNCERTAIN),
        2: (ua.DataValue(good, StatusCode=ua.StatusCode(ua.StatusCodes.BadSensorFailure)), BAD),
        3: (ua.DataValue(ua.Variant(float("nan"), VT.Double)), BAD),
        4: (ua.DataValue(ua.Variant(float("inf"), VT.Double)), BAD),
        5: (ua.DataValue(ua.Variant()), BAD),
        6: (ua.DataValue(ua.Variant([1.0, 2.0], VT.Double)), BAD),
        7: (ua.DataValue(ua.Variant(2**60 + 1, VT.Int64)), UNCERTAIN),
        8: (ua.DataValue(good), GOOD),
    }
    for tag, (data, _) in cases.items():
        node = await plc.add(f"n{tag}", data.Value)
        await plc.server.write_attribute_value(node.nodeid, data)
    async with connected(plc.url, [point(tag, f"n{tag}") for tag in cases], mode=mode) as one:
        batch = await collect(one, lambda got: set(got.tag) == set(one.tags))
        for tag, (_, quality) in cases.items():
            value, found = last(batch, tag)
            assert found == quality, tag
            assert np.isnan(value) == (quality == BAD), tag
        assert set(one.problems) == {2, 3, 4, 5, 6}
        assert "BadSensorFailure" in one.problems[2]
        assert "array" in one.problems[6]
        await plc.server.write_attribute_value(plc.nodes["n2"].nodeid, ua.DataValue(good))
        await collect(one, has(2, 5.0, GOOD))
        assert 2 not in one.problems


@MODES
async def test_texts_become_codes_and_a_text_where_a_number_is_due_is_named(plc, mode):
    texts = Texts()
    await plc.add("state", "running")
    await plc.add("program", ua.LocalizedText("O100"))
    await plc.add("order", 4711)
    await plc.add("speed", "fast")
    points = [point(n, name, text=n < 3) for n, name in enumerate(["state", "program", "order", "speed"])]
    async with connected(plc.url, points, texts, mode=mode) as one:
        batch = await collect(one, lambda got: set(got.tag) == {0, 1, 2, 3})
        assert [texts.text(tag, int(last(batch, tag)[0])) for tag in range(3)] == ["running", "O100", "4711"]
        assert last(batch, 3)[1] == BAD
        assert "text where a number is due" in one.problems[3]
        await plc.write("state", "idle")
        batch = await collect(one, has(0, 2.0))
        assert texts.text(0, 2) == "idle"


@MODES
async def test_a_bad_node_among_good_ones_is_named_and_comes_alive_when_it_appears(plc, mode):
    await plc.add("speed", 1.0)
    points = [point(1, "speed"), point(2, "late"), OpcuaPoint(tag=3, node=f"nsu=urn:nowhere:{mode};s=x")]
    async with connected(plc.url, points, mode=mode) as one:
        batch = await collect(one, has(1, 1.0))
        if mode == "subscribe":
            assert [int(q) for q in batch.quality[batch.tag == 2]] == [BAD]
        assert last(batch, 3)[1] == BAD
        assert "BadNodeIdUnknown" in one.problems[2]
        assert plc.url in one.problems[2]
        assert "tags.csv" in one.problems[2]
        assert "urn:nowhere" in one.problems[3]
        await plc.add("late", 42.0)
        other = await plc.server.register_namespace(f"urn:nowhere:{mode}")
        await plc.server.nodes.objects.add_variable(ua.NodeId("x", other), "x", 7.0)
        batch = await collect(one, lambda got: has(2, 42.0, GOOD)(got) and has(3, 7.0, GOOD)(got))
        assert one.problems == {}


async def test_a_node_that_vanishes_and_returns_while_it_is_read_comes_alive_again(plc):
    await plc.add("speed", 1.0)
    await plc.add("load", 2.0)
    async with connected(plc.url, [point(1, "speed"), point(2, "load")], mode="read") as one:
        await collect(one, lambda got: has(1, 1.0)(got) and has(2, 2.0)(got))
        await plc.remove("load")
        await collect(one, lambda got: has(2, None, BAD)(got) and has(1, 1.0, GOOD)(got))
        assert "BadNodeIdUnknown" in one.problems[2]
        await plc.add("load", 3.0)
        await collect(one, has(2, 3.0, GOOD))
        assert one.problems == {}


async def return_after(plc, one, **restart):
    """Stop the server, see the loss, start another one on the same port and connect again."""
    port = plc.port
    await plc.__aexit__()
    with pytest.raises(Disconnected, match=str(port)):
        await collect(one, lambda got: False)
    with pytest.raises(Unreachable, match=str(port)):
        await one.connect()
    again = Plc(port, **restart)
    await again.__aenter__()
    return again


async def test_after_a_restart_the_surviving_nodes_return_and_the_missing_one_is_named():
    plc = Plc()
    await plc.__aenter__()
    await plc.add("speed", 1.0)
    await plc.add("load", 2.0)
    one = source(plc.url, [point(1, "speed"), point(2, "load")])
    try:
        await one.connect()
        await collect(one, lambda got: has(1, 1.0)(got) and has(2, 2.0)(got))
        plc = await return_after(plc, one)
        await plc.add("speed", 5.0)
        await one.connect()
        batch = await collect(one, has(1, 5.0, GOOD))
        assert last(batch, 2)[1] == BAD
        assert list(one.problems) == [2]
    finally:
        await one.close()
        await plc.__aexit__()


@MODES
async def test_after_a_restart_nodes_are_found_although_the_namespace_index_has_moved(mode):
    plc = Plc()
    await plc.__aenter__()
    await plc.add("speed", 1.0)
    one = source(plc.url, [point(1, "speed"), OpcuaPoint(tag=2, node=f"ns={plc.index};s=speed")], mode=mode)
    try:
        await one.connect()
        await collect(one, lambda got: has(1, 1.0)(got) and has(2, 1.0)(got))
        assert one.first_contact == {2: URI}
        plc = await return_after(plc, one, shift=1)
        assert plc.index == 3
        await plc.add("speed", 6.0)
        await one.connect()
        await collect(one, lambda got: has(1, 6.0, GOOD)(got) and has(2, 6.0, GOOD)(got))
    finally:
        await one.close()
        await plc.__aexit__()


async def test_many_nodes_need_several_subscriptions_and_calls_and_all_arrive(plc):
    for n in range(60):
        await plc.add(f"n{n}", float(n))
    points = [point(1000 + n, f"n{n}") for n in range(60)]
    sizes = {"items_per_subscription": 25, "items_per_call": 7, "nodes_per_read": 9}
    for mode in ("subscribe", "read"):
        async with connected(plc.url, points, mode=mode, **sizes) as one:
            batch = await collect(one, lambda got: len(set(got.tag)) == 60)
            assert all(last(batch, 1000 + n) == (n, GOOD) for n in range(60))


async def test_changes_within_the_deadband_are_not_sent(plc):
    await plc.add("level", 10.0)
    await plc.add("mark", 0.0)
    async with connected(plc.url, [point(1, "level", deadband=1.0), point(2, "mark")]) as one:
        await collect(one, lambda got: has(1, 10.0)(got) and has(2)(got))
        await plc.write("level", 10.5)
        await plc.write("mark", 1.0)
        batch = await collect(one, has(2, 1.0))
        assert 1 not in batch.tag
        await plc.write("level", 12.0)
        await collect(one, has(1, 12.0, GOOD))


async def test_a_steady_value_is_repeated_while_the_server_gives_signs_of_life(plc):
    await plc.add("steady", 3.0)
    async with connected(plc.url, [point(1, "steady")], repeat_ms=300) as one:
        first = await collect(one, has(1, 3.0))
        batch = await collect(one, lambda got: len(got) >= 2)
        assert set(batch.value) == {3.0}
        assert np.all(np.diff(np.concatenate([first.time, batch.time])) > 0)
        assert batch.time[-1] <= time.time_ns()


async def test_a_server_without_subscriptions_is_read(plc, monkeypatch):
    await plc.add("speed", 1.0)

    async def refuse(*args, **kwargs):
        raise ServiceError(ua.StatusCodes.BadServiceUnsupported)

    monkeypatch.setattr(plc.server.iserver.subscription_service, "create_subscription", refuse)
    async with connected(plc.url, [point(1, "speed")], mode="auto") as one:
        assert one.mode == "read"
        await collect(one, has(1, 1.0))
        await plc.write("speed", 2.0)
        await collect(one, has(1, 2.0, GOOD))
    with pytest.raises(Unreachable, match="mode = read"):
        async with connected(plc.url, [point(1, "speed")], mode="subscribe"):
            pass


async def test_a_polled_value_that_stands_still_grows_no_older_than_the_server_says(plc):
    await plc.add("steady", 1.0)
    old = datetime.now(UTC) - timedelta(hours=1)
    await plc.nodes["steady"].write_value(ua.DataValue(ua.Variant(1.0, VT.Double), SourceTimestamp=old))
    async with connected(plc.url, [point(1, "steady")], mode="read") as one:
        batch = await collect(one, lambda got: len(got) >= 3)
        assert np.all(np.diff(batch.time) >= 0)
        assert time.time_ns() - batch.time[0] > 3_000_000_000_000
        assert set(batch.quality) == {GOOD}


@MODES
async def test_a_server_that_falls_silent_is_lost_and_close_does_not_wait_for_it(plc, mode):
    async with Proxy(plc.port) as wire:
        await plc.add("speed", 1.0)
        url = f"opc.tcp://127.0.0.1:{wire.port}/plc"
        one = source(url, [point(1, "speed")], mode=mode, deadline_ms=800)
        try:
            await one.connect()
            await collect(one, has(1, 1.0))
            wire.flows.clear()
            with pytest.raises(Disconnected, match=r"silent|did not answer"):
                await collect(one, lambda got: False)
        finally:
            start = time.monotonic()
            await one.close()
            assert time.monotonic() - start < 4
        with pytest.raises(Unreachable, match="800 ms"):
            await one.connect()
        wire.flows.set()
        await one.connect()
        await collect(one, has(1, 1.0, GOOD))
        await one.close()


async def test_a_reader_that_pauses_longer_than_the_keep_alive_is_not_taken_for_a_silent_server(plc):
    await plc.add("speed", 1.0)
    async with connected(plc.url, [point(1, "speed")], keepalive_ms=100) as one:
        await collect(one, has(1, 1.0))
        await asyncio.sleep(1.6)  # longer than the silence that is allowed: 1.5 x 100 ms + 1 s
        await plc.write("speed", 2.0)
        await collect(one, has(1, 2.0, GOOD))


async def test_nothing_is_left_on_the_server_after_close(plc):
    await plc.add("speed", 1.0)
    service = plc.server.iserver.subscription_service
    async with connected(plc.url, [point(1, "speed")]) as one:
        await collect(one, has(1))
        assert len(service.subscriptions) == 1
    assert not service.subscriptions
    await one.close()
    with pytest.raises(Disconnected):
        await one.read()


async def test_user_and_password_are_accepted_and_a_wrong_password_is_refused_by_name(tmp_path):
    secret = tmp_path / "password"
    secret.write_text("s3cret\n", encoding="utf-8")
    asks = {"user": "andon", "password_file": secret, "allow_plaintext_password": True}
    async with Plc(users=Users()) as plc:
        await plc.add("speed", 1.0)
        async with connected(plc.url, [point(1, "speed")], **asks) as one:
            await collect(one, has(1, 1.0))
        secret.write_text("wrong", encoding="utf-8")
        with pytest.raises(Refused, match=r"(?s)plc.*opc\.tcp.*'andon'"):
            await source(plc.url, [], **asks).connect()
        with pytest.raises(Refused, match="anonymous"):
            await source(plc.url, []).connect()
        secret.unlink()
        with pytest.raises(Refused, match=str(secret)):
            await source(plc.url, [], **asks).connect()


async def test_a_port_where_nobody_listens_is_unreachable():
    one = source(f"opc.tcp://127.0.0.1:{free_port()}", [])
    with pytest.raises(Unreachable, match=r"plc.*127\.0\.0\.1"):
        await one.connect()
    await one.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"ACKF\xff\xff\xff\x7f" + bytes(100),
        b"ACKF\x1c\0\0\0" + bytes(20) + b"MSGF\x20\0\0\0" + b"\xff" * 24,
        b"",
    ],
)
async def test_a_peer_that_speaks_something_else_is_unreachable_not_a_crash(answer):
    async def speak(reader, writer):
        await reader.read(100)
        writer.write(answer)
        await writer.drain()
        if not answer:
            writer.close()
        else:
            await reader.read()
            writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Unreachable):
            await source(f"opc.tcp://127.0.0.1:{port}", [], deadline_ms=500).connect()
