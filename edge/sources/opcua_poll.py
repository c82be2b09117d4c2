"""Timed reads: we ask for every value each period, where the server has no subscriptions or nobody wants them.

Owns the groups of equal period, the encoded requests, which do not change while the namespaces stay, and the sign of
life between two reads that lie far apart. Leaves the judgement of values to `Intake`.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from asyncua import ua
from asyncua.ua import UaStatusCodeError
from numpy.typing import NDArray

from edge import clock
from edge.errors import Disconnected
from edge.sources.opcua_decode import Decoder
from edge.sources.opcua_intake import Intake, explain
from edge.sources.opcua_items import Learned
from edge.sources.opcua_options import OpcuaOptions
from edge.sources.opcua_points import Namespaces, NodeAddress, Unresolved
from edge.sources.opcua_read import Encoded, PreparedRead, encode, prepare
from edge.sources.opcua_recovery import Lasting
from edge.sources.opcua_session import TOO_MUCH, Session
from edge.sources.opcua_wire import Malformed, parse_read
from plant.batch import EMPTY, Batch, concat
from plant.instant import NS_PER_MS, NS_PER_S

READS_MAX: Final = 3
"""Read requests on the way at once."""
SESSION_SHARE: Final = 3
"""A session hears from us at least this often within its time-out."""


@dataclass(slots=True, eq=False)
class _Group:
    """Points of one period. due: monotonic ns of the next read. requests: positions and their encoded nodes."""

    period_ns: int
    due: int
    requests: list[tuple[NDArray[np.intp], Encoded]]


class Poller:
    """The timed reads of one session. `start`, then `read` again and again, then `stop`."""

    def __init__(
        self,
        session: Session,
        options: OpcuaOptions,
        addresses: Sequence[NodeAddress],
        namespaces: Namespaces,
        intake: Intake,
        learned: Learned,
        nodes_per_read_max: int,
        lasting: Lasting,
    ) -> None:
        self._session = session
        self._options = options
        self._addresses = addresses
        self._namespaces = namespaces
        self._intake = intake
        self._learned = learned
        self._nodes_per_read_max = nodes_per_read_max
        self._lasting = lasting
        self._look_at = 0
        self._stamped_at = 0
        self._decoder = Decoder()
        self._groups: list[_Group] = []
        self._refused: set[int] = set()
        self._ready: list[Batch] = []
        self._retry_ns = int(options.retry_ms * NS_PER_MS)
        self._retry_at = 0
        self._asked_at = 0

    async def start(self) -> None:
        """Prepare the requests; the first read is due at once."""
        now = clock.now()
        self._asked_at = now.monotonic
        self._prepare(now.monotonic)
        if self._refused:
            self._ready.append(self._intake.refused(sorted(self._refused), now))
            self._retry_at = now.monotonic + self._retry_ns

    async def stop(self) -> None:
        """Nothing runs between two reads."""

    def _prepare(self, now: int) -> None:
        """Group and encode all points; those without a namespace on the server are refused."""
        due = {group.period_ns: group.due for group in self._groups}
        self._refused = set()
        members: dict[int, list[tuple[int, bytes]]] = {}
        for position, address in enumerate(self._addresses):
            point = self._intake.points[position]
            period_ms = self._options.period_ms if point.period_ms is None else point.period_ms
            try:
                node = encode(self._namespaces.resolve(address))
            except Unresolved as error:
                sentence = f"BadNodeIdUnknown: {error}; check {point.node} in tags.csv"
                self._intake.note(position, int(ua.StatusCodes.BadNodeIdUnknown), sentence)
                self._refused.add(position)
                continue
            members.setdefault(max(int(period_ms * NS_PER_MS), NS_PER_MS), []).append((position, node))
        size = min(self._learned.nodes_per_read, self._nodes_per_read_max)
        self._groups = [
            _Group(
                period_ns, due.get(period_ns, now), [prepare(some[at : at + size]) for at in range(0, len(some), size)]
            )
            for period_ns, some in sorted(members.items())
        ]

    async def read(self) -> Batch:
        """Wait until a group is due and read it. Raises Disconnected."""
        if self._ready:
            batches, self._ready = self._ready, []
            return concat(batches)
        now = await self._wait()
        if self._options.check_ms and now >= self._look_at:
            self._look_at = now + int(self._options.check_ms * NS_PER_MS)
            try:
                await self._lasting.canary.look(self._session, self._stamped_at)
            except UaStatusCodeError as error:
                raise Disconnected(f"{self._session.where} does not read any more: {explain(error.code)}") from error
        group = min(self._groups, key=lambda one: one.due, default=None)
        if group is None or group.due > now:
            await self._tend(now)
            return EMPTY
        # The grid of the period stays; what was missed while nobody asked is not made up for.
        group.due += group.period_ns * ((now - group.due) // group.period_ns + 1)
        self._asked_at = now
        batches = []
        try:
            for at in range(0, len(group.requests), READS_MAX):
                some = group.requests[at : at + READS_MAX]
                answers = await asyncio.gather(*(self._ask(nodes) for _, nodes in some))
                batches += [self._take(body, positions) for body, (positions, _) in zip(answers, some, strict=True)]
        except UaStatusCodeError as error:
            largest = max(len(positions) for positions, _ in group.requests)
            if error.code not in TOO_MUCH or largest == 1:
                raise Disconnected(f"{self._session.where} does not read any more: {explain(error.code)}") from error
            self._learned.nodes_per_read = max(largest // 2, 1)
            self._prepare(now)
            group.due = now
        return concat(batches)

    async def _wait(self) -> int:
        """Sleep until a group, a retry or a sign of life is due; return the monotonic ns."""
        alive_at = self._asked_at + self._options.session_timeout_s * NS_PER_S // SESSION_SHARE
        due = min([group.due for group in self._groups] + [alive_at] + ([self._retry_at] if self._retry_at else []))
        now = clock.now().monotonic
        if due > now:
            await asyncio.sleep((due - now) / NS_PER_S)
            now = max(clock.now().monotonic, due)
        return now

    async def _tend(self, now: int) -> None:
        """Ask whether the server is alive, and for namespaces that were missing."""
        self._asked_at = now
        try:
            uris = await self._session.read_namespaces()
        except UaStatusCodeError as error:
            raise Disconnected(f"{self._session.where} does not read any more: {explain(error.code)}") from error
        if self._refused and self._retry_at and now >= self._retry_at:
            before = self._refused
            self._namespaces.update(uris)
            self._prepare(now)
            grown = int(self._options.retry_ms_max * NS_PER_MS)
            first = int(self._options.retry_ms * NS_PER_MS)
            self._retry_ns = first if before - self._refused else min(self._retry_ns * 2, grown)
            self._retry_at = now + self._retry_ns if self._refused else 0

    async def _ask(self, nodes: Encoded) -> bytes:
        return await self._session.send(PreparedRead(NodesToRead=nodes))

    def _take(self, body: bytes, positions: NDArray[np.intp]) -> Batch:
        try:
            start, count = parse_read(body)
            columns, _ = self._decoder.decode(body, start, count, 0, len(body))
        except Malformed as error:
            raise Disconnected(f"{self._session.where} sent something that is no answer: {error}") from error
        if count != len(positions):
            raise Disconnected(f"{self._session.where} answered {count} of {len(positions)} nodes")
        before = self._intake.stamp[positions]
        batch = self._intake.take(columns, positions, clock.now(), asked=True)
        if (self._intake.stamp[positions] != before).any():
            self._stamped_at = clock.now().monotonic
        self._lasting.backlog.note(positions, self._intake.stamp[positions])
        return batch
