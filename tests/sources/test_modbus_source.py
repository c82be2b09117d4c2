"""The Modbus source against servers on loopback: libmodbus, pymodbus, and one that misbehaves on purpose."""

import asyncio
import math
import struct

import numpy as np
import pytest
from modbus_peers import Asked, Scripted, libmodbus, libmodbus_binary, pymodbus_server, source  # noqa: F401
from pymodbus.framer import FramerSocket
from pymodbus.pdu import DecodePDU
from pymodbus.pdu.bit_message import ReadCoilsRequest, ReadDiscreteInputsRequest
from pymodbus.pdu.register_message import ReadHoldingRegistersRequest, ReadInputRegistersRequest

from edge import clock
from edge.errors import Disconnected, Unreachable
from edge.sources.modbus_wire import ExceptionReply, MalformedReply, ReplyTimeout, connect
from plant.batch import BAD, GOOD, Batch


def values(batch: Batch) -> dict[int, float]:
    return {int(t): float(v) for t, v, q in zip(batch.tag, batch.value, batch.quality, strict=True) if q == GOOD}


def bad_tags(batch: Batch) -> set[int]:
    return set(batch.tag[batch.quality == BAD].tolist())


async def read_until(modbus, right, limit: int = 200) -> Batch:
    """Read until a batch is as expected."""
    async with asyncio.timeout(20):
        for _ in range(limit):
            batch = await modbus.read()
            if right(batch):
                return batch
    raise AssertionError(f"never came: {batch}, {modbus.problems}")


# --- independent servers


async def test_every_area_of_a_libmodbus_server_is_read_in_blocks(libmodbus):  # noqa: F811
    rows = [(f"holding/{i}", "uint16", "") for i in range(300)]
    rows += [(f"input/{i}", "uint16", "") for i in range(10)]
    rows += [(f"coil/{i}", "bool", "") for i in range(30)]
    rows += [(f"discrete/{i}", "bool", "") for i in range(30)]
    rows += [("holding/258.8", "bool", ""), ("holding/258.0", "bool", ""), ("holding/256", "uint32", "CDAB")]
    modbus = source(libmodbus, rows)
    await modbus.connect()
    before = clock.now().utc
    batch = await modbus.read()
    after = clock.now().utc
    await modbus.close()
    got = values(batch)
    assert len(batch) == len(rows) == len(got)
    assert [got[i] for i in range(300)] == list(range(300))
    assert [got[300 + i] for i in range(10)] == [65535 - i for i in range(10)]
    assert [got[310 + i] for i in range(30)] == [float(i % 3 == 0) for i in range(30)]
    assert [got[340 + i] for i in range(30)] == [float(i % 5 == 0) for i in range(30)]
    assert [got[370 + i] for i in range(3)] == [1.0, 0.0, 257 * 65536 + 256]
    assert (batch.time >= before).all()
    assert (batch.time <= after).all()


async def test_addresses_that_libmodbus_does_not_have_are_named_and_the_rest_goes_on(libmodbus):  # noqa: F811
    modbus = source(libmodbus, [(f"holding/{i}", "uint16", "") for i in range(9990, 10004)])
    await modbus.connect()
    batch = await read_until(modbus, lambda b: len(values(b)) == 10)
    assert bad_tags(batch) == {10, 11, 12, 13}
    assert set(modbus.problems) == {10, 11, 12, 13}
    assert modbus.problems[10] == (
        "illegal data address holding/10000 at unit 1 of device press: exception 2; check the address in tags.csv"
    )
    await modbus.close()


async def test_two_units_and_a_hole_of_a_pymodbus_server():
    async with pymodbus_server() as port:
        rows = [(f"{u}/holding/{a}", "uint16", "") for u in (1, 2) for a in (0, 39, 45, 50, 99)]
        rows += [("1/input/0", "float32", "ABCD"), ("2/input/2", "float32", "ABCD"), ("1/coil/3", "bool", "")]
        modbus = source(port, rows, gap=20)
        await modbus.connect()
        batch = await read_until(modbus, lambda b: len(values(b)) == 11)
        assert bad_tags(batch) == {2, 7}
        got = values(batch)
        assert [got[i] for i in (0, 1, 3, 4)] == [10, 19, 10, 19]
        assert [got[i] for i in (5, 6, 8, 9)] == [20, 29, 20, 29]
        assert (got[10], got[11], got[12]) == (12.5, -3.25, 1.0)
        await modbus.close()


