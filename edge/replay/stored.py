"""What a gateway stored, as a recording: its readings, and what else reached its line.

Owns the way to it: through the control socket of a running gateway, from the files of one that is stopped.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from edge.alarms.entry import SYSTEM
from edge.control import Control
from edge.errors import StorageError, Unreachable
from edge.replay.recording import NEVER, Recording
from edge.store import open_offline
from edge.tick import Command, Condition, Signal

SIGNALS_MAX: Final = 100_000
COMMANDS: Final = frozenset({"correct", "set_state", "start_order", "end_order"})
"""What people said about machines; what they did to alarms changes neither when these come nor how long they last."""
_SIGNALS: Final = """
SELECT body FROM events
WHERE (kind = 'audit' OR kind = 'alarm') AND epoch_us(time) >= {start} AND epoch_us(time) < {end} ORDER BY seq
"""


@contextlib.contextmanager
def stored(state_dir: Path, socket: str, start: int, end: int) -> Iterator[Recording]:
    """Yield what the gateway on `state_dir` stored in [start, end) (ns UTC), running or not.

    Raises StorageError, or what `Control` raises.
    """
    with tempfile.TemporaryDirectory(prefix="andon-stored-") as folder:
        path = Path(folder) / "readings.parquet"
        statement = _SIGNALS.format(start=start // 1000, end=min(end, NEVER) // 1000)
        try:
            with Control(state_dir, socket) as control:
                control.export(start, end, path)
                answer = control.query(statement, SIGNALS_MAX)
                rows, truncated = list(answer.rows), answer.truncated
        except Unreachable:
            if not state_dir.exists():
                raise StorageError(
                    f"{state_dir} does not exist: no gateway has run with this configuration yet; "
                    "name a file with --recording"
                ) from None
            with open_offline(state_dir) as store:
                store.export(start, end, path)
                found = store.query(statement, rows_max=SIGNALS_MAX)
                rows, truncated = [list(row) for row in found.rows], found.truncated
        note = f"only {SIGNALS_MAX} events of the journal could be taken into account" if truncated else ""
        with Recording(path, start, end, tuple(_signals(rows)), note) as recording:
            yield recording


def _signals(rows: list[Any]) -> Iterator[tuple[int, Signal]]:
    """Yield (ns UTC, signal): devices that were lost and came back, and what people said about machines."""
    for (body,) in rows:
        try:
            event = msgspec.json.decode(body, type=dict[str, Any])
        except msgspec.DecodeError:
            continue
        signal = _signal(event)
        if signal is not None:
            yield int(event["time"]), signal


def _signal(event: dict[str, Any]) -> Signal | None:
    if event.get("kind") == "audit":
        name = event.get("action")
        if name in COMMANDS and event.get("outcome") == "ok":
            return Command(id=event["id"], name=name, user=event["user"], arguments=event.get("detail") or {})
        return None
    alarm = str(event.get("alarm", ""))
    told = event.get("condition") == SYSTEM and event.get("transition") in {"activate", "clear", "update"}
    if not told or not alarm.startswith("device.") or alarm.endswith(".silent"):
        # Silence is judged by the line itself; storage and floods are of this gateway, not of its machines.
        return None
    return Condition(
        alarm=alarm,
        active=bool(event["active"]),
        message=str(event.get("message", "")),
        asset=str(event.get("asset", "")),
        priority=str(event.get("priority", "high")),
    )
