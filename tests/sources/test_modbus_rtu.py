"""Modbus over serial lines, serial device servers and UDP: pymodbus and libmodbus, and lines that misbehave."""

import asyncio
import struct
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modbus_peers import libmodbus_rtu_binary  # noqa: F401
from modbus_rtu_peers import RtuAsked, cable, pty_slave, pymodbus_line, rtu_options, rtu_source, tcp_slave
from pymodbus.framer import FramerRTU
from pymodbus.pdu import DecodePDU
from pymodbus.pdu.register_message import ReadHoldingRegistersRequest

from edge import clock
from edge.errors import Disconnected, Unreachable
from edge.sources.modbus_link import open_link, read_registers
from edge.sources.modbus_rtu import Debts, RtuConnection, crc16, frame_size, request_frame
from edge.sources.modbus_wire import ExceptionReply, MalformedReply, ReplyTimeout
from plant.batch import BAD, GOOD, Batch
from plant.instant import Instant

TRANSPORTS = ["rtu", "rtu_over_tcp", "udp", "tcp"]


def values(batch: Batch) -> dict[int, float]:
    return {int(t): float(v) for t, v, q in zip(batch.tag, batch.value, batch.quality, strict=True) if q == GOOD}


def bad_tags(batch: Batch) -> set[int]:
    return set(batch.tag[batch.quality == BAD].tolist())


async def read_until(modbus, right, limit: int = 300) -> Batch:
    async with asyncio.timeout(20):
        for _ in range(limit):
            batch = await modbus.read()
            if right(batch):
                return batch
    raise AssertionError(f"never came: {batch}, {modbus.problems}")


# --- frames


@given(st.binary(max_size=260))
def test_the_crc_is_that_of_pymodbus(data):
    assert crc16(data) == FramerRTU.compute_CRC(data).to_bytes(2, "big")


def test_a_request_is_byte_for_byte_that_of_pymodbus_and_of_the_specification():
    pdu = ReadHoldingRegistersRequest(address=107, count=3, dev_id=17)
    assert request_frame(17, 3, 107, 3) == FramerRTU(DecodePDU(False)).buildFrame(pdu)
    assert request_frame(1, 3, 0, 10).hex(" ") == "01 03 00 00 00 0a c5 cd"


@given(st.binary(max_size=40))
def test_bytes_at_random_are_no_frame_unless_their_crc_is_right(data):
    size = frame_size(data, 0)
    assert size == 0 or crc16(data[: size - 2]) == data[size - 2 : size]


# --- independent servers


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_two_units_and_a_hole_of_a_pymodbus_server(transport, tmp_path):
    async with pymodbus_line(transport, tmp_path) as reached:
        rows = [(f"{u}/holding/{a}", "uint16", "") for u in (1, 2) for a in (0, 39, 45, 50, 99)]
        rows += [("1/input/0", "float32", "ABCD"), ("2/input/2", "float32", "ABCD"), ("1/coil/3", "bool", "")]
        modbus = rtu_source(rows, gap=20, **reached)
        await modbus.connect()
        batch = await read_until(modbus, lambda b: len(values(b)) == 11)
        assert bad_tags(batch) == {2, 7}
        got = values(batch)
        assert [got[i] for i in (0, 1, 3, 4)] == [10, 19, 10, 19]
        assert [got[i] for i in (5, 6, 8, 9)] == [20, 29, 20, 29]
        assert (got[10], got[11], got[12]) == (12.5, -3.25, 1.0)
        assert "illegal data address holding/45 at unit 1 of device meter" in modbus.problems[2]
        await modbus.close()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_registers_are_read_once_without_a_source(transport, tmp_path):
    async with pymodbus_line(transport, tmp_path) as reached:
        options = rtu_options(**reached)
        assert (await read_registers(options, 2, "holding", 0, 3)).tolist() == [20, 21, 22]
        assert await read_registers(options, 2, "holding", 45, 1) == 2
        assert (await read_registers(options, 1, "coil", 0, 4)).tolist() == [1, 0, 0, 1]
        link = await open_link(options)
        for _ in range(2):
            assert (await read_registers(options, 1, "holding", 50, 2, link)).tolist() == [10, 11]
        await link.close()


