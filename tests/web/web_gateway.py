"""A gateway without a plant: implements `edge.web.gateway.Gateway` over a snapshot that the test can change.

Run as a program it serves the page with a plant that moves, to look at: `python tests/web/web_gateway.py 8080`.
"""

import asyncio
import math
import re
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from edge.errors import AndonError
from edge.tick import Command, Reply
from edge.view import AlarmView, BrokerView, DeviceView, MachineView, RingView, Snapshot, TagView
from edge.web.gateway import STEP_BOUNDS_S, Durations, QueryResult, Reloaded, Span, StateHistory, Stats
from edge.web.options import WebOptions
from edge.web.roles import Role
from edge.web.server import Web

S = 1_000_000_000
NOW = 1_795_161_600 * S


def machine(name, asset, now=NOW, **changes):
    values = {
        "name": name, "asset": asset, "state": "running", "reason": None, "state_since": now - 754 * S,
        "shift": "early", "shift_start": now - 9000 * S, "shift_end": now + 19800 * S, "order": "A-1047",
        "product": "bracket", "produced": 412.0, "rejected": 7.0, "availability": 0.93, "performance": 0.96,
        "quality": 0.983, "oee": 0.878, "teep": 0.61, "utilisation": 0.7, "target_oee": 0.85,
        "performance_suspect": False, "unknown_s": 0.0, "losses": [],
    } | changes  # fmt: skip
    return MachineView(**values)


def device(name, kind, now=NOW, **changes):
    values = {
        "name": name, "type": kind, "state": "connected", "since": now - 8000 * S, "sentence": "", "tags": 24,
        "alive": 24, "readings": 190_000, "lost": 0, "reconnects": 0, "problems": {},
    } | changes  # fmt: skip
    return DeviceView(**values)


def alarm(name, now=NOW, **changes):
    values = {
        "alarm": name, "asset": "pressing/line2/press", "priority": "high", "state": "B", "active": True,
        "acknowledged": False, "annunciated": True, "shelved_until": 0, "occurrence": f"{name}-1",
        "since": now - 95 * S, "tag": "press.bearing_temperature", "value": 86.4, "limit": 80.0,
        "message": "Bearing of the press is too hot",
    } | changes  # fmt: skip
    return AlarmView(**values)


def plant(now=NOW, beat=0):
    """A plant of three machines, one of them in trouble."""
    wave = math.sin(beat / 20)
    losses = [
        {"loss": "breakdowns", "minutes": 31.0, "parts": 62.0, "money": 248.0, "currency": "EUR"},
        {"loss": "setup_and_adjustment", "minutes": 14.0, "parts": 28.0, "money": None},
        {"loss": "reduced_speed", "minutes": 6.2, "parts": None, "money": None},
    ]
    temperature = 80 + 7 * wave
    return Snapshot(
        gateway="plant1", version="0.1.0", time=now, started=now - 8100 * S, healthy=True,
        sentence="Data flows from 3 of 4 devices; press is down.", tags=86, tags_alive=62, readings=612_000 + beat * 86,
        readings_per_s=86 + 8 * wave, step_ms_p99=0.42, rss_bytes=168_000_000,
        devices=[
            device("cnc", "opcua", now),
            device("press", "modbus", now, state="down", since=now - 41 * S, alive=0, reconnects=3,
                   sentence="No answer from 10.20.0.7:502 since 41 s; trying again every 8 s."),
            device("strip", "modbus", now, problems={
                "strip.power_factor": "holding/312: illegal data address (2); check the address in tags.csv line 41",
                "strip.voltage_l3": "holding/318: illegal data address (2); check the address in tags.csv line 44"}),
            device("inspection", "opcua", now, tags=14, alive=14),
        ],
        machines=[
            machine("cnc", "milling/line1/cnc", now, oee=0.878 + 0.05 * wave, losses=losses[1:]),
            machine("press", "pressing/line2/press", now, state="down", reason="breakdown", state_since=now - 41 * S,
                    produced=1290.0, rejected=44.0, availability=0.71, performance=0.88, quality=0.966,
                    oee=0.6 + 0.04 * wave, losses=losses),
            machine("strip", "finishing/line3/strip", now, state="idle", reason="no_material", produced=1843.5,
                    rejected=12.5, availability=0.62, performance=1.08, quality=0.993, oee=0.665 - 0.03 * wave,
                    performance_suspect=True, unknown_s=312.0, order="", product="coil 1.5 mm", losses=losses[2:]),
        ],
        alarms=[
            alarm("press.bearing_hot", now, priority="critical", value=temperature),
            alarm("device.press.communication", now, priority="high", tag="", value=None, limit=None,
                  message="No answer from press (10.20.0.7:502): check its power and its network cable",
                  since=now - 41 * S),
            alarm("cnc.vibration_high", now, priority="medium", state="C", acknowledged=True, tag="cnc.vibration_x",
                  value=11.23456, limit=10.0, message="Vibration of the spindle", since=now - 1300 * S),
            alarm("strip.oee_low", now, priority="low", state="G", annunciated=False, tag="strip.oee", value=0.665,
                  limit=0.75, message="OEE of the strip line is low", shelved_until=now + 3600 * S,
                  since=now - 7000 * S),
        ],
        ring=RingView(state="ok", sentence="", files=4, rows=8_412_330, bytes=96_400_000, bytes_max=2_000_000_000,
                      oldest=now - 90_000 * S, newest=now, committed=612_000, dropped=0, full_at=now + 1_900_000 * S),
        broker=BrokerView(state="connected", sentence="", address="127.0.0.1:1883", published=41_230, dropped=12,
                          unacknowledged=2),
    )  # fmt: skip


