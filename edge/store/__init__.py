"""The store: one thread that owns ring and journal, and composes them for SQL, export and status."""

from edge.ring import Answer
from edge.store.options import StorageOptions
from edge.store.places import Places, open_storage
from edge.store.sql import Offline, open_offline
from edge.store.store import Store
from edge.store.writer import CommitReport

__all__ = [
    "Answer", "CommitReport", "Offline", "Places", "StorageOptions", "Store", "open_offline", "open_storage",
]  # fmt: skip
