"""The planner and the decoders, without a network."""

import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymodbus.client.mixin import ModbusClientMixin

from edge.sources.modbus_blocks import Limits, block_of, bytes_due, decode, plan, plan_lane, split
from edge.sources.modbus_options import ModbusOptions
from edge.sources.modbus_points import FUNCTIONS, REGISTERS, ModbusPoint, parse_point
from plant.batch import BAD, GOOD, UNCERTAIN
from plant.texts import Texts

OPTIONS = ModbusOptions(type="modbus", name="press", host="h")
NUMBERS = [t for t in REGISTERS if t != "bool"]
ORDERS = ["ABCD", "BADC", "CDAB", "DCBA"]


def points_strategy(max_size: int = 60, spread: int = 400) -> st.SearchStrategy[list[ModbusPoint]]:
    def build(drawn: list[tuple[int, str, int, str, str, int, int]]) -> list[ModbusPoint]:
        points = []
        for tag, (unit, area, offset, drawn_kind, order, bit, period) in enumerate(drawn):
            is_bits = area in ("coil", "discrete")
            kind = "bool" if is_bits else drawn_kind
            points.append(
                ModbusPoint(
                    tag, unit, area, offset, bit if kind == "bool" and not is_bits else None, kind, order, period
                )
            )
        return points

    one = st.tuples(
        st.integers(0, 2),
        st.sampled_from(list(FUNCTIONS)),
        st.integers(0, spread),
        st.sampled_from(list(REGISTERS)),
        st.sampled_from(ORDERS),
        st.integers(0, 15),
        st.sampled_from([100, 1000]),
    )
    return st.lists(one, max_size=max_size).map(build)


@given(points_strategy(), st.integers(4, 125), st.integers(1, 2000), st.integers(0, 20))
def test_a_plan_has_each_point_once_whole_and_within_the_limits(points, registers_max, coils_max, gap):
    blocks = plan(points, Limits(registers_max, coils_max, gap))
    assert sorted(p.tag for b in blocks for p in b.points) == [p.tag for p in points]
    for block in blocks:
        assert 1 <= block.count <= (coils_max if block.function <= 2 else registers_max)
        assert block.tags.tolist() == [p.tag for p in block.points]
        for point in block.points:
            assert (point.unit_id, point.function, point.period_ms) == (block.unit_id, block.function, block.period_ms)
            assert block.start <= point.offset
            assert point.end <= block.start + block.count
        covered = {a for p in block.points for a in range(p.offset, p.end)}
        vain, widest = 0, 0
        for address in range(block.start, block.start + block.count):
            vain = 0 if address in covered else vain + 1
            widest = max(widest, vain)
        assert widest <= (gap * 16 if block.function <= 2 else gap)


@given(points_strategy(), st.sets(st.integers(0, 400), max_size=5), st.sets(st.integers(0, 400), max_size=5))
def test_a_plan_never_reads_an_illegal_gap_and_never_crosses_a_cut(points, illegal, cuts):
    lane = [p for p in points if p.function == 3 and p.unit_id == 0 and p.period_ms == 100]
    blocks = plan_lane(lane, Limits(125, 2000, 20), [(a, a + 1) for a in illegal], cuts)
    assert sorted(p.tag for b in blocks for p in b.points) == sorted(p.tag for p in lane)
    for block in blocks:
        covered = {a for p in block.points for a in range(p.offset, p.end)}
        assert not (set(range(block.start, block.start + block.count)) - covered) & illegal
        for cut in cuts:
            assert not any(block.start < cut <= p.offset for p in block.points)


def test_neighbours_become_one_request_and_a_gap_beyond_the_setting_two():
    points = [parse_point(i, f"holding/{a}", "uint16", "", 0, OPTIONS) for i, a in enumerate([0, 1, 10, 30])]
    blocks = plan(points, Limits(125, 2000, 8))
    assert [(b.start, b.count) for b in blocks] == [(0, 11), (30, 1)]


@given(points_strategy(max_size=30))
def test_a_split_keeps_every_point_and_never_parts_points_at_one_address(points):
    for block in plan(points, Limits(125, 2000, 20)):
        halves = split(block)
        spans = {(p.offset, p.end) for p in block.points}
        if halves is None:
            assert len(spans) == 1
            continue
        left, right = halves
        assert sorted(p.tag for p in (*left.points, *right.points)) == sorted(p.tag for p in block.points)
        assert not {(p.offset, p.end) for p in left.points} & {(p.offset, p.end) for p in right.points}


