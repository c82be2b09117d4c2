"""The journal: events, alarm book, cursors, tags, texts and small state in one SQLite file.

A sibling of the ring: neither knows the other. `edge.store` owns both.
"""

from edge.journal.errors import JournalError
from edge.journal.journal import Described, Journal
from edge.journal.options import JournalOptions
from edge.journal.reader import Columns, read_columns, read_names, read_states
from edge.journal.records import TagRecord

__all__ = [
    "Columns",
    "Described",
    "Journal",
    "JournalError",
    "JournalOptions",
    "TagRecord",
    "read_columns",
    "read_names",
    "read_states",
]
