"""The ring's own trouble, sorted by what helps against it."""

import errno
from typing import Final

import duckdb

from edge.errors import StorageError

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_TEXTS: Final = ("No space left on device", "Disk quota exceeded", "File too large")
_BLAMELESS: Final = (errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EROFS)
_BLAMELESS_TEXTS: Final = (
    "Permission denied", "Operation not permitted", "Too many open files", "Cannot allocate memory",
    "Read-only file system", "Out of Memory",
)  # fmt: skip
_LOCK_TEXT: Final = "Could not set lock on file"


class RingError(StorageError):
    """The ring did not take or give what it was asked for.

    full: space on the disk would help. blameless: the files are not to blame (rights, limits, memory): setting one
    aside would help nobody.
    """

    def __init__(self, message: str, *, full: bool = False, blameless: bool = False) -> None:
        super().__init__(message)
        self.full = full
        self.blameless = blameless or full


class RingLocked(RingError):
    """Another process has the ring open: wait for it, nothing is wrong with the files."""


def ring_error(error: duckdb.Error | OSError, doing: str) -> RingError:
    """Turn an error of the engine or the operating system into ours; `doing` says what was tried."""
    text = str(error).split("\n", 1)[0]
    if isinstance(error, OSError):
        full, blameless = error.errno in _FULL, error.errno in _BLAMELESS
        return RingError(f"cannot {doing}: {error.strerror or text}", full=full, blameless=blameless)
    if _LOCK_TEXT in text:
        return RingLocked(f"cannot {doing}: another process has the file open", blameless=True)
    return RingError(
        f"cannot {doing}: {text}",
        full=any(sign in text for sign in _FULL_TEXTS),
        blameless=any(sign in text for sign in _BLAMELESS_TEXTS),
    )
