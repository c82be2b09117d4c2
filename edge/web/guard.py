"""`Guard`: the rules that hold for every request on the TCP face, before any route sees it.

Reading everywhere, POST only where something can be done and only from our own page (Origin), known host names only (a
foreign page whose name is rebound to 127.0.0.1 still sends its own name), and headers that forbid framing, sniffing
and anything that is not served from here.
"""

from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge.web.answers import failure

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
ACTIONS: Final = frozenset({"/api/login", "/api/logout", "/api/stay", "/api/command", "/api/sql"})


def host_name(header: str) -> str:
    """Return the name of a Host header in lower case, without its port; an IPv6 address keeps its brackets."""
    header = header.strip().lower()
    if header.startswith("["):
        return header.partition("]")[0] + "]"
    return header.partition(":")[0].rstrip(".")


class Guard:
    """ASGI middleware around the TCP face. https: a TLS proxy stands in front, so pages come by https only."""

    def __init__(self, app: ASGIApp, hosts: Iterable[str] = (), *, https: bool = False) -> None:
        self.app = app
        self.named = frozenset(host_name(host) for host in hosts)
        self.hosts = LOCAL_HOSTS | self.named
        self.scheme = "https" if https else "http"

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
        headers = Headers(scope=scope)
        if host_name(headers.get("host", "")) not in self.hosts:
            return PlainTextResponse(
                "This host name is not served here. Use http://127.0.0.1, or name it under [web] hosts.\n", 421
            )
        if scope["method"] in {"GET", "HEAD"}:
            return None
        if scope["method"] != "POST" or scope["path"] not in ACTIONS:
            return PlainTextResponse("There is nothing to be done here but to look.\n", 405, {"Allow": "GET, HEAD"})
        if not self._own(headers):
            return failure("This did not come from the gateway's own page.", 403)
        if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return failure("Send JSON (Content-Type: application/json).", 415)
        return None

    def _own(self, headers: Headers) -> bool:
        """Tell whether a request comes from a page of this very origin. Every browser says so with a POST."""
        if headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return False
        try:
            origin = urlsplit(headers.get("origin", "").lower())
        except ValueError:
            return False
        if origin.scheme != self.scheme or not origin.netloc:
            return False
        # Behind a proxy the Host header may be the proxy's own for us; then the name that we were told must match.
        proxied = self.scheme == "https" and host_name(origin.netloc) in self.named
        return origin.netloc == headers.get("host", "").strip().lower() or proxied
