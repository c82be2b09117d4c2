"""The connection to the broker over all its lives: when to try again, with which version of MQTT, what to say of it.

Owns the current `Link`. Waits with back-off and jitter after a loss, longer after a refusal; tells a change of state
once, in the log and in one sentence.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Literal

import structlog
from paho.mqtt.enums import MQTTProtocolVersion

from edge.errors import AndonError, Refused
from edge.mqtt.link import Link
from edge.mqtt.wire import Closed, LinkEvent, Message, Opened
from edge.outlets.options import MqttOptions
from plant.instant import NS_PER_S, Instant

STABLE_S: Final = 10.0
"""A connection that stood this long begins again with the shortest delay."""
GOODBYE_S: Final = 2.0
"""Longest wait for the broker to take the last word."""
WATCH_S: Final = 1.0
DOUBLINGS_MAX: Final = 30

BrokerState = Literal["connected", "connecting", "refused", "off"]

log = structlog.get_logger(__name__)


class Connection:
    """Keeps one link alive. `on_events` is called in the event loop with what the link tells, `watch` once a second.

    will: makes the last will; `session` is then the ns UTC at which the attempt began. prepare: is awaited before each
    attempt.
    """

    def __init__(
        self,
        options: MqttOptions,
        client_id: str,
        *,
        will: Callable[[], Message],
        on_events: Callable[[Sequence[LinkEvent]], None],
        watch: Callable[[Link, int], None],
        now: Callable[[], Instant],
        prepare: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._options = options
        self._client_id = client_id
        self._will = will
        self._on_events = on_events
        self._watch = watch
        self._prepare = prepare
        self._now = now
        self._link: Link | None = None
        self._closed: asyncio.Future[Closed] | None = None
        self._speaks_5 = False
        self.protocol = MQTTProtocolVersion.MQTTv311 if options.protocol == "3.1.1" else MQTTProtocolVersion.MQTTv5
        self.ready: Link | None = None
        """The link while the broker accepts messages on it."""
        self.session = 0
        self.state: BrokerState = "connecting" if options.enabled else "off"
        self.sentence = ""
        self.reconnects = 0
        self.refusals = 0
        self.inbound_dropped = 0

    async def run(self, last_word: Callable[[], Message]) -> None:
        """Stay connected until cancelled; then say `last_word` and disconnect as the protocol wants it."""
        failures = 0
        try:
            while True:
                started = self._now().monotonic
                closed = await self._live_once()
                if self._falls_back(closed):
                    continue
                stood = self._now().monotonic - started
                failures = 1 if stood >= STABLE_S * NS_PER_S else failures + 1
                self.reconnects += 1
                await asyncio.sleep(self._delay_s(closed.error, failures))
        finally:
            await self._say_goodbye(last_word)

    def waits(self, sentence: str) -> None:
        """Note that something else than the broker holds up the connection."""
        self._change("connecting", sentence)

    async def _live_once(self) -> Closed:
        """Live through one link, from the attempt to its end."""
        closed: asyncio.Future[Closed] = asyncio.get_running_loop().create_future()
        self._closed = closed
        if self._prepare is not None:
            await self._prepare()
        self.session = self._now().utc
        link = self._link = Link(self._options, self._client_id, self.protocol, self._will(), self._take_events)
        link.start()
        while not closed.done():
            await asyncio.wait({closed}, timeout=WATCH_S)
            if self.ready is not None:
                self._watch(link, self._now().monotonic)
        await link.close()
        self._link = None
        self.inbound_dropped += link.inbound_dropped
        return closed.result()

    def _take_events(self, events: Sequence[LinkEvent]) -> None:
        for event in events:
            if isinstance(event, Opened):
                self.ready = self._link
                self._speaks_5 = self._speaks_5 or self.protocol is MQTTProtocolVersion.MQTTv5
                self._change("connected", "")
            elif isinstance(event, Closed):
                self.ready = None
                if self._link is not None:  # otherwise it ends because we wanted it
                    refused = isinstance(event.error, Refused)
                    self.refusals += refused
                    self._change("refused" if refused else "connecting", str(event.error))
                if self._closed is not None and not self._closed.done():
                    self._closed.set_result(event)
        self._on_events(events)

    def _falls_back(self, closed: Closed) -> bool:
        """Change to the other MQTT version if the broker seems not to know this one; True to try it at once."""
        if self._options.protocol != "auto" or not (closed.unanswered or closed.version_unknown):
            return False
        if self.protocol is MQTTProtocolVersion.MQTTv311:
            self.protocol = MQTTProtocolVersion.MQTTv5
            return False
        if closed.version_unknown or not self._speaks_5:
            self.protocol = MQTTProtocolVersion.MQTTv311
            return True
        return False

    def _delay_s(self, error: AndonError, failures: int) -> float:
        if isinstance(error, Refused):
            longest = self._options.refused_delay_s
        else:
            doubled = self._options.reconnect_delay_ms_min * 2 ** min(failures - 1, DOUBLINGS_MAX)
            longest = min(doubled, self._options.reconnect_delay_ms_max) / 1000
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads gateways, guards nothing

    async def _say_goodbye(self, last_word: Callable[[], Message]) -> None:
        link, self._link = self._link, None
        if link is not None:
            if self.ready is not None and self._closed is not None:
                self.ready = None
                link.send([last_word()])
                link.goodbye()
                await asyncio.wait({self._closed}, timeout=GOODBYE_S)
            await link.close()
        self.state, self.sentence = "off", ""

    def _change(self, state: BrokerState, sentence: str) -> None:
        """Change the state; log it once, not at every attempt."""
        first_loss = state == "connecting" and not self.sentence and bool(sentence)
        changed = state != self.state or first_loss
        self.state, self.sentence = state, sentence
        if not changed:
            return
        address = self._options.address
        match state:
            case "connected":
                log.info("mqtt connected", address=address, client=self._client_id, protocol=self.protocol.name)
            case "refused":
                log.error("mqtt refused", address=address, client=self._client_id, reason=sentence)
            case _:
                log.warning("mqtt disconnected", address=address, client=self._client_id, reason=sentence)
