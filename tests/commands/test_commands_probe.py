"""`andon probe` against real Modbus servers, and what it makes of registers."""

import asyncio
import json
import struct

import numpy as np
import pytest
from commands_peers import andon
from hypothesis import given, settings
from hypothesis import strategies as st
from modbus_peers import Scripted, options, pymodbus_server
from modbus_rtu_peers import pty_slave

from edge.commands import registers
from edge.commands.register_scan import Scan
from edge.commands.registers import ORDERS, find_matches, is_clear
from edge.sources.modbus_blocks import block_of, decode
from edge.sources.modbus_points import parse_point
from plant.texts import Texts

WORD = st.integers(0, 0xFFFF)


@given(
    words=st.lists(WORD, min_size=4, max_size=4),
    kind=st.sampled_from(["int16", "uint16", "bcd16", "int32", "uint32", "bcd32", "float32", "float64", "int64"]),
    order=st.sampled_from(ORDERS),
)
def test_registers_mean_what_the_gateway_reads_from_them(words, kind, order):
    point = parse_point(0, "holding/0", kind, order, 1000, options(1))
    payload = b"".join(word.to_bytes(2, "big") for word in words)[: 2 * point.size]
    (expected,), _ = decode(block_of([point]), payload, Texts())
    found = registers.decode(dict(enumerate(words)), 0, kind, order)
    np.testing.assert_equal(float("nan") if found is None else float(found), expected)


def words_of(form, value, order):
    data = struct.pack(form, value)
    parts = [data[i : i + 2] for i in range(0, len(data), 2)]
    if order in ("CDAB", "DCBA"):
        parts.reverse()
    return [int.from_bytes(part, "little" if order in ("BADC", "DCBA") else "big") for part in parts]


