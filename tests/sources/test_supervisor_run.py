"""The supervisor: over a scripted source for the order of things, over Modbus for the whole."""

import asyncio
import contextlib
from dataclasses import dataclass, field

import numpy as np
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from modbus_peers import Scripted
from modbus_peers import source as modbus_source

from edge.errors import Disconnected, Refused, Unreachable
from edge.sources.supervisor import Backoff, Status, Supervisor
from edge.tick import Condition, Occurred
from plant.batch import BAD, GOOD, Batch, of_rows
from plant.events import Gap

QUICK = Backoff(first_s=0.02, cap_s=0.05, least_s=0.001, stable_s=0.0, refused_s=0.02)
NAMES = {1: "press.force", 2: "press.count"}
HANG = "hang"


@dataclass
class Played:
    """A source that does what its lists say: connects (None or an error) and reads (a batch, an error, or HANG)."""

    connects: list[object] = field(default_factory=list)
    reads: list[object] = field(default_factory=list)
    name: str = "press"
    tags: np.ndarray = field(default_factory=lambda: np.array([1, 2], np.uint32))
    problems: dict[int, str] = field(default_factory=dict)
    lost: int = 0
    closed: int = 0

    async def connect(self) -> None:
        await self._do(self.connects.pop(0) if self.connects else None)

    async def read(self) -> Batch:
        return await self._do(self.reads.pop(0) if self.reads else HANG)

    async def close(self) -> None:
        self.closed += 1

    async def _do(self, step):
        if callable(step):
            step = step(self)
        if step == HANG:
            await asyncio.Event().wait()
        if isinstance(step, BaseException):
            raise step
        return step


