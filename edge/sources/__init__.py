"""PLC -> Batch. One module per protocol, one supervisor for all.

A source connects, reads and closes; it never retries, sleeps for back-off or raises alarms: the supervisor does.
"""

from collections.abc import Mapping
from typing import Protocol

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
