"""The rules of the edge node, statement by statement, without a network."""

import contextlib
import json
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sparkplug_claims import states
from sparkplug_peers import CNC, OEE, PRESS, PRESS_ID, PROGRAM, ROOM, TABLE

from edge.mqtt.wire import Message
from edge.outlets.sparkplug import columns, payload
from edge.outlets.sparkplug.alarms import AlarmMetrics, AlarmName
from edge.outlets.sparkplug.backlog import Backlog
from edge.outlets.sparkplug.options import SparkplugOptions
from edge.outlets.sparkplug.payload import HostState, Unreadable
from edge.outlets.sparkplug.plan import Plan, alias_of, device_id, same_but_for_case
from edge.outlets.sparkplug.session import OutOfOrder, Session
from edge.outlets.sparkplug.values import Values
from edge.sparkplug_payload import DataType, Metric, Payload
from plant.batch import BAD, GOOD, UNCERTAIN, Batch, of_rows
from plant.events import AlarmTransition
from plant.instant import NS_PER_MS, NS_PER_S
from plant.tags import Tag, TagTable

NOW_MS = 1_795_000_000_000


def connected(session: Session) -> Session:
    session.number_connection()
    session.opened()
    session.subscribed()
    return session


def fresh(primary_host: str = "") -> Session:
    return connected(Session("G", "E", primary_host))


def births() -> tuple[Session, Message, Message]:
    """A session with all that a birth says of the node and of the press."""
    session, plan, values = fresh(), Plan(TABLE, ()), Values(Plan(TABLE, ()))
    at = (NOW_MS - 5000) * NS_PER_MS
    values.note(of_rows([(PRESS, at + NS_PER_S, 41.5, GOOD), (ROOM, at, 20.0, UNCERTAIN)]))
    node = [
        *AlarmMetrics().birth([AlarmName("hot", "a/b", "high")], [], NOW_MS),
        *metrics(plan, values, plan.node_tags),
    ]
    nbirth = session.nbirth(node, NOW_MS)
    press = plan.devices[1]
    return session, nbirth, session.dbirth(press.id, metrics(plan, values, press.tags), NOW_MS)


def metrics(plan: Plan, values: Values, tags: tuple[Tag, ...]) -> list[tuple[int, bytes]]:
    made = []
    for tag in tags:
        seen = values.seen[tag.index]
        time_ms = int(values.time[tag.index]) // NS_PER_MS if seen else NOW_MS
        value: Any = None if tag.text else float(values.value[tag.index])
        fixed = plan.fixed(tag, int(values.quality[tag.index]))
        made.append((time_ms, payload.metric(fixed, time_ms, plan.datatype(tag), value)))
    return made


def read(message: Message) -> Any:
    return Payload.FromString(message.payload)


def named(message: Message, name: str) -> Any:
    return next(m for m in read(message).metrics if m.name == name)


def data(*rows: tuple[int, int, float, int], historical: bool = False) -> bytes:
    batch = of_rows(rows)
    alias = batch.tag.astype(np.uint64) + np.uint64(1)
    return columns.encode(batch, alias, batch.quality != GOOD, historical=historical)[0]


# Topics and names


@states(
    "topic-structure", "topic-structure-namespace-a", "topic-structure-namespace-device-id-associated-message-types",
    "topic-structure-namespace-device-id-non-associated-message-types", "topics-nbirth-topic", "topics-ndata-topic",
    "topics-ndeath-topic", "topics-dbirth-topic", "topics-ddata-topic", "topics-ddeath-topic",
    "message-flow-edge-node-birth-publish-nbirth-topic", "message-flow-edge-node-birth-publish-will-message-topic",
    "message-flow-device-birth-publish-dbirth-topic", "message-flow-device-birth-publish-dbirth-match-edge-node-topic",
)  # fmt: skip
def test_topics(tck: str) -> None:
    session = fresh()
    assert session.death().topic == "spBv1.0/G/NDEATH/E"
    assert session.nbirth([], NOW_MS).topic == "spBv1.0/G/NBIRTH/E"
    assert session.dbirth("D", [], NOW_MS).topic == "spBv1.0/G/DBIRTH/E/D"
    assert session.ndata([], NOW_MS).topic == "spBv1.0/G/NDATA/E"
    assert session.ddata("D", [], NOW_MS).topic == "spBv1.0/G/DDATA/E/D"
    assert session.ddeath("D", NOW_MS).topic == "spBv1.0/G/DDEATH/E/D"


