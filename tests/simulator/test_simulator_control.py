"""The control line: faults from outside the process that runs the plant."""

import asyncio
import contextlib
import json

import pytest

from edge.errors import Refused, Unreachable
from edge.simulator.control import CONNECTIONS_MAX, LINE_BYTES_MAX
from edge.simulator.faults import FAULT_KINDS
from edge.simulator.plant import Plant, SimulatorOptions, run, send_fault

FREE = {"cnc_port": 0, "inspection_port": 0, "press_port": 0, "strip_port": 0, "control_port": 0}


@contextlib.asynccontextmanager
async def plant_and_options():
    async with Plant(SimulatorOptions(**FREE, plcs=("press",), speed=0)) as plant:
        yield plant, plant.options.model_copy(update={"control_port": plant.ports["control"]})


async def test_a_fault_from_outside_reaches_the_machine():
    async with plant_and_options() as (plant, options):
        sentence = await send_fault(options, "stop", machine="press", reason="no_material")
        assert "no_material" in sentence
        assert plant.machines["press"].values()["reason_word"] == 5
        await send_fault(options, "start", machine="press")
        assert plant.machines["press"].values()["reason_word"] == 0
        listed = json.loads(await send_fault(options, "list"))
        assert "bearing_temperature" in listed["press"]


async def test_a_refusal_comes_back_with_its_sentence():
    async with plant_and_options() as (_, options):
        with pytest.raises(Refused, match="no machine 'lathe'"):
            await send_fault(options, "stop", machine="lathe")


async def test_without_a_simulator_the_sentence_says_what_to_start():
    async with plant_and_options() as (_, options):
        pass
    with pytest.raises(Unreachable, match="andon simulate"):
        await send_fault(options, "list")


async def test_help_needs_no_simulator_and_names_every_fault():
    text = await send_fault(SimulatorOptions(), "help")
    for kind in FAULT_KINDS:
        assert f"{kind.model_fields['fault'].default}: " in text


@pytest.mark.parametrize("line", [b"POST / HTTP/1.1\r\n", b"[1]\n", b"x" * (LINE_BYTES_MAX + 1) + b"\n"])
async def test_a_line_that_is_no_request_closes_the_connection(line):
    async with plant_and_options() as (plant, options):
        reader, writer = await asyncio.open_connection("127.0.0.1", options.control_port)
        writer.write(line)
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
        writer.close()
        assert await send_fault(options, "list")
        assert plant.machines["press"].values()["reason_word"] == 0


async def test_connections_are_bounded():
    async with plant_and_options() as (_, options):
        writers = []
        for _ in range(CONNECTIONS_MAX):
            reader, writer = await asyncio.open_connection("127.0.0.1", options.control_port)
            writer.write(b'{"fault": "list"}\n')
            await reader.readline()
            writers.append(writer)
        reader, writer = await asyncio.open_connection("127.0.0.1", options.control_port)
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        for open_writer in [*writers, writer]:
            open_writer.close()


async def test_run_goes_on_until_cancelled_and_lets_go_of_its_ports():
    async with plant_and_options() as (_, options):
        pass
    task = asyncio.create_task(run(options.model_copy(update={"plcs": ("strip",)})))
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(Unreachable):
                await send_fault(options, "list")
                break
            await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(Unreachable):
        await send_fault(options, "list")


async def test_a_taken_port_is_named():
    async with plant_and_options() as (plant, _):
        taken = SimulatorOptions(**FREE | {"press_port": plant.ports["press"]}, plcs=("press",))
        with pytest.raises(Unreachable, match="press: cannot listen on"):
            async with Plant(taken):
                pass


async def test_the_plant_moves_by_itself_at_its_speed():
    async with Plant(SimulatorOptions(**FREE, plcs=("press",), speed=50, period_ms=10)) as plant:
        before = plant.machines["press"].values()["strokes"]
        async with asyncio.timeout(20):
            while plant.machines["press"].values()["strokes"] < before + 20:
                await asyncio.sleep(0.02)
