"""The MQTT source against a real Mosquitto."""

import asyncio
import json
import math
import time

import numpy as np
import pytest
from mqtt_peers import Client, Mosquitto, as_rows, mqtt_source, plant, read_rows

from edge.errors import Disconnected, Refused, Unreachable
from plant.batch import BAD, GOOD, UNCERTAIN
from plant.instant import NS_PER_S
from plant.texts import Texts


async def test_one_document_gives_all_tags_of_its_topic(tmp_path):
    rows = {
        1: ("oven/state#zones[0].t", ""),
        2: ("oven/state#zones[1].t", ""),
        3: ("oven/state#on", ""),
        4: ("oven/state#mode", "string"),
    }
    texts = Texts()
    with plant(tmp_path) as (broker, client):
        source = mqtt_source(broker.port, rows, texts)
        await source.connect()
        before = time.time_ns()
        client.publish("oven/state", json.dumps({"zones": [{"t": 180.5}, {"t": 190}], "on": True, "mode": "bake"}))
        batch = await read_rows(source, 4)
        await source.close()
    assert as_rows(batch) == [(1, 180.5, GOOD), (2, 190.0, GOOD), (3, 1.0, GOOD), (4, 1.0, GOOD)]
    assert texts.text(4, 1) == "bake"
    assert (batch.time >= before).all()
    assert (batch.time <= time.time_ns()).all()
    assert source.problems == {}


async def test_a_payload_can_be_the_value_itself(tmp_path):
    rows = {1: ("a", ""), 2: ("b", "bool"), 3: ("c", "string"), 4: ("d", "number")}
    texts = Texts()
    with plant(tmp_path) as (broker, client):
        source = mqtt_source(broker.port, rows, texts)
        await source.connect()
        for topic, payload in (("a", "12.5"), ("b", "ON"), ("c", "running"), ("d", '"7,5"'), ("d", '" 7.5 "')):
            client.publish(topic, payload)
        batch = await read_rows(source, 5)
        await source.close()
    assert as_rows(batch)[:3] == [(1, 12.5, GOOD), (2, 1.0, GOOD), (3, 1.0, GOOD)]
    assert texts.text(3, 1) == "running"
    assert math.isnan(batch.value[3])
    assert as_rows(batch)[4] == (4, 7.5, GOOD)


async def test_a_filter_with_wildcards_takes_every_topic_that_matches(tmp_path):
    rows = {1: ("hall/+/t#v", ""), 2: ("hall/##v", ""), 3: ("hall/a/t#v", "")}
    with plant(tmp_path) as (broker, client):
        source = mqtt_source(broker.port, rows)
        await source.connect()
        client.publish("hall/a/t", '{"v": 1}')
        client.publish("hall/b/t", '{"v": 2}')
        client.publish("hall/b/p/q", '{"v": 3}')
        batch = await read_rows(source, 6)
        client.publish("hall/b/t", '{"v": 4}')
        more = await read_rows(source, 2)
        await source.close()
    assert sorted(as_rows(batch)) == [
        (1, 1.0, GOOD), (1, 2.0, GOOD), (2, 1.0, GOOD), (2, 2.0, GOOD), (2, 3.0, GOOD), (3, 1.0, GOOD),
    ]  # fmt: skip
    assert sorted(as_rows(more)) == [(1, 4.0, GOOD), (2, 4.0, GOOD)], "each message once, though filters overlap"


