"""Addresses and paths of the MQTT source, and what its decoder makes of a value."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edge.mqtt.wire import Received
from edge.sources.mqtt import MqttSourceOptions, parse_address
from edge.sources.mqtt_decode import Decoder, Unreadable, to_ns, to_quality
from edge.sources.mqtt_points import Topics, matches, parse_path, show_path, without_covered
from edge.sources.sparkplug import SparkplugSourceOptions, parse_metric
from plant.batch import BAD, GOOD, UNCERTAIN
from plant.texts import Texts

NOW = 1_790_000_000_000_000_000


def options(**more):
    return MqttSourceOptions(type="mqtt", name="hall", **more)


@pytest.mark.parametrize(
    ("address", "topic", "path"),
    [
        ("a/b", "a/b", ()),
        ("a/b#", "a/b", ()),
        ("a/b#v", "a/b", ("v",)),
        ("a/+/c#v.w[2].x", "a/+/c", ("v", "w", 2, "x")),
        ("a/b#[0][1]", "a/b", (0, 1)),
        ("a/b#['x.y'].z", "a/b", ("x.y", "z")),
        ("a/b#Temp (C).max", "a/b", ("Temp (C)", "max")),
        ("a/#", "a/#", ()),
        ("a/##v", "a/#", ("v",)),
        ("#", "#", ()),
        ("##v", "#", ("v",)),
        ("$SYS/broker/uptime", "$SYS/broker/uptime", ()),
        ("a/b#c#d", "a/b", ("c#d",)),
    ],
)
def test_an_address_is_a_topic_filter_and_a_path(address, topic, path):
    point = parse_address(1, address, "")
    assert (point.filter, point.path) == (topic, path)


@pytest.mark.parametrize(
    ("address", "kind", "said"),
    [
        ("", "", "topic filter"),
        ("#v", "", "topic filter"),
        ("a/b+/c#v", "", "whole level"),
        ("a/#/c", "", "whole"),
        ("$share/g/a#v", "", "shared"),
        ("a#b..c", "", "no path"),
        ("a#.b", "", "no path"),
        ("a#b[x]", "", "no path"),
        ("a#b[0]c", "", "no path"),
        ("a#v", "float32", "number"),
    ],
)
def test_a_mistaken_address_is_told_in_a_sentence(address, kind, said):
    with pytest.raises(ValueError, match=said):
        parse_address(1, address, kind)


KEYS = st.text(st.characters(exclude_characters="'\"", exclude_categories=["Cs"]), min_size=1, max_size=8)


@given(st.lists(KEYS | st.integers(0, 99), max_size=5))
def test_a_path_that_is_shown_is_read_as_the_same(steps):
    if not any("\n" in step or "\r" in step for step in steps if isinstance(step, str)):
        assert parse_path(show_path(tuple(steps))) == tuple(steps)


LEVELS = st.lists(st.sampled_from(["a", "b", "", "c d"]), min_size=1, max_size=4)


@given(LEVELS, st.data())
def test_filters_match_as_the_standard_says(levels, data):
    topic = "/".join(levels)
    assert matches(topic, topic)
    wild = [data.draw(st.sampled_from([level, "+"])) for level in levels]
    assert matches("/".join(wild), topic)
    cut = data.draw(st.integers(0, len(levels)))
    assert matches("/".join([*wild[:cut], "#"]), topic), "# also matches its parent"
    assert not matches("/".join([*wild, "a"]), topic)
    assert not matches("/".join(["x", *wild[1:]]), topic)


def test_topics_of_the_broker_itself_match_no_leading_wildcard():
    assert not matches("#", "$SYS/uptime")
    assert not matches("+/uptime", "$SYS/uptime")
    assert matches("$SYS/#", "$SYS/uptime")


FILTERS = st.lists(st.sampled_from(["a", "b", "+"]), min_size=1, max_size=3).flatmap(
    lambda levels: st.sampled_from(["/".join(levels), "/".join([*levels, "#"])])
)


@given(st.lists(FILTERS, max_size=6), st.lists(st.sampled_from("ab"), min_size=1, max_size=4))
def test_covered_filters_are_not_needed(filters, levels):
    topic = "/".join(levels)
    fewer = without_covered(filters)
    assert set(fewer) <= set(filters)
    assert any(matches(name, topic) for name in filters) == any(matches(name, topic) for name in fewer)


@given(
    st.lists(FILTERS, max_size=6, unique=True), st.lists(st.sampled_from(["a", "b", "", "$x"]), min_size=1, max_size=4)
)
def test_a_topic_feeds_the_points_of_all_filters_that_match(filters, levels):
    topic = "/".join(levels)
    topics = Topics([parse_address(tag, name, "") for tag, name in enumerate(filters)])
    expected = [tag for tag, name in enumerate(filters) if matches(name, topic)]
    assert sorted(point.tag for point in topics.points_of(topic)) == expected


def test_the_memory_of_topics_is_bounded():
    topics = Topics([parse_address(1, "a/+", "")])
    for k in range(Topics.TOPICS_MAX + 10):
        assert len(topics.points_of(f"a/{k}")) == 1
    assert len(topics._known) <= Topics.TOPICS_MAX


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
ADDRESSES = ["t", "t#a", "t#a.b", "t#a[0]", "t#[1]", "t#b.c[2]"]


@given(JSON.map(msgspec.json.encode) | st.binary(max_size=20), st.sampled_from(["", "number", "bool", "string"]))
def test_any_payload_gives_a_reading_or_a_problem_for_each_tag(payload, kind):
    points = [parse_address(tag, address, kind) for tag, address in enumerate(ADDRESSES)]
    decoder = Decoder(options(time_path="a", quality_path="b"), points, Texts())
    batch = decoder.decode([(NOW, Received("t", payload, False, "", None))])
    assert sorted(batch.tag.tolist()) == list(range(len(ADDRESSES)))
    assert ((batch.quality != BAD) <= np.isfinite(batch.value)).all()
    for tag, value in zip(batch.tag.tolist(), batch.value.tolist(), strict=True):
        assert math.isfinite(value) or tag in decoder.problems.tell()


def test_a_number_of_a_document_is_the_number_that_json_says():
    decoder = Decoder(options(), [parse_address(1, "t#v", "")], Texts())
    for text, value in (("1", 1.0), ("-2.5e3", -2500.0), ("true", 1.0), ("9007199254740993", float(9007199254740993))):
        batch = decoder.decode([(NOW, Received("t", f'{{"v": {text}}}'.encode(), False, "", None))])
        assert (batch.value[0], batch.quality[0], batch.time[0]) == (value, GOOD, NOW)


@pytest.mark.parametrize(
    ("value", "unit", "time"),
    [
        ("2026-09-21T14:13:20Z", "iso", 1_790_000_000 * 10**9),
        ("2026-09-21T16:13:20.000001+02:00", "iso", 1_790_000_000 * 10**9 + 1_000),
        ("2026-09-21 14:13:20", "iso", 1_790_000_000 * 10**9),
        (1_790_000_000, "s", 1_790_000_000 * 10**9),
        (1_790_000_000.5, "s", 1_790_000_000 * 10**9 + 500_000_000),
        (1_790_000_000_001, "ms", 1_790_000_000 * 10**9 + 1_000_000),
        (1_790_000_000_000_001, "us", 1_790_000_000 * 10**9 + 1_000),
        (1_790_000_000_000_000_001, "ns", 1_790_000_000 * 10**9 + 1),
    ],
)
def test_times_of_all_units(value, unit, time):
    assert to_ns(value, unit) == time


@pytest.mark.parametrize(
    ("value", "unit"),
    [("noon", "iso"), (5, "iso"), ("5", "s"), (True, "s"), (None, "ms"), (1e300, "s"), (-5, "s"), (float("nan"), "s")],
)
def test_what_is_no_time_is_said_to_be_none(value, unit):
    with pytest.raises(Unreadable):
        to_ns(value, unit)


def test_qualities_in_the_words_of_many_publishers():
    given_ = [192, 216, 64, 0, 20, True, False, "Good", " bad ", "UNCERTAIN", "ok"]
    assert [to_quality(value) for value in given_] == [
        GOOD, GOOD, UNCERTAIN, BAD, BAD, GOOD, BAD, GOOD, BAD, UNCERTAIN, GOOD,
    ]  # fmt: skip
    for value in (None, "fine", 1.5, -1, {}, 100_000):
        with pytest.raises(Unreadable):
            to_quality(value)


def test_a_metric_s_address_names_node_device_and_metric():
    point = parse_metric(1, "press7/hydraulics/Oil/Temperature", "")
    assert (point.node, point.device, point.metric) == ("press7", "hydraulics", "Oil/Temperature")
    point = parse_metric(1, "press7//Load", "string")
    assert (point.node, point.device, point.metric, point.text) == ("press7", "", "Load", True)
    for address in ("press7", "press7/Load", "/d/m", "a+/d/m", "a/d#/m", "a/d/"):
        with pytest.raises(ValueError, match="<edge node>/<device>/<metric>"):
            parse_metric(1, address, "")
    with pytest.raises(ValueError, match="birth states the type"):
        parse_metric(1, "a/b/c", "float32")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"host": "broker.plant", "user": "u", "password_file": "p"}, "readable"),
        ({"password_file": "p"}, "user"),
        ({"ca_file": "ca.pem"}, "tls = true"),
        ({"tls": True, "key_file": "k"}, "belong together"),
        ({"time_path": "a..b"}, "no path"),
        ({"qos": 3}, "less than or equal to 2"),
    ],
)
def test_options_that_are_unsafe_or_senseless_are_refused(more, said):
    with pytest.raises(ValidationError, match=said):
        options(**more)
    if "time_path" not in more and "qos" not in more:
        with pytest.raises(ValidationError, match=said):
            SparkplugSourceOptions(type="sparkplug", name="cell", group_id="G", **more)
