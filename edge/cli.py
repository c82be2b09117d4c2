"""The `andon` command. Each subcommand imports what it needs, so that `andon status` starts fast."""

import asyncio
import csv
import importlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge.commands import EXIT_CONFIG, EXIT_FAILED, config_option, default_folder, failed, print_problems
from edge.commands.moment import moment
from edge.errors import AndonError, ConfigError, Problem, StorageError, Unreachable

if TYPE_CHECKING:
    from edge.web.gateway import QueryResult


COMMANDS = {
    "browse": "edge.commands.browse:browse",
    "cert": "edge.commands.cert:cert",
    "doctor": "edge.commands.doctor:doctor",
    "import": "edge.commands.import_:import_",
    "init": "edge.commands.init:init",
    "probe": "edge.commands.probe:probe",
    "replay": "edge.commands.replay:replay",
    "user": "edge.commands.user:user",
}
"""Where the commands stand that have a module of their own."""


class _Commands(click.Group):
    """Imports a command's module when somebody asks for it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *COMMANDS})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        module, name = COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="andon")
def main() -> None:
    """Andon: the gateway between machines, operators and SCADA."""


def _state_dir(folder: Path | None) -> tuple[Path, str]:
    """Return state folder and name of the control socket, reading no more of the configuration than that."""
    from edge.toml_file import read_toml

    folder = folder or default_folder()
    problems: list[Problem] = []
    toml = read_toml(folder / "gateway.toml", problems)
    if toml is None:
        raise ConfigError(problems)
    state_dir = toml.data.get("gateway", {}).get("state_dir", "/var/lib/andon")
    socket = toml.data.get("web", {}).get("control_socket", "control.sock")
    return folder / str(state_dir), str(socket)


@main.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="Machine-readable: a list of file, line, what, hint, severity.")
def check(folder: Path | None, *, as_json: bool) -> None:
    """Check a configuration: every mistake at once, with file and line. Exit code 2 if there is one."""
    from edge.config import load

    folder = folder or default_folder()
    warnings: list[Problem] = []
    errors: list[Problem] = []
    summary = ""
    try:
        config = load(folder)
        warnings = list(config.warnings)
        summary = (
            f"{folder}: {len(config.file.device)} devices, {len(config.tags)} tags, "
            f"{len(config.rules)} alarms, {len(config.file.machine)} machines"
        )
    except ConfigError as error:
        errors = error.problems
    if as_json:
        rows = [
            {"severity": severity, "file": p.file, "line": p.line, "what": p.what, "hint": p.hint}
            for severity, problems in (("error", errors), ("warning", warnings))
            for p in problems
        ]
        click.echo(json.dumps(rows, indent=1))
    else:
        print_problems(errors)
        print_problems(warnings, "yellow")
        if errors:
            click.secho(
                f"{len(errors)} mistake{'s' if len(errors) > 1 else ''}; nothing was started", bold=True, err=True
            )
        else:
            click.echo(f"{summary}: no mistake" + (f", {len(warnings)} warnings" if warnings else ""))
    if errors:
        raise click.exceptions.Exit(EXIT_CONFIG)


@main.command()
@config_option
@click.option("--watch/--no-watch", default=None, help="Show the live summary. Default: on a terminal only.")
def run(folder: Path | None, *, watch: bool | None) -> None:
    """Run the gateway until SIGTERM or Ctrl-C. SIGHUP reads the configuration again."""
    from edge.app import run_gateway

    try:
        run_gateway(folder or default_folder(), watch=sys.stdout.isatty() if watch is None else watch)
    except AndonError as error:
        raise failed(error) from error


@main.command()
@config_option
@click.option("--for", "seconds", type=float, default=None, help="Stop by itself after this many seconds.")
def demo(folder: Path | None, seconds: float | None) -> None:
    """Start the simulated plant, a broker on loopback and the gateway against them, with a live summary."""
    from edge.demo import run_demo

    try:
        run_demo(folder or default_folder(), seconds)
    except AndonError as error:
        raise failed(error) from error


@main.command()
@click.option("--speed", type=float, default=None, help="How much faster than recorded; see `andon simulate --help`.")
def simulate(speed: float | None) -> None:
    """Run the simulated plant alone: OPC UA and Modbus servers on loopback that replay real recordings."""
    from edge.simulator.plant import SimulatorOptions
    from edge.simulator.plant import run as run_plant

    def tell(ports: Mapping[str, int]) -> None:
        listed = ", ".join(f"{name} on port {port}" for name, port in ports.items())
        click.echo(f"the simulated plant runs on {options.host}: {listed}", nl=True)
        sys.stdout.flush()

    options = SimulatorOptions() if speed is None else SimulatorOptions(speed=speed)
    try:
        asyncio.run(run_plant(options, started=tell))
    except KeyboardInterrupt:
        return
    except AndonError as error:
        raise failed(error) from error


@main.command()
@click.argument("name")
@click.argument("arguments", nargs=-1)
def fault(name: str, arguments: tuple[str, ...]) -> None:
    """Make the running simulated plant fail: `andon fault stop machine=press reason=no_material`.

    `andon fault help` lists the faults and their arguments.
    """
    from edge.simulator.plant import SimulatorOptions, send_fault

    pairs = dict(_pair(argument) for argument in arguments)
    try:
        answer = asyncio.run(send_fault(SimulatorOptions(), name, **pairs))
    except AndonError as error:
        raise failed(error) from error
    click.echo(answer)


def _pair(argument: str) -> tuple[str, Any]:
    key, equals, value = argument.partition("=")
    if not equals:
        raise click.BadParameter(f"{argument!r} is not key=value")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


@main.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="The whole snapshot as JSON.")
def status(folder: Path | None, *, as_json: bool) -> None:
    """Show what the running gateway says of itself. Exit code 1 if it is not healthy."""
    from edge.control import Control
    from edge.terminal import print_status

    try:
        with Control(*_state_dir(folder)) as control:
            snapshot = control.status()
    except AndonError as error:
        raise failed(error) from error
    print_status(snapshot, as_json=as_json)
    if not snapshot.healthy:
        raise click.exceptions.Exit(EXIT_FAILED)


@main.command()
@config_option
@click.argument("statement")
@click.option("--format", "form", type=click.Choice(["table", "csv", "json"]), default="table")
@click.option("--rows", "rows_max", type=int, default=1000, show_default=True, help="Most rows to show.")
def sql(folder: Path | None, statement: str, form: str, rows_max: int) -> None:
    """Ask ring and journal: readings, tags, events, alarms, oee, ledger. Read-only; works while the gateway runs."""
    from edge.control import Control

    try:
        state_dir, socket = _state_dir(folder)
        try:
            with Control(state_dir, socket) as control:
                result = control.query(statement, rows_max)
        except Unreachable:
            result = _offline_query(state_dir, statement, rows_max)
    except AndonError as error:
        raise failed(error) from error
    _print_rows(result, form)


def _offline_query(state_dir: Path, statement: str, rows_max: int) -> "QueryResult":
    from edge.store import open_offline
    from edge.web.gateway import QueryResult

    if not state_dir.exists():
        raise StorageError(f"{state_dir} does not exist: no gateway has run with this configuration yet")
    with open_offline(state_dir) as store:
        answer = store.query(statement, rows_max=rows_max, timeout_s=600.0)
        return QueryResult(answer.columns, answer.types, answer.rows, answer.truncated)


def _print_rows(result: "QueryResult", form: str) -> None:
    if form == "json":
        rows = [dict(zip(result.columns, row, strict=True)) for row in result.rows]
        click.echo(json.dumps(rows, indent=1, default=str))
    elif form == "csv":
        writer = csv.writer(sys.stdout)
        writer.writerow(result.columns)
        writer.writerows(result.rows)
    else:
        from rich.console import Console
        from rich.table import Table

        table = Table(*result.columns, box=None, header_style="bold")
        for row in result.rows:
            table.add_row(*("" if cell is None else str(cell) for cell in row))
        # A pipe has no width: nothing may be cut off there.
        Console(width=None if sys.stdout.isatty() else 10_000).print(table)
    if result.truncated:
        click.secho(f"more than {len(result.rows)} rows: ask for more with --rows", fg="yellow", err=True)


@main.command()
@config_option
@click.option("--from", "start", default="-1h", show_default=True, help="2026-11-20T06:00, or -2h, -30m, -1d, or now.")
@click.option("--to", "end", default="now", show_default=True)
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
def export(folder: Path | None, start: str, end: str, path: Path) -> None:
    """Write the readings of a time span to a Parquet file."""
    from edge.control import Control

    start_ns, end_ns = moment(start), moment(end)
    try:
        state_dir, socket = _state_dir(folder)
        try:
            with Control(state_dir, socket) as control:
                control.export(start_ns, end_ns, path)
        except Unreachable:
            from edge.store import open_offline

            with open_offline(state_dir) as store:
                store.export(start_ns, end_ns, path)
    except AndonError as error:
        raise failed(error) from error
    click.echo(f"{path}: {path.stat().st_size} bytes")


@main.command()
@config_option
@click.argument("name", type=click.Choice([
    "acknowledge", "reset", "shelve", "unshelve", "suppress", "unsuppress", "out_of_service", "in_service",
    "correct", "set_state", "start_order", "end_order",
]))  # fmt: skip
@click.argument("arguments", nargs=-1)
@click.option("--user", default="", help="Who does it; default: you.")
def do(folder: Path | None, name: str, arguments: tuple[str, ...], user: str) -> None:
    """Send a command: `andon do acknowledge alarm=press.hot occurrence=3f2a-00000012`.

    `acknowledge` without an occurrence acknowledges the one that stands now.
    """
    from edge.control import Control

    values = dict(_pair(argument) for argument in arguments)
    try:
        with Control(*_state_dir(folder)) as control:
            if name == "acknowledge" and "occurrence" not in values:
                standing = {alarm.alarm: alarm.occurrence for alarm in control.status().alarms}
                values["occurrence"] = standing.get(str(values.get("alarm")), "")
            reply = control.command(name, values, user)
    except AndonError as error:
        raise failed(error) from error
    click.secho(reply.message or reply.code, fg="green" if reply.ok else "red", err=not reply.ok)
    if not reply.ok:
        raise click.exceptions.Exit(EXIT_FAILED)


@main.command()
@config_option
def reload(folder: Path | None) -> None:
    """Let the running gateway read its configuration again; an invalid one changes nothing."""
    from edge.control import Control

    try:
        with Control(*_state_dir(folder)) as control:
            outcome = control.reload()
    except AndonError as error:
        raise failed(error) from error
    click.echo(outcome.sentence)


if __name__ == "__main__":
    main()
