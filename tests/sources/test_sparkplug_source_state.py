"""One edge node as a host sees it, against a model and against nonsense."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.sources.mqtt_rows import Problems
from edge.sources.sparkplug_node import Counts, EdgeNode, Rows
from edge.sources.sparkplug_points import SparkplugPoint
from edge.sparkplug_payload import DataType, Metric, Payload
from plant.batch import BAD, GOOD
from plant.texts import Texts

KINDS = ("NBIRTH", "DBIRTH", "NDATA", "DDATA", "NDEATH", "DDEATH")
NOW = 1_790_000_000_000_000_000
POINTS = [
    SparkplugPoint(0, "E", "", "Load"),
    SparkplugPoint(1, "E", "oven", "T"),
    SparkplugPoint(2, "E", "oven", "Mode", text=True),
    SparkplugPoint(3, "E", "", "bdSeq"),
]


class Host:
    """A node under test, with what it gave last for each tag."""

    def __init__(self) -> None:
        self.problems = Problems()
        self.counts = Counts()
        self.node = EdgeNode("E", POINTS, Texts(), self.problems, self.counts)
        self.last: dict[int, tuple[float, int]] = {}

    def take(self, kind: str, payload, device: str = "") -> None:
        data = payload if isinstance(payload, bytes) else payload.SerializeToString()
        rows = Rows()
        self.node.take(rows, kind, device, data, NOW)
        for columns in (rows.live, rows.historical):
            batch = columns.to_batch()
            assert (np.isfinite(batch.value) | (batch.quality == BAD)).all()
        live = rows.live.to_batch()
        for tag, value, quality in zip(live.tag.tolist(), live.value.tolist(), live.quality.tolist(), strict=True):
            self.last[tag] = (value, quality)


def metric(name: str = "", alias: int | None = None, **value):
    made = Metric(alias=alias, **value)
    if name:
        made.name = name
    return made


SCALARS = {
    "alias": st.integers(0, 5), "timestamp": st.integers(0, 2**64 - 1), "datatype": st.integers(0, 40),
    "is_historical": st.booleans(), "is_null": st.booleans(),
}  # fmt: skip
VALUES = st.one_of(
    st.fixed_dictionaries({"int_value": st.integers(0, 2**32 - 1)}),
    st.fixed_dictionaries({"long_value": st.integers(0, 2**64 - 1)}),
    st.fixed_dictionaries({"double_value": st.floats()}),
    st.fixed_dictionaries({"float_value": st.floats(width=32)}),
    st.fixed_dictionaries({"boolean_value": st.booleans()}),
    st.fixed_dictionaries({"string_value": st.text(max_size=5)}),
    st.fixed_dictionaries({"bytes_value": st.binary(max_size=5)}),
    st.just({}),
)
METRICS = st.builds(
    lambda scalars, value, name: metric(name, **scalars, **value),
    st.fixed_dictionaries({}, optional=SCALARS),
    VALUES,
    st.sampled_from(["", "Load", "T", "Mode", "bdSeq", "Other"]),
)
PAYLOADS = st.builds(
    lambda seq, metrics: Payload(seq=seq, metrics=metrics), st.integers(0, 300), st.lists(METRICS, max_size=4)
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(KINDS), PAYLOADS | st.binary(max_size=30), st.sampled_from(["", "oven", "x"])),
        max_size=20,
    )
)
def test_no_message_breaks_the_host_and_what_is_bad_has_a_sentence_or_a_quality(messages):
    host = Host()
    for kind, payload, device in messages:
        host.take(kind, payload, device)
        for tag, (value, _) in host.last.items():
            assert math.isfinite(value) or tag in host.problems.tell()


def test_a_name_or_a_text_that_is_no_utf8_is_survived():
    load = metric("Load", 1, datatype=DataType.DOUBLE, double_value=1)
    mode = metric("Mode", 2, datatype=DataType.STRING, string_value="bake")
    host = Host()
    host.take("NBIRTH", Payload(seq=0, metrics=[load]).SerializeToString().replace(b"Load", b"\xff\xfe\xfd\xfc"))
    assert "no metric Load" in host.problems.tell()[0]
    host.take(
        "DBIRTH", Payload(seq=1, metrics=[mode]).SerializeToString().replace(b"bake", b"\xff\xfe\xfd\xfc"), "oven"
    )
    assert "no UTF-8" in host.problems.tell()[2]
    assert host.last[2][1] == BAD


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["birth", "data", "lose", "die", "device_dies", "device_born"]), max_size=60))
def test_data_counts_from_birth_to_death_and_missing_messages_are_counted(script):
    host = Host()
    seq = missed = unseen = value = 0
    node_up = device_up = False
    for act in script:
        if act == "birth":
            seq, node_up, device_up, unseen = 0, True, False, 0
            load = metric("Load", 1, datatype=DataType.DOUBLE, double_value=-1)
            host.take("NBIRTH", Payload(seq=0, metrics=[metric("bdSeq", long_value=4, datatype=4), load]))
            assert not host.node.wants_birth
            assert host.last[0] == (-1.0, GOOD)
            continue
        if act == "die":
            host.take("NDEATH", Payload(metrics=[metric("bdSeq", long_value=4, datatype=4)]))
            node_up = device_up = False
            assert host.last[0][1] == BAD
            continue
        seq = (seq + 1) % 256
        if act == "lose":
            unseen += 1
            continue
        missed += unseen if node_up else 0
        unseen = 0
        if act == "device_born":
            zone = metric("T", 2, datatype=DataType.INT16, int_value=65_535)
            host.take("DBIRTH", Payload(seq=seq, metrics=[zone]), "oven")
            device_up = node_up
            if device_up:
                assert host.last[1] == (-1.0, GOOD)
        elif act == "device_dies":
            host.take("DDEATH", Payload(seq=seq), "oven")
            device_up = False
        else:
            value += 1
            before = dict(host.last)
            device = "oven" if value % 2 else ""
            alias, field = (2, "int_value") if device else (1, "double_value")
            kind = "DDATA" if device else "NDATA"
            host.take(kind, Payload(seq=seq, metrics=[metric(alias=alias, **{field: value})]), device)
            if device_up if device else node_up:
                assert host.last[1 if device else 0] == (float(value), GOOD)
            else:
                assert host.last.get(1 if device else 0, (0, BAD))[1] == BAD or host.last == before
                assert host.node.wants_birth
        assert host.counts.missed == missed
