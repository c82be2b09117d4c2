"""One supervisor per device, the same for every protocol: keeps a source connected and says what is the matter.

Owns when to connect, when to give up and how long to wait; the BAD readings of a lost device; the conditions
`communication`, `no_data` and `clock` of `device.<name>`, and what else the source notices; the entries of the loss
ledger. Leaves the protocol to the source and the alarms to the line. A device is connected when data came, not when a
socket opened: one that accepts connections and says nothing does not flap.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import structlog

from edge import clock as edge_clock
from edge.errors import Disconnected, Refused, Unreachable
from edge.sources import Filled, Historian, Notice, Source
from edge.sources.clock_watch import ClockWatch, Verdict
from edge.tick import Condition, Occurred, Signal
from plant.batch import Batch, bad
from plant.events import Backfill, Event, EventIds, Gap
from plant.instant import NS_PER_S, Instant

CLOSE_S_MAX: Final = 5.0
TAGS_IN_MESSAGE_MAX: Final = 20
LOST_REPORT_S: Final = 60.0
"""Readings that a source reports as lost become one ledger entry in this time, at most."""

_DICE: Final = random.SystemRandom()
log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How long to wait before connecting again, in seconds.

    The n-th wait in a row is anything from `least_s` to min(cap_s, first_s * 2**n), so that devices which were lost
    together do not come back together. A session of `stable_s` starts the row anew. `refused_s` is the wait after
    a refusal: the device is there and will say no again until somebody changes something.
    """

    first_s: float = 1.0
    cap_s: float = 30.0
    least_s: float = 0.05
    stable_s: float = 5.0
    refused_s: float = 60.0

    def wait_s(self, failures: int, chance: float) -> float:
        """Return the wait after so many failures in a row (from 0); chance: 0..1, drawn by the caller."""
        most = min(self.cap_s, self.first_s * 2.0 ** min(failures, 32))
        return max(self.least_s, most * chance)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What `edge.view.DeviceView` shows of a device. since: ns UTC. problems: tag name -> why it has no data."""

    state: str
    since: int
    sentence: str = ""
    readings: int = 0
    lost: int = 0
    reconnects: int = 0
    problems: Mapping[str, str] = field(default_factory=dict)


class Supervisor:
    """Runs one source for ever.

    tags: index -> name of every tag of the source. put: takes a batch, waits while the line is full; put_history: the
    same for what the device recorded during a break, None = it is not asked for. signal: takes a
    condition or an event, returns at once. deadline_s: a read that has not returned by then hangs;
    connect_deadline_s: so does a connect. lost_reason: what the ledger calls
    readings that the source counts as lost. An empty batch is a sign of life like any other.
    """

    def __init__(
        self,
        source: Source,
        *,
        tags: Mapping[int, str],
        put: Callable[[Batch], Awaitable[None]],
        put_history: Callable[[Batch], Awaitable[None]] | None = None,
        signal: Callable[[Signal], None],
        asset: str = "",
        deadline_s: float | None = 60.0,
        connect_deadline_s: float = 60.0,
        lost_reason: str = "queue_overflow",
        backoff: Backoff = Backoff(),
        clock: Callable[[], Instant] = edge_clock.now,
        chance: Callable[[], float] = _DICE.random,
    ) -> None:
        self._source = source
        self._tags = tags
        self._put = put
        self._put_history = put_history
        self._signal = signal
        self._asset = asset
        self._deadline_s = deadline_s
        self._events: Callable[[], Iterable[Event]] = getattr(source, "take_events", tuple)
        self._connect_deadline_s = connect_deadline_s
        self._lost_reason = lost_reason
        self._backoff = backoff
        self._clock = clock
        self._chance = chance
        now = clock()
        self._ids = EventIds(f"{source.name}.{now.utc:x}")
        self._state = "connecting"
        self._since = now.utc
        self._sentence = ""
        self._readings = 0
        self._reconnects = 0
        self._problems: dict[int, str] | None = None
        self._named: dict[str, str] = {}
        self._notices: dict[str, Notice] = {}
        self._data_until = now.utc
        self._down_since = 0
        self._connected_at: int | None = None
        self._was_connected = False
        self._lost_told = source.lost
        self._lost_told_at: int | None = None
        self._lost_from = now.utc
        self._clock_watch = ClockWatch(source.tags)

    @property
    def status(self) -> Status:
        """The device as it is now."""
        return Status(
            state=self._state,
            since=self._since,
            sentence=self._sentence or str(getattr(self._source, "recovery", "")),
            readings=self._readings,
            lost=self._source.lost,
            reconnects=self._reconnects,
            problems=self._named,
        )

    async def run(self) -> None:
        """Connect, read, reconnect; ends only by cancellation, and then the source is closed."""
        failures = 0
        try:
            while True:
                self._connected_at = None
                try:
                    await self._session()
                except Refused as error:
                    await self._down("refused", str(error))
                    wait_s = self._backoff.refused_s
                except (Unreachable, Disconnected) as error:
                    await self._down("down", str(error))
                    if self._stood_s() >= self._backoff.stable_s:
                        failures = 0
                    wait_s = self._backoff.wait_s(failures, self._chance())
                    failures += 1
                await self._close()
                await asyncio.sleep(wait_s)
        finally:
            await self._close()

    def _stood_s(self) -> float:
        at = self._connected_at
        return 0.0 if at is None else (self._clock().monotonic - at) / NS_PER_S

    async def _session(self) -> None:
        """Connect once and read until it fails. Raises Unreachable, Refused or Disconnected."""
        try:
            async with asyncio.timeout(self._connect_deadline_s) as limit:
                await self._source.connect()
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise Unreachable(
                f"device {self._source.name} did not connect in {self._connect_deadline_s:g} s"
            ) from error
        self._clock_watch.restart()
        async with self._filling():
            await self._listen()

    @contextlib.asynccontextmanager
    async def _filling(self) -> AsyncIterator[None]:
        """Fetch in the background what the device recorded while nobody listened."""
        if self._put_history is None or not isinstance(self._source, Historian):
            yield
            return
        filling = asyncio.create_task(self._fill(self._source, self._put_history), name=f"history {self._source.name}")
        try:
            yield
        finally:
            filling.cancel()
            await asyncio.wait([filling])
            if not filling.cancelled():
                filling.result()

    async def _fill(self, source: Historian, put: Callable[[Batch], Awaitable[None]]) -> None:
        with contextlib.suppress(Disconnected):  # whoever reads finds out as well, and tells
            async with contextlib.aclosing(source.history()) as parts:
                async for part in parts:
                    if isinstance(part, Filled):
                        self._tell_filled(part)
                    else:
                        await put(part)

    def _tell_filled(self, filled: Filled) -> None:
        name = self._source.name
        event = Backfill(
            id=self._ids(),
            time=self._clock().utc,
            asset=self._asset,
            start=filled.start,
            end=filled.end,
            device=name,
            count=filled.count,
            tags=filled.tags,
            without=filled.without,
            cut=filled.cut,
        )
        log.info("history read", device=name, readings=filled.count, tags=filled.tags, without_history=filled.without)
        self._signal(Occurred(event=event))

    async def _listen(self) -> None:
        """Read until it fails. Raises Disconnected."""
        while True:
            try:
                async with asyncio.timeout(self._deadline_s) as limit:
                    batch = await self._source.read()
            except TimeoutError as error:
                if not limit.expired():
                    raise
                silence = f"device {self._source.name} is connected but has sent nothing for {self._deadline_s:g} s"
                raise Disconnected(silence) from error
            self._alive(len(batch))
            for event in self._events():
                self._signal(Occurred(event=event))
            if len(batch):
                verdict = self._clock_watch.note(batch, self._clock())
                if verdict is not None:
                    self._tell_clock(verdict)
                await self._put(batch)

    def _alive(self, readings: int) -> None:
        """A read returned: the device is there; say what has changed."""
        now = self._clock()
        self._readings += readings
        if self._connected_at is None:
            self._connected_at = now.monotonic
        if self._state != "connected":
            self._up(now)
        self._data_until = now.utc
        if self._source.problems != self._problems:
            self._problems = dict(self._source.problems)
            self._tell_problems(self._problems)
        notices = getattr(self._source, "notices", {})
        if notices != self._notices:
            self._tell_notices(notices)
        if self._source.lost == self._lost_told:
            self._lost_from = now.utc
        else:
            self._tell_lost(now)

    def _up(self, now: Instant) -> None:
        """Log and tell once that data flows (again), and write the gap into the ledger."""
        name = self._source.name
        if self._was_connected:
            self._reconnects += 1
        if self._down_since:
            self._occurred(start=self._data_until, end=now.utc, reason="disconnected", now=now)
        log.info("device connected", device=name, after_s=round((now.utc - self._since) / NS_PER_S, 3))
        self._enter("connected", "", now)
        self._was_connected = True
        self._down_since = 0
        self._tell_communication(active=False, message=f"device {name} is connected again")

    async def _down(self, state: str, reason: str) -> None:
        """Log and tell once that the device is lost; its tags become BAD. The sentence follows the latest reason."""
        now = self._clock()
        is_news = not self._down_since
        if is_news:
            self._down_since = now.utc
        sentence = self._lament(state, reason)
        if self._state == state:
            self._sentence = sentence
            return
        self._enter(state, sentence, now)
        log.warning("device lost" if state == "down" else "device refuses", device=self._source.name, reason=reason)
        self._tell_communication(active=True, message=sentence)
        if is_news and len(self._source.tags):
            await self._put(bad(self._source.tags, now.utc))

    def _enter(self, state: str, sentence: str, now: Instant) -> None:
        self._state = state
        self._since = now.utc
        self._sentence = sentence

    def _lament(self, state: str, reason: str) -> str:
        since = datetime.fromtimestamp(self._down_since // NS_PER_S, UTC).isoformat().replace("+00:00", "Z")
        if state == "refused":
            remedy = "Check its user, certificate and permissions; it is tried again from time to time."
        else:
            remedy = "Check its power, network and address; it is tried again without end."
        tags = len(self._source.tags)
        return f"No data from device {self._source.name} since {since}: {reason}. Its {tags} tags are bad. {remedy}"

    def _tell_communication(self, *, active: bool, message: str) -> None:
        name = self._source.name
        self._signal(
            Condition(
                alarm=f"device.{name}.communication",
                active=active,
                message=message,
                asset=self._asset,
                data={"device": name, "state": self._state},
            )
        )

    def _tell_problems(self, problems: Mapping[int, str]) -> None:
        name = self._source.name
        self._named = {self._tags.get(tag, str(tag)): why for tag, why in problems.items()}
        shown = [f"{tag}: {why}" for tag, why in sorted(self._named.items())[:TAGS_IN_MESSAGE_MAX]]
        more = len(self._named) - len(shown)
        if self._named:
            message = f"{len(self._named)} of {len(self._source.tags)} tags of device {name} have no data. "
            message += "; ".join(shown) + (f"; and {more} more" if more else "")
        else:
            message = f"all tags of device {name} have data"
        self._signal(
            Condition(
                alarm=f"device.{name}.no_data",
                active=bool(self._named),
                message=message,
                asset=self._asset,
                data={"device": name, "tags": sorted(self._named)},
            )
        )

    def _tell_notices(self, notices: Mapping[str, Notice]) -> None:
        """Tell which notices of the source are new, differ or have gone."""
        name = self._source.name
        for kind in sorted(notices.keys() | self._notices.keys()):
            notice = notices.get(kind)
            if notice != self._notices.get(kind):
                self._signal(
                    Condition(
                        alarm=f"device.{name}.{kind}",
                        active=notice is not None,
                        message=notice.sentence if notice else f"{kind} of device {name}: all is well again",
                        asset=self._asset,
                        priority=notice.priority if notice else "medium",
                        data={"device": name},
                    )
                )
        self._notices = dict(notices)

    def _tell_clock(self, verdict: Verdict) -> None:
        name = self._source.name
        self._signal(
            Condition(
                alarm=f"device.{name}.clock",
                active=verdict.is_wrong,
                message=verdict.sentence(name),
                asset=self._asset,
                priority="medium",
                data={"device": name, "offset_s": round(verdict.offset_ns / NS_PER_S, 3)},
            )
        )

    def _tell_lost(self, now: Instant) -> None:
        count = self._source.lost - self._lost_told
        told_at = self._lost_told_at
        if count > 0 and told_at is not None and now.monotonic - told_at < LOST_REPORT_S * NS_PER_S:
            return
        if count > 0:
            self._occurred(start=self._lost_from, end=now.utc, reason=self._lost_reason, now=now, count=count)
            self._lost_told_at = now.monotonic
        self._lost_told = self._source.lost
        self._lost_from = now.utc

    def _occurred(self, *, start: int, end: int, reason: str, now: Instant, count: int = -1) -> None:
        gap = Gap(
            id=self._ids(),
            time=now.utc,
            asset=self._asset,
            start=start,
            end=max(start, end),
            reason=reason,
            device=self._source.name,
            count=count,
        )
        self._signal(Occurred(event=gap))

    async def _close(self) -> None:
        """Close the source; a close that hangs is given up, the next connect starts from nothing."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S_MAX):
                await self._source.close()
