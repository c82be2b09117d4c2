"""Load a configuration folder: every mistake at once, each with file, line and what to do."""

import difflib
import inspect
import re
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from edge.alarms import COLUMNS as ALARM_COLUMNS
from edge.alarms import AlarmRule, RuleFaults, parse_rule
from edge.alarms import check as check_rules
from edge.alarms import warnings as rule_warnings
from edge.config.csv_file import Row, read_csv
from edge.config.model import TAG_COLUMNS, Config, FileOptions, GatewayFile, TagRow
from edge.config.points import check_points
from edge.config.tags import make_table, make_tags
from edge.errors import ConfigError, Problem
from edge.outlets.sparkplug.plan import doubtful_names
from edge.production import MachineOptions, ShiftsOptions, check_shifts, virtual_tags
from edge.sources.modbus_options import shared_lines
from edge.toml_file import Key, TomlFile, read_toml

Model = TypeVar("Model", bound=BaseModel)

GATEWAY_FILE = "gateway.toml"
RELATIVE_TO_STATE = frozenset({"pki_dir"})
MADE_BY_US = RELATIVE_TO_STATE
"""Folders that the gateway makes when they are missing."""
_TAG_NAME = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}$")


def load(folder: Path) -> Config:
    """Read gateway.toml and the files that it names. Raises ConfigError with every problem found."""
    problems: list[Problem] = []
    toml = read_toml(folder / GATEWAY_FILE, problems)
    file = _validate(GatewayFile, toml, problems) if toml else None
    if toml is None or file is None:
        _judge_the_rest(folder, toml, problems)
        raise ConfigError(problems)
    file = _resolve(file, folder)
    shifts_toml = read_toml(file.files.shifts, problems)
    shifts = _validate(ShiftsOptions, shifts_toml, problems) if shifts_toml else None
    tags = _read_tags(file.files.tags, problems)
    rules = _read_rules(file.files.alarms, problems)
    warnings: list[Problem] = []
    _check_devices(toml, file, problems)
    _check_tags(file, tags, problems, warnings)
    _check_machines(toml, file, tags, problems)
    _check_rules(file, tags, rules, problems, warnings)
    problems.extend(Problem(str(toml.path), toml.line(("mqtt",)), f"mqtt: {what}") for what in file.mqtt.problems())
    _check_files(toml, file, problems)
    if file.sparkplug.enabled and not problems:
        doubts = doubtful_names(make_table(make_tags(file, tags)), file.sparkplug.assets)
        warnings.extend(Problem(str(file.files.tags), 0, what, "rename one") for what in doubts)
    if shifts and shifts_toml:
        problems.extend(Problem(str(shifts_toml.path), 0, what) for what in check_shifts(shifts, file.site.time_zone))
    if problems or shifts is None:
        raise ConfigError(problems)
    return Config(
        folder=folder,
        file=file,
        tags=tuple(tags),
        rules=tuple(rule for _, rule in rules),
        shifts=shifts,
        warnings=tuple(warnings),
    )


def _judge_the_rest(folder: Path, toml: TomlFile | None, problems: list[Problem]) -> None:
    """Find what is wrong with the other files by themselves, when gateway.toml cannot be used."""
    sections = toml.data if toml else {}
    named = sections.get("files")
    places: dict[str, Path] = {}
    for key, field in FileOptions.model_fields.items():
        name = named.get(key) if isinstance(named, Mapping) else None
        # A name that is no text is a mistake of gateway.toml and told there.
        places[key] = folder / (name if isinstance(name, str) else field.default)
    tags = _read_tags(places["tags"], problems)
    rules = _read_rules(places["alarms"], problems)
    shifts = read_toml(places["shifts"], problems)
    if shifts:
        _validate(ShiftsOptions, shifts, problems)
    machines = sections.get("machine")
    if not isinstance(machines, list):
        return
    known = {row.tag for row in tags}
    for machine in machines:
        try:
            known.update(name for name, *_ in virtual_tags([MachineOptions.model_validate(machine)]))
        except ValidationError:
            # Its mistakes are told; which tags it would have is not known, so every one that is called after it passes.
            prefix = f"{machine.get('name')}." if isinstance(machine, Mapping) else "."
            known.update(tag for _, rule in rules for tag in rule.tags() if tag.startswith(prefix))
    _check_rule_tags(str(places["alarms"]), known, rules, problems)


def _validate(model: type[Model], toml: TomlFile, problems: list[Problem]) -> Model | None:
    """Validate a whole document; each pydantic error becomes a problem with its line."""
    try:
        return model.model_validate(toml.data)
    except ValidationError as error:
        for detail in error.errors():
            key = _path(detail["loc"], toml.data)
            if detail["type"].startswith("union_tag"):
                key = (*key, "type")
            name = ".".join(str(part + 1) if isinstance(part, int) else part for part in key)
            what, hint = _sentence(model, detail, key, name)
            problems.append(Problem(str(toml.path), toml.line(key), what, hint))
        return None


