"""The rules of a Sparkplug session, pure: who may say what, when, with which numbers. No I/O, no clock.

Owns bdSeq (one per CONNECT, also in the last will), seq (one per message of the node and its devices), what is born,
and what the primary host last said of itself. Makes the messages; what is in them comes from the caller. A message
that the rules forbid at this moment raises OutOfOrder: a mistake of ours, never of the other side.
"""

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Literal

from edge.mqtt.wire import Message
from edge.outlets.sparkplug import payload
from edge.outlets.sparkplug.payload import Described, HostState
from edge.sparkplug_payload import BDSEQ, NAMESPACE, REBIRTH, SEQ_COUNT, DataType

Phase = Literal["offline", "connected", "waiting", "born"]
"""offline: no connection. connected: subscriptions not answered yet. waiting: for the primary host, or for us to begin.
born: NBIRTH is out, data may follow."""

Timed = tuple[int, bytes]
"""A metric and its time in ms."""


def in_order(metrics: Iterable[Timed]) -> list[bytes]:
    """Return the metrics in order of time."""
    return [metric for _, metric in sorted(metrics, key=itemgetter(0))]


class OutOfOrder(RuntimeError):
    """A message was asked for that Sparkplug does not allow now."""


class Session:
    """One edge node at one broker, over all connections."""

    def __init__(self, group: str, node: str, primary_host: str = "") -> None:
        self._group = group
        self._node = node
        self._primary_host = primary_host
        self._bd_seq = SEQ_COUNT - 1  # the first connection ever has 0
        self._spent = True
        self._seq = 0
        self._host = HostState(online=False, timestamp=0)
        self.phase: Phase = "offline"
        self.born_devices: set[str] = set()
        self.command_topic = self.topic("NCMD")
        self.state_topic = f"{NAMESPACE}/STATE/{primary_host}" if primary_host else ""

    def topic(self, kind: str, device: str = "") -> str:
        base = f"{NAMESPACE}/{self._group}/{kind}/{self._node}"
        return f"{base}/{device}" if device else base

    # The connection

    def resume(self, bd_seq: int) -> None:
        """Continue after the last CONNECT of an earlier run."""
        self._bd_seq = bd_seq % SEQ_COUNT

    @property
    def bd_seq(self) -> int:
        """Number of the present connection: what its last will says."""
        return self._bd_seq

    def number_connection(self) -> int:
        """Give the next CONNECT its bdSeq; one that was never sent leaves its number to the next."""
        if self._spent:
            self._bd_seq = (self._bd_seq + 1) % SEQ_COUNT
            self._spent = False
        return self._bd_seq

    def death(self) -> Message:
        """Return NDEATH: the last will of the connection, and the last word before a wanted end."""
        metrics = [_bd_seq_metric(self._bd_seq, None)]
        return Message(self.topic("NDEATH"), payload.payload(metrics, time_ms=None, seq=None), qos=1, retain=False)

    def opened(self) -> Sequence[str]:
        """Note that the broker accepted us; return the topics to subscribe to before anything is published."""
        self._spent = True
        self.phase = "connected"
        # A host that died while we were away, under a retained STATE, must not look alive.
        self._host = HostState(online=False, timestamp=self._host.timestamp)
        return [self.command_topic, *([self.state_topic] if self.state_topic else [])]

    def subscribed(self) -> None:
        """Note that the broker answered the subscriptions."""
        if self.phase == "connected":
            self.phase = "waiting"

    def closed(self, *, attempted: bool) -> None:
        """Note the end of a connection. attempted: CONNECT was sent."""
        self._spent = self._spent or attempted
        self._end()

    def _end(self) -> None:
        self.phase = "offline"
        self.born_devices.clear()

    # The primary host

    @property
    def may_be_born(self) -> bool:
        return self.phase in ("waiting", "born") and (not self._primary_host or self._host.online)

    @property
    def waits_for_host(self) -> bool:
        return self.phase == "waiting" and not self.may_be_born

    def host_died(self, state: HostState) -> bool:
        """Take a STATE message of the primary host. True: it is gone: `leave`, say NDEATH, disconnect, connect anew.

        What is older than the last word of the same host is a leftover and ignored.
        """
        if state.timestamp < self._host.timestamp:
            return False
        self._host = state
        return self.phase == "born" and not state.online

    def leave(self) -> None:
        """End the session while the connection still stands; the next one begins with the next connection."""
        self._end()

    # Births and deaths

    def nbirth(self, metrics: Iterable[Timed], time_ms: int) -> Message:
        """Return NBIRTH, which begins everything anew. metrics: all of the node's but bdSeq and Rebirth, which are
        added.
        """
        if not self.may_be_born:
            raise OutOfOrder(f"NBIRTH while {self.phase}, primary host online: {self._host.online}")
        rebirth = payload.metric(
            Described(REBIRTH, None, DataType.BOOLEAN).encode(), time_ms, DataType.BOOLEAN, value=False
        )
        own = [(time_ms, _bd_seq_metric(self._bd_seq, time_ms)), (time_ms, rebirth)]
        self.phase = "born"
        self.born_devices.clear()
        self._seq = 0
        return self._numbered("NBIRTH", "", in_order([*metrics, *own]), time_ms)

    def dbirth(self, device: str, metrics: Iterable[Timed], time_ms: int) -> Message:
        """Return DBIRTH of a device: all its metrics."""
        self._must_be_born("DBIRTH")
        self.born_devices.add(device)
        return self._numbered("DBIRTH", device, in_order(metrics), time_ms)

    def ddeath(self, device: str, time_ms: int) -> Message:
        """Return DDEATH: nobody reads the device any more."""
        self._must_be_born("DDEATH", device)
        self.born_devices.discard(device)
        return self._numbered("DDEATH", device, (), time_ms)

    # Data

    def ndata(self, metrics: Iterable[bytes], time_ms: int) -> Message:
        """Return NDATA. metrics: in order of time."""
        self._must_be_born("NDATA")
        return self._numbered("NDATA", "", metrics, time_ms)

    def ddata(self, device: str, metrics: Iterable[bytes], time_ms: int) -> Message:
        """Return DDATA. metrics: in order of time."""
        self._must_be_born("DDATA", device)
        return self._numbered("DDATA", device, metrics, time_ms)

    def _must_be_born(self, kind: str, device: str = "") -> None:
        if self.phase != "born":
            raise OutOfOrder(f"{kind} before NBIRTH")
        if device and device not in self.born_devices:
            raise OutOfOrder(f"{kind} of device {device!r}, which is not born")

    def _numbered(self, kind: str, device: str, metrics: Iterable[bytes], time_ms: int) -> Message:
        data = payload.payload(metrics, time_ms=time_ms, seq=self._seq)
        self._seq = (self._seq + 1) % SEQ_COUNT
        return Message(self.topic(kind, device), data, qos=0, retain=False)


def _bd_seq_metric(number: int, time_ms: int | None) -> bytes:
    fixed = Described(BDSEQ, None, DataType.INT64).encode()
    return payload.metric(fixed, time_ms, DataType.INT64, number)
