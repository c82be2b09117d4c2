"""What a person sees of the ring in SQL: `readings`, `tags`, `oee`, `ledger`, and the names of the rest.

Everything here lives in the memory of the engine and is made again at each start.
"""

from collections.abc import Sequence
from typing import Any, Final

import duckdb

from edge.ring.segment import Segment
from plant.batch import BACKFILL, SEVERITY, UNCERTAIN

KPIS: Final = (
    "oee", "availability", "performance", "quality", "nee", "teep", "utilisation", "produced", "rejected",
)  # fmt: skip
"""A virtual tag `<machine>.<one of these>` is a column of the view `oee`."""
COUNT_INTERVAL_MINUTES: Final = 10

BASE: Final = """
CREATE TABLE tags (
    index UINTEGER, tag VARCHAR, asset VARCHAR, device VARCHAR, unit VARCHAR, description VARCHAR,
    text BOOLEAN, virtual BOOLEAN);
CREATE TABLE texts (tag UINTEGER, code UINTEGER, text VARCHAR);
CREATE TABLE events (seq BIGINT, id VARCHAR, time TIMESTAMP, kind VARCHAR, asset VARCHAR, body VARCHAR);
CREATE TABLE alarm_book (seq BIGINT, body VARCHAR);
CREATE MACRO now() AS (get_current_timestamp() AT TIME ZONE 'UTC');
"""
"""`now()` is UTC without a zone, like `readings.time`: comparing with a zoned time would read every row."""

ALARMS: Final = """
CREATE OR REPLACE {scope} VIEW alarms AS
SELECT body->>'$.alarm' AS alarm, body->>'$.asset' AS asset, body->>'$.priority' AS priority,
       body->>'$.state' AS state, (body->>'$.active')::BOOLEAN AS active,
       (body->>'$.acknowledged')::BOOLEAN AS acknowledged, (body->>'$.annunciated')::BOOLEAN AS annunciated,
       (body->>'$.latched')::BOOLEAN AS latched, (body->>'$.shelved')::BOOLEAN AS shelved,
       (body->>'$.suppressed')::BOOLEAN AS suppressed, (body->>'$.out_of_service')::BOOLEAN AS out_of_service,
       body->>'$.occurrence' AS occurrence, body->>'$.transition' AS transition,
       make_timestamp((body->>'$.time')::BIGINT // 1000) AS time, body->>'$.tag' AS tag,
       (body->>'$.value')::DOUBLE AS value, (body->>'$.limit')::DOUBLE AS threshold,
       body->>'$.message' AS message, body->>'$.user' AS "user", seq
FROM alarm_book WHERE json_valid(body)
"""
LEDGER: Final = """
CREATE OR REPLACE {scope} VIEW ledger AS
SELECT since, since + INTERVAL {minutes} MINUTE AS until, t.tag, t.device, '' AS reason,
       sum(received)::BIGINT AS received, sum(kept)::BIGINT AS kept,
       sum(received - kept - dropped)::BIGINT AS suppressed, sum(bad)::BIGINT AS bad, sum(dropped)::BIGINT AS dropped,
       NULL::BIGINT AS backfilled
FROM counts JOIN tags t ON t.index = counts.tag
GROUP BY since, t.tag, t.device
UNION ALL
SELECT make_timestamp((body->>'$.start')::BIGINT // 1000), make_timestamp((body->>'$.end')::BIGINT // 1000),
       body->>'$.tag', body->>'$.device', body->>'$.reason',
       NULL, NULL, NULL, NULL, nullif((body->>'$.count')::BIGINT, -1), NULL
FROM events WHERE kind = 'gap' AND json_valid(body)
UNION ALL
SELECT make_timestamp((body->>'$.start')::BIGINT // 1000), make_timestamp((body->>'$.end')::BIGINT // 1000),
       '', body->>'$.device', 'backfill', NULL, NULL, NULL, NULL, NULL, (body->>'$.count')::BIGINT
FROM events WHERE kind = 'backfill' AND json_valid(body)
"""
_READINGS: Final = """
CREATE OR REPLACE VIEW readings AS
SELECT r.seq, r.time, t.tag, r.value, x.text, r.quality & {severity} AS quality, t.unit, t.asset,
       r.quality & {backfill} <> 0 AS backfilled
FROM ({rows}) r JOIN tags t ON t.index = r.tag LEFT JOIN texts x ON x.tag = r.tag AND x.code = r.value
"""
_ROWS: Final = "SELECT {first} + rowid AS seq, time, tag, value, quality FROM {alias}.readings"
_COUNTS: Final = "SELECT since, tag, received, kept, bad, dropped FROM {alias}.counts"
_OEE: Final = """
CREATE OR REPLACE VIEW oee AS
SELECT time, machine, asset, {filled} FROM (
    SELECT time, machine, asset, {pivoted} FROM (
        SELECT r.time, regexp_replace(t.tag, '\\.[^.]*$', '') AS machine, t.asset,
               split_part(t.tag, '.', -1) AS kpi, r.value
        FROM ({rows}) r JOIN tags t ON t.index = r.tag
        WHERE t.virtual AND split_part(t.tag, '.', -1) IN ({kpis}) AND r.quality >= {uncertain})
    GROUP BY time, machine, asset)
"""
_PIVOTED: Final = "max(value) FILTER (kpi = '{kpi}') AS {kpi}"
_FILLED: Final = "last_value({kpi} IGNORE NULLS) OVER (PARTITION BY machine ORDER BY time) AS {kpi}"


def create_base(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the tables that do not depend on files. Raises duckdb.Error."""
    connection.execute(BASE)
    connection.execute(ALARMS.format(scope=""))


def create_views(connection: duckdb.DuckDBPyConnection, segments: Sequence[Segment]) -> None:
    """Make the views over the files that are attached now. Raises duckdb.Error."""
    rows = " UNION ALL ".join(_ROWS.format(first=s.first, alias=s.alias) for s in segments)
    counts = " UNION ALL ".join(_COUNTS.format(alias=s.alias) for s in segments)
    connection.begin()
    try:
        connection.execute(_READINGS.format(rows=rows, severity=SEVERITY, backfill=BACKFILL))
        connection.execute(f"CREATE OR REPLACE VIEW counts AS {counts}")
        connection.execute(
            _OEE.format(
                uncertain=UNCERTAIN,
                rows=rows,
                kpis=", ".join(f"'{kpi}'" for kpi in KPIS),
                pivoted=", ".join(_PIVOTED.format(kpi=kpi) for kpi in KPIS),
                filled=", ".join(_FILLED.format(kpi=kpi) for kpi in KPIS),
            )
        )
        connection.execute(LEDGER.format(scope="", minutes=COUNT_INTERVAL_MINUTES))
        connection.commit()
    except duckdb.Error:
        connection.rollback()
        raise


def load(connection: duckdb.DuckDBPyConnection, table: str, columns: dict[str, Any]) -> None:
    """Append columns (numpy arrays of one length) to a table, matched by position. Raises duckdb.Error."""
    connection.register("columns_in", columns)
    try:
        connection.execute(f"INSERT INTO {table} SELECT * FROM columns_in")  # noqa: S608  (our own table names)
    finally:
        connection.unregister("columns_in")
