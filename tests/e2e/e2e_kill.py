"""Kill the gateway in mid-work again and again, and keep books about what it had told and what it had kept.

usage: python e2e_kill.py [cycles]     runs alone and prints what it found; the tests run a few cycles
"""

import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from e2e_peers import DEADLINE_S, Broker, Daemon, SimulatedPlant, Subscriber, until

from plant.instant import NS_PER_S

COUNTER = "press.strokes"
PUBLISHED = (
    "alarm",
    "status_change",
    "order_started",
    "order_ended",
    "correction",
    "counter_anomaly",
    "gap",
    "gateway",
)
COMMIT_S_MAX = 2.0
"""An event that happened this long before the kill is kept: a commit group is 0.2 s, the rest is for a busy machine."""


@dataclass
class Books:
    """What was found over all cycles."""

    cycles: int = 0
    not_opened: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    lost_rows: list[str] = field(default_factory=list)
    lost_events: list[str] = field(default_factory=list)
    told_not_kept: int = 0
    """Events that the broker had and the journal did not: younger than one commit when the gateway was killed."""
    told_not_kept_age_s: float = 0.0
    kept_not_told: list[str] = field(default_factory=list)
    readings: int = 0
    events: int = 0
    told: int = 0
    told_twice: int = 0
    parts: float = 0.0
    counted: float = 0.0
    start_s: list[float] = field(default_factory=list)

    @property
    def parts_right(self) -> bool:
        return self.parts == self.counted


class Churn:
    """Something happens all the time: the press stops and goes on, the CNC changes its reasons."""

    def __init__(self, plant: SimulatedPlant) -> None:
        self._plant = plant
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name="churn")

    def __enter__(self) -> "Churn":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def _run(self) -> None:
        for n in range(10**9):
            if self._ends.wait(0.15):
                return
            machine = ("press", "cnc", "strip")[n % 3]
            if n // 3 % 2:
                self._plant.fault("start", machine=machine)
            else:
                self._plant.fault(
                    "stop", machine=machine, reason=("no_material", "breakdown", "changeover")[n // 6 % 3]
                )


def prepare(daemon: Daemon) -> None:
    """Load: everything that is read is kept, and read often."""
    path = daemon.folder / "tags.csv"
    lines = path.read_text().splitlines()
    header = next(line for line in lines if line and not line.startswith("#")).split(",")
    place = header.index("deadband")
    for i, line in enumerate(lines):
        cells = line.split(",")
        if len(cells) >= len(header) and not line.startswith("#") and cells[0] != "tag" and cells[3] != "string":
            cells[place] = "-1"
            lines[i] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n")
    for name in ("press", "strip"):
        daemon.set(f"device {name}", period_ms=100)
    daemon.set("mqtt", events_queue_max=1000)


def kept_events(daemon: Daemon) -> dict[str, str]:
    return dict(daemon.sql("select id, kind from events"))


@dataclass
class Before:
    """What was known just before a kill."""

    top: int
    rows: int
    ids: set[str]
    told: dict[str, str]
    killed: list[int]


def start(daemon: Daemon, books: Books) -> None:
    begin = time.monotonic()
    try:
        daemon.start()
    except AssertionError as error:
        books.not_opened.append(f"cycle {books.cycles}: {error}")
        raise
    books.start_s.append(time.monotonic() - begin)


def work_and_kill(daemon: Daemon, scada: Subscriber, dice: random.Random) -> Before:
    time.sleep(dice.uniform(0.2, 1.2))  # work; its length is what varies
    top, rows = daemon.sql("select coalesce(max(seq), -1), count(*) from readings")[0]
    ids = set(kept_events(daemon))
    time.sleep(dice.uniform(0.0, 0.4))  # where in a commit group the kill falls
    killed = time.time_ns()
    daemon.kill()
    return Before(top, rows, ids, told(scada), [killed])


def told(scada: Subscriber) -> dict[str, str]:
    return {e["id"]: e["time"] for e in scada.events()}


def compare(daemon: Daemon, before: Before, books: Books, lost: set[str]) -> None:
    """After a restart: what could be asked for before the kill is still there, and what was told was kept."""
    rows, twice, newest = daemon.sql(
        f"select count(*) filter (seq <= {before.top}), count(*) - count(distinct seq), max(seq) from readings"
    )[0]
    if rows != before.rows or twice or newest < before.top:
        books.lost_rows.append(
            f"cycle {books.cycles}: {before.rows} rows up to {before.top}, now {rows}, {twice} twice, newest {newest}"
        )
    kept = kept_events(daemon).keys()
    if before.ids - kept:
        books.lost_events.append(f"cycle {books.cycles}: {sorted(before.ids - kept)[:5]}")
    for key in before.told.keys() - kept - lost:
        happened = nanoseconds(before.told[key])
        age_s = min(abs(killed - happened) for killed in before.killed) / NS_PER_S
        books.told_not_kept += 1
        books.told_not_kept_age_s = max(books.told_not_kept_age_s, age_s)
        lost.add(key)
    ring = daemon.status().ring
    if ring.state != "ok":
        books.damaged.append(f"cycle {books.cycles}: {ring.sentence}")


def nanoseconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * NS_PER_S)


