"""`Guard`: the rules that hold for every request on the TCP face, before any route sees it.

Read only (GET and HEAD), known host names only (a foreign page whose name is rebound to 127.0.0.1 still sends its own
name), and headers that forbid framing, sniffing and anything that is not served from here.
"""

from collections.abc import Iterable
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
SECURITY_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def host_name(header: str) -> str:
    """Return the name of a Host header in lower case, without its port; an IPv6 address keeps its brackets."""
    header = header.strip().lower()
    if header.startswith("["):
        return header.partition("]")[0] + "]"
    return header.partition(":")[0].rstrip(".")


class Guard:
    """ASGI middleware around the TCP face."""

    def __init__(self, app: ASGIApp, hosts: Iterable[str] = ()) -> None:
        self.app = app
        self.hosts = LOCAL_HOSTS | {host_name(host) for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await (self._refusal(scope) or self.app)(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        if host_name(Headers(scope=scope).get("host", "")) not in self.hosts:
            return PlainTextResponse(
                "This host name is not served here. Use http://127.0.0.1, or name it under [web] hosts.\n", 421
            )
        if scope["method"] not in {"GET", "HEAD"}:
            return PlainTextResponse(
                "This face is read only. Commands go through `andon` on the machine itself.\n",
                405,
                {"Allow": "GET, HEAD"},
            )
        return None
