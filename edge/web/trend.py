"""Trends: the statement that asks the ring for a few tags in few points, and the way from its rows to lines.

The ring keeps changes, not samples: between two readings the last value holds. It stops holding where a reading is BAD,
and where nothing at all was kept for longer than HOLD_S, because then the gateway itself was not there.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from plant.batch import UNCERTAIN
from plant.instant import NS_PER_MS, NS_PER_S

TAGS_MAX: Final = 8
SPAN_S_MAX: Final = 7 * 86_400
POINTS_MAX: Final = 600
HOLD_S: Final = 300
"""Five times the default heartbeat of a tag."""
LOOK_BACK_S: Final = HOLD_S
GRID_US: Final = 100_000
"""Lengths of buckets are multiples of this, in microseconds."""
ROWS_MAX: Final = TAGS_MAX * (POINTS_MAX + 2)
TIMEOUT_S: Final = 15.0

_STATEMENT: Final = """
SELECT tag, greatest(-1, (epoch_us(time) - {start}) // {bucket}) AS bucket,
       min(value) FILTER (quality >= {least}), max(value) FILTER (quality >= {least}),
       arg_max(value, seq), arg_max(quality, seq), max(epoch_us(time))
FROM readings
WHERE time >= make_timestamp({first}) AND time < make_timestamp({end}) AND tag IN ({tags}) AND text IS NULL
GROUP BY 1, 2 ORDER BY 1, 2
"""


class Line(msgspec.Struct, frozen=True):
    """One tag. low, high, last: per point, None where nothing good is known."""

    tag: str
    low: list[float | None]
    high: list[float | None]
    last: list[float | None]


class Trend(msgspec.Struct, frozen=True):
    """start, end: ms UTC. Point i covers [start + i * bucket_ms, + bucket_ms)."""

    start: int
    end: int
    bucket_ms: int
    lines: list[Line]


class Window(msgspec.Struct, frozen=True):
    """What is asked for, in microseconds UTC, both ends on the grid of the buckets."""

    start: int
    end: int
    bucket: int

    @property
    def points(self) -> int:
        return (self.end - self.start) // self.bucket


def window(end_ns: int, span_s: int, points: int, since_ms: int = 0) -> Window:
    """Return the window of `span_s` seconds up to now. since_ms: only from the bucket that holds this time on.

    The grid does not move with now, so that the next answer continues this one.
    """
    bucket = -(-span_s * 1_000_000 // (points * GRID_US)) * GRID_US
    end = -(-(end_ns // 1000) // bucket) * bucket
    start = end - -(-span_s * 1_000_000 // bucket) * bucket
    if since_ms:
        start = min(max(start, since_ms * 1000 // bucket * bucket), end - bucket)
    return Window(start, end, bucket)


def statement(asked: Window, tags: Iterable[str]) -> str:
    """Return the statement; its rows go into `lines`."""
    names = ", ".join("'" + tag.replace("'", "''") + "'" for tag in tags)
    first = asked.start - LOOK_BACK_S * 1_000_000
    return _STATEMENT.format(
        start=asked.start, bucket=asked.bucket, first=first, end=asked.end, tags=names, least=UNCERTAIN
    )


def trend(asked: Window, tags: Sequence[str], rows: Iterable[Sequence[Any]], now_ns: int) -> Trend:
    """Return lines from the statement's rows; points after now have no value."""
    by_tag: dict[str, dict[int, Sequence[Any]]] = {tag: {} for tag in tags}
    for row in rows:
        by_tag[row[0]][int(row[1])] = row
    lines = [_line(asked, tag, by_tag[tag], now_ns // 1000) for tag in tags]
    ms = NS_PER_S // NS_PER_MS
    return Trend(asked.start // ms, asked.end // ms, asked.bucket // ms, lines)


def _line(asked: Window, tag: str, rows: dict[int, Sequence[Any]], now: int) -> Line:
    line = Line(tag, [], [], [])
    held: float | None = None
    heard = 0
    for point in range(-1, asked.points):
        row = rows.get(point)
        low = high = None
        began = asked.start + point * asked.bucket
        if row is not None:
            _, _, low, high, last, quality, heard = row
            held = last if quality >= UNCERTAIN else None
        elif began - heard > HOLD_S * 1_000_000 or began > now:
            held = None
        if point < 0:
            continue
        line.low.append(held if low is None else low)
        line.high.append(held if high is None else high)
        line.last.append(held)
    return line
