"""How values become registers: compared with pymodbus's own conversion, which knows nothing of ours."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymodbus.client import AsyncModbusTcpClient as Client

from edge.simulator.layout import PRESS_REGISTERS, STRIP_REGISTERS
from edge.simulator.registers import REGISTERS_PER_AREA, Register, encode

INTEGERS = {
    "int16": (-(2**15), 2**15 - 1), "uint16": (0, 2**16 - 1), "int32": (-(2**31), 2**31 - 1),
    "uint32": (0, 2**32 - 1), "int64": (-(2**53), 2**53), "uint64": (0, 2**53),
}  # fmt: skip


@pytest.mark.parametrize("kind", INTEGERS)
@given(data=st.data())
def test_integers_read_back_as_an_independent_client_reads_them(kind, data):
    number = data.draw(st.integers(*INTEGERS[kind]))
    words = encode(Register("x", 1, "holding", 0, kind), number)
    assert Client.convert_from_registers(words, Client.DATATYPE[kind.upper()]) == number
    swapped = encode(Register("x", 1, "holding", 0, kind, order="CDAB"), number)
    assert Client.convert_from_registers(swapped, Client.DATATYPE[kind.upper()], word_order="little") == number


@given(st.floats(allow_nan=False, width=32))
def test_floats_read_back_as_an_independent_client_reads_them(number):
    words = encode(Register("x", 1, "input", 0, "float32"), number)
    assert Client.convert_from_registers(words, Client.DATATYPE.FLOAT32) == number
    assert encode(Register("x", 1, "input", 0, "float64"), number) == Client.convert_to_registers(
        number, Client.DATATYPE.FLOAT64
    )


def test_the_four_orders_are_those_of_the_tag_list():
    number = 0x0A0B0C0D
    words = {
        order: encode(Register("x", 1, "holding", 0, "uint32", order=order), number)
        for order in ("ABCD", "BADC", "CDAB", "DCBA")
    }
    assert words == {
        "ABCD": [0x0A0B, 0x0C0D],
        "BADC": [0x0B0A, 0x0D0C],
        "CDAB": [0x0C0D, 0x0A0B],
        "DCBA": [0x0D0C, 0x0B0A],
    }


def test_scale_is_taken_out_and_what_does_not_fit_is_held_at_the_bound():
    register = Register("x", 1, "input", 0, "int16", scale=0.1)
    assert encode(register, 183.44) == [1834]
    assert encode(register, 1e9) == [2**15 - 1]
    assert encode(register, -1.0) == [2**16 - 10]
    assert encode(Register("x", 1, "input", 0, "uint16"), -5) == [0]


def test_text_is_padded_and_cut_to_its_length():
    register = Register("x", 1, "holding", 0, "string:4")
    assert encode(register, "AB") == [0x4142, 0]
    assert encode(register, "ABCDEF") == [0x4142, 0x4344]


@pytest.mark.parametrize("registers", [PRESS_REGISTERS, STRIP_REGISTERS], ids=["press", "strip"])
def test_no_two_values_share_a_register_and_all_lie_in_the_image(registers):
    taken = set()
    for register in registers:
        places = {(register.unit_id, register.area, register.offset + i, register.bit) for i in range(register.count)}
        whole = {(unit, area, offset, None) for unit, area, offset, _ in places}
        assert not places & taken
        assert not whole & taken
        assert register.offset + register.count <= REGISTERS_PER_AREA
        taken |= places
