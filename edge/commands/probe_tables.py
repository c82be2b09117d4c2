"""What `andon probe` found, for people: ranges, one table of registers, and what fits the expected value."""

import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edge.commands.probe import MATCHES_SHOWN, TABLE_WIDTH_MIN, Probed
from edge.commands.registers import EVIDENCE_MIN, ORDERS, Match, Number, decode, is_clear, size_of, text_of

REGISTERS_SHOWN_MAX = 250
_NARROW = ("int32", "uint32", "float32")
_WIDE = ("int64", "uint64", "float64")


def print_probed(found: Probed, wanted: tuple[float, float] | None, *, scan: bool) -> None:
    """Print what a person wants first: the answer if a value was expected, the ranges of a scan, else the registers."""
    if scan or any(one.state != "legal" for one in found.ranges):
        _print_ranges(found)
    if wanted is not None:
        _print_matches(found, *wanted)
    elif not scan and found.words:
        _print_registers(found)


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 10_000, highlight=False)


def _print_ranges(found: Probed) -> None:
    from edge.sources.modbus_wire import EXCEPTIONS

    click.echo(f"{found.area} of {found.what}")
    colours = {"legal": "green", "illegal": "red", "refused": "yellow"}
    for one in found.ranges:
        span = f"{one.first}..{one.last}" if one.count > 1 else str(one.first)
        why = f"exception {one.code}, {EXCEPTIONS[one.code]}" if one.code in EXCEPTIONS else ""
        if one.state == "refused":
            why += f"; searched down to blocks of {one.size}"
        elif one.state == "illegal" and not why:
            why = "no reply"
        state = click.style(one.state.ljust(9), fg=colours.get(one.state))
        click.echo(f"  {span.ljust(14)}{state}{str(one.count).rjust(6)}  {why}".rstrip())
    click.echo(f"{found.requests} requests; the longest that was answered read {found.longest}")
    if not found.words:
        click.echo("nothing there can be read: check --area, --unit and --start, which counts from 0", err=True)
    elif not found.complete:
        click.echo("the requests ran out: ask for a smaller range, or for more with --requests", err=True)


def _print_registers(found: Probed) -> None:
    if found.area in ("coil", "discrete"):
        for first in range(found.asked[0], found.asked[1] + 1, 16):
            bits = [str(found.words.get(address, "-")) for address in range(first, min(first + 16, found.asked[1] + 1))]
            click.echo(f"{found.area}/{first}".ljust(16) + " ".join(bits))
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else TABLE_WIDTH_MIN
    kinds = (*_NARROW, *_WIDE) if width >= TABLE_WIDTH_MIN else _NARROW
    addresses = sorted(found.words)
    there = [kind for kind in kinds if any(decode(found.words, one, kind, "ABCD") is not None for one in addresses)]
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("address", "hex", "uint16", "int16", "text", "order", *there):
        table.add_column(name, justify="left" if name in ("address", "text", "order") else "right", no_wrap=True)
    for address in addresses[:REGISTERS_SHOWN_MAX]:
        _add_register(table, found.area, found.words, address, there)
    _console().print(table)
    if len(addresses) > REGISTERS_SHOWN_MAX:
        click.echo(
            f"{len(addresses) - REGISTERS_SHOWN_MAX} more registers: see --start and --count, or --json", err=True
        )
    if kinds == _NARROW:
        click.echo(f"64-bit values: in a terminal of {TABLE_WIDTH_MIN} columns, or with --json", err=True)


def _add_register(table: Table, area: str, words: Mapping[int, int], address: int, kinds: Sequence[str]) -> None:
    """Add the lines of a register: one per order, orders that make no difference together."""
    word = words[address]
    front = [f"{area}/{address}", f"{word:04x}", str(word), str(decode(words, address, "int16", "ABCD")), text_of(word)]
    lines: dict[tuple[str, ...], list[str]] = {}
    for order in ORDERS:
        cells = tuple(shown(decode(words, address, kind, order)) for kind in kinds)
        lines.setdefault(cells, []).append(order)
    for i, (cells, orders) in enumerate(lines.items()):
        name = "any" if len(orders) == len(ORDERS) else " ".join(orders)
        styled = [Text(cell, style="" if _likely(cell) else "dim") for cell in cells]
        table.add_row(*(front if i == 0 else [""] * len(front)), name if any(cells) else "", *styled)


def _likely(cell: str) -> bool:
    """Tell whether a number looks like something that a machine measures or counts."""
    return bool(cell) and "e" not in cell and cell != "0" and len(cell.lstrip("-").split(".")[0]) <= 7


def shown(value: Number | None) -> str:
    """Return a number short enough for a column: what is far from anything measured shows its size only."""
    if value is None:
        return ""
    if isinstance(value, int):
        return str(value) if abs(value) < 10**11 else f"{value:.3e}"
    return f"{value:.3e}" if value and not 1e-4 <= abs(value) < 1e9 else f"{value:.8g}"


def _print_matches(found: Probed, expected: float, tolerance: float) -> None:
    what = f"{expected:g} (+-{tolerance:g})"
    if not found.matches:
        first, last = found.asked
        click.secho(f"no reading of {found.area}/{first}..{last} gives {what}", fg="red", err=True)
        other = "input" if found.area == "holding" else "holding"
        click.echo(f"try --area {other}, a wider --count, a --tolerance, or --scan if the address is unknown", err=True)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("", "address", "type", "order", "scale", "raw", "value", "bits"):
        table.add_column(name, justify="right" if name in ("scale", "raw", "value", "bits") else "left", no_wrap=True)
    for i, one in enumerate(found.matches[:MATCHES_SHOWN]):
        kind = f"{one.type} or {one.also}" if one.also else one.type
        cells: tuple[Any, ...] = (f"{found.area}/{one.address}", kind, _order(one), f"{one.scale:g}", shown(one.raw))
        table.add_row("best" if i == 0 else "", *cells, shown(one.value), f"{one.evidence:.0f}")
    click.echo(f"what of {found.what} gives {what}:")
    _console().print(table)
    best = found.matches[0]
    if is_clear(found.matches):
        scale = "" if best.scale == 1 else f", scale {best.scale:g}"
        order = f", order {_order(best)}" if _order(best) else ""
        where = click.style(f"{found.area}/{best.address}, type {best.type}{order}{scale}", fg="green", bold=True)
        click.echo(f"for tags.csv: address {where}")
    elif best.evidence < EVIDENCE_MIN:
        click.secho("it may fit by accident: give more digits, or a smaller --tolerance", fg="yellow", err=True)
    else:
        click.secho(
            "several fit equally well: look again when the value has changed, or give more digits",
            fg="yellow",
            err=True,
        )


def _order(match: Match) -> str:
    return match.order if size_of(match.type) > 1 or match.order != "ABCD" else ""
