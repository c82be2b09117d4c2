"""PublishRequests on the way, several at once, and what comes back: messages and errors, in the order of arrival.

Owns the workers, the acknowledgements and the asking again for missed messages. Leaves the meaning of messages to
the subscriptions. Back-pressure reaches the server: a worker sends its next request only after its last answer was
taken.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

from asyncua import ua
from asyncua.ua import UaStatusCodeError

from edge.errors import Disconnected
from edge.sources.opcua_session import Session
from edge.sources.opcua_wire import Malformed, Message, parse_publish, parse_republish

PUBLISH_MAX: Final = 8
"""PublishRequests on the way; two more than subscriptions, up to this, save a round trip per message."""
STRAYS_MAX: Final = 16
"""Requests that were given up but may still be answered; beyond that the oldest is let go."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A publish request that failed. round: of which `start` it was."""

    error: Exception
    round: int


class Publisher:
    """The publish requests of one session. arrived: (body, message), a Failure, or None, a mere wake."""

    def __init__(self, session: Session, name: str) -> None:
        self.arrived: asyncio.Queue[tuple[bytes, Message] | Failure | None] = asyncio.Queue(PUBLISH_MAX)
        self._session = session
        self._name = name
        self._round = 0
        self._acknowledgements: list[ua.SubscriptionAcknowledgement] = []
        self._workers: list[asyncio.Task[None]] = []
        self._strays: list[asyncio.Task[None]] = []

    @property
    def count(self) -> int:
        """Publish requests that are kept on the way."""
        return len(self._workers)

    def start(self, subscriptions: int) -> None:
        """Send fresh requests. Those that are on the way may have been lost: their answers still count, their errors
        do not, and none of them is sent again.
        """
        self._round += 1
        self._strays = [task for task in (*self._strays, *self._workers) if not task.done()]
        for task in self._strays[:-STRAYS_MAX]:
            task.cancel()
        count = min(subscriptions + 2, PUBLISH_MAX)
        self._workers = [
            asyncio.create_task(self._publish(self._round), name=f"opcua-publish-{self._name}-{n}")
            for n in range(count)
        ]

    def is_stale(self, failure: Failure) -> bool:
        """Tell whether a request failed that was given up meanwhile."""
        return failure.round != self._round

    def wake(self, _done: object = None) -> None:
        """Wake whoever reads: something else than a message is to be seen to."""
        if not self.arrived.full():
            self.arrived.put_nowait(None)

    def forget(self) -> None:
        """The session is another: nothing of the old one is acknowledged."""
        self._acknowledgements = []

    async def stop(self) -> None:
        """End all workers."""
        tasks = [*self._workers, *self._strays]
        self._workers, self._strays = [], []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _publish(self, mine: int) -> None:
        """Keep one PublishRequest on the way; hand its answer on, an error too, and end after an error."""
        while mine == self._round:
            request = ua.PublishRequest()
            taken, self._acknowledgements = self._acknowledgements, []
            request.Parameters.SubscriptionAcknowledgements = taken
            try:
                body = await self._session.send(request, timeout_s=0)
                message = parse_publish(body)
            except (UaStatusCodeError, Disconnected, Malformed) as error:
                if mine != self._round:
                    return
                if isinstance(error, UaStatusCodeError):
                    self._acknowledgements += taken
                    if error.code == ua.StatusCodes.BadTimeout:
                        continue
                    if error.code == ua.StatusCodes.BadTooManyPublishRequests and len(self._workers) > 1:
                        self._workers = [worker for worker in self._workers if worker is not asyncio.current_task()]
                        return
                await self.arrived.put(Failure(error, mine))
                return
            if message.notifications:
                self._acknowledgements.append(ua.SubscriptionAcknowledgement(message.subscription, message.sequence))
            await self.arrived.put((body, message))

    async def again(self, subscription: int, sequence: int) -> tuple[bytes, Message] | None:
        """Ask for a message that was missed; None if the server does not have it any more. Raises Disconnected."""
        request = ua.RepublishRequest()
        request.Parameters.SubscriptionId = subscription
        request.Parameters.RetransmitSequenceNumber = sequence
        try:
            body = await self._session.send(request)
            message = parse_republish(body)
        except (UaStatusCodeError, Malformed):
            return None
        self._acknowledgements.append(ua.SubscriptionAcknowledgement(subscription, sequence))
        return body, message
