"""`andon import`: the tag list of another gateway as rows of tags.csv and a [[device]] section."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge.commands import EXIT_FAILED, json_option

if TYPE_CHECKING:
    from edge.importers.result import Imported, Left

FORMS = ("kepware", "thingsboard", "telegraf", "neuron")
FILE_BYTES_MAX = 64 * 1024 * 1024


@click.command(name="import")
@click.argument("form", type=click.Choice(FORMS))
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--device", required=True, help="Name of the device in gateway.toml, and first part of the tags' names.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the rows to this new file; the [[device]] section then stands alone on standard output.",
)
@json_option
def import_(form: str, file: Path, device: str, out: Path | None, *, as_json: bool) -> None:
    """Convert tags: Kepware CSV, ThingsBoard connector JSON, Telegraf TOML or Neuron JSON.

    Rows for tags.csv and a [[device]] section for gateway.toml. Nothing is guessed: what the file does not say stays
    empty, what cannot be converted is listed with its line and the reason. Exit code 1 if nothing could be converted.
    """
    from edge.importers.result import ImportFault

    try:
        result = _convert(form, _read(file), device)
    except ImportFault as fault:
        click.secho(f"{file} is no {form} export: {fault}", fg="red", err=True)
        raise click.exceptions.Exit(EXIT_FAILED) from fault
    if out is not None and result.rows:
        _write(result, out)
    if as_json:
        click.echo(json.dumps(_record(result), indent=1))
    else:
        _print(result, out)
    _report(result, file, out)
    if not result.rows:
        raise click.exceptions.Exit(EXIT_FAILED)


def _read(file: Path) -> str:
    """Return the text of a file; what other programs write is not always UTF-8. Raises ImportFault."""
    from edge.importers.result import ImportFault

    try:
        with file.open("rb") as opened:
            data = opened.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ImportFault(f"it cannot be read: {error.strerror}") from error
    if len(data) > FILE_BYTES_MAX:
        raise ImportFault(f"it is larger than {FILE_BYTES_MAX} bytes")
    if data[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def _convert(form: str, text: str, device: str) -> "Imported":
    from edge.importers import kepware, neuron, telegraf, thingsboard

    converters = {
        "kepware": kepware.convert,
        "thingsboard": thingsboard.convert,
        "telegraf": telegraf.convert,
        "neuron": neuron.convert,
    }
    return converters[form](text, device)


def _write(result: "Imported", out: Path) -> None:
    from edge.commands.tag_rows import write_new

    try:
        write_new(result.rows, out)
    except FileExistsError as error:
        raise click.UsageError(f"{out} is there already: name a new file, then join the two") from error
    except OSError as error:
        raise click.UsageError(f"cannot write {out}: {error.strerror}") from error


def _record(result: "Imported") -> dict[str, object]:
    def listed(items: "list[Left]") -> list[dict[str, object]]:
        return [{"line": item.line, "what": item.what, "why": item.why} for item in items]

    return {
        "rows": result.rows,
        "devices": [device.keys for device in result.devices],
        "todo": [what for device in result.devices for what in device.todo],
        "left_out": listed(result.left),
        "asks": listed(result.asks),
        "notes": result.notes,
    }


def _print(result: "Imported", out: Path | None) -> None:
    """Print the sections; before rows as comments, so that all of it together is a tag list."""
    from edge.commands.tag_rows import write_rows

    section = "\n".join(device.toml() for device in result.devices)
    if out is not None:
        click.echo(section, nl=False)
        return
    for line in section.splitlines():
        click.echo(f"# {line}".rstrip())
    if result.rows:
        write_rows(result.rows, sys.stdout)


def _report(result: "Imported", file: Path, out: Path | None) -> None:
    """Tell on standard error what was not converted and what a person must still say."""
    for left in result.left:
        click.secho(f"{file}: not converted: {left}", fg="red", err=True)
    for ask in result.asks:
        click.secho(f"{file}: {ask}", fg="yellow", err=True)
    for note in result.notes:
        click.secho(f"note: {note}", err=True)
    where = f" to {out}" if out is not None else ""
    missing = f", {len(result.asks)} of them miss something" if result.asks else ""
    click.secho(f"{len(result.rows)} rows converted{where}{missing}; {len(result.left)} left out", bold=True, err=True)
