"""The payload of Sparkplug B (Eclipse Sparkplug 3.0.0, 6.4) as protobuf messages, and its data types.

Shared by whoever reads or writes such payloads. Owns only the form; sequence numbers, births and deaths belong to its
users. The messages are described here and not generated, so that no build step stands between the specification and
the code. DataSet and Template values stay bytes: on the wire they look the same, and nobody here looks inside.
"""

from enum import IntEnum
from typing import Any, Final

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

NAMESPACE: Final = "spBv1.0"
"""The first level of every topic (4.1)."""
REBIRTH: Final = "Node Control/Rebirth"
"""The metric of a node that asks it for all births anew (6.4.6)."""
BDSEQ: Final = "bdSeq"
"""The metric that ties a death to its birth (6.4.7)."""
SEQ_COUNT: Final = 256
"""Sequence numbers run from 0 to 255 and begin again at 0 (6.4.3)."""


class DataType(IntEnum):
    """Data types of metrics and properties (6.4.16)."""

    UNKNOWN = 0
    INT8 = 1
    INT16 = 2
    INT32 = 3
    INT64 = 4
    UINT8 = 5
    UINT16 = 6
    UINT32 = 7
    UINT64 = 8
    FLOAT = 9
    DOUBLE = 10
    BOOLEAN = 11
    STRING = 12
    DATETIME = 13
    TEXT = 14
    UUID = 15
    DATASET = 16
    BYTES = 17
    FILE = 18
    TEMPLATE = 19
    PROPERTY_SET = 20
    PROPERTY_SET_LIST = 21
    INT8_ARRAY = 22
    INT16_ARRAY = 23
    INT32_ARRAY = 24
    INT64_ARRAY = 25
    UINT8_ARRAY = 26
    UINT16_ARRAY = 27
    UINT32_ARRAY = 28
    UINT64_ARRAY = 29
    FLOAT_ARRAY = 30
    DOUBLE_ARRAY = 31
    BOOLEAN_ARRAY = 32
    STRING_ARRAY = 33
    DATETIME_ARRAY = 34


_PACKAGE: Final = "andon.sparkplug"
_SCALARS: Final = {
    "uint32": FieldDescriptorProto.TYPE_UINT32,
    "uint64": FieldDescriptorProto.TYPE_UINT64,
    "float": FieldDescriptorProto.TYPE_FLOAT,
    "double": FieldDescriptorProto.TYPE_DOUBLE,
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "string": FieldDescriptorProto.TYPE_STRING,
    "bytes": FieldDescriptorProto.TYPE_BYTES,
}
# Number, name, type; "*" = repeated, "=" = a member of the oneof `value`.
_MESSAGES: Final[dict[str, tuple[tuple[int, str, str], ...]]] = {
    "Payload": (
        (1, "timestamp", "uint64"), (2, "metrics", "*Metric"), (3, "seq", "uint64"), (4, "uuid", "string"),
        (5, "body", "bytes"),
    ),
    "Metric": (
        (1, "name", "string"), (2, "alias", "uint64"), (3, "timestamp", "uint64"), (4, "datatype", "uint32"),
        (5, "is_historical", "bool"), (6, "is_transient", "bool"), (7, "is_null", "bool"), (8, "metadata", "MetaData"),
        (9, "properties", "PropertySet"), (10, "int_value", "=uint32"), (11, "long_value", "=uint64"),
        (12, "float_value", "=float"), (13, "double_value", "=double"), (14, "boolean_value", "=bool"),
        (15, "string_value", "=string"), (16, "bytes_value", "=bytes"), (17, "dataset_value", "=bytes"),
        (18, "template_value", "=bytes"),
    ),
    "MetaData": (
        (1, "is_multi_part", "bool"), (2, "content_type", "string"), (3, "size", "uint64"), (4, "seq", "uint64"),
        (5, "file_name", "string"), (6, "file_type", "string"), (7, "md5", "string"), (8, "description", "string"),
    ),
    "PropertySet": ((1, "keys", "*string"), (2, "values", "*PropertyValue")),
    "PropertyValue": (
        (1, "type", "uint32"), (2, "is_null", "bool"), (3, "int_value", "=uint32"), (4, "long_value", "=uint64"),
        (5, "float_value", "=float"), (6, "double_value", "=double"), (7, "boolean_value", "=bool"),
        (8, "string_value", "=string"), (9, "propertyset_value", "=PropertySet"),
        (10, "propertysets_value", "=PropertySetList"),
    ),
    "PropertySetList": ((1, "propertyset", "*PropertySet"),),
}  # fmt: skip


def _describe() -> FileDescriptorProto:
    file = FileDescriptorProto(name="andon/sparkplug_b.proto", package=_PACKAGE, syntax="proto2")
    for title, fields in _MESSAGES.items():
        message = file.message_type.add(name=title)
        for number, name, kind in fields:
            scalar = kind.lstrip("*=")
            field = message.field.add(name=name, number=number)
            field.label = FieldDescriptorProto.LABEL_REPEATED if "*" in kind else FieldDescriptorProto.LABEL_OPTIONAL
            if scalar in _SCALARS:
                field.type = _SCALARS[scalar]
            else:
                field.type = FieldDescriptorProto.TYPE_MESSAGE
                field.type_name = f".{_PACKAGE}.{scalar}"
            if "=" in kind:
                if not message.oneof_decl:
                    message.oneof_decl.add(name="value")
                field.oneof_index = 0
    return file


_POOL: Final = DescriptorPool()
_POOL.Add(_describe())


def _class(name: str) -> Any:
    return GetMessageClass(_POOL.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


Payload: Any = _class("Payload")
Metric: Any = _class("Metric")
PropertySet: Any = _class("PropertySet")
PropertyValue: Any = _class("PropertyValue")
