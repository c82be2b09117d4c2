"""The gateway in a terminal: a screen that refreshes under `andon run`, and what `andon status` prints.

Pure from snapshot to renderable; `watch` alone keeps time and owns the screen.
"""

import asyncio
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final, Literal, TypeVar

import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from edge.view import AlarmView, DeviceView, MachineView, Snapshot
from plant.instant import NS_PER_S

T = TypeVar("T")

PLAIN_PERIOD_S: Final = 10.0
"""Where no terminal listens (a log, a pipe) one line this often says enough."""

FIXED_LINES: Final = 13
"""Lines of the screen that are not rows of a list: three of head, three table heads, four gaps, two stores, cursor."""

PRIORITY_RANK: Final = {"critical": 0, "high": 1, "medium": 2, "low": 3}
PRIORITY_STYLE: Final = {"critical": "bold white on red", "high": "bold red", "medium": "yellow", "low": "cyan"}
STATE_STYLE: Final = {
    "running": "bold green",
    "idle": "yellow",
    "setup": "cyan",
    "maintenance": "blue",
    "down": "bold red",
    "connected": "green",
    "connecting": "yellow",
    "ok": "green",
    "degraded": "yellow",
    "off": "dim",
}

PIPE_WIDTH: Final = 200


def size(count: float) -> str:
    """Return bytes for a person: 1.2 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def percent(fraction: float | None) -> str:
    return "  - " if fraction is None else f"{fraction * 100:3.0f}%"


def span(seconds: float) -> str:
    """Return a duration in its two largest units: 3 h 12 min."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def since(snapshot: Snapshot, time: int) -> str:
    return span((snapshot.time - time) / NS_PER_S) if time else "-"


def ranked(alarms: list[AlarmView]) -> list[AlarmView]:
    """Return the alarms in the order in which a person should look: annunciated, active, priority, newest."""
    return sorted(
        alarms,
        key=lambda a: (not a.annunciated, not a.active, PRIORITY_RANK.get(a.priority, 4), a.acknowledged, -a.since),
    )


def _word(state: str) -> Text:
    return Text(state, style=STATE_STYLE.get(state, "bold red"))


def _table(*columns: str, right: frozenset[str] = frozenset()) -> Table:
    table = Table(box=None, padding=(0, 1), pad_edge=False, expand=True, header_style="dim")
    for column in columns:
        justify: Literal["left", "right"] = "right" if column in right else "left"
        table.add_column(column, justify=justify, no_wrap=True, overflow="ellipsis")
    return table


def _cut(items: Sequence[T], lines: int) -> tuple[Sequence[T], int]:
    """Return what fits into `lines` with one line kept for "and n more" where not all fits, and n."""
    if len(items) <= lines:
        return items, 0
    shown = items[: max(lines - 1, 0)]
    return shown, len(items) - len(shown)


def _with_rest(table: Table, rest: int, what: str) -> RenderableType:
    return Group(table, Text(f"and {rest} more {what}", style="bold")) if rest else table


def _head(snapshot: Snapshot, url: str) -> RenderableType:
    first = Text.assemble(
        (f"{snapshot.gateway} ", "bold"),
        (snapshot.sentence, "green" if snapshot.healthy else "bold red"),
    )
    second = Text.assemble(
        f"up {since(snapshot, snapshot.started)}  tags {snapshot.tags_alive}/{snapshot.tags} alive  ",
        (f"{snapshot.readings_per_s:,.0f} readings/s", "bold"),
        f"  step p99 {snapshot.step_ms_p99:.1f} ms  {size(snapshot.rss_bytes)}",
    )
    lines = [first, second]
    if url:
        lines.append(Text(f"page {url}", style="dim"))
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return Group(*lines)


def _machines(snapshot: Snapshot, lines: int) -> RenderableType:
    columns = ("machine", "state", "since", "OEE", "A", "P", "Q", "parts", "scrap")
    table = _table(*columns, right=frozenset(columns[3:]))
    shown, rest = _cut(snapshot.machines, lines)
    for machine in shown:
        table.add_row(
            Text(machine.name),
            _machine_state(machine),
            since(snapshot, machine.state_since),
            _oee(machine),
            percent(machine.availability),
            percent(machine.performance) + ("!" if machine.performance_suspect else ""),
            percent(machine.quality),
            f"{machine.produced:,.0f}",
            f"{machine.rejected:,.0f}",
        )
    return _with_rest(table, rest, "machines")


def _machine_state(machine: MachineView) -> Text:
    text = _word(machine.state)
    if machine.reason:
        text.append(f" {machine.reason.replace('_', ' ')}", style="default not bold")
    return text


def _oee(machine: MachineView) -> Text:
    if machine.oee is None:
        return Text(percent(None), style="dim")
    doubt = "?" if machine.uncertain else ""
    return Text(
        percent(machine.oee) + doubt, style="bold green" if machine.oee >= machine.target_oee else "bold yellow"
    )


