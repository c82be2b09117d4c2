"""`andon init`: a guided first configuration that passes `andon check`.

Asks; every answer is an option too. Looks at the first device at once, so that a wrong address is noticed now. Writes
only files that are not there yet.
"""

import asyncio
import difflib
import json
import re
import zoneinfo
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from edge.commands import EXIT_CONFIG, EXIT_FAILED, failed, json_option, print_problems, progress, sentence
from edge.commands.first_files import SHIFTS, Answers, files_of
from edge.errors import AndonError, ConfigError

DEVICES = ("opcua", "modbus", "replay", "none")
LEVEL = re.compile(r"[^/+#\s\x00]+")
NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
TAGS_ASK = 200
"""From so many variables on it is asked which are wanted."""
COLUMNS_MAX = 2000


def _level(text: str) -> str:
    if not LEVEL.fullmatch(text):
        raise click.BadParameter(f"{text!r} must be a name without spaces, '/', '+' and '#'")
    return text


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise click.BadParameter(f"{text!r} must have letters, digits and _ . - only, at most 64")
    return text


def _zone(text: str) -> str:
    try:
        zoneinfo.ZoneInfo(text)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        city = text.rsplit("/", 1)[-1].lower()
        zones = sorted(zoneinfo.available_timezones())
        near = [zone for zone in zones if zone.lower().endswith(city)] or difflib.get_close_matches(text, zones, 1)
        hint = f"did you mean {near[0]}?" if near else "e.g. Europe/Berlin"
        raise click.BadParameter(f"{text!r} is no IANA time zone; {hint}") from error
    return text


def _asset(text: str) -> str:
    if text and not all(LEVEL.fullmatch(level) for level in text.split("/")):
        raise click.BadParameter(f"{text!r} must be names separated by '/', e.g. pressing/line2/press")
    return text


def _url(text: str) -> str:
    url = text if "://" in text else f"opc.tcp://{text}"
    if not re.fullmatch(r"opc\.tcp://[^\s/@]+(/\S*)?", url):
        raise click.BadParameter(f"{text!r} is no OPC UA address; expected opc.tcp://host:port")
    return url


def _host(text: str) -> str:
    if not re.fullmatch(r"[^\s:/@]+(:\d{1,5})?", text):
        raise click.BadParameter(f"{text!r} is neither host nor host:port")
    return text


def _some(text: str) -> str:
    if not text.strip():
        raise click.BadParameter("something is needed here")
    return text


def _recording(text: str) -> str:
    path = Path(text).expanduser()
    if not path.is_file() or path.suffix not in (".csv", ".parquet"):
        raise click.BadParameter(f"{text!r} is no file that ends with .csv or .parquet")
    return str(path.resolve())


def machine_zone() -> str:
    """Return the time zone of this machine, UTC if it says none."""
    try:
        _, found, zone = str(Path("/etc/localtime").resolve()).partition("/zoneinfo/")
        return _zone(zone) if found else "UTC"
    except (OSError, click.BadParameter):
        return "UTC"


class Asking:
    """Takes each answer from its option, else from the person, else its default."""

    def __init__(self, given: dict[str, Any], *, ask: bool) -> None:
        self._given = given
        self._ask = ask

    def __call__(self, key: str, what: str, default: str | None, check: Callable[[str], str]) -> str:
        value = self._given.get(key)
        if value is not None:
            try:
                return check(str(value))
            except click.BadParameter as error:
                raise click.UsageError(f"--{key.replace('_', '-')}: {error.message}") from error
        if not self._ask:
            if default is None:
                raise click.UsageError(f"--{key.replace('_', '-')} is needed")
            return default
        answer: str = click.prompt(what, default=default, value_proc=check, err=True)
        return answer

    def is_given(self, key: str) -> bool:
        return self._given.get(key) is not None

    def choose(self, key: str, what: str, choices: tuple[str, ...], default: str) -> str:
        def check(text: str) -> str:
            if text not in choices:
                raise click.BadParameter(f"{text!r} is none of {', '.join(choices)}")
            return text

        return self(key, f"{what} ({', '.join(choices)})", default, check)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--enterprise", help="ISA-95 enterprise, the first level of every topic.")