def settle(daemon: Daemon, plant: SimulatedPlant, scada: Subscriber, books: Books) -> None:
    """Let the plant stand still, then compare the broker, the journal and the machine's own counter."""
    plant.fault("stop", machine="press", reason="no_material")
    daemon.start()
    daemon.wait_alive()
    until(lambda: daemon.status().broker.unacknowledged == 0, "everything is acknowledged", 60)
    counted = f"select arg_max(value, seq) - arg_min(value, seq) from readings where tag = '{COUNTER}' and quality > 0"
    made = """select coalesce(sum((body->>'$.count')::double), 0) from events
        where kind = 'part_produced' and asset = 'pressing/line2/press'"""
    end = time.monotonic() + DEADLINE_S
    while not books.parts_right or not books.counted:
        books.counted, books.parts = daemon.scalar(counted), daemon.scalar(made)
        if time.monotonic() > end:
            break
        time.sleep(0.2)
    kept = kept_events(daemon)
    wanted = {key for key, kind in kept.items() if kind in PUBLISHED}
    ids = [e["id"] for e in scada.events()]
    books.kept_not_told = sorted(wanted - set(ids))
    books.told, books.told_twice = len(set(ids)), len(ids) - len(set(ids))
    books.events = len(kept)
    books.readings = daemon.scalar("select count(*) from readings")


def run(
    daemon: Daemon, plant: SimulatedPlant, scada: Subscriber, cycles: int, tell: Callable[[Books], None] | None = None
) -> Books:
    """Every third time it is killed once more while it is still starting."""
    books, lost, dice = Books(), set[str](), random.Random(20)
    with Churn(plant):
        start(daemon, books)
        while books.cycles < cycles:
            before = work_and_kill(daemon, scada, dice)
            books.cycles += 1
            if books.cycles % 3 == 0:
                daemon.launch()
                time.sleep(dice.uniform(0.0, 1.5))
                before.killed.append(time.time_ns())
                daemon.kill()
                before.told = told(scada)
            start(daemon, books)
            compare(daemon, before, books, lost)
            if tell is not None:
                tell(books)
        daemon.kill()
    settle(daemon, plant, scada, books)
    return books


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="andon-kill-"))
    plant, broker = SimulatedPlant(folder, 4.0), Broker(folder)
    broker.start()
    daemon = Daemon(folder, plant.ports, broker.port)
    prepare(daemon)

    def tell(books: Books) -> None:
        if books.cycles % 10 == 0:
            print(f"{books.cycles} cycles", flush=True)

    try:
        with Subscriber(broker.port) as scada:
            print(run(daemon, plant, scada, int(sys.argv[1]) if len(sys.argv) > 1 else 200, tell=tell))
            print("noise:", daemon.noise()[:20])
            print("log levels:", {x["event"] for x in daemon.lines() if x["level"] in ("error", "critical")})
        print("stop:", daemon.stop())
    finally:
        daemon.kill()
        broker.stop()
        plant.stop()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
