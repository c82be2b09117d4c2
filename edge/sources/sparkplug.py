"""Sparkplug B edge nodes as a source: births, data and deaths of the nodes of one group, as any host hears them.

Publishes one thing only, and only if allowed: the request for a birth, where a node is not known or messages are
missing (`request_rebirth`). It is no primary host: it publishes no STATE, and nodes that wait for one wait on.

Values that a node kept while nobody listened (`is_historical`) never become live values: they come out of `history`.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import structlog
from numpy.typing import NDArray

from edge import clock as edge_clock
from edge.errors import Disconnected, Refused
from edge.mqtt.wire import Message
from edge.sources import Filled
from edge.sources.mqtt_rows import Problems
from edge.sources.mqtt_session import Arrived, Session
from edge.sources.sparkplug_node import Counts, EdgeNode, Rows
from edge.sources.sparkplug_points import SparkplugPoint, SparkplugSourceOptions, parse_metric
from edge.sparkplug_payload import NAMESPACE, REBIRTH, DataType, Payload
from plant.batch import EMPTY, Batch
from plant.instant import NS_PER_MS, NS_PER_S, Instant
from plant.texts import Texts

__all__ = ["SparkplugPoint", "SparkplugSource", "SparkplugSourceOptions", "parse_metric"]

KINDS: Final = frozenset({"NBIRTH", "DBIRTH", "NDATA", "DDATA", "NDEATH", "DDEATH"})
REBIRTH_S_MAX: Final = 3600.0
SETTLE_S: Final = 5.0
"""The births of the devices follow that of their node at once; those that have not come by then are not there."""
HISTORICAL_ROWS_MAX: Final = 500_000
"""Kept readings that wait to be fetched; then the oldest are dropped and counted as lost."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Asking:
    """When a node may be asked for its birth again (monotonic ns), and how long to wait after that (seconds)."""

    due: int
    wait_s: float


