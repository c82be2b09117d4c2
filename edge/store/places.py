"""Where the stores lie below the state directory, and how they are opened at the start of the gateway."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge.journal import Journal, JournalError
from edge.ring import Ring, RingError
from edge.store.options import StorageOptions

_STEPS_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Places:
    """Paths below the state directory."""

    state_dir: Path

    @property
    def ring(self) -> Path:
        return self.state_dir / "ring"

    @property
    def journal(self) -> Path:
        return self.state_dir / "journal.sqlite"

    @property
    def backup(self) -> Path:
        return self.state_dir / "backup"

    @property
    def export(self) -> Path:
        return self.state_dir / "export"


def open_storage(state_dir: Path, options: StorageOptions, now: int) -> tuple[Ring, Journal]:
    """Open both stores of a gateway. now: ns UTC.

    The journal is open afterwards, restored or empty if it was damaged; the ring may be closed still, the store
    thread then goes on trying. Raises JournalError if events cannot be kept at all.
    """
    places = Places(state_dir)
    ring = Ring(places.ring, options, places.export)
    journal = _open_journal(places, options, ring)
    try:
        ring.open(now)
        if journal.origin != "kept":
            # Indices are for life: a journal that lost its tags learns them from the files that used them.
            journal.adopt_names(*ring.names_found())
    except RingError:
        return ring, journal
    return ring, journal


def _open_journal(places: Places, options: StorageOptions, ring: Ring) -> Journal:
    for _ in range(_STEPS_MAX):
        try:
            return Journal.open(places.journal, options, places.backup)
        except JournalError as error:
            # The journal comes first: for its sake the ring gives up its ballast, then its oldest file.
            if not error.full or not (ring.ballast.release() or ring.drop_oldest("disk_full")):
                raise
    raise JournalError(f"there is no space for {places.journal}", full=True)