class Heard:
    """What the line would get."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.signals: list[object] = []

    async def put(self, batch: Batch) -> None:
        self.batches.append(batch)

    def conditions(self, suffix: str) -> list[Condition]:
        return [s for s in self.signals if isinstance(s, Condition) and s.alarm.endswith(suffix)]

    def gaps(self) -> list[Gap]:
        return [s.event for s in self.signals if isinstance(s, Occurred)]

    def bad(self) -> list[Batch]:
        return [b for b in self.batches if (b.quality == BAD).all()]


def row(tag: int = 1, value: float = 1.0) -> Batch:
    return of_rows([(tag, 5, value, GOOD)])


@contextlib.asynccontextmanager
async def running(source, heard: Heard, **more):
    base = {"backoff": QUICK, "tags": NAMES, "asset": "pressing/line2/press"}
    more = base | {"lost_reason": getattr(source, "lost_reason", "queue_overflow")} | more
    supervisor = Supervisor(source, put=heard.put, signal=heard.signals.append, **more)
    task = asyncio.create_task(supervisor.run())
    try:
        yield supervisor
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(true, supervisor_task=None) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.002)


async def test_a_device_that_works_is_connected_once_and_its_batches_pass():
    source, heard = Played(reads=[row(), row(2)]), Heard()
    async with running(source, heard) as supervisor:
        assert supervisor.status.state == "connecting"
        await until(lambda: len(heard.batches) == 2)
        status = supervisor.status
    assert (status.state, status.sentence, status.readings, status.reconnects) == ("connected", "", 2, 0)
    assert [c.active for c in heard.conditions("communication")] == [False]
    assert [c.active for c in heard.conditions("no_data")] == [False]
    assert heard.gaps() == []
    assert source.closed >= 1


async def test_a_loss_is_one_bad_batch_one_alarm_and_on_return_one_gap_in_the_ledger():
    gone, absent = Disconnected("cable pulled"), Unreachable("connection refused")
    source = Played(connects=[None, absent, absent, absent, None], reads=[row(), gone, row()])
    heard = Heard()
    async with running(source, heard) as supervisor:
        await until(lambda: len(heard.batches) == 3)
        status = supervisor.status
    assert [b.quality.tolist() for b in heard.batches] == [[GOOD], [BAD, BAD], [GOOD]]
    assert heard.batches[1].tag.tolist() == [1, 2]
    assert np.isnan(heard.batches[1].value).all()
    assert [c.active for c in heard.conditions("communication")] == [False, True, False]
    lost = heard.conditions("communication")[1]
    assert lost.alarm == "device.press.communication"
    assert lost.asset == "pressing/line2/press"
    assert "No data from device press since 20" in lost.message
    assert "cable pulled" in lost.message
    assert "Check its power" in lost.message
    (gap,) = heard.gaps()
    assert (gap.device, gap.reason, gap.asset) == ("press", "disconnected", "pressing/line2/press")
    assert 0 < gap.start < gap.end
    assert (status.state, status.reconnects) == ("connected", 1)


async def test_a_device_that_was_never_there_has_bad_tags_and_the_sentence_follows_the_latest_reason():
    source = Played(connects=[Unreachable("no route to host"), *[Unreachable("connection refused")] * 50])
    heard = Heard()
    async with running(source, heard) as supervisor:
        await until(lambda: len(source.connects) < 45)
        status = supervisor.status
    assert status.state == "down"
    assert "connection refused" in status.sentence
    assert len(heard.batches) == len(heard.bad()) == 1
    assert [c.active for c in heard.conditions("communication")] == [True]


async def test_the_change_is_logged_once_down_and_once_up():
    source = Played(connects=[None, *[Unreachable("refused")] * 5, None], reads=[row(), Disconnected("gone"), row()])
    heard = Heard()
    with structlog.testing.capture_logs() as logs:
        async with running(source, heard):
            await until(lambda: len(heard.batches) == 3)
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [
        ("device connected", "info"),
        ("device lost", "warning"),
        ("device connected", "info"),
    ]


async def test_a_refusal_is_parked_and_tried_slowly_with_its_own_advice():
    source, heard = Played(connects=[Refused("wrong password")] * 3), Heard()
    async with running(source, heard, backoff=Backoff(refused_s=3600)) as supervisor:
        await until(lambda: supervisor.status.state == "refused")
        await asyncio.sleep(0.05)
        status = supervisor.status
    assert len(source.connects) == 2
    assert "wrong password" in status.sentence
    assert "Check its user, certificate and permissions" in status.sentence
    assert len(heard.bad()) == 1


async def test_a_read_that_hangs_is_cut_off_and_a_device_that_only_accepts_does_not_flap():
    source, heard = Played(reads=[row(), HANG, HANG, HANG, HANG, row()]), Heard()
    async with running(source, heard, deadline_s=0.03) as supervisor:
        await until(lambda: len(heard.batches) >= 3)
        assert supervisor.status.reconnects == 1
    assert [c.active for c in heard.conditions("communication")][:3] == [False, True, False]
    assert "has sent nothing for 0.03 s" in heard.conditions("communication")[1].message


async def test_a_connect_that_hangs_is_cut_off():
    source, heard = Played(connects=[HANG, None], reads=[row()]), Heard()
    async with running(source, heard, connect_deadline_s=0.03):
        await until(lambda: heard.conditions("communication")[-1:] and not heard.conditions("communication")[-1].active)
    assert "did not connect in 0.03 s" in heard.conditions("communication")[0].message


async def test_tags_without_data_are_named_with_their_reasons_and_cleared():
    def lack(tags: dict[int, str]):
        def step(source: Played) -> Batch:
            source.problems = tags
            return row()

        return step

    illegal, silent = "illegal data address holding/107", "unit 7 does not answer"
    source = Played(reads=[row(), lack({2: illegal}), lack({2: illegal}), lack({1: silent, 2: illegal}), lack({})])
    heard = Heard()
    async with running(source, heard) as supervisor:
        await until(lambda: len(heard.batches) == 5)
        assert supervisor.status.problems == {}
    told = heard.conditions("no_data")
    assert [(c.active, c.data["tags"]) for c in told] == [
        (False, []),
        (True, ["press.count"]),
        (True, ["press.count", "press.force"]),
        (False, []),
    ]
    assert told[1].message == (
        "1 of 2 tags of device press have no data. press.count: illegal data address holding/107"
    )


async def test_only_the_first_twenty_tags_stand_in_the_message_and_all_in_the_data():
    names = {i: f"t{i:03}" for i in range(50)}
    source = Played(reads=[row()], problems=dict.fromkeys(names, "gone"))
    heard = Heard()
    async with running(source, heard, tags=names) as supervisor:
        await until(lambda: heard.conditions("no_data"))
        assert supervisor.status.problems == dict.fromkeys(names.values(), "gone")
    (told,) = heard.conditions("no_data")
    assert told.message.count(": gone") == 20
    assert told.message.endswith("and 30 more")
    assert told.data["tags"] == sorted(names.values())


async def test_readings_that_the_device_lost_go_into_the_ledger_but_not_one_entry_each():
    def lose(total: int):
        def step(source: Played) -> Batch:
            source.lost = total
            return row()

        return step

    source, heard = Played(reads=[row(), lose(5), lose(6), lose(9)]), Heard()
    async with running(source, heard) as supervisor:
        await until(lambda: len(heard.batches) == 4)
        assert supervisor.status.lost == 9
    (gap,) = heard.gaps()
    assert (gap.reason, gap.count, gap.device) == ("queue_overflow", 5, "press")
    assert gap.start <= gap.end


async def test_an_unforeseen_error_ends_the_supervisor_and_closes_the_source():
    source, heard = Played(reads=[row(), ZeroDivisionError()]), Heard()
    supervisor = Supervisor(source, tags=NAMES, put=heard.put, signal=heard.signals.append)
    with pytest.raises(ZeroDivisionError):
        await supervisor.run()
    assert source.closed == 1


async def test_cancellation_closes_the_source():
    source, heard = Played(reads=[row()]), Heard()
    async with running(source, heard):
        await until(lambda: heard.batches)
        before = source.closed
    assert source.closed == before + 1


async def test_waiting_for_the_line_is_not_the_device_s_silence():
    source, heard = Played(reads=[row(), row(), row()]), Heard()
    full = asyncio.Event()

    async def put(batch: Batch) -> None:
        heard.batches.append(batch)
        if len(heard.batches) == 1:
            await full.wait()

    supervisor = Supervisor(source, tags=NAMES, put=put, signal=heard.signals.append, deadline_s=0.05, backoff=QUICK)
    task = asyncio.create_task(supervisor.run())
    await asyncio.sleep(0.2)
    assert supervisor.status.state == "connected"
    full.set()
    await until(lambda: len(heard.batches) >= 3)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert heard.batches[2].quality.tolist() == [GOOD]


@given(st.integers(0, 1000), st.floats(0, 1))
def test_every_wait_is_bounded_and_the_first_is_within_a_second(failures, chance):
    wait_s = Backoff().wait_s(failures, chance)
    assert 0.05 <= wait_s <= 30
    assert failures or wait_s <= 1


def test_the_state_of_a_device_is_a_value():
    assert Status(state="down", since=1) == Status(state="down", since=1)


async def test_short_sessions_do_not_start_the_row_of_waits_anew():
    """A device that answers once and dies is not connected to as fast as possible."""
    source = Played(reads=[row(), Disconnected("gone")] * 100)
    heard, waits = Heard(), []

    def chance() -> float:
        waits.append(1)
        return 1.0

    backoff = Backoff(first_s=0.01, cap_s=10, least_s=0.001, stable_s=60)
    async with running(source, heard, backoff=backoff, chance=chance):
        began = asyncio.get_running_loop().time()
        await until(lambda: len(waits) == 6)
        assert asyncio.get_running_loop().time() - began >= 0.3  # 10 + 20 + 40 + 80 + 160 ms


# --- with a real device


async def test_a_restarted_plc_is_back_by_itself_and_its_neighbour_never_notices():
    async with Scripted() as press, Scripted() as strip:
        heard, neighbour = Heard(), Heard()
        press_source = modbus_source(press.port, [("holding/5", "uint16", "")])
        strip_source = modbus_source(strip.port, [("holding/6", "uint16", "")])
        async with (
            running(press_source, heard, tags={0: "a"}) as supervisor,
            running(strip_source, neighbour, tags={0: "b"}),
        ):
            await until(lambda: len(heard.batches) >= 3)
            await press.stop()
            await until(lambda: supervisor.status.state == "down")
            before = len(neighbour.batches)
            await until(lambda: len(neighbour.batches) > before + 5)
            await press.start()
            await until(lambda: supervisor.status.state == "connected")
            good = len(heard.batches)
            await until(lambda: len(heard.batches) > good)
        assert not neighbour.bad()
        assert len(heard.bad()) == 1
        assert [c.active for c in heard.conditions("communication")] == [False, True, False]
        assert [g.reason for g in heard.gaps() if g.reason != "overrun"] == ["disconnected"]


async def test_a_device_that_accepts_and_never_answers_is_one_alarm_and_no_flapping():
    async with Scripted(lambda asked: None) as plc:
        heard = Heard()
        source = modbus_source(plc.port, [("holding/5", "uint16", "")], timeout_ms=30)
        async with running(source, heard, tags={0: "a"}) as supervisor:
            await until(lambda: plc.connections >= 4)
            assert supervisor.status.state == "down"
            assert "does not answer within 30 ms" in supervisor.status.sentence
        assert [c.active for c in heard.conditions("communication")] == [True]
        assert len(heard.batches) == len(heard.bad()) == 1


async def test_an_illegal_address_becomes_a_condition_that_names_the_tag():
    async with Scripted(illegal={107}) as plc:
        heard = Heard()
        rows = [("holding/105", "uint16", ""), ("holding/107", "uint16", "")]
        async with running(modbus_source(plc.port, rows), heard, tags={0: "press.force", 1: "press.oil"}):
            await until(lambda: any(c.active for c in heard.conditions("no_data")))
        told = next(c for c in heard.conditions("no_data") if c.active)
        assert told.data["tags"] == ["press.oil"]
        assert "press.oil: illegal data address holding/107 at unit 1 of device press: exception 2" in told.message
