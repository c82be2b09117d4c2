"""`LoopLag`: how late the event loop is, measured by asking it for a wake-up and looking at when it came."""

import asyncio
from typing import Final

from edge import clock
from plant.instant import NS_PER_S

PERIOD_S: Final = 1.0


class LoopLag:
    """last_s: lateness of the newest wake-up. max_s: the worst since the start."""

    def __init__(self, period_s: float = PERIOD_S) -> None:
        self.period_s = period_s
        self.last_s = 0.0
        self.max_s = 0.0

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            asked = clock.now().monotonic
            await asyncio.sleep(self.period_s)
            self.last_s = max(0.0, (clock.now().monotonic - asked) / NS_PER_S - self.period_s)
            self.max_s = max(self.max_s, self.last_s)
