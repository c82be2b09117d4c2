"""One connection to the broker, from TCP to its end: paho's client and the thread that moves its bytes.

Owns the socket and the thread. Everything handed over by the event loop in one call travels in one go; everything
that comes back is collected and told to the event loop in one call. Does not connect again, keeps nothing: the
outlet decides what is sent on the next link. Bounded by its user, who sends no more than was acknowledged; what
comes in is bounded here.
"""

import asyncio
import contextlib
import select
import selectors
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from paho.mqtt import MQTTException
from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge import clock
from edge.errors import AndonError, Disconnected, Refused, Unreachable
from edge.mqtt.client import SAYS_NO, TidyClient, leave_writing_to_us
from edge.mqtt.options import BrokerOptions
from edge.mqtt.wire import Acknowledged, Closed, LinkEvent, Message, Opened, Received, Subscribed
from plant.instant import NS_PER_S

INBOUND_MAX: Final = 1_000
"""Messages received and not yet taken by the event loop, unless the user of the link says otherwise."""
RECEIVE_SIZE_MAX: Final = 1_048_576
"""Largest packet an MQTT 5 broker may send us, in bytes."""
WAKE_S: Final = 1.0
"""How often an idle link looks at its keep-alive."""
READS_MAX: Final = 200
"""Packets read in one go before something may be sent."""
HANDED_OVER_MAX: Final = 16
"""Hand-overs that the thread has not taken yet, before the link counts as congested."""
JOIN_S: Final = 2.0
GOODBYE_NS: Final = NS_PER_S
"""How long acknowledgements may keep us from saying goodbye. Said too early it gets lost: a broker that answers into a
socket that is closed already takes the connection for broken and publishes the last will."""


