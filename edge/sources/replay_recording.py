"""A recording in a file: which columns it must have, and its rows in order of time.

Owns the options of a recording and everything that DuckDB does with it; nothing here knows a clock or an event loop.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self

import duckdb
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from edge.errors import Refused, Unreachable
from plant.batch import GOOD
from plant.instant import NS_PER_MS, NS_PER_S

MEMORY_MIB_MAX: Final = 128
NAMES_IN_MESSAGE_MAX: Final = 20
_NUMERIC: Final = frozenset({
    "BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT",
    "UHUGEINT", "FLOAT", "DOUBLE", "DECIMAL",
})  # fmt: skip
_NS_PER_UNIT: Final = {"s": NS_PER_S, "ms": NS_PER_MS, "us": 1000, "ns": 1}


class ReplayOptions(BaseModel):
    """A recording that is played as if a device sent it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["replay"] = Field(description="Kind of device.")
    name: str = Field(description="Name of the device, as tags.csv refers to it.", min_length=1)
    asset: str = Field(default="", description='Where the device belongs: "area/line/cell".')
    path: Path = Field(description="The recording, .parquet or .csv; relative to the folder of gateway.toml.")
    layout: Literal["wide", "long"] = Field(
        default="wide", description="wide: a column per tag; long: a row per reading with tag, time, value, quality."
    )
    time_column: str = Field(default="time", description='Column of the time; "" if there is none (then step_ms).')
    time_unit: Literal["timestamp", "s", "ms", "us", "ns"] = Field(
        default="timestamp", description="timestamp: ISO 8601, UTC unless it states an offset; else since 1970 UTC."
    )
    step_ms: float = Field(
        default=0.0, description="Time between two rows of a wide recording without a time column.", ge=0, le=86_400_000
    )
    tag_column: str = Field(default="tag", description="long: column of the tag's name.")
    value_column: str = Field(default="value", description="long: column of the value.")
    quality_column: str = Field(
        default="", description='long: column of the OPC quality byte (192 good, 64 uncertain, 0 bad); "" = all good.'
    )
    times: Literal["original", "rebased"] = Field(
        default="rebased",
        description="original: as recorded; rebased: as if the recording began now (speed 0: as if it ended now).",
    )
    speed: float = Field(default=1.0, description="Times real time; 0 = as fast as it can be read.", ge=0, le=1e6)
    loop: bool = Field(default=False, description="Begin again at the end; else the device falls silent.")
    rows_per_read_max: int = Field(default=5_000, description="Most rows in memory at once.", ge=1, le=1_000_000)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.loop and self.speed == 0:
            raise ValueError("loop needs a speed above 0: a recording that repeats at once never ends")
        if not self.time_column and (self.layout == "long" or self.step_ms <= 0 or self.times == "original"):
            raise ValueError('time_column "" needs layout wide, step_ms above 0 and times rebased')
        return self


@dataclass(frozen=True, slots=True)
class ReplayPoint:
    """One tag of a recording. column: the column (wide) or the name in the tag column (long). text: interned."""

    tag: int
    column: str
    text: bool = False


