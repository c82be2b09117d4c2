"""The settings of one OPC UA device."""

from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class OpcuaOptions(BaseModel):
    """One OPC UA server. Files are read when the device is connected, so that they can be renewed while it runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="name of the device, unique in the gateway", min_length=1, max_length=64)
    asset: str = Field("", description="ISA-95 path below the site: area/line/cell; empty = the gateway itself")
    type: Literal["opcua"] = Field("opcua", description="the protocol")
    url: str = Field(description="endpoint of the server, e.g. opc.tcp://192.168.0.10:4840; port 4840 if none is given")
    mode: Literal["subscribe", "read", "auto"] = Field(
        "auto",
        description="subscribe: the server tells changes; read: every value is read each period; "
        "auto: subscribe, and read where the server has no subscriptions",
    )
    sampling_ms: float = Field(
        250.0, description="how often the server samples a value, unless the tag says so, ms", ge=0.0, le=86_400_000.0
    )
    publishing_ms: float = Field(
        250.0, description="how often the server sends what has changed, ms", ge=1.0, le=60_000.0
    )
    period_ms: float = Field(
        1000.0,
        description="how often a value is read in mode read, unless the tag says so, ms",
        ge=10.0,
        le=86_400_000.0,
    )
    queue_size: int = Field(
        10, description="changes per value that the server keeps between two messages", ge=1, le=100_000
    )
    keepalive_ms: float = Field(
        5000.0, description="how often the server gives a sign of life while nothing changes, ms", ge=100.0, le=60_000.0
    )
    repeat_ms: float = Field(
        10_000.0,
        description="a value that does not change is repeated this often while the server says that it lives, so that "
        "a steady value differs from a dead one, ms; 0 = never",
        ge=0.0,
        le=3_600_000.0,
    )
    retry_ms: float = Field(
        2000.0,
        description="first wait before a node that the server refused is tried again, ms",
        ge=10.0,
        le=3_600_000.0,
    )
    retry_ms_max: float = Field(
        60_000.0, description="the longest such wait; it doubles from the first, ms", ge=10.0, le=3_600_000.0
    )
    check_ms: float = Field(
        5000.0,
        description="how often the server's own time, and the nodes that it tells nothing of, are read beside the "
        "subscriptions, so that a server that hangs or forgets a node is found, ms; 0 = never",
        ge=0.0,
        le=3_600_000.0,
    )
    frozen_ms: float = Field(
        20_000.0,
        description="a server whose own time stands still for so long, and that tells nothing new, hangs, ms",
        ge=100.0,
        le=3_600_000.0,
    )
    events: bool = Field(
        False,
        description="take the server's events and alarms into the log of events; needs subscriptions, and nothing is "
        "acknowledged on the server",
    )
    backfill: bool = Field(
        True,
        description="after a break, read what the server recorded meanwhile, of the nodes that have a history; such "
        "readings are stored and marked, and raise no alarms",
    )
    backfill_rows_max: int = Field(
        100_000, description="readings of one tag that are taken from the history after one break", ge=1, le=10_000_000
    )
    backfill_rows_per_s: int = Field(
        5000, description="how fast the history is read, readings per second", ge=1, le=100_000
    )
    deadline_ms: int = Field(5000, description="time for one answer of the server, ms", ge=100, le=60_000)
    session_timeout_s: int = Field(
        60, description="after so long without us the server drops our session and its subscriptions, s", ge=60, le=120
    )
    items_per_subscription: int = Field(
        1000, description="nodes in one subscription; more nodes make more subscriptions", ge=1, le=10_000
    )
    items_per_call: int = Field(
        200, description="nodes in one request that sets them up; the server's own limit may be lower", ge=1, le=10_000
    )
    nodes_per_read: int = Field(
        1000, description="nodes in one read request; the server's own limit may be lower", ge=1, le=10_000
    )
    security_policy: Literal["None", "Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"] = Field(
        "None", description="OPC UA security policy"
    )
    security_mode: Literal["None", "Sign", "SignAndEncrypt"] = Field(
        "None", description="OPC UA message security mode; None only together with security_policy None"
    )
    user: str = Field("", description="user name; empty = anonymous", max_length=256)
    password_file: Path | None = Field(None, description="file that holds the user's password")
    allow_plaintext_password: bool = Field(
        False, description="send the password although the channel is not encrypted: anybody on the network can read it"
    )
    user_certificate: Path | None = Field(None, description="X.509 certificate that identifies the user, DER or PEM")
    user_private_key: Path | None = Field(None, description="private key of user_certificate, DER or PEM")
    certificate: Path | None = Field(
        None, description="our own application certificate, DER or PEM; none = one is made in pki_dir"
    )
    private_key: Path | None = Field(None, description="private key of certificate, DER or PEM")
    pki_dir: Path = Field(
        Path("pki"), description="folder of certificates: own, trusted, issuers, rejected; relative to the state folder"
    )
    certificate_check_s: float = Field(
        600.0,
        description="how often the expiry of our and the server's certificate is judged, and our file looked at for a "
        "renewed one, s",
        ge=0.05,
        le=86_400.0,
    )
    server_uri: str = Field("", description="ApplicationUri that the server must have; empty = the one that it states")
    check_host: bool = Field(True, description="the server's certificate must name the host of url")
    require_crl: bool = Field(
        False, description="refuse a server whose issuer has no current revocation list in pki_dir"
    )

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        try:
            url = urlsplit(value)
            usable = url.scheme == "opc.tcp" and bool(url.hostname) and url.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise ValueError(
                f"{value!r} is no OPC UA address; expected opc.tcp://host:port or opc.tcp://host:port/path"
            )
        if "@" in url.netloc:
            raise ValueError("the url must not hold a user or password; use user and password_file")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.security_policy == "None") != (self.security_mode == "None"):
            raise ValueError(
                f"security_policy {self.security_policy} and security_mode {self.security_mode} do not go together: "
                "both None, or a policy with Sign or SignAndEncrypt"
            )
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key belong together: give both or none")
        if (self.user_certificate is None) != (self.user_private_key is None):
            raise ValueError("user_certificate and user_private_key belong together: give both or none")
        if self.user and self.user_certificate is not None:
            raise ValueError("a user is identified by user and password_file or by user_certificate, not by both")
        if self.password_file is not None and not self.user:
            raise ValueError("password_file needs user")
        if (
            self.password_file is not None
            and self.security_mode != "SignAndEncrypt"
            and not self.allow_plaintext_password
        ):
            raise ValueError(
                "the password would travel over a channel that is not encrypted: set security_policy and "
                "security_mode = SignAndEncrypt, or allow_plaintext_password = true if you accept that it can be read"
            )
        if self.retry_ms_max < self.retry_ms:
            raise ValueError("retry_ms_max must not be less than retry_ms")
        return self