def plain(now=NOW):
    """Nothing configured, nothing read: the emptiest snapshot there is."""
    return Snapshot(
        gateway="new", version="0.1.0", time=now, started=now, healthy=False, sentence="No data yet.", tags=0,
        tags_alive=0, readings=0, readings_per_s=0.0, step_ms_p99=0.0, rss_bytes=0, devices=[], machines=[], alarms=[],
        ring=RingView(state="down", sentence="The disk is read-only.", files=0, rows=0, bytes=0, bytes_max=0, oldest=0,
                      newest=0, committed=0, dropped=0, full_at=0),
        broker=BrokerView(state="off", sentence="No broker is configured.", address="", published=0, dropped=0,
                          unacknowledged=0),
    )  # fmt: skip


def day(name, now=NOW, hours=0):
    """The states of a shift: runs, short stops, a break, long stops with and without a reason."""
    start, spans, at = now - (hours * 3600 or 9000) * S, [], now - (hours * 3600 or 9000) * S
    recipe = [
        ("running", None, 40),
        ("down", None, 3),
        ("running", None, 20),
        ("idle", "no_material", 6),
        ("running", None, 31),
        ("down", "breakdown", 12),
        ("setup", "changeover", 9),
        ("unknown", None, 4),
    ]
    turn = sum(name.encode())
    while at < now:
        state, reason, minutes = recipe[turn % len(recipe)]
        end = min(now, at + minutes * 60 * S)
        spans.append(Span(start=at, end=end, state=state, reason=reason, by="maria" if reason else "", open=end == now))
        at, turn = end, turn + 1
    pauses = [] if hours else [(start + 3600 * S, start + 5400 * S)]
    return StateHistory(machine=name, asset=f"x/{name}", shift="" if hours else "early", start=start, now=now,
                        end=now if hours else start + 28800 * S, spans=spans, pauses=pauses)  # fmt: skip


