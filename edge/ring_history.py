"""Ring and journal as an outlet sees them that owes its hosts what happened while they were away."""

from collections.abc import Mapping
from typing import Any

from edge.store import Store
from plant.batch import Batch


class StoredHistory:
    """Reads the ring by number and keeps small values in the journal, on the store thread."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def recall(self, key: str) -> Mapping[str, Any] | None:
        """Return what was kept under a key, None if nothing was. Raises StorageError."""
        kept: Mapping[str, Any] | None = await self._store.call(lambda: self._store.journal.get_state(key))
        return kept

    async def keep(self, key: str, value: Mapping[str, Any]) -> None:
        """Keep a small value; it is on the disk when this returns. Raises StorageError."""
        await self._store.call(lambda: self._store.journal.put_state(key, dict(value)))

    async def position(self) -> int:
        """Return the number that the next reading will get, after all that was offered. Raises StorageError."""
        await self._store.flush()
        return await self._store.call(lambda: self._store.ring.next_seq)

    async def read(self, seq: int, limit: int) -> tuple[int, Batch]:
        """Return (number of the first reading, up to `limit` in order) from `seq` on. Raises StorageError."""
        return await self._store.call(lambda: self._store.ring.read_from(seq, limit))
