"""PLC -> Batch. One module per protocol, one supervisor for all.

A source connects, reads and closes; it never retries, sleeps for back-off or raises alarms: the supervisor does.
"""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from plant.batch import Batch


class Source(Protocol):
    """One connection to one device.

    name: the device's name in the configuration. tags: uint32 indices of every tag that it reads.
    problems: tag index -> why this tag has no data now ("BadNodeIdUnknown: ns=2;s=X is not on the server");
        the others go on. Kept up to date by `connect` and `read`.
    lost: readings that the device or the protocol reported as lost (queue overflow), as a running total.
    """

    name: str
    tags: NDArray[np.uint32]
    lost: int

    @property
    def problems(self) -> Mapping[int, str]: ...

    async def connect(self) -> None:
        """Open the connection and set up everything. Raises Unreachable or Refused."""
        ...

    async def read(self) -> Batch:
        """Wait until data is due and return it. Raises Disconnected. Per-tag failures are BAD rows, not errors."""
        ...

    async def close(self) -> None:
        """Let go of the connection; idempotent, never raises for a dead peer, bounded in time."""
        ...


@dataclass(frozen=True, slots=True)
class Notice:
    """Something about a device that a person must see to, though data flows. A source that has such a thing keeps
    them in `notices`, by the last part of the alarm's name: {"certificate": Notice(...)}.
    """

    sentence: str
    priority: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """What came of filling the gap of a break. start, end: ns UTC, of the stretches that were asked for. count:
    readings that the device's history gave. tags: how many tags they are of. without: tags that changed and whose
    history cannot be read. cut: tags whose history held more than is taken.
    """

    start: int
    end: int
    count: int
    tags: int
    without: int
    cut: int


@runtime_checkable
class Historian(Protocol):
    """A source whose device records values while nobody listens."""

    def history(self) -> AsyncGenerator[Batch | Filled]:
        """Yield what was missed, in the background of a session, until that ends. Raises Disconnected.

        Readings lie strictly between two that `read` returned: none comes twice.
        """
        ...