async def test_what_cannot_be_read_is_bad_with_a_sentence_and_the_rest_goes_on(tmp_path):
    rows = {1: ("m#a", ""), 2: ("m#b.c", ""), 3: ("m#text", ""), 4: ("m#null", ""), 5: ("m#huge", "")}
    with plant(tmp_path) as (broker, client):
        source = mqtt_source(broker.port, rows, payload_size_max=1000)
        await source.connect()
        client.publish("m", '{"a": 1, "b": 3, "text": "abc", "null": null, "huge": 1' + "0" * 400 + "}")
        batch = await read_rows(source, 5)
        assert as_rows(batch)[0] == (1, 1.0, GOOD)
        assert batch.quality[1:].tolist() == [BAD] * 4
        assert np.isnan(batch.value[1:]).all()
        assert "b.c" in source.problems[2]
        assert "'abc'" in source.problems[3]
        assert "null" in source.problems[4]
        assert "too large" in source.problems[5]
        assert 1 not in source.problems
        good = '{"a": 1, "b": {"c": 2}, "text": 3, "null": 4, "huge": 5}'
        client.publish("m", good)
        assert (await read_rows(source, 5)).value.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]
        assert source.problems == {}
        for payload, why in ((b"\xff{", "no JSON"), ("NaN", "no JSON"), ('{"a": 1}' + " " * 1000, "payload_size_max")):
            client.publish("m", payload)
            assert (await read_rows(source, 5)).quality.tolist() == [BAD] * 5
            assert all(why in sentence for sentence in source.problems.values())
            assert len(source.problems) == 5
            client.publish("m", good)
            await read_rows(source, 5)
        client.publish("m", "[" * 900)
        assert (await read_rows(source, 5)).quality.tolist() == [BAD] * 5
        await source.close()


async def test_messages_that_leave_members_out_are_whole_where_that_is_usual(tmp_path):
    with plant(tmp_path) as (broker, client):
        source = mqtt_source(broker.port, {1: ("m#a", ""), 2: ("m#b", "")}, partial_messages=True)
        await source.connect()
        client.publish("m", '{"a": 1}')
        client.publish("m", '{"b": 2}')
        assert as_rows(await read_rows(source, 2)) == [(1, 1.0, GOOD), (2, 2.0, GOOD)]
        assert source.problems == {}
        await source.close()


async def test_time_and_quality_come_from_the_message(tmp_path):
    with plant(tmp_path) as (broker, client):
        source = mqtt_source(broker.port, {1: ("m#v", "")}, time_path="meta.ts", time_unit="ms", quality_path="meta.q")
        await source.connect()
        for ts, q in ((1_790_000_000_123, 192), (1_790_000_000_124, "uncertain"), (1_790_000_000_125, False)):
            client.publish("m", json.dumps({"v": 5, "meta": {"ts": ts, "q": q}}))
        batch = await read_rows(source, 3)
        assert batch.time.tolist() == [1_790_000_000_000_000_000 + k * 1_000_000 for k in (123, 124, 125)]
        assert batch.quality.tolist() == [GOOD, UNCERTAIN, BAD]
        client.publish("m", '{"v": 5, "meta": {"ts": "noon", "q": 192}}')
        late = await read_rows(source, 1)
        assert as_rows(late) == [(1, 5.0, UNCERTAIN)]
        assert abs(int(late.time[0]) - time.time_ns()) < 60 * NS_PER_S
        assert "meta.ts" in source.problems[1]
        await source.close()


@pytest.mark.parametrize(("retained", "expected"), [("uncertain", UNCERTAIN), ("good", GOOD), ("ignore", None)])
async def test_a_retained_message_without_a_time_is_worth_what_the_option_says(tmp_path, retained, expected):
    with plant(tmp_path) as (broker, client):
        client.publish("m", '{"v": 1}', retain=True)
        source = mqtt_source(broker.port, {1: ("m#v", "")}, retained=retained)
        await source.connect()
        if expected is not None:
            assert as_rows(await read_rows(source, 1)) == [(1, 1.0, expected)]
        client.publish("m", '{"v": 2}', retain=True)
        assert as_rows(await read_rows(source, 1)) == [(1, 2.0, GOOD)], "what comes while we listen is fresh"
        await source.close()


async def test_a_retained_message_with_its_own_time_is_a_good_reading_of_that_time(tmp_path):
    with plant(tmp_path) as (broker, client):
        client.publish("m", '{"v": 1, "t": "2026-11-20T08:00:00.5+01:00"}', retain=True)
        source = mqtt_source(broker.port, {1: ("m#v", "")}, time_path="t")
        await source.connect()
        batch = await read_rows(source, 1)
        assert as_rows(batch) == [(1, 1.0, GOOD)]
        assert batch.time[0] == 1_795_158_000_500_000_000
        await source.close()


async def test_a_queue_that_overflows_drops_the_oldest_and_counts_them(tmp_path):
    with plant(tmp_path) as (broker, client):
        source = mqtt_source(broker.port, {1: ("m", "")}, queue_max=10)
        await source.connect()
        for k in range(50):
            client.publish("m", str(k))
        async with asyncio.timeout(20):
            while source._session.dropped < 40:
                await asyncio.sleep(0.01)
        assert (await read_rows(source, 10)).value.tolist() == [float(k) for k in range(40, 50)]
        assert source.lost == 40
        await source.close()


