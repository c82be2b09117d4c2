"""The composition root: builds the gateway from a configuration, runs it, changes it, and ends it.

This is the diagram in code: devices -> inbox -> line -> outlets and store. Nothing else knows all parts.
"""

import asyncio
import contextlib
import errno
import gc
import logging
import os
import secrets
import signal
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import structlog

from edge import clock, systemd
from edge.alarms import Alarms
from edge.answers import HeldAnswers
from edge.assembly import make_alarms, make_line, make_production
from edge.config import Config, load, make_table, make_tags
from edge.devices import Devices
from edge.errors import AndonError, ConfigError, Problem
from edge.journal import Journal
from edge.line import Inbox, Line
from edge.outlets.mqtt import MqttOutlet
from edge.outlets.sparkplug.alarms import AlarmName
from edge.outlets.sparkplug.backlog import STATE_KEY as SPARKPLUG_KEY
from edge.outlets.sparkplug.node import SparkplugNode
from edge.production import Production
from edge.ring_history import StoredHistory
from edge.snapshot import Face
from edge.store import CommitReport, Store, open_storage
from edge.terminal import watch as watch_terminal
from edge.tick import Occurred, Reply, Tick
from edge.web.gateway import Reloaded
from edge.web.lag import LoopLag
from edge.web.server import Web
from plant.batch import EMPTY, concat
from plant.events import AlarmTransition, EventIds, GatewayEvent
from plant.instant import NS_PER_S, Instant
from plant.tags import TagTable
from plant.texts import Texts

WAKE_S = 0.1
"""The line wakes at least this often, for delays, shelves and staleness."""
SWITCH_INTERVAL_S = 0.0005
"""Python's default of 5 ms would let any other thread hold the loop for that long."""
COUNTERS_KEY = "production.counters"
NAMESPACES_KEY = "opcua.namespaces"
STATE_PERIOD_NS = 10 * NS_PER_S

log: structlog.stdlib.BoundLogger = structlog.get_logger("andon")


def open_state_dir(config: Config) -> None:
    """Make the state folder unless it is there. Raises ConfigError if it cannot be used."""
    path = config.state_dir
    why = ""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        # A full disk is no mistake of the configuration: the stores make room.
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            why = error.strerror or str(error)
    if why:
        what = f"state_dir {path} cannot be used: {why}"
        hint = "name a folder that the user of the gateway may write"
        raise ConfigError([Problem(str(config.folder / "gateway.toml"), 0, what, hint)])


