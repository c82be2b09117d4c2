"""Where messages go: topics after the ISA-95 hierarchy, enterprise/site/area/line/cell.

Every name becomes one topic level. What MQTT reserves or what would split a level is percent-encoded, so two
different names never share a topic.
"""

import re
from functools import lru_cache

GATEWAY = "_gateway"
"""The level below the site under which the gateway speaks of itself."""
DEPTH_MAX = 6
"""Deepest asset path, in levels."""
_RESERVED_LEVELS = frozenset({GATEWAY, "alarm", "event", "value"})
_ENCODED = re.compile(r"[%+#/\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_TOPICS_CACHED_MAX = 65_536


def _percent(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "replace"))


def level(name: str) -> str:
    """Return the name as one topic level; different names give different levels."""
    if not name:
        return "%"
    encoded = _ENCODED.sub(lambda match: _percent(match[0]), name)
    if encoded[0] == "$":  # topics that begin with $ belong to the broker
        return "%24" + encoded[1:]
    return encoded


def _asset_level(name: str) -> str:
    # An asset called "alarm" must not make its parent look as if it had an alarm of that name.
    return _percent(name[0]) + level(name[1:]) if name in _RESERVED_LEVELS else level(name)


class Topics:
    """All topics of one gateway. An asset is a path "area/line/cell"; "" is the gateway itself."""

    def __init__(self, root: str, enterprise: str, site: str, gateway: str) -> None:
        parts = [part for part in root.split("/") if part]
        self.enterprise = "/".join([*(level(part) for part in parts), level(enterprise)])
        self.site = f"{self.enterprise}/{level(site)}"
        self.gateway = f"{self.site}/{GATEWAY}/{level(gateway)}"
        self.status = f"{self.gateway}/status"
        self.snapshot = f"{self.gateway}/snapshot"
        self.command = f"{self.gateway}/command"
        self.reply = f"{self.gateway}/reply"
        self.alarm = lru_cache(_TOPICS_CACHED_MAX)(self._alarm)
        self.base = lru_cache(_TOPICS_CACHED_MAX)(self._base)

    def _base(self, asset: str) -> str:
        if not asset:
            return self.gateway
        return "/".join([self.site, *(_asset_level(part) for part in asset.split("/"))])

    def _alarm(self, asset: str, alarm: str) -> str:
        return f"{self.base(asset)}/alarm/{level(alarm)}"

    def event(self, asset: str) -> str:
        return f"{self.base(asset)}/event"

    def value(self, asset: str) -> str:
        return f"{self.base(asset)}/value"

    def alarm_filters(self) -> list[str]:
        """Return the subscriptions that cover every alarm topic of the site at every depth."""
        return [f"{self.site}/{'+/' * depth}alarm/+" for depth in range(1, DEPTH_MAX + 1)]

    def may_answer_at(self, topic: str) -> bool:
        """Tell whether a reply may go to a topic that the asker chose.

        Inside the enterprise's own topics only the reply branch is allowed: otherwise whoever may send a command could
        have the gateway write what he himself must not.
        """
        if not topic or len(topic.encode()) > 1024 or topic[0] == "$" or re.search(r"[+#\x00]", topic):
            return False
        return topic == self.reply or topic.startswith(f"{self.reply}/") or not topic.startswith(f"{self.enterprise}/")
