"""Trends: the statement on a real engine, the lines that become of its rows, and what the page may ask for."""

import asyncio
from datetime import UTC, datetime

import duckdb
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from web_gateway import PlainGateway

from edge.web import trend
from edge.web.options import WebOptions
from edge.web.server import Web
from plant.instant import NS_PER_S

NOW = 1_795_161_600 * NS_PER_S
GOOD, UNCERTAIN, BAD = 192, 64, 0


def lines(readings, span_s=60, points=6, tags=("a",), since_ms=0, now=NOW):
    """Ask an engine with readings (seconds before now, tag, value, quality)."""
    asked = trend.window(now, span_s, points, since_ms)
    with duckdb.connect() as engine:
        engine.execute("CREATE TABLE readings (seq BIGINT, time TIMESTAMP, tag VARCHAR, value DOUBLE, text VARCHAR, "
                       "quality UTINYINT)")  # fmt: skip
        rows = [
            (seq, datetime.fromtimestamp(now / NS_PER_S - ago, UTC).replace(tzinfo=None), tag, value, None, quality)
            for seq, (ago, tag, value, quality) in enumerate(readings)
        ]
        if rows:
            engine.executemany("INSERT INTO readings VALUES (?, ?, ?, ?, ?, ?)", rows)
        found = engine.execute(trend.statement(asked, tags)).fetchall()
    return trend.trend(asked, tags, found, now)


def test_each_point_has_lowest_highest_and_last():
    line = lines([(55, "a", 5, GOOD), (54, "a", 1, GOOD), (53, "a", 3, GOOD), (5, "a", 7, GOOD)]).lines[0]
    assert (line.low[0], line.high[0], line.last[0]) == (1, 5, 3)
    assert line.last == [3, 3, 3, 3, 3, 7], "between two readings the last value holds"


def test_bad_quality_is_a_gap_until_the_next_good_value():
    nan = float("nan")
    line = lines([(55, "a", 5, GOOD), (41, "a", nan, BAD), (15, "a", 6, GOOD)]).lines[0]
    assert line.last == [5, None, None, None, 6, 6]
    assert line.low == line.last


def test_a_doubtful_value_is_shown():
    assert lines([(55, "a", 5, UNCERTAIN)]).lines[0].last[0] == 5


def test_the_value_before_the_window_holds_into_it_but_not_for_ever():
    assert lines([(100, "a", 5, GOOD)]).lines[0].last == [5] * 6
    assert lines([(100, "a", 5, GOOD), (90, "a", 0, BAD)]).lines[0].last == [None] * 6
    silent = lines([(599, "a", 5, GOOD)], span_s=600, points=10).lines[0].last
    assert silent[:5] == [5] * 5
    assert silent[-3:] == [None] * 3, "nothing was kept for longer than a heartbeat: the gateway was not there"


def test_tags_stand_in_the_order_asked_and_unknown_ones_are_empty():
    names = ["b", "it's", "nothere"]
    found = lines([(5, "it's", 1, GOOD), (5, "b", 2, GOOD), (5, "c", 3, GOOD)], tags=names).lines
    assert [(line.tag, line.last[-1]) for line in found] == [("b", 2), ("it's", 1), ("nothere", None)]


def test_the_newest_points_continue_an_earlier_answer():
    readings = [(55, "a", 1, GOOD), (35, "a", 2, GOOD), (5, "a", 3, GOOD)]
    whole = lines(readings)
    rest = lines(readings, since_ms=whole.end - 2 * whole.bucket_ms)
    assert rest.start == whole.end - 2 * whole.bucket_ms
    assert rest.lines[0].last == whole.lines[0].last[-2:]


@given(
    st.integers(0, 10**18), st.integers(60, trend.SPAN_S_MAX), st.integers(10, trend.POINTS_MAX), st.integers(0, 2**53)
)
def test_a_window_is_bounded_and_on_its_grid(now, span_s, points, since_ms):
    asked = trend.window(NOW + now, span_s, points, since_ms)
    assert 1 <= asked.points <= points + 1
    assert asked.start % asked.bucket == asked.end % asked.bucket == 0
    assert asked.end >= (NOW + now) // 1000 > asked.end - asked.bucket


@pytest.fixture
async def client(tmp_path):
    gateway = PlainGateway(tmp_path)
    web = Web(gateway, WebOptions(port=0), tmp_path)
    web.open()
    task = asyncio.create_task(web.run())
    async with httpx.AsyncClient(base_url=web.url) as client:
        yield client, gateway
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    web.close()


async def test_what_the_page_may_ask_for_is_bounded_and_quoted(client):
    page, gateway = client
    many = "&".join(f"tag=t{i}" for i in range(9))
    for query in ("", many, "tag=a&span_s=1", "tag=a&points=601", "tag=a&span_s=9999999", "tag=" + "x" * 201):
        assert (await page.get(f"/api/trend?{query}")).status_code == 400, query
    assert gateway.statements == []
    answer = await page.get("/api/trend", params={"tag": ["x') UNION SELECT 1 --", "b", "b"]})
    assert answer.status_code == 200
    assert [line["tag"] for line in answer.json()["lines"]] == ["x') UNION SELECT 1 --", "b"]
    assert "IN ('x'') UNION SELECT 1 --', 'b')" in gateway.statements[0]
