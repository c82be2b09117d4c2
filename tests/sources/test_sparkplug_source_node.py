"""The Sparkplug source against a real Mosquitto and an edge node of MQTT.js and Eclipse Tahu's codec."""

import asyncio
import contextlib
import json

import numpy as np
import pytest
from mqtt_peers import Client, Mosquitto, as_rows, read_rows
from sparkplug_node_peers import js_node, sparkplug_source

from edge.errors import Disconnected
from edge.sources import Historian
from plant.batch import BAD, GOOD, UNCERTAIN
from plant.texts import Texts

BIRTHS = {
    "": [{"name": "Load", "alias": 1, "type": "Double", "value": 0.5}],
    "oven": [
        {"name": "Zone/T", "alias": 2, "type": "Float", "value": 180.5},
        {"name": "Mode", "alias": 3, "type": "String", "value": "bake"},
        {"name": "Unused", "alias": 4, "type": "Int32", "value": 1},
    ],
}
ROWS = {1: "E//Load", 2: "E/oven/Zone/T", 3: "!E/oven/Mode"}


@pytest.fixture
def broker(tmp_path):
    with Mosquitto(tmp_path) as running:
        yield running


@contextlib.asynccontextmanager
async def reading(source):
    await source.connect()
    try:
        yield source
    finally:
        await source.close()


async def read_until(source, condition):
    async with asyncio.timeout(20):
        while not condition():
            await source.read()


async def test_a_node_that_was_born_long_ago_is_asked_for_its_birth_and_read(broker):
    texts = Texts()
    async with js_node(broker.port, BIRTHS) as node, reading(sparkplug_source(broker.port, ROWS, texts)) as source:
        batch = await read_rows(source, 3)
        assert sorted(as_rows(batch)) == [(1, 0.5, GOOD), (2, 180.5, GOOD), (3, 1.0, GOOD)]
        assert texts.text(3, 1) == "bake"
        await node.heard(command="Node Control/Rebirth")
        stamp = 1_790_000_000_123
        node.say(data={"oven": [{"alias": 2, "type": "Float", "value": 181.5, "timestamp": stamp}]})
        node.say(data={"": [{"alias": 1, "type": "Double", "value": 0.75}]})
        batch = await read_rows(source, 2)
        assert as_rows(batch) == [(2, 181.5, GOOD), (1, 0.75, GOOD)]
        assert batch.time[0] == stamp * 1_000_000
        assert source.problems == {}
        assert source.lost == 0


async def test_all_data_types_that_are_numbers_arrive_as_they_were(broker):
    values = {
        "Int8": -5, "Int16": -300, "Int32": -70_000, "Int64": -5_000_000_000, "UInt8": 200, "UInt16": 60_000,
        "UInt32": 4_000_000_000, "UInt64": 5_000_000_000, "Float": 1.5, "Double": -2.25, "Boolean": True,
        "DateTime": 1_790_000_000_123,
    }  # fmt: skip
    births = {"": [{"name": kind, "alias": i, "type": kind, "value": v} for i, (kind, v) in enumerate(values.items())]}
    rows = {i: f"E//{kind}" for i, kind in enumerate(values)}
    async with js_node(broker.port, births), reading(sparkplug_source(broker.port, rows)) as source:
        batch = await read_rows(source, len(values))
    assert dict(zip(batch.tag.tolist(), batch.value.tolist(), strict=True)) == dict(
        enumerate(map(float, values.values()))
    )
    assert (batch.quality == GOOD).all()


async def test_null_text_and_quality_are_told_as_what_they_are(broker):
    births = {
        "": [
            {"name": "null", "alias": 1, "type": "Double", "value": None},
            {"name": "text", "alias": 2, "type": "String", "value": "abc"},
            {"name": "bytes", "alias": 3, "type": "Bytes", "value": "AAAA"},
            *(
                {
                    "name": name,
                    "type": "Double",
                    "value": 1,
                    "properties": {"Quality": {"type": "Int32", "value": code}},
                }
                for name, code in (("good", 192), ("bad", 0), ("stale", 500))
            ),
        ]
    }
    rows = {1: "E//null", 2: "E//text", 3: "E//bytes", 4: "E//good", 5: "E//bad", 6: "E//stale", 7: "E//absent"}
    async with js_node(broker.port, births) as node, reading(sparkplug_source(broker.port, rows)) as source:
        batch = await read_rows(source, 7)
        quality = dict(zip(batch.tag.tolist(), batch.quality.tolist(), strict=True))
        assert quality == {1: BAD, 2: BAD, 3: BAD, 4: GOOD, 5: BAD, 6: UNCERTAIN, 7: BAD}
        problems = dict(source.problems)
        assert sorted(problems) == [1, 2, 3, 7]
        assert "null" in problems[1]
        assert "string" in problems[2]
        assert "BYTES" in problems[3]
        assert "no metric absent" in problems[7]
        node.say(data={"": [{"alias": 1, "type": "Double", "value": 4.5}]})
        assert as_rows(await read_rows(source, 1)) == [(1, 4.5, GOOD)]
        assert 1 not in source.problems


async def test_a_missing_message_is_counted_and_the_births_are_asked_for(broker):
    source = sparkplug_source(broker.port, ROWS, rebirth_interval_s=0.1)
    async with js_node(broker.port, BIRTHS) as node, reading(source):
        await read_rows(source, 3)
        node.say(skip=3)
        node.say(data={"": [{"alias": 1, "type": "Double", "value": 0.75}]})
        assert as_rows(await read_rows(source, 1))[0] == (1, 0.75, GOOD), "what has come is used"
        assert source.lost == 3
        await read_rows(source, 3)
        await node.heard(born=3)  # the first one, the one for us, and the one for the gap


