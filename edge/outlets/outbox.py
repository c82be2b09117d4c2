"""What is on its way to the broker: at most a window of publishes that it has not acknowledged yet.

Draws from three sources: control messages (status, replies, snapshots) first, then alarm states and events in turns.
A publish that the broker denies is kept and tried again later, while the others go on. No I/O, no clock.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final

from edge.mqtt.wire import Acknowledged, Message
from edge.outlets import payloads
from edge.outlets.alarms import AlarmStates, Entry, EventStream
from edge.outlets.topics import Topics
from plant.events import AlarmTransition

CONTROL_MAX: Final = 1_024
"""Control messages waiting to be sent; the oldest are dropped."""


@dataclass(frozen=True, slots=True)
class State:
    """An alarm topic and what it should say; None clears it."""

    topic: str
    transition: AlarmTransition | None


class Outbox:
    """Publishes waiting and in flight. Times are monotonic ns."""

    def __init__(self, gateway: str, topics: Topics, states: AlarmStates, stream: EventStream) -> None:
        self._gateway = gateway
        self._topics = topics
        self._states = states
        self._stream = stream
        self._control: deque[Message] = deque()
        self._in_flight: dict[int, tuple[Message | State | Entry, int]] = {}
        self._denied_topics: set[str] = set()
        self._denied_states: dict[str, State] = {}
        self._denied_events: list[Entry] = []
        self._window = 0
        self._token = 0
        self._events_next = False
        self.published = {"control": 0, "state": 0, "event": 0}
        self.control_dropped = 0
        self.denials = 0

    def open(self, window: int) -> None:
        """Begin with a new connection, on which `window` publishes may be unacknowledged."""
        self._window = window

    def close(self) -> None:
        """Forget what was on its way: the connection is gone. Alarm states and events are sent anew.

        Which topics are denied is remembered: some brokers end the connection over it.
        """
        self._window = 0
        self._in_flight.clear()
        self._control.clear()
        self._denied_states.clear()
        self._denied_events.clear()
        self._stream.disconnected()

    @property
    def denied(self) -> int:
        """Publishes that the broker denied and that wait to be tried again."""
        return len(self._denied_states) + len(self._denied_events)

    @property
    def oldest(self) -> int | None:
        """When the longest unacknowledged publish was handed over."""
        return next(iter(self._in_flight.values()))[1] if self._in_flight else None

    def say(self, message: Message) -> None:
        """Put a control message in line."""
        if len(self._control) >= CONTROL_MAX:
            self._control.popleft()
            self.control_dropped += 1
        self._control.append(message)

    def hand_over(self, now: int) -> list[Message]:
        """Return what may be sent now, in order; it counts as in flight from here on."""
        messages = []
        while len(self._in_flight) < self._window:
            self._token += 1
            source = self._next()
            if source is None:
                break
            if self._topic(source) in self._denied_topics:
                self._put_aside(source)
                continue
            self._in_flight[self._token] = (source, now)
            messages.append(self._message(source, self._token))
        return messages

    def acknowledged(self, acknowledged: Acknowledged) -> str | None:
        """Take the broker's answer to a publish. Returns the topic if it was denied."""
        source, _ = self._in_flight.pop(acknowledged.token, (None, 0))
        if source is None:
            return None
        if acknowledged.why:
            self.denials += 1
            topic = self._topic(source)
            if not isinstance(source, Message):  # a reply that may not be given is not given later either
                self._denied_topics.add(topic)
                self._put_aside(source)
            return topic
        if isinstance(source, Entry):
            self.published["event"] += 1
            self._stream.acknowledged(source)
        else:
            self.published["state" if isinstance(source, State) else "control"] += 1
        return None

    def try_denied(self) -> None:
        """Put what was denied back in line, in its order."""
        self._denied_topics.clear()
        states, self._denied_states = self._denied_states, {}
        events, self._denied_events = self._denied_events, []
        for state in states.values():
            self._states.returned(state.topic, state.transition)
        for entry in reversed(events):
            self._stream.returned(entry)

    def _put_aside(self, source: Message | State | Entry) -> None:
        if isinstance(source, State):
            self._denied_states[source.topic] = source
        elif isinstance(source, Entry):
            self._denied_events.append(source)

    def _next(self) -> Message | State | Entry | None:
        if self._control:
            return self._control.popleft()
        # States and events take turns, so that a flood of one does not hold up the other.
        self._events_next = not self._events_next
        if self._events_next:
            return self._stream.take() or self._next_state()
        return self._next_state() or self._stream.take()

    def _next_state(self) -> State | None:
        due = self._states.take()
        return None if due is None else State(*due)

    def _topic(self, source: Message | State | Entry) -> str:
        return self._topics.event(source.event.asset) if isinstance(source, Entry) else source.topic

    def _message(self, source: Message | State | Entry, token: int) -> Message:
        if isinstance(source, Message):
            return Message(source.topic, source.payload, 1, source.retain, token, source.correlation)
        if isinstance(source, Entry):
            return Message(self._topic(source), payloads.event(self._gateway, source.event), token=token)
        payload = b"" if source.transition is None else payloads.alarm(self._gateway, source.transition)
        return Message(source.topic, payload, retain=True, token=token)
