"""Messages -> columns: each payload is decoded once, and gives the values of all tags of its topic.

Owns what a value, a time and a quality look like in a message, and the sentences about what does not. Pure: no socket,
no clock. What cannot be read is a BAD reading with a problem; the other tags go on.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
import numpy as np

from edge.sources.mqtt_options import MqttSourceOptions
from edge.sources.mqtt_points import MqttPoint, Path, Topics, parse_path, show_path
from edge.sources.mqtt_rows import Columns, Problems
from edge.sources.mqtt_session import Arrived
from plant.batch import BAD, GOOD, UNCERTAIN, Batch
from plant.instant import NS_PER_MS, NS_PER_S
from plant.texts import Texts

TEXT_SIZE_MAX: Final = 1_024
"""A longer text is no status text."""
EXCERPT_MAX: Final = 40
NS_MAX: Final = 2**63 - 1

_UNITS: Final = {"s": NS_PER_S, "ms": NS_PER_MS, "us": 1_000, "ns": 1}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TRUTHS: Final = {"true": 1.0, "on": 1.0, "yes": 1.0, "1": 1.0, "false": 0.0, "off": 0.0, "no": 0.0, "0": 0.0}
_QUALITIES: Final = {"good": GOOD, "ok": GOOD, "uncertain": UNCERTAIN, "bad": BAD}
_NOT_JSON: Final = object()
_MISSING: Final = object()
_decode: Final = msgspec.json.Decoder().decode


class Unreadable(Exception):
    """A value is not what its tag needs; the message says in what way."""


class Decoder:
    """Decodes what arrives for a set of points. unheard: filters without a message yet, with their tags."""

    def __init__(self, options: MqttSourceOptions, points: Sequence[MqttPoint], texts: Texts) -> None:
        self._options = options
        self._texts = texts
        self._topics = Topics(points)
        self._time_path = parse_path(options.time_path)
        self._quality_path = parse_path(options.quality_path)
        self.problems = Problems()
        self.unheard: dict[str, list[int]] = {}
        for point in points:
            self.unheard.setdefault(point.filter, []).append(point.tag)

    def decode(self, messages: Sequence[Arrived]) -> Batch:
        """Return every reading of the messages, in their order."""
        rows = Columns()
        for arrived, message in messages:
            points = self._topics.points_of(message.topic)
            if self.unheard:
                for point in points:
                    self.unheard.pop(point.filter, None)
            if len(message.payload) > self._options.payload_size_max:
                why = (
                    f"the message on topic {message.topic} has {len(message.payload)} bytes; "
                    f"payload_size_max is {self._options.payload_size_max}"
                )
                for point in points:
                    self._bad(rows, point.tag, arrived, why)
                continue
            self._message(rows, points, message.topic, message.payload, arrived, is_retained=message.retain)
        return rows.to_batch()

    def _message(
        self,
        rows: Columns,
        points: Sequence[MqttPoint],
        topic: str,
        payload: bytes,
        arrived: int,
        *,
        is_retained: bool,
    ) -> None:
        document = _document(payload)
        time, quality, doubt = self._head(document, arrived, is_retained=is_retained)
        if quality is None:
            return
        for point in points:
            tag, path = point.tag, point.path
            value = _at(document, path)
            if value is _MISSING:
                if document is _NOT_JSON:
                    self._bad(rows, tag, arrived, f"the message on topic {topic} is no JSON: {_excerpt(payload)}")
                elif not self._options.partial_messages:
                    why = f"the message on topic {topic} has no {show_path(path)}; check the path in tags.csv"
                    self._bad(rows, tag, arrived, why)
                continue
            if value.__class__ is float and point.kind != "string":
                number = value
            else:
                try:
                    number = self._to_number(point, value, payload)
                except Unreadable as error:
                    where = f" at {show_path(path)}" if path else ""
                    self._bad(rows, tag, time, f"the message on topic {topic}{where} {error}")
                    continue
            rows.add(tag, time, number, quality)
            if doubt:
                self.problems.note(tag, f"the message on topic {topic} {doubt}; its readings are uncertain")
            elif self.problems:
                self.problems.clear(tag)

    def _to_number(self, point: MqttPoint, value: Any, payload: bytes) -> float:
        """Return the number or the code of the text. Raises Unreadable."""
        if value is _NOT_JSON or (not point.path and point.kind == "string" and not isinstance(value, str)):
            try:
                value = payload.decode()
            except UnicodeDecodeError:
                raise Unreadable("is no UTF-8 text") from None
        if point.kind == "string":
            return float(self._texts.code(point.tag, _text(value)))
        return _number(value, point.kind)

    def _head(self, document: Any, arrived: int, *, is_retained: bool) -> tuple[int, int | None, str]:
        """Return time, quality and what is wrong with these two; quality None = the message is to be ignored."""
        quality, doubt = GOOD, ""
        time: int | None = None
        if self._time_path:
            try:
                time = to_ns(_at(document, self._time_path), self._options.time_unit)
            except Unreadable as error:
                quality, doubt = UNCERTAIN, f"has no time at {self._options.time_path}: {error}"
        if self._quality_path:
            try:
                quality = min(quality, to_quality(_at(document, self._quality_path)))
            except Unreadable as error:
                quality, doubt = UNCERTAIN, f"has no quality at {self._options.quality_path}: {error}"
        if is_retained and time is None:
            if self._options.retained == "ignore":
                return arrived, None, ""
            if self._options.retained == "uncertain":
                quality = min(quality, UNCERTAIN)
        return arrived if time is None else time, quality, doubt

    def _bad(self, rows: Columns, tag: int, time: int, why: str) -> None:
        rows.add(tag, time, float("nan"), BAD)
        self.problems.note(tag, why)


def _document(payload: bytes) -> Any:
    try:
        return _decode(payload)
    except (msgspec.DecodeError, RecursionError):
        return _NOT_JSON


def _at(document: Any, path: Path) -> Any:
    """Return what stands at a path, or _MISSING."""
    for step in path:
        if isinstance(step, str):
            if document.__class__ is not dict:
                return _MISSING
            document = document.get(step, _MISSING)
        elif document.__class__ is list and step < len(document):
            document = document[step]
        else:
            return _MISSING
    return document


def _number(value: Any, kind: str) -> float:
    """Return a value as a number. Raises Unreadable."""
    if isinstance(value, bool | int | float):
        try:
            return float(value)
        except OverflowError:
            raise Unreadable("is a number too large for a 64-bit float") from None
    if isinstance(value, str):
        text = value.strip()
        if kind == "bool" and text.lower() in _TRUTHS:
            return _TRUTHS[text.lower()]
        if kind == "number" and "_" not in text:
            try:
                number = float(text)
            except ValueError:
                number = float("nan")
            if np.isfinite(number):
                return number
        expected = {"bool": "on, off, true or false", "number": "a number"}.get(kind, "a number (for a text: string)")
        raise Unreadable(f"is the text {_excerpt(value)}; the tag's type {kind!r} expects {expected}")
    raise Unreadable(f"is {_kind_of(value)}, expected a number")


def _text(value: Any) -> str:
    """Return a value as a text. Raises Unreadable."""
    if isinstance(value, bool):
        value = "true" if value else "false"
    elif isinstance(value, int | float):
        value = str(value)
    elif not isinstance(value, str):
        raise Unreadable(f"is {_kind_of(value)}, expected a text")
    if len(value) > TEXT_SIZE_MAX:
        raise Unreadable(f"is a text of {len(value)} characters; a text tag holds at most {TEXT_SIZE_MAX}")
    return str(value)


def to_ns(value: Any, unit: str) -> int:
    """Return a time in ns UTC. unit: iso, s, ms, us or ns. Raises Unreadable."""
    try:
        if unit == "iso" and isinstance(value, str):
            moment = datetime.fromisoformat(value)
            aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
            time = (aware - _EPOCH) // timedelta(microseconds=1) * 1_000
        elif unit != "iso" and isinstance(value, int | float) and not isinstance(value, bool):
            time = round(value * _UNITS[unit])
        else:
            expected = "an ISO 8601 text" if unit == "iso" else f"a number of {unit} since 1970"
            raise Unreadable(f"{_excerpt(value)}, expected {expected}")
    except (ValueError, OverflowError):
        raise Unreadable(f"{_excerpt(value)} is no time in unit {unit}") from None
    if not 0 < time <= NS_MAX:
        raise Unreadable(f"{_excerpt(value)} is out of range")
    return time


def to_quality(value: Any) -> int:
    """Return a quality as a batch has it. Numbers are OPC Data Access qualities. Raises Unreadable."""
    if isinstance(value, bool):
        return GOOD if value else BAD
    if isinstance(value, int) and 0 <= value <= 0xFFFF:
        return value & 0xC0 if value & 0xC0 in (GOOD, UNCERTAIN) else BAD
    if isinstance(value, str) and value.strip().lower() in _QUALITIES:
        return _QUALITIES[value.strip().lower()]
    raise Unreadable(f"{_excerpt(value)}, expected 192, 64, 0, true, false, good, uncertain or bad")


def _kind_of(value: Any) -> str:
    if value is None:
        return "null"
    if value is _MISSING:
        return "missing"
    return "an object" if isinstance(value, dict) else "a list"


def _excerpt(value: Any) -> str:
    if value is None or value is _MISSING or isinstance(value, dict | list):
        return _kind_of(value)
    text = repr(value.decode(errors="replace") if isinstance(value, bytes) else value)
    return text if len(text) <= EXCERPT_MAX else text[:EXCERPT_MAX] + "..."
