"""The Modbus servers of the plant, seen by pymodbus's client and by mbpoll, which shares no code with the server."""

import asyncio
import contextlib
import os
import re
import shutil

import pytest
import pytest_asyncio
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ConnectionException, ModbusIOException

from edge.errors import Refused
from edge.simulator.plant import Plant, SimulatorOptions
from edge.simulator.recording import RECORDINGS_DIR, read

pytestmark = pytest.mark.asyncio(loop_scope="module")

FREE = {"cnc_port": 0, "inspection_port": 0, "press_port": 0, "strip_port": 0, "control_port": 0}
DEADLINE_S = 20.0
TYPES = AsyncModbusTcpClient.DATATYPE


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running():
    async with Plant(SimulatorOptions(**FREE, plcs=("press", "strip"), speed=0, period_ms=20)) as plant:
        yield plant


@pytest_asyncio.fixture(loop_scope="module")
async def plant(running):
    yield running
    for name in ("press", "strip"):
        await running.fault("start", machine=name)
        await running.fault("unfreeze", value=f"{name}.*")
        await running.fault("unset", value=f"{name}.*")
        await running.fault("exceptions", plc=name)
        await running.fault("restore", plc=name)
    if running.plcs["press"]._without:
        await running.fault("restart", plc="press")


@contextlib.asynccontextmanager
async def visit(plant, name="press"):
    client = AsyncModbusTcpClient("127.0.0.1", port=plant.ports[name], timeout=5, retries=0, reconnect_delay=0)
    assert await client.connect()
    try:
        yield client
    finally:
        client.close()


@pytest_asyncio.fixture(loop_scope="module")
async def client(plant):
    async with visit(plant) as client:
        yield client


async def holding(client, offset, count, kind, order="big", unit=1):
    reply = await client.read_holding_registers(offset, count=count, device_id=unit)
    assert not reply.isError(), reply
    return client.convert_from_registers(reply.registers, kind, word_order=order)


async def inputs(client, offset, count, kind, unit=1):
    reply = await client.read_input_registers(offset, count=count, device_id=unit)
    assert not reply.isError(), reply
    return client.convert_from_registers(reply.registers, kind)


async def test_the_press_serves_the_recording_and_its_counters(plant, client):
    bearing = read(RECORDINGS_DIR / "bearing/bearing.parquet").numbers("temperature")
    for _ in range(20):
        await plant.step(1.7)
    values = plant.machines["press"].values()
    assert await inputs(client, 0, 2, TYPES.FLOAT32) == pytest.approx(bearing[plant.machines["press"].sample], rel=1e-6)
    assert await inputs(client, 2, 1, TYPES.UINT16) == round(values["vibration"] * 100)
    assert await inputs(client, 3, 1, TYPES.INT16) == round(values["pressure"] * 10)
    assert await holding(client, 0, 1, TYPES.UINT16) == values["state_word"]
    assert values["strokes"] > 10
    assert await holding(client, 4, 2, TYPES.UINT32, order="little") == values["strokes"]
    assert await holding(client, 6, 2, TYPES.UINT32, order="little") == values["rejects"]
    assert await holding(client, 10, 8, TYPES.STRING) == values["product"]
    bits = await holding(client, 2, 1, TYPES.UINT16)
    assert [bool(bits >> i & 1) for i in range(3)] == [
        values[n] for n in ("motor_on", "guard_closed", "lubrication_ok")
    ]


async def test_meter_and_plc_of_the_strip_line_answer_under_their_own_unit_ids(plant):
    await plant.step(1.0)
    values = plant.machines["strip"].values()
    async with visit(plant, "strip") as client:
        assert await holding(client, 0, 1, TYPES.UINT16) == values["state_word"]
        assert await holding(client, 4, 2, TYPES.UINT32) == values["strips"]
        assert await inputs(client, 0, 2, TYPES.FLOAT32, unit=2) == pytest.approx(values["power"], rel=1e-6)
        factor = await inputs(client, 6, 1, TYPES.UINT16, unit=2)
        assert factor == round(values["power_factor_lagging"] * 10_000)
        assert await inputs(client, 12, 4, TYPES.UINT64, unit=2) == round(values["energy"] * 1000)
        assert await inputs(client, 0, 1, TYPES.UINT16, unit=1) == 0
        assert (await client.read_input_registers(0, count=1, device_id=9)).isError()


async def test_mbpoll_reads_what_the_press_shows(plant):
    if shutil.which("mbpoll") is None:
        if os.environ.get("CI"):
            pytest.fail("mbpoll is missing: apt-get install mbpoll")
        pytest.skip("mbpoll is missing: apt-get install mbpoll")
    await plant.step(7.0)
    values = plant.machines["press"].values()
    shown = await mbpoll(plant.ports["press"], "-t", "3:float", "-B", "-r", "0")
    assert float(shown[0]) == pytest.approx(values["bearing_temperature"], rel=1e-5)
    assert await mbpoll(plant.ports["press"], "-t", "4", "-r", "0", "-c", "2") == [
        str(values["state_word"]),
        str(values["reason_word"]),
    ]
    assert await mbpoll(plant.ports["press"], "-t", "4:int", "-r", "4") == [str(values["strokes"])]
    assert await mbpoll(plant.ports["press"], "-t", "3", "-r", "3") == [str(round(values["pressure"] * 10))]


