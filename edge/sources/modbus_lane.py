"""`Lane`: the blocks of one unit, function and period, and what the device refuses of them. Pure, without a clock.

A device that has an illegal address in a block refuses the whole block. The lane then halves it until the illegal
values stand alone, sets those aside, and plans the others anew around them. It learns two things:

- an illegal value: it goes to quarantine, is tried alone from time to time, and its addresses are never read in vain;
- a cut: two neighbours that are legal alone but not in one request (an unmapped gap, a device with a smaller limit).

Each refusal teaches at least one of them or makes a block smaller, so the search ends.
"""

from dataclasses import dataclass, field
from typing import Final

from edge.sources.modbus_blocks import Block, Limits, block_of, plan_lane, split
from edge.sources.modbus_points import ModbusPoint
from plant.instant import NS_PER_S

RETRY_S_MAX: Final = 3600.0
RETRIES_PER_CYCLE_MAX: Final = 8
"""So many quarantined addresses are tried again in one cycle, at most."""


@dataclass(slots=True)
class Quarantined:
    """Values at one address that the device refuses. why: its refusal, in a sentence. retry_at: monotonic ns."""

    block: Block
    why: str
    retry_at: int
    retry_s: float


@dataclass(slots=True)
class Lane:
    unit_id: int
    function: int
    points: tuple[ModbusPoint, ...]
    limits: Limits
    retry_s: float
    blocks: list[Block] = field(default_factory=list)
    quarantine: dict[tuple[int, int], Quarantined] = field(default_factory=dict)
    _cuts: list[tuple[int, int, int]] = field(default_factory=list)
    """(cut, first, end): the block first..end was refused as a whole and split at `cut`."""
    _learning: bool = False
    _refused: bool = False

    def plan(self) -> None:
        """Plan every block anew around what is known to be illegal."""
        set_aside = {point.tag for entry in self.quarantine.values() for point in entry.block.points}
        illegal = list(self.quarantine)
        # A refusal that a smaller one inside explains teaches no cut: only the innermost ones do.
        refused = [*illegal, *((first, end) for _, first, end in self._cuts)]
        self._cuts = [
            (cut, first, end)
            for cut, first, end in self._cuts
            if not any(first <= low and high <= end and (low, high) != (first, end) for low, high in refused)
        ]
        points = [point for point in self.points if point.tag not in set_aside]
        self.blocks = plan_lane(points, self.limits, illegal, [cut for cut, _, _ in self._cuts])
        self._learning = False

    def refuse(self, block: Block, now: int, why: str) -> tuple[Block, Block] | None:
        """The device refused a block: return its halves, or None if it holds one address, which is now set aside."""
        self._refused = self._learning = True
        key = (block.start, block.start + block.count)
        known = self.quarantine.get(key)
        if known is not None and known.block is block:
            known.retry_s = min(2 * known.retry_s, RETRY_S_MAX)
            known.retry_at = now + round(known.retry_s * NS_PER_S)
            return None
        self.blocks = [b for b in self.blocks if b is not block]
        halves = split(block)
        if halves is None:
            self.quarantine[key] = Quarantined(block, why, now + round(self.retry_s * NS_PER_S), self.retry_s)
            return None
        left, right = halves
        if right.start > left.start:
            self._cuts.append((right.start, *key))
        self.blocks += halves
        return halves

    def refuse_all(self, block: Block, now: int, why: str) -> None:
        """The device does not know the function: set every address of the block aside."""
        pending = [block]
        while pending:
            pending.extend(self.refuse(pending.pop(), now, why) or ())
        self._cuts.clear()

    def retries(self, now: int) -> list[Block]:
        """Return the quarantined addresses that are due for another try."""
        due = [entry.block for entry in self.quarantine.values() if entry.retry_at <= now]
        return due[:RETRIES_PER_CYCLE_MAX]

    def accept(self, block: Block) -> bool:
        """A block was read; return True if it was in quarantine and is free now."""
        if not self.quarantine:
            return False
        freed = self.quarantine.get((block.start, block.start + block.count))
        if freed is None or freed.block is not block:
            return False
        del self.quarantine[block.start, block.start + block.count]
        self.blocks.append(block_of(block.points, from_zero=block.from_zero))
        self._learning = True
        return True

    def settle(self) -> None:
        """End a cycle in which every block was asked: when nothing was refused, join what the search had split."""
        if self._learning and not self._refused:
            self.plan()
        self._refused = False
