"""What may be set about Sparkplug. The broker and its credentials are those of the section [mqtt]."""

import re
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

_RESERVED = re.compile(r"[+/#\x00-\x1f]")


class SparkplugOptions(BaseModel):
    """The section [sparkplug]: the gateway as an edge node of a Sparkplug B 3.0 host, at the broker of [mqtt]."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(False, description="Be a Sparkplug edge node at all.")
    group_id: str = Field(
        "", max_length=128, description="Sparkplug group; empty = <enterprise>:<site>. Not with + / or #."
    )
    edge_node_id: str = Field(
        "", max_length=128, description="Name of the edge node, unique in its group; empty = the gateway's name."
    )
    client_id: str = Field(
        "", max_length=128, description="Client id at the broker, unique there; empty = andon-<gateway name>-sparkplug."
    )
    primary_host_id: str = Field(
        "",
        max_length=128,
        description="Host application without which nothing is published; what it missed follows as historical "
        "values. Empty = publish to whoever listens.",
    )
    assets: tuple[str, ...] = Field(
        (), description="Assets that are devices, each with all assets below it, e.g. milling/line1; empty = all."
    )
    publish_period_ms: int = Field(
        1_000, ge=50, le=3_600_000, description="Changes of this time travel in one message per device."
    )
    history: bool = Field(True, description="After an outage publish what the ring has of it as historical values.")
    history_rows_max: int = Field(
        1_000_000, ge=0, le=1_000_000_000, description="Readings sent after an outage, at most; the newest of them."
    )
    history_rows_per_s: int = Field(
        20_000, ge=100, le=1_000_000, description="Historical readings sent per second, at most."
    )

    @field_validator("group_id", "edge_node_id", "primary_host_id")
    @classmethod
    def _topic_level(cls, value: str) -> str:
        if _RESERVED.search(value):
            raise ValueError(f"{value!r} must not contain +, / or #")
        return value

    @model_validator(mode="after")
    def _not_state(self) -> Self:
        # spBv1.0/STATE/<host> is the topic of host applications.
        if self.group_id == "STATE":
            raise ValueError("group_id must not be STATE, which is the topic of host applications")
        return self
