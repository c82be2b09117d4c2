"""A recording as rows in order of time, whoever wrote it.

Owns the shapes that a file may have: long (columns tag, time, value and if wanted text and quality: what `andon export`
writes) or wide (column time, and a column per tag). Leaves to `run` what the rows mean. Works on a copy in a temporary
DuckDB file, so memory is bounded however long the recording is.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import duckdb
import numpy as np
from numpy.typing import NDArray

from edge.errors import StorageError
from edge.tick import Signal

MEMORY_MIB_MAX: Final = 256
CHUNK_ROWS: Final = 200_000
NAMES_MAX: Final = 100_000
NEVER: Final = np.iinfo(np.int64).max

_TIMES_MAX: Final = (("s", 10**11, 10**9), ("ms", 10**14, 10**6), ("us", 10**17, 10**3))
"""A bare number is s, ms, us or ns since 1970: the first of them that gives a time before the year 5138."""
_ROWS: Final = """
CREATE TABLE rows AS
SELECT t, p, v, s, q, lead(t) OVER (PARTITION BY p ORDER BY t, n) AS next FROM (
    SELECT t, n, names.p AS p, v, s, q FROM every JOIN names ON names.name = every.name
    WHERE t >= {start} AND t < {end})
ORDER BY t, n, p
"""


@dataclass(frozen=True, slots=True)
class Rows:
    """n rows in order of time. time, next: ns UTC; next: when the same name comes again, NEVER if it does not.

    name: position in `Recording.names`. value: NaN where there is no number. text: None where there is none.
    quality: 192, 64 or 0.
    """

    time: NDArray[np.int64]
    next: NDArray[np.int64]
    name: NDArray[np.int64]
    value: NDArray[np.float64]
    text: NDArray[np.object_]
    quality: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.time)


class Recording:
    """The rows of [start, end) (ns UTC) of a file. Use as a context manager. Raises StorageError on entry.

    signals: (ns UTC, what reached the line besides readings), ascending: a gateway's journal knows them, a file does
    not. note: what a reader of the result must know.
    """

    def __init__(
        self,
        path: Path,
        start: int = 0,
        end: int = NEVER,
        signals: tuple[tuple[int, Signal], ...] = (),
        note: str = "",
    ) -> None:
        self.path = path
        self.signals = signals
        self.note = note
        self.names: list[str] = []
        self.rows = 0
        self.first = 0
        self.last = 0
        self.rows_without_time = 0
        self._start = start
        self._end = end
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._database: duckdb.DuckDBPyConnection | None = None

    def __enter__(self) -> Self:
        try:
            self._open()
        except duckdb.Error as error:
            self.close()
            raise StorageError(f"recording {self.path} cannot be read: {str(error).splitlines()[0]}") from error
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the copy; idempotent."""
        database, self._database = self._database, None
        if database is not None:
            database.close()
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.cleanup()

    def chunks(self, rows_max: int = CHUNK_ROWS) -> Iterator[Rows]:
        """Yield the rows in order."""
        assert self._database is not None
        for first in range(0, self.rows, rows_max):
            found: dict[str, Any] = self._database.execute(
                "SELECT t, p, v, s, q, next FROM rows WHERE rowid >= ? AND rowid < ? ORDER BY rowid",
                [first, first + rows_max],
            ).fetchnumpy()
            following = np.ma.filled(np.ma.asarray(found["next"], np.int64), NEVER)
            yield Rows(
                np.asarray(found["t"], np.int64),
                np.asarray(following, np.int64),
                np.asarray(found["p"], np.int64),
                np.ma.filled(np.ma.asarray(found["v"], np.float64), np.nan),
                _texts(found["s"]),
                np.asarray(found["q"], np.uint8),
            )

    def _open(self) -> None:
        if not self.path.is_file():
            raise StorageError(f"there is no recording {self.path}: check the path")
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
        self._copy()

    def _copy(self) -> None:
        database = self._database
        assert database is not None
        source = self._source()
        described = database.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()  # noqa: S608 - the path is quoted
        columns = {str(name): str(kind) for name, kind, *_ in described}
        database.execute(f"CREATE TABLE every AS {self._select(source, columns)}")
        names = database.execute("SELECT DISTINCT name FROM every ORDER BY name").fetchmany(NAMES_MAX + 1)
        if len(names) > NAMES_MAX:
            raise StorageError(f"recording {self.path} has more than {NAMES_MAX} tags")
        self.names = [str(name) for (name,) in names]
        (self.rows_without_time,) = database.execute("SELECT count(*) FROM every WHERE t IS NULL").fetchone() or (0,)
        database.execute("CREATE TABLE names AS SELECT name, row_number() OVER (ORDER BY name) - 1 AS p FROM "
                         "(SELECT DISTINCT name FROM every)")  # fmt: skip
        database.execute(_ROWS.format(start=self._start, end=self._end))
        database.execute("DROP TABLE every")
        row = database.execute("SELECT count(*), min(t), max(t) FROM rows").fetchone()
        self.rows, self.first, self.last = (int(cell or 0) for cell in row or (0, 0, 0))
        if not self.rows:
            raise StorageError(f"recording {self.path} holds no reading in the time that was asked for")

    def _source(self) -> str:
        path = str(self.path.absolute()).replace("'", "''")
        return (
            f"read_csv('{path}', sample_size = -1)" if self.path.suffix.lower() == ".csv" else f"read_parquet('{path}')"
        )

    def _select(self, source: str, columns: dict[str, str]) -> str:
        """Return the query that makes (t, n, name, v, s, q) of either shape."""
        if "time" not in columns:
            raise StorageError(
                f"recording {self.path} has no column time: expected tag, time, value (and text, quality) with a row "
                "per reading, or time and a column per tag"
            )
        time = _time_of(columns["time"])
        if {"tag", "value"} <= columns.keys():
            text = "text::VARCHAR" if "text" in columns else "NULL"
            order = "seq" if "seq" in columns else "row_number() OVER ()"
            quality = "quality" if "quality" in columns else "192"
            cells = (
                f"{time} AS t, {order} AS n, tag::VARCHAR AS name, value::VARCHAR AS x, {text} AS said, {quality} AS q"
            )
            inner = f"SELECT {cells} FROM {source}"  # noqa: S608 - names of columns are ours, the path is quoted
        else:
            wide = f"SELECT {time} AS t, row_number() OVER () AS n, COLUMNS(* EXCLUDE (time))::VARCHAR FROM {source}"  # noqa: S608
            inner = (
                "SELECT t, n, name, x, NULL AS said, 192 AS q "  # noqa: S608
                f"FROM ({wide}) UNPIVOT (x FOR name IN (* EXCLUDE (t, n)))"
            )
        number = "coalesce(TRY_CAST(x AS DOUBLE), CASE lower(x) WHEN 'true' THEN 1.0 WHEN 'false' THEN 0.0 END)"
        # The top two bits of the byte are the quality; anything that is no quality is bad.
        quality = "CASE coalesce(TRY_CAST(q AS INTEGER), 0) & 192 WHEN 192 THEN 192 WHEN 64 THEN 64 ELSE 0 END"
        return f"SELECT t, n, name, {number} AS v, coalesce(said, x) AS s, {quality} AS q FROM ({inner})"  # noqa: S608


def _time_of(kind: str) -> str:
    if kind.startswith(("TIMESTAMP", "DATE")):
        return "epoch_ns(time)" if kind != "DATE" else "epoch_ns(time::TIMESTAMP)"
    if kind == "VARCHAR":
        return "epoch_ns(TRY_CAST(time AS TIMESTAMPTZ))"
    cases = " ".join(f"WHEN abs(time) < {below} THEN {factor}" for _, below, factor in _TIMES_MAX)
    return f"CAST(time::DECIMAL(38, 9) * (CASE {cases} ELSE 1 END) AS BIGINT)"


def _texts(column: Any) -> NDArray[np.object_]:
    texts = np.array(np.ma.getdata(column), object)
    texts[np.ma.getmaskarray(column)] = None
    return texts
