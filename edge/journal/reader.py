"""The journal as columns, for SQL: read through a connection of its own, from any thread, while the store writes."""

import contextlib
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from edge.journal.errors import journal_error
from edge.journal.records import TAG_COLUMNS, TagRecord, event_of, tag_of
from plant.events import Event

EVENTS_SHOWN_MAX: Final = 100_000
"""Newest events that a query sees."""
STATES_READ_MAX: Final = 20_000
"""Newest states and corrections of a machine that are read at once."""
_STATES: Final = """
SELECT body FROM (
    SELECT seq, body FROM events WHERE asset = ?1 AND kind IN ('status_change', 'correction') AND time >= coalesce(
        (SELECT max(time) FROM events WHERE asset = ?1 AND kind = 'status_change' AND time <= ?2), ?2)
    ORDER BY seq DESC LIMIT ?3)
ORDER BY seq
"""


@dataclass(frozen=True, slots=True)
class Columns:
    """events: seq, id, time (datetime64[us]), kind, asset, body. alarms: seq, body. missing: older events left out."""

    events: dict[str, Any]
    alarms: dict[str, Any]
    missing: int


def read_columns(path: Path) -> Columns:
    """Read the newest events and the alarm book. Raises JournalError."""
    try:
        with contextlib.closing(_open(path)) as journal:
            events = journal.execute(
                "SELECT seq, id, time, kind, asset, body FROM events ORDER BY seq DESC LIMIT ?", (EVENTS_SHOWN_MAX,)
            ).fetchall()
            (total,) = journal.execute("SELECT count(*) FROM events").fetchone()
            alarms = journal.execute("SELECT seq, body FROM alarms").fetchall()
    except sqlite3.Error as error:
        raise journal_error(error, path, "read events") from error
    events.reverse()
    return Columns(
        {
            "seq": np.array([row[0] for row in events], np.int64),
            "id": _texts([row[1] for row in events]),
            "time": (np.array([row[2] for row in events], np.int64) // 1000).view("M8[us]"),
            "kind": _texts([row[3] for row in events]),
            "asset": _texts([row[4] for row in events]),
            "body": _texts([row[5] for row in events]),
        },
        {"seq": np.array([row[0] for row in alarms], np.int64), "body": _texts([row[1] for row in alarms])},
        total - len(events),
    )


def read_names(path: Path) -> tuple[list[TagRecord], list[tuple[int, int, str]]]:
    """Read the tags and the texts (tag index, code, text). Raises JournalError."""
    try:
        with contextlib.closing(_open(path)) as journal:
            tags = journal.execute(f'SELECT {TAG_COLUMNS} FROM tags ORDER BY "index"').fetchall()  # noqa: S608
            texts = journal.execute("SELECT tag, code, text FROM texts").fetchall()
    except sqlite3.Error as error:
        raise journal_error(error, path, "read the names of tags") from error
    return [tag_of(row) for row in tags], texts


def read_states(path: Path, asset: str, since: int) -> list[Event]:
    """Read what tells the states of an asset from `since` (ns UTC) on, in the order it was kept.

    That is every state from the last one at or before `since`, and every correction that was entered since then, of
    them the newest STATES_READ_MAX. Raises JournalError.
    """
    try:
        with contextlib.closing(_open(path)) as journal:
            rows = journal.execute(_STATES, (asset, since, STATES_READ_MAX)).fetchall()
    except sqlite3.Error as error:
        raise journal_error(error, path, "read the states of a machine") from error
    return [event_of(body) for (body,) in rows]


def _open(path: Path) -> sqlite3.Connection:
    journal = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)
    journal.text_factory = lambda text: text.decode("utf-8", "replace")
    return journal


def _texts(values: list[str]) -> Any:
    return np.array(values, dtype=object)
