"""The columnar decode gives what asyncua's own decoder gives, or says that the body is malformed."""

import struct
import uuid
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import extensionobject_to_binary, struct_from_binary, struct_to_binary, variant_to_binary
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.sources.opcua_decode import EPOCH_TICKS, Columns, Decoder, Unusable
from edge.sources.opcua_wire import DATA_CHANGE, STATUS_CHANGE, Malformed, parse_publish, parse_read, status_of

VT = ua.VariantType
ints = {
    VT.SByte: (-(2**7), 2**7 - 1), VT.Byte: (0, 2**8 - 1), VT.Int16: (-(2**15), 2**15 - 1), VT.UInt16: (0, 2**16 - 1),
    VT.Int32: (-(2**31), 2**31 - 1), VT.UInt32: (0, 2**32 - 1), VT.Int64: (-(2**63), 2**63 - 1),
    VT.UInt64: (0, 2**64 - 1),
}  # fmt: skip
dates = st.integers(10**13, 26 * 10**16).map(lambda us: datetime(1601, 1, 1, tzinfo=UTC) + timedelta(microseconds=us))
number = st.one_of(
    st.floats(width=64).map(lambda v: ua.Variant(v, VT.Double)),
    st.floats(width=32).map(lambda v: ua.Variant(v, VT.Float)),
    st.booleans().map(lambda v: ua.Variant(v, VT.Boolean)),
    dates.map(lambda v: ua.Variant(v, VT.DateTime)),
    st.sampled_from(sorted(ints, key=lambda t: t.value)).flatmap(
        lambda t: st.integers(*ints[t]).map(lambda v: ua.Variant(v, t))
    ),
)
other = st.one_of(
    st.text(max_size=20).map(lambda v: ua.Variant(v, VT.String)),
    st.just(ua.Variant(None, VT.String)),
    st.binary(max_size=20).map(lambda v: ua.Variant(v, VT.ByteString)),
    st.text(max_size=9).map(lambda v: ua.Variant(ua.LocalizedText(v, "en"), VT.LocalizedText)),
    st.text(max_size=9).map(lambda v: ua.Variant(ua.QualifiedName(v, 3), VT.QualifiedName)),
    st.just(ua.Variant(uuid.UUID(int=7), VT.Guid)),
    st.just(ua.Variant(ua.NodeId("x", 2), VT.NodeId)),
    st.just(ua.Variant(ua.NodeId(7, 300), VT.NodeId)),
    st.lists(st.floats(allow_nan=False), max_size=5).map(lambda v: ua.Variant(v, VT.Double, is_array=True)),
    st.lists(st.text(max_size=3), max_size=5).map(lambda v: ua.Variant(v, VT.String, is_array=True)),
    st.just(ua.Variant([[1, 2], [3, 4]], VT.Int32)),
    st.just(ua.Variant(ua.Argument(Name="n", Description=ua.LocalizedText("d")), VT.ExtensionObject)),
    st.just(ua.Variant([ua.Variant(1, VT.Int32), ua.Variant("a", VT.String)], VT.Variant, is_array=True)),
)
statuses = st.sampled_from([0, 0x80340000, 0x40920000, 0x80000000, 0x480, 0xC0000000])


@st.composite
def data_values(draw, variant=None):
    value = draw(variant) if variant is not None and draw(st.integers(0, 9)) else ua.Variant()
    result = ua.DataValue(value)
    if value.VariantType == VT.Null and draw(st.booleans()):
        result.Value = None
    result.StatusCode = ua.StatusCode(draw(statuses)) if draw(st.booleans()) else None
    result.SourceTimestamp = draw(dates) if draw(st.booleans()) else None
    result.ServerTimestamp = draw(dates) if draw(st.booleans()) else None
    # asyncua writes and reads both picoseconds after both times, the standard each after its time: the one order
    # where they agree is a single time.
    if result.ServerTimestamp is None and draw(st.booleans()):
        result.SourcePicoseconds = draw(st.integers(0, 9999))
    return result