def reference(point: ModbusPoint, payload: bytes, start: int) -> tuple[float, int]:
    """Value and quality by the struct module, one value at a time."""
    raw = payload[2 * (point.offset - start) : 2 * (point.end - start)]
    words = [raw[i : i + 2] for i in range(0, len(raw), 2)]
    if point.order in ("BADC", "DCBA"):
        words = [w[::-1] for w in words]
    if point.order in ("CDAB", "DCBA"):
        words.reverse()
    data = b"".join(words)
    if point.type == "bool":
        return float(int.from_bytes(data, "big") >> point.bit & 1), GOOD
    if point.type.startswith("bcd"):
        return (float(data.hex()), GOOD) if data.hex().isdecimal() else (math.nan, BAD)
    code = {
        "int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "int64": "q", "uint64": "Q", "float16": "e",
        "float32": "f", "float64": "d",
    }[point.type]  # fmt: skip
    number = struct.unpack(">" + code, data)[0]
    if isinstance(number, int):
        return float(number), UNCERTAIN if abs(number) > 2**53 else GOOD
    return (number, GOOD) if math.isfinite(number) else (math.nan, BAD)


@given(points_strategy(spread=60), st.data())
def test_a_block_decodes_like_struct_for_any_registers(points, data):
    for block in plan(points, Limits(125, 2000, 20)):
        size = bytes_due(block.function, block.count)
        assert block.bytes_due == size
        payload = data.draw(st.binary(min_size=size, max_size=size))
        values, quality = decode(block, payload, Texts())
        assert values.dtype == np.float64
        assert quality.dtype == np.uint8
        for point, value, q in zip(block.points, values.tolist(), quality.tolist(), strict=True):
            if block.function <= 2:
                bit = point.offset - block.start
                assert (value, q) == (float(payload[bit // 8] >> bit % 8 & 1), GOOD)
                continue
            expected = reference(point, payload, block.start)
            assert q == expected[1]
            assert value == expected[0] or (math.isnan(value) and math.isnan(expected[0]))


@pytest.mark.parametrize("order", ["ABCD", "CDAB"])
@pytest.mark.parametrize("kind", ["INT16", "UINT16", "INT32", "UINT32", "INT64", "UINT64", "FLOAT32", "FLOAT64"])
@given(seed=st.integers(0, 2**32))
def test_values_are_those_of_pymodbus(kind, order, seed):
    draw = np.random.default_rng(seed)
    data_type = getattr(ModbusClientMixin.DATATYPE, kind)
    value = float(np.float32(draw.normal())) if kind.startswith("FLOAT") else int(draw.integers(0, 2**15))
    words = "big" if order == "ABCD" else "little"
    registers = ModbusClientMixin.convert_to_registers(value, data_type, word_order=words)
    point = parse_point(0, "holding/7", kind.lower(), order, 0, OPTIONS)
    values, quality = decode(block_of([point]), b"".join(r.to_bytes(2, "big") for r in registers), Texts())
    assert values.tolist() == [value]
    assert quality.tolist() == [GOOD]


def one(kind: str, order: str, payload: bytes) -> tuple[float, int]:
    point = parse_point(0, "holding/0", kind, order, 0, OPTIONS)
    values, quality = decode(block_of([point]), payload, Texts())
    return float(values[0]), int(quality[0])


def test_each_byte_order_as_it_is_written():
    value = struct.pack(">I", 0x0A0B0C0D)
    a, b, c, d = value
    assert one("uint32", "ABCD", bytes([a, b, c, d])) == (0x0A0B0C0D, GOOD)
    assert one("uint32", "BADC", bytes([b, a, d, c])) == (0x0A0B0C0D, GOOD)
    assert one("uint32", "CDAB", bytes([c, d, a, b])) == (0x0A0B0C0D, GOOD)
    assert one("uint32", "DCBA", bytes([d, c, b, a])) == (0x0A0B0C0D, GOOD)


def test_nan_and_infinity_are_bad():
    for number in (math.nan, math.inf, -math.inf):
        value, quality = one("float32", "ABCD", struct.pack(">f", number))
        assert math.isnan(value)
        assert quality == BAD


def test_integers_that_a_float_cannot_hold_are_uncertain():
    assert one("int64", "ABCD", struct.pack(">q", 2**53)) == (2.0**53, GOOD)
    assert one("int64", "ABCD", struct.pack(">q", -(2**60)))[1] == UNCERTAIN
    assert one("uint64", "ABCD", struct.pack(">Q", 2**53 + 1))[1] == UNCERTAIN
    assert one("int64", "ABCD", struct.pack(">q", -(2**53) - 1))[1] == UNCERTAIN


def test_bcd_digits_over_nine_are_bad():
    assert one("bcd16", "", b"\x12\x34") == (1234.0, GOOD)
    assert one("bcd32", "CDAB", b"\x56\x78\x12\x34") == (12345678.0, GOOD)
    value, quality = one("bcd16", "", b"\x12\x3a")
    assert math.isnan(value)
    assert quality == BAD


def test_texts_end_at_nul_and_without_blanks_and_are_interned_per_tag():
    texts = Texts()
    rows = [("holding/0", "string:6", ""), ("holding/3", "string:4", "BADC"), ("holding/5", "uint16", "")]
    points = [parse_point(i, a, t, o, 0, OPTIONS) for i, (a, t, o) in enumerate(rows)]
    block = block_of(points)
    values, quality = decode(block, b"run \0x" + b"nura" + b"\0\x09", texts)
    by_tag = dict(zip(block.tags.tolist(), values.tolist(), strict=True))
    assert texts.text(0, int(by_tag[0])) == "run"
    assert texts.text(1, int(by_tag[1])) == "unar"
    assert by_tag[2] == 9
    assert (quality == GOOD).all()


@pytest.mark.parametrize(
    ("address", "kind", "order", "sentence"),
    [
        ("holding/1", "float32", "", "state order ABCD"),
        ("holding/1", "int64", "", "takes 4 registers"),
        ("holding/1", "float32", "big", '"BIG" is no byte order'),
        ("40108", "uint16", "", "write the protocol address instead: holding/107"),
        ("30001", "uint16", "", "input/0"),
        ("holding", "uint16", "", "expected [unit_id/]area/offset[.bit]"),
        ("register/5", "uint16", "", "no area of a Modbus device"),
        ("256/holding/5", "uint16", "", "unit id 256 is out of range"),
        ("holding/65536", "uint16", "", "beyond address 65535"),
        ("holding/65535", "float32", "ABCD", "beyond address 65535"),
        ("holding/5", "real", "", '"real" is no type'),
        ("holding/5", "bool", "", "say which bit"),
        ("holding/5.16", "bool", "", "bits 0 (least significant) to 15"),
        ("holding/5.3", "uint16", "", "a bit of a register has type bool"),
        ("coil/5.1", "bool", "", "one bit already"),
        ("coil/5", "uint16", "", "a coil has type bool"),
        ("holding/5", "string:0", "", "1 to 250 characters"),
        ("holding/5", "string:10", "DCBA", "a text has order ABCD (default) or BADC"),
    ],
)
def test_a_wrong_row_of_the_tag_list_gets_a_sentence(address, kind, order, sentence):
    with pytest.raises(ValueError) as error:
        parse_point(0, address, kind, order, 0, OPTIONS)
    assert sentence in str(error.value)


def test_a_value_larger_than_a_request_of_the_device_is_refused():
    small = OPTIONS.model_copy(update={"registers_per_read_max": 3})
    with pytest.raises(ValueError, match="takes 4 registers, but device press reads at most 3"):
        parse_point(0, "holding/0", "float64", "ABCD", 0, small)


def test_an_address_states_unit_area_offset_and_bit():
    assert parse_point(3, "7/holding/12.5", "bool", "", 0, OPTIONS) == ModbusPoint(
        3, 7, "holding", 12, 5, "bool", "ABCD", 1000
    )
    assert parse_point(3, "discrete/5", "bool", "", 250, OPTIONS) == ModbusPoint(
        3, 1, "discrete", 5, None, "bool", "ABCD", 250
    )
