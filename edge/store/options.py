"""The `[storage]` section: what a plant may set about ring, journal and the thread that owns both."""

from pydantic import Field

from edge.journal import JournalOptions
from edge.ring import RingOptions


class StorageOptions(RingOptions, JournalOptions):
    """The `[storage]` section."""

    commit_period_ms: int = Field(
        default=200, ge=100, le=250, description="Readings and events are committed in groups of this length, in ms."
    )
    queue_bytes_max: int = Field(
        default=32_000_000,
        ge=1_000_000,
        le=1_000_000_000,
        description="Memory for readings that wait for the disk; beyond it the oldest readings go, never an event.",
    )
    query_rows_max: int = Field(default=100_000, ge=1, le=1_000_000, description="Rows that one query may return.")
    query_timeout_s: float = Field(default=60, gt=0, le=600, description="Time that one query may take, in seconds.")