value_lists = st.one_of(
    st.lists(data_values(number), max_size=40),
    st.lists(data_values(st.one_of(number, other)), max_size=25),
    st.builds(lambda v, n: [v] * n, data_values(number), st.integers(1, 300)),
)


def publish(values, sequence=5):
    change = ua.DataChangeNotification()
    change.MonitoredItems = [ua.MonitoredItemNotification(7 * i, v) for i, v in enumerate(values)]
    response = ua.PublishResponse()
    response.Parameters.SubscriptionId = 9
    response.Parameters.AvailableSequenceNumbers = [3, 4, sequence]
    response.Parameters.NotificationMessage.SequenceNumber = sequence
    response.Parameters.NotificationMessage.NotificationData = [change]
    return struct_to_binary(response)


def decode_publish(decoder, body):
    message = parse_publish(body)
    (part,) = message.notifications
    assert part.encoding == DATA_CHANGE
    (count,) = struct.unpack_from("<i", body, part.start)
    columns, _ = decoder.decode(body, part.start + 4, count, 4, part.end)
    return message, columns


def ticks(when):
    return 0 if when is None else ua.datetime_to_win_epoch(when)


def check(columns: Columns, values: list[ua.DataValue]):
    others = dict(columns.others)
    for row, data in enumerate(values):
        assert (0 if columns.status is None else columns.status[row]) == (
            data.StatusCode.value if data.StatusCode else 0
        )
        assert (0 if columns.source is None else columns.source[row]) == ticks(data.SourceTimestamp)
        assert (0 if columns.server is None else columns.server[row]) == ticks(data.ServerTimestamp)
        variant = data.Value
        value = columns.value[row]
        if row in others:
            check_other(others[row], variant)
            assert np.isnan(value)
        elif variant is None or variant.VariantType == VT.Null:
            assert np.isnan(value)
        elif variant.VariantType == VT.DateTime:
            assert value == pytest.approx(
                (variant.Value - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(seconds=1), abs=1e-4
            )
        else:
            assert value == float(variant.Value) or (np.isnan(value) and np.isnan(variant.Value))
            exact = not isinstance(variant.Value, int) or abs(float(variant.Value)) <= 2**53
            assert exact == (columns.inexact is None or not columns.inexact[row])


def check_other(found, variant):
    if variant.is_array or variant.VariantType in (VT.ByteString, VT.ExtensionObject) or variant.Value is None:
        assert isinstance(found, Unusable)
    elif variant.VariantType == VT.LocalizedText:
        assert found == variant.Value.Text or (variant.Value.Text is None and isinstance(found, Unusable))
    elif variant.VariantType == VT.QualifiedName:
        assert found == variant.Value.Name
    elif variant.VariantType == VT.NodeId:
        assert found == variant.Value.to_string()
    else:
        assert found == str(variant.Value)


@settings(deadline=None, max_examples=300)
@given(st.lists(value_lists, min_size=1, max_size=3))
def test_notifications_decode_as_asyncua_decodes_them(messages):
    decoder = Decoder()
    for values in [*messages, *messages]:  # the second round meets remembered layouts
        body = publish(values)
        expected = struct_from_binary(ua.PublishResponse, Buffer(body)).Parameters
        message, columns = decode_publish(decoder, body)
        items = expected.NotificationMessage.NotificationData[0].MonitoredItems
        assert (message.subscription, message.sequence) == (9, 5)
        assert message.available == (3, 4, 5)
        assert columns.handle.tolist() == [item.ClientHandle for item in items]
        check(columns, [item.Value for item in items])


@settings(deadline=None)
@given(value_lists)
def test_read_results_decode_as_asyncua_decodes_them(values):
    response = ua.ReadResponse()
    response.Results = values
    body = struct_to_binary(response)
    start, count = parse_read(body)
    columns, stop = Decoder().decode(body, start, count, 0, len(body))
    assert stop == len(body) - 4
    assert columns.handle is None
    check(columns, struct_from_binary(ua.ReadResponse, Buffer(body)).Results)


@settings(deadline=None, max_examples=300)
@given(value_lists, st.data())
def test_a_damaged_message_is_declined_or_decoded_never_worse(values, data):
    body = bytearray(publish(values))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    body = bytes(body[: data.draw(st.integers(0, len(body)))])
    try:
        message = parse_publish(body)
        for part in message.notifications:
            if part.encoding == DATA_CHANGE and part.end - part.start >= 4:
                (count,) = struct.unpack_from("<i", body, part.start)
                columns, stop = Decoder().decode(body, part.start + 4, max(count, 0), 4, part.end)
                assert stop <= part.end
                assert len(columns.value) == max(count, 0)
    except Malformed:
        pass


def test_a_remembered_layout_is_not_used_for_a_message_of_the_same_size_with_other_types():
    decoder = Decoder()
    one = [
        ua.DataValue(ua.Variant(1, VT.Int64)),
        ua.DataValue(ua.Variant(2.5, VT.Double)),
        ua.DataValue(ua.Variant(3, VT.Int32)),
    ]
    two = [
        ua.DataValue(ua.Variant(2.5, VT.Double)),
        ua.DataValue(ua.Variant(1, VT.Int64)),
        ua.DataValue(ua.Variant(4, VT.UInt32)),
    ]
    for values in (one, two, one):
        check(decode_publish(decoder, publish(values))[1], values)


@pytest.mark.parametrize("mask", range(64))
def test_picoseconds_stand_after_their_own_time(mask):
    """OPC 10000-6, table 27: every combination of mask bits, written by hand."""
    value = variant_to_binary(ua.Variant(1.5, VT.Double))
    item = bytes([mask])
    item += value if mask & 1 else b""
    item += struct.pack("<I", 0x40000000) if mask & 2 else b""
    item += struct.pack("<q", EPOCH_TICKS + 1) if mask & 4 else b""
    item += struct.pack("<H", 11) if mask & 0x10 else b""
    item += struct.pack("<q", EPOCH_TICKS + 2) if mask & 8 else b""
    item += struct.pack("<H", 22) if mask & 0x20 else b""
    text = bytes([1]) + variant_to_binary(ua.Variant("run", VT.String))
    for items in ([item], [item, item, item], [item, text, item], [text, item]):
        body = b"".join(items) + b"\0\0\0\0"
        columns, stop = Decoder().decode(body, 0, len(items), 0, len(body))
        assert stop == len(body) - 4
        for row, data in enumerate(items):
            if data is text:
                assert (row, "run") in columns.others
                continue
            assert columns.value[row] == 1.5 if mask & 1 else np.isnan(columns.value[row])
            assert (0 if columns.status is None else columns.status[row]) == (0x40000000 if mask & 2 else 0)
            assert (0 if columns.source is None else columns.source[row]) == (EPOCH_TICKS + 1 if mask & 4 else 0)
            assert (0 if columns.server is None else columns.server[row]) == (EPOCH_TICKS + 2 if mask & 8 else 0)


def test_a_keep_alive_has_no_notifications_and_a_status_change_has_its_code():
    response = ua.PublishResponse()
    response.Parameters.SubscriptionId = 4
    response.Parameters.NotificationMessage.SequenceNumber = 17
    assert parse_publish(struct_to_binary(response)).notifications == ()
    change = ua.StatusChangeNotification(Status=ua.StatusCode(ua.StatusCodes.BadTimeout))
    response.Parameters.NotificationMessage.NotificationData = [change]
    body = struct_to_binary(response)
    (part,) = parse_publish(body).notifications
    assert part.encoding == STATUS_CHANGE
    assert status_of(body, part) == ua.StatusCodes.BadTimeout
    assert extensionobject_to_binary(change)[9:] == body[part.start : part.end]


def test_variants_that_nest_without_end_are_declined():
    bomb = bytes([1]) + bytes([24]) * 100_000
    with pytest.raises(Malformed):
        Decoder().decode(bomb, 0, 1, 0, len(bomb))
