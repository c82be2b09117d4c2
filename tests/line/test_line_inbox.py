"""The inbox is bounded, keeps order and wakes at once."""

import asyncio

import pytest

from edge.line import Inbox
from edge.tick import Condition
from plant.batch import GOOD, of_rows


def rows(n: int, first: int = 0):
    return of_rows([(0, i, float(i), GOOD) for i in range(first, first + n)])


async def test_takes_all_that_has_arrived_in_order():
    inbox = Inbox()
    await inbox.put(rows(2))
    inbox.signal(Condition(alarm="x", active=True))
    await inbox.put(rows(3, first=2))
    batches, signals = inbox.take()
    assert [b.value.tolist() for b in batches] == [[0.0, 1.0], [2.0, 3.0, 4.0]]
    assert [s.alarm for s in signals] == ["x"]
    assert inbox.take() == ([], [])


async def test_put_waits_while_full_and_goes_on_after_take():
    inbox = Inbox(rows_max=5)
    await inbox.put(rows(5))
    waiting = asyncio.create_task(inbox.put(rows(2)))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert inbox.waits == 1
    inbox.take()
    await asyncio.wait_for(waiting, 1)
    assert inbox.rows == 2


async def test_a_batch_larger_than_the_inbox_is_taken_when_it_is_empty():
    inbox = Inbox(rows_max=5)
    await asyncio.wait_for(inbox.put(rows(50)), 1)
    assert inbox.rows == 50


async def test_wait_returns_on_arrival_and_on_time_out():
    inbox = Inbox()
    await inbox.wait(0.001)
    assert inbox.take() == ([], [])
    waiting = asyncio.create_task(inbox.wait(60))
    await asyncio.sleep(0)
    assert not waiting.done()
    await inbox.put(rows(1))
    await asyncio.wait_for(waiting, 1)


async def test_a_cancelled_put_leaves_nothing_behind():
    inbox = Inbox(rows_max=1)
    await inbox.put(rows(1))
    waiting = asyncio.create_task(inbox.put(rows(1)))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    inbox.take()
    assert inbox.rows == 0