async def mbpoll(port, *arguments):
    process = await asyncio.create_subprocess_exec(
        "mbpoll", "-0", "-1", "-a", "1", "-p", str(port), *arguments, "127.0.0.1",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return re.findall(r"^\[\d+\]:\s+(\S+)", output.decode(), re.MULTILINE)


async def test_nobody_may_write(plant, client):
    before = plant.machines["press"].values()["strokes"]
    assert (await client.write_register(4, 99, device_id=1)).isError()
    assert (await client.write_coil(0, True, device_id=1)).isError()
    assert await holding(client, 4, 2, TYPES.UINT32, order="little") == before


async def test_stop_shows_the_codes_of_the_press_and_strokes_stand(plant, client):
    await plant.fault("stop", machine="press", reason="planned_maintenance")
    strokes = await holding(client, 4, 2, TYPES.UINT32, order="little")
    for _ in range(10):
        await plant.step(1.0)
    assert (await holding(client, 0, 1, TYPES.UINT16), await holding(client, 1, 1, TYPES.UINT16)) == (50, 1)
    assert await holding(client, 4, 2, TYPES.UINT32, order="little") == strokes


async def test_cut_closes_every_connection_and_restore_opens_the_same_port(plant):
    async with visit(plant) as one, visit(plant) as other:
        port = plant.ports["press"]
        await plant.fault("cut", plc="press")
        for client in (one, other):
            with pytest.raises((ConnectionException, ModbusIOException, ConnectionError)):
                await client.read_holding_registers(0, count=1, device_id=1)
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", port)
        await plant.step(1.0)
        await plant.fault("restore", plc="press")
        assert plant.ports["press"] == port
    async with visit(plant) as again:
        assert await holding(again, 0, 1, TYPES.UINT16) == plant.machines["press"].values()["state_word"]


async def test_cut_of_one_plc_leaves_the_other_alone(plant):
    await plant.fault("cut", plc="press")
    async with visit(plant, "strip") as client:
        assert await holding(client, 0, 1, TYPES.UINT16) == plant.machines["strip"].values()["state_word"]


async def test_a_frozen_register_stays_while_others_move(plant, client):
    await plant.fault("freeze", value="press.bearing_temperature")
    before = await inputs(client, 0, 2, TYPES.FLOAT32)
    pressure = await inputs(client, 3, 1, TYPES.INT16)
    for _ in range(10):
        await plant.step(0.31)
    assert await inputs(client, 0, 2, TYPES.FLOAT32) == before
    assert await inputs(client, 3, 1, TYPES.INT16) != pressure
    assert plant.machines["press"].values()["bearing_temperature"] != pytest.approx(before, rel=1e-6)


async def test_reset_counts_on_from_zero(plant, client):
    await plant.fault("reset", value="press.strokes")
    assert await holding(client, 4, 2, TYPES.UINT32, order="little") == 0
    async with asyncio.timeout(DEADLINE_S):
        while await holding(client, 4, 2, TYPES.UINT32, order="little") < 2:
            await plant.step(1.0)


async def test_set_overrides_a_register_until_unset(plant, client):
    await plant.fault("set", value="press.bearing_temperature", to=190)
    await plant.step(1.0)
    assert await inputs(client, 0, 2, TYPES.FLOAT32) == 190
    await plant.fault("unset", value="press.bearing_temperature")
    assert await inputs(client, 0, 2, TYPES.FLOAT32) != 190


async def test_exceptions_answer_only_requests_that_touch_the_register(plant, client):
    await plant.fault("exceptions", plc="press", values=["vibration"])
    reply = await client.read_input_registers(0, count=4, device_id=1)
    assert reply.isError()
    assert reply.exception_code == 2
    assert await inputs(client, 0, 2, TYPES.FLOAT32) > 0
    assert await inputs(client, 3, 1, TYPES.INT16) >= 0
    await plant.fault("exceptions", plc="press")
    assert not (await client.read_input_registers(0, count=4, device_id=1)).isError()


async def test_restart_without_a_register_makes_its_address_illegal(plant):
    await plant.fault("restart", plc="press", without=["pressure"])
    async with visit(plant) as client:
        assert (await client.read_input_registers(3, count=1, device_id=1)).exception_code == 2
        assert await inputs(client, 0, 2, TYPES.FLOAT32) > 0


@pytest.mark.parametrize(
    ("fault", "arguments", "sentence"),
    [
        ("clock", {"plc": "press", "seconds": 5}, "Modbus, which has no timestamps"),
        ("restart", {"plc": "press", "namespace_shift": 1}, "Modbus, which has no namespaces"),
        ("cut", {"plc": "pres"}, "no PLC 'pres'; there are press, strip"),
        ("stop", {"machine": "lathe"}, "no machine 'lathe'"),
        ("freeze", {"value": "press.heat"}, "press has no value 'heat'"),
        ("stop", {"machine": "press", "reason": "lunch"}, "not understood: stop.reason"),
        ("explode", {}, "not understood"),
    ],
)
async def test_a_fault_that_cannot_be_is_refused_with_a_sentence(plant, fault, arguments, sentence):
    with pytest.raises(Refused, match=sentence):
        await plant.fault(fault, **arguments)
