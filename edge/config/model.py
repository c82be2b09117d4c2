"""The configuration as a whole: the sections of gateway.toml, and what the other files become.

Each section's options stand beside the component that they configure; here they only meet.
"""

import re
import zoneinfo
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from edge.alarms import AlarmOptions, AlarmRule
from edge.errors import Problem
from edge.outlets.options import MqttOptions
from edge.outlets.sparkplug.options import SparkplugOptions
from edge.production import MachineOptions, ShiftsOptions
from edge.sources.modbus import ModbusOptions
from edge.sources.mqtt import MqttSourceOptions
from edge.sources.opcua import OpcuaOptions
from edge.sources.replay import ReplayOptions
from edge.sources.sparkplug import SparkplugSourceOptions
from edge.store.options import StorageOptions
from edge.web.options import WebOptions

_LEVEL_NAME = re.compile(r"^[^/+#\s\x00]+$")


class SiteOptions(BaseModel):
    """Where the gateway stands: the upper levels of the ISA-95 path."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enterprise: str = Field(description="ISA-95 enterprise, the first level of every topic")
    site: str = Field(description="ISA-95 site, the second level of every topic")
    time_zone: str = Field("UTC", description="IANA time zone of the site, e.g. Europe/Berlin")

    @field_validator("enterprise", "site")
    @classmethod
    def _level(cls, value: str) -> str:
        if not _LEVEL_NAME.match(value):
            raise ValueError(f"{value!r} must be a name without spaces, '/', '+' and '#'")
        return value

    @field_validator("time_zone")
    @classmethod
    def _zone(cls, value: str) -> str:
        try:
            zoneinfo.ZoneInfo(value)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"{value!r} is no IANA time zone, e.g. Europe/Berlin") from error
        return value


class GatewayOptions(BaseModel):
    """The daemon itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="name of this gateway, unique at the site", pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    state_dir: Path = Field(
        Path("/var/lib/andon"), description="folder of ring, journal and keys; relative to the configuration folder"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is logged")
    inbox_rows_max: int = Field(
        1_000_000, ge=1_000, le=100_000_000, description="readings that may wait for the line before sources wait"
    )


class FileOptions(BaseModel):
    """Names of the other files, relative to the folder of gateway.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tags: Path = Field(Path("tags.csv"), description="the tag list")
    alarms: Path = Field(Path("alarms.csv"), description="the alarm list")
    shifts: Path = Field(Path("shifts.toml"), description="shifts, breaks, planned stops")


DeviceOptions = Annotated[
    OpcuaOptions | ModbusOptions | MqttSourceOptions | SparkplugSourceOptions | ReplayOptions,
    Field(discriminator="type"),
]


class GatewayFile(BaseModel):
    """gateway.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: SiteOptions
    gateway: GatewayOptions
    files: FileOptions = FileOptions()
    storage: StorageOptions = StorageOptions()
    mqtt: MqttOptions = MqttOptions()
    sparkplug: SparkplugOptions = SparkplugOptions()
    web: WebOptions = WebOptions()
    alarms: AlarmOptions = AlarmOptions()
    device: tuple[DeviceOptions, ...] = ()
    machine: tuple[MachineOptions, ...] = ()


TAG_COLUMNS = (
    "tag", "device", "address", "type", "order", "scale", "offset", "unit", "minimum", "maximum", "deadband",
    "heartbeat_s", "stale_after_s", "period_ms", "asset", "description",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class TagRow:
    """One row of tags.csv. line: where it stands. period_ms 0 = the device's own."""

    line: int
    tag: str
    device: str
    address: str
    type: str = ""
    order: str = ""
    scale: float = 1.0
    offset: float = 0.0
    unit: str = ""
    minimum: float = float("nan")
    maximum: float = float("nan")
    deadband: float = 0.0
    heartbeat_s: float = 60.0
    stale_after_s: float = 0.0
    period_ms: int = 0
    asset: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A configuration without a mistake. warnings: what is allowed but unwise."""

    folder: Path
    file: GatewayFile
    tags: tuple[TagRow, ...]
    rules: tuple[AlarmRule, ...]
    shifts: ShiftsOptions
    warnings: tuple[Problem, ...] = ()

    @property
    def state_dir(self) -> Path:
        return self.file.gateway.state_dir

    def rows_of(self, device: str) -> tuple[TagRow, ...]:
        return tuple(row for row in self.tags if row.device == device)