def _path(loc: tuple[int | str, ...], data: Any) -> Key:
    """Drop what pydantic adds to a location (the name of a union's member), keep keys of the document."""
    key: list[str | int] = []
    for part in loc:
        known = (isinstance(data, Mapping) and part in data) or (isinstance(data, list) and isinstance(part, int))
        if known:
            data = data[part] if not isinstance(part, int) or part < len(data) else None
            key.append(part)
        elif part == loc[-1]:
            key.append(part)
    return tuple(key)


def _sentence(model: type[BaseModel], detail: Any, key: Key, name: str) -> tuple[str, str]:
    match detail["type"]:
        case "extra_forbidden":
            known = _keys_at(model, detail["loc"][:-1])
            near = difflib.get_close_matches(str(key[-1]), known, 1)
            return f"unknown key {name!r}", f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        case "missing":
            return f"{name!r} is missing", "it is required"
        case "union_tag_not_found" | "union_tag_invalid":
            return f"{name!r}: {detail['msg']}", "type = opcua, modbus, mqtt, sparkplug or replay"
        case "value_error":
            return f"{name!r}: {detail['ctx']['error']}", ""
        case _:
            given = detail.get("input")
            shown = "" if isinstance(given, Mapping | list) else f", got {given!r}"
            return f"{name!r}: {detail['msg'][0].lower()}{detail['msg'][1:]}{shown}", ""


def _keys_at(model: Any, loc: Iterable[int | str]) -> list[str]:
    """Return the keys that the model at a pydantic location takes in a file, for suggestions."""
    models = [model]
    for part in loc:
        deeper: list[Any] = []
        for candidate in models:
            if candidate.model_config.get("title") == part:
                deeper.append(candidate)
            elif isinstance(part, str) and part in (keys := _keys(candidate)):
                deeper.extend(_models_in(keys[part].annotation))
            elif isinstance(part, str) and _tag_of(candidate) == part:
                deeper.append(candidate)
        models = deeper or models
    return sorted({key for candidate in models for key in _keys(candidate)})


def _keys(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the fields by the key that stands in the file: the alias where there is one ("break")."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _tag_of(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("type")
    values = typing.get_args(field.annotation) if field else ()
    return values[0] if values else None


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in typing.get_args(annotation) for model in _models_in(inner)]


def _read_tags(path: Path, problems: list[Problem]) -> list[TagRow]:
    tags: list[TagRow] = []
    first: dict[str, int] = {}
    for row in read_csv(path, TAG_COLUMNS, ("tag", "device", "address"), problems):
        faults: list[str] = []
        tag = _tag_row(row, faults)
        if not _TAG_NAME.match(tag.tag):
            faults.append(f"tag {tag.tag!r}: a name has letters, digits and . _ : - only, at most 128")
        if tag.tag in first:
            faults.append(f"tag {tag.tag!r} is already in line {first[tag.tag]}")
        first.setdefault(tag.tag, row.line)
        problems.extend(Problem(str(path), row.line, what) for what in faults)
        tags.append(tag)
    return tags


def _number(row: Row, column: str, default: float, faults: list[str], lowest: float = float("-inf")) -> float:
    text = row.cells[column]
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        faults.append(f"tag {row.cells['tag']!r}: {column} must be a number, got {text!r}")
        return default
    if not lowest <= value < float("inf"):
        faults.append(f"tag {row.cells['tag']!r}: {column} must be at least {lowest:g} and finite, got {text!r}")
        return default
    return value


def _tag_row(row: Row, faults: list[str]) -> TagRow:
    cells = row.cells
    scale = _number(row, "scale", 1.0, faults, -1e300)
    if scale == 0.0:
        faults.append(f"tag {cells['tag']!r}: scale 0 would make every value the same; leave it empty for 1")
    minimum = _number(row, "minimum", float("nan"), faults, -1e300)
    maximum = _number(row, "maximum", float("nan"), faults, -1e300)
    if minimum > maximum:
        faults.append(f"tag {cells['tag']!r}: minimum {minimum:g} is above maximum {maximum:g}")
    return TagRow(
        line=row.line,
        tag=cells["tag"],
        device=cells["device"],
        address=cells["address"],
        type=cells["type"].lower(),
        order=cells["order"].upper(),
        scale=scale,
        offset=_number(row, "offset", 0.0, faults, -1e300),
        unit=cells["unit"],
        minimum=minimum,
        maximum=maximum,
        deadband=_number(row, "deadband", 0.0, faults, -1.0),
        heartbeat_s=_number(row, "heartbeat_s", 60.0, faults, 0.1),
        stale_after_s=_number(row, "stale_after_s", 0.0, faults, 0.0),
        period_ms=int(_number(row, "period_ms", 0.0, faults, 0.0)),
        asset=cells["asset"],
        description=cells["description"],
    )


def _read_rules(path: Path, problems: list[Problem]) -> list[tuple[int, AlarmRule]]:
    rules: list[tuple[int, AlarmRule]] = []
    first: dict[str, int] = {}
    for row in read_csv(path, ALARM_COLUMNS, ("alarm", "tag", "condition"), problems):
        try:
            rule = parse_rule(row.cells)
        except RuleFaults as error:
            problems.extend(Problem(str(path), row.line, fault) for fault in error.faults)
            continue
        if rule.name in first:
            problems.append(Problem(str(path), row.line, f"alarm {rule.name!r} is already in line {first[rule.name]}"))
        first.setdefault(rule.name, row.line)
        rules.append((row.line, rule))
    return rules


