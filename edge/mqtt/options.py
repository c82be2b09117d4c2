"""What may be set about a connection to a broker. Secrets are paths of files, never values."""

import ipaddress
import ssl
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

PASSWORD_SIZE_MAX: Final = 65_535
"""MQTT's own limit for a password, in bytes."""


class BrokerOptions(BaseModel):
    """Where a broker is, how it is spoken to and who the gateway is there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", min_length=1, max_length=253, description="Host name or address of the broker.")
    port: int = Field(1883, ge=1, le=65_535, description="TCP port of the broker; 8883 is usual with TLS.")
    protocol: Literal["auto", "5", "3.1.1"] = Field(
        "auto", description="MQTT version; auto begins with 5 and falls back to 3.1.1 if the broker does not speak it."
    )
    keepalive_s: int = Field(30, ge=2, le=3600, description="A connection silent for this long is probed, then closed.")
    connect_timeout_s: float = Field(5.0, ge=0.5, le=60, description="Longest wait for TCP, TLS and CONNACK, each.")

    tls: bool = Field(False, description="Use TLS (1.2 or newer); the host name is checked.")
    ca_file: Path | None = Field(
        None, description="PEM file with the authorities that may have signed the broker; none = the system's."
    )
    certificate_file: Path | None = Field(None, description="PEM file with the gateway's client certificate chain.")
    key_file: Path | None = Field(None, description="PEM file with the client certificate's key, unencrypted.")
    user: str = Field("", max_length=256, description="User name at the broker; empty = none.")
    password_file: Path | None = Field(None, description="File that holds the password; a last line break is cut.")
    allow_plaintext: bool = Field(
        False,
        description="Send the password without TLS to a host that is not this one. Anybody on the way can read it.",
    )

    @model_validator(mode="after")
    def _safe(self) -> Self:
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file belong together: set both or none")
        if not self.tls and (self.ca_file or self.certificate_file):
            raise ValueError("ca_file, certificate_file and key_file need tls = true")
        if self.password_file is not None and not self.user:
            raise ValueError("password_file needs a user")
        if self.password_file is not None and not (self.tls or self.allow_plaintext or is_loopback(self.host)):
            raise ValueError(
                f"the password would travel readable to {self.host}: set tls = true, "
                "or allow_plaintext = true to accept it"
            )
        return self

    @property
    def address(self) -> str:
        """The broker as a person writes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"

    def password(self) -> str | None:
        """Read the password now. Raises OSError or ValueError with the file's name."""
        if self.password_file is None:
            return None
        data = self.password_file.read_bytes()
        text = data.decode().removesuffix("\n").removesuffix("\r")
        if not text or len(data) > PASSWORD_SIZE_MAX:
            raise ValueError(f"{self.password_file} is empty or larger than {PASSWORD_SIZE_MAX} bytes")
        return text

    def tls_context(self) -> ssl.SSLContext | None:
        """Build the TLS client context. Raises OSError (ssl.SSLError too) or ValueError naming the file."""
        if not self.tls:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.ca_file is None:
            context.load_default_certs()
        else:
            try:
                context.load_verify_locations(self.ca_file)
            except OSError as error:
                raise ValueError(f"ca_file {self.ca_file} cannot be used: {error}") from error
        if self.certificate_file is not None and self.key_file is not None:
            try:
                # A password given as text keeps OpenSSL from asking for one on the terminal.
                context.load_cert_chain(self.certificate_file, self.key_file, password=lambda: b"")
            except OSError as error:
                raise ValueError(
                    f"certificate_file {self.certificate_file} and key_file {self.key_file} cannot be used: {error}"
                ) from error
        return context

    def problems(self) -> list[str]:
        """Try every file and return one sentence for each that cannot be used."""
        found = []
        for what, attempt in (("password_file", self.password), ("TLS", self.tls_context)):
            try:
                attempt()
            except (OSError, ValueError) as error:
                found.append(f"{what}: {error}")
        return found


def is_loopback(host: str) -> bool:
    """Tell whether the host is this machine, without asking a name server."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
