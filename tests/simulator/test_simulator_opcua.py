"""The OPC UA servers of the plant, seen by a real asyncua client."""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
from asyncua import Client, ua

from edge.errors import Refused
from edge.simulator.layout import CNC_NODES, CNC_URI, INSPECTION_NODES, INSPECTION_URI
from edge.simulator.plant import Plant, SimulatorOptions
from edge.simulator.recording import RECORDINGS_DIR, read

pytestmark = pytest.mark.asyncio(loop_scope="module")

FREE = {"cnc_port": 0, "inspection_port": 0, "press_port": 0, "strip_port": 0, "control_port": 0}
PATHS = {node.name: node.path for node in CNC_NODES}
DEADLINE_S = 20.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running():
    """A plant that only moves when a test says so."""
    async with Plant(SimulatorOptions(**FREE, plcs=("cnc",), speed=0, period_ms=20)) as plant:
        yield plant


@pytest_asyncio.fixture(loop_scope="module")
async def plant(running):
    """The plant with every fault mended afterwards."""
    yield running
    await running.fault("start", machine="cnc")
    await running.fault("unfreeze", value="cnc.*")
    await running.fault("unset", value="cnc.*")
    await running.fault("clock", plc="cnc", seconds=0)
    await running.fault("exceptions", plc="cnc")
    if running.plcs["cnc"]._without or running.plcs["cnc"]._namespace_shift:
        await running.fault("restart", plc="cnc")
    await running.fault("restore", plc="cnc")


@contextlib.asynccontextmanager
async def visit(plant, name="cnc"):
    client = Client(f"opc.tcp://127.0.0.1:{plant.ports[name]}", timeout=5)
    async with client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def client(plant):
    async with visit(plant) as client:
        yield client


async def node(client, name):
    index = await client.get_namespace_index(CNC_URI)
    return client.get_node(ua.NodeId(PATHS[name], index))


async def value(client, name):
    return await (await node(client, name)).read_value()


async def test_every_node_is_in_its_namespace_with_the_values_of_a_row_of_the_recording(plant, client):
    recording = read(RECORDINGS_DIR / "milling/milling.parquet")
    for _ in range(3):
        await plant.step(1.3)
        row = recording.at(plant.machines["cnc"].row)
        assert row["run"] == plant.machines["cnc"].run
        for name in recording.columns:
            if name != "run":
                assert await value(client, name) == row[name], name
    for entry in CNC_NODES:
        data = await (await node(client, entry.name)).read_data_value()
        assert data.StatusCode.is_good()
        assert data.Value.VariantType == ua.VariantType[entry.type], entry.name


async def test_source_timestamps_are_now_and_the_clock_of_the_server_runs(plant, client):
    await plant.step(1.0)
    data = await (await node(client, "x_position")).read_data_value()
    assert abs(datetime.now(UTC) - data.SourceTimestamp) < timedelta(seconds=5)
    time = client.get_node(ua.NodeId(ua.ObjectIds.Server_ServerStatus_CurrentTime))
    assert abs(datetime.now(UTC) - await time.read_value()) < timedelta(seconds=10)


async def test_the_part_counter_counts_and_a_subscriber_hears_of_it(plant, client):
    heard = asyncio.Queue()

    class Listener:
        def datachange_notification(self, _node, value, _data):
            heard.put_nowait(value)

    subscription = await client.create_subscription(50, Listener())
    await subscription.subscribe_data_change(await node(client, "parts"))
    async with asyncio.timeout(DEADLINE_S):
        before = await heard.get()
        while plant.machines["cnc"].values()["parts"] == before:
            await plant.step(1.0)
        assert await heard.get() == before + 1
    await subscription.delete()


async def test_nobody_may_write(client):
    with pytest.raises(ua.UaStatusCodeError):
        await (await node(client, "parts")).write_value(7, ua.VariantType.UInt32)