def _alarms(snapshot: Snapshot, lines: int, *, names: bool) -> RenderableType:
    if not snapshot.alarms:
        return Text("no alarms", style="green")
    table = _table("priority", "st", "since", "message", *(["alarm"] if names else []))
    table.columns[3].ratio = 1
    shown, rest = _cut(ranked(snapshot.alarms), lines)
    for alarm in shown:
        style = PRIORITY_STYLE.get(alarm.priority, "bold") if alarm.active and alarm.annunciated else "dim"
        row = [Text(alarm.priority, style=style), Text(alarm.state), Text(since(snapshot, alarm.since))]
        table.add_row(*row, Text(alarm.message or alarm.alarm), *([Text(alarm.alarm)] if names else []))
    return _with_rest(table, rest, "alarms")


def _devices(snapshot: Snapshot, lines: int) -> RenderableType:
    # Who has something to say comes first.
    devices = sorted(snapshot.devices, key=lambda d: (d.state == "connected", not (d.sentence or d.problems), d.name))
    table = _table("device", "type", "state", "tags", "what is the matter")
    table.columns[4].ratio = 1
    shown, rest = _cut(devices, lines)
    for device in shown:
        tags = f"{device.alive}/{device.tags}"
        sentence = Text(_matter(device))
        table.add_row(Text(device.name), Text(device.type), _word(device.state), tags, sentence)
    return _with_rest(table, rest, "devices")


def _matter(device: DeviceView) -> str:
    if device.sentence or not device.problems:
        return device.sentence
    tag, what = next(iter(device.problems.items()))
    return f"{len(device.problems)} tags have problems, first {tag}: {what}"


def _stores(snapshot: Snapshot) -> RenderableType:
    ring, broker = snapshot.ring, snapshot.broker
    first = Text.assemble(
        ("ring ", "dim"),
        _word(ring.state),
        f" {ring.rows:,} rows, {size(ring.bytes)} of {size(ring.bytes_max)}. {ring.sentence}",
    )
    waiting = f", {broker.unacknowledged:,} unacknowledged" if broker.state != "off" else ""
    second = Text.assemble(
        ("mqtt ", "dim"), _word(broker.state), f" {broker.address}{waiting}. ".replace(" . ", " "), broker.sentence
    )
    for line in (first, second):
        line.no_wrap, line.overflow = True, "ellipsis"
    return Group(first, second)


def shares(room: int, wishes: Sequence[int]) -> list[int]:
    """Give out `room` lines one at a time in turn until each wish is met or none is left; each gets at least one."""
    given = [min(1, wish) for wish in wishes]
    left = room - sum(given)
    while left > 0 and given != list(wishes):
        for i, wish in enumerate(wishes):
            if given[i] < wish and left > 0:
                given[i] += 1
                left -= 1
    return given


def summary(snapshot: Snapshot, url: str = "", height: int | None = None) -> RenderableType:
    """Return the whole gateway. height: lines of the screen; the lists then show only what matters most of each."""
    wishes = [len(snapshot.machines), len(snapshot.alarms), len(snapshot.devices)]
    lines = wishes if height is None else shares(height - FIXED_LINES, wishes)
    gap = Text()
    return Group(
        _head(snapshot, url),
        gap,
        _machines(snapshot, lines[0]),
        gap,
        _alarms(snapshot, lines[1], names=height is None),
        gap,
        _devices(snapshot, lines[2]),
        gap,
        _stores(snapshot),
    )


def plain_line(snapshot: Snapshot) -> str:
    """Return the gateway in one line, for a log or a pipe."""
    clock = datetime.fromtimestamp(snapshot.time / NS_PER_S, UTC).strftime("%H:%M:%SZ")
    oee = " ".join(f"{m.name}={m.state},{percent(m.oee).strip()}{'?' * m.uncertain}" for m in snapshot.machines)
    active = sum(a.active and a.annunciated for a in snapshot.alarms)
    return (
        f"{clock} {'ok' if snapshot.healthy else 'NOT OK'}: {snapshot.sentence} | "
        f"tags {snapshot.tags_alive}/{snapshot.tags} | "
        f"{snapshot.readings_per_s:.0f} readings/s | {oee} | {active} active alarms | "
        f"ring {size(snapshot.ring.bytes)} {snapshot.ring.state} | mqtt {snapshot.broker.state}"
    )


async def watch(
    get_snapshot: Callable[[], Snapshot],
    period_s: float = 1.0,
    url: str = "",
    console: Console | None = None,
    plain_period_s: float = PLAIN_PERIOD_S,
) -> None:
    """Show the gateway until cancelled: a refreshing screen on a terminal, else one line every `plain_period_s`."""
    console = console or Console()
    if not console.is_terminal:
        if url:
            console.print(f"page {url}", soft_wrap=True, highlight=False, markup=False)
        while True:
            console.print(plain_line(get_snapshot()), soft_wrap=True, highlight=False, markup=False)
            await asyncio.sleep(plain_period_s)
    # Without rich's own refresh thread: a second Python thread would wait for the interpreter lock.
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(summary(get_snapshot(), url, console.height), refresh=True)
            await asyncio.sleep(period_s)


def print_status(snapshot: Snapshot, *, as_json: bool = False, console: Console | None = None) -> None:
    """Print everything once, for `andon status`; as_json: the snapshot as it stands, for scripts."""
    # A pipe has no width: a sentence must not be cut off there.
    console = console or Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
    if as_json:
        text = msgspec.json.format(msgspec.json.encode(snapshot)).decode()
        console.print(text, soft_wrap=True, highlight=False, markup=False)
        return
    console.print(summary(snapshot))