class SparkplugSource:
    """See edge.sources.Source and edge.sources.Historian. lost: messages that the sequence numbers show to be missing,
    messages dropped because the gateway was too slow, and kept readings that nobody fetched.
    """

    lost_reason: Final = "messages_missing"

    def __init__(
        self,
        options: SparkplugSourceOptions,
        points: Sequence[SparkplugPoint],
        texts: Texts,
        clock: Callable[[], Instant] = edge_clock.now,
    ) -> None:
        self.name = options.name
        self.tags: NDArray[np.uint32] = np.array([point.tag for point in points], np.uint32)
        self.lost = 0
        self.counts = Counts()
        self._options = options
        self._clock = clock
        self._session = Session(options, clock)
        self._problems = Problems()
        self._nodes = {
            name: EdgeNode(name, [p for p in points if p.node == name], texts, self._problems, self.counts)
            for name in sorted({point.node for point in points})
        }
        self._asking: dict[str, _Asking] = {}
        self._is_open = False
        self._opened_at = 0
        self._settle_at = 0
        self._misses_told = False
        self._historical: deque[Batch] = deque()
        self._historical_rows = 0
        self._historical_dropped = 0
        self._historical_came = asyncio.Event()

    @property
    def problems(self) -> Mapping[int, str]:
        return self._problems.tell()

    async def connect(self) -> None:
        """Connect, subscribe, and ask every node for its birth. Raises Unreachable or Refused."""
        self._is_open = False
        prefix = f"{NAMESPACE}/{self._options.group_id}/+"
        filters = [f"{prefix}/{name}/#" for name in self._nodes]
        # QoS 1 for the deaths (6.4.7); births and data are published with 0 and stay so.
        refused = await self._session.open(filters, qos=1)
        for node in self._nodes.values():
            node.restart()
            self._hasten(node)
        self._problems.forget()
        if filters and len(refused) == len(filters):
            why = next(iter(refused.values()))
            raise Refused(
                f"{self._session.peer}: the broker refuses every subscription: {why}; check its access control"
            )
        for name, node in self._nodes.items():
            if f"{prefix}/{name}/#" in refused:
                why = f"the broker refuses the subscription to edge node {name}; check its access control"
                for point in node.points:
                    self._problems.set(point.tag, why)
        self._opened_at = self._clock().monotonic
        self._settle_at = 0
        self._misses_told = False
        self._is_open = True

    async def read(self) -> Batch:
        """Wait for messages and return their readings; an empty batch now and then while none come.

        Raises Disconnected.
        """
        if not self._is_open:
            raise Disconnected(f"{self._session.peer} is not connected")
        # Before the wait too: the first births are asked for at once.
        self._ask_for_births()
        messages = await self._session.messages()
        rows = Rows()
        for message in messages:
            self._take(rows, message)
        self._look_around(rows)
        self._ask_for_births()
        if rows.historical.tag:
            self._keep_historical(rows.historical.to_batch())
        self.lost = self.counts.missed + self._session.dropped + self._historical_dropped
        return rows.live.to_batch() if rows.live.tag else EMPTY

    async def close(self) -> None:
        """Say goodbye to the broker; idempotent."""
        self._is_open = False
        self._historical_came.set()
        await self._session.close()

    async def history(self) -> AsyncGenerator[Batch | Filled]:
        """Yield the readings that nodes kept while nobody listened, as they come. Raises Disconnected at the end."""
        while self._is_open:
            self._historical_came.clear()
            while self._historical:
                batch = self._historical.popleft()
                self._historical_rows -= len(batch)
                yield batch
            await self._historical_came.wait()
        raise Disconnected(f"{self._session.peer} is not connected")

    def _take(self, rows: Rows, arrived: Arrived) -> None:
        time, message = arrived
        levels = message.topic.split("/")
        if len(levels) not in (4, 5) or levels[2] not in KINDS or (len(levels) == 5) != (levels[2][0] == "D"):
            return
        node = self._nodes.get(levels[3])
        # Nothing of Sparkplug's is retained but STATE: what a broker has kept is of an unknown age.
        if node is None or message.retain:
            return
        if len(message.payload) > self._options.payload_size_max:
            node.wants_birth = f"a message {levels[2]} is larger than payload_size_max"
            return
        node.take(rows, levels[2], levels[4] if len(levels) == 5 else "", message.payload, time)
        if not node.is_born:
            self._hasten(node)
        elif levels[2] == "NBIRTH":
            self._hasten(node)
            self._settle_at = self._clock().monotonic + round(SETTLE_S * NS_PER_S)

    def _look_around(self, rows: Rows) -> None:
        """Find out what did not come: devices that were not born with their node, nodes that say nothing."""
        now = self._clock()
        if self._settle_at and now.monotonic >= self._settle_at:
            self._settle_at = 0
            for node in self._nodes.values():
                node.settle(rows, now.utc)
        wait_s = self._options.first_message_s
        if wait_s and not self._misses_told and now.monotonic - self._opened_at >= wait_s * NS_PER_S:
            self._misses_told = True
            for node in self._nodes.values():
                why = (
                    f"no birth of edge node {node.name} in group {self._options.group_id} in the first {wait_s:g} s; "
                    "check its name, the group and whether it runs"
                )
                for point in node.points if not node.is_born else ():
                    self._problems.note(point.tag, why)

    def _ask_for_births(self) -> None:
        if not self._options.request_rebirth:
            return
        now = self._clock()
        for name, node in self._nodes.items():
            if not node.wants_birth:
                continue
            asking = self._asking.setdefault(name, _Asking(0, self._options.rebirth_interval_s))
            if now.monotonic < asking.due:
                continue
            asking.due = now.monotonic + round(asking.wait_s * NS_PER_S)
            asking.wait_s = min(2 * asking.wait_s, max(REBIRTH_S_MAX, self._options.rebirth_interval_s))
            log.debug("rebirth requested", device=self.name, edge_node=name, reason=node.wants_birth)
            topic = f"{NAMESPACE}/{self._options.group_id}/NCMD/{name}"
            self._session.send(Message(topic, rebirth_request(now.utc), qos=0))

    def _hasten(self, node: EdgeNode) -> None:
        """The node may be there: ask again soon, though not sooner than the interval allows."""
        asking = self._asking.get(node.name)
        if asking is not None:
            wait_s = self._options.rebirth_interval_s
            asking.due = min(asking.due, self._clock().monotonic + round(wait_s * NS_PER_S))
            asking.wait_s = wait_s

    def _keep_historical(self, batch: Batch) -> None:
        self._historical.append(batch)
        self._historical_rows += len(batch)
        while self._historical_rows > HISTORICAL_ROWS_MAX:
            dropped = len(self._historical.popleft())
            self._historical_rows -= dropped
            self._historical_dropped += dropped
        self._historical_came.set()


def rebirth_request(time: int) -> bytes:
    """Return the payload of an NCMD that asks for all births. time: ns UTC."""
    payload = Payload(timestamp=time // NS_PER_MS)
    payload.metrics.add(name=REBIRTH, timestamp=time // NS_PER_MS, datatype=int(DataType.BOOLEAN), boolean_value=True)
    data: bytes = payload.SerializeToString()
    return data
