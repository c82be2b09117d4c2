"""A whole gateway, one OPC UA server with a history, and a break: what is stored, told and not told."""

import asyncio

import pytest
from opcua_peers import URI, Plc, Proxy

from edge.app import App
from edge.config import load

GATEWAY = """
[site]
enterprise = "acme"
site = "ulm"
[gateway]
name = "box"
state_dir = "state"
[storage]
free_bytes_min = 0
ballast_bytes = 0
[mqtt]
enabled = {mqtt}
[web]
enabled = false
[[device]]
name = "plc"
type = "opcua"
asset = "a/l/c"
url = "opc.tcp://127.0.0.1:{port}/plc"
publishing_ms = 50
sampling_ms = 20
keepalive_ms = 200
deadline_ms = 500
"""
TAGS = """tag,device,address,scale,unit,asset
plc.heat,plc,nsu={uri};s=heat,2.0,Cel,a/l/c
"""
ALARMS = """alarm,tag,condition,limit,priority,message,cause,consequence,action
plc.hot,plc.heat,HH,150,high,hot,a,b,c
"""


def config(folder, port):
    folder.mkdir()
    (folder / "gateway.toml").write_text(GATEWAY.format(port=port, mqtt="false"))
    (folder / "tags.csv").write_text(TAGS.format(uri=URI))
    (folder / "alarms.csv").write_text(ALARMS)
    (folder / "shifts.toml").write_text("")
    return load(folder)


@pytest.mark.filterwarnings("ignore:.*datachange_callback:pytest.PytestUnraisableExceptionWarning")
async def test_what_was_missed_in_a_break_is_stored_marked_and_in_the_ledger_and_no_alarm_is_raised(tmp_path):
    async with Plc() as plc, Proxy(plc.port) as wire:
        node = await plc.add("heat", 0.0)
        await plc.server.historize_node_data_change(node, period=None, count=1000)
        app = App(config(tmp_path / "config", wire.port))
        running = asyncio.create_task(app.run())

        async def rows(sql):
            return [tuple(row) for row in (await app.store.query(sql)).rows]

        async def until(sql, enough):
            async with asyncio.timeout(20):
                while not enough(await rows(sql)):
                    await asyncio.sleep(0.05)

        try:
            async with asyncio.timeout(20):
                await app.ready.wait()
            await until("SELECT value FROM readings WHERE tag = 'plc.heat' AND quality = 192", bool)
            wire.flows.clear()
            async with asyncio.timeout(20):
                while app.devices.by_name["plc"].supervisor.status.state != "down":
                    await asyncio.sleep(0.01)
            for n in (*range(1, 50), 100, *range(50, 0, -1)):  # 100 x 2 is beyond the limit of the alarm
                await plc.write("heat", float(n))
            wire.flows.set()
            await until("SELECT backfilled FROM ledger WHERE reason = 'backfill'", bool)
            await until("SELECT value FROM readings WHERE tag = 'plc.heat' AND backfilled", lambda got: len(got) >= 99)
            story = await rows(
                "SELECT value FROM readings WHERE tag = 'plc.heat' AND quality = 192 AND value > 0 ORDER BY time"
            )
            expected = [2.0 * n for n in (*range(1, 50), 100, *range(50, 0, -1))]
            values = [value for (value,) in story]
            assert values[: len(expected)] == expected
            assert set(values[len(expected) :]) <= {2.0}  # the present value, repeated
            ledger = await rows("SELECT device, reason, backfilled FROM ledger WHERE reason <> '' ORDER BY reason")
            assert ("plc", "backfill", 99) in ledger
            assert [one for one in ledger if one[1] == "disconnected"] == [("plc", "disconnected", None)]
            assert not await rows("SELECT alarm FROM alarms WHERE alarm = 'plc.hot'")
        finally:
            app.stop.set()
            await running
