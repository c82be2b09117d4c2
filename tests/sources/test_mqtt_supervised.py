"""MQTT and Sparkplug devices from the configuration on: checked, built, supervised, over the death of the broker."""

import asyncio
import contextlib
from pathlib import Path

import pytest
from mqtt_peers import Client, Mosquitto
from sparkplug_node_peers import js_node

from edge.config import load
from edge.devices import make_source
from edge.errors import ConfigError
from edge.sources.supervisor import Backoff, Supervisor
from edge.tick import Condition
from plant.batch import BAD, GOOD
from plant.texts import Texts

GATEWAY = """
[site]
enterprise = "example"
site = "plant1"
[gateway]
name = "gw1"
state_dir = "state"
[mqtt]
enabled = false
[[device]]
type = "mqtt"
name = "hall"
asset = "hall/line1/oven"
port = {port}
time_path = "ts"
time_unit = "ms"
first_message_s = 0
[[device]]
type = "sparkplug"
name = "cell"
asset = "hall/line1/cell"
port = {port}
group_id = "G"
rebirth_interval_s = 0.2
"""
TAGS = """tag,device,address,type
oven.zone1,hall,oven/state#zones[0].t,
oven.mode,hall,oven/state#mode,string
cell.load,cell,E//Load,
"""


def config_folder(folder, port: int, tags: str = TAGS):
    (folder / "gateway.toml").write_text(GATEWAY.format(port=port))
    (folder / "tags.csv").write_text(tags)
    (folder / "alarms.csv").write_text("alarm,tag,condition,limit,priority,message\n")
    (folder / "shifts.toml").write_text("")
    return folder


class Line:
    """Where readings and conditions go."""

    def __init__(self) -> None:
        self.last: dict[int, tuple[float, int]] = {}
        self.active: dict[str, Condition] = {}
        self.history: list[tuple[int, int, float]] = []

    async def put_history(self, batch) -> None:
        self.history += zip(batch.tag.tolist(), batch.time.tolist(), batch.value.tolist(), strict=True)

    async def put(self, batch) -> None:
        for tag, value, quality in zip(batch.tag.tolist(), batch.value.tolist(), batch.quality.tolist(), strict=True):
            self.last[tag] = (value, quality)

    def signal(self, signal) -> None:
        if isinstance(signal, Condition):
            self.active.pop(signal.alarm, None)
            if signal.active:
                self.active[signal.alarm] = signal

    async def until(self, true, what: str = "") -> None:
        async with asyncio.timeout(20):
            while not true():
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(folder):
    config = load(folder)
    index = {row.tag: i for i, row in enumerate(config.tags)}
    line = Line()
    tasks, supervisors = [], {}
    for options in config.file.device:
        rows = config.rows_of(options.name)
        source = make_source(options, rows, index, Texts(), folder, {})
        supervisor = Supervisor(
            source,
            tags={index[row.tag]: row.tag for row in rows},
            put=line.put,
            put_history=line.put_history,
            signal=line.signal,
            backoff=Backoff(first_s=0.1, cap_s=0.3),
        )
        supervisors[options.name] = supervisor
        tasks.append(asyncio.create_task(supervisor.run()))
    try:
        yield line, supervisors
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_the_death_of_the_broker_is_told_and_its_return_brings_the_data_back(tmp_path):
    broker = Mosquitto(tmp_path)
    births = {"": [{"name": "Load", "alias": 1, "type": "Double", "value": 0.5}]}
    async with running(config_folder(tmp_path, broker.port)) as (line, supervisors):
        with broker:
            async with js_node(broker.port, births):
                await line.until(lambda: line.last.get(2) == (0.5, GOOD))
                await line.until(lambda: supervisors["hall"].status.state == "connected")
                with Client(broker.port) as client:
                    client.publish("oven/state", '{"ts": 1790000000000, "zones": [{"t": 180}], "mode": "bake"}')
                await line.until(lambda: line.last.get(0) == (180.0, GOOD))
                assert line.last[1] == (1.0, GOOD)
                assert line.active == {}
        gone = {"device.hall.communication", "device.cell.communication"}
        await line.until(lambda: gone <= set(line.active))
        assert "device hall" in line.active["device.hall.communication"].message
        assert [quality for _, quality in line.last.values()] == [BAD] * 3
        with broker:
            async with js_node(broker.port, births) as node:
                await line.until(lambda: line.last[2] == (0.5, GOOD))
                await line.until(lambda: supervisors["hall"].status.state == "connected")
                with Client(broker.port) as client:
                    client.publish("oven/state", '{"ts": 1790000000001, "zones": [{"t": 181}]}')
                await line.until(lambda: line.last[0] == (181.0, GOOD))
                await line.until(lambda: "device.hall.no_data" in line.active)
                assert "oven.mode" in line.active["device.hall.no_data"].message
                assert "has no mode" in line.active["device.hall.no_data"].message
                kept = {"alias": 1, "type": "Double", "value": 7, "timestamp": 1_790_000_000_000, "isHistorical": True}
                node.say(data={"": [kept]})
                await line.until(lambda: line.history == [(2, 1_790_000_000_000_000_000, 7.0)])
                assert line.last[2] == (0.5, GOOD), "a kept value does not move the live one"
                node.say(die=True)
                await line.until(lambda: line.last[2][1] == BAD)
                await line.until(lambda: "device.cell.no_data" in line.active)
                assert "edge node E is offline" in line.active["device.cell.no_data"].message


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("x,hall,a/b+#v,", "whole level"),
        ("x,hall,a/b#v..w,", "no path"),
        ("x,hall,a/b#v,float32", "or Boolean (empty)"),
        ("x,cell,E/Load,", "<edge node>/<device>/<metric>"),
        ("x,cell,E//Load,float32", "birth states the type"),
    ],
)
def test_a_mistaken_row_is_told_with_its_line_before_anything_is_connected(tmp_path, row, said):
    with pytest.raises(ConfigError) as caught:
        load(config_folder(tmp_path, 1883, TAGS + row + "\n"))
    (problem,) = [str(problem) for problem in caught.value.problems]
    assert "tags.csv:5" in problem
    assert said in problem


def test_columns_that_mean_nothing_for_a_publisher_are_refused(tmp_path):
    tags = "tag,device,address,order,period_ms\nx,hall,a#v,ABCD,\ny,cell,E//Load,,100\n"
    with pytest.raises(ConfigError) as caught:
        load(config_folder(tmp_path, 1883, tags))
    order, period = [str(problem) for problem in caught.value.problems]
    assert "order" in order
    assert "publisher decides" in period


def test_the_examples_of_the_page_about_sources_are_a_valid_configuration(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "sources.md").read_text()
    devices, tags = (page.split(f"```{kind}\n")[1].split("```")[0] for kind in ("toml", "csv"))
    config_folder(tmp_path, 1883, tags)
    head = GATEWAY.split("[[device]]", maxsplit=1)[0]
    (tmp_path / "gateway.toml").write_text(head + devices)
    (tmp_path / "recording.csv").write_text("time,vibration\n2026-11-20T08:00:00Z,1\n")
    config = load(tmp_path)
    assert {row.device for row in config.tags} == {device.name for device in config.file.device}