@states("message-flow-edge-node-ncmd-subscribe", "message-flow-edge-node-birth-publish-phid-wait-id")
def test_subscriptions(tck: str) -> None:
    assert Session("G", "E").opened() == ["spBv1.0/G/NCMD/E"]
    assert Session("G", "E", "scada").opened() == ["spBv1.0/G/NCMD/E", "spBv1.0/STATE/scada"]


@states("topic-structure-namespace-valid-group-id", "topic-structure-namespace-valid-edge-node-id")
@pytest.mark.parametrize("name", ["a/b", "a+b", "#", "x\x00"])
def test_ids_have_no_reserved_characters(tck: str, name: str) -> None:
    with pytest.raises(ValidationError):
        SparkplugOptions(group_id=name)
    with pytest.raises(ValidationError):
        SparkplugOptions(edge_node_id=name)


@states("topic-structure-namespace-valid-device-id", "topic-structure-namespace-unique-device-id")
@given(st.lists(st.text(max_size=12), min_size=2, max_size=2, unique=True))
@settings(max_examples=200, deadline=None)
def test_different_assets_have_different_valid_device_ids(tck: str, assets: list[str]) -> None:
    first, second = (device_id(asset) for asset in assets)
    assert first != second
    assert not set(first) & set("+#/")


@states("case-sensitivity-sparkplug-ids", "case-sensitivity-metric-names")
def test_names_that_differ_only_by_case_are_found(tck: str) -> None:
    assert same_but_for_case(["Press", "cnc", "press"]) == [("Press", "press")]
    assert same_but_for_case(["press", "cnc", "press"]) == []


def test_the_group_of_hosts_is_not_ours() -> None:
    with pytest.raises(ValidationError):
        SparkplugOptions(group_id="STATE")


# The last will and bdSeq


@states(
    "message-flow-edge-node-birth-publish-will-message", "message-flow-edge-node-birth-publish-will-message-payload",
    "message-flow-edge-node-birth-publish-will-message-payload-bdSeq",
    "message-flow-edge-node-birth-publish-will-message-qos",
    "message-flow-edge-node-birth-publish-will-message-will-retained", "payloads-ndeath-will-message",
    "payloads-ndeath-will-message-qos", "payloads-ndeath-will-message-retain", "payloads-ndeath-seq",
    "payloads-ndeath-bdseq", "topics-ndeath-payload", "topics-ndeath-seq",
)  # fmt: skip
def test_the_will_has_bd_seq_only(tck: str) -> None:
    will = fresh().death()
    message = read(will)
    assert (will.qos, will.retain) == (1, False)
    assert [m.name for m in message.metrics] == ["bdSeq"]
    assert message.metrics[0].datatype == DataType.INT64
    assert message.metrics[0].long_value == 0
    assert not message.HasField("seq")
    assert not message.HasField("timestamp")


@states(
    "topics-nbirth-bdseq-included", "topics-nbirth-bdseq-matching", "topics-nbirth-bdseq-increment",
    "payloads-nbirth-bdseq", "message-flow-edge-node-birth-publish-nbirth-payload-bdSeq",
)  # fmt: skip
def test_bd_seq_of_birth_and_will_agree_and_count_from_0_to_255_and_on(tck: str) -> None:
    session = Session("G", "E")
    for n in range(600):
        connected(session)
        will = named(session.death(), "bdSeq").long_value
        birth = named(session.nbirth([], NOW_MS), "bdSeq")
        assert (will, birth.long_value, birth.datatype) == (n % 256, n % 256, DataType.INT64)
        session.closed(attempted=True)


