"""What is read from Sparkplug B edge nodes: the options of `type = "sparkplug"` and the points of tags.csv.

Owns the meaning of an address; nothing here opens a socket, so a configuration can be checked offline.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import Field

from edge.sources.mqtt_options import SubscriberOptions

TYPES: Final = ("", "string")
"""The birth of a metric states its type; only that a value is to be taken as text must be said."""
_ID = re.compile(r"[^+#/\x00]+")


class SparkplugSourceOptions(SubscriberOptions):
    """Edge nodes of one Sparkplug B group, with the devices behind them."""

    type: Literal["sparkplug"] = Field(description="Kind of device.")
    group_id: str = Field(pattern=r"^[^+#/\x00]+$", description="Group of the edge nodes.")
    request_rebirth: bool = Field(
        default=True,
        description="Ask an edge node for its birth where it is not known or messages are missing: the only thing "
        "that is published. Data cannot be read without a birth.",
    )
    rebirth_interval_s: float = Field(
        default=10.0,
        ge=0.1,
        le=3600,
        description="Shortest time between two requests to a node; doubles up to an hour while it is silent.",
    )


@dataclass(frozen=True, slots=True)
class SparkplugPoint:
    """One metric. tag: tag index. device: "" for a metric of the edge node itself. text: take the value as text."""

    tag: int
    node: str
    device: str
    metric: str
    text: bool = False

    def __str__(self) -> str:
        return f"{self.node}/{self.device}/{self.metric}"


def parse_metric(tag_index: int, address: str, type: str) -> SparkplugPoint:  # noqa: A002 - the column in tags.csv
    """Read one row of tags.csv. Raises ValueError with a sentence."""
    node, _, rest = address.strip().partition("/")
    device, slash, metric = rest.partition("/")
    if not slash or not metric or not _ID.fullmatch(node) or (device and not _ID.fullmatch(device)):
        raise ValueError(
            f"{address!r} is no Sparkplug metric; expected <edge node>/<device>/<metric>, e.g. "
            "press7/hydraulics/Oil/Temperature, or <edge node>//<metric> for one of the node itself"
        )
    if type not in TYPES:
        raise ValueError(f"type {type!r}: the birth states the type of a metric; leave it empty, or string for text")
    return SparkplugPoint(tag_index, node, device, metric, type == "string")
