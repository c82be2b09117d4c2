"""What a device behind an MQTT broker is: the options of `type = "mqtt"`, and those that it shares with Sparkplug."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from edge.mqtt.options import BrokerOptions
from edge.sources.mqtt_points import parse_path


class Named(BaseModel):
    """What every device says first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: str = Field(description="Kind of device.")
    name: str = Field(description="Name of the device, as tags.csv refers to it.", min_length=1)
    asset: str = Field(default="", description='Where the device belongs: "area/line/cell".')


class SubscriberOptions(BrokerOptions, Named):
    """A device whose data arrives through a broker."""

    client_id: str = Field(
        default="",
        max_length=128,
        description="Client id at the broker, unique there; empty = andon-<device name>-<random>.",
    )
    queue_max: int = Field(
        default=10_000,
        ge=10,
        le=1_000_000,
        description="Messages that may wait for the gateway; then the oldest are dropped and counted as lost.",
    )
    payload_size_max: int = Field(
        default=262_144,
        ge=64,
        le=1_000_000,
        description="Largest payload that is read, in bytes; the tags of a larger one are bad.",
    )
    first_message_s: float = Field(
        default=60.0,
        ge=0,
        le=86_400,
        description="After this long without any message since the connection, tags are reported as without data; "
        "0 = never.",
    )


class MqttSourceOptions(SubscriberOptions):
    """A device, or any number of them, that publishes JSON or plain values to an MQTT broker."""

    type: Literal["mqtt"] = Field(description="Kind of device.")
    qos: int = Field(default=1, ge=0, le=2, description="Quality of service of the subscriptions.")
    time_path: str = Field(
        default="", description="Where the message states the time of its values; empty = the time of its arrival."
    )
    time_unit: Literal["iso", "s", "ms", "us", "ns"] = Field(
        default="iso",
        description="What the time is: ISO 8601 text (UTC if without an offset), or a number of this unit since 1970.",
    )
    quality_path: str = Field(
        default="",
        description="Where the message states the quality of its values: 192, 64, 0, true, false, good, uncertain, "
        "bad; empty = it does not.",
    )
    retained: Literal["uncertain", "good", "ignore"] = Field(
        default="uncertain",
        description="Quality of a retained message without a time of its own: nobody says how old it is.",
    )
    partial_messages: bool = Field(
        default=False, description="Messages may leave members out: then a tag without its member has no reading."
    )

    @field_validator("time_path", "quality_path")
    @classmethod
    def _is_path(cls, value: str) -> str:
        parse_path(value)
        return value
