"""The only place that reads a clock."""

import time

from plant.instant import Instant


def now() -> Instant:
    """Read both clocks."""
    return Instant(time.time_ns(), time.monotonic_ns())
