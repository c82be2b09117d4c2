"""The recordings as columns: read once with DuckDB, held as numpy arrays.

Owns reading and the check that a recording is complete; what a machine makes of it stands with the machine.
A missing recording is a `ConfigError` that names the file.
"""

from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
from numpy.typing import NDArray

from edge.errors import ConfigError, Problem

RECORDINGS_DIR = Path(__file__).parent / "recordings"

Column = NDArray[np.float64] | NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class Recording:
    """columns: name -> array of shape (rows,), float64 for numbers, str for text."""

    columns: dict[str, Column]
    rows: int

    def at(self, row: int) -> dict[str, float | str]:
        """Return one row as plain Python values."""
        return {name: column[row].item() for name, column in self.columns.items()}

    def numbers(self, name: str) -> NDArray[np.float64]:
        """Return a numeric column."""
        return self.columns[name].astype(np.float64)


def read(path: Path) -> Recording:
    """Read a Parquet recording in its order; Booleans and integers become float64, times are left out."""
    if not path.is_file():
        raise ConfigError(
            [Problem(str(path), 0, "the recording is missing", "see edge/simulator/recordings/README.md")]
        )
    with duckdb.connect() as db:
        table = db.execute("SELECT * FROM read_parquet(?)", [str(path)]).fetchnumpy()
    columns: dict[str, Column] = {}
    for name, values in table.items():
        array = np.asarray(values)
        if array.dtype.kind == "M":
            continue
        columns[name] = array.astype(np.str_) if array.dtype.kind in "OU" else array.astype(np.float64)
    return Recording(columns, len(next(iter(columns.values()))))


def pictures(folder: Path) -> list[Path]:
    """Return the pictures of a folder by name, as absolute paths."""
    found = sorted(path.resolve() for path in folder.glob("*") if path.suffix in {".png", ".jpg"})
    if not found:
        raise ConfigError([Problem(str(folder), 0, "holds no pictures", "see edge/simulator/recordings/README.md")])
    return found