class App:
    """One running gateway. `run` ends when `stop` is set, or raises what ended it."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.state_dir = config.state_dir
        self.stop = asyncio.Event()
        self.ready = asyncio.Event()
        self.inbox = Inbox(config.file.gateway.inbox_rows_max)
        self.ids = EventIds(secrets.token_hex(4))
        self.face = Face(self)
        self.answers = HeldAnswers(self._answer)
        self.lag = LoopLag()
        self.web = Web(self.face, config.file.web, self.state_dir)
        self.store: Store
        self.texts: Texts
        self.table: TagTable
        self.alarms: Alarms
        self.production: Production
        self.line: Line
        self.outlet: MqttOutlet
        self.sparkplug: SparkplugNode
        self.devices: Devices
        self._changing = asyncio.Lock()
        self._state_due = 0
        self._namespaces: dict[str, dict[str, str]] = {}

    async def run(self) -> None:
        """Open everything in order, run until stopped, close in reverse order."""
        open_state_dir(self.config)
        self.web.open()
        try:
            ring, journal = open_storage(self.state_dir, self.config.file.storage, clock.now().utc)
            self.store = Store(ring, journal, self.config.file.storage, self._committed, self.inbox.signal)
            try:
                self._build(journal)
                self.store.start()
                await self._live()
            finally:
                await self.store.stop()
        finally:
            self.web.close()

    def _build(self, journal: Journal) -> None:
        """Continue where the journal says that the last run ended."""
        now = clock.now()
        tags = make_tags(self.config.file, self.config.tags)
        self.table = make_table(tags, journal.register_tags(tags))
        self.texts = Texts(journal.texts())
        self.alarms = make_alarms(self.config, self.table, self.ids)
        self.alarms.restore(journal.alarms(), now)
        self.production = make_production(self.config, self.table, self.texts, self.ids)
        counters = journal.get_state(COUNTERS_KEY) or {}
        self._restore(self.production, self.config, journal, counters)
        self._namespaces = journal.get_state(NAMESPACES_KEY) or {}
        self.line = make_line(self.table, self.production, self.alarms, self.ids, now)
        self.outlet = self._make_outlet()
        self.sparkplug = self._make_sparkplug()
        self._occurred("started", version=self.face.version)

    def _restore(self, production: Production, config: Config, journal: Journal, counters: Mapping[str, Any]) -> None:
        """Let the machines continue from the log: what they were doing, what they had made."""
        since = production.restore_since(clock.now())
        assets = {machine.asset for machine in config.file.machine}
        production.restore([event for asset in assets for event in journal.events(asset, since)], counters)

    def _make_outlet(self) -> MqttOutlet:
        site = self.config.file.site
        return MqttOutlet(
            self.config.file.mqtt,
            enterprise=site.enterprise,
            site=site.site,
            gateway=self.config.file.gateway.name,
            table=self.table,
            texts=self.texts,
            event_log=self.store,
            alarms_snapshot=self._standing_alarms,
            submit=self.inbox.signal,
            version=self.face.version,
        )

    def _make_sparkplug(self) -> SparkplugNode:
        file = self.config.file
        return SparkplugNode(
            file.sparkplug,
            file.mqtt,
            group=f"{file.site.enterprise}:{file.site.site}",
            gateway=file.gateway.name,
            table=self.table,
            texts=self.texts,
            history=StoredHistory(self.store),
            alarm_names=self._alarm_names,
            alarms_snapshot=self._standing_alarms,
            submit=self.inbox.signal,
        )

    def _alarm_names(self) -> Iterable[AlarmName]:
        """Name every alarm that is known beforehand: those of the rules, and the two that each device may raise."""
        for rule in self.alarms.rules:
            tag = self.table.by_name.get(rule.tag)
            yield AlarmName(rule.name, rule.asset or (tag.asset if tag else ""), rule.priority)
        for device in self.config.file.device:
            for trouble in ("communication", "silent"):
                yield AlarmName(f"device.{device.name}.{trouble}", device.asset)

    def _standing_alarms(self) -> Iterable[AlarmTransition]:
        return self.alarms.snapshot(clock.now())

    def _occurred(self, action: str, **detail: object) -> None:
        now = clock.now().utc
        self.inbox.signal(Occurred(event=GatewayEvent(id="", time=now, asset="", action=action, detail=detail)))

    async def _live(self) -> None:
        """Run every task; the first that fails ends the gateway (systemd restarts it, the ring resumes it)."""
        async with asyncio.TaskGroup() as group:
            outlet = group.create_task(self.outlet.run(), name="mqtt")
            sparkplug = group.create_task(self.sparkplug.run(), name="sparkplug")
            web = group.create_task(self.web.run(), name="web")
            line = group.create_task(self._step_for_ever(), name="line")
            watchdog = group.create_task(self._feed_watchdog(), name="watchdog")
            lag = group.create_task(self.lag.run(), name="loop lag")
            storing = group.create_task(self.store.wait(), name="store")
            self.devices = Devices(group, self.inbox, self.texts, self.state_dir, self._namespaces)
            await self.devices.use(self.config, {tag.name: tag.index for tag in self.table.tags})
            gc.collect()
            gc.freeze()  # what stands now stands for ever; the collector need not walk it again
            systemd.ready(f"{len(self.config.file.device)} devices, {len(self.table)} tags")
            self.ready.set()
            await self.stop.wait()
            systemd.stopping()
            await self.devices.stop()
            self._occurred("stopped")
            self._step()
            gc.unfreeze()
            for task in (watchdog, lag, line, outlet, sparkplug, web, storing):
                task.cancel()

    async def _step_for_ever(self) -> None:
        while True:
            await self.inbox.wait(WAKE_S)
            async with self._changing:
                self._step()
            # One turn of the loop for the sockets, however fast the readings come.
            await asyncio.sleep(0)

    def _step(self) -> Tick:
        batches, signals = self.inbox.take()
        now = clock.now()
        tick = self.answers.hold(self.line.step(concat(batches), signals, now, self.inbox.take_history()))
        self.outlet.offer(tick)
        self.sparkplug.offer(tick)
        # Raw counter values are kept in the transaction of the events that were counted from them, and now and then
        # without events, so that a restart knows until when the machines were seen.
        state = None
        if tick.events or now.monotonic >= self._state_due:
            self._state_due = now.monotonic + STATE_PERIOD_NS
            state = {COUNTERS_KEY: self.production.counters(), NAMESPACES_KEY: self.devices.namespaces()}
            if (told := self.sparkplug.state()) is not None:
                state[SPARKPLUG_KEY] = told
        self.store.offer(tick, self.texts.take_fresh(), state)
        self.face.note(tick, (clock.now().monotonic - now.monotonic) / NS_PER_S)
        return tick

    def _committed(self, report: CommitReport) -> None:
        self.face.commits.observe(report.took_ns / NS_PER_S)
        self.outlet.committed(report.events)
        self.answers.committed(report.events, clock.now())
        self.sparkplug.committed(report.next_seq)

    def _answer(self, replies: tuple[Reply, ...], now: Instant) -> None:
        self.outlet.offer(Tick(now, EMPTY, EMPTY, (), replies))
        self.face.answer(replies)

    async def _feed_watchdog(self) -> None:
        """Tell systemd that the line steps and the store thread answers, as often as it wants to hear it."""
        period_s = systemd.watchdog_period_s()
        while period_s is not None:
            before = self.line.steps
            await asyncio.sleep(period_s)
            await self.store.call(_nothing)
            if self.line.steps > before:
                systemd.watchdog()

    async def reload(self) -> Reloaded:
        """Read the configuration again and change only what differs. Raises ConfigError, and then nothing changed."""
        try:
            config = await asyncio.to_thread(load, self.config.folder)
        except ConfigError as error:
            first = error.problems[0]
            log.warning("configuration refused, the old one stays", problems=[str(p) for p in error.problems])
            self._occurred("reload_refused", problem=str(first), problems=len(error.problems))
            raise
        async with self._changing:
            changed = await self._change(config)
        needs_restart = [
            section
            for section in ("site", "gateway", "storage", "web", "mqtt", "sparkplug", "alarms")
            if getattr(config.file, section) != getattr(self.config.file, section)
        ]
        self.config = config
        self._occurred("reloaded", changed=changed, needs_restart=needs_restart)
        sentence = f"{len(changed)} changes: {', '.join(changed)}" if changed else "nothing changed"
        if needs_restart:
            sentence += f"; restart the gateway for [{'], ['.join(needs_restart)}]"
        log.info("configuration read again", changed=changed, needs_restart=needs_restart)
        return Reloaded(sentence, tuple(changed))

    async def _change(self, config: Config) -> list[str]:
        """Put a checked configuration in force between two steps."""
        changed: list[str] = []
        self._step()
        tags = make_tags(config.file, config.tags)
        table = make_table(tags, await self.store.register_tags(tags))
        if (config.file.machine, config.shifts) != (self.config.file.machine, self.config.shifts):
            changed.append("machines and shifts")
        if table.tags != self.table.tags:
            changed.append("tags")
        if changed:
            production = make_production(config, table, self.texts, self.ids)
            await self.store.flush()
            counters = self.production.counters()
            await self.store.call(lambda: self._restore(production, config, self.store.journal, counters))
            self.production = production
        if config.rules != self.config.rules:
            changed.append("alarms")
        self.table = table
        self.alarms.replace_rules(config.rules, table)
        self.line.use(table, self.production)
        self.outlet.use(table)
        self.sparkplug.use(table)
        changed += await self.devices.use(config, {tag.name: tag.index for tag in table.tags})
        return changed


def _nothing() -> None:
    """The shortest piece of work: done when the store thread has got to it."""


def configure_logging(level: str) -> None:
    """JSON lines on stderr: systemd's journal, or wherever the service sends them."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        # One write per line: a line is whole or not there, whenever the process ends.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # What libraries say below a warning is noise to a plant.
    logging.basicConfig(
        level=logging.WARNING, format='{"logger":"%(name)s","level":"%(levelname)s","event":"%(message)s"}'
    )
    logging.getLogger("asyncua").setLevel(logging.CRITICAL)