@pytest.mark.parametrize(
    "request_class",
    [ReadCoilsRequest, ReadDiscreteInputsRequest, ReadHoldingRegistersRequest, ReadInputRegistersRequest],
)
async def test_requests_are_byte_for_byte_those_of_pymodbus(request_class):
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readexactly(12))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    connection = await connect("127.0.0.1", port, peer="press", timeout_s=5, clock=clock.now)
    with pytest.raises(Disconnected):
        await connection.request(17, request_class.function_code, 107, 3, 5)
    await connection.close()
    server.close()
    pdu = request_class(address=107, count=3, dev_id=17, transaction_id=1)
    assert seen == [FramerSocket(DecodePDU(False)).buildFrame(pdu)]


# --- refused addresses


async def test_one_illegal_address_costs_only_itself_and_the_plan_closes_around_it():
    async with Scripted(illegal={57}) as plc:
        modbus = source(plc.port, [(f"holding/{i}", "uint16", "") for i in range(100)])
        await modbus.connect()
        batch = await read_until(modbus, lambda b: len(values(b)) == 99)
        assert bad_tags(batch) == {57}
        await modbus.read()
        await modbus.read()
        plc.asked.clear()
        batch = await modbus.read()
        assert len(batch) == 100
        assert [(a.start, a.count) for a in plc.asked] == [(0, 57), (58, 42)]
        assert list(modbus.problems) == [57]
        await modbus.close()


async def test_every_cycle_has_one_row_for_each_point_also_while_it_searches():
    async with Scripted(illegal=set(range(1, 120, 2))) as plc:
        modbus = source(plc.port, [(f"holding/{i}", "uint16", "") for i in range(120)], gap=0)
        await modbus.connect()
        for _ in range(8):
            batch = await modbus.read()
            assert sorted(batch.tag.tolist()) == list(range(120))
        assert values(batch) == {i: float(i) for i in range(0, 120, 2)}
        assert set(modbus.problems) == set(range(1, 120, 2))
        await modbus.close()


async def test_an_unmapped_gap_splits_the_block_and_no_tag_suffers():
    async with Scripted(illegal={5}) as plc:
        modbus = source(plc.port, [(f"holding/{i}", "uint16", "") for i in (0, 1, 2, 3, 8, 9, 10)], gap=8)
        await modbus.connect()
        await read_until(modbus, lambda b: len(values(b)) == 7)
        await modbus.read()
        await modbus.read()
        plc.asked.clear()
        await modbus.read()
        assert [(a.start, a.count) for a in plc.asked] == [(0, 4), (8, 3)]
        assert modbus.problems == {}
        await modbus.close()


async def test_a_device_that_reads_fewer_registers_at_once_is_learned():
    def script(asked: Asked) -> bytes:
        return asked.exception(3) if asked.count > 30 else asked.right()

    async with Scripted(script) as plc:
        modbus = source(plc.port, [(f"holding/{i}", "uint16", "") for i in range(100)])
        await modbus.connect()
        batch = await read_until(modbus, lambda b: len(values(b)) == 100)
        assert values(batch) == {i: float(i) for i in range(100)}
        for _ in range(5):
            assert len(values(await modbus.read())) == 100
        plc.asked.clear()
        await modbus.read()
        await modbus.read()
        assert max(a.count for a in plc.asked) <= 30
        await modbus.close()


async def test_an_address_that_becomes_legal_comes_back():
    async with Scripted(illegal={3}) as plc:
        modbus = source(plc.port, [(f"holding/{i}", "uint16", "") for i in range(5)], quarantine_retry_s=0.1)
        await modbus.connect()
        await read_until(modbus, lambda b: bad_tags(b) == {3})
        assert list(modbus.problems) == [3]
        plc.illegal.clear()
        await read_until(modbus, lambda b: len(values(b)) == 5)
        assert modbus.problems == {}
        await modbus.read()
        plc.asked.clear()
        await modbus.read()
        assert [(a.start, a.count) for a in plc.asked] == [(0, 5)]
        await modbus.close()


async def test_quarantined_addresses_are_asked_less_and_less():
    async with Scripted(illegal={3}) as plc:
        modbus = source(plc.port, [(f"holding/{i}", "uint16", "") for i in range(5)], quarantine_retry_s=0.1)
        await modbus.connect()
        await read_until(modbus, lambda b: bad_tags(b) == {3})
        plc.asked.clear()
        before = clock.now().monotonic
        for _ in range(60):
            await modbus.read()
        alone = [a for a in plc.asked if (a.start, a.count) == (3, 1)]
        waited_s = (clock.now().monotonic - before) / 1e9
        assert 1 <= len(alone) <= math.log2(waited_s / 0.1 + 1) + 1  # 0.1 s, 0.2 s, 0.4 s ...
        await modbus.close()


