"""The reference of the configuration, written from the option classes: `python -m edge.config.reference`.

A test compares its output with docs/configuration.md, so the page cannot fall behind the code.
"""

import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from edge.alarms import COLUMNS as ALARM_COLUMNS
from edge.alarms import AlarmOptions
from edge.config.model import TAG_COLUMNS, FileOptions, GatewayOptions, SiteOptions
from edge.outlets.options import MqttOptions
from edge.outlets.sparkplug.options import SparkplugOptions
from edge.production import MachineOptions, ShiftsOptions
from edge.sources.modbus import ModbusOptions
from edge.sources.mqtt import MqttSourceOptions
from edge.sources.opcua import OpcuaOptions
from edge.sources.replay import ReplayOptions
from edge.sources.sparkplug import SparkplugSourceOptions
from edge.store import StorageOptions
from edge.web.options import WebOptions

SECTIONS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("`[site]`", SiteOptions),
    ("`[gateway]`", GatewayOptions),
    ("`[files]`", FileOptions),
    ("`[storage]`", StorageOptions),
    ("`[mqtt]`", MqttOptions),
    ("`[sparkplug]`", SparkplugOptions),
    ("`[web]`", WebOptions),
    ("`[alarms]`", AlarmOptions),
    ('`[[device]]` with `type = "opcua"`', OpcuaOptions),
    ('`[[device]]` with `type = "modbus"`', ModbusOptions),
    ('`[[device]]` with `type = "mqtt"`', MqttSourceOptions),
    ('`[[device]]` with `type = "sparkplug"`', SparkplugSourceOptions),
    ('`[[device]]` with `type = "replay"`', ReplayOptions),
    ("`[[machine]]`", MachineOptions),
    ("shifts.toml", ShiftsOptions),
)

TAGS = {
    "tag": "unique name: letters, digits and . _ : -",
    "device": "name of a `[[device]]`",
    "address": "OPC UA: node id (`nsu=<uri>;s=<id>`, `ns=2;i=5`); Modbus: `[unit/]area/offset[.bit]`, area coil, "
    "discrete, input or holding, offset from 0 (or 1: `first_address`); MQTT: `<topic filter>#<path>`; "
    "Sparkplug: `<edge node>/<device>/<metric>`; replay: column",
    "type": "Modbus: bool, int16, uint16, int32, uint32, int64, uint64, float16, float32, float64, bcd16, bcd32, "
    "string:N; OPC UA: empty, or string for text; MQTT: empty, number, bool or string; "
    "Sparkplug: empty, or string for text",
    "order": "Modbus, values of two or more registers: ABCD, BADC, CDAB or DCBA; there is no default",
    "scale": "engineering value = raw * scale + offset; default 1",
    "offset": "default 0",
    "unit": "engineering unit after scaling, e.g. Cel, mm/s, kW",
    "minimum": "below it a reading becomes UNCERTAIN; empty = no bound",
    "maximum": "above it a reading becomes UNCERTAIN; empty = no bound",
    "deadband": "a change of at most this is not kept; 0 = keep each change, negative = keep every reading",
    "heartbeat_s": "a reading is kept at least this often; default 60",
    "stale_after_s": "silence longer than this is an alarm; 0 = never",
    "period_ms": "sampling (OPC UA) or poll period (Modbus); empty = the device's",
    "asset": '"area/line/cell"; empty = the device\'s',
    "description": "for people",
}


def _type_name(annotation: Any) -> str:
    arguments = [a for a in typing.get_args(annotation) if a is not type(None)]
    if typing.get_origin(annotation) is typing.Literal:
        return ", ".join(f'"{a}"' if isinstance(a, str) else str(a) for a in typing.get_args(annotation))
    origin = typing.get_origin(annotation)
    if origin is tuple:
        return f"list of {_type_name(arguments[0])}"
    if origin is dict or (origin and "Mapping" in str(origin)):
        return "table"
    if arguments:
        return " or ".join(dict.fromkeys(_type_name(a) for a in arguments if not isinstance(a, FieldInfo)))
    names = {"str": "text", "Path": "path", "bool": "true/false", "float": "number", "int": "integer"}
    name = getattr(annotation, "__name__", str(annotation))
    return names.get(name, name)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={}) if field.default_factory else field.default
    if value is None or value is PydanticUndefined or value in ("", (), {}):
        return ""
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    if isinstance(value, tuple):
        return "`[" + ", ".join(f'"{v}"' for v in value) + "]`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _bounds(field: FieldInfo) -> str:
    words = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "min_length": "length >=", "max_length": "length <="}
    return ", ".join(
        f"{words[name]} {getattr(limit, name):g}"
        for limit in field.metadata
        for name in words
        if getattr(limit, name, None) is not None
    )


def _lists_of_tables(model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in model.model_fields.items():
        for argument in typing.get_args(field.annotation):
            if isinstance(argument, type) and issubclass(argument, BaseModel):
                yield field.alias or name, argument


def _section(title: str, model: type[BaseModel], level: int = 2) -> Iterator[str]:
    yield f"{'#' * level} {title}\n"
    first = (model.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
    if first:
        yield " ".join(first.split()) + "\n"
    yield "| key | type | default | meaning |\n|---|---|---|---|"
    for name, field in model.model_fields.items():
        bounds = _bounds(field)
        kind = _type_name(field.annotation).replace("|", "or") + (f" ({bounds})" if bounds else "")
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        yield f"| `{field.alias or name}` | {kind} | {_default(field)} | {meaning} |"
    yield ""
    for name, inner in _lists_of_tables(model):
        yield from _section(f"`[[{name}]]`", inner, level + 1)


INTRODUCTION = """# Configuration

Written from the code by `python -m edge.config.reference`. A folder holds `gateway.toml`, `tags.csv`, `alarms.csv` and
`shifts.toml`; `andon check` names every mistake with file and line. Durations carry their unit in the name. Paths are
relative to the folder. Secrets are files, never values.
"""


def page() -> str:
    """Return the reference as Markdown."""
    lines = [INTRODUCTION]
    for title, model in SECTIONS:
        lines += _section(title, model)
    lines.append("## tags.csv\n\n| column | meaning |\n|---|---|")
    lines += [f"| `{column}` | {TAGS[column]} |" for column in TAG_COLUMNS]
    lines.append(
        "\nComma or semicolon, UTF-8; lines that start with `#` are comments. The first row names the columns.\n"
    )
    lines.append("## alarms.csv\n\nColumns: " + ", ".join(f"`{c}`" for c in ALARM_COLUMNS))
    lines.append("\nConditions, delays and states: [alarms](alarms.md).\n")
    return "\n".join(lines)


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201