class Link:
    """A connection in its own thread. Methods are for the event loop's thread; `on_events` is called there."""

    def __init__(
        self,
        options: BrokerOptions,
        client_id: str,
        protocol: MQTTProtocolVersion,
        will: Message | None,
        on_events: Callable[[Sequence[LinkEvent]], None],
        *,
        inbound_max: int = INBOUND_MAX,
        reads_on: bool = True,
    ) -> None:
        """inbound_max: messages received and not yet taken by the event loop. reads_on: what to do at that limit:
        True drops and counts further messages, False leaves them with the broker until the event loop has caught up.
        """
        self._options = options
        self._client_id = client_id
        self._protocol = protocol
        self._will = will
        self._on_events = on_events
        self._outgoing: deque[tuple[str, Any]] = deque()
        self._events: deque[LinkEvent] = deque()
        self._told = False
        self._tokens: dict[int, int] = {}
        self._unacknowledged: set[int] = set()
        self._leaves_at: int | None = None
        self._subscriptions: dict[int, tuple[str, ...]] = {}
        self._reading = False
        self._opened = False
        self._version_unknown = False
        self._silent = False
        self._unanswering = False
        self._inbound_max = inbound_max
        self._reads_on = reads_on
        self._full = False
        self._stop = False
        self._woken = False
        self._failure: AndonError | None = None
        self._congested = False
        self.inbound_dropped = 0

    def start(self) -> None:
        """Begin to connect. What becomes of it arrives as Opened or Closed."""
        self._loop = asyncio.get_running_loop()
        self._wake_out, self._wake_in = socket.socketpair()
        self._wake_out.setblocking(False)
        self._wake_in.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)
        self._thread.start()

    @property
    def congested(self) -> bool:
        """The socket or the thread has not taken what was handed over: nothing that may be lost should follow."""
        return self._congested or len(self._outgoing) >= HANDED_OVER_MAX

    def send(self, messages: Sequence[Message]) -> None:
        """Hand over messages, to be published in this order."""
        self._hand_over("publish", messages)

    def subscribe(self, filters: Sequence[str], *, qos: int) -> None:
        self._hand_over("subscribe", (tuple(filters), qos))

    def unsubscribe(self, filters: Sequence[str]) -> None:
        self._hand_over("unsubscribe", list(filters))

    def goodbye(self) -> None:
        """Disconnect as the protocol wants it, after all that was handed over; the broker keeps the last will."""
        self._hand_over("disconnect", None)

    def fail(self, error: AndonError) -> None:
        """Drop the connection without a word, so that the broker publishes the last will."""
        self._failure = error
        self._stop = True
        self._wake()

    async def close(self) -> None:
        """End the thread and free the socket. Idempotent. A thread still in a name look-up is left to end alone."""
        self._stop = True
        self._wake()
        await asyncio.to_thread(self._thread.join, JOIN_S)
        if not self._thread.is_alive():
            self._wake_in.close()
            self._wake_out.close()

    def _hand_over(self, what: str, argument: Any) -> None:
        self._outgoing.append((what, argument))
        self._wake()

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            with contextlib.suppress(OSError):
                self._wake_in.send(b"\0")

    # Everything below runs in the link's own thread.

    def _run(self) -> None:
        client: TidyClient | None = None
        try:
            client = self._connect()
            self._serve(client)
            error = self._failure or Disconnected(f"{self._options.address} closed the connection")
        except (Unreachable, Refused, Disconnected) as failure:
            error = self._failure or failure
        finally:
            sock = client.socket() if client is not None else None
            if sock is not None:
                sock.close()
        unanswered = self._silent or (not self._opened and isinstance(error, Disconnected))
        if unanswered and not self._silent:
            error = Unreachable(f"{self._options.address} closed the connection before it accepted it")
        self._tell(
            Closed(error, unanswered, self._version_unknown, attempted=client is not None, silent=self._unanswering)
        )

    def _connect(self) -> TidyClient:
        options = self._options
        client = TidyClient(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            protocol=self._protocol,
            reconnect_on_failure=False,
            clean_session=None if self._protocol is MQTTProtocolVersion.MQTTv5 else True,
        )
        client.connect_timeout = options.connect_timeout_s
        # The outlet bounds what is in flight; paho's own queue would be walked through at each acknowledgement.
        client.max_inflight_messages_set(0)
        if self._will is not None:
            client.will_set(self._will.topic, self._will.payload, self._will.qos, self._will.retain)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        # With this callback paho leaves writing to us, once per hand-over instead of once per message.
        client.on_socket_register_write = leave_writing_to_us
        properties = None
        if self._protocol is MQTTProtocolVersion.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.MaximumPacketSize = RECEIVE_SIZE_MAX
            properties.ReceiveMaximum = INBOUND_MAX
        try:
            if options.user:
                client.username_pw_set(options.user, options.password())
            context = options.tls_context()
            if context is not None:
                client.tls_set_context(context)
        except (OSError, ValueError) as error:
            raise Refused(f"cannot use the credentials for {options.address}: {error}") from error
        try:
            client.connect(options.host, options.port, options.keepalive_s, properties=properties)
        except ssl.SSLCertVerificationError as error:
            raise Refused(
                f"the certificate of {options.address} is not trusted: {error.verify_message}; check ca_file and host"
            ) from error
        except ssl.SSLEOFError as error:
            raise Unreachable(f"{options.address} closed the connection during the TLS handshake") from error
        except ssl.SSLError as error:
            raise Refused(
                f"no TLS with {options.address}: {error.reason or error}; check port, ca_file and files"
            ) from error
        except (OSError, ValueError) as error:
            hint = "; does that port speak TLS?" if options.tls and isinstance(error, ConnectionError) else ""
            raise Unreachable(f"cannot reach {options.address}: {error}{hint}") from error
        return client

    def _serve(self, client: TidyClient) -> None:
        sock = client.socket()
        if sock is None:
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # type: ignore[attr-defined]
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_out, selectors.EVENT_READ)
            interest = selectors.EVENT_READ | selectors.EVENT_WRITE
            selector.register(sock, interest)
            deadline = clock.now().monotonic + round(self._options.connect_timeout_s * NS_PER_S)
            while not self._stop:
                self._wait_for_room()
                wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.want_write() else 0)
                if wanted != interest:
                    interest = wanted
                    selector.modify(sock, interest)
                ready = {key.fileobj for key, _ in selector.select(0 if client.has_more else WAKE_S)}
                if self._wake_out in ready:
                    # In this order: a hand-over after this line wakes again, one before it is taken below.
                    self._hush()
                if not self._move(client, readable=sock in ready or client.has_more):
                    return
                if not self._opened and clock.now().monotonic > deadline:
                    self._silent = True
                    raise Unreachable(
                        f"{self._options.address} did not answer within {self._options.connect_timeout_s} s"
                    )

    def _wait_for_room(self) -> None:
        """While the event loop stands still and may not lose anything, read no further."""
        while not (self._reads_on or self._stop):
            # In this order: the event loop takes the messages first and looks at `_full` then.
            self._full = True
            if not self._is_full():
                break
            select.select([self._wake_out], [], [], WAKE_S)
            self._hush()
        self._full = False

    def _hush(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_out.recv(4096)
        self._woken = False

    def _is_full(self) -> bool:
        return len(self._events) >= self._inbound_max

    def _move(self, client: TidyClient, *, readable: bool) -> bool:
        """Send what was handed over, read what came. False when the connection is over."""
        if self._opened:
            self._hand_to(client)
        rc = MQTTErrorCode.MQTT_ERR_SUCCESS
        if readable:
            self._reading = True
            try:
                rc = client.loop_read()
                for _ in range(READS_MAX):
                    if rc != MQTTErrorCode.MQTT_ERR_SUCCESS or not client.has_more or self._is_full():
                        break
                    rc = client.loop_read()
            except (MQTTException, ValueError, IndexError, KeyError) as error:
                raise Disconnected(f"{self._options.address} sent something that is not MQTT: {error}") from error
            finally:
                self._reading = False
        if self._leaves_at is not None and (not self._unacknowledged or clock.now().monotonic >= self._leaves_at):
            self._leaves_at = None
            client.disconnect()
        if rc == MQTTErrorCode.MQTT_ERR_SUCCESS and client.want_write():
            rc = client.loop_write()
        self._congested = client.want_write()
        if rc == MQTTErrorCode.MQTT_ERR_SUCCESS:
            rc = client.loop_misc()
        if self._failure is not None:
            return False
        return rc == MQTTErrorCode.MQTT_ERR_SUCCESS and client.socket() is not None

    def _hand_to(self, client: Client) -> None:
        while self._outgoing:
            what, argument = self._outgoing.popleft()
            match what:
                case "publish":
                    self._publish(client, argument)
                case "subscribe":
                    filters, qos = argument
                    if self._protocol is MQTTProtocolVersion.MQTTv5:
                        topics: list[Any] = [(name, SubscribeOptions(qos=qos, noLocal=True)) for name in filters]
                    else:
                        topics = [(name, qos) for name in filters]
                    _, mid = client.subscribe(topics)
                    if mid is not None:
                        self._subscriptions[mid] = filters
                case "unsubscribe":
                    client.unsubscribe(argument)
                case "disconnect":
                    self._leaves_at = clock.now().monotonic + GOODBYE_NS

    def _publish(self, client: Client, messages: Iterable[Message]) -> None:
        for message in messages:
            properties = None
            if message.correlation is not None and self._protocol is MQTTProtocolVersion.MQTTv5:
                properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
                properties.CorrelationData = message.correlation
            # 65,535 packet ids: one that is still in use is skipped.
            for _ in range(3):
                info = client.publish(message.topic, message.payload, message.qos, message.retain, properties)
                if info.rc != MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:
                    break
            if message.token:
                self._tokens[info.mid] = message.token
            if message.qos and info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS:
                self._unacknowledged.add(info.mid)

    def _on_connect(
        self, _client: Client, _data: Any, _flags: ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        if not reason.is_failure:
            self._opened = True
            self._tell(Opened(int(getattr(properties, "ReceiveMaximum", 65_535))))
            return
        said = f"{self._options.address} refuses client {self._client_id!r}: {reason}"
        name = reason.getName()
        self._version_unknown = name == "Unsupported protocol version"
        if self._version_unknown:
            self._failure = Unreachable(f"{said}; set protocol to the version that it speaks")
        elif name in SAYS_NO:
            self._failure = Refused(f"{said}; check user, password_file, client_id and the broker's access control")
        else:
            self._failure = Unreachable(said)

    def _on_disconnect(
        self, _client: Client, _data: Any, flags: DisconnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        if not flags.is_disconnect_packet_from_server and reason.getName() == "Keep alive timeout":
            self._unanswering = True
        if self._failure is None and flags.is_disconnect_packet_from_server:
            said = f"{self._options.address} ended the connection: {reason}"
            if reason.getName() in SAYS_NO:
                self._failure = Refused(f"{said}; is client_id {self._client_id!r} used twice?")
            else:
                self._failure = Disconnected(said)

    def _on_publish(
        self, _client: Client, _data: Any, mid: int, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        # paho also calls this when a QoS 0 message has been written; only what was read is the broker's word.
        if self._reading:
            self._unacknowledged.discard(mid)
            token = self._tokens.pop(mid, 0)
            if token:
                self._tell(Acknowledged(token, str(reason) if reason.is_failure else ""))

    def _on_subscribe(
        self, _client: Client, _data: Any, mid: int, reasons: list[ReasonCode], _properties: Properties | None
    ) -> None:
        filters = self._subscriptions.pop(mid, ())
        whys = tuple(str(reason) if reason.is_failure else "" for reason in reasons)
        self._tell(Subscribed(filters, next(filter(None, whys), ""), whys))

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        if self._reads_on and self._is_full():
            self.inbound_dropped += 1
            return
        try:
            topic = message.topic
        except UnicodeDecodeError:
            return
        self._tell(
            Received(
                topic,
                bytes(message.payload),
                message.retain,
                getattr(message.properties, "ResponseTopic", ""),
                getattr(message.properties, "CorrelationData", None),
            )
        )

    def _tell(self, event: LinkEvent) -> None:
        self._events.append(event)
        if not self._told:
            self._told = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
                self._loop.call_soon_threadsafe(self._drain)

    # And this again in the event loop's thread.

    def _drain(self) -> None:
        self._told = False
        events = [self._events.popleft() for _ in range(len(self._events))]
        if self._full:
            self._wake()
        self._on_events(events)
