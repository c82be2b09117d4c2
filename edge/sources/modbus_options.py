"""What a Modbus device is: how it is reached, and its habits. Nothing here opens a port or a socket."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

REGISTERS_PER_READ_MAX: Final = 125
"""Modbus Application Protocol V1.1b3, 6.3 and 6.4."""
COILS_PER_READ_MAX: Final = 2000
"""Modbus Application Protocol V1.1b3, 6.1 and 6.2."""

_OF_NETWORK: Final = ("host", "port", "backup_host", "backup_port", "backup_return_s")
_OF_SERIAL: Final = ("serial_port", "baudrate", "parity", "stopbits")


class ModbusOptions(BaseModel):
    """A device that speaks Modbus, or a gateway or serial line with several unit ids behind it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["modbus"] = Field(description="Kind of device.")
    name: str = Field(description="Name of the device, as tags.csv refers to it.", min_length=1)
    asset: str = Field(default="", description='Where the device belongs: "area/line/cell".')
    transport: Literal["tcp", "udp", "rtu", "rtu_over_tcp"] = Field(
        default="tcp",
        description="tcp, udp: Modbus TCP frames; rtu: a serial port of this machine; rtu_over_tcp: serial frames "
        "through a serial device server that passes bytes on as they are.",
    )
    host: str = Field(default="", description="Host name or IP address; required except for rtu.")
    port: int = Field(default=502, description="TCP or UDP port.", ge=1, le=65_535)
    backup_host: str = Field(
        default="", description="Address that is used while the first cannot be reached or is silent; empty = none."
    )
    backup_port: int | None = Field(default=None, description="Port of backup_host; empty = port.", ge=1, le=65_535)
    backup_return_s: float = Field(
        default=300.0,
        description="So long on the backup address, the first one is tried again; the backup is left once it answers.",
        ge=0.1,
        le=86_400,
    )
    serial_port: str = Field(
        default="",
        description="Serial port for rtu, e.g. /dev/ttyUSB0; better a name that stays: /dev/serial/by-id/...",
    )
    baudrate: int = Field(default=19_200, description="Bits per second of the serial port.", ge=300, le=4_000_000)
    parity: Literal["none", "even", "odd"] = Field(default="even", description="Parity of the serial port.")
    stopbits: Literal[1, 2] = Field(
        default=1, description="Stop bits of the serial port; the standard asks for 2 with parity none."
    )
    unit_id: int = Field(default=1, description="Unit id of addresses that state none.", ge=0, le=255)
    first_address: Literal[0, 1] = Field(
        default=0,
        description="Number of the first register or bit in tags.csv: 0 for protocol addresses, 1 where the manual "
        "of the device counts from 1.",
    )
    period_ms: int = Field(default=1000, description="Period of tags that state none.", ge=10, le=86_400_000)
    timeout_ms: int = Field(
        default=1000,
        description="A reply later than this is a time-out; behind a serial gateway more than the gateway's own. On a "
        "serial port the time that the bytes take on the line comes on top.",
        ge=10,
        le=60_000,
    )
    retries: int | None = Field(
        default=None,
        description="How often a request without a reply is repeated before its unit counts as silent; empty = 0 over "
        "tcp, 1 over udp, rtu and rtu_over_tcp, where a lost frame is no failure yet.",
        ge=0,
        le=5,
    )
    connect_timeout_ms: int = Field(default=3000, description="Longest wait for a connection.", ge=10, le=60_000)
    gap: int = Field(
        default=8,
        description="Registers (for bits: groups of 16) that may be read in vain to join blocks.",
        ge=0,
        le=124,
    )
    registers_per_read_max: int = Field(
        default=REGISTERS_PER_READ_MAX,
        description="Most registers in a request; less for a device that cannot do more.",
        ge=1,
        le=REGISTERS_PER_READ_MAX,
    )
    coils_per_read_max: int = Field(
        default=COILS_PER_READ_MAX,
        description="Most coils or discrete inputs in a request.",
        ge=1,
        le=COILS_PER_READ_MAX,
    )
    coils_from_zero: bool = Field(
        default=False,
        description="Every read of coils and discrete inputs starts at address 0, for devices that know no other.",
    )
    check_unit_id: bool = Field(
        default=True,
        description="A reply must name the unit id that was asked. false for a device that answers with another one: "
        "then the transaction id alone decides (tcp and udp only).",
    )
    requests_in_flight: int = Field(
        default=1,
        description="Requests that may wait for their reply at the same time; 1 is what every device can do, and all "
        "that a serial line can.",
        ge=1,
        le=16,
    )
    pause_after_connect_ms: int = Field(
        default=0, description="Wait between the connection and the first request.", ge=0, le=60_000
    )
    pause_between_requests_ms: int = Field(
        default=0, description="Wait between a reply and the next request.", ge=0, le=60_000
    )
    unit_retry_s_max: float = Field(
        default=60.0, description="Longest pause between two tries of a unit id that does not answer.", ge=0.1, le=3600
    )
    quarantine_retry_s: float = Field(
        default=60.0,
        description="Pause before an address that the device called illegal is tried again; doubles up to an hour.",
        ge=0.1,
        le=3600,
    )

    @property
    def is_rtu(self) -> bool:
        """Whether frames have a CRC and no transaction id."""
        return self.transport in ("rtu", "rtu_over_tcp")

    @property
    def retries_used(self) -> int:
        """`retries`, or what the transport asks for."""
        if self.retries is not None:
            return self.retries
        return 0 if self.transport == "tcp" else 1

    @model_validator(mode="after")
    def _fits_transport(self) -> "ModbusOptions":
        transport = f'transport "{self.transport}"'
        is_serial = self.transport == "rtu"
        needed, owner = ("serial_port", "a serial port") if is_serial else ("host", "a network")
        for key in _OF_NETWORK if is_serial else _OF_SERIAL:
            if key in self.model_fields_set:
                raise ValueError(f"{key} does not belong to {transport}, which has {owner}; remove one of the two")
        if not getattr(self, needed):
            raise ValueError(f"{needed} is missing; {transport} needs it")
        if self.backup_port is not None and not self.backup_host:
            raise ValueError("backup_port stands without backup_host; state the backup address or remove the port")
        if len(set(self.addresses)) < len(self.addresses):
            raise ValueError("backup_host and backup_port are the first address again; state another one")
        if self.is_rtu and self.requests_in_flight > 1:
            raise ValueError(f"requests_in_flight must be 1 with {transport}: a serial line carries one request")
        if self.is_rtu and not self.check_unit_id:
            raise ValueError(f"check_unit_id = false is not possible with {transport}: the unit id is all that tells")
        return self

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """(host, port) in the order of preference; none for a serial port."""
        if self.transport == "rtu":
            return ()
        backup = [(self.backup_host, self.backup_port or self.port)] if self.backup_host else []
        return ((self.host, self.port), *backup)


def shared_lines(devices: Sequence[object]) -> list[tuple[int, str, str]]:
    """Return (position, key, what is wrong) for each device that uses a serial line which one before it has already.

    Two devices on one line would talk into each other: one [[device]] reads all unit ids of a line.
    """
    owners: dict[object, str] = {}
    faults: list[tuple[int, str, str]] = []
    for position, device in enumerate(devices):
        if not isinstance(device, ModbusOptions) or not device.is_rtu:
            continue
        if device.transport == "rtu":
            key, lines = "serial_port", {str(Path(device.serial_port).resolve()): device.serial_port}
        else:
            key, lines = "host", {address: f"{address[0]}:{address[1]}" for address in device.addresses}  # type: ignore[misc]
        for line, shown in lines.items():
            owner = owners.setdefault(line, device.name)
            if owner != device.name:
                what = f"device {device.name!r} uses the serial line {shown} of device {owner!r}"
                faults.append((position, key, what))
    return faults
