"""One Sparkplug B edge node as a host sees it: births, aliases, sequence, deaths (Eclipse Sparkplug 3.0.0, 5 and 6).

Owns what is known of the node and of the devices behind it, and turns its messages into rows. Pure: no socket, no
clock. Asks for a birth by setting `wants_birth`; whether and when it is asked is the source's decision. A missing
message makes none of the values that come wrong, so they are used while the birth is awaited.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from google.protobuf.message import DecodeError

from edge.sources.mqtt_rows import Columns, Problems
from edge.sources.sparkplug_points import SparkplugPoint
from edge.sources.sparkplug_values import Unreadable, to_ns, to_quality, to_value
from edge.sparkplug_payload import BDSEQ, SEQ_COUNT, Payload
from plant.batch import BAD
from plant.instant import NS_PER_S
from plant.texts import Texts

METRICS_MAX: Final = 100_000
"""Metrics of a node that are remembered from its births."""
NODE: Final = ""
"""The node itself, where a device is named."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric of a birth. targets: the points that it feeds, mostly none or one."""

    name: str
    datatype: int
    targets: tuple[SparkplugPoint, ...]


@dataclass(slots=True)
class Counts:
    """Running totals over all nodes. missed: messages, by their sequence numbers. unknown: metrics without a birth."""

    missed: int = 0
    unknown: int = 0


@dataclass(slots=True)
class Rows:
    """What messages gave: rows of now, and rows that the node kept while nobody listened."""

    live: Columns = field(default_factory=Columns)
    historical: Columns = field(default_factory=Columns)