def test_an_attempt_that_never_sent_connect_spends_no_number() -> None:
    session = Session("G", "E")
    for _ in range(5):
        assert session.number_connection() == 0
        session.closed(attempted=False)
    session.number_connection()
    session.closed(attempted=True)
    assert session.number_connection() == 1


def test_bd_seq_goes_on_after_an_earlier_run() -> None:
    session = Session("G", "E")
    session.resume(255)
    assert session.number_connection() == 0


@states(
    "payloads-nbirth-bdseq-repeat", "operational-behavior-data-commands-rebirth-action-2",
    "operational-behavior-data-commands-rebirth-action-3",
)  # fmt: skip
def test_a_rebirth_keeps_bd_seq_and_begins_seq_anew(tck: str) -> None:
    session, first, _ = births()
    session.ddata(PRESS_ID, [], NOW_MS)
    second = session.nbirth([], NOW_MS)
    assert named(second, "bdSeq").long_value == named(first, "bdSeq").long_value
    assert read(second).seq == 0
    assert session.born_devices == set()


# Births


@states(
    "topics-nbirth-mqtt", "topics-nbirth-seq-num", "topics-nbirth-timestamp", "payloads-nbirth-timestamp",
    "payloads-nbirth-seq", "payloads-nbirth-qos", "payloads-nbirth-retain", "payloads-sequence-num-req-nbirth",
    "message-flow-edge-node-birth-publish-nbirth-qos", "message-flow-edge-node-birth-publish-nbirth-retained",
    "message-flow-edge-node-birth-publish-nbirth-payload-seq", "message-flow-edge-node-birth-publish-nbirth-payload",
)  # fmt: skip
def test_nbirth_has_qos_0_no_retain_time_and_seq_0(tck: str) -> None:
    _, nbirth, _ = births()
    message = read(nbirth)
    assert (nbirth.qos, nbirth.retain) == (0, False)
    assert message.HasField("seq")
    assert message.seq == 0
    assert message.timestamp == NOW_MS


@states(
    "payloads-nbirth-rebirth-req", "topics-nbirth-rebirth-metric", "operational-behavior-data-commands-rebirth-name",
    "operational-behavior-data-commands-rebirth-name-aliases", "operational-behavior-data-commands-rebirth-datatype",
    "operational-behavior-data-commands-rebirth-value",
)  # fmt: skip
def test_nbirth_has_the_rebirth_metric_false_and_without_alias(tck: str) -> None:
    metric = named(births()[1], "Node Control/Rebirth")
    assert metric.datatype == DataType.BOOLEAN
    assert metric.HasField("boolean_value")
    assert metric.boolean_value is False
    assert not metric.HasField("alias")


@states(
    "topics-nbirth-metric-reqs", "topics-nbirth-metrics", "topics-dbirth-metric-reqs", "topics-dbirth-metrics",
    "payloads-name-birth-data-requirement", "payloads-metric-datatype-req", "payloads-metric-datatype-value-type",
    "payloads-metric-datatype-value", "payloads-metric-timestamp-in-UTC", "payloads-timestamp-in-UTC",
    "payloads-name-requirement", "operational-behavior-data-publish-nbirth",
    "operational-behavior-data-publish-nbirth-values", "operational-behavior-data-publish-dbirth",
    "operational-behavior-data-publish-dbirth-values",
)  # fmt: skip
def test_births_name_each_metric_with_type_time_and_value(tck: str) -> None:
    _, nbirth, dbirth = births()
    for message in (nbirth, dbirth):
        for metric in read(message).metrics:
            assert metric.name
            assert DataType(metric.datatype) in (DataType.DOUBLE, DataType.STRING, DataType.BOOLEAN, DataType.INT64)
            assert NOW_MS - 5000 <= metric.timestamp <= NOW_MS
            assert metric.is_null != (metric.WhichOneof("value") is not None)
    assert {m.name for m in read(dbirth).metrics} == {"press.temperature", "press.program"}
    assert named(dbirth, "press.temperature").double_value == 41.5
    assert named(dbirth, "press.program").is_null
    assert named(nbirth, "room.temperature").double_value == 20.0