@click.option("--site", help="ISA-95 site, the second level.")
@click.option("--time-zone", help="IANA time zone of the site.")
@click.option("--gateway", help="Name of this gateway, unique at the site.")
@click.option("--state-dir", help="Folder of readings and events, relative to FOLDER.")
@click.option("--broker", help="MQTT broker, host[:port]; - for none.")
@click.option("--shifts", type=click.Choice(list(SHIFTS)), help="Shifts per day.")
@click.option("--device", type=click.Choice(DEVICES), help="Kind of the first device.")
@click.option("--device-name", help="Its name, the first part of its tags' names.")
@click.option("--asset", help="What it belongs to: area/line/cell.")
@click.option("--url", help="OPC UA: opc.tcp://host:port.")
@click.option("--host", help="Modbus TCP: host[:port].")
@click.option("--unit", help="Modbus: unit id.")
@click.option("--recording", help="Replay: a .csv or .parquet file.")
@click.option("--filter", "pattern", help="OPC UA: only variables whose path or node id holds this text.")
@click.option("--contact/--no-contact", default=True, help="Look at the device at once. Default: yes.")
@click.option("--yes", is_flag=True, help="Ask nothing: what no option says has its default.")
@json_option
def init(folder: Path, *, contact: bool, yes: bool, as_json: bool, **given: Any) -> None:
    """Make a first configuration in FOLDER: gateway.toml, tags.csv, alarms.csv, shifts.toml. Overwrites nothing."""
    from edge.config import load

    there = [name for name in ("gateway.toml", "tags.csv", "alarms.csv", "shifts.toml") if (folder / name).exists()]
    if there:
        click.secho(
            f"{folder} has {', '.join(there)} already; nothing is overwritten: name another folder", fg="red", err=True
        )
        raise click.exceptions.Exit(EXIT_CONFIG)
    answers, reached = ask_all(Asking(given, ask=not yes), folder, contact=contact)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files_of(answers).items():
            with (folder / name).open("x", encoding="utf-8", newline="") as file:
                file.write(text)
    except OSError as error:
        click.secho(f"cannot write {error.filename}: {error.strerror}", fg="red", err=True)
        raise click.exceptions.Exit(EXIT_FAILED) from error
    try:
        config = load(folder)
    except ConfigError as error:
        raise failed(error, "the files are written; mend what is named and run: andon check") from error
    if as_json:
        data = {"folder": str(folder), "files": list(files_of(answers)), "tags": len(config.tags), "reached": reached}
        click.echo(json.dumps(data, indent=1))
        return
    print_problems(list(config.warnings), "yellow")
    click.echo(f"{folder}: gateway.toml, tags.csv ({len(config.tags)} tags), alarms.csv, shifts.toml; no mistake")
    click.echo(f"next: {_next(folder, answers, len(config.tags))}")


def _next(folder: Path, answers: Answers, tags: int) -> str:
    if not answers.device:
        return f"write your first [[device]] into {folder}/gateway.toml and its values into tags.csv, then andon check"
    name = answers.device["name"]
    steps = {
        "opcua": f"andon browse {name} --config {folder}",
        "modbus": f"andon probe {name} --config {folder} --expect VALUE",
    }
    look = steps.get(str(answers.device.get("type")))
    if not tags and look:
        return f"{look}, put rows into tags.csv, then andon check --config {folder}"
    return f"andon run --config {folder}"


def ask_all(ask: Asking, folder: Path, *, contact: bool) -> tuple[Answers, bool | None]:
    """Ask for everything; also return whether the device answered, None if it was not asked."""
    base = {
        "enterprise": ask("enterprise", "enterprise, the first level of every MQTT topic", "example", _level),
        "site": ask("site", "site, the second level", "plant1", _level),
        "time_zone": ask("time_zone", "time zone of the site", machine_zone(), _zone),
        "gateway": ask("gateway", "name of this gateway, unique at the site", "gw1", _name),
        "state_dir": ask(
            "state_dir",
            "folder of readings and events, relative to the configuration",
            "/var/lib/andon" if folder.is_absolute() and folder.is_relative_to("/etc") else "state",
            _some,
        ),
        "shifts": ask.choose("shifts", "shifts per day", tuple(SHIFTS), "three"),
    }
    broker = ask("broker", "MQTT broker, host[:port], - for none", "127.0.0.1:1883", _host)
    kind = ask.choose("device", "first device", DEVICES, "none")
    device, rows, reached = ({}, [], None) if kind == "none" else _ask_device(ask, kind, contact=contact)
    return Answers(**base, broker="" if broker == "-" else broker, device=device, rows=rows), reached


