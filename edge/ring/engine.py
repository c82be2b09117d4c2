"""The database engine as the ring needs it: in memory, files attached, locked down before anybody's SQL reaches it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import duckdb

from edge.ring.options import RingOptions
from edge.ring.segment import quoted

_CONFIG: Final[dict[str, str | bool | int]] = {
    "threads": 1,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    # No spilling: a query that needs more memory than its share fails with a sentence, and the disk stays ours.
    "temp_directory": "",
}


def connect(options: RingOptions, folders: Sequence[Path]) -> duckdb.DuckDBPyConnection:
    """Open an engine that can touch files only below `folders`, and whose settings cannot be changed any more.

    Raises duckdb.Error.
    """
    connection = duckdb.connect(
        ":memory:", config={**_CONFIG, "memory_limit": f"{options.memory_bytes_max // 1_000_000}MB"}
    )
    allowed = ", ".join(f"'{quoted(folder.resolve())}/'" for folder in folders)
    for statement in (
        "SET GLOBAL TimeZone = 'UTC'",
        f"SET GLOBAL wal_autocheckpoint = '{options.wal_bytes // 1000}KB'",
        # An engine that is given up after an error must not write to files that the next one has open.
        "PRAGMA disable_checkpoint_on_shutdown",
        "SET GLOBAL python_enable_replacements = false",
        f"SET GLOBAL allowed_directories = [{allowed}]",
        "SET GLOBAL enable_external_access = false",
        "SET GLOBAL lock_configuration = true",
    ):
        connection.execute(statement)
    return connection
