"""A Modbus device as a source: polls its blocks by period and keeps its unit ids apart.

Every cycle of a period gives exactly one row for each of its points: a value, or BAD. What fails is kept as small as
it can be:

- a refused address (exceptions 1 to 4) is found by halving and set aside, see `modbus_lane`;
- a unit that is silent or says that it cannot (exceptions 5, 6, 10, 11) is left alone for 1, 2, 4 ... seconds while
  the others go on; its late replies are never taken for others;
- when no unit answers any more, or the stream is no Modbus, the connection is given up: Disconnected.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge import clock as edge_clock
from edge.errors import Disconnected
from edge.sources.modbus_blocks import Block, Limits, decode, plan
from edge.sources.modbus_lane import Lane
from edge.sources.modbus_link import Link, Question, Route, character_s
from edge.sources.modbus_options import ModbusOptions
from edge.sources.modbus_points import AREAS, ModbusPoint, parse_point
from edge.sources.modbus_wire import EXCEPTIONS, ExceptionReply, MalformedReply, Reply, ReplyTimeout
from plant.batch import EMPTY, Batch, bad, concat
from plant.instant import NS_PER_MS, NS_PER_S, Instant
from plant.texts import Texts

__all__ = ["ModbusOptions", "ModbusPoint", "ModbusSource", "parse_point"]

ILLEGAL_FUNCTION: Final = 1
ILLEGAL: Final = frozenset({2, 3, 4})
UNIT_TROUBLE: Final = frozenset({5, 6, 10, 11})
UNIT_RETRY_S_FIRST: Final = 1.0
MISSES_ON_LINE: Final = 2
RESYNC_S: Final = 0.6
"""A slave may take the request after that to a dead unit for its reply and be out of step until the line was silent for
500 ms (libmodbus). So on a shared line a unit that answered before is asked again after this time, and is silent only
after MISSES_ON_LINE requests."""
SPLITS_PER_CYCLE_MAX: Final = 32
"""A search for illegal addresses that needs more goes on in the next cycle, so that it cannot hold up other units."""
DEADLINE_S_SPARE: Final = 10.0
FRAME_CHARACTERS_MAX: Final = 300
"""A request and its reply on a serial line, with the silence between them."""


@dataclass(slots=True)
class _Unit:
    """since: ns UTC when it was left alone, 0 if it answers. retry_at: monotonic ns. misses: requests without a reply
    since the last one with, None if it never had one.
    """

    unit_id: int
    retry_at: int = 0
    retry_s: float = UNIT_RETRY_S_FIRST
    since: int = 0
    silent: bool = False
    misses: int | None = None


@dataclass(slots=True)
class _Group:
    """The lanes of one period. due: monotonic ns of the next cycle."""

    period: int
    lanes: list[Lane] = field(default_factory=list)
    due: int = 0


@dataclass(slots=True)
class _Cycle:
    """What is left to ask in one cycle, and the rows so far."""

    work: deque[tuple[Lane, Block]]
    rows: list[Batch] = field(default_factory=list)
    splits: int = 0


class ModbusSource:
    """See edge.sources.Source. lost: readings of cycles that were skipped because the one before took too long, or the
    gateway stood still.
    """

    lost_reason: Final = "overrun"

    def __init__(
        self,
        options: ModbusOptions,
        points: Sequence[ModbusPoint],
        texts: Texts,
        clock: Callable[[], Instant] = edge_clock.now,
    ) -> None:
        self.name = options.name
        self.tags: NDArray[np.uint32] = np.array([point.tag for point in points], np.uint32)
        self.problems: dict[int, str] = {}
        self.lost = 0
        self._options = options
        self._points = tuple(points)
        self._texts = texts
        self._clock = clock
        self._route = Route(options, clock)
        self._link: Link | None = None
        self._groups: list[_Group] = []
        self._units: dict[int, _Unit] = {}
        self._replied_at = 0
        self._heard = False
        self._troubled: NDArray[np.bool_] = np.zeros(int(self.tags.max(initial=0)) + 1, np.bool_)
        self._limits = Limits(
            options.registers_per_read_max, options.coils_per_read_max, options.gap, options.coils_from_zero
        )

    @property
    def deadline_s(self) -> float:
        """Seconds after which a read that has not returned must hang: one period and every request at its time-out."""
        period_s = min((point.period_ms for point in self._points), default=self._options.period_ms) / 1000
        requests_max = len(plan(self._points, self._limits)) + 2 * SPLITS_PER_CYCLE_MAX
        request_s_max = (2 * self._options.timeout_ms + self._options.pause_between_requests_ms) / 1000
        request_s_max += FRAME_CHARACTERS_MAX * character_s(self._options) + RESYNC_S
        request_s_max *= 1 + self._options.retries_used
        return DEADLINE_S_SPARE + period_s + requests_max * request_s_max

    async def connect(self) -> None:
        """Open the connection and plan afresh: what was illegal may have been put right since. Raises Unreachable."""
        await self.close()
        groups = self._plan(0)
        self._link = await self._route.open(_questions(groups))
        self.problems = {}
        self._troubled[:] = False
        self._units = {unit_id: _Unit(unit_id) for unit_id in sorted({p.unit_id for p in self._points})}
        now = self._clock().monotonic
        for group in groups:
            group.due = now
        self._groups = groups
        self._heard = False

    async def read(self) -> Batch:
        """Wait until a period is due and return its rows. Raises Disconnected.

        A connection on which no unit has said a word yet is none: the units are asked on until one does, or all are
        silent.
        """
        if self._link is None:
            raise Disconnected(f"{self._peer} is not connected")
        if not self._groups:
            await asyncio.sleep(self._options.period_ms / 1000)
            return EMPTY
        rows: list[Batch] = []
        while not rows or not self._heard:
            group = min(self._groups, key=lambda g: g.due)
            now = self._clock().monotonic
            if group.due > now:
                await asyncio.sleep((group.due - now) / NS_PER_S)
                now = self._clock().monotonic
            self._schedule(group, now)
            if self._route.address:
                await self._return_to_first()
            try:
                rows.append(await self._poll(group, self._link))
            except Disconnected as error:
                if not self._heard:
                    self._route.silent(str(error))
                raise
        return concat(rows)

    async def close(self) -> None:
        """Close the connection; idempotent."""
        await self._route.close()
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    @property
    def recovery(self) -> str:
        """A sentence for a person while the device is read over its backup address, else ""."""
        return self._route.note if self._link is not None else ""

    @property
    def _is_shared_line(self) -> bool:
        return self._options.is_rtu and len(self._units) > 1

    @property
    def _peer(self) -> str:
        return self._route.peer

    async def _return_to_first(self) -> None:
        """Leave the backup address, between two cycles, once the first one answers again."""
        link = await self._route.better(_questions(self._groups))
        if link is not None:
            old, self._link = self._link, link
            if old is not None:
                await old.close()

    def _plan(self, now: int) -> list[_Group]:
        lanes: dict[tuple[int, int, int], list[ModbusPoint]] = {}
        for point in self._points:
            lanes.setdefault((point.period_ms, point.unit_id, point.function), []).append(point)
        groups: dict[int, _Group] = {}
        for (period_ms, unit_id, function), points in sorted(lanes.items(), key=lambda item: item[0]):
            lane = Lane(unit_id, function, tuple(points), self._limits, self._options.quarantine_retry_s)
            lane.plan()
            group = groups.setdefault(period_ms, _Group(period_ms * NS_PER_MS, due=now))
            group.lanes.append(lane)
        return list(groups.values())

    def _schedule(self, group: _Group, now: int) -> None:
        """Move a group to its next due time: on its own grid, without a burst for cycles that a stall has skipped."""
        skipped = (now - group.due) // group.period
        self.lost += skipped * sum(len(lane.points) for lane in group.lanes)
        group.due += (skipped + 1) * group.period

    async def _poll(self, group: _Group, link: Link) -> Batch:
        now = self._clock().monotonic
        cycle = _Cycle(deque())
        for lane in group.lanes:
            again = lane.retries(now)
            cycle.work.extend((lane, block) for block in (*lane.blocks, *again))
            waiting = [entry.block.tags for entry in lane.quarantine.values() if entry.block not in again]
            if waiting:
                cycle.rows.append(bad(np.concatenate(waiting), self._clock().utc))
        workers = min(self._options.requests_in_flight, len(cycle.work))
        if workers <= 1:
            await self._ask_all(cycle, link)
        else:
            await self._ask_side_by_side(cycle, link, workers)
        for lane in group.lanes:
            lane.settle()
        return concat(cycle.rows)

    async def _ask_side_by_side(self, cycle: _Cycle, link: Link, workers: int) -> None:
        tasks = [asyncio.create_task(self._ask_all(cycle, link)) for _ in range(workers)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask_all(self, cycle: _Cycle, link: Link) -> None:
        while cycle.work:
            lane, block = cycle.work.popleft()
            unit = self._units[lane.unit_id]
            if unit.retry_at > self._clock().monotonic:
                cycle.rows.append(bad(block.tags, self._clock().utc))
                continue
            try:
                reply = await self._request(link, block, unit)
            except ReplyTimeout as error:
                self._unit_silent(unit, str(error))
            except ExceptionReply as error:
                if self._excepted(cycle, lane, block, error.code):
                    continue
            except MalformedReply as error:
                self._replied(unit)
                self._explain(block, f"{error}, at unit {block.unit_id} of {self._peer}; check the device's firmware")
            else:
                self._replied(unit)
                self._accepted(cycle, lane, block, reply)
                continue
            cycle.rows.append(bad(block.tags, self._clock().utc))

    async def _request(self, link: Link, block: Block, unit: _Unit) -> Reply:
        """Ask, and ask again where a lost frame is no failure yet; a unit that was silent before is asked once."""
        tries = 1 if unit.since else 1 + self._options.retries_used
        is_again = bool(unit.misses) and not unit.since
        while True:
            tries -= 1
            if is_again and self._is_shared_line:
                await asyncio.sleep(max(0.0, RESYNC_S - self._options.timeout_ms / 1000))
            pause = self._options.pause_between_requests_ms * NS_PER_MS
            if pause:
                wait = self._replied_at + pause - self._clock().monotonic
                await asyncio.sleep(max(0, wait) / NS_PER_S)
            timeout_s = self._options.timeout_ms / 1000 * link.patience
            try:
                return await link.request(block.unit_id, block.function, block.start, block.count, timeout_s)
            except (ReplyTimeout, MalformedReply):
                if tries == 0:
                    raise
                is_again = unit.misses is not None
            finally:
                self._replied_at = self._clock().monotonic

    def _accepted(self, cycle: _Cycle, lane: Lane, block: Block, reply: Reply) -> None:
        values, quality = decode(block, reply.payload, self._texts)
        cycle.rows.append(Batch(block.tags, np.full(len(values), reply.utc, np.int64), values, quality))
        lane.accept(block)
        if self.problems and self._troubled[block.tags].any():
            self._forget(block.points)

    def _excepted(self, cycle: _Cycle, lane: Lane, block: Block, code: int) -> bool:
        """Deal with an exception; True if the block was split and its halves are asked next."""
        unit = self._units[block.unit_id]
        if code in UNIT_TROUBLE:
            unit.silent = False
            self._heard = True
            what = f"unit {block.unit_id} of {self._peer} answers exception {code}, {EXCEPTIONS[code]}"
            self._leave_alone(unit, f"{what}; check the unit, its cable and its unit id")
            return False
        self._replied(unit)
        why = self._refusal(block, code)
        now = self._clock().monotonic
        halves = None
        if code == ILLEGAL_FUNCTION:
            lane.refuse_all(block, now, why)
        elif code in ILLEGAL:
            halves = lane.refuse(block, now, why)
        if halves is None:
            self._explain(block, why)
            return False
        if cycle.splits >= SPLITS_PER_CYCLE_MAX:
            return False
        cycle.splits += 1
        cycle.work.extendleft((lane, half) for half in reversed(halves))
        return True

    def _refusal(self, block: Block, code: int) -> str:
        first = block.start + self._options.first_address
        where = f"{AREAS[block.function]}/{first}"
        if block.count > 1:
            where += f"..{first + block.count - 1}"
        return (
            f"{EXCEPTIONS.get(code, 'refused')} {where} at unit {block.unit_id} of device {self.name}: "
            f"exception {code}; check the address in tags.csv"
        )

    def _replied(self, unit: _Unit) -> None:
        self._heard = True
        unit.misses = 0
        if not unit.since:
            return
        unit.since = unit.retry_at = 0
        unit.silent = False
        unit.retry_s = UNIT_RETRY_S_FIRST
        self._forget([point for point in self._points if point.unit_id == unit.unit_id])
        # Addresses in quarantine have problems of their own.
        for group in self._groups:
            for lane in group.lanes:
                for entry in lane.quarantine.values():
                    if lane.unit_id == unit.unit_id:
                        self._explain(entry.block, entry.why)

    def _unit_silent(self, unit: _Unit, came: str) -> None:
        """A request had no reply: leave the unit alone for a while. Raises Disconnected if no unit answers any more."""
        if unit.misses is not None:
            unit.misses += 1
            if self._is_shared_line and unit.misses < MISSES_ON_LINE:
                return
        unit.silent = True
        what = f"unit {unit.unit_id} of {self._peer} does not answer within {self._options.timeout_ms} ms"
        what += f": {came}" if came else ""
        if all(other.silent for other in self._units.values()):
            more = "" if len(self._units) == 1 else f", nor does any other of its {len(self._units)} units"
            self._route.silent(what + more)
            raise Disconnected(what + more)
        self._leave_alone(unit, f"{what}; check the unit, its cable and its unit id")

    def _leave_alone(self, unit: _Unit, why: str) -> None:
        now = self._clock()
        unit.retry_at = now.monotonic + round(unit.retry_s * NS_PER_S)
        unit.retry_s = min(2 * unit.retry_s, self._options.unit_retry_s_max)
        if not unit.since:
            unit.since = now.utc
            since = datetime.fromtimestamp(now.utc // NS_PER_S, UTC).isoformat().replace("+00:00", "Z")
            points = [point for point in self._points if point.unit_id == unit.unit_id]
            self._note(points, f"{why} (since {since})")

    def _explain(self, block: Block, why: str) -> None:
        self._note(block.points, why)

    def _note(self, points: Sequence[ModbusPoint], why: str) -> None:
        self.problems = self.problems | {point.tag: why for point in points}
        self._troubled[[point.tag for point in points]] = True

    def _forget(self, points: Sequence[ModbusPoint]) -> None:
        gone = {point.tag for point in points}
        self.problems = {tag: why for tag, why in self.problems.items() if tag not in gone}
        self._troubled[list(gone)] = False


def _questions(groups: Sequence[_Group]) -> list[Question]:
    """Return one read for each unit, to find out whether anybody is there."""
    blocks = {block.unit_id: block for group in groups for lane in group.lanes for block in lane.blocks}
    return [Question(block.unit_id, block.function, block.start, block.count) for block in blocks.values()]
