"""The ring: readings in a folder of DuckDB files, one per stretch of time, bounded by bytes and age.

A sibling of the journal: neither knows the other. `edge.store` owns both.
"""

from edge.ring.errors import RingError, RingLocked
from edge.ring.folder import Damage, Dropped
from edge.ring.names import TagRow, Text
from edge.ring.options import RingOptions
from edge.ring.reader import Answer, Extra, export, is_damage, query
from edge.ring.ring import Ring
from edge.ring.rows import Counts

__all__ = [
    "Answer", "Counts", "Damage", "Dropped", "Extra", "Ring", "RingError", "RingLocked", "RingOptions", "TagRow",
    "Text", "export", "is_damage", "query",
]  # fmt: skip