class Recording:
    """The rows of a recording that matter, in order of time, in a temporary DuckDB file. Used from threads, one call
    at a time.

    Table `rows`. wide: t, c0, c1 ... (number or text, NULL = no reading, NaN = no number). long: t, p (position of
    the point), v, s, q.
    """

    def __init__(self, options: ReplayOptions, points: Sequence[ReplayPoint], path: Path) -> None:
        self.rows = 0
        self.rows_without_time = 0
        self.first = 0
        self.last = 0
        self._options = options
        self._points = points
        self._path = path
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._database: duckdb.DuckDBPyConnection | None = None

    def open(self) -> dict[int, str]:
        """Copy the recording; return the problems of tags that are not in it. Raises Unreachable or Refused."""
        self._folder = tempfile.TemporaryDirectory(prefix="andon-replay-")
        folder = Path(self._folder.name)
        self._database = duckdb.connect(
            str(folder / "rows.duckdb"),
            config={
                "memory_limit": f"{MEMORY_MIB_MAX}MiB",
                "threads": 1,
                "temp_directory": str(folder / "spill"),
                "autoinstall_known_extensions": False,
                "TimeZone": "UTC",
            },
        )
        try:
            columns = self._columns()
            problems = self._check(columns)
            self._copy(columns)
            count, first, last = self._sql("SELECT count(*), min(t), max(t) FROM rows").fetchall()[0]
        except duckdb.Error as error:
            raise Unreachable(f"recording {self._path} cannot be read: {_first_line(error)}") from error
        if not count:
            raise Refused(
                f"recording {self._path} has no row with a time in column {self._options.time_column!r}; "
                f"check time_column and time_unit (now {self._options.time_unit})"
            )
        self.rows, self.first, self.last = int(count), int(first), int(last)
        return problems

    def fetch(self, first: int, last: int) -> dict[str, NDArray[Any]]:
        """Return the columns of the rows first..last-1 as (masked) arrays."""
        assert self._database is not None
        query = "SELECT * FROM rows WHERE rowid >= ? AND rowid < ? ORDER BY rowid"
        columns: dict[str, NDArray[Any]] = self._database.execute(query, [first, last]).fetchnumpy()
        return columns

    def close(self) -> None:
        """Close the database and remove its folder."""
        if self._database is not None:
            self._database.close()
            self._database = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _sql(self, query: str, *parameters: object) -> duckdb.DuckDBPyConnection:
        assert self._database is not None
        return self._database.execute(query, list(parameters))

    @property
    def _table(self) -> str:
        # A CSV file is read as text: what a cell is is decided cell by cell, not from the first lines of the file.
        reader = "read_parquet(?)" if self._path.suffix == ".parquet" else "read_csv(?, all_varchar = true)"
        return f"(FROM {reader})"

    def _columns(self) -> dict[str, str]:
        """Return column -> SQL type."""
        described = self._sql(f"DESCRIBE {self._table}", str(self._path)).fetchall()
        return {str(row[0]): str(row[1]) for row in described}

    def _check(self, columns: dict[str, str]) -> dict[int, str]:
        options = self._options
        needed = [options.time_column] if options.time_column else []
        if options.layout == "long":
            needed += [options.tag_column, options.value_column]
            needed += [options.quality_column] if options.quality_column else []
        missing = [name for name in needed if name not in columns]
        if missing:
            have = ", ".join(list(columns)[:NAMES_IN_MESSAGE_MAX])
            raise Refused(f"recording {self._path} has no column {', '.join(missing)}; it has {have}")
        if options.layout == "long":
            query = f"SELECT DISTINCT {_name(options.tag_column)}::VARCHAR FROM {self._table}"  # noqa: S608 - quoted
            names = {str(row[0]) for row in self._sql(query, str(self._path)).fetchall()}
            where = f"column {options.tag_column}"
        else:
            names = set(columns)
            where = "columns"
        return {
            point.tag: f"{point.column!r} is not among the {where} of {self._path}; check the address in tags.csv"
            for point in self._points
            if point.column not in names
        }

    def _copy(self, columns: dict[str, str]) -> None:
        query = self._long(columns) if self._options.layout == "long" else self._wide(columns)
        self._sql(f"CREATE TABLE every AS {query}", str(self._path))
        self.rows_without_time = int(self._sql("SELECT count(*) FROM every WHERE t IS NULL").fetchall()[0][0])
        self._sql("CREATE TABLE rows AS SELECT * FROM every WHERE t IS NOT NULL ORDER BY t")
        self._sql("DROP TABLE every")

    def _time(self) -> str:
        options = self._options
        if not options.time_column:
            return f"CAST((row_number() OVER () - 1) * {options.step_ms * NS_PER_MS:.0f} AS BIGINT)"
        column = _name(options.time_column)
        if options.time_unit == "timestamp":
            return f"epoch_ns(TRY_CAST({column} AS TIMESTAMPTZ))"
        return f"TRY_CAST(TRY_CAST({column} AS DECIMAL(38, 9)) * {_NS_PER_UNIT[options.time_unit]} AS BIGINT)"

    def _wide(self, columns: dict[str, str]) -> str:
        cells = [
            f"{_name(p.column)}::VARCHAR AS c{i}"
            if p.text
            else f"{_number(_name(p.column), columns[p.column])} AS c{i}"
            for i, p in enumerate(self._points)
            if p.column in columns
        ]
        return f"SELECT {', '.join([f'{self._time()} AS t', *cells])} FROM {self._table}"  # noqa: S608 - quoted

    def _long(self, columns: dict[str, str]) -> str:
        options = self._options
        self._sql("CREATE TABLE points (p INTEGER, name VARCHAR)")
        for i, point in enumerate(self._points):
            self._sql("INSERT INTO points VALUES (?, ?)", i, point.column)
        value = _name(options.value_column)
        quality = f"TRY_CAST({_name(options.quality_column)} AS INTEGER)" if options.quality_column else "192"
        # The top two bits of the byte are the quality; anything that is no quality is bad.
        quality = f"CASE coalesce({quality}, 0) & 192 WHEN 192 THEN 192 WHEN 64 THEN 64 ELSE 0 END"
        quality = quality if options.quality_column else str(GOOD)
        number = _number(value, columns[options.value_column])
        cells = f"{self._time()} AS t, p, {number} AS v, {value}::VARCHAR AS s, {quality} AS q"
        names = f"points ON points.name = r.{_name(options.tag_column)}::VARCHAR"
        return f"SELECT {cells} FROM {self._table} AS r JOIN {names}"  # noqa: S608 - quoted


def _name(column: str) -> str:
    """Quote an identifier."""
    return '"' + column.replace('"', '""') + '"'


def _number(column: str, sql_type: str) -> str:
    """SQL: a number as it is, true and false as 1 and 0, anything else NaN, nothing stays NULL."""
    if sql_type.partition("(")[0] in _NUMERIC:
        return f"CAST({column} AS DOUBLE)"
    text = f"{column}::VARCHAR"
    truth = f"CASE lower({text}) WHEN 'true' THEN 1.0 WHEN 'false' THEN 0.0 ELSE 'nan'::DOUBLE END"
    return f"CASE WHEN {column} IS NULL THEN NULL ELSE coalesce(TRY_CAST({text} AS DOUBLE), {truth}) END"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