def _check_devices(toml: TomlFile, file: GatewayFile, problems: list[Problem]) -> None:
    for section, names in (
        ("device", [d.name for d in file.device]),
        ("machine", [m.name for m in file.machine]),
    ):
        for i, name in enumerate(names):
            if name in names[:i]:
                line = toml.line((section, i, "name"))
                problems.append(Problem(str(toml.path), line, f"{section} {name!r} stands twice", "rename one"))
    for i, key, what in shared_lines(file.device):
        hint = "read all unit ids of a line with one [[device]]; the tag list says which unit: 7/holding/20"
        problems.append(Problem(str(toml.path), toml.line(("device", i, key)), what, hint))


def _check_tags(file: GatewayFile, tags: list[TagRow], problems: list[Problem], warnings: list[Problem]) -> None:
    path = str(file.files.tags)
    devices = {device.name: device for device in file.device}
    virtual = {name for name, *_ in virtual_tags(file.machine)}
    for row in tags:
        device = devices.get(row.device)
        if row.tag in virtual:
            problems.append(Problem(path, row.line, f"tag {row.tag!r} is the name of a computed tag", "rename it"))
        if device is None:
            near = difflib.get_close_matches(row.device, devices, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"devices in gateway.toml: {', '.join(devices) or 'none'}"
            problems.append(Problem(path, row.line, f"tag {row.tag!r}: unknown device {row.device!r}", hint))
        else:
            problems.extend(Problem(path, row.line, what) for what in check_points(device, row))
    used = {row.device for row in tags}
    warnings.extend(
        Problem(path, 0, f"device {name!r} has no tags", "it will be connected but nothing is read")
        for name in devices
        if name not in used
    )


def _check_machines(toml: TomlFile, file: GatewayFile, tags: list[TagRow], problems: list[Problem]) -> None:
    names = {row.tag for row in tags}
    for i, machine in enumerate(file.machine):
        for field in type(machine).model_fields:
            value = getattr(machine, field)
            if field.endswith("_tag") and value and value not in names:
                near = difflib.get_close_matches(value, names, 1)
                hint = f"did you mean {near[0]!r}?" if near else "add it to tags.csv"
                what = f"machine {machine.name!r}: {field} {value!r} is not in the tag list"
                problems.append(Problem(str(toml.path), toml.line(("machine", i, field)), what, hint))


def _check_rules(
    file: GatewayFile,
    tags: list[TagRow],
    rules: list[tuple[int, AlarmRule]],
    problems: list[Problem],
    warnings: list[Problem],
) -> None:
    path = str(file.files.alarms)
    names = {row.tag for row in tags} | {name for name, *_ in virtual_tags(file.machine)}
    _check_rule_tags(path, names, rules, problems)
    for line, rule in rules:
        warnings.extend(Problem(path, line, f"alarm {rule.name!r}: {what}") for what in rule_warnings(rule))
    if not problems:
        lines = {rule.name: line for line, rule in rules}
        table = make_table(make_tags(file, tags))
        for name, what in check_rules([rule for _, rule in rules], table):
            problems.append(Problem(path, lines.get(name, 0), f"alarm {name!r}: {what}"))


def _check_rule_tags(path: str, names: set[str], rules: list[tuple[int, AlarmRule]], problems: list[Problem]) -> None:
    for line, rule in rules:
        for tag in rule.tags():
            if tag not in names:
                near = difflib.get_close_matches(tag, names, 1)
                hint = f"did you mean {near[0]!r}?" if near else "add it to tags.csv"
                problems.append(Problem(path, line, f"alarm {rule.name!r}: unknown tag {tag!r}", hint))


def _check_files(toml: TomlFile, file: GatewayFile, problems: list[Problem]) -> None:
    """Every file that an option names must be readable: certificates, keys, passwords, recordings."""
    sections: list[tuple[Key, BaseModel]] = [(("mqtt",), file.mqtt)]
    sections += [(("device", i), device) for i, device in enumerate(file.device)]
    for key, options in sections:
        for name, value in options:
            if not isinstance(value, Path) or name in MADE_BY_US:
                continue
            try:
                with value.open("rb"):
                    pass
            except OSError as error:
                what = f"{key[0]}.{name}: {value} cannot be read: {error.strerror}"
                problems.append(Problem(str(toml.path), toml.line((*key, name)), what, "check path and permissions"))


def _resolve(options: Model, folder: Path) -> Model:
    """Return the options with every relative path made one below `folder`, sections within sections too."""
    changes: dict[str, Any] = {}
    for name, value in options:
        if isinstance(value, Path) and name not in RELATIVE_TO_STATE:
            changes[name] = folder / value
        elif isinstance(value, BaseModel):
            changes[name] = _resolve(value, folder)
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            changes[name] = tuple(_resolve(item, folder) for item in value)
    return options.model_copy(update=changes)
