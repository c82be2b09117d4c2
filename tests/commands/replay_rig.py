"""A small plant of one press, 25 made-up minutes of its readings, and the line that lives through it."""

import csv
from pathlib import Path

import numpy as np

from edge.assembly import make_alarms, make_line, make_production
from edge.config import load, make_table, make_tags
from edge.store import Store, open_storage
from edge.tick import Command, Condition
from plant.batch import EMPTY, Batch
from plant.events import AlarmTransition, EventIds
from plant.instant import NS_PER_MS, NS_PER_S, Instant
from plant.texts import Texts

START = 1_800_004_800 * NS_PER_S
"""2027-01-15 09:20 UTC, ten minutes before the shift changes."""

GATEWAY = """
[site]
enterprise = "acme"
site = "plant1"
time_zone = "UTC"
[gateway]
name = "gw1"
state_dir = "state"
[storage]
bytes_max = 40_000_000
ballast_bytes = 0
free_bytes_min = 0
commit_period_ms = 100
age_max_days = 3650
segment_minutes = 20160
[mqtt]
enabled = false
[[device]]
name = "press"
type = "modbus"
asset = "pressing/line2/press"
host = "127.0.0.1"
[[machine]]
name = "press"
asset = "pressing/line2/press"
state_tag = "press.state_word"
states = { "1" = "running", "2" = "down" }
produced_tag = "press.parts"
ideal_cycle_s = 2.0
micro_stop_s = 10
"""
TAGS = """tag,device,address,type,scale,offset,unit,deadband,heartbeat_s
press.state_word,press,holding/0,uint16,,,1,,60
press.parts,press,holding/1,uint16,,,1,,60
press.temperature,press,holding/2,uint16,0.1,-20,Cel,{deadband},60
press.pressure,press,holding/3,uint16,,,bar,,60
press.recipe,press,holding/10,string:8,,,,,60
"""
ALARMS = """alarm,tag,condition,limit,deadband,on_delay_s,off_delay_s,priority
press.hot,press.temperature,HH,{limit},2,5,5,high
press.low,press.pressure,L,50,1,0,0,medium
press.down,press.state_word,discrete,2,,20,0,low
press.silent,press.pressure,stale,30,,0,0,low
press.no_value,press.temperature,bad_quality,,,5,0,low
press.falls,press.pressure,rate,40,,0,0,low
press.oee_low,press.oee,L,0.2,0.05,60,0,low
"""
SHIFTS = """
[[shift]]
name = "early"
start = "06:00"
end = "09:30"
[[shift]]
name = "late"
start = "09:30"
end = "22:00"
"""


SIGNALS = {
    900.0: [Condition(alarm="device.press.communication", active=True, message="press is lost")],
    1000.0: [Condition(alarm="device.press.communication", active=False, message="press is back")],
    1400.0: [Command(id="c1", name="correct", user="eva", arguments={
        "asset": "press", "start": START + 700 * NS_PER_S, "end": START + 720 * NS_PER_S, "why": "hand made",
        "produced": 12,
    })],
    1420.0: [Command(id="c2", name="set_state", user="eva", arguments={"asset": "press", "state": "maintenance"})],
}  # fmt: skip
"""By the second of the made-up time: what reaches the line besides readings."""


def folder(path: Path, limit=80, deadband="", tags=TAGS, gateway=GATEWAY):
    path.mkdir(parents=True, exist_ok=True)
    (path / "gateway.toml").write_text(gateway)
    (path / "tags.csv").write_text(tags.format(deadband=deadband))
    (path / "alarms.csv").write_text(ALARMS.format(limit=limit))
    (path / "shifts.toml").write_text(SHIFTS)
    return path


def made_up(config, texts, table, minutes=25, seed=1):
    """Yield (Instant, raw readings) every half second, as a device with some latency delivers them."""
    random = np.random.default_rng(seed)
    names = ["press.state_word", "press.parts", "press.temperature", "press.pressure", "press.recipe"]
    index = np.array([table[name].index for name in names], np.uint32)
    parts = 0
    for i in range(minutes * 120):
        second = i / 2
        running = not (300 <= second < 450 or 700 <= second < 706 or 1100 <= second < 1140)
        parts += running and i % 5 == 0
        hot = 900 + 80 * np.sin(second / 200) + (250 if 500 <= second < 560 else 0)
        pressure = 40.0 if 800 <= second < 803 else 100.0
        recipe = texts.code(int(index[4]), "A7" if second < 750 else "B2")
        row = np.array([1 if running else 2, parts % 65536, round(hot), pressure, recipe], np.float64)
        time = START + int(second * NS_PER_S) + int(random.integers(0, 30)) * NS_PER_MS
        lost = 900 <= second < 1000
        silent = 1250 <= second < 1350 or (lost and second > 900)
        tags = index[:0] if silent else index
        values = np.full(len(tags), np.nan) if lost else row[: len(tags)]
        batch = Batch(tags, np.full(len(tags), time), values, np.full(len(tags), 0 if lost else 192, np.uint8))
        late = time + int(random.integers(1, 40)) * NS_PER_MS
        yield Instant(late, late), batch


async def live(path: Path, minutes=25):
    """Live through the made-up time as the gateway does, store it; return (events, last production views)."""
    config = load(path)
    ring, journal = open_storage(config.state_dir, config.file.storage, START)
    tags = make_tags(config.file, config.tags)
    table, texts, ids = make_table(tags, journal.register_tags(tags)), Texts(journal.texts()), EventIds("live")
    production = make_production(config, table, texts, ids)
    started = Instant(START, START)
    line = make_line(table, production, make_alarms(config, table, ids), ids, started)
    store = Store(ring, journal, config.file.storage, clock=lambda: Instant(START, 0))
    store.start()
    events, now = [], started
    try:
        for n, (moment, batch) in enumerate(made_up(config, texts, table, minutes)):
            for step in range(now.utc + 100 * NS_PER_MS, moment.utc, 100 * NS_PER_MS):
                tick = line.step(EMPTY, [], Instant(step, step))
                events += tick.events
                store.offer(tick, texts.take_fresh())
            now = moment
            tick = line.step(batch, SIGNALS.get(n / 2, []), moment)
            events += tick.events
            store.offer(tick, texts.take_fresh())
            if n % 200 == 0:
                await store.flush()
        await store.flush()
        views = production.views(now)
    finally:
        await store.stop()
    return events, views


def activations(events):
    """Return {alarm: [(transition, ns UTC), ...]} of what the process did."""
    found = {}
    for event in events:
        if isinstance(event, AlarmTransition) and event.transition in {"activate", "clear"}:
            found.setdefault(event.alarm, []).append((event.transition, event.time))
    return found


def rows_of(path: Path):
    with path.open() as file:
        return list(csv.DictReader(file))