@states("operational-behavior-data-publish-nbirth-order", "operational-behavior-data-publish-dbirth-order")
def test_metrics_of_a_birth_stand_in_order_of_time(tck: str) -> None:
    for message in births()[1:]:
        stamps = [metric.timestamp for metric in read(message).metrics]
        assert stamps == sorted(stamps)


@states("payloads-alias-uniqueness", "payloads-alias-birth-requirement")
def test_aliases_are_unique_in_the_node_and_beside_a_name(tck: str) -> None:
    _, nbirth, dbirth = births()
    found = [m for message in (nbirth, dbirth) for m in read(message).metrics if m.HasField("alias")]
    assert len({m.alias for m in found}) == len(found) == 12 + 1 + 2
    assert all(m.name for m in found)
    # No tag can ever have the alias of an alarm.
    assert alias_of(2**32 - 2) < min(m.alias for m in found if m.name.startswith("Alarms/"))


@states(
    "payloads-propertyset-keys-array-size", "payloads-propertyset-values-array-size",
    "payloads-metric-propertyvalue-type-type", "payloads-metric-propertyvalue-type-value",
    "payloads-metric-propertyvalue-type-req", "payloads-propertyset-quality-value-type",
    "payloads-propertyset-quality-value-value",
)  # fmt: skip
@pytest.mark.parametrize(("quality", "code"), [(GOOD, 192), (UNCERTAIN, 500), (BAD, 0), (GOOD | 1, 192)])
def test_properties_have_types_and_the_quality_one_of_three_codes(tck: str, quality: int, code: int) -> None:
    in_birth = Metric.FromString(Plan(TABLE, ()).fixed(TABLE["press.temperature"], quality)).properties
    in_data = Payload.FromString(
        columns.encode(
            of_rows([(PRESS, NOW_MS * NS_PER_MS, 1.0, quality)]), np.array([1], np.uint64), np.array([True]),
            historical=False,
        )[0]
    ).metrics[0].properties  # fmt: skip
    for properties in (in_birth, in_data):
        assert len(properties.keys) == len(properties.values)
        by_key = dict(zip(properties.keys, properties.values, strict=True))
        assert (by_key["Quality"].type, by_key["Quality"].int_value) == (DataType.INT32, code)
    texts = dict(zip(in_birth.keys, in_birth.values, strict=True))
    assert (texts["engUnit"].type, texts["engUnit"].string_value) == (DataType.STRING, "Cel")


@states(
    "topics-dbirth-mqtt", "topics-dbirth-seq", "topics-dbirth-timestamp", "payloads-dbirth-timestamp",
    "payloads-dbirth-seq", "payloads-dbirth-seq-inc", "payloads-dbirth-qos", "payloads-dbirth-retain",
    "message-flow-device-birth-publish-dbirth-payload", "message-flow-device-birth-publish-dbirth-qos",
    "message-flow-device-birth-publish-dbirth-retained", "message-flow-device-birth-publish-dbirth-payload-seq",
)  # fmt: skip
def test_dbirth_has_qos_0_no_retain_time_and_the_next_seq(tck: str) -> None:
    _, _, dbirth = births()
    assert (dbirth.qos, dbirth.retain) == (0, False)
    assert (read(dbirth).seq, read(dbirth).timestamp) == (1, NOW_MS)


