"""Which registers a device has: found by halving what it refuses, within a bounded number of requests.

A device that has one illegal register in a range refuses the whole range, and a range may also be refused because it
is longer than the device can answer. So a refusal is only believed to be about an address once that address stands
alone, and what was only ever refused in company is reported as such.
"""

import dataclasses
import heapq
import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from edge.commands import Progress

ROUND: Final = 100
"""Maps of registers mostly begin at multiples of this; they are tried one by one in what a device refuses."""

BESIDE: Final = 32
"""A piece beside a legal register is looked at as if it were so many times as large."""

Answer = Sequence[int] | int
"""The registers that were read, or the code of the exception."""
Ask = Callable[[int, int], Awaitable[Answer]]
"""Reads (start, count)."""


class _Spent(Exception):
    """No more requests are allowed."""


@dataclass(frozen=True, slots=True)
class Range:
    """Addresses first..last. state: legal, illegal (each refused alone), refused (some only together with others), or
    not asked. code: the exception of a refused or illegal one. size: the search went down to blocks of this size.
    """

    first: int
    last: int
    state: str
    code: int = 0
    size: int = 0

    @property
    def count(self) -> int:
        return self.last - self.first + 1


@dataclass(slots=True)
class Scan:
    """Reads the addresses first..end-1. words: what was read, by address. longest: most registers in one answer.

    complete: every address was judged, or refused alone; False if the requests ran out.
    """

    ask: Ask
    first: int
    end: int
    block_max: int
    requests_max: int
    tell: Progress
    requests: int = 0
    longest: int = 0
    complete: bool = False
    words: dict[int, int] = field(default_factory=dict)
    _refused: dict[int, tuple[int, int]] = field(default_factory=dict)
    """address -> (size of the smallest range with it that was refused, code)."""

    _refusals: set[tuple[int, int]] = field(default_factory=set)

    async def run(self) -> None:
        """Find out as much as `requests_max` requests allow; what `ask` raises passes through."""
        try:
            await self._search()
            self.complete = True
        except _Spent:
            pass

    async def _search(self) -> None:
        whole = []
        for start in range(self.first, self.end, self.block_max):
            stop = min(start + self.block_max, self.end)
            if not await self._read(start, stop):
                whole.append((start, stop))
        pieces = [part for block in whole for piece in await self._seed(*block) for part in self._parts(*piece)]
        queue = [(self._turn(*piece), piece) for piece in pieces]
        heapq.heapify(queue)
        by_start, by_stop = {piece[0]: piece for piece in pieces}, {piece[1]: piece for piece in pieces}
        while queue:
            _, piece = heapq.heappop(queue)
            start, stop = piece
            if by_start.get(start) != piece:
                continue  # it had its turn already
            del by_start[start], by_stop[stop]
            left = [] if await self._read(start, stop) else await self._halve(start, stop)
            for rest in [part for one in left for part in self._parts(*one)]:
                by_start[rest[0]] = by_stop[rest[1]] = rest
                heapq.heappush(queue, (self._turn(*rest), rest))
            # What was found here may have moved the neighbours forward.
            beside = by_stop.get(start), by_stop.get(start - 1), by_start.get(stop), by_start.get(stop + 1)
            for near in beside:
                if near is not None:
                    heapq.heappush(queue, (self._turn(*near), near))

    def _turn(self, start: int, stop: int) -> int:
        """Return when a piece is looked at: large ones first, so that everything is known equally well when the
        requests run out; but a gap beside registers that exist is far more likely to end soon than the open sea.
        """
        beside = any(address in self.words for address in (start - 2, start - 1, stop, stop + 1))
        return (start - stop) * (BESIDE if beside else 1)

    def _parts(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Cut a piece at the addresses that are known to be illegal: with them it can only be refused."""
        illegal = [address for address in range(start, stop) if self._refused.get(address, (0, 0))[0] == 1]
        edges = [start - 1, *illegal, stop]
        return [(a + 1, b) for a, b in itertools.pairwise(edges) if a + 1 < b]

    async def _seed(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Try the neighbours of what is legal, and round addresses; return what stays refused."""
        left = [(start, stop)]
        if start - 1 in self.words:
            left = await self._from_left(start, stop)
        if stop in self.words and left:
            *left, last = left
            left += await self._from_right(*last)
        rest = []
        while left:
            a, b = left.pop()
            for seed in range(a + -a % ROUND, b, ROUND):
                if b - a > 1 and await self._read(seed, seed + 1):
                    rest += await self._from_right(a, seed)
                    left += await self._from_left(seed + 1, b)
                    break
            else:
                rest.append((a, b))
        return rest

    async def _halve(self, start: int, stop: int) -> list[tuple[int, int]]:
        if stop - start == 1:
            return []
        middle = (start + stop) // 2
        left, right = await self._read(start, middle), await self._read(middle, stop)
        if left and right:
            return []  # only too long for one answer
        if left:
            return await self._from_left(middle, stop)
        if right:
            return await self._from_right(start, middle)
        return [(start, middle), (middle, stop)]

    async def _from_left(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Read on from the left as far as it goes; return what is refused behind the first illegal address."""
        while start < stop:
            count = await self._longest(lambda n, a=start: (a, a + n), stop - start)  # type: ignore[misc]
            if not count:
                return [(start + 1, stop)] if start + 1 < stop else []
            start += count
        return []

    async def _from_right(self, start: int, stop: int) -> list[tuple[int, int]]:
        while start < stop:
            count = await self._longest(lambda n, b=stop: (b - n, b), stop - start)  # type: ignore[misc]
            if not count:
                return [(start, stop - 1)] if start < stop - 1 else []
            stop -= count
        return []

    async def _longest(self, span: Callable[[int], tuple[int, int]], size: int) -> int:
        """Return the most registers that can be read at once from one side of a range, 0 if its first is illegal."""
        low, high = 0, min(size, self.block_max) + 1
        probe = 1
        while high - low > 1:
            if await self._read(*span(probe)):
                low = probe
            else:
                high = probe
            probe = (low + high) // 2
        return low

    async def _read(self, start: int, stop: int) -> bool:
        if all(address in self.words for address in range(start, stop)):
            return True
        if (start, stop) in self._refusals:
            return False
        if self.requests >= self.requests_max:
            raise _Spent
        self.requests += 1
        answer = await self.ask(start, stop - start)
        self.tell("asking the device", self.requests, self.requests_max)
        if isinstance(answer, int):
            self._refusals.add((start, stop))
            for address in range(start, stop):
                if address not in self.words and stop - start <= self._refused.get(address, (stop - start, 0))[0]:
                    self._refused[address] = (stop - start, answer)
            return False
        self.longest = max(self.longest, stop - start)
        self.words.update(zip(range(start, stop), answer, strict=True))
        return True

    def ranges(self) -> list[Range]:
        """Return what is known of every address, neighbours of a kind joined."""
        found: list[Range] = []
        judged = [self._judge(address) for address in range(self.first, self.end)]
        for _, group in itertools.groupby(judged, lambda one: (one.state, one.size)):
            run = list(group)
            self._join(found, [dataclasses.replace(one, size=min(len(run), one.size)) for one in run])
        return found

    @staticmethod
    def _join(found: list[Range], run: list[Range]) -> None:
        for one in run:
            before = found[-1] if found else None
            if before is not None and before.code == one.code and _alike(before.state, one.state):
                state = one.state if before.state == one.state else "refused"
                found[-1] = Range(before.first, one.last, state, one.code, max(before.size, one.size))
            else:
                found.append(one)

    def _judge(self, address: int) -> Range:
        if address in self.words:
            return Range(address, address, "legal")
        size, code = self._refused.get(address, (0, 0))
        if not size:
            return Range(address, address, "not asked")
        return Range(address, address, "illegal" if size == 1 else "refused", code, size)


def _alike(a: str, b: str) -> bool:
    return a == b or {a, b} == {"illegal", "refused"}
