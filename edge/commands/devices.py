"""Devices of a configuration that may still be full of mistakes: only gateway.toml is read, and only what is asked.

Commissioning happens before `andon check` is content; a missing tag list must not keep anybody from a PLC.
"""

from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from edge.commands import default_folder
from edge.config.load import RELATIVE_TO_STATE
from edge.config.model import DeviceOptions
from edge.errors import ConfigError, Problem
from edge.toml_file import TomlFile, read_toml

DEVICE: TypeAdapter[DeviceOptions] = TypeAdapter(DeviceOptions)


def read_gateway(folder: Path | None) -> TomlFile:
    """Read gateway.toml without judging it. Raises ConfigError if it is no TOML."""
    problems: list[Problem] = []
    toml = read_toml((folder or default_folder()) / "gateway.toml", problems)
    if toml is None:
        raise ConfigError(problems)
    return toml


def state_dir(toml: TomlFile) -> Path:
    return toml.path.parent / str(toml.data.get("gateway", {}).get("state_dir", "/var/lib/andon"))


def device_names(toml: TomlFile) -> list[str]:
    return [str(one.get("name", "")) for one in _tables(toml)]


def find_device(toml: TomlFile, name: str) -> DeviceOptions | None:
    """Return the options of one device, its paths resolved; None if there is none. Raises ConfigError."""
    for position, table in enumerate(_tables(toml)):
        if table.get("name") != name:
            continue
        try:
            options = DEVICE.validate_python(table)
        except ValidationError as error:
            line = toml.line(("device", position))
            problems = [
                Problem(str(toml.path), line, f"device {name}: {'.'.join(map(str, detail['loc']))}: {detail['msg']}")
                for detail in error.errors()
            ]
            raise ConfigError(problems) from error
        return _resolved(options, toml)
    return None


def _tables(toml: TomlFile) -> list[dict[str, Any]]:
    tables = toml.data.get("device", [])
    return [one for one in tables if isinstance(one, dict)] if isinstance(tables, list) else []


def _resolved(options: DeviceOptions, toml: TomlFile) -> DeviceOptions:
    below = {name: state_dir(toml) for name in RELATIVE_TO_STATE}
    paths = {name: below.get(name, toml.path.parent) / value for name, value in options if isinstance(value, Path)}
    return options.model_copy(update=paths)