@states(
    "message-flow-device-birth-publish-nbirth-wait", "payloads-dbirth-order", "payloads-ndata-order",
    "payloads-ddata-order", "operational-behavior-data-commands-rebirth-action-1",
)  # fmt: skip
def test_nothing_is_said_before_its_birth(tck: str) -> None:
    session = fresh()
    for early in (
        lambda: session.dbirth("D", [], NOW_MS), lambda: session.ndata([], NOW_MS),
        lambda: session.ddata("D", [], NOW_MS), lambda: session.ddeath("D", NOW_MS),
    ):  # fmt: skip
        with pytest.raises(OutOfOrder):
            early()
    session.nbirth([], NOW_MS)
    with pytest.raises(OutOfOrder):
        session.ddata("D", [], NOW_MS)
    session.dbirth("D", [], NOW_MS)
    session.ddata("D", [], NOW_MS)
    session.ddeath("D", NOW_MS)
    with pytest.raises(OutOfOrder):
        session.ddata("D", [], NOW_MS)
    session.dbirth("D", [], NOW_MS)
    session.nbirth([], NOW_MS)
    with pytest.raises(OutOfOrder):
        session.ddata("D", [], NOW_MS)


# Numbers and data


@states(
    "payloads-sequence-num-always-included", "payloads-sequence-num-incrementing", "payloads-ndata-seq",
    "payloads-ndata-seq-inc", "payloads-ddata-seq", "payloads-ddata-seq-inc", "payloads-ddeath-seq",
    "payloads-ddeath-seq-inc", "payloads-ddeath-seq-number", "topics-ndata-seq-num", "topics-ddata-seq-num",
    "topics-ddeath-seq-num",
)  # fmt: skip
@given(st.lists(st.sampled_from(["NDATA", "DDATA", "DDEATH", "DBIRTH", "NBIRTH"]), max_size=400))
@settings(max_examples=10, deadline=None)
def test_seq_has_no_hole_over_node_and_devices(tck: str, kinds: list[str]) -> None:
    session = fresh()
    said = [session.nbirth([], NOW_MS)]
    for kind in kinds + ["NDATA"] * 300:
        alive = "D" in session.born_devices
        match kind:
            case "NBIRTH":
                said.append(session.nbirth([], NOW_MS))
            case "NDATA":
                said.append(session.ndata([], NOW_MS))
            case "DBIRTH":
                said.append(session.dbirth("D", [], NOW_MS))
            case "DDATA" if alive:
                said.append(session.ddata("D", [], NOW_MS))
            case "DDEATH" if alive:
                said.append(session.ddeath("D", NOW_MS))
    expected = 0
    for message in said:
        assert read(message).HasField("seq")
        expected = 0 if "NBIRTH" in message.topic else expected
        assert read(message).seq == expected
        expected = (expected + 1) % 256


@states(
    "topics-ndata-mqtt", "topics-ndata-timestamp", "topics-ndata-payload", "topics-ddata-mqtt",
    "topics-ddata-timestamp", "topics-ddata-payload", "payloads-ndata-timestamp", "payloads-ndata-qos",
    "payloads-ndata-retain", "payloads-ddata-timestamp", "payloads-ddata-qos", "payloads-ddata-retain",
    "payloads-metric-datatype-not-req", "payloads-alias-data-cmd-requirement",
)  # fmt: skip
def test_data_have_qos_0_no_retain_time_and_aliases_only(tck: str) -> None:
    session, *_ = births()
    part = data((PRESS, NOW_MS * NS_PER_MS, 42.0, GOOD))
    for message in (session.ndata([part], NOW_MS), session.ddata(PRESS_ID, [part], NOW_MS)):
        assert (message.qos, message.retain) == (0, False)
        (metric,) = read(message).metrics
        assert read(message).timestamp == NOW_MS
        assert (metric.alias, metric.timestamp, metric.double_value) == (PRESS + 1, NOW_MS, 42.0)
        assert not metric.HasField("name")
        assert not metric.HasField("datatype")


@states("topics-ddeath-mqtt", "payloads-ddeath-timestamp")
def test_ddeath_has_qos_0_no_retain_and_time(tck: str) -> None:
    session, *_ = births()
    message = session.ddeath(PRESS_ID, NOW_MS)
    assert (message.qos, message.retain, read(message).timestamp) == (0, False, NOW_MS)


