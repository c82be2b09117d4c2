"""Back-fill: what a server recorded while we could not listen, read from its history beside the live values.

Owns the HistoryRead service (OPC 10000-11, 6.5.3: raw values) in bounded chunks, slowly: after each answer it pauses at
least as long as the answer took. Leaves to the backlog what is missing, and to whoever iterates where it goes.
"""

import asyncio
import struct
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
from asyncua import ua
from asyncua.ua import UaStatusCodeError

from edge import clock
from edge.errors import Disconnected
from edge.sources import Filled
from edge.sources.opcua_backlog import Backlog, Span
from edge.sources.opcua_decode import Decoder
from edge.sources.opcua_intake import Intake
from edge.sources.opcua_options import OpcuaOptions
from edge.sources.opcua_points import Namespaces, NodeAddress, Unresolved
from edge.sources.opcua_session import TOO_MUCH, Session, codes
from edge.sources.opcua_wire import HistoryPart, Malformed, parse_history
from plant.batch import Batch, concat
from plant.instant import NS_PER_MS, NS_PER_S

NODES_PER_CALL: Final = 10
ROWS_PER_NODE: Final = 1000
"""Values of one node in one answer."""
NEARBY_NS: Final = 10 * NS_PER_S
"""Stretches that begin within this time are asked for together: one call has one start for all its nodes."""
SETTLE_S: Final = 0.25
"""The points of a device come back within this time of each other."""
ANSWER_S_MAX: Final = 30.0
"""A historian may have to look on a disk."""
CALLS_MAX: Final = 100_000
"""Answers for one group of nodes; a server that always has more is cut."""
_HISTORY_READ: Final = 0x04
"""The bit of AccessLevel that allows reading the history (OPC 10000-3, 8.57)."""
_ACCESS: Final = 100
"""Nodes whose access level is read in one call."""
_FEWER: Final = TOO_MUCH | codes("BadNoContinuationPoints", "BadTooManyOperations", "BadTimeout")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class History:
    """The history of one session's server."""

    def __init__(
        self,
        session: Session,
        options: OpcuaOptions,
        addresses: Sequence[NodeAddress],
        namespaces: Namespaces,
        intake: Intake,
        backlog: Backlog,
    ) -> None:
        self._session = session
        self._options = options
        self._addresses = addresses
        self._namespaces = namespaces
        self._intake = intake
        self._backlog = backlog
        self._decoder = Decoder()
        self._access: dict[int, bool] = {}
        self._nodes_per_call = NODES_PER_CALL

    async def parts(self) -> AsyncGenerator[Batch | Filled]:
        """Yield what was missed, oldest first within a point, and after each break what came of it.

        Ends never; raises Disconnected. A part counts as delivered when the next one is asked for.
        """
        while True:
            await self._backlog.wait()
            await asyncio.sleep(SETTLE_S)
            while self._backlog.spans:
                group = await self._next_group()
                async for batch in self._read(group):
                    yield batch
            yield self._backlog.report()

    async def _next_group(self) -> list[Span]:
        """Return stretches that lie side by side and whose nodes have a history; they stay in the backlog."""
        spans = self._backlog.spans
        unknown = list(dict.fromkeys(span.position for span in spans if span.position not in self._access))
        for first in range(0, len(unknown), _ACCESS):
            await self._ask_access(unknown[first : first + _ACCESS])
        for span in [span for span in spans if not self._access[span.position]]:
            spans.remove(span)
            self._backlog.close(span, has_history=False)
        if not spans:
            return []
        oldest = min(span.since for span in spans)
        near = [span for span in spans if span.since - oldest <= NEARBY_NS]
        group = {span.position: span for span in reversed(near)}  # the first of each point
        return list(group.values())[-self._nodes_per_call :]

    async def _ask_access(self, positions: Sequence[int]) -> None:
        """Learn which nodes allow us to read their history."""
        known = []
        for position in positions:
            self._access[position] = False
            try:
                known.append((position, self._namespaces.resolve(self._addresses[position])))
            except Unresolved:
                continue
        request = ua.ReadRequest()
        request.Parameters.NodesToRead = [
            ua.ReadValueId(node, attribute)
            for _, node in known
            for attribute in (ua.AttributeIds.AccessLevel, ua.AttributeIds.UserAccessLevel)
        ]
        if not known:
            return
        try:
            results = (await self._session.call(request, ua.ReadResponse)).Results
        except UaStatusCodeError:
            return
        levels = [int(one.Value.Value or 0) if one.Value is not None else 0 for one in results]
        for (position, _), level, user in zip(known, levels[::2], levels[1::2], strict=True):
            self._access[position] = bool(level & user & _HISTORY_READ)

    async def _read(self, group: list[Span]) -> AsyncGenerator[Batch]:
        """Read a group of stretches to their ends."""
        points: dict[int, Any] = {span.position: None for span in group}
        active = list(group)
        for _ in range(CALLS_MAX):
            if not active:
                return
            began = clock.now().monotonic
            try:
                body = await self._ask(active, points)
                parts = parse_history(body)
            except UaStatusCodeError as error:
                if error.code in _FEWER and self._nodes_per_call > 1:
                    self._nodes_per_call //= 2
                    return  # the stretches are still in the backlog
                for span in active:
                    self._access[span.position] = False
                return
            except Malformed as error:
                raise Disconnected(f"{self._session.where} sent something that is no history: {error}") from error
            if len(parts) != len(active):
                raise Disconnected(f"{self._session.where} answered {len(parts)} of {len(active)} histories")
            batches, advanced = [], []
            for span, part in zip(active, parts, strict=True):
                batch = self._decode(body, part, span)
                advanced.append((span, int(batch.time[-1]) if len(batch) else span.since, len(batch)))
                points[span.position] = part.continuation
                if len(batch):
                    batches.append(batch)
            whole = concat(batches)
            if len(whole):
                yield whole.select(np.argsort(whole.time, kind="stable"))
            active = self._advance(advanced, parts, points)
            took = (clock.now().monotonic - began) / NS_PER_S
            await asyncio.sleep(max(took, len(whole) / self._options.backfill_rows_per_s))
        for span in active:
            self._finish(span, cut=True)

    def _advance(
        self, advanced: list[tuple[Span, int, int]], parts: Sequence[HistoryPart], points: dict[int, Any]
    ) -> list[Span]:
        """Note what was delivered; return the stretches that are not at their end."""
        active = []
        for (span, last, rows), part in zip(advanced, parts, strict=True):
            span.since = last
            span.rows += rows
            if part.status >> 30 >= 2:
                self._access[span.position] = False
                self._finish(span, has_history=False)
            elif span.rows >= self._options.backfill_rows_max:
                self._finish(span, cut=True)
            elif part.continuation or (part.count >= ROWS_PER_NODE and rows):
                active.append(span)
                continue
            else:
                self._finish(span)
            points.pop(span.position, None)
        return active

    def _finish(self, span: Span, *, has_history: bool = True, cut: bool = False) -> None:
        self._backlog.spans.remove(span)
        self._backlog.close(span, has_history=has_history, cut=cut)

    async def _ask(self, active: Sequence[Span], points: dict[int, Any]) -> bytes:
        details = ua.ReadRawModifiedDetails()
        details.IsReadModified = False
        details.StartTime = _date(min(span.since for span in active))
        details.EndTime = _date(max(span.until for span in active) + NS_PER_MS)
        details.NumValuesPerNode = ROWS_PER_NODE
        details.ReturnBounds = False
        request = ua.HistoryReadRequest()
        request.Parameters.HistoryReadDetails = details
        request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Source
        request.Parameters.ReleaseContinuationPoints = False
        for span in active:
            one = ua.HistoryReadValueId()
            one.NodeId = self._namespaces.resolve(self._addresses[span.position])
            one.ContinuationPoint = points[span.position]
            request.Parameters.NodesToRead.append(one)
        return await self._session.send(request, timeout_s=max(ANSWER_S_MAX, self._options.deadline_ms / 1000))

    def _decode(self, body: bytes, part: HistoryPart, span: Span) -> Batch:
        """Return the readings of one answer that lie inside the stretch, in the order of their times."""
        try:
            columns, _ = self._decoder.decode(body, part.start, part.count, 0, part.end)
        except (Malformed, struct.error) as error:
            raise Disconnected(f"{self._session.where} sent something that is no history: {error}") from error
        batch = self._intake.past(columns, span.position)
        batch = batch.select(np.argsort(batch.time, kind="stable"))
        inside = (batch.time > span.since) & (batch.time < span.until)
        inside[1:] &= batch.time[1:] > batch.time[:-1]
        return batch.select(np.flatnonzero(inside)[: self._options.backfill_rows_max - span.rows])


def _date(time: int) -> datetime:
    return _EPOCH + timedelta(microseconds=time // 1000)
