"""Timed reads: we ask for every value each period, where the server has no subscriptions or nobody wants them.

Owns the groups of equal period, the encoded requests, which do not change while the namespaces stay, and the sign of
life between two reads that lie far apart. Leaves the judgement of values to `Intake`.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from asyncua import ua
from asyncua.ua import UaStatusCodeError
from asyncua.ua.ua_binary import nodeid_to_binary
from numpy.typing import NDArray

from edge import clock
from edge.errors import Disconnected
from edge.sources.opcua_decode import Decoder
from edge.sources.opcua_intake import Intake, explain
from edge.sources.opcua_items import Learned
from edge.sources.opcua_options import OpcuaOptions
from edge.sources.opcua_points import Namespaces, NodeAddress, Unresolved
from edge.sources.opcua_session import TOO_MUCH, Session
from edge.sources.opcua_wire import Malformed, parse_read
from plant.batch import EMPTY, Batch, concat
from plant.instant import NS_PER_MS, NS_PER_S

READS_MAX: Final = 3
"""Read requests on the way at once."""
SESSION_SHARE: Final = 3
"""A session hears from us at least this often within its time-out."""

_VALUE_ATTRIBUTE: Final = b"\x0d\0\0\0" + b"\xff\xff\xff\xff" + b"\0\0" + b"\xff\xff\xff\xff"
"""Attribute 13, no index range, no data encoding: what follows the node in a ReadValueId (OPC 10000-4, 7.29)."""


class _Encoded(bytes):
    """Array elements that are encoded already. Their length, which OPC UA writes before them, is their number."""

    elements: int

    def __len__(self) -> int:
        return self.elements


@dataclass(slots=True, kw_only=True)
class _PreparedRead:
    """A ReadRequest (OPC 10000-4, 5.11.2) whose nodes are encoded once; asyncua writes the rest of it."""

    TypeId: ua.NodeId = field(
        default_factory=lambda: ua.FourByteNodeId(ua.ObjectIds.ReadRequest_Encoding_DefaultBinary)
    )
    RequestHeader: ua.RequestHeader = field(default_factory=ua.RequestHeader)
    MaxAge: ua.Double = 0.0
    TimestampsToReturn: ua.Int32 = int(ua.TimestampsToReturn.Both)
    NodesToRead: ua.ByteString


@dataclass(slots=True, eq=False)
class _Group:
    """Points of one period. due: monotonic ns of the next read. requests: positions and their encoded nodes."""

    period_ns: int
    due: int
    requests: list[tuple[NDArray[np.intp], _Encoded]]


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
    ) -> None:
        self._session = session
        self._options = options
        self._addresses = addresses
        self._namespaces = namespaces
        self._intake = intake
        self._learned = learned
        self._nodes_per_read_max = nodes_per_read_max
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
                node = nodeid_to_binary(self._namespaces.resolve(address))
            except Unresolved as error:
                sentence = f"BadNodeIdUnknown: {error}; check {point.node} in tags.csv"
                self._intake.note(position, int(ua.StatusCodes.BadNodeIdUnknown), sentence)
                self._refused.add(position)
                continue
            members.setdefault(max(int(period_ms * NS_PER_MS), NS_PER_MS), []).append((position, node))
        size = min(self._learned.nodes_per_read, self._nodes_per_read_max)
        self._groups = [
            _Group(
                period_ns, due.get(period_ns, now), [_request(some[at : at + size]) for at in range(0, len(some), size)]
            )
            for period_ns, some in sorted(members.items())
        ]

    async def read(self) -> Batch:
        """Wait until a group is due and read it. Raises Disconnected."""
        if self._ready:
            batches, self._ready = self._ready, []
            return concat(batches)
        now = await self._wait()
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

    async def _ask(self, nodes: _Encoded) -> bytes:
        return await self._session.send(_PreparedRead(NodesToRead=nodes))

    def _take(self, body: bytes, positions: NDArray[np.intp]) -> Batch:
        try:
            start, count = parse_read(body)
            columns, _ = self._decoder.decode(body, start, count, 0, len(body))
        except Malformed as error:
            raise Disconnected(f"{self._session.where} sent something that is no answer: {error}") from error
        if count != len(positions):
            raise Disconnected(f"{self._session.where} answered {count} of {len(positions)} nodes")
        return self._intake.take(columns, positions, clock.now(), asked=True)


def _request(members: Sequence[tuple[int, bytes]]) -> tuple[NDArray[np.intp], _Encoded]:
    nodes = _Encoded(b"".join(node + _VALUE_ATTRIBUTE for _, node in members))
    nodes.elements = len(members)
    return np.array([position for position, _ in members], np.intp), nodes
