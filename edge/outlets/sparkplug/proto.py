"""The messages of a Sparkplug B payload as protobuf knows them, described in code.

Only what an edge node without data sets, templates and metadata says or reads; other fields of a message that comes in
are skipped. Field numbers and types: Sparkplug 3.0.0, chapter 6.
"""

from typing import Any, Final

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

INT32: Final = 3
INT64: Final = 4
DOUBLE: Final = 10
BOOLEAN: Final = 11
STRING: Final = 12
"""Codes of data types in `datatype` and `type`."""

_PACKAGE: Final = "andon.sparkplug"
_TYPES: Final = {
    "uint32": FieldDescriptorProto.TYPE_UINT32,
    "uint64": FieldDescriptorProto.TYPE_UINT64,
    "float": FieldDescriptorProto.TYPE_FLOAT,
    "double": FieldDescriptorProto.TYPE_DOUBLE,
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "string": FieldDescriptorProto.TYPE_STRING,
    "bytes": FieldDescriptorProto.TYPE_BYTES,
}
_MESSAGES: Final[dict[str, tuple[tuple[int, str, str], ...]]] = {
    # (number, name, type); "*" = repeated, "|" = member of the oneof "value".
    "PropertyValue": (
        (1, "type", "uint32"), (2, "is_null", "bool"), (3, "int_value", "|uint32"), (4, "long_value", "|uint64"),
        (5, "float_value", "|float"), (6, "double_value", "|double"), (7, "boolean_value", "|bool"),
        (8, "string_value", "|string"),
    ),
    "PropertySet": ((1, "keys", "*string"), (2, "values", "*PropertyValue")),
    "Metric": (
        (1, "name", "string"), (2, "alias", "uint64"), (3, "timestamp", "uint64"), (4, "datatype", "uint32"),
        (5, "is_historical", "bool"), (6, "is_transient", "bool"), (7, "is_null", "bool"),
        (9, "properties", "PropertySet"), (10, "int_value", "|uint32"), (11, "long_value", "|uint64"),
        (12, "float_value", "|float"), (13, "double_value", "|double"), (14, "boolean_value", "|bool"),
        (15, "string_value", "|string"), (16, "bytes_value", "|bytes"),
    ),
    "Payload": (
        (1, "timestamp", "uint64"), (2, "metrics", "*Metric"), (3, "seq", "uint64"), (4, "uuid", "string"),
        (5, "body", "bytes"),
    ),
}  # fmt: skip


def _build() -> dict[str, Any]:
    file = FileDescriptorProto(name="andon/sparkplug.proto", package=_PACKAGE, syntax="proto2")
    for message, fields in _MESSAGES.items():
        described = file.message_type.add(name=message)
        if any(kind.startswith("|") for _, _, kind in fields):
            described.oneof_decl.add(name="value")
        for number, name, kind in fields:
            field = described.field.add(name=name, number=number)
            field.label = field.LABEL_REPEATED if kind.startswith("*") else field.LABEL_OPTIONAL
            if kind.startswith("|"):
                field.oneof_index = 0
            plain = kind.lstrip("*|")
            if plain in _TYPES:
                field.type = _TYPES[plain]
            else:
                field.type = field.TYPE_MESSAGE
                field.type_name = f".{_PACKAGE}.{plain}"
    pool = DescriptorPool()  # of its own: no other part of the process can collide with it
    pool.Add(file)
    return {name: GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _MESSAGES}


_CLASSES: Final = _build()
Payload: Final[Any] = _CLASSES["Payload"]
Metric: Final[Any] = _CLASSES["Metric"]
PropertySet: Final[Any] = _CLASSES["PropertySet"]
