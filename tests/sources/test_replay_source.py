"""Recordings: layouts, pace, times, and the sentences for files that cannot be played."""

import asyncio
from pathlib import Path

import duckdb
import numpy as np
import pytest
from pydantic import ValidationError

from edge.errors import Disconnected, Refused, Unreachable
from edge.sources.replay import ReplayOptions, ReplayPoint, ReplaySource
from plant.batch import BAD, GOOD, UNCERTAIN, Batch, concat
from plant.texts import Texts

S = 1_000_000_000
T0 = 1_700_000_000 * S


def options(path: Path, **more: object) -> ReplayOptions:
    return ReplayOptions.model_validate({"type": "replay", "name": "bearing", "path": str(path), "speed": 0} | more)


def csv(folder: Path, text: str) -> Path:
    path = folder / "recording.csv"
    path.write_text(text)
    return path


async def play(source: ReplaySource) -> Batch:
    """Read until the recording is over."""
    await source.connect()
    batches = []
    try:
        over = asyncio.create_task(source.ended.wait())
        while True:
            read = asyncio.create_task(source.read())
            await asyncio.wait({read, over}, return_when=asyncio.FIRST_COMPLETED)
            if not read.done():
                read.cancel()
                await asyncio.gather(read, return_exceptions=True)
                return concat(batches)
            batches.append(read.result())
    finally:
        await source.close()


WIDE = """time,a,b
2023-11-14T22:13:22Z,3,
2023-11-14T22:13:20Z,1,10.5
2023-11-14T22:13:21Z,two,nan
"""


async def test_a_wide_csv_gives_each_cell_in_order_of_time_and_text_where_a_number_is_due_is_bad(tmp_path):
    source = ReplaySource(
        options(csv(tmp_path, WIDE), times="original"), [ReplayPoint(4, "a"), ReplayPoint(9, "b")], Texts()
    )
    batch = await play(source)
    rows = list(zip(batch.tag.tolist(), batch.time.tolist(), batch.value.tolist(), batch.quality.tolist(), strict=True))
    assert rows[0] == (4, T0, 1.0, GOOD)
    assert rows[1] == (9, T0, 10.5, GOOD)
    assert [(r[0], r[1], r[3]) for r in rows[2:4]] == [(4, T0 + S, BAD), (9, T0 + S, BAD)]
    assert np.isnan(batch.value[2:4]).all()
    assert rows[4:] == [(4, T0 + 2 * S, 3.0, GOOD)]


async def test_chunks_do_not_change_what_is_read(tmp_path):
    rows = "".join(f"{T0 + i * S},{i},{i % 3}\n" for i in range(100))
    path = csv(tmp_path, "time,a,b\n" + rows)
    points = [ReplayPoint(0, "a"), ReplayPoint(1, "b")]
    whole = await play(ReplaySource(options(path, time_unit="ns", times="original"), points, Texts()))
    pieces = await play(
        ReplaySource(options(path, time_unit="ns", times="original", rows_per_read_max=7), points, Texts())
    )
    assert len(whole) == 200
    assert np.array_equal(whole.tag, pieces.tag)
    assert np.array_equal(whole.time, pieces.time)
    assert np.array_equal(whole.value, pieces.value)


async def test_a_long_parquet_keeps_the_recorded_qualities_and_names_tags_that_are_missing(tmp_path):
    path = tmp_path / "recording.parquet"
    duckdb.sql(
        "SELECT * FROM (VALUES ('a', 1700000000, 1.5, 192), ('b', 1700000001, 2.5, 64), ('a', 1700000002, 3.5, 24), "
        "('other', 1700000003, 9.9, 192)) AS v(tag, time, value, quality)"
    ).write_parquet(str(path))
    source = ReplaySource(
        options(path, layout="long", quality_column="quality", time_unit="s", times="original"),
        [ReplayPoint(1, "a"), ReplayPoint(2, "b"), ReplayPoint(3, "gone")],
        Texts(),
    )
    batch = await play(source)
    assert batch.tag.tolist() == [1, 2, 1]
    assert batch.time.tolist() == [T0, T0 + S, T0 + 2 * S]
    assert batch.value[:2].tolist() == [1.5, 2.5]
    assert batch.quality.tolist() == [GOOD, UNCERTAIN, BAD]
    assert list(source.problems) == [3]
    assert "'gone' is not among" in source.problems[3]


@pytest.mark.parametrize("layout", ["wide", "long"])
async def test_texts_are_interned(tmp_path, layout):
    texts = Texts()
    if layout == "wide":
        path = csv(tmp_path, "time,state\n1,run\n2,stop\n3,\n4,run\n")
    else:
        path = csv(tmp_path, "tag,time,value\nstate,1,run\nstate,2,stop\nstate,4,run\n")
    source = ReplaySource(options(path, layout=layout, time_unit="s"), [ReplayPoint(5, "state", text=True)], texts)
    batch = await play(source)
    assert [texts.text(5, int(code)) for code in batch.value] == ["run", "stop", "run"]
    assert (batch.quality == GOOD).all()


