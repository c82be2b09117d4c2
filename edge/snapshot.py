"""The face of the running gateway: snapshot, counters, tags and commands for page, terminal and command line."""

import asyncio
import resource
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge import clock
from edge.errors import AndonError
from edge.history import history, joined, start_of
from edge.journal import read_states
from edge.tick import Command, Occurred, Reply, Tick
from edge.view import Snapshot, TagView
from edge.web.gateway import COMMIT_BOUNDS_S, STEP_BOUNDS_S, Durations, QueryResult, Reloaded, StateHistory, Stats
from plant.events import Audit
from plant.instant import NS_PER_S

if TYPE_CHECKING:
    from edge.app import App

REPLY_S_MAX = 5.0
RATE_WINDOW_NS = NS_PER_S
PAGE_SIZE = resource.getpagesize()


class Face:
    """Implements `edge.web.gateway.Gateway` over an `App`; reads, never changes, except through commands."""

    def __init__(self, app: "App") -> None:
        self._app = app
        self.steps = Durations(STEP_BOUNDS_S)
        self.commits = Durations(COMMIT_BOUNDS_S)
        self.events: Counter[str] = Counter()
        self.version = version("andon")
        self.started = clock.now()
        self._rate = 0.0
        self._rate_from = (self.started.monotonic, 0)
        self._waiting: dict[str, asyncio.Future[Reply]] = {}

    def note(self, tick: Tick, seconds: float) -> None:
        """Take the result of a step into the counters, and its answers to whoever waits for them."""
        self.steps.observe(seconds)
        for event in tick.events:
            self.events[event.kind] += 1
        self.answer(tick.replies)

    def answer(self, replies: tuple[Reply, ...]) -> None:
        """Wake whoever waits for these."""
        for reply in replies:
            future = self._waiting.pop(reply.command, None)
            if future is not None and not future.done():
                future.set_result(reply)

    def snapshot(self) -> Snapshot:
        app, now = self._app, clock.now()
        alive = app.line.liveness.alive(now)
        devices = [device.view(alive) for device in app.devices.by_name.values()]
        ring = app.store.status()
        flowing = sum(device.alive > 0 for device in devices)
        troubles = [device.sentence for device in devices if device.sentence]
        if ring.state != "ok":
            troubles.append(ring.sentence)
        broker = app.outlet.view()
        if broker.state not in ("connected", "off"):
            troubles.append(broker.sentence)
        sparkplug = app.sparkplug.view()
        if sparkplug.state != "off" and sparkplug.sentence:
            troubles.append(f"Sparkplug: {sparkplug.sentence}")
        # One machine that is switched off does not make the gateway ill; no data at all, or no store, does.
        healthy = ring.state != "down" and (flowing > 0 or not devices)
        tags = app.line.liveness.device_tags
        return Snapshot(
            gateway=app.config.file.gateway.name,
            version=self.version,
            time=now.utc,
            started=self.started.utc,
            healthy=healthy,
            sentence="; ".join(t for t in troubles if t) or _all_well(flowing, len(devices)),
            tags=len(tags),
            tags_alive=int(np.count_nonzero(alive[tags])),
            readings=app.line.readings,
            readings_per_s=self._readings_per_s(now.monotonic),
            step_ms_p99=self.steps.quantile(0.99) * 1000,
            rss_bytes=_rss_bytes(),
            devices=devices,
            machines=app.production.views(now),
            alarms=app.alarms.views(now),
            ring=ring,
            broker=broker,
            time_zone=app.config.file.site.time_zone,
        )

    def _readings_per_s(self, monotonic: int) -> float:
        since, before = self._rate_from
        if monotonic - since >= RATE_WINDOW_NS:
            self._rate = (self._app.line.readings - before) * NS_PER_S / (monotonic - since)
            self._rate_from = (monotonic, self._app.line.readings)
        return self._rate

    def stats(self) -> Stats:
        app = self._app
        counts = app.line.calibration.counts
        return Stats(
            dropped={"queue_overflow": app.store.dropped, "unknown_tag": counts.unknown_tag},
            events=self.events,
            steps=self.steps.histogram(),
            commits=self.commits.histogram(),
            inbox_readings=app.inbox.rows,
            inbox_readings_max=app.inbox.rows_max,
            loop_lag_s=app.lag.last_s,
        )

    def tags(self, offset: int, limit: int, search: str) -> list[TagView]:
        app, now = self._app, clock.now()
        live, wanted = app.line.liveness, search.lower()
        found = sorted(name for name in app.table.by_name if wanted in name.lower())
        views = []
        for name in found[offset : offset + limit]:
            tag = app.table[name]
            i = tag.index
            seen = bool(live.arrived[i])
            value: float | str | None = float(live.value[i]) if seen and np.isfinite(live.value[i]) else None
            if tag.text and value is not None:
                value = app.texts.text(i, int(value))
            views.append(
                TagView(
                    name=name,
                    unit=tag.unit,
                    asset=tag.asset,
                    device=tag.device,
                    value=value,
                    quality=int(live.quality[i]),
                    time=int(live.time[i]),
                    age_s=(now.monotonic - int(live.arrived[i])) / NS_PER_S if seen else -1.0,
                )
            )
        return views

    async def query(self, sql: str, rows_max: int, timeout_s: float) -> QueryResult:
        answer = await self._app.store.query(sql, rows_max=rows_max, timeout_s=timeout_s)
        return QueryResult(list(answer.columns), list(answer.types), list(answer.rows), answer.truncated)

    async def export(self, start_ns: int, end_ns: int) -> Path:
        return await self._app.store.export(start_ns, end_ns)

    async def command(self, command: Command) -> Reply:
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[command.id] = future
        self._app.inbox.signal(command)
        try:
            async with asyncio.timeout(REPLY_S_MAX):
                return await future
        except TimeoutError as error:
            raise AndonError(f"the gateway did not answer the command within {REPLY_S_MAX:g} s") from error
        finally:
            self._waiting.pop(command.id, None)

    async def states(self, machine: str, hours: int) -> StateHistory:
        app, now = self._app, clock.now().utc
        running = app.production.running(machine)
        if running is None:
            raise AndonError(f"there is no machine {machine!r}")
        since = start_of(running.shift, hours, now)
        kept = await asyncio.to_thread(read_states, app.store.journal.path, running.asset, since)
        events = joined(kept, running.log)
        return history(events, running.name, running.asset, running.shift, hours, now)

    def audit(self, user: str, action: str, outcome: str, detail: Mapping[str, Any]) -> None:
        now = clock.now().utc
        event = Audit(id="", time=now, asset="", user=user, action=action, outcome=outcome, detail=detail)
        self._app.inbox.signal(Occurred(event=event))

    async def reload(self) -> Reloaded:
        return await self._app.reload()


def _all_well(flowing: int, devices: int) -> str:
    if flowing < devices:
        return f"waiting for the first data of {devices - flowing} of {devices} devices"
    return f"all {devices} devices deliver" if devices else "no device is configured"


def _rss_bytes() -> int:
    """Resident memory of this process (proc(5), statm, second field, pages)."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_SIZE
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