async def test_an_illegal_function_costs_one_request_and_names_every_address():
    def script(asked: Asked) -> bytes:
        return asked.exception(1) if asked.function == 4 else asked.right()

    async with Scripted(script) as plc:
        rows = [("holding/0", "uint16", ""), *((f"input/{i}", "uint16", "") for i in range(20))]
        modbus = source(plc.port, rows)
        await modbus.connect()
        batch = await modbus.read()
        assert values(batch) == {0: 0.0}
        assert len(batch) == 21
        assert sum(a.function == 4 for a in plc.asked) == 1
        assert "illegal function input/0..19 at unit 1" in modbus.problems[1]
        await modbus.close()


# --- wrong replies


def short(asked: Asked) -> bytes:
    return asked.registers(range(asked.count - 1))


def short_but_claims_all(asked: Asked) -> bytes:
    return asked.frame(bytes([asked.function, 2 * asked.count]) + b"\0" * (2 * asked.count - 2))


def other_unit(asked: Asked) -> bytes:
    return asked.frame(bytes([asked.function, 2 * asked.count]) + b"\0" * 2 * asked.count, unit=asked.unit + 1)


def other_function(asked: Asked) -> bytes:
    return asked.frame(bytes([4 if asked.function == 3 else 3, 2 * asked.count]) + b"\0" * 2 * asked.count)


@pytest.mark.parametrize("wrong", [short, short_but_claims_all, other_unit, other_function])
async def test_a_reply_that_does_not_fit_is_bad_data_and_only_for_its_block(wrong):
    def script(asked: Asked) -> bytes:
        return wrong(asked) if asked.start == 50 else asked.right()

    async with Scripted(script) as plc:
        modbus = source(plc.port, [(f"holding/{i}", "uint16", "") for i in (0, 1, 50, 51, 52)])
        await modbus.connect()
        for _ in range(3):
            batch = await modbus.read()
            assert values(batch) == {0: 0.0, 1: 1.0}
            assert bad_tags(batch) == {2, 3, 4}
        assert "asked for" in modbus.problems[2]
        plc.script = None
        batch = await modbus.read()
        assert len(values(batch)) == 5
        assert modbus.problems == {}
        await modbus.close()


async def test_a_wrong_transaction_id_is_never_taken_for_the_answer():
    def script(asked: Asked) -> bytes:
        data = bytes([3, 2, 0xDE, 0xAD])
        return asked.frame(data, transaction=asked.transaction + 7) + asked.right()

    async with Scripted(script) as plc:
        modbus = source(plc.port, [("holding/5", "uint16", "")])
        await modbus.connect()
        for _ in range(5):
            assert values(await modbus.read()) == {0: 5.0}
        await modbus.close()


async def test_replies_in_pieces_and_glued_together_are_put_right():
    async with Scripted(lambda asked: None) as plc:
        connection = await connect("127.0.0.1", plc.port, peer="press", timeout_s=5, clock=clock.now)
        first = asyncio.create_task(connection.request(1, 3, 10, 2, 5))
        second = asyncio.create_task(connection.request(1, 3, 20, 2, 5))
        while len(plc.asked) < 2:
            await asyncio.sleep(0.001)
        stream = plc.asked[1].right() + plc.asked[0].right()
        for byte in stream[:-5]:
            await plc.send(bytes([byte]))
            await asyncio.sleep(0)
        await plc.send(stream[-5:])
        assert (await first).payload == struct.pack(">HH", 10, 11)
        assert (await second).payload == struct.pack(">HH", 20, 21)
        await connection.close()


async def test_bytes_that_are_no_modbus_end_the_connection_with_a_sentence():
    async with Scripted(lambda asked: b"HTTP/1.1 400 Bad Request\r\n\r\n") as plc:
        modbus = source(plc.port, [("holding/5", "uint16", "")])
        await modbus.connect()
        with pytest.raises(Disconnected, match="sent bytes that are no Modbus TCP: 48 54 54 50"):
            await modbus.read()
        await modbus.close()


async def test_the_wire_names_exceptions_and_malformed_replies():
    async with Scripted(lambda asked: asked.exception(6)) as plc:
        connection = await connect("127.0.0.1", plc.port, peer="press", timeout_s=5, clock=clock.now)
        with pytest.raises(ExceptionReply, match="exception 6, server device busy"):
            await connection.request(1, 3, 0, 1, 5)
        plc.script = short
        with pytest.raises(MalformedReply, match=r"2 data bytes .* where 4 were asked for"):
            await connection.request(1, 3, 0, 2, 5)
        await connection.close()


