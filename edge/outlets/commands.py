"""Commands, the way in: each command id is carried out once and answered as often as it is asked.

Owns which commands are waiting for their reply and what the last replies were. Garbage is answered and counted.
Who may send commands is for the broker's access control to say; the user in a command is only what the sender
claims.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from edge.mqtt.wire import Message, Received
from edge.outlets import payloads
from edge.outlets.topics import Topics
from edge.tick import Command, Reply

REMEMBERED_MAX: Final = 512
"""Commands remembered, waiting or answered; an older id that comes again is a new command."""

SNAPSHOT: Final = "snapshot"


@dataclass(slots=True)
class _Asked:
    answer_to: str
    correlation: bytes | None
    reply: Reply | None = None


class CommandDesk:
    """Reads what arrives on the command topic, hands commands on and turns replies into messages."""

    def __init__(
        self,
        gateway: str,
        topics: Topics,
        *,
        enabled: bool,
        size_max: int,
        submit: Callable[[Command], None],
        take_snapshot: Callable[[Command], Reply],
    ) -> None:
        self._gateway = gateway
        self._topics = topics
        self._enabled = enabled
        self._size_max = size_max
        self._submit = submit
        self._take_snapshot = take_snapshot
        self._asked: OrderedDict[str, _Asked] = OrderedDict()
        self.received = 0
        self.invalid = 0
        self.repeated = 0

    def receive(self, message: Received, now: int) -> Message | None:
        """Take one message of the command topic; return the answer if there is one already. now: ns UTC."""
        self.received += 1
        asked = _Asked(message.answer_to, message.correlation)
        if message.retain:
            # The broker repeats it at every connection: nobody asks for that now.
            return self._refuse(asked, "", "a command must not be retained", now)
        try:
            command = payloads.command(message.payload, self._size_max)
        except payloads.InvalidCommand as error:
            return self._refuse(asked, error.id, str(error), now)
        before = self._asked.get(command.id)
        if before is not None:
            self.repeated += 1
            self._asked.move_to_end(command.id)
            before.answer_to, before.correlation = asked.answer_to, asked.correlation
            return self._answer(before, before.reply, now) if before.reply is not None else None
        if not self._enabled and command.name != SNAPSHOT:
            return self._refuse(asked, command.id, "this gateway takes no commands over MQTT", now)
        self._asked[command.id] = asked
        if len(self._asked) > REMEMBERED_MAX:
            self._asked.popitem(last=False)
        if command.name == SNAPSHOT:
            return self.reply(self._take_snapshot(command), now)
        self._submit(command)
        return None

    def reply(self, reply: Reply, now: int) -> Message:
        """Return the message that carries a reply to whoever asked."""
        asked = self._asked.get(reply.command)
        if asked is None:  # forgotten meanwhile: everybody may hear it
            asked = _Asked("", None)
        asked.reply = reply
        return self._answer(asked, reply, now)

    def _refuse(self, asked: _Asked, command: str, why: str, now: int) -> Message:
        self.invalid += 1
        reply = Reply(command=command, origin=payloads.ORIGIN, ok=False, code="invalid", message=why)
        return self._answer(asked, reply, now)

    def _answer(self, asked: _Asked, reply: Reply, now: int) -> Message:
        wanted = asked.answer_to
        topic = wanted if wanted and self._topics.may_answer_at(wanted) else self._topics.reply
        return Message(topic, payloads.reply(self._gateway, now, reply), correlation=asked.correlation)
