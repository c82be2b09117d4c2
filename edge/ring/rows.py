"""Rows of a file of the ring: columns in, columns out."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import duckdb
import numpy as np

from edge.ring.names import Text, text_columns
from edge.ring.segment import Segment
from edge.ring.views import load
from plant.batch import SEVERITY, Batch

Counts = dict[str, Any]
"""Columns of the table `counts`: since (datetime64[us]), tag, received, kept, bad, dropped (uint32)."""
_ROWS: Final = """
SELECT epoch_us(time) AS time, tag, value, quality FROM {alias}.readings
WHERE rowid >= {start} AND rowid < {end} ORDER BY rowid
"""


def insert(
    connection: duckdb.DuckDBPyConnection,
    segment: Segment,
    batch: Batch,
    counts: Counts | None,
    texts: Sequence[Text],
) -> None:
    """Append readings, counts and texts to the open file in one transaction. Raises duckdb.Error."""
    readings = {
        "time": (batch.time // 1000).view("M8[us]"),
        "tag": batch.tag,
        "value": batch.value,
        "quality": batch.quality,
    }
    if counts is None and not texts:
        load(connection, f"{segment.alias}.readings", readings)
        return
    connection.begin()
    try:
        load(connection, f"{segment.alias}.readings", readings)
        if counts is not None:
            load(connection, f"{segment.alias}.counts", counts)
        if texts:
            load(connection, f"{segment.alias}.texts", text_columns(texts))
        connection.commit()
    except duckdb.Error:
        with suppress(duckdb.Error):
            connection.rollback()
        raise


def read(connection: duckdb.DuckDBPyConnection, segment: Segment, start: int, end: int) -> Batch:
    """Return the rows start..end-1 of a file, counted from its first. Raises duckdb.Error.

    Marks of the quality are left out, so that it compares with GOOD, UNCERTAIN and BAD.
    """
    columns = connection.execute(_ROWS.format(alias=segment.alias, start=start, end=end)).fetchnumpy()
    return Batch(
        np.asarray(columns["tag"], np.uint32),
        np.asarray(columns["time"], np.int64) * 1000,
        # NaN stands as NULL in the files: SQL then leaves a BAD reading out of a mean instead of spoiling it.
        np.ma.filled(columns["value"].astype(np.float64, copy=False), np.nan),
        np.asarray(columns["quality"], np.uint8) & np.uint8(SEVERITY),
    )