async def test_stop_shows_state_and_reason_and_start_goes_on(plant, client):
    await plant.fault("stop", machine="cnc", reason="no_operator")
    parts = await value(client, "parts")
    await plant.step(120.0)
    assert (await value(client, "state_word"), await value(client, "reason_word")) == (2, 4)
    assert await value(client, "parts") == parts
    await plant.fault("start", machine="cnc")
    await plant.step(60.0)
    assert await value(client, "parts") > parts


async def test_cut_closes_the_connection_and_the_port_until_restored(plant):
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(visit(plant))
        await value(client, "parts")
        await plant.fault("cut", plc="cnc")
        with pytest.raises((ConnectionError, ua.UaError, TimeoutError, asyncio.CancelledError)):
            await value(client, "parts")
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", plant.ports["cnc"])
        port = plant.ports["cnc"]
        await plant.fault("restore", plc="cnc")
        assert plant.ports["cnc"] == port
        async with visit(plant) as again:
            assert await value(again, "state_word") == plant.machines["cnc"].values()["state_word"]
        # The first client only finds out on leaving that its connection is gone.
        stack.pop_all()
        with contextlib.suppress(ConnectionError, ua.UaError, TimeoutError):
            await client.disconnect()


async def test_cut_for_a_while_comes_back_by_itself(plant):
    await plant.fault("cut", plc="cnc", seconds=0.2)
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", plant.ports["cnc"])
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                async with visit(plant) as client:
                    await value(client, "parts")
                break
            except OSError:
                await asyncio.sleep(0.05)


async def test_a_frozen_value_keeps_value_and_source_timestamp_while_others_move(plant, client):
    await plant.step(1.0)
    await plant.fault("freeze", value="cnc.y_current")
    frozen, moving = await node(client, "y_current"), await node(client, "x_current")
    before, moved = await frozen.read_data_value(), await moving.read_data_value()
    for _ in range(40):
        await plant.step(0.9)
    after = await frozen.read_data_value()
    assert (after.Value, after.SourceTimestamp) == (before.Value, before.SourceTimestamp)
    assert after.Value.Value != plant.machines["cnc"].values()["y_current"]
    assert (await moving.read_data_value()).SourceTimestamp > moved.SourceTimestamp
    await plant.fault("unfreeze", value="cnc.y_current")
    assert await frozen.read_value() == plant.machines["cnc"].values()["y_current"]


async def test_reset_sets_a_counter_to_zero(plant, client):
    while plant.machines["cnc"].values()["parts"] < 2:
        await plant.step(10.0)
    await plant.fault("reset", value="cnc.parts")
    assert await value(client, "parts") == 0
    with pytest.raises(Refused, match="is no counter"):
        await plant.fault("reset", value="cnc.x_position")


async def test_set_overrides_a_value_in_the_type_of_the_node(plant, client):
    await plant.fault("set", value="cnc.spindle_power", to="9.5")
    await plant.fault("set", value="cnc.state_word", to=4)
    await plant.step(0.5)
    assert await value(client, "spindle_power") == 9.5
    assert await value(client, "state_word") == 4
    with pytest.raises(Refused, match="is no float"):
        await plant.fault("set", value="cnc.spindle_power", to="hot")
    await plant.fault("unset", value="cnc.spindle_power")
    assert await value(client, "spindle_power") == plant.machines["cnc"].values()["spindle_power"]


async def test_a_shifted_clock_shows_in_source_timestamps_and_server_time(plant, client):
    await plant.fault("clock", plc="cnc", seconds=-86_400)
    moving = await node(client, "x_current")
    before = await moving.read_value()
    while plant.machines["cnc"].values()["x_current"] == before:
        await plant.step(1.0)
    expected = datetime.now(UTC) - timedelta(days=1)
    data = await moving.read_data_value()
    assert abs(data.SourceTimestamp - expected) < timedelta(seconds=30)
    time = client.get_node(ua.NodeId(ua.ObjectIds.Server_ServerStatus_CurrentTime))
    async with asyncio.timeout(DEADLINE_S):
        while abs(await time.read_value() - expected) > timedelta(seconds=30):
            await asyncio.sleep(0.1)


