"""What may be set about MQTT. Secrets are paths of files, never values; every limit has a bound."""

from typing import Self

from pydantic import Field, field_validator, model_validator

from edge.mqtt.options import BrokerOptions
from plant.events import KINDS


class MqttOptions(BrokerOptions):
    """The section [mqtt]: where the broker is, who the gateway is there, what it publishes and how fast."""

    enabled: bool = Field(True, description="Publish to a broker at all.")
    client_id: str = Field(
        "", max_length=128, description="Client id at the broker, unique there; empty = andon-<gateway name>."
    )
    reconnect_delay_ms_min: int = Field(500, ge=10, le=60_000, description="First delay before connecting again.")
    reconnect_delay_ms_max: int = Field(30_000, ge=10, le=600_000, description="Longest delay before connecting again.")
    refused_delay_s: float = Field(
        60.0, ge=0.1, le=3600, description="Delay before asking again after the broker said no."
    )
    ack_timeout_s: float = Field(
        20.0, ge=1, le=600, description="A publish unacknowledged for this long ends the connection, which starts anew."
    )

    root: str = Field("", max_length=256, description="Levels before the enterprise in every topic, e.g. plants/eu.")
    event_kinds: tuple[str, ...] = Field(
        (
            "alarm", "status_change", "order_started", "order_ended", "correction", "counter_anomaly", "gap",
            "backfill", "gateway",
        ),
        description="Kinds of events that go to the event topics; the others stay in the journal.",
    )  # fmt: skip
    inflight_max: int = Field(100, ge=1, le=10_000, description="Publishes sent and not yet acknowledged, at most.")
    events_queue_max: int = Field(
        5_000,
        ge=10,
        le=1_000_000,
        description="Events kept in memory, at most; further ones are read from the journal.",
    )

    live: bool = Field(True, description="Publish live values.")
    live_period_ms: int = Field(1_000, ge=50, le=3_600_000, description="Shortest time between two values of a tag.")
    live_refresh_s: float = Field(
        60.0, ge=1, le=86_400, description="All values of an asset are published at least this often."
    )

    commands_enabled: bool = Field(
        False, description="Take commands; the broker's access control decides who may publish them."
    )
    command_size_max: int = Field(16_384, ge=256, le=262_144, description="Largest command taken, in bytes.")

    @field_validator("event_kinds")
    @classmethod
    def _known_kinds(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [kind for kind in kinds if kind not in KINDS]
        if unknown:
            raise ValueError(f"no such kind of event: {', '.join(unknown)}; there are {', '.join(KINDS)}")
        return kinds

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.reconnect_delay_ms_max < self.reconnect_delay_ms_min:
            raise ValueError("reconnect_delay_ms_max is below reconnect_delay_ms_min")
        return self