async def test_every_area_of_a_libmodbus_slave_is_read_and_what_it_has_not_is_named(libmodbus_rtu_binary, tmp_path):  # noqa: F811
    rows = [(f"7/holding/{i}", "uint16", "") for i in range(300)]
    rows += [(f"7/input/{i}", "uint16", "") for i in range(10)]
    rows += [(f"7/coil/{i}", "bool", "") for i in range(30)]
    rows += [(f"7/discrete/{i}", "bool", "") for i in range(30)]
    rows += [("7/holding/256", "uint32", "CDAB"), ("7/holding/10000", "uint16", ""), ("8/holding/0", "uint16", "")]
    async with cable(tmp_path) as (ours, theirs):
        slave = await asyncio.create_subprocess_exec(
            libmodbus_rtu_binary, theirs, "115200", "7", stdout=asyncio.subprocess.PIPE
        )
        try:
            assert await slave.stdout.readline() == b"ready\n"
            modbus = rtu_source(rows, serial_port=ours, timeout_ms=200)
            await modbus.connect()
            batch = await read_until(modbus, lambda b: len(values(b)) == 371)
            got = values(batch)
            assert [got[i] for i in range(300)] == list(range(300))
            assert [got[300 + i] for i in range(10)] == [65535 - i for i in range(10)]
            assert [got[310 + i] for i in range(30)] == [float(i % 3 == 0) for i in range(30)]
            assert [got[340 + i] for i in range(30)] == [float(i % 5 == 0) for i in range(30)]
            assert got[370] == 257 * 65536 + 256
            assert modbus.problems[371].startswith("illegal data address holding/10000 at unit 7 of device meter")
            assert modbus.problems[372].startswith("unit 8 of device meter at")
            await modbus.close()
        finally:
            slave.kill()
            await slave.wait()


# --- lines that misbehave: what is read is right or BAD, never another register's


class JumpLoop(asyncio.SelectorEventLoop):
    """A loop whose time jumps to the next timer: seconds of waiting cost nothing, and nothing is ever late."""

    def __init__(self) -> None:
        super().__init__()
        self.at = 0.0
        look = self._selector.select

        def select(timeout: float | None = None) -> list:
            events = look(0)
            if not events and timeout:
                self.at += timeout
            return events

        self._selector.select = select

    def time(self) -> float:
        return self.at


@dataclass(frozen=True)
class Fate:
    """What becomes of one request and its reply."""

    after_s: float
    lost: bool
    flip: int | None
    pieces: int
    noise: bytes


FATES = st.builds(
    Fate,
    after_s=st.sampled_from([0.0, 0.05, 0.15, 0.25, 0.35, 2.0]),
    lost=st.sampled_from([False, False, False, True]),
    flip=st.sampled_from([None, None, 1, 3]),
    pieces=st.sampled_from([1, 3]),
    noise=st.sampled_from([b"", b"\x01\x03\x02\x00"]),
)
QUESTIONS = st.tuples(st.sampled_from([1, 2]), st.sampled_from([3, 3, 4, 1]), st.sampled_from([1, 2, 3]), FATES, FATES)


