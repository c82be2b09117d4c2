"""The journal as columns, for SQL: read through a connection of its own, from any thread, while the store writes."""

import contextlib
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from edge.journal.errors import journal_error
from edge.journal.records import TAG_COLUMNS, TagRecord, tag_of

EVENTS_SHOWN_MAX: Final = 100_000
"""Newest events that a query sees."""


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


def _open(path: Path) -> sqlite3.Connection:
    journal = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)
    journal.text_factory = lambda text: text.decode("utf-8", "replace")
    return journal


def _texts(values: list[str]) -> Any:
    return np.array(values, dtype=object)
