"""Back-fill: what a server recorded while we could not listen comes from its history, once, marked, in order."""

import contextlib
from datetime import UTC, datetime

import numpy as np
import pytest
import pytest_asyncio
from asyncua import ua
from opcua_peers import Plc, Proxy, Running, break_of, last, point

from edge import clock
from edge.tick import Occurred
from plant.batch import BAD, concat
from plant.events import Gap
from plant.texts import Texts

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    # asyncua's server drops callbacks of its own history when a node is removed.
    pytest.mark.filterwarnings("ignore:.*datachange_callback:pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:.*datachange_callback:RuntimeWarning"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server():
    async with Plc() as plc:
        yield plc


@pytest_asyncio.fixture(loop_scope="module")
async def plc(server):
    yield server
    for name in list(server.nodes):
        with contextlib.suppress(ua.UaError):
            await server.server.dehistorize_node_data_change(server.nodes[name])
        await server.remove(name)
    server.server.iserver.history_manager.storage._datachanges.clear()


async def recorded(plc, name, value, count=100_000):
    """Add a variable whose changes the server records."""
    node = await plc.add(name, value)
    await plc.server.historize_node_data_change(node, period=None, count=count)
    return node


@pytest.mark.parametrize("mode", ["subscribe", "read"])
async def test_what_changed_during_a_break_comes_from_the_history_once_and_in_order(plc, mode):
    for name in ("speed", "load"):
        await recorded(plc, name, 0.0)
    await plc.add("plain", 0.0)
    points = [point(1, "speed"), point(2, "load"), point(3, "plain")]
    async with Proxy(plc.port) as wire, Running(plc, points, wire, mode=mode, repeat_ms=0) as one:
        await one.sees(1, 0.0)
        for n in range(1, 4):
            await plc.write("speed", float(n))
            await one.sees(1, float(n))
        await one.sees(3, 0.0)
        async with break_of(wire, one):
            for n in range(4, 24):
                await plc.write("speed", float(n))
            for n in range(1, 6):
                await plc.write("plain", float(n))
        await one.sees(1, 23.0)
        await one.until(one.filled)
        await plc.write("speed", 24.0)
        await one.sees(1, 24.0)
        got = one.values(1)
        changes = got.value[np.r_[True, np.diff(got.value) != 0]]
        assert changes.tolist() == [float(n) for n in range(25)]
        past = concat(one.past)
        assert past.value.tolist() == [float(n) for n in range(4, 23)]  # 23 came live
        assert (np.diff(past.time) > 0).all()
        assert not set(past.time) & set(concat(one.live).time)
        (event,) = one.filled()
        assert (event.count, event.tags, event.without, event.cut) == (19, 1, 1, 0)
        gaps = [s.event for s in one.signals if isinstance(s, Occurred) and isinstance(s.event, Gap)]
        assert [gap.reason for gap in gaps if gap.count == -1] == ["disconnected"]
        assert event.start < gaps[0].end


async def test_nothing_is_asked_for_a_point_that_missed_nothing(plc):
    await recorded(plc, "speed", 1.0)
    await recorded(plc, "still", 5.0)
    points = [point(1, "speed"), point(2, "still")]
    async with Proxy(plc.port) as wire, Running(plc, points, wire) as one:
        await one.sees(2, 5.0)
        async with break_of(wire, one):
            for n in (2.0, 3.0):
                await plc.write("speed", n)
        await one.until(one.filled)
        assert concat(one.past).tag.tolist() == [1]
        assert one.filled()[0].tags == 1


async def test_a_long_history_comes_in_chunks_and_texts_and_bad_values_keep_their_meaning(plc):
    await recorded(plc, "speed", 0.0)
    await recorded(plc, "state", "idle")
    texts = Texts()
    points = [point(1, "speed"), point(2, "state", text=True)]
    async with Proxy(plc.port) as wire, Running(plc, points, wire, texts) as one:
        await one.sees(1, 0.0)
        await one.until(lambda: 2 in concat(one.live).tag)
        async with break_of(wire, one):
            for n in range(1, 2501):
                await plc.write("speed", float(n))
            for word in ("setup", "running", "down"):
                await plc.write("state", word)
            bad = ua.DataValue(ua.Variant(0.0, ua.VariantType.Double), ua.StatusCode(ua.StatusCodes.BadSensorFailure))
            bad.SourceTimestamp = clock_date()
            await plc.nodes["speed"].write_value(bad)
            await plc.write("speed", -1.0)
        await one.until(one.filled)
        past = concat(one.past)
        speed = past.select(past.tag == 1)
        assert speed.value[:-1].tolist() == [float(n) for n in range(1, 2501)]
        assert speed.quality[-1] == BAD
        assert np.isnan(speed.value[-1])
        words = past.select(past.tag == 2).value
        assert [texts.text(2, int(code)) for code in words] == ["setup", "running"]
        assert len(one.past) >= 3


async def test_a_break_while_the_history_is_read_loses_and_doubles_nothing(plc):
    await recorded(plc, "speed", 0.0)
    async with Proxy(plc.port) as wire, Running(plc, [point(1, "speed")], wire, backfill_rows_per_s=4000) as one:
        await one.sees(1, 0.0)
        async with break_of(wire, one):
            for n in range(1, 3500):
                await plc.write("speed", float(n))
        await one.until(lambda: one.past)
        async with break_of(wire, one):
            for n in range(3500, 3600):
                await plc.write("speed", float(n))
        await one.sees(1, 3599.0)
        await one.until(lambda: sum(event.count for event in one.filled()) >= 3596)
        got = one.values(1)
        changes = got.value[np.r_[True, np.diff(got.value) != 0]]
        assert changes.tolist() == [float(n) for n in range(3600)]
        past = concat(one.past)
        assert len(set(past.time.tolist())) == len(past)


async def test_a_history_that_holds_more_than_is_taken_is_cut_and_the_report_says_so(plc):
    await recorded(plc, "speed", 0.0)
    async with Proxy(plc.port) as wire, Running(plc, [point(1, "speed")], wire, backfill_rows_max=1000) as one:
        await one.sees(1, 0.0)
        async with break_of(wire, one):
            for n in range(1, 2500):
                await plc.write("speed", float(n))
        await one.until(one.filled)
        (event,) = one.filled()
        assert (event.count, event.cut) == (1000, 1)
        assert last(concat(one.past), 1)[0] == 1000.0


async def test_the_history_is_left_alone_if_nobody_wants_it(plc):
    await recorded(plc, "speed", 0.0)
    async with Proxy(plc.port) as wire, Running(plc, [point(1, "speed")], wire, backfill=False) as one:
        await one.sees(1, 0.0)
        async with break_of(wire, one):
            for n in range(1, 5):
                await plc.write("speed", float(n))
        await one.sees(1, 4.0)
        await plc.write("speed", 5.0)
        await one.sees(1, 5.0)
        assert not one.past
        assert not one.filled()


def clock_date():
    return datetime.fromtimestamp(clock.now().utc / 1e9, UTC)
