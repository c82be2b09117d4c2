"""Decoded columns -> a Batch: quality, time, texts, and what is to be said about each tag.

Owns what outlives a session: per position in the list of points the last reading and why there is none. Leaves bytes
to `opcua_decode` and the question who is asked when to the subscriptions and the poller.

Quality is the severity of the OPC status (OPC 10000-4, 7.39.1): good 192, uncertain 64, bad 0. A reading that is no
finite number, or no value at all, is BAD with NaN; an integer that a float64 cannot hold exactly is UNCERTAIN. The
time is the source's, else the server's, else that of arrival.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from asyncua import ua
from numpy.typing import NDArray

from edge.sources.opcua_decode import EPOCH_TICKS, Columns, Unusable
from edge.sources.opcua_points import OpcuaPoint
from plant.batch import BAD, EMPTY, GOOD, UNCERTAIN, Batch, bad
from plant.instant import Instant
from plant.texts import Texts

TICK_NS: Final = 100
TICKS_MIN: Final = EPOCH_TICKS - (2**63 - 1) // TICK_NS
TICKS_MAX: Final = EPOCH_TICKS + (2**63 - 1) // TICK_NS
"""Ticks that fit into int64 nanoseconds (years 1677 to 2262); a time outside counts as not given."""

OVERFLOW_MASK: Final = 0x0C80
OVERFLOW: Final = 0x0480
"""Info type DataValue and the overflow bit of a status (OPC 10000-4, 7.39.1): the queue of the item ran over."""

NO_NUMBER: Final = int(ua.StatusCodes.BadNoData)
WRONG_TYPE: Final = int(ua.StatusCodes.BadTypeMismatch)
UNKNOWN_NODE: Final = frozenset((int(ua.StatusCodes.BadNodeIdUnknown), int(ua.StatusCodes.BadNodeIdInvalid)))
GONE: Final = UNKNOWN_NODE | {int(ua.StatusCodes.BadMonitoredItemIdInvalid)}
"""Statuses after which an item must be set up again to come alive."""

_QUALITY: Final = np.array([GOOD, UNCERTAIN, BAD, BAD], np.uint8)


def status_name(code: int) -> str:
    """Return the symbolic name of a status code, or its number."""
    name, doc = ua.status_codes.get_name_and_doc(code & 0xFFFF_0000)
    return f"{code:#010x}" if doc.startswith("Unknown") else str(name)


def explain(code: int) -> str:
    """Return the name of a status code and what the standard says about it."""
    _, doc = ua.status_codes.get_name_and_doc(code & 0xFFFF_0000)
    return f"{status_name(code)}: {doc.rstrip('.')}"


class Intake:
    """The points of one device and what is known of each. `position` is an index into the list of points.

    told: monotonic ns of the last notification of each point, 0 = none yet. stamp: the source's time of its last
    reading, ns UTC, 0 = none. problems: tag -> why it has no data. lost: readings that the server reported as lost.
    gone: positions whose node vanished while it was monitored, for whoever sets items up.
    """

    def __init__(self, points: Sequence[OpcuaPoint], texts: Texts, server: str) -> None:
        n = len(points)
        self.points = tuple(points)
        self.server = server
        self.texts = texts
        self.tags: NDArray[np.uint32] = np.array([point.tag for point in points], np.uint32)
        self.problems: dict[int, str] = {}
        self.lost = 0
        self.gone: set[int] = set()
        self._is_text: NDArray[np.bool_] = np.array([point.text for point in points], np.bool_)
        self._any_text = bool(self._is_text.any())
        self._why: NDArray[np.uint32] = np.zeros(n, np.uint32)
        self._value = np.full(n, np.nan)
        self._quality: NDArray[np.uint8] = np.zeros(n, np.uint8)
        self._time: NDArray[np.int64] = np.zeros(n, np.int64)
        self._source: NDArray[np.int64] = np.zeros(n, np.int64)
        self._heard: NDArray[np.int64] = np.zeros(n, np.int64)
        self.told: NDArray[np.int64] = np.zeros(n, np.int64)
        self.stamp: NDArray[np.int64] = np.zeros(n, np.int64)

    def take(
        self, columns: Columns, positions: NDArray[np.intp] | NDArray[np.uint32], at: Instant, *, asked: bool = False
    ) -> Batch:
        """Judge decoded items of the points at `positions` (same length) that arrived at `at`.

        asked: they answer a read. A value whose source time stands still is then as new as the server says.
        """
        positions = positions.astype(np.intp, copy=False)
        value = columns.value
        code = columns.status
        quality = np.full(len(value), GOOD, np.uint8) if code is None else _QUALITY[code >> 30]
        if code is not None:
            self.lost += int(np.count_nonzero((code & OVERFLOW_MASK) == OVERFLOW))
        if columns.inexact is not None:
            quality[columns.inexact] = np.minimum(quality[columns.inexact], UNCERTAIN)
        reasons: dict[int, str] = {}
        if columns.others or self._any_text:
            self._put_texts(columns, positions, reasons)
        unfit = ~np.isfinite(value)
        unfit |= quality == BAD
        if unfit.any():
            value[unfit] = np.nan
            quality[unfit] = BAD
        if self.problems or unfit.any():
            self._judge(columns, positions, unfit, reasons)
        time = _times(columns.source, columns.server, len(value), at.utc)
        if columns.source is not None:
            given = columns.source.min() > 0
            self.stamp[positions] = time if given else np.where(columns.source > 0, time, self.stamp[positions])
        if not asked:
            self.told[positions] = at.monotonic
        else:
            stands = time == self._source[positions]
            self._source[positions] = time
            if stands.any():
                said = _times(columns.server, None, len(value), at.utc)
                time = np.where(stands, np.maximum(time, said), time)
        self._value[positions] = value
        self._quality[positions] = quality
        self._time[positions] = time
        self._heard[positions] = at.monotonic
        return Batch(self.tags[positions], time, value, quality)

    def differs(self, columns: Columns, positions: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Tell which decoded items say something else than the last reading of their point; nothing is remembered."""
        value = columns.value.copy()
        seen = Columns(None, value, columns.status, None, None, None, columns.others)
        if columns.others or self._any_text:
            self._put_texts(seen, positions, {})
        unfit = ~np.isfinite(value)
        if columns.status is not None:
            unfit |= columns.status >> 30 >= 2
        value[unfit] = np.nan
        before = self._value[positions]
        deadband = np.array([self.points[position].deadband for position in positions])
        with np.errstate(invalid="ignore"):
            moved: NDArray[np.bool_] = np.abs(value - before) > np.maximum(deadband, 0.0)
        moved |= np.isnan(value) != np.isnan(before)
        return moved

    def past(self, columns: Columns, position: int) -> Batch:
        """Judge values of one point from the server's history; nothing is remembered. Without a time none is taken."""
        positions = np.full(len(columns.value), position, np.intp)
        value, code = columns.value, columns.status
        quality = np.full(len(value), GOOD, np.uint8) if code is None else _QUALITY[code >> 30]
        if columns.inexact is not None:
            quality[columns.inexact] = np.minimum(quality[columns.inexact], UNCERTAIN)
        if columns.others or self._any_text:
            self._put_texts(columns, positions, {})
        unfit = ~np.isfinite(value) | (quality == BAD)
        value[unfit] = np.nan
        quality[unfit] = BAD
        time = _times(columns.source, None, len(value), 0)
        return Batch(self.tags[positions], time, value, quality)

    def _put_texts(
        self,
        columns: Columns,
        positions: NDArray[np.intp],
        reasons: dict[int, str],
    ) -> None:
        """Put the codes of texts into the values; remember in `reasons` why a row has none."""
        value = columns.value
        numbers = self._is_text[positions]
        for row, other in columns.others:
            numbers[row] = False
            place = int(positions[row])
            if isinstance(other, Unusable):
                due = "text" if self._is_text[place] else "number"
                reasons[row] = f"BadTypeMismatch: {self._where(place)} gives a {other.what} where a {due} is due"
            elif self._is_text[place]:
                value[row] = self.texts.code(self.points[place].tag, other)
            else:
                reasons[row] = (
                    f"BadTypeMismatch: {self._where(place)} gives a text where a number is due; "
                    "set its type to string in tags.csv or choose another node"
                )
        for row in np.flatnonzero(numbers).tolist():
            if np.isfinite(value[row]):
                point = self.points[int(positions[row])]
                value[row] = self.texts.code(point.tag, f"{value[row]:.15g}")

    def _judge(
        self,
        columns: Columns,
        positions: NDArray[np.intp],
        unfit: NDArray[np.bool_],
        reasons: dict[int, str],
    ) -> None:
        """Keep `problems` up to date; Python work only for positions whose reason changed."""
        code = np.zeros(len(unfit), np.uint32) if columns.status is None else columns.status & 0xFFFF_0000
        why = np.where(unfit, np.where(code >> 30 >= 2, code, NO_NUMBER), 0).astype(np.uint32)
        for row in reasons:
            if code[row] >> 30 < 2:
                why[row] = WRONG_TYPE
        changed = why != self._why[positions]
        if not changed.any():
            return
        # A message may hold several readings of a point; the last one decides.
        last = {int(positions[row]): int(row) for row in np.flatnonzero(np.isin(positions, positions[changed]))}
        for position, row in last.items():
            if int(why[row]) == WRONG_TYPE and row in reasons:
                self._why[position] = WRONG_TYPE
                self.problems[self.points[position].tag] = reasons[row]
            elif why[row] != self._why[position]:
                self.note(position, int(why[row]))
                if int(why[row]) in GONE:
                    self.gone.add(position)

    def note(self, position: int, reason: int, sentence: str = "") -> None:
        """Remember why a point has no data: an OPC status and what to say, by default what the standard says."""
        tag = self.points[position].tag
        self._why[position] = reason
        if not reason:
            self.problems.pop(tag, None)
            return
        self.problems[tag] = sentence or self._sentence(position, reason)

    def refused(self, positions: Sequence[int], at: Instant) -> Batch:
        """Return one BAD reading for each of `positions`."""
        chosen = np.array(positions, np.intp)
        self._quality[chosen] = BAD
        return bad(self.tags[chosen], at.utc)

    def unchanged(self, positions: NDArray[np.intp], heard: int, after_ns: int) -> Batch:
        """Repeat the readings of `positions` that nothing was heard of for `after_ns` before `heard` (monotonic ns),
        when the server last said that nothing else had changed. Their time advances by the silence, in the source's
        own clock. Only usable readings are repeated.
        """
        silence = heard - self._heard[positions]
        due = (silence >= after_ns) & (self._quality[positions] != BAD)
        if not due.any():
            return EMPTY
        chosen = positions[due]
        self._time[chosen] += silence[due]
        self._heard[chosen] = heard
        return Batch(self.tags[chosen], self._time[chosen], self._value[chosen], self._quality[chosen])

    def _where(self, position: int) -> str:
        return f"{self.points[position].node} on {self.server}"

    def _sentence(self, position: int, reason: int) -> str:
        if reason in UNKNOWN_NODE:
            return (
                f"{status_name(reason)}: {self.points[position].node} is not on the server {self.server}; "
                "check the address in tags.csv"
            )
        if reason == NO_NUMBER:
            return f"{status_name(reason)}: {self._where(position)} has no value, or one that is not finite"
        return f"{explain(reason)} ({self._where(position)})"


def _times(
    source: NDArray[np.int64] | None, server: NDArray[np.int64] | None, count: int, arrival: int
) -> NDArray[np.int64]:
    """Return ns since 1970 of the source's ticks, else the server's, else of arrival (ns UTC)."""
    ticks = source
    if ticks is None or ticks.min() <= TICKS_MIN or ticks.max() >= TICKS_MAX:
        ticks = _fallback(source, _fallback(server, None))
    if ticks is None:
        return np.full(count, arrival, np.int64)
    time = (ticks - EPOCH_TICKS) * TICK_NS
    if ticks.min() <= TICKS_MIN:
        time[ticks <= TICKS_MIN] = arrival
    return time


def _fallback(ticks: NDArray[np.int64] | None, instead: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
    """Put `instead`, or 0, where `ticks` is not given or beyond what a time can be."""
    if ticks is None:
        return instead
    given = (ticks > TICKS_MIN) & (ticks < TICKS_MAX)
    return np.where(given, ticks, 0 if instead is None else instead)