async def serve(config: Config, *, watch: bool, ready: asyncio.Event | None = None) -> None:
    """Run one gateway until SIGTERM or SIGINT; SIGHUP reads the configuration again."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    app = App(config)
    loop = asyncio.get_running_loop()
    reloads: set[asyncio.Task[None]] = set()

    async def reload() -> None:
        systemd.reloading()
        with contextlib.suppress(AndonError):  # told in the log and as an event
            await app.reload()
        systemd.ready(f"{len(app.config.file.device)} devices, {len(app.table)} tags")

    def on_hangup() -> None:
        task = loop.create_task(reload())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, app.stop.set)
    loop.add_signal_handler(signal.SIGHUP, on_hangup)
    running = asyncio.create_task(app.run(), name="gateway")
    await asyncio.wait([running, asyncio.create_task(app.ready.wait())], return_when=asyncio.FIRST_COMPLETED)
    screen = None
    if app.ready.is_set():
        if ready is not None:
            ready.set()
        if watch:
            screen = asyncio.create_task(watch_terminal(lambda: app.web.frames.latest()[0], url=app.web.url))
    try:
        await running
    finally:
        if screen is not None:
            screen.cancel()
            await asyncio.wait([screen])


def run_gateway(folder: Path, *, watch: bool) -> None:
    """Check the configuration and run the gateway. Raises ConfigError before anything is started."""
    config = load(folder)
    configure_logging(config.file.gateway.log_level)
    os.umask(0o077)
    asyncio.run(serve(config, watch=watch))
