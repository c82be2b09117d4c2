"""What is read from a broker: topic filters, paths into JSON, and the points of tags.csv made of both.

Owns the meaning of an address; nothing here opens a socket, so a configuration can be checked offline.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

Path = tuple[str | int, ...]

TYPES: Final = ("", "number", "bool", "string")
"""How a tag's value may be written: a JSON number or Boolean; also a number as text; also on/off as text; a text."""
COMPARISONS_MAX: Final = 200_000
"""With more, the repetitions that a broker may send cost less than finding the filters that cause them."""
FILTER_SIZE_MAX: Final = 65_535
"""MQTT 5.0, 1.5.4: a string has at most so many bytes."""

_STEP = re.compile(r"""(\.?)([^.\[\]'"]+)|\[(\d{1,9})\]|\[(['"])(.*?)\4\]""")
_EXPECTED: Final = "expected <topic filter>#<path>, e.g. hall1/oven/state#zones[0].temperature"


@dataclass(frozen=True, slots=True)
class MqttPoint:
    """One value in the messages of a topic filter.

    tag: tag index. path: keys and list indices from the root of the document; () = the payload itself.
    kind: one of TYPES.
    """

    tag: int
    filter: str
    path: Path
    kind: str = ""


def parse_address(tag_index: int, address: str, type: str) -> MqttPoint:  # noqa: A002 - the column in tags.csv
    """Read one row of tags.csv. Raises ValueError with a sentence."""
    text = address.strip()
    # A "#" that is a whole level is the wildcard of MQTT; the next one, or else the first one, begins the path.
    wild = re.match(r"(?:[^#]*/)?#(?=#|$)", text)
    if wild is not None:
        topic, path = wild[0], text[wild.end() + 1 :]
    else:
        topic, _, path = text.partition("#")
        if path and topic.endswith("/"):
            raise ValueError(
                f"{address!r}: write {topic}##{path} for every topic below {topic[:-1]}, or {topic[:-1]}#{path} for it "
                "alone; # as a wildcard must be the whole last level"
            )
    check_filter(topic)
    if type not in TYPES:
        raise ValueError(
            f"type {type!r}: a value from MQTT is a number or Boolean (empty), a number that may be written as text "
            "(number), a Boolean that may be written on/off (bool) or a text (string)"
        )
    return MqttPoint(tag_index, topic, parse_path(path), type)


def check_filter(text: str) -> None:
    """Raise ValueError with a sentence if this is no topic filter (MQTT 5.0, 4.7.1)."""
    levels = text.split("/")
    if not text or (text.startswith("#") and len(text) > 1):
        raise ValueError(f"{text!r} is no topic filter; {_EXPECTED}")
    if levels[0] == "$share":
        raise ValueError(f"{text!r} is a shared subscription: the gateway would miss messages; leave $share/... away")
    if "\0" in text or len(text.encode()) > FILTER_SIZE_MAX:
        raise ValueError(f"the topic filter {text[:40]!r} holds a NUL character or is longer than {FILTER_SIZE_MAX}")
    for i, level in enumerate(levels):
        if ("+" in level and level != "+") or ("#" in level and (level != "#" or i < len(levels) - 1)):
            raise ValueError(f"{text!r}: + must be a whole level of a topic filter, # the whole last one")


def parse_path(text: str) -> Path:
    """Read `a.b[0].c`; a key with . [ ] or quotes in it is written ['a.b']. Raises ValueError with a sentence."""
    steps: list[str | int] = []
    at = 0
    while at < len(text):
        match = _STEP.match(text, at)
        name = match and match[2]
        if match is None or (name and (match[1] == ".") != (at > 0)):
            raise ValueError(f"{text!r} is no path: cannot read {text[at:]!r}; expected e.g. a.b[0].c or ['a.b'].c")
        steps.append(name or (int(match[3]) if match[3] else match[5]))
        at = match.end()
    return tuple(steps)


def show_path(path: Path) -> str:
    """Return the path as a person writes it."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif re.search(r"[.\[\]'\"]", step) or not step:
            text += f"['{step}']"
        else:
            text += f".{step}" if text else step
    return text


def matches(topic_filter: str, topic: str) -> bool:
    """Tell whether a topic matches a filter (MQTT 5.0, 4.7). Also true of a filter that another one covers."""
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in ("+", "#"):
        return False
    for i, want in enumerate(wanted):
        if want == "#":
            return True
        if i >= len(levels) or (want != "+" and want != levels[i]) or levels[i] == "#":
            return False
    return len(wanted) == len(levels)


def is_wild(topic_filter: str) -> bool:
    return "+" in topic_filter or "#" in topic_filter


def without_covered(filters: Iterable[str]) -> list[str]:
    """Return the filters less those that another one covers: a broker may send a message once per filter."""
    distinct = sorted(set(filters))
    wild = [name for name in distinct if is_wild(name)]
    if len(wild) * len(distinct) > COMPARISONS_MAX:
        return distinct
    return [name for name in distinct if not any(other != name and matches(other, name) for other in wild)]


@dataclass(slots=True)
class _Level:
    """A level of the filters. here: points whose filter ends here. below: those whose filter ends with a #."""

    next: dict[str, "_Level"] = field(default_factory=dict)
    here: list[MqttPoint] = field(default_factory=list)
    below: list[MqttPoint] = field(default_factory=list)


class Topics:
    """Which points a topic feeds; the answer for a topic is kept, up to TOPICS_MAX of them."""

    TOPICS_MAX: Final = 20_000

    def __init__(self, points: Sequence[MqttPoint]) -> None:
        self._root = _Level()
        self._known: dict[str, tuple[MqttPoint, ...]] = {}
        for point in points:
            level = self._root
            for name in point.filter.split("/"):
                if name == "#":
                    level.below.append(point)
                    break
                level = level.next.setdefault(name, _Level())
            else:
                level.here.append(point)

    def points_of(self, topic: str) -> tuple[MqttPoint, ...]:
        known = self._known.get(topic)
        if known is None:
            if len(self._known) >= self.TOPICS_MAX:
                self._known.clear()
            known = self._known[topic] = tuple(self._find(topic))
        return known

    def _find(self, topic: str) -> list[MqttPoint]:
        names = topic.split("/")
        found: list[MqttPoint] = []
        ways = [(self._root, 0)]
        while ways:
            level, depth = ways.pop()
            # No wildcard on the first level matches a topic of the broker's own (4.7.2).
            is_wild = depth > 0 or not topic.startswith("$")
            if is_wild:
                found += level.below
            if depth == len(names):
                found += level.here
                continue
            onward = (names[depth], "+") if is_wild else (names[depth],)
            ways += [(level.next[name], depth + 1) for name in onward if name in level.next]
        return found