class PlainGateway:
    """Answers like a gateway. `now_snapshot` is what it shows; the rest records what it was asked."""

    def __init__(self, directory):
        self.directory = directory
        self.now_snapshot = plant()
        self.snapshots = 0
        self.commands = []
        self.reload_error = None
        self.trail = []
        self.statements = []
        self.exports = []
        self.tag_views = [
            TagView(name=f"cnc.axis{i:02d}.position", unit="mm", asset="milling/line1/cnc", device="cnc",
                    value=12.5 * i, quality=192, time=NOW - S, age_s=1.0) for i in range(70)
        ]  # fmt: skip
        steps = Durations(STEP_BOUNDS_S)
        for seconds in (0.00008, 0.0003, 0.0003, 0.004, 0.3):
            steps.observe(seconds)
        self.steps = steps

    def snapshot(self):
        self.snapshots += 1
        return self.now_snapshot

    def stats(self):
        return Stats(
            dropped={"inbox_full": 3, "disk_full": 0}, events={"alarm": 12, "status_change": 40},
            steps=self.steps.histogram(), inbox_readings=17, inbox_readings_max=100_000, loop_lag_s=0.0004,
            revision="abc",
        )  # fmt: skip

    def tags(self, offset, limit, search):
        found = [tag for tag in self.tag_views if search.lower() in tag.name.lower()]
        return found[offset : offset + limit]

    async def query(self, sql, rows_max, timeout_s):
        if "slow" in sql:
            raise TimeoutError
        self.statements.append(sql)
        if "epoch_us" in sql:
            return QueryResult(["tag", "bucket", "low", "high", "last", "quality", "time"], [], self.trend_rows(sql))
        if "nothere" in sql:
            raise AndonError("There is no table nothere. There are: readings, tags, events, alarms, oee, gaps.")
        rows = [(i, f"row {i}", float("nan"), None) for i in range(5)]
        return QueryResult(["n", "text", "x", "none"], ["BIGINT", "VARCHAR", "DOUBLE", "INTEGER"], rows[:rows_max],
                           truncated=rows_max < 5)  # fmt: skip

    def trend_rows(self, sql):
        return []

    async def export(self, start_ns, end_ns):
        path = self.directory / f"export-{len(self.exports)}.parquet"
        path.write_bytes(b"PAR1" + b"x" * 200_000 + b"PAR1")
        self.exports.append(path)
        return path

    async def command(self, command: Command):
        self.commands.append(command)
        known = command.arguments.get("alarm") == "press.bearing_hot"
        code = "ok" if known else "unknown_alarm"
        return Reply(command=command.id, origin=command.origin, ok=known, code=code, data={"state": "C"})

    def audit(self, user, action, outcome, detail):
        self.trail.append((user, action, outcome, dict(detail)))

    async def states(self, machine, hours):
        if machine not in {m.name for m in self.now_snapshot.machines}:
            raise AndonError(f"there is no machine {machine!r}")
        return day(machine, self.now_snapshot.time, hours)

    async def reload(self):
        if self.reload_error:
            raise self.reload_error
        return Reloaded("Read again: 1 device changed.", ("device press",))


class MovingGateway(PlainGateway):
    """A plant by the real clock, for the eye."""

    def __init__(self, directory, small=False):
        super().__init__(directory)
        self.beat = 0
        self.small = small

    def snapshot(self):
        self.beat += 1
        return plain(time.time_ns()) if self.small else plant(time.time_ns(), self.beat)

    def trend_rows(self, sql):
        """Waves with some noise, and a hole in each."""
        names = re.findall(r"'([^']+)'", re.search(r"IN \((.*?)\)", sql)[1])
        start, bucket = (int(n) for n in re.search(r"- (\d+)\) // (\d+)", sql).groups())
        end = int(re.search(r"time < make_timestamp\((\d+)\)", sql)[1])
        now, rows = time.time_ns() // 1000, []
        for k, name in enumerate(names):
            for i in range(-1, (end - start) // bucket):
                at = start + i * bucket
                if at > now:
                    break
                value = 0.8 - 0.1 * k + 0.12 * math.sin(at / 1e8 + k) + 0.02 * math.sin(at / 3e6)
                bad = 120 < i % 400 < 135
                row = (None, None, None, 0) if bad else (value - 0.02, value + 0.02, value, 192)
                rows.append((name, i, *row, at))
        return rows

    async def states(self, machine, hours):
        return day(machine, time.time_ns(), hours)

    def tags(self, offset, limit, search):
        views = [
            msgspec.structs.replace(t, value=t.value + math.sin(self.beat / 9), age_s=0.4) for t in self.tag_views
        ] + [
            TagView(name="press.bearing_temperature", unit="Cel", asset="pressing/line2/press", device="press",
                    value=None, quality=0, time=NOW, age_s=41.0),
            TagView(name="strip.power", unit="kW", asset="finishing/line3/strip", device="strip", value=0.0000172,
                    quality=64, time=NOW, age_s=0.4),
            TagView(name="cnc.program", unit="", asset="milling/line1/cnc", device="cnc", value="O1234 <b>FACE</b>",
                    quality=192, time=NOW, age_s=12.0),
            TagView(name="cnc.oee", unit="1", asset="milling/line1/cnc", device="", value=0.87812345,
                    quality=192, time=NOW, age_s=0.4),
        ]  # fmt: skip
        views.sort(key=lambda t: t.name, reverse=True)
        return [tag for tag in views if search.lower() in tag.name.lower()][offset : offset + limit]


async def main():
    directory = Path(tempfile.mkdtemp())
    web = Web(MovingGateway(directory, "small" in sys.argv), WebOptions(port=int(sys.argv[1])), directory)
    web.open()
    for name, role in (("maria", "operator"), ("erik", "engineer")):
        web.gate.users.add(name, Role(role), "to look at the page", time.time_ns())
    print(web.url, directory, "users maria and erik, password: to look at the page", flush=True)
    try:
        await web.run()
    finally:
        web.close()


if __name__ == "__main__":
    asyncio.run(main())
