"""Devices behind an MQTT broker as a source: JSON documents and plain values, one decode per message.

A tag's address is a topic filter and a path; every message on a topic gives one row for each of its tags, in the order
of arrival. The connection to the broker is the device's connection; that a publisher has fallen silent is told by the
tags (`stale_after_s`), and by a problem if nothing at all came on a filter.

A retained message says nothing of its age. With a time of its own it is a reading of that time; without, the reading
has the time of its arrival and is UNCERTAIN until the next message (`retained`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge import clock as edge_clock
from edge.errors import Disconnected, Refused
from edge.sources.mqtt_decode import Decoder
from edge.sources.mqtt_options import MqttSourceOptions
from edge.sources.mqtt_points import MqttPoint, parse_address, without_covered
from edge.sources.mqtt_session import Session
from plant.batch import EMPTY, Batch
from plant.instant import NS_PER_S, Instant
from plant.texts import Texts

__all__ = ["MqttPoint", "MqttSource", "MqttSourceOptions", "parse_address"]


class MqttSource:
    """See edge.sources.Source. lost: messages that waited too long for the gateway and were dropped."""

    lost_reason: Final = "queue_overflow"

    def __init__(
        self,
        options: MqttSourceOptions,
        points: Sequence[MqttPoint],
        texts: Texts,
        clock: Callable[[], Instant] = edge_clock.now,
    ) -> None:
        self.name = options.name
        self.tags: NDArray[np.uint32] = np.array([point.tag for point in points], np.uint32)
        self.lost = 0
        self._options = options
        self._points = tuple(points)
        self._texts = texts
        self._clock = clock
        self._session = Session(options, clock)
        self._decoder = Decoder(options, self._points, texts)
        self._is_open = False
        self._missed_at: int | None = None

    @property
    def problems(self) -> Mapping[int, str]:
        return self._decoder.problems.tell()

    async def connect(self) -> None:
        """Connect and subscribe. Raises Unreachable or Refused; a refused filter is a problem of its tags."""
        self._is_open = False
        self._decoder = Decoder(self._options, self._points, self._texts)
        filters = without_covered(point.filter for point in self._points)
        refused = await self._session.open(filters, qos=self._options.qos)
        if filters and len(refused) == len(filters):
            why = next(iter(refused.values()))
            raise Refused(
                f"{self._session.peer}: the broker refuses every subscription: {why}; check its access control"
            )
        for point in self._points:
            if point.filter in refused:
                why = f"the broker refuses the subscription to {point.filter}: {refused[point.filter]}"
                self._decoder.problems.set(point.tag, f"{why}; check its access control")
                self._decoder.unheard.pop(point.filter, None)
        wait_s = self._options.first_message_s
        self._missed_at = self._clock().monotonic + round(wait_s * NS_PER_S) if wait_s else None
        self._is_open = True

    async def read(self) -> Batch:
        """Wait for messages and return their readings; an empty batch now and then while none come.

        Raises Disconnected.
        """
        if not self._is_open:
            raise Disconnected(f"{self._session.peer} is not connected")
        messages = await self._session.messages()
        self.lost = self._session.dropped
        batch = self._decoder.decode(messages) if messages else EMPTY
        if self._missed_at is not None and self._clock().monotonic >= self._missed_at:
            self._missed_at = None
            self._note_unheard()
        return batch

    async def close(self) -> None:
        """Say goodbye to the broker; idempotent."""
        self._is_open = False
        await self._session.close()

    def _note_unheard(self) -> None:
        waited = f"no message in the first {self._options.first_message_s:g} s"
        for name, tags in self._decoder.unheard.items():
            for tag in tags:
                self._decoder.problems.note(tag, f"{waited} on {name}; check the topic, and whether its publisher runs")
