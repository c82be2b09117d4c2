"""`andon browse`: the tree of an OPC UA server, and rows for tags.csv made of it."""

import asyncio
import contextlib
import fnmatch
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge.commands import EXIT_CONFIG, EXIT_FAILED, Progress, config_option, failed, json_option, progress, sentence
from edge.errors import AndonError, ConfigError, Disconnected, Refused, Unreachable

if TYPE_CHECKING:
    from edge.commands.address_space import Node
    from edge.sources.opcua_options import OpcuaOptions

VALUE_LENGTH_MAX = 32
NAME_WIDTH_MAX = 48
DEFAULT_PORT = 4840
UNNAMED = "browse"
POLICIES = ("None", "Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss")


@dataclass(slots=True)
class Browsed:
    """root: the node where it began. shown: the nodes of the tree that match, parents first. seconds: it took."""

    url: str
    namespaces: list[str]
    root: "Node"
    shown: list["Node"] = field(default_factory=list)
    cut_off: bool = False
    seconds: float = 0.0

    @property
    def variables(self) -> list["Node"]:
        return [node for node in self.shown if node.is_variable]


async def browse_server(
    options: "OpcuaOptions", place: str = "", pattern: str = "", depth: int = 50, *, standard: bool, tell: Progress
) -> Browsed:
    """Read the tree below `place`. Raises Unreachable, Refused or NotThere."""
    from asyncua.ua import UaStatusCodeError

    from edge.commands.address_space import AddressSpace
    from edge.sources.opcua_intake import explain
    from edge.sources.opcua_session import open_session

    begun = time.monotonic()
    tell("connecting", 0, None)
    session = await open_session(options)
    try:
        space = await AddressSpace.open(session, tell)
        root = await space.find(place)
        await space.tree(root, depth, standard=standard)
        nodes = [node for node in root.walk() if node is not root or root.is_variable]
        found = Browsed(options.url, list(space.uris), root, select(nodes, pattern), space.cut_off)
        await space.read(found.variables, lambda done, of: tell("reading values", done, of))
    except UaStatusCodeError as error:
        raise Unreachable(f"{session.where} broke off while it was browsed: {explain(error.code)}") from error
    except Disconnected as error:
        raise Unreachable(f"{error}; ask for less with --path or --depth if it is overloaded") from error
    finally:
        await session.close()
    found.seconds = time.monotonic() - begun
    return found


