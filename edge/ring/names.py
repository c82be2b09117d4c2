"""The names behind the numbers: tags and texts, shown in SQL and written into each file of the ring."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np

from edge.ring.segment import Segment
from edge.ring.views import load

Text = tuple[int, int, str]
"""tag index, code, text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TagRow:
    """A tag as the ring shows it."""

    index: int
    name: str
    asset: str = ""
    device: str = ""
    unit: str = ""
    description: str = ""
    text: bool = False
    virtual: bool = False


class Names:
    """What the ring was told. Every method raises duckdb.Error."""

    def __init__(self) -> None:
        self._tags: list[TagRow] = []
        self._texts: dict[tuple[int, int], str] = {}

    def put(self, tags: Iterable[TagRow], texts: Iterable[Text]) -> None:
        """Replace everything."""
        self._tags = list(tags)
        self._texts = {(tag, code): text for tag, code, text in texts}

    def add_texts(self, connection: duckdb.DuckDBPyConnection, texts: Sequence[Text]) -> None:
        """Add texts that the open file has got already."""
        self._texts.update({(tag, code): text for tag, code, text in texts})
        load(connection, "texts", text_columns(texts))

    def show(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Put everything into the tables `tags` and `texts` of the engine."""
        connection.begin()
        connection.execute("DELETE FROM tags")
        connection.execute("DELETE FROM texts")
        if self._tags:
            load(connection, "tags", tag_columns(self._tags))
        if self._texts:
            load(connection, "texts", text_columns((tag, code, text) for (tag, code), text in self._texts.items()))
        connection.commit()

    def write(self, connection: duckdb.DuckDBPyConnection, segment: Segment) -> None:
        """Write what a file does not know yet into it."""
        name = segment.alias
        if self._tags:
            known = {i for (i,) in connection.execute(f"SELECT index FROM {name}.tags").fetchall()}  # noqa: S608
            fresh = tag_columns(tag for tag in self._tags if tag.index not in known)
            if len(fresh["index"]):
                load(connection, f"{name}.tags", {"index": fresh["index"], "tag": fresh["tag"]})
        if self._texts:
            had = set(connection.execute(f"SELECT tag, code FROM {name}.texts").fetchall())  # noqa: S608
            texts = [(tag, code, text) for (tag, code), text in self._texts.items() if (tag, code) not in had]
            if texts:
                load(connection, f"{name}.texts", text_columns(texts))


def found(connection: duckdb.DuckDBPyConnection, segments: Sequence[Segment]) -> tuple[dict[str, int], list[Text]]:
    """Return the names and texts that files know, the newest file's word last. Raises duckdb.Error."""
    tags: dict[str, int] = {}
    texts: dict[tuple[int, int], str] = {}
    for s in segments:
        tags.update({name: index for index, name in connection.execute(f"FROM {s.alias}.tags").fetchall()})
        texts.update({(t, c): text for t, c, text in connection.execute(f"FROM {s.alias}.texts").fetchall()})
    return tags, [(tag, code, text) for (tag, code), text in texts.items()]


def tag_columns(tags: Iterable[TagRow]) -> dict[str, Any]:
    """Return the columns of the table `tags`."""
    rows = list(tags)
    return {
        "index": np.array([t.index for t in rows], np.uint32),
        "tag": _texts([t.name for t in rows]),
        "asset": _texts([t.asset for t in rows]),
        "device": _texts([t.device for t in rows]),
        "unit": _texts([t.unit for t in rows]),
        "description": _texts([t.description for t in rows]),
        "text": np.array([t.text for t in rows], np.bool_),
        "virtual": np.array([t.virtual for t in rows], np.bool_),
    }


def text_columns(texts: Iterable[tuple[int, int, str]]) -> dict[str, Any]:
    """Return the columns of the table `texts` from (tag, code, text)."""
    rows = list(texts)
    return {
        "tag": np.array([tag for tag, _, _ in rows], np.uint32),
        "code": np.array([code for _, code, _ in rows], np.uint32),
        "text": _texts([text for _, _, text in rows]),
    }


def _texts(values: list[str]) -> np.ndarray[Any, np.dtype[np.object_]]:
    return np.array(values, dtype=object)