async def test_an_event_loop_that_stands_still_loses_nothing(tmp_path):
    with plant(tmp_path) as (broker, client):
        source = mqtt_source(broker.port, {1: ("m", "")}, queue_max=100)
        await source.connect()
        for k in range(500):
            client.publish("m", str(k))  # the event loop does not run meanwhile
        values: list[float] = []
        async with asyncio.timeout(20):
            while len(values) + source.lost < 500:
                values += (await source.read()).value.tolist()
        assert values[-1] == 499.0
        assert source.lost == 0
        await source.close()


async def test_a_filter_without_any_message_is_named(tmp_path):
    with plant(tmp_path) as (broker, client):
        rows = {1: ("m#v", ""), 2: ("mistyped/topic#v", "")}
        source = mqtt_source(broker.port, rows, first_message_s=0.2)
        await source.connect()
        client.publish("m", '{"v": 1}')
        await read_rows(source, 1)
        async with asyncio.timeout(20):
            while not source.problems:
                await source.read()
        assert list(source.problems) == [2]
        assert "mistyped/topic" in source.problems[2]
        client.publish("mistyped/topic", '{"v": 1}')
        await read_rows(source, 1)
        assert source.problems == {}
        await source.close()


async def test_a_broker_that_says_no_is_refused(tmp_path):
    with Mosquitto(tmp_path, anonymous=False) as broker:
        source = mqtt_source(broker.port, {1: ("m", "")})
        with pytest.raises(Refused, match="hall"):
            await source.connect()
        await source.close()


async def test_a_broker_that_speaks_only_the_older_version_is_spoken_to_in_it(tmp_path):
    """MQTT 3.1.1 is found by itself: this broker ends the connection of a client that speaks 5."""
    with plant(tmp_path) as (broker, client):

        async def serve(reader, writer):
            first = await reader.read(1024)
            if first[8] == 5:  # protocol level, after the length and "MQTT"
                writer.close()
                return
            back, forth = await asyncio.open_connection("127.0.0.1", broker.port)
            forth.write(first)

            async def pump(a, b):
                while data := await a.read(1024):
                    b.write(data)
                b.close()

            await asyncio.gather(pump(reader, forth), pump(back, writer))

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        source = mqtt_source(server.sockets[0].getsockname()[1], {1: ("m", "")})
        await source.connect()
        client.publish("m", "5")
        assert as_rows(await read_rows(source, 1)) == [(1, 5.0, GOOD)]
        await source.close()
        server.close()


async def test_the_password_is_read_from_a_file_and_a_refused_filter_is_named(tmp_path):
    import subprocess

    subprocess.run(["mosquitto_passwd", "-b", "-c", str(tmp_path / "users"), "gw", "secret"], check=True)
    (tmp_path / "acl").write_text("user gw\ntopic readwrite open/#\n")
    (tmp_path / "password").write_text("secret\n")
    extra = (f"password_file {tmp_path}/users", f"acl_file {tmp_path}/acl")
    with Mosquitto(tmp_path, *extra, anonymous=False) as broker:
        source = mqtt_source(
            broker.port,
            {1: ("open/a", ""), 2: ("closed/a", "")},
            user="gw",
            password_file=tmp_path / "password",
            first_message_s=0.2,
        )
        await source.connect()
        with Client(broker.port, user="gw", password="secret") as client:
            client.publish("open/a", "5")
        assert as_rows(await read_rows(source, 1)) == [(1, 5.0, GOOD)]
        async with asyncio.timeout(20):
            while not source.problems:
                await source.read()
        assert "closed/a" in source.problems[2]
        await source.close()


async def test_no_broker_is_unreachable_with_the_name_of_the_device(tmp_path):
    with Mosquitto(tmp_path) as broker:
        port = broker.port
    source = mqtt_source(port, {1: ("m", "")})
    with pytest.raises(Unreachable, match="hall"):
        await source.connect()
    with pytest.raises(Disconnected, match="hall"):
        await source.read()
    await source.close()
