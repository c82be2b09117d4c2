"""What passes between the event loop and the thread of the link: messages one way, what became of them the other."""

from dataclasses import dataclass

from edge.errors import AndonError


@dataclass(frozen=True, slots=True)
class Message:
    """To be published. token: comes back with the acknowledgement; 0 = nobody waits (QoS 0)."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False
    token: int = 0
    correlation: bytes | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """The broker accepted the connection; `receive_max` publishes may be unacknowledged."""

    receive_max: int


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The broker has the message (why == ""), or refused it and says why."""

    token: int
    why: str


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The answer to a subscription: why == "" if all its filters were granted. whys: the same per filter."""

    filters: tuple[str, ...]
    why: str
    whys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Received:
    topic: str
    payload: bytes
    retain: bool
    answer_to: str
    correlation: bytes | None


@dataclass(frozen=True, slots=True)
class Closed:
    """The link has ended, for ever. error: what that means for the next attempt."""

    error: AndonError
    unanswered: bool
    """It was closed before it was accepted or refused, as brokers do that do not know this MQTT version."""
    version_unknown: bool
    """The broker said that it does not know this MQTT version."""
    attempted: bool = True
    """CONNECT was sent, or may have been."""
    silent: bool = False
    """The broker did not answer within the keep-alive: what was sent before may be lost."""


LinkEvent = Opened | Acknowledged | Subscribed | Received | Closed
