"""An outcome as JSON types for programs and as tables for people."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edge.replay.outcome import Activation, AlarmResult, Differences, Outcome, ShiftResult
from edge.terminal import percent, span
from plant.instant import NS_PER_S

NAMES_SHOWN_MAX: Final = 10
ACTIVATIONS_SHOWN_MAX: Final = 3


def _utc(time: int) -> str | None:
    if not time:
        return None
    moment = datetime.fromtimestamp(time // NS_PER_S, UTC).replace(microsecond=time % NS_PER_S // 1000)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _activation(activation: Activation, duration_s: float) -> dict[str, Any]:
    return {
        "start": _utc(activation.start),
        "end": _utc(activation.end),
        "duration_s": round(duration_s, 3),
        "value": activation.value,
        "limit": activation.limit,
    }


def _alarm(result: AlarmResult) -> dict[str, Any]:
    return {
        "alarm": result.alarm,
        "asset": result.asset,
        "priority": result.priority,
        "tag": result.tag,
        "message": result.message,
        "count": result.count,
        "total_s": round(result.total_s, 3),
        "longest_s": round(max(result.durations_s), 3),
        "standing": result.standing,
        "activations": [_activation(a, s) for a, s in zip(result.activations, result.durations_s, strict=True)],
    }


def _shift(result: ShiftResult | None) -> dict[str, Any] | None:
    if result is None:
        return None
    return asdict(result) | {"start": _utc(result.start), "end": _utc(result.end), "until": _utc(result.until)}


def outcome_record(outcome: Outcome) -> dict[str, Any]:
    """Return a run as JSON types; times are ISO 8601 in UTC."""
    readings = outcome.readings
    return {
        "config": outcome.folder,
        "readings": {
            "recorded": readings.rows,
            "computed": readings.computed,
            "used": readings.used,
            "kept": readings.kept,
            "suppressed": readings.used - readings.kept,
            "by_tag": {name: {"used": used, "kept": kept} for name, (used, kept) in sorted(readings.by_tag.items())},
            "ignored": list(readings.ignored),
            "missing": list(readings.missing),
        },
        "alarms": [_alarm(result) for result in outcome.alarms],
        "oee": [_shift(result) for result in outcome.shifts],
    }


def differences_record(differences: Differences) -> dict[str, Any]:
    """Return differences as JSON types."""
    return {
        "same": not differences.any,
        "alarms_only_a": [_alarm(result) for result in differences.only_a],
        "alarms_only_b": [_alarm(result) for result in differences.only_b],
        "alarms_changed": [
            asdict(d) | {"total_s_a": round(d.total_s_a, 3), "total_s_b": round(d.total_s_b, 3)}
            for d in differences.changed
        ],
        "oee_changed": [{"a": _shift(d.a), "b": _shift(d.b)} for d in differences.shifts],
        "kept_a": differences.kept_a,
        "kept_b": differences.kept_b,
    }


class Teller:
    """Prints outcomes for people, with times in the zone of the site."""

    def __init__(self, console: Console, zone: ZoneInfo) -> None:
        self._console = console
        self._zone = zone

    def outcome(self, outcome: Outcome, name: str = "") -> None:
        """Print one run."""
        readings = outcome.readings
        title = f"{name + ': ' if name else ''}{outcome.folder}"
        self._say(title, "bold")
        self._say(
            f"{readings.rows - readings.computed:,} readings from {self._local(outcome.start)} to "
            f"{self._local(outcome.end)}: {readings.used:,} of configured tags, {readings.kept:,} would be stored, "
            f"{readings.used - readings.kept:,} suppressed by the deadband"
        )
        if readings.ignored:
            self._say(f"not in this configuration: {_list(readings.ignored)}", "yellow")
        if readings.missing:
            self._say(f"not in the recording, so nothing follows from them: {_list(readings.missing)}", "yellow")
        self._alarms(outcome.alarms)
        self._shifts(outcome.shifts)

    def differences(self, differences: Differences) -> None:
        """Print how B differs from A."""
        self._say("\ndifferences from A to B", "bold")
        if not differences.any:
            self._say("none: the same alarms, the same OEE, the same readings stored", "green")
            return
        for result in differences.only_a:
            self._say(f"- {result.alarm}: {self._often(result)} in A, never in B")
        for result in differences.only_b:
            self._say(f"+ {result.alarm}: never in A, {self._often(result)} in B")
        for change in differences.changed:
            self._say(
                f"~ {change.alarm}: {change.count_a} times, {span(change.total_s_a)} in A; "
                f"{change.count_b} times, {span(change.total_s_b)} in B"
            )
        for pair in differences.shifts:
            either = pair.a or pair.b
            assert either is not None
            self._say(
                f"~ {either.machine}, {either.shift} shift of {self._local(either.start)}: {_figures(pair.a)} in A; "
                f"{_figures(pair.b)} in B"
            )
        if differences.kept_a != differences.kept_b:
            self._say(f"~ readings stored: {differences.kept_a:,} in A, {differences.kept_b:,} in B")

    def _alarms(self, alarms: Sequence[AlarmResult]) -> None:
        if not alarms:
            self._say("no alarm", "green")
            return
        table = Table("alarm", "priority", "times", "total", "longest", "when", box=None, header_style="dim")
        for result in alarms:
            starts = [self._local(a.start) for a in result.activations[:ACTIVATIONS_SHOWN_MAX]]
            if result.count > ACTIVATIONS_SHOWN_MAX:
                starts.append(f"and {result.count - ACTIVATIONS_SHOWN_MAX} more")
            if result.standing:
                starts.append("stood at the end")
            table.add_row(
                Text(result.alarm),
                result.priority,
                str(result.count),
                span(result.total_s),
                span(max(result.durations_s)),
                ", ".join(starts),
            )
        self._console.print(table)

    def _shifts(self, shifts: Sequence[ShiftResult]) -> None:
        if not shifts:
            return
        columns = ("machine", "shift", "from", "OEE", "A", "P", "Q", "parts", "scrap", "unknown")
        table = Table(*columns, box=None, header_style="dim")
        for result in shifts:
            table.add_row(
                result.machine,
                result.shift + ("" if result.until == result.end else " (part)"),
                self._local(result.start),
                *(percent(x) for x in (result.oee, result.availability, result.performance, result.quality)),
                f"{result.produced:,.0f}",
                f"{result.rejected:,.0f}",
                span(result.unknown_s),
            )
        self._console.print(table)

    def _often(self, result: AlarmResult) -> str:
        times = "once" if result.count == 1 else f"{result.count} times"
        return f"{times}, {span(result.total_s)}, first at {self._local(result.activations[0].start)}"

    def _local(self, time: int) -> str:
        return datetime.fromtimestamp(time // NS_PER_S, self._zone).strftime("%Y-%m-%d %H:%M:%S")

    def _say(self, text: str, style: str = "") -> None:
        self._console.print(Text(text, style=style), soft_wrap=True)


def _figures(result: ShiftResult | None) -> str:
    if result is None:
        return "not there"
    factors = "  ".join(
        f"{name} {percent(value).strip()}"
        for name, value in (("A", result.availability), ("P", result.performance), ("Q", result.quality))
    )
    return f"OEE {percent(result.oee).strip()} ({factors}), {result.produced:,.0f} parts, {result.rejected:,.0f} scrap"


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMES_SHOWN_MAX} more" if len(names) > NAMES_SHOWN_MAX else ""
    return ", ".join(names[:NAMES_SHOWN_MAX]) + more