class EdgeNode:
    """Feed every message of the node to `take`. problems, counts: shared by all nodes."""

    def __init__(
        self,
        name: str,
        points: Sequence[SparkplugPoint],
        texts: Texts,
        problems: Problems,
        counts: Counts,
    ) -> None:
        self.name = name
        self.points = tuple(points)
        self._texts = texts
        self._problems = problems
        self._counts = counts
        self._of: dict[tuple[str, str], list[SparkplugPoint]] = {}
        for point in points:
            self._of.setdefault((point.device, point.metric), []).append(point)
        self.restart()

    def restart(self) -> None:
        """Forget everything: messages may have been missed."""
        self.wants_birth = "the gateway has just connected"
        self.is_born = False
        self._seq: int | None = None
        self._bdseq: int | None = None
        self._aliases: dict[int, Metric] = {}
        self._names: dict[tuple[str, str], Metric] = {}
        self._born: set[str] = set()
        self._is_settling = False

    def take(self, rows: Rows, kind: str, device: str, data: bytes, arrived: int) -> None:
        """Use one message. kind: NBIRTH, DBIRTH, NDATA, DDATA, NDEATH or DDEATH. arrived: ns UTC."""
        try:
            self._use(rows, kind, device, Payload.FromString(data), arrived)
        except (DecodeError, UnicodeDecodeError):
            self.wants_birth = f"a message {kind} is no Sparkplug B payload"

    def _use(self, rows: Rows, kind: str, device: str, payload: Any, arrived: int) -> None:
        if kind == "NBIRTH":
            self._node_born(rows, payload, arrived)
            return
        if kind == "NDEATH":
            self._node_died(rows, payload, arrived)
            return
        if not self.is_born:
            self.wants_birth = f"a message {kind} came before the birth of the edge node"
            return
        self._count(kind, payload)
        if kind == "DBIRTH":
            self._birth(rows, device, payload, arrived)
            return
        self.settle(rows, arrived)
        if kind == "DDEATH":
            self._device_died(rows, device, arrived)
        elif device in self._born:
            self._values(rows, device, payload, arrived)
        else:
            self.wants_birth = f"data of device {device} came before its birth"

    def settle(self, rows: Rows, arrived: int) -> None:
        """The births of the devices have followed that of the node: those that did not come are not there."""
        if not self._is_settling:
            return
        self._is_settling = False
        for device in {point.device for point in self.points} - self._born:
            why = f"device {device} of edge node {self.name} was not born with it; check its name and its connection"
            self._lost(rows, [point for point in self.points if point.device == device], arrived, why)

    def _node_born(self, rows: Rows, payload: Any, arrived: int) -> None:
        self.restart()
        self.wants_birth = ""
        self.is_born = True
        self._is_settling = True
        self._seq = int(payload.seq) % SEQ_COUNT
        for metric in payload.metrics:
            if metric.name == BDSEQ:
                self._bdseq = int(metric.long_value or metric.int_value)
        self._birth(rows, NODE, payload, arrived)

    def _birth(self, rows: Rows, device: str, payload: Any, arrived: int) -> None:
        self._born.add(device)
        born: set[str] = set()
        for metric in payload.metrics:
            if len(self._names) >= METRICS_MAX:
                break
            known = Metric(metric.name, metric.datatype, tuple(self._of.get((device, metric.name), ())))
            born.add(metric.name)
            self._names[device, metric.name] = known
            if metric.HasField("alias"):
                self._aliases[metric.alias] = known
        for point in self.points:
            if point.device == device and point.metric not in born:
                owner = f"device {device} of edge node {self.name}" if device else f"edge node {self.name}"
                why = f"{owner} has no metric {point.metric} in its birth; check the address in tags.csv"
                self._lost(rows, [point], arrived, why)
        self._values(rows, device, payload, arrived)

    def _values(self, rows: Rows, device: str, payload: Any, arrived: int) -> None:
        aliases, problems = self._aliases, self._problems
        for metric in payload.metrics:
            if metric.name:
                known = self._names.get((device, metric.name))
            else:
                known = aliases.get(metric.alias) if metric.HasField("alias") else None
            if known is None:
                self._counts.unknown += 1
                self.wants_birth = f"a metric came that is in no birth: {metric.name or f'alias {metric.alias}'}"
                continue
            for point in known.targets:
                time = to_ns(metric, payload, arrived)
                columns = rows.historical if metric.is_historical else rows.live
                try:
                    value = to_value(metric, known.datatype, text=point.text)
                except Unreadable as error:
                    columns.add(point.tag, time, float("nan"), BAD)
                    if not metric.is_historical:
                        problems.set(point.tag, f"metric {point} {error}")
                    continue
                if isinstance(value, str):
                    value = float(self._texts.code(point.tag, value))
                columns.add(point.tag, time, value, to_quality(metric))
                if problems and not metric.is_historical:
                    problems.clear(point.tag)

    def _node_died(self, rows: Rows, payload: Any, arrived: int) -> None:
        """The broker tells the death of a connection: it counts if it is the one whose birth is known (6.4.7)."""
        for metric in payload.metrics:
            bdseq = int(metric.long_value or metric.int_value)
            if metric.name == BDSEQ and self._bdseq is not None and bdseq != self._bdseq:
                return
        self.restart()
        self.wants_birth = ""
        why = f"edge node {self.name} is offline since {_clock(arrived)} (NDEATH); check its power and network"
        self._lost(rows, self.points, arrived, why)

    def _device_died(self, rows: Rows, device: str, arrived: int) -> None:
        self._born.discard(device)
        why = f"device {device} of edge node {self.name} is offline since {_clock(arrived)} (DDEATH)"
        self._lost(rows, [point for point in self.points if point.device == device], arrived, why)

    def _lost(self, rows: Rows, points: Sequence[SparkplugPoint], arrived: int, why: str) -> None:
        for point in points:
            rows.live.add(point.tag, arrived, float("nan"), BAD)
            self._problems.set(point.tag, why)

    def _count(self, kind: str, payload: Any) -> None:
        if not payload.HasField("seq") or self._seq is None:
            return
        seq = int(payload.seq) % SEQ_COUNT
        missed = (seq - self._seq - 1) % SEQ_COUNT
        if missed:
            self._counts.missed += missed
            self.wants_birth = f"{missed} messages before a {kind} are missing"
        self._seq = seq


def _clock(time: int) -> str:
    return datetime.fromtimestamp(time // NS_PER_S, UTC).isoformat().replace("+00:00", "Z")
