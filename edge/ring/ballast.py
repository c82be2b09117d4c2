"""The ballast: a file that takes space only to give it back when the disk is full.

Unlinking a file works on a full disk, writing does not. What the ballast frees lets the ring finish its checkpoint
and the journal take the events of the trouble itself.
"""

import os
from pathlib import Path
from typing import Final

from edge.ring.errors import ring_error

BALLAST_NAME: Final = "ballast"


class Ballast:
    """The file `folder/ballast` of `size` bytes; 0 = no ballast."""

    def __init__(self, folder: Path, size: int) -> None:
        self.path = folder / BALLAST_NAME
        self.size = size

    @property
    def held(self) -> int:
        """Bytes that the file takes now."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    @property
    def complete(self) -> bool:
        """The ballast has its full size."""
        return self.held >= self.size

    def release(self) -> int:
        """Give the space back; return how many bytes that were."""
        held = self.held
        self.path.unlink(missing_ok=True)
        return held

    def fill(self) -> None:
        """Take the space, with blocks, not with a hole. Raises RingError and leaves nothing behind."""
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                if self.size:
                    os.posix_fallocate(descriptor, 0, self.size)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            self.path.unlink(missing_ok=True)
            raise ring_error(error, f"reserve {self.size} bytes in {self.path}") from error