NOISE = [0, 1, 20, 0, 7, 0, 430, 0, 100, 3, 0xFFFF, 0]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("form", "kind", "value", "shown"),
    [
        (">f", "float32", 39.4183, "39.4"),
        (">f", "float32", -7.2531, "-7.25"),
        (">I", "uint32", 1_234_567, "1234567"),
        (">i", "int32", -1_234_567, "-1234567"),
        (">d", "float64", 1013.2517, "1013.25"),
        (">Q", "uint64", 987_654_321_012, "987654321012"),
    ],
)
async def test_the_expected_value_names_address_type_and_order(form, kind, value, shown, order):
    registers_ = [*NOISE, *words_of(form, value, order), *NOISE]
    async with Scripted(lambda asked: asked.registers(registers_[asked.start : asked.start + asked.count])) as plc:
        target = f"127.0.0.1:{plc.port}"
        result = await andon("probe", target, "--count", len(registers_), "--expect", shown, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    best = found["matches"][0]
    assert (best["address"], best["order"], best["scale"]) == (f"holding/{len(NOISE)}", order, 1.0)
    assert kind in (best["type"], best["also"])
    assert found["clear"]


def test_a_scaled_integer_is_found_with_its_scale_and_a_plain_one_is_preferred():
    words = dict(enumerate([5, 394, 77, 39]))
    best, *_ = find_matches(words, 39.4, 0.05)
    assert (best.address, best.type, best.also, best.scale) == (1, "uint16", "int16", 0.1)
    best, *_ = find_matches(words, 39, 0.5)
    assert (best.address, best.scale) == (3, 1.0)


def test_a_value_that_fits_in_several_ways_is_not_called_clear():
    assert not is_clear(find_matches({0: 0, 1: 430, 2: 0}, 430, 0.5))
    assert not is_clear(find_matches({0: 40888}, 38.5, 3.0))
    assert is_clear(find_matches({0: 0, 1: 0x419D, 2: 0x999A}, 19.7, 0.05))
    assert find_matches({0: 5}, 77, 0.5) == []


@settings(max_examples=60, deadline=None)
@given(
    parts=st.lists(st.tuples(st.integers(0, 400), st.integers(1, 60)), max_size=4),
    limit=st.sampled_from([1, 2, 16, 125]),
)
def test_a_scan_finds_exactly_the_registers_that_there_are(parts, limit):
    legal = {address for first, count in parts for address in range(first, first + count)} & set(range(400))

    async def ask(start, count):
        wanted = range(start, start + count)
        return list(wanted) if count <= limit and legal.issuperset(wanted) else 2

    scan = Scan(ask, 0, 400, 125, 100_000, lambda *_: None)
    asyncio.run(scan.run())
    assert scan.complete
    assert scan.words == {address: address for address in legal}
    assert all(one.state in ("legal", "illegal") for one in scan.ranges())
    assert sum(one.count for one in scan.ranges()) == 400


def test_a_scan_that_may_ask_little_says_what_it_does_not_know():
    legal = {*range(40), *range(50, 100), *range(3000, 3010)}

    async def ask(start, count):
        return list(range(count)) if legal.issuperset(range(start, start + count)) else 2

    scan = Scan(ask, 0, 10_000, 125, 500, lambda *_: None)
    asyncio.run(scan.run())
    assert scan.requests == 500
    assert not scan.complete
    assert [(one.first, one.last) for one in scan.ranges() if one.state == "legal"] == [(0, 39), (50, 99), (3000, 3009)]
    assert {one.state for one in scan.ranges()} == {"legal", "refused"}


async def test_the_holes_of_a_device_of_another_maker_are_found():
    async with pymodbus_server() as port:
        result = await andon("probe", f"127.0.0.1:{port}", "--unit", 2, "--scan", "--count", 300, "--pause-ms", 0)
        assert result.exit_code == 0, result.stderr
        ranges = [line.split()[:3] for line in result.stdout.splitlines() if ".." in line.split()[0]]
        assert ranges == [
            ["0..39", "legal", "40"], ["40..49", "illegal", "10"], ["50..99", "legal", "50"],
            ["100..299", "illegal", "200"],
        ]  # fmt: skip
        assert "illegal data address" in result.stdout
        block = await andon("probe", f"127.0.0.1:{port}", "--unit", 2, "--start", 36, "--count", 8)
        assert "40..43" in block.stdout
        assert "holding/39" in block.stdout
        floats = await andon("probe", f"127.0.0.1:{port}", "--area", "input", "--start", 2, "--expect", "-3.25")
        assert "input/2, type float32, order ABCD" in floats.stdout
        coils = await andon("probe", f"127.0.0.1:{port}", "--area", "coil", "--count", 20)
        assert coils.stdout.split()[:4] == ["coil/0", "1", "0", "0"]


async def test_failures_are_named_and_say_what_to_do():
    async with Scripted(lambda asked: None) as silent:
        result = await andon("probe", f"127.0.0.1:{silent.port}", "--unit", 7, "--timeout-ms", 50)
        assert result.exit_code == 1
        assert "unit 7" in result.stderr
        assert "check the unit id" in result.stderr
    for code, words in ((1, "no area 'holding'"), (11, "gateway target device failed to respond")):
        async with Scripted(lambda asked, code=code: asked.exception(code)) as plc:
            result = await andon("probe", f"127.0.0.1:{plc.port}")
            assert result.exit_code == 1
            assert words in result.stderr
    result = await andon("probe", "127.0.0.1:1", "--timeout-ms", 500)
    assert result.exit_code == 1
    assert "listens on 502" in result.stderr
    for arguments in (("--expect", "0"), ("--expect", "warm"), ("--area", "coil", "--expect", "1")):
        assert (await andon("probe", "127.0.0.1:1", *arguments)).exit_code == 2
    assert (await andon("probe", "plc:modbus")).exit_code == 2


async def test_a_device_that_hangs_up_at_an_illegal_register_is_asked_again():
    def script(asked):
        return asked.right() if asked.start + asked.count <= 6 else None

    async with Scripted(script) as plc:
        target = f"127.0.0.1:{plc.port}"
        result = await andon("probe", target, "--count", 8, "--timeout-ms", 100, "--pause-ms", 0, "--json")
    found = json.loads(result.stdout)
    assert next((one["first"], one["last"], one["state"]) for one in found["ranges"]) == (0, 5, "legal")
    assert found["ranges"][-1]["meaning"] == "no reply"


async def test_a_configured_device_is_asked_as_configured(tmp_path):
    async with Scripted() as plc:
        (tmp_path / "gateway.toml").write_text(
            f'[[device]]\nname = "meter"\ntype = "modbus"\nhost = "127.0.0.1"\nport = {plc.port}\nunit_id = 5\n'
        )
        result = await andon("probe", "meter", "--config", tmp_path, "--start", 300, "--count", 2)
        assert result.exit_code == 0, result.stderr
        assert "012c" in result.stdout
        assert {asked.unit for asked in plc.asked} == {5}


async def test_addresses_count_as_those_of_the_device_do(tmp_path):
    async with Scripted() as plc:
        (tmp_path / "gateway.toml").write_text(
            f'[[device]]\nname = "meter"\ntype = "modbus"\nhost = "127.0.0.1"\nport = {plc.port}\nfirst_address = 1\n'
        )
        result = await andon("probe", "meter", "--config", tmp_path, "--start", 301, "--expect", 304, "--count", 8)
    assert "holding/305" in result.stdout
    assert plc.asked[0].start == 300


async def test_a_serial_line_is_asked_by_its_port(tmp_path):
    def script(asked):
        return asked.right() if asked.start + asked.count <= 6 else asked.exception(2)

    async with pty_slave(tmp_path, script) as (slave, line):
        serial = (line.path, "--parity", "none", "--stopbits", "1", "--baudrate", "115200")
        result = await andon("probe", *serial, "--unit", 3, "--count", 8, "--pause-ms", 0)
    assert result.exit_code == 0, result.stderr
    assert "0..5" in result.stdout
    assert "holding/5" in result.stdout
    assert {asked.unit for asked in slave.asked} == {3}
    gone = await andon("probe", tmp_path / "nowhere", "--count", 8)
    assert gone.exit_code == 1
    assert "nowhere" in gone.stderr