class SlowLine:
    """A pipe to devices that answer in the order in which they were asked, as late as fate wills.

    A register's content tells its address and its area: 3000 + address, 4000 + address.
    """

    def __init__(self, fates: list[Fate], *, echo: bool) -> None:
        self.fates = fates
        self.echo = echo
        self.connection: RtuConnection | None = None
        self._ready_at: dict[int, float] = {}

    def write(self, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        asked = RtuAsked(*struct.unpack(">BBHH", data[:6]))
        fate = self.fates.pop(0) if self.fates else Fate(0.0, False, None, 1, b"")
        if self.echo:
            loop.call_soon(self.connection.data_received, data)
        at = max(loop.time() + fate.after_s, self._ready_at.get(asked.unit, 0.0)) + 0.001
        self._ready_at[asked.unit] = at
        if fate.lost:
            return
        answer = bytearray(content(asked))
        if fate.flip is not None:
            answer[fate.flip % len(answer)] ^= 0x07
        stream = fate.noise + bytes(answer)
        size = -(-len(stream) // fate.pieces)
        for i in range(0, len(stream), size):
            loop.call_at(at + i * 0.0001, self.connection.data_received, stream[i : i + size])

    def is_closing(self) -> bool:
        return False


def content(asked: RtuAsked) -> bytes:
    if asked.function <= 2:
        size = (asked.count + 7) // 8
        return asked.reply(bytes([asked.function, size]) + bytes([asked.start & 0xFF]) * size)
    if asked.start % 5 == 4:
        return asked.exception(2)
    return asked.registers(1000 * asked.function + asked.start + i for i in range(asked.count))


@settings(max_examples=300, deadline=None)
@given(st.lists(QUESTIONS, min_size=3, max_size=9), st.booleans())
def test_whatever_is_late_lost_damaged_or_noise_no_reply_answers_another_request(questions, echo):
    loop = JumpLoop()
    line = SlowLine([fate for *_, first, second in questions for fate in (first, second)], echo=echo)
    now = lambda: Instant(round(loop.at * 1e9), round(loop.at * 1e9))  # noqa: E731

    async def ask_all() -> None:
        connection = line.connection = RtuConnection("meter", now, Debts())
        connection.connection_made(line)
        for i, (unit, function, count, *_) in enumerate(questions):
            try:
                reply = await connection.request(unit, function, i, count, 0.1)
            except (ReplyTimeout, MalformedReply):
                continue
            except ExceptionReply:
                assert i % 5 == 4
                continue
            assert reply.payload == content(RtuAsked(unit, function, i, count))[3:-2]

    try:
        loop.run_until_complete(ask_all())
    finally:
        loop.close()


async def test_a_reply_after_its_time_out_does_not_answer_the_next_request(tmp_path):
    def script(asked: RtuAsked):
        return [(0.25, asked.right())] if len(slave.asked) == 1 else asked.right()

    async with pty_slave(tmp_path, script) as (slave, pty):
        link = await open_link(rtu_options(serial_port=pty.path))
        with pytest.raises(ReplyTimeout):
            await link.request(1, 3, 10, 1, 0.05)
        reply = await link.request(1, 3, 20, 1, 5)
        assert reply.payload == struct.pack(">H", 20)
        # The unit was asked with another function first; its answer proves that the old reply is over or lost.
        assert [(a.function, a.start) for a in slave.asked] == [(3, 10), (4, 20), (3, 20)]
        await link.close()


async def test_a_unit_that_owes_a_reply_is_first_asked_for_a_part_of_the_same_block(tmp_path):
    """So a device that knows one function alone loses no time, and no address is read that the plan does not have."""

    def script(asked: RtuAsked):
        if asked.function != 3:
            return None
        return [(0.25, asked.exception(2)), (0.25, asked.right())] if len(slave.asked) == 1 else [(0.4, asked.right())]

    async with pty_slave(tmp_path, script) as (slave, pty):
        link = await open_link(rtu_options(serial_port=pty.path))
        with pytest.raises(ReplyTimeout):
            await link.request(1, 3, 10, 3, 0.05)
        reply = await link.request(1, 3, 20, 3, 5)
        assert reply.payload == struct.pack(">3H", 20, 21, 22)
        assert [(a.start, a.count) for a in slave.asked] == [(10, 3), (20, 2), (20, 3)]
        assert link.late == 2
        await link.close()


async def test_a_late_reply_outlives_the_connection_and_is_told_there_too():
    async with tcp_slave(lambda asked: None) as (slave, server):
        modbus = rtu_source([("holding/5", "uint16", "")], transport="rtu_over_tcp", port=server.port, timeout_ms=60)
        await modbus.connect()
        with pytest.raises(Disconnected, match=r"unit 1 of device meter at 127.0.0.1:.* does not answer within 60 ms"):
            await modbus.read()
        await modbus.close()
        assert [a.function for a in slave.asked] == [3, 4]
        slave.script = None
        await modbus.connect()
        late = RtuAsked(1, 3, 99, 1).right()
        server.send(late)
        assert values(await modbus.read()) == {0: 5.0}
        await modbus.close()


async def test_a_unit_that_knows_one_function_alone_comes_back_when_its_late_reply_is_taken_to_be_lost():
    now = {"shift": 0}

    def shifted() -> Instant:
        at = clock.now()
        return Instant(at.utc, at.monotonic + now["shift"])

    def script(asked: RtuAsked):
        return asked.right() if asked.function == 3 and len(slave.asked) > 1 else None

    async with tcp_slave(script) as (slave, server):
        link = await open_link(rtu_options(transport="rtu_over_tcp", port=server.port), shifted)
        for _ in range(3):
            with pytest.raises(ReplyTimeout):
                await link.request(1, 3, 10, 1, 0.03)
        now["shift"] = 11_000_000_000
        assert (await link.request(1, 3, 10, 1, 5)).payload == struct.pack(">H", 10)
        assert [a.function for a in slave.asked] == [3, 4, 1, 3]
        await link.close()


@pytest.mark.parametrize("echo", [False, True])
async def test_a_reply_in_pieces_behind_noise_and_echo_is_read(tmp_path, echo):
    def script(asked: RtuAsked):
        right = asked.right()
        noise = b"\x00\xff" if len(slave.asked) > 1 else b""
        return [(0.005 * i, bytes([byte])) for i, byte in enumerate(noise + right)]

    async with pty_slave(tmp_path, script, echo=echo) as (slave, pty):
        modbus = rtu_source([("holding/7", "uint32", "ABCD")], serial_port=pty.path)
        await modbus.connect()
        for _ in range(4):
            assert values(await modbus.read()) == {0: 7 * 65536 + 8}
        await modbus.close()
        assert {a.function for a in slave.asked} == {3}


async def test_an_echo_is_not_taken_for_coils_though_it_has_the_form_of_a_reply(tmp_path):
    """A request for 24 coils from 0x0300 on, echoed, is a whole and right frame: 3 bytes of data."""
    async with pty_slave(tmp_path, lambda asked: None, echo=True) as (slave, pty):
        link = await open_link(rtu_options(serial_port=pty.path))
        assert frame_size(request_frame(1, 1, 0x0300, 24), 0) == 8
        with pytest.raises(ReplyTimeout):
            await link.request(1, 1, 0x0300, 24, 0.05)
        slave.script = None
        assert (await link.request(1, 1, 0x0300, 24, 5)).payload == bytes(3)
        await link.close()


async def test_a_wrong_crc_is_asked_again_and_if_it_stays_wrong_the_rows_are_bad(tmp_path):
    def damaged(asked: RtuAsked) -> bytes:
        right = bytearray(asked.right())
        right[4] ^= 1
        return bytes(right)

    def script(asked: RtuAsked) -> bytes:
        return damaged(asked) if len(slave.asked) == 1 else asked.right()

    async with pty_slave(tmp_path, script) as (slave, pty):
        modbus = rtu_source([("holding/7", "uint16", ""), ("holding/8", "uint16", "")], serial_port=pty.path)
        await modbus.connect()
        assert values(await modbus.read()) == {0: 7.0, 1: 8.0}
        slave.script = damaged
        assert bad_tags(await modbus.read()) == {0, 1}
        assert "the CRC of the reply is wrong" in modbus.problems[0]
        slave.script = None
        assert values(await modbus.read()) == {0: 7.0, 1: 8.0}
        assert modbus.problems == {}
        await modbus.close()


async def test_bytes_at_another_speed_are_shown_with_what_to_check(tmp_path):
    async with pty_slave(tmp_path, lambda asked: b"\xf8\x80\x00\x78") as (_, pty):
        modbus = rtu_source([("holding/7", "uint16", "")], serial_port=pty.path, timeout_ms=50, retries=0)
        await modbus.connect()
        with pytest.raises(Disconnected, match="only f8 80 00 78, which is no reply; check baudrate, parity"):
            await modbus.read()
        await modbus.close()


async def test_a_line_that_is_never_silent_is_given_up(tmp_path):
    async with pty_slave(tmp_path) as (slave, pty):
        link = await open_link(rtu_options(serial_port=pty.path))
        babble = asyncio.create_task(babbling(pty.send))
        with pytest.raises(ReplyTimeout, match="never silent"):
            await link.request(1, 3, 10, 1, 0.1)
        babble.cancel()
        assert (await link.request(1, 3, 10, 1, 5)).payload == struct.pack(">H", 10)
        assert len(slave.asked) == 1
        await link.close()


async def babbling(send) -> None:
    while True:
        send(b"\x55")
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("unit", [2, 1])
async def test_the_frame_of_another_unit_or_size_is_no_reply(tmp_path, unit):
    def script(asked: RtuAsked) -> bytes:
        return asked.registers([0xDEAD] * (1 if unit == 2 else 2), unit=unit) + (asked.right() if unit == 2 else b"")

    async with pty_slave(tmp_path, script) as (_, pty):
        link = await open_link(rtu_options(serial_port=pty.path))
        if unit == 2:
            assert (await link.request(1, 3, 9, 1, 5)).payload == struct.pack(">H", 9)
        else:
            with pytest.raises(MalformedReply, match="4 data bytes where 2 were asked for"):
                await link.request(1, 3, 9, 1, 5)
        assert link.late == 1
        await link.close()


# --- many units on one line


async def test_a_dead_unit_is_left_alone_so_that_the_others_keep_their_period(tmp_path):
    async with pty_slave(tmp_path, lambda a: None if a.unit == 7 else a.right()) as (slave, pty):
        rows = [("7/holding/5", "uint16", ""), *((f"{unit}/holding/6", "uint16", "") for unit in (3, 9, 12))]
        modbus = rtu_source(rows, serial_port=pty.path, timeout_ms=200)
        await modbus.connect()
        before = clock.now().monotonic
        for _ in range(40):
            batch = await modbus.read()
            assert values(batch) == {1: 6.0, 2: 6.0, 3: 6.0}
            assert bad_tags(batch) == {0}
        passed_s = (clock.now().monotonic - before) / 1e9
        # The first request and its repetition, then one each after 1 s, 2 s, 4 s ...
        assert sum(a.unit == 7 for a in slave.asked) <= 2 + passed_s
        assert all(40 <= sum(a.unit == unit for a in slave.asked) <= 44 for unit in (3, 9, 12))
        assert "unit 7 of device meter at" in modbus.problems[0]
        slave.script = None
        await read_until(modbus, lambda b: len(values(b)) == 4)
        assert modbus.problems == {}
        await modbus.close()


async def test_slaves_that_lose_step_after_a_request_to_a_dead_unit_are_waited_for(tmp_path):
    """A slave on libmodbus takes the next frame for the dead unit's reply, and needs 500 ms of silence after that."""
    fell_out_at = 0.0

    def script(asked: RtuAsked) -> bytes | None:
        nonlocal fell_out_at
        now = asyncio.get_running_loop().time()
        is_out = now - fell_out_at < 0.5
        if asked.unit == 9 or is_out:
            fell_out_at = now
            return None
        return asked.right()

    async with pty_slave(tmp_path, script) as (slave, pty):
        rows = [("7/holding/5", "uint16", ""), ("7/input/5", "uint16", ""), ("9/holding/6", "uint16", "")]
        modbus = rtu_source(rows, serial_port=pty.path, timeout_ms=100, unit_retry_s_max=0.3)
        await modbus.connect()
        while sum(a.unit == 9 for a in slave.asked) < 4:
            assert values(await modbus.read()) == {0: 5.0, 1: 5.0}
        assert set(modbus.problems) == {2}
        await modbus.close()


async def test_the_time_that_bytes_take_on_a_slow_line_is_no_time_out(tmp_path):
    """17 characters of 10 bits at 300 bit/s take 567 ms; the device itself answers within 10 ms."""
    async with pty_slave(tmp_path, lambda asked: [(0.2, asked.right())]) as (_, pty):
        link = await open_link(rtu_options(serial_port=pty.path, baudrate=300))
        assert (await link.request(1, 3, 10, 2, 0.01)).payload == struct.pack(">HH", 10, 11)
        await link.close()


async def test_one_lost_frame_is_no_failure(tmp_path):
    def script(asked: RtuAsked) -> bytes | None:
        return None if len(slave.asked) == 3 else asked.right()

    async with pty_slave(tmp_path, script) as (slave, pty):
        modbus = rtu_source([("holding/5", "uint16", "")], serial_port=pty.path, timeout_ms=200)
        await modbus.connect()
        for _ in range(6):
            assert values(await modbus.read()) == {0: 5.0}
        assert modbus.problems == {}
        await modbus.close()


# --- the port


async def test_an_adapter_that_is_pulled_out_is_disconnected_and_read_again_when_it_is_back(tmp_path):
    async with pty_slave(tmp_path) as (slave, pty):
        modbus = rtu_source([("holding/5", "uint16", "")], serial_port=pty.path, timeout_ms=60_000)
        await modbus.connect()
        assert values(await modbus.read()) == {0: 5.0}
        slave.frozen = True
        waiting = asyncio.create_task(modbus.read())
        await asyncio.sleep(0.05)
        pty.cut()
        async with asyncio.timeout(10):
            with pytest.raises(Disconnected, match=r"device meter at .*ttyUSB0 closed the connection"):
                await waiting
        with pytest.raises(Unreachable, match="does not exist; is the adapter plugged in"):
            await modbus.connect()
        slave.frozen = False
        pty.mend()
        await modbus.connect()
        assert values(await modbus.read()) == {0: 5.0}
        await modbus.close()


async def test_a_port_serves_one_program(tmp_path):
    async with pty_slave(tmp_path) as (_, pty):
        link = await open_link(rtu_options(serial_port=pty.path))
        with pytest.raises(Unreachable, match=r"device meter at .*: another program uses .*ttyUSB0"):
            await open_link(rtu_options(serial_port=pty.path))
        await link.close()
        again = await open_link(rtu_options(serial_port=pty.path))
        await again.close()


async def test_a_port_that_is_none_is_named(tmp_path):
    with pytest.raises(Unreachable, match=r"device meter at .* cannot be opened"):
        await open_link(rtu_options(serial_port=str(tmp_path)))