async def test_restart_without_a_node_leaves_the_others_and_ends_the_session(plant):
    async with visit(plant) as old:
        await plant.fault("restart", plc="cnc", without=["spindle_power"])
        with pytest.raises((ConnectionError, ua.UaError, TimeoutError)):
            await value(old, "state_word")
    async with visit(plant) as client:
        with pytest.raises(ua.UaStatusCodeError) as caught:
            await value(client, "spindle_power")
        assert caught.value.code == ua.StatusCodes.BadNodeIdUnknown
        assert await value(client, "spindle_current") == plant.machines["cnc"].values()["spindle_current"]


async def test_restart_with_a_shifted_namespace_moves_every_node_id(plant):
    async with visit(plant) as client:
        before = await client.get_namespace_index(CNC_URI)
    await plant.fault("restart", plc="cnc", namespace_shift=2)
    async with visit(plant) as client:
        assert await client.get_namespace_index(CNC_URI) == before + 2
        assert await value(client, "parts") == plant.machines["cnc"].values()["parts"]
        with pytest.raises(ua.UaStatusCodeError):
            await client.get_node(ua.NodeId(PATHS["parts"], before)).read_value()


async def test_restart_with_an_outage_is_off_meanwhile(plant):
    await plant.fault("restart", plc="cnc", seconds=0.2)
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", plant.ports["cnc"])
    async with asyncio.timeout(DEADLINE_S):
        while not plant.plcs["cnc"]._listening:
            await asyncio.sleep(0.05)
    async with visit(plant) as client, asyncio.timeout(DEADLINE_S):
        while True:  # a server that has just started says that it waits for its first values
            with contextlib.suppress(ua.UaStatusCodeError):
                assert await value(client, "parts") is not None
                break
            await asyncio.sleep(0.02)


async def test_exceptions_show_as_a_bad_status_until_they_are_taken_back(plant, client):
    await plant.fault("exceptions", plc="cnc", values="x_power, y_power")
    data = await (await node(client, "x_power")).read_data_value(raise_on_bad_status=False)
    assert data.StatusCode.value == ua.StatusCodes.BadDeviceFailure
    await value(client, "x_position")
    await plant.fault("exceptions", plc="cnc")
    assert await value(client, "x_power") == plant.machines["cnc"].values()["x_power"]


async def test_the_inspection_station_shows_part_and_picture_on_its_own_server():
    async with (
        Plant(SimulatorOptions(**FREE, plcs=("inspection",), speed=0)) as plant,
        visit(plant, "inspection") as client,
    ):
        index = await client.get_namespace_index(INSPECTION_URI)
        nodes = {entry.name: client.get_node(ua.NodeId(entry.path, index)) for entry in INSPECTION_NODES}
        assert await nodes["trigger"].read_value() == 0
        while plant.machines["strip"].values()["trigger"] == 0:
            await plant.step(1.0)
        shown = {name: await entry.read_value() for name, entry in nodes.items()}
        assert shown == {name: plant.machines["strip"].values()[name] for name in nodes}
        assert shown["picture"].startswith(str(RECORDINGS_DIR / "surface"))
        assert shown["verdict"] == ""


class _Statuses:
    def __init__(self) -> None:
        self.seen: list[bool] = []

    def datachange_notification(self, _node, _value, data) -> None:
        self.seen.append(data.monitored_item.Value.StatusCode.is_good())


async def test_a_subscription_with_a_deadband_hears_of_a_bad_status_and_of_its_end(plant, client):
    """The value is the same before and after: only its status changes."""
    heard = _Statuses()
    subscription = await client.create_subscription(20, heard)
    await subscription.deadband_monitor([await node(client, "clamp_pressure")], 100.0, 1)

    async def until_last(good: bool) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not heard.seen or heard.seen[-1] is not good:
                await asyncio.sleep(0.01)

    await until_last(good=True)
    await plant.fault("exceptions", plc="cnc", values="clamp_pressure")
    await until_last(good=False)
    await plant.fault("exceptions", plc="cnc")
    await until_last(good=True)
    await subscription.delete()