async def test_booleans_are_0_and_1(tmp_path):
    path = csv(tmp_path, "time,on\n1,true\n2,False\n")
    batch = await play(ReplaySource(options(path, time_unit="s"), [ReplayPoint(0, "on")], Texts()))
    assert batch.value.tolist() == [1.0, 0.0]


async def test_rebased_at_full_speed_ends_now_and_keeps_the_distances(tmp_path):
    path = csv(tmp_path, "time,a\n100,1\n160,2\n")
    source = ReplaySource(options(path, time_unit="s"), [ReplayPoint(0, "a")], Texts())
    batch = await play(source)
    assert (batch.time[1] - batch.time[0]) == 60 * S
    assert batch.time[1] > T0 + S  # now, not 1970


async def test_speed_divides_the_distances_and_paces_the_reads(tmp_path):
    path = csv(tmp_path, "time,a\n0,1\n10,2\n20,3\n")
    source = ReplaySource(options(path, time_unit="s", speed=200), [ReplayPoint(0, "a")], Texts())
    loop = asyncio.get_running_loop()
    await source.connect()
    began = loop.time()
    batches = [await source.read()]
    assert loop.time() - began < 5
    while sum(len(b) for b in batches) < 3:
        batches.append(await source.read())
    assert loop.time() - began >= 0.1  # 20 s at 200 times real time
    await source.close()
    times = concat(batches).time
    assert (np.diff(times) == S // 20).all()


async def test_a_loop_begins_again_with_later_times(tmp_path):
    path = csv(tmp_path, "time,a\n0,1\n1,2\n")
    source = ReplaySource(options(path, time_unit="s", speed=1000, loop=True), [ReplayPoint(0, "a")], Texts())
    await source.connect()
    rows = []
    while len(rows) < 7:
        batch = await source.read()
        rows += list(zip(batch.time.tolist(), batch.value.tolist(), strict=True))
    await source.close()
    assert [value for _, value in rows[:7]] == [1, 2, 1, 2, 1, 2, 1]
    assert sorted(rows) == rows


async def test_a_recording_without_a_time_column_is_stepped(tmp_path):
    path = csv(tmp_path, "a\n1\n2\n3\n")
    source = ReplaySource(options(path, time_column="", step_ms=250), [ReplayPoint(0, "a")], Texts())
    batch = await play(source)
    assert np.diff(batch.time).tolist() == [S // 4, S // 4]


async def test_rows_without_a_readable_time_are_counted_as_lost(tmp_path):
    path = csv(tmp_path, "time,a\n1,1\nyesterday,2\n,3\n4,4\n")
    source = ReplaySource(options(path, time_unit="s"), [ReplayPoint(0, "a")], Texts())
    batch = await play(source)
    assert batch.value.tolist() == [1.0, 4.0]
    assert source.lost == 2


async def test_the_end_of_a_recording_is_silence_until_somebody_closes(tmp_path):
    path = csv(tmp_path, "time,a\n1,1\n")
    source = ReplaySource(options(path, time_unit="s"), [ReplayPoint(0, "a")], Texts())
    await source.connect()
    await source.read()
    waiting = asyncio.create_task(source.read())
    async with asyncio.timeout(10):
        await source.ended.wait()
    assert not waiting.done()
    await source.close()
    with pytest.raises(Disconnected):
        await waiting


async def test_a_missing_file_is_unreachable_and_names_the_path(tmp_path):
    source = ReplaySource(options(tmp_path / "none.csv"), [ReplayPoint(0, "a")], Texts())
    with pytest.raises(Unreachable, match=r"there is no recording .*none\.csv"):
        await source.connect()


async def test_a_file_that_is_no_parquet_says_so(tmp_path):
    path = tmp_path / "recording.parquet"
    path.write_bytes(b"not parquet at all")
    source = ReplaySource(options(path), [ReplayPoint(0, "a")], Texts())
    with pytest.raises(Unreachable, match=r"recording .* cannot be read"):
        await source.connect()


async def test_a_missing_time_column_is_refused_with_the_columns_that_are_there(tmp_path):
    source = ReplaySource(options(csv(tmp_path, "stamp,a\n1,1\n")), [ReplayPoint(0, "a")], Texts())
    with pytest.raises(Refused, match="has no column time; it has stamp, a"):
        await source.connect()


async def test_a_time_column_in_another_unit_is_refused(tmp_path):
    source = ReplaySource(options(csv(tmp_path, "time,a\nmonday,1\n")), [ReplayPoint(0, "a")], Texts())
    with pytest.raises(Refused, match="time_unit"):
        await source.connect()


async def test_names_with_quotes_are_names(tmp_path):
    path = csv(tmp_path, 'time,"a""; DROP TABLE rows"\n1,7\n')
    source = ReplaySource(options(path, time_unit="s"), [ReplayPoint(0, 'a"; DROP TABLE rows')], Texts())
    assert (await play(source)).value.tolist() == [7.0]


def test_a_loop_at_unlimited_speed_is_refused(tmp_path):
    with pytest.raises(ValidationError, match="never ends"):
        options(tmp_path / "a.csv", loop=True)