@states(
    "operational-behavior-data-publish-nbirth-change", "operational-behavior-data-publish-dbirth-change",
)  # fmt: skip
def test_only_changes_are_told(tck: str) -> None:
    values = Values(Plan(TABLE, ()))
    at = NOW_MS * NS_PER_MS

    def told(*rows: tuple[int, int, float, int]) -> list[float]:
        changed, _ = values.changes(of_rows(rows))
        return changed.value.tolist()

    assert told((PRESS, at, 1.0, GOOD)) == [1.0]
    assert told((PRESS, at + NS_PER_S, 1.0, GOOD)) == []
    assert told((PRESS, at + 2 * NS_PER_S, 1.0, UNCERTAIN)) == [1.0]
    later = at + 3 * NS_PER_S
    assert told((PRESS, later, 2.0, GOOD), (PRESS, later + NS_PER_MS, 2.0, GOOD), (CNC, later, 5.0, GOOD)) == [2.0, 5.0]
    # A quality that is not good is stated for as long as it lasts, and its end.
    stated = [
        values.changes(of_rows([(ROOM, at + n * NS_PER_S, float(n), quality)]))[1].tolist()
        for n, quality in enumerate((GOOD, GOOD, UNCERTAIN, UNCERTAIN, GOOD, GOOD))
    ]
    assert stated == [[True], [False], [True], [True], [True], [False]]
    # Of two values in one millisecond the later one holds.
    assert told((CNC, later + NS_PER_S, 6.0, GOOD), (CNC, later + NS_PER_S + 1, 7.0, GOOD)) == [7.0]


READING = st.tuples(
    st.integers(0, 2**20),
    st.integers(0, 2**62),
    st.floats(width=64),
    st.sampled_from([GOOD, UNCERTAIN, BAD, GOOD | 1]),
    st.booleans(),
    st.none() | st.text(max_size=200),
)


