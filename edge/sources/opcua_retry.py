"""Nodes that the server refuses are tried again for ever, beside the others, with growing waits."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from asyncua.ua import UaStatusCodeError

from edge.sources.opcua_options import OpcuaOptions
from plant.instant import NS_PER_MS


class Retry:
    """Runs `attempt`, which returns whether a node came alive, at `at` (monotonic ns, 0 = nothing is due)."""

    def __init__(self, options: OpcuaOptions, attempt: Callable[[], Coroutine[Any, Any, bool]]) -> None:
        self.at = 0
        self._name = f"opcua-retry-{options.name}"
        self._attempt = attempt
        self._first_ns = int(options.retry_ms * NS_PER_MS)
        self._longest_ns = int(options.retry_ms_max * NS_PER_MS)
        self._wait_ns = self._first_ns
        self._task: asyncio.Task[bool] | None = None

    def plan(self, now: int) -> None:
        """Nodes are refused: try them again, unless that is planned or under way."""
        if not self.at and self._task is None:
            self.at = now + self._wait_ns

    def tend(self, now: int, *, wanted: bool) -> UaStatusCodeError | None:
        """Begin an attempt that is due, or see how it ended; wanted: nodes are refused. Returns what the server said
        if the whole attempt failed.
        """
        fault = None
        if self._task is not None and self._task.done():
            task, self._task = self._task, None
            try:
                if task.result():
                    self._wait_ns = self._first_ns
            except UaStatusCodeError as error:  # the same nodes, later
                fault = error
            self.at = now + self._wait_ns if wanted else 0
        elif self._task is None and self.at and now >= self.at:
            self.at = 0
            self._wait_ns = min(self._wait_ns * 2, self._longest_ns)
            self._task = asyncio.create_task(self._attempt(), name=self._name)
        return fault

    async def stop(self) -> None:
        """Break off an attempt."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