async def test_sequence_numbers_begin_again_after_255(broker):
    async with js_node(broker.port, BIRTHS) as node, reading(sparkplug_source(broker.port, ROWS)) as source:
        await read_rows(source, 3)
        for k in range(300):
            node.say(data={"": [{"alias": 1, "type": "Double", "value": k}]})
        batch = await read_rows(source, 300)
        assert batch.value.tolist() == [float(k) for k in range(300)]
        assert source.lost == 0


async def test_a_node_that_may_not_be_asked_is_read_from_its_next_birth_on(broker):
    source = sparkplug_source(broker.port, ROWS, request_rebirth=False)
    with Client(broker.port, "spBv1.0/+/NCMD/#") as spy:
        async with js_node(broker.port, BIRTHS) as node, reading(source):
            node.say(data={"": [{"alias": 1, "type": "Double", "value": 9}]})
            await asyncio.sleep(0)
            node.say(birth=True)
            assert min(as_rows(await read_rows(source, 3))) == (1, 0.5, GOOD)
        assert spy.messages == []


async def test_nothing_is_published_but_rebirth_requests_and_those_not_too_often(broker):
    source = sparkplug_source(broker.port, {1: "E//Load"}, rebirth_interval_s=3600)
    with Client(broker.port, "#") as spy:
        async with js_node(broker.port, BIRTHS) as node, reading(source):
            await read_rows(source, 1)
            for _ in range(5):
                node.say(skip=1)
                node.say(data={"": [{"alias": 1, "type": "Double", "value": 9}]})
            await read_rows(source, 5)
            assert source.lost == 5
        ours = [m for m in spy.messages if "/NCMD/" in m.topic or "STATE" in m.topic]
        assert [m.topic for m in ours] == ["spBv1.0/G/NCMD/E"]


async def test_the_death_of_a_device_and_of_the_node_make_their_tags_bad(broker):
    async with js_node(broker.port, BIRTHS) as node, reading(sparkplug_source(broker.port, ROWS)) as source:
        await read_rows(source, 3)
        node.say(ddeath="oven")
        batch = await read_rows(source, 2)
        assert sorted(batch.tag.tolist()) == [2, 3]
        assert (batch.quality == BAD).all()
        assert "DDEATH" in source.problems[2]
        node.say(dbirth="oven")
        assert len(await read_rows(source, 2)) == 2
        assert source.problems == {}
        node.say(stale=True)
        node.say(data={"": [{"alias": 1, "type": "Double", "value": 9}]})
        assert as_rows(await read_rows(source, 1)) == [(1, 9.0, GOOD)], "the death of an earlier connection"
        node.say(die=True)
        batch = await read_rows(source, 3)
        assert sorted(batch.tag.tolist()) == [1, 2, 3]
        assert np.isnan(batch.value).all()
        assert "NDEATH" in source.problems[1]


async def test_a_device_that_was_not_born_with_its_node_is_named(broker):
    source = sparkplug_source(broker.port, {1: "E//Load", 2: "E/mill/Speed"})
    async with js_node(broker.port, BIRTHS) as node, reading(source):
        node.say(data={"": [{"alias": 1, "type": "Double", "value": 9}]})
        await read_until(source, lambda: 2 in source.problems)
        assert "device mill of edge node E" in source.problems[2]


async def test_a_node_that_says_nothing_is_named(broker):
    source = sparkplug_source(broker.port, {1: "X//Load"}, first_message_s=0.1)
    async with reading(source):
        await read_until(source, lambda: source.problems)
        assert "edge node X in group G" in source.problems[1]


async def test_kept_values_do_not_move_live_ones_and_come_out_of_the_history(broker):
    async with js_node(broker.port, BIRTHS) as node, reading(sparkplug_source(broker.port, ROWS)) as source:
        assert isinstance(source, Historian)
        await read_rows(source, 3)
        old = [
            {"alias": 1, "type": "Double", "value": k, "timestamp": 1_790_000_000_000 + k, "isHistorical": True}
            for k in range(3)
        ]
        node.say(data={"": [*old, {"alias": 1, "type": "Double", "value": 50}]})
        assert as_rows(await read_rows(source, 1)) == [(1, 50.0, GOOD)]
        past = source.history()
        batch = await anext(past)
        assert batch.value.tolist() == [0.0, 1.0, 2.0]
        assert batch.time[0] == 1_790_000_000_000_000_000
        await source.close()
        with pytest.raises(Disconnected):
            await anext(past)


async def test_what_is_no_sparkplug_is_survived(broker):
    source = sparkplug_source(broker.port, ROWS)
    async with js_node(broker.port, BIRTHS) as node, reading(source):
        await read_rows(source, 3)
        with Client(broker.port) as stranger:
            for topic in ("spBv1.0/G/NDATA/E", "spBv1.0/G/DBIRTH/E/oven", "spBv1.0/G/NDEATH/E/x/y", "spBv1.0/G/X/E"):
                stranger.publish(topic, b"\xff\xff\xff")
            stranger.publish("spBv1.0/G/NDATA/E", json.dumps({"no": "protobuf"}))
        node.say(data={"": [{"alias": 1, "type": "Double", "value": 9}]})
        assert as_rows(await read_rows(source, 1))[0] == (1, 9.0, GOOD)