# --- silence


async def test_a_late_reply_is_thrown_away_and_does_not_answer_the_next_request():
    async with Scripted(lambda asked: None) as plc:
        connection = await connect("127.0.0.1", plc.port, peer="press", timeout_s=5, clock=clock.now)
        with pytest.raises(ReplyTimeout):
            await connection.request(1, 3, 10, 1, 0.05)
        assert connection.overdue == {1}
        late = plc.asked[0].right()
        plc.script = lambda asked: late + asked.right()
        reply = await connection.request(1, 3, 20, 1, 5)
        assert reply.payload == struct.pack(">H", 20)
        assert connection.late == 1
        assert connection.overdue == set()
        await connection.close()


async def test_a_device_that_accepts_and_never_answers_is_disconnected_by_its_time_out():
    async with Scripted(lambda asked: None) as plc:
        modbus = source(plc.port, [("holding/5", "uint16", "")], timeout_ms=100)
        await modbus.connect()
        with pytest.raises(Disconnected, match=r"unit 1 of device press .* does not answer within 100 ms"):
            await modbus.read()
        await modbus.close()


async def test_a_silent_unit_is_left_alone_and_named_while_the_other_goes_on():
    def script(asked: Asked) -> bytes | None:
        return None if asked.unit == 7 else asked.right()

    async with Scripted(script) as plc:
        rows = [("7/holding/5", "uint16", ""), ("7/input/5", "uint16", ""), ("9/holding/6", "uint16", "")]
        modbus = source(plc.port, rows, timeout_ms=100)
        await modbus.connect()
        before = clock.now().monotonic
        for _ in range(40):
            batch = await modbus.read()
            assert values(batch) == {2: 6.0}
            assert bad_tags(batch) == {0, 1}
        assert plc.connections == 1
        assert sum(a.unit == 7 for a in plc.asked) <= 1 + (clock.now().monotonic - before) / 1e9  # 1 s, 2 s, 4 s ...
        assert set(modbus.problems) == {0, 1}
        assert modbus.problems[0].startswith("unit 7 of device press at 127.0.0.1:")
        assert (
            "does not answer within 100 ms; check the unit, its cable and its unit id (since 20" in modbus.problems[0]
        )
        plc.script = None
        await read_until(modbus, lambda b: len(values(b)) == 3)
        assert modbus.problems == {}
        await modbus.close()


async def test_a_unit_that_its_gateway_cannot_reach_is_backed_off_and_the_connection_stays():
    def script(asked: Asked) -> bytes:
        return asked.exception(11) if asked.unit == 7 else asked.right()

    async with Scripted(script) as plc:
        modbus = source(plc.port, [("7/holding/5", "uint16", ""), ("9/holding/6", "uint16", "")])
        await modbus.connect()
        before = clock.now().monotonic
        for _ in range(30):
            batch = await modbus.read()
            assert values(batch) == {1: 6.0}
        assert sum(a.unit == 7 for a in plc.asked) <= 1 + (clock.now().monotonic - before) / 1e9
        assert "answers exception 11, gateway target device failed to respond" in modbus.problems[0]
        plc.script = None
        await read_until(modbus, lambda b: len(values(b)) == 2)
        await modbus.close()


async def test_when_no_unit_answers_any_more_the_connection_is_given_up():
    async with Scripted() as plc:
        modbus = source(plc.port, [("7/holding/5", "uint16", ""), ("9/holding/6", "uint16", "")], timeout_ms=100)
        await modbus.connect()
        assert len(values(await modbus.read())) == 2
        plc.script = lambda asked: None
        with pytest.raises(Disconnected, match="nor does any other of its 2 units"):
            for _ in range(10):
                await modbus.read()
        await modbus.close()


async def test_silence_is_never_taken_for_a_connection_however_the_units_are_spread_over_periods():
    async with Scripted(lambda asked: None) as plc:
        rows = [("7/holding/5", "uint16", "", 50), ("9/holding/6", "uint16", "", 70), ("9/input/1", "uint16", "", 90)]
        modbus = source(plc.port, rows, timeout_ms=100)
        await modbus.connect()
        with pytest.raises(Disconnected, match="nor does any other of its 2 units"):
            await modbus.read()
        await modbus.close()