def select(nodes: Sequence["Node"], pattern: str) -> list["Node"]:
    """Return the nodes whose path or node id holds the pattern, with all that lies below them, and what is above."""
    if not pattern:
        return list(nodes)
    wanted = pattern.lower() if any(c in pattern for c in "*?") else f"*{pattern.lower()}*"
    hits = [
        n for n in nodes if any(fnmatch.fnmatchcase(text.lower(), wanted) for text in ("/".join(n.path), n.address))
    ]
    keep = {id(below) for hit in hits for below in hit.walk()}
    above = {hit.path[:length] for hit in hits for length in range(1, len(hit.path))}
    return [node for node in nodes if id(node) in keep or (node.path in above and not node.is_variable)]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep asyncua from logging what it raises: the sentence is enough here."""
    import logging

    logger = logging.getLogger("asyncua")
    before, logger.disabled = logger.level, True
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.disabled = False
        logger.setLevel(before)


def access_options(command: Any) -> Any:
    """Add the options that say how a server is entered."""
    for option in (
        click.option("--deadline-ms", type=click.IntRange(100, 60_000), help="Time for one answer. Default: 5000."),
        click.option("--any-host", is_flag=True, help="Do not ask that the certificate names the host of the url."),
        click.option("--pki", type=click.Path(path_type=Path), help="Folder of certificates. Default: the gateway's."),
        click.option(
            "--allow-plaintext-password", is_flag=True, help="Send the password although anybody can read it."
        ),
        click.option(
            "--password-file", type=click.Path(path_type=Path, dir_okay=False), help="File with the password."
        ),
        click.option("--user", default="", help="User name; empty = anonymous."),
        click.option("--mode", type=click.Choice(["Sign", "SignAndEncrypt"]), help="Default: SignAndEncrypt."),
        click.option("--policy", type=click.Choice(POLICIES), help="Security policy. Default: None, no security."),
    ):
        command = option(command)
    return command


def opcua_options(server: str, folder: Path | None, given: dict[str, Any]) -> "OpcuaOptions":
    """Return how to enter a server: by its url, or as the device of that name in the configuration. Raises
    ConfigError, or click.UsageError if neither fits.
    """
    from pydantic import ValidationError

    from edge.commands.devices import device_names, find_device, read_gateway, state_dir
    from edge.sources.opcua_options import OpcuaOptions

    toml = None
    try:
        toml = read_gateway(folder)
    except ConfigError:
        if folder is not None or "://" not in server:
            raise
    if "://" not in server:
        assert toml is not None
        device = find_device(toml, server)
        if not isinstance(device, OpcuaOptions):
            named = ", ".join(device_names(toml)) or "none"
            raise click.UsageError(
                f"{server!r} is neither an address like opc.tcp://192.168.0.10:4840 nor an OPC UA device of "
                f"{toml.path} (devices there: {named})"
            )
        return device
    policy = given["policy"] or "None"
    values = {
        "name": UNNAMED,
        "url": server,
        "security_policy": policy,
        "security_mode": "None" if policy == "None" else given["mode"] or "SignAndEncrypt",
        "user": given["user"],
        "password_file": given["password_file"],
        "allow_plaintext_password": given["allow_plaintext_password"],
        "check_host": not given["any_host"],
        "deadline_ms": given["deadline_ms"] or 5000,
        "pki_dir": given["pki"] or (state_dir(toml) / "pki" if toml else Path("pki")),
    }
    try:
        return OpcuaOptions.model_validate(values)
    except ValidationError as error:
        raise click.UsageError("; ".join(one["msg"].removeprefix("Value error, ") for one in error.errors())) from error


def in_words(error: AndonError, url: str) -> AndonError:
    """Return the error without the name of the device that was made up for a bare url."""
    return (
        error
        if isinstance(error, ConfigError)
        else type(error)(sentence(error).replace(f"device {UNNAMED} ({url})", url))
    )


def what_to_do(error: AndonError, url: str) -> str:
    """Return what to try next, in a sentence."""
    text = str(error)
    if isinstance(error, Refused) and "not trusted" in text:
        found = re.search(r"certificate ([0-9a-f]{40})", text)
        return f"if that is the server's thumbprint: andon cert trust {found[1][:12] if found else 'THUMBPRINT'}"
    if isinstance(error, Refused):
        return "see --policy, --mode, --user and --password-file"
    if isinstance(error, Unreachable) and any(word in text for word in ("be reached", "does not answer", "speak")):
        return f"check host and port of {url} (most servers listen on {DEFAULT_PORT}), its firewall, and that it runs"
    return ""


@click.command()
@click.argument("server")
@config_option
@click.option("--path", "place", default="", help="Begin here: a browse path like Line1/Press, or a node id.")
@click.option("--filter", "pattern", default="", help="Only nodes whose path or node id holds this text; * and ? work.")
@click.option("--depth", type=click.IntRange(1, 50), default=50, help="Levels below the start. Default: all.")
@click.option("--standard", is_flag=True, help="Also the nodes that OPC UA puts into every server.")
@click.option("--device", default="", help="Name of the device in the CSV. Default: the configured one, or plc.")
@click.option("--csv", "csv_path", type=click.Path(path_type=Path, allow_dash=True), help="Write rows for tags.csv.")
@json_option
@access_options
def browse(
    server: str,
    folder: Path | None,
    place: str,
    pattern: str,
    depth: int,
    standard: bool,
    device: str,
    csv_path: Path | None,
    as_json: bool,
    **access: Any,
) -> None:
    """Show the tree of an OPC UA server: SERVER is its url or the name of a configured device.

    Each variable with type, access, value, unit and node id. --csv writes what can be a tag as rows for tags.csv.
    """
    from edge.commands.tag_rows import write_new, write_rows

    try:
        options = opcua_options(server, folder, access)
    except ConfigError as error:
        raise failed(error) from error
    try:
        if csv_path is not None and str(csv_path) != "-" and csv_path.exists():
            raise click.UsageError(f"{csv_path} exists already; name another file, nothing is overwritten")
        with quiet(), progress() as tell:
            found = asyncio.run(browse_server(options, place, pattern, depth, standard=standard, tell=tell))
    except AndonError as error:
        raise failed(in_words(error, options.url), what_to_do(error, options.url)) from error
    rows = make_rows(found, device or (options.name if "://" not in server else "plc"))
    if csv_path is not None and str(csv_path) == "-":
        write_rows(rows, sys.stdout)
    elif as_json:
        click.echo(json.dumps(as_data(found), indent=1, default=str))
    elif csv_path is None:
        print_tree(found)
    if csv_path is not None and str(csv_path) != "-":
        try:
            write_new(rows, csv_path)
        except OSError as error:
            click.secho(f"cannot write {csv_path}: {error.strerror}", fg="red", err=True)
            raise click.exceptions.Exit(EXIT_CONFIG) from error
        click.echo(f"{csv_path}: {len(rows)} tags", err=as_json)
    click.secho(tally(found, rows), err=True)
    if not found.shown:
        raise click.exceptions.Exit(EXIT_FAILED)


def make_rows(found: Browsed, device: str) -> list[dict[str, str]]:
    """Return the rows for tags.csv."""
    from edge.commands.tag_rows import tag_rows

    return tag_rows(found.shown, device)


def tally(found: Browsed, rows: Sequence[dict[str, str]]) -> str:
    """Say in a sentence what was found and what of it cannot be a tag."""
    from edge.commands.tag_rows import reason_against

    against = Counter(reason for node in found.variables if (reason := reason_against(node)))
    why = ", ".join(f"{count} {reason}" for reason, count in against.most_common())
    objects = len(found.shown) - len(found.variables)
    text = f"{_count(len(found.variables), 'variable')} and {_count(objects, 'object')} in {found.seconds:.1f} s"
    text += f"; {len(rows)} can be tags"
    text += f" (not: {why})" if why else ""
    silent = [node for node in found.shown if node.problem and not node.is_variable]
    text += f"; {len(silent)} objects did not show what is below them: {silent[0].problem}" if silent else ""
    return text + ("; the tree was cut off, ask for a part with --path" if found.cut_off else "")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def as_data(found: Browsed) -> dict[str, Any]:
    """Return everything that was found as plain data."""
    from edge.commands.tag_rows import reason_against, unit_of

    nodes = [
        {
            "path": list(node.path),
            "node": node.address,
            "kind": "variable" if node.is_variable else "object",
            "label": node.label,
        }
        | (
            {
                "type": node.type,
                "access": node.access,
                "value": plain(node.value),
                "unit": unit_of(node.unit),
                "range": node.range,
                "text": node.text,
                "usable": not reason_against(node),
                "description": node.description,
            }
            if node.is_variable
            else {}
        )
        | ({"problem": node.problem} if node.problem else {})
        for node in found.shown
    ]
    return {
        "url": found.url,
        "namespaces": found.namespaces,
        "seconds": round(found.seconds, 3),
        "cut_off": found.cut_off,
        "nodes": nodes,
    }


def plain(value: Any) -> Any:
    """Return a value of a server as JSON can hold it."""
    if isinstance(value, list):
        return [plain(one) for one in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime):
        return value.isoformat()
    return str(getattr(value, "Text", value))


def shown_value(node: "Node") -> str:
    """Return a value as a person wants to see it: short."""
    from edge.commands.address_space import one_line

    if node.problem:
        return node.problem[:VALUE_LENGTH_MAX]
    value = plain(node.value)
    if isinstance(value, list):
        text = f"[{len(value)}] " + ", ".join(f"{one:.6g}" if isinstance(one, float) else str(one) for one in value[:8])
    elif isinstance(value, float):
        text = f"{value:.6g}"
    else:
        text = "" if value is None else one_line(value)
    return text if len(text) <= VALUE_LENGTH_MAX else text[: VALUE_LENGTH_MAX - 3] + "..."


def print_tree(found: Browsed) -> None:
    """Print one line per node, children below their parent."""
    from edge.commands.tag_rows import unit_of

    base = min((len(node.path) for node in found.shown), default=0)
    rows = []
    for node in found.shown:
        name = "  " * (len(node.path) - base) + node.path[-1]
        type_, value, unit = (node.type, shown_value(node), unit_of(node.unit)) if node.is_variable else ("", "", "")
        rows.append((node, name, (type_, value, unit, node.access)))
    wide = min(max((len(name) for _, name, _ in rows), default=0), NAME_WIDTH_MAX)
    widths = [max((len(cells[i]) for _, _, cells in rows), default=0) for i in range(4)]
    for node, name, cells in rows:
        if not node.is_variable:
            problem = f"  {node.problem}" if node.problem else ""
            click.echo(click.style(name.ljust(wide), bold=True) + click.style(f"  {node.address}{problem}", dim=True))
            continue
        value = click.style(cells[1].rjust(widths[1]), fg="yellow" if node.problem else "green")
        line = [
            name.ljust(wide),
            cells[0].ljust(widths[0]),
            value,
            cells[2].ljust(widths[2]),
            cells[3].ljust(widths[3]),
        ]
        click.echo("  ".join(line) + click.style(f"  {node.address}", dim=True))
