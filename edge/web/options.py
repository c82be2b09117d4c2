"""`WebOptions`: the part of the configuration that the local page and the control socket own."""

from pydantic import BaseModel, ConfigDict, Field


class WebOptions(BaseModel):
    """The local page, metrics, health and the control socket."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(
        default=True, description="Serve the page, /metrics and /healthz over TCP. The control socket is always there."
    )
    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address to listen on. There is no login: anything but a loopback address shows the plant to the "
        "whole network, so put a reverse proxy with a login in front instead.",
    )
    port: int = Field(default=8080, ge=0, le=65535, description="TCP port; 0 takes a free one.")
    hosts: tuple[str, ...] = Field(
        default=(),
        max_length=32,
        description="Further host names under which browsers may ask for the page (for a reverse proxy). Others than "
        "these, localhost, 127.0.0.1 and [::1] are refused, so that no foreign web page can read this one.",
    )
    control_socket: str = Field(
        default="control.sock",
        min_length=1,
        max_length=64,
        pattern=r"^[A-Za-z0-9._-]+$",
        description="Name of the control socket inside state_dir; only the gateway's own user can open it.",
    )
    connections_max: int = Field(default=64, ge=4, le=1024, description="Connections at a time per face.")
    streams_max: int = Field(
        default=8, ge=1, le=256, description="Pages that get live values at a time; one more is told to come back."
    )
    stream_period_ms: int = Field(default=1000, ge=200, le=60_000, description="Time between two live snapshots.")
    sql_rows_max: int = Field(
        default=10_000,
        ge=1,
        le=100_000,
        description="Rows that one query may return; they become text in the event loop (about 1 ms for 10,000), so "
        "bulk belongs into an export.",
    )
    sql_timeout_s: float = Field(default=30.0, ge=0.1, le=600.0, description="Time that one query may take.")