async def test_a_server_that_goes_away_is_noticed_at_once_and_a_restarted_one_serves_again():
    async with Scripted() as plc:
        modbus = source(plc.port, [("holding/5", "uint16", "")], timeout_ms=60_000)
        await modbus.connect()
        assert values(await modbus.read()) == {0: 5.0}
        plc.script = lambda asked: None
        waiting = asyncio.create_task(modbus.read())
        while len(plc.asked) < 2:
            await asyncio.sleep(0.001)
        await plc.stop()
        async with asyncio.timeout(10):  # not the time-out of a minute
            with pytest.raises(Disconnected, match="closed the connection"):
                await waiting
        with pytest.raises(Unreachable, match=r"device press at 127\.0\.0\.1:\d+ cannot be reached"):
            await modbus.connect()
        plc.script = None
        await plc.start()
        await modbus.connect()
        assert values(await modbus.read()) == {0: 5.0}
        await modbus.close()


# --- time and order


async def test_periods_are_groups_of_their_own_on_a_fixed_grid():
    async with Scripted() as plc:
        rows = [("holding/1", "uint16", "", 20), ("holding/50", "uint16", "", 200)]
        modbus = source(plc.port, rows)
        await modbus.connect()
        counts = {0: 0, 1: 0}
        for _ in range(44):
            for tag in (await modbus.read()).tag.tolist():
                counts[tag] += 1
        assert 2 <= counts[1] < counts[0]
        await modbus.close()


async def test_a_stall_is_no_burst_and_what_it_cost_is_counted():
    async with Scripted() as plc:
        modbus = source(plc.port, [("holding/1", "uint16", ""), ("holding/2", "uint16", "")], period_ms=50)
        await modbus.connect()
        await modbus.read()
        await asyncio.sleep(0.52)
        await modbus.read()
        assert modbus.lost >= 2 * 8
        before = clock.now().monotonic
        for _ in range(4):
            await modbus.read()
        assert clock.now().monotonic - before > 0.1  # four periods less what was left of the first
        await modbus.close()


@pytest.mark.parametrize("in_flight", [1, 4])
async def test_no_more_requests_wait_than_allowed(in_flight):
    waiting: list[Asked] = []
    most = 0

    def script(asked: Asked) -> None:
        nonlocal most
        waiting.append(asked)
        most = max(most, len(waiting))

    async with Scripted(script) as plc:
        rows = [(f"holding/{i}", "uint16", "") for i in range(0, 1000, 100)]
        modbus = source(plc.port, rows, requests_in_flight=in_flight)
        await modbus.connect()
        reading = asyncio.create_task(modbus.read())
        answered = 0
        while not reading.done():
            await asyncio.sleep(0.002)
            if waiting:
                await plc.send(waiting.pop().right())
                answered += 1
        assert len(values(await reading)) == 10
        assert answered == 10
        assert most == in_flight
        await modbus.close()


async def test_a_failure_of_one_request_in_flight_ends_the_others():
    async with Scripted(lambda asked: None) as plc:
        rows = [(f"holding/{i}", "uint16", "") for i in range(0, 1000, 100)]
        modbus = source(plc.port, rows, requests_in_flight=4, timeout_ms=100)
        await modbus.connect()
        with pytest.raises(Disconnected):
            await modbus.read()
        await modbus.close()
        assert len(asyncio.all_tasks()) <= 2  # this one and the server's


async def test_pauses_are_kept():
    async with Scripted() as plc:
        rows = [("holding/1", "uint16", ""), ("holding/500", "uint16", ""), ("holding/900", "uint16", "")]
        modbus = source(plc.port, rows, pause_after_connect_ms=50, pause_between_requests_ms=60)
        before = clock.now().monotonic
        await modbus.connect()
        await modbus.read()
        assert clock.now().monotonic - before >= 169_000_000
        await modbus.close()


async def test_nothing_is_ever_written_to_a_device():
    async with Scripted(illegal={3}) as plc:
        rows = [(f"{area}/{i}", "bool", "") for area in ("coil", "discrete") for i in range(5)]
        rows += [(f"{area}/{i}", "uint16", "") for area in ("holding", "input") for i in range(5)]
        modbus = source(plc.port, rows, quarantine_retry_s=0.1)
        await modbus.connect()
        for _ in range(30):
            await modbus.read()
        await modbus.close()
        assert {a.function for a in plc.asked} == {1, 2, 3, 4}


async def test_a_text_tag_of_a_device_is_a_code():
    def script(asked: Asked) -> bytes:
        return asked.registers(struct.unpack(">3H", b"RUN   "))

    async with Scripted(script) as plc:
        modbus = source(plc.port, [("holding/0", "string:6", "")])
        await modbus.connect()
        batch = await modbus.read()
        assert batch.value.tolist() == [1.0]
        assert modbus._texts.text(0, 1) == "RUN"
        assert batch.value.dtype == np.float64
        await modbus.close()