@given(st.lists(READING, min_size=1, max_size=60), st.booleans())
@settings(max_examples=200, deadline=None)
def test_readings_encoded_all_at_once_are_what_protobuf_reads(rows: list[Any], historical: bool) -> None:
    batch = Batch(
        np.array([r[0] for r in rows], np.uint32),
        np.array([r[1] for r in rows], np.int64),
        np.array([r[2] for r in rows]),
        np.array([r[3] for r in rows], np.uint8),
    )
    tell = np.array([r[4] for r in rows])
    text_rows = [i for i, r in enumerate(rows) if r[5] is not None and np.isfinite(r[2])]
    texts = [rows[i][5].encode("utf-8", "replace").decode() for i in text_rows]
    alias = batch.tag.astype(np.uint64) + np.uint64(1)
    encoded, bounds = columns.encode(batch, alias, tell, historical=historical, text_rows=text_rows, texts=texts)
    assert len(bounds) == len(rows) + 1
    assert bounds[-1] == len(encoded)
    for i, (metric, row) in enumerate(zip(Payload.FromString(encoded).metrics, rows, strict=True)):
        assert Payload.FromString(encoded[bounds[i] : bounds[i + 1]]).metrics[0] == metric
        assert (metric.alias, metric.timestamp) == (row[0] + 1, row[1] // NS_PER_MS)
        assert metric.is_historical == historical
        assert [*metric.properties.keys] == (["Quality"] if row[4] else [])
        if i in text_rows:
            assert metric.string_value == texts[text_rows.index(i)]
        elif np.isfinite(row[2]):
            assert metric.double_value == row[2]
        assert metric.is_null == (not np.isfinite(row[2]))
        assert metric.is_null == (metric.WhichOneof("value") is None)


def test_alarms_tell_only_the_fields_that_changed() -> None:
    alarms = AlarmMetrics()
    names = {
        m.alias: m.name
        for _, part in alarms.birth([AlarmName("hot")], [], NOW_MS)
        for m in Payload.FromString(part).metrics
    }
    transition = AlarmTransition(
        id="1", time=NOW_MS * NS_PER_MS, asset="a", alarm="hot", occurrence="o", transition="activate", state="B",
        active=True, acknowledged=False, priority="high", message="too hot", value=float("nan"),
    )  # fmt: skip
    assert alarms.put(transition)
    said = {names[m.alias]: m for _, part in alarms.changes() for m in Payload.FromString(part).metrics}
    assert said["Alarms/hot/Active"].boolean_value is True
    assert said["Alarms/hot/State"].string_value == "B"
    assert said["Alarms/hot/Value"].is_null
    assert "Alarms/hot/Shelved" not in said
    assert alarms.changes() == []
    assert not alarms.put(AlarmTransition(**{**_fields(transition), "alarm": "unknown"}))


def _fields(event: AlarmTransition) -> dict[str, Any]:
    return {name: getattr(event, name) for name in event.__dataclass_fields__ if name != "kind"}


# Commands and the primary host


@states(
    "operational-behavior-data-commands-ncmd-rebirth-verb", "operational-behavior-data-commands-ncmd-rebirth-name",
    "operational-behavior-data-commands-ncmd-rebirth-value", "topics-ncmd-topic",
)  # fmt: skip
def test_a_rebirth_is_asked_for_by_name_and_true(tck: str) -> None:
    def ask(*metrics: Any) -> payload.NodeCommand:
        return payload.command(Payload(timestamp=NOW_MS, metrics=metrics).SerializeToString())

    assert Session("G", "E").command_topic == "spBv1.0/G/NCMD/E"
    rebirth = Metric(name="Node Control/Rebirth", datatype=DataType.BOOLEAN, boolean_value=True)
    assert ask(rebirth) == payload.NodeCommand(rebirth=True, others=())
    rebirth.boolean_value = False
    assert not ask(rebirth).rebirth
    assert ask(Metric(alias=7, double_value=1.0)) == payload.NodeCommand(rebirth=False, others=("alias 7",))


@given(st.binary(max_size=300))
def test_whatever_a_host_sends_is_read_or_refused(data: bytes) -> None:
    for read_it in (payload.command, payload.host_state):
        with contextlib.suppress(Unreadable):
            assert read_it(data) is not None


def test_a_command_is_bounded() -> None:
    with pytest.raises(Unreadable, match="bytes"):
        payload.command(bytes(payload.COMMAND_SIZE_MAX + 1))


def host(*, online: bool, at: int) -> HostState:
    return payload.host_state(json.dumps({"online": online, "timestamp": at}).encode())


@states(
    "message-flow-edge-node-birth-publish-phid-wait", "message-flow-edge-node-birth-publish-phid-wait-online",
    "operational-behavior-edge-node-birth-sequence-wait",
)  # fmt: skip
def test_births_wait_for_the_primary_host(tck: str) -> None:
    session = fresh("scada")
    assert session.waits_for_host
    with pytest.raises(OutOfOrder):
        session.nbirth([], NOW_MS)
    assert not session.host_died(host(online=False, at=5))
    assert session.waits_for_host
    session.host_died(host(online=True, at=5))
    session.nbirth([], NOW_MS)
    assert session.phase == "born"


@states(
    "message-flow-edge-node-birth-publish-phid-wait-timestamp",
    "operational-behavior-edge-node-termination-host-offline-timestamp",
)  # fmt: skip
def test_a_state_older_than_the_last_is_ignored(tck: str) -> None:
    session = fresh("scada")
    session.host_died(host(online=True, at=100))
    session.nbirth([], NOW_MS)
    assert not session.host_died(host(online=False, at=99))
    assert session.host_died(host(online=False, at=100))
    session.host_died(host(online=True, at=98))
    assert not session.may_be_born


@states(
    "message-flow-edge-node-birth-publish-phid-offline", "operational-behavior-edge-node-termination-host-offline",
)  # fmt: skip
def test_a_host_that_dies_ends_the_session(tck: str) -> None:
    session = fresh("scada")
    session.host_died(host(online=True, at=1))
    session.nbirth([], NOW_MS)
    assert session.host_died(host(online=False, at=2))
    session.leave()
    with pytest.raises(OutOfOrder):
        session.ndata([], NOW_MS)
    session.closed(attempted=True)
    connected(session)
    assert session.waits_for_host
    assert session.bd_seq == 1


def test_an_online_host_is_believed_only_on_the_present_connection() -> None:
    session = fresh("scada")
    session.host_died(host(online=True, at=1))
    session.closed(attempted=True)
    connected(session)
    assert session.waits_for_host
    session.host_died(host(online=True, at=1))  # retained, with its old time
    assert session.may_be_born


# What is owed


def test_a_loss_is_owed_from_where_the_host_was_last_sure_to_hear() -> None:
    backlog = Backlog()
    for second in range(60):
        backlog.committed(second * NS_PER_S, second * 100)
    backlog.lost(50 * NS_PER_S)
    assert (backlog.start, backlog.end) == (5000, None)
    backlog.committed(61 * NS_PER_S, 6100)  # the ring goes on, nobody hears of it
    backlog.lost(62 * NS_PER_S)  # a second loss before the first was made good
    assert backlog.start == 5000
    backlog.close(70 * NS_PER_S, 8000, rows_max=10_000)
    assert (backlog.start, backlog.end) == (5000, 8000)
    for second, seq in ((71, 6000), (72, 6500), (73, 7000)):
        backlog.advance(second * NS_PER_S, seq)
    # What was told into a silence is owed again.
    backlog.lost(72 * NS_PER_S)
    assert (backlog.start, backlog.end) == (6500, None)
    backlog.close(80 * NS_PER_S, 9000, rows_max=10_000)
    backlog.advance(81 * NS_PER_S, 9000)
    assert backlog.start is None
    assert backlog.told_until(82 * NS_PER_S) == 9000
    backlog.lost(80 * NS_PER_S)
    assert backlog.start == 6500


def test_what_is_owed_is_bounded() -> None:
    backlog = Backlog()
    backlog.committed(0, 10)
    backlog.lost(NS_PER_S)
    backlog.close(2 * NS_PER_S, 1_000_010, rows_max=1000)
    assert (backlog.start, backlog.end, backlog.skipped) == (999_010, 1_000_010, 999_000)


def test_what_an_earlier_run_owed_is_owed_until_it_is_told() -> None:
    backlog = Backlog()
    backlog.start = 40
    backlog.committed(NS_PER_S, 100)
    assert backlog.told_until(2 * NS_PER_S) == 40
    backlog.lost(2 * NS_PER_S)
    assert backlog.start == 40


def test_a_device_lives_by_what_is_read_from_it() -> None:
    plan = Plan(TABLE, ())
    assert [d.asset for d in plan.devices] == ["milling/line1/cnc", "pressing/line2/press"]
    good = np.zeros(plan.size, np.bool_)
    good[OEE] = True  # computed: no sign of life
    assert plan.alive(good).tolist() == [False, False]
    good[PROGRAM] = True
    assert plan.alive(good).tolist() == [False, True]


def test_only_chosen_assets_are_devices() -> None:
    table = TagTable([Tag(name=str(i), index=i, asset=asset) for i, asset in enumerate(("a/b", "a/bc", "a/b/c", ""))])
    plan = Plan(table, ("a/b",))
    assert [d.asset for d in plan.devices] == ["a/b", "a/b/c"]
    assert [tag.name for tag in plan.node_tags] == ["3"]


def test_values_of_tags_that_stay_outlive_a_change_of_the_plan() -> None:
    values = Values(Plan(TABLE, ()))
    values.note(of_rows([(PRESS, time.time_ns(), 5.0, GOOD), (ROOM, time.time_ns(), 6.0, GOOD)]))
    smaller = TagTable([TABLE["press.temperature"]])
    values.use(Plan(smaller, ()), smaller)
    assert values.seen.tolist() == [True]
    assert values.value.tolist() == [5.0]
    assert len(values.published(of_rows([(ROOM, 1, 1.0, GOOD)]))) == 0
