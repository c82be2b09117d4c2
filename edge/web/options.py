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
        description="Address to listen on. On anything but a loopback address the page is for looking only, and for "
        "everybody, unless a TLS proxy stands in front (behind_tls_proxy).",
    )
    port: int = Field(default=8080, ge=0, le=65535, description="TCP port; 0 takes a free one.")
    hosts: tuple[str, ...] = Field(
        default=(),
        max_length=32,
        description="Further host names under which browsers may ask for the page (for a reverse proxy). Others than "
        "these, localhost, 127.0.0.1 and [::1] are refused, so that no foreign web page can read this one.",
    )
    behind_tls_proxy: bool = Field(
        default=False,
        description="A reverse proxy with TLS stands in front and is the only way to this port: logins are allowed on "
        "any address, cookies are Secure, and the last entry of X-Forwarded-For is who asks. Name the proxy's host "
        "under hosts.",
    )
    view_without_login: bool = Field(
        default=True,
        description="Everybody who reaches the page may look. false: the plant is shown to logged-in users only; "
        "/metrics and /healthz stay open for machines.",
    )
    session_idle_minutes: float = Field(
        default=15.0, gt=0, le=720, description="A login ends after this time without anybody at the page."
    )
    session_hours_max: float = Field(default=12.0, gt=0, le=24, description="A login ends after this time in any case.")
    login_notice: str = Field(
        default="", max_length=500, description="Text above the login, e.g. who may use this and that it is recorded."
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