def _ask_device(ask: Asking, kind: str, *, contact: bool) -> tuple[dict[str, Any], list[dict[str, str]], bool | None]:
    device: dict[str, Any] = {"name": ask("device_name", "name of the device", "plc1", _name), "type": kind}
    device["asset"] = ask("asset", "what it belongs to, area/line/cell", f"area/line/{device['name']}", _asset)
    if kind == "opcua":
        device["url"] = ask("url", "address, opc.tcp://host:port", None, _url)
        return device, *(_browse(ask, device) if contact else ([], None))
    if kind == "modbus":
        host, _, port = ask("host", "address, host or host:port", None, _host).partition(":")
        device |= {"host": host, "port": int(port or 502)}
        device["unit_id"] = int(ask("unit", "unit id", "1", _unit))
        return device, [], _probe(device) if contact else None
    path = ask("recording", "recording, a .csv or .parquet file", None, _recording)
    more, rows = read_columns(Path(path), device["name"])
    return device | {"path": path} | more, rows, None


def _unit(text: str) -> str:
    if not (text.isascii() and text.isdigit() and int(text) <= 255):
        raise click.BadParameter(f"{text!r} is no unit id; expected 0 to 255")
    return text


def _browse(ask: Asking, device: dict[str, Any]) -> tuple[list[dict[str, str]], bool]:
    """Look at the server; return rows for tags.csv and whether it answered."""
    from edge.commands.browse import browse_server, make_rows, quiet, select, tally, what_to_do
    from edge.sources.opcua_options import OpcuaOptions

    options = OpcuaOptions(name=device["name"], url=device["url"])
    try:
        with quiet(), progress() as tell:
            found = asyncio.run(browse_server(options, standard=False, tell=tell))
    except AndonError as error:
        click.secho(sentence(error), fg="yellow", err=True)
        click.secho(f"{what_to_do(error, options.url)}\nthe device is written down all the same".strip(), err=True)
        return [], False
    rows = make_rows(found, options.name)
    click.echo(tally(found, rows), err=True)
    if len(rows) > TAGS_ASK or ask.is_given("pattern"):
        found.shown = select(found.shown, ask("pattern", "which? a part of the path or node id, * for all", "*", _some))
        rows = make_rows(found, options.name)
        click.echo(f"{len(rows)} of them are taken", err=True)
    return rows, True


def _probe(device: dict[str, Any]) -> bool:
    """Ask the device for a few registers; return whether it answered."""
    from edge.commands.probe import AREAS, Device, probe_device, what_to_do
    from edge.sources.modbus_options import ModbusOptions

    options = ModbusOptions.model_validate({key: value for key, value in device.items() if key != "asset"})
    last = None
    for area in AREAS:
        try:
            with progress() as tell:
                found = asyncio.run(probe_device(Device(options, options.unit_id, area, 0.01), 0, 10, 40, tell))
        except AndonError as error:
            last = error
            if "no area" in str(error):
                continue
            break
        legal = [f"{area}/{one.first}..{one.last}" for one in found.ranges if one.state == "legal"]
        click.echo(f"{found.what} answers" + (f"; it has {', '.join(legal)}" if legal else ""), err=True)
        return True
    if last is not None:
        click.secho(sentence(last), fg="yellow", err=True)
        click.secho(f"{what_to_do(last)}\nthe device is written down all the same".strip(), err=True)
    return False


def read_columns(path: Path, device: str) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Return options and rows of tags.csv for the columns of a recording. Raises click.UsageError if unreadable."""
    import duckdb

    from edge.commands.tag_rows import tag_name
    from edge.config.model import TAG_COLUMNS

    read = "read_parquet" if path.suffix == ".parquet" else "read_csv"
    try:
        with duckdb.connect() as connection:
            found = connection.execute(f"DESCRIBE SELECT * FROM {read}(?)", [str(path)]).fetchmany(COLUMNS_MAX)  # noqa: S608
    except duckdb.Error as error:
        raise click.UsageError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    columns = [(str(name), str(kind)) for name, kind, *_ in found]
    stamps = [name for name, kind in columns if kind.startswith("TIMESTAMP") or name.lower() in ("time", "timestamp")]
    kinds = dict(columns)
    options: dict[str, Any] = {"loop": True}
    if not stamps:
        options |= {"time_column": "", "step_ms": 1000}
    else:
        options["time_column"] = stamps[0]
        if not kinds[stamps[0]].startswith(("TIMESTAMP", "VARCHAR")):
            options["time_unit"] = "s"
    rows = []
    for name, kind in columns:
        if name not in stamps[:1]:
            row = dict.fromkeys(TAG_COLUMNS, "")
            row |= {"tag": tag_name((name,), device), "device": device, "address": name}
            row["type"] = "string" if kind == "VARCHAR" else ""
            rows.append(row)
    return options, rows
