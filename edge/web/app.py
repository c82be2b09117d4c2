"""The two faces of one application: the page over TCP, and the control API over the local socket.

Owns which route needs what. What is true about the plant comes from the `Gateway`; who is there from the `Gate`; how
bytes travel is `server.py`'s matter.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edge.web.answers import Handler, sentences
from edge.web.doing import ControlFace, PageFace
from edge.web.gateway import Gateway
from edge.web.guard import Guard
from edge.web.login import Gate
from edge.web.looking import LiveStream, ReadFace
from edge.web.options import WebOptions
from edge.web.roles import Role
from edge.web.stream import Frames

STATIC: Final = Path(__file__).with_name("static")
MEDIA_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}


def _asset(path: Path) -> Handler:
    """Serve one file of the page from memory: a handful of small files needs no threads and has no path to escape."""
    body = path.read_bytes()
    etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    headers = {"ETag": etag, "Cache-Control": "no-cache", "Content-Type": MEDIA_TYPES[path.suffix]}

    async def serve(request: Request) -> Response:
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        return Response(body, headers=headers)

    return serve


def assets() -> Mapping[str, Path]:
    """Return the files of the page by their address."""
    files = (path for path in sorted(STATIC.rglob("*")) if path.suffix in MEDIA_TYPES)
    return {f"/static/{path.relative_to(STATIC).as_posix()}": path for path in files}


def control_app(gateway: Gateway, options: WebOptions, frames: Frames, gate: Gate) -> Starlette:
    """Return the face of the control socket: reading, commands, accounts. Only the gateway's own user gets there."""
    read, commands = ReadFace(gateway, frames), ControlFace(gateway, options)
    gets = {
        "/api/snapshot": read.snapshot,
        "/api/tags": read.tags,
        "/metrics": read.metrics,
        "/healthz": read.healthz,
    }
    posts = {
        "/control/sql": commands.sql,
        "/control/export": commands.export,
        "/control/command": commands.command,
        "/control/reload": commands.reload,
        "/control/users": gate.accounts,
    }
    return Starlette(
        routes=[
            *(Route(path, sentences(handler)) for path, handler in gets.items()),
            *(Route(path, sentences(handler), methods=["POST"]) for path, handler in posts.items()),
        ]
    )


def page_app(gateway: Gateway, options: WebOptions, frames: Frames, gate: Gate) -> Starlette:
    """Return the face for browsers: the guarded page, what it shows, and what a logged-in person may do."""
    read, page = ReadFace(gateway, frames), PageFace(gateway, options, gate.trail)
    gets: dict[str, Handler] = {
        "/api/snapshot": gate.looking(read.snapshot),
        "/api/tags": gate.looking(read.tags),
        "/api/states": gate.looking(read.states),
        "/api/trend": gate.looking(read.trend),
        "/api/session": gate.who,
        "/metrics": read.metrics,
        "/healthz": read.healthz,
    }
    posts: dict[str, Handler] = {
        "/api/login": gate.login,
        "/api/logout": gate.acting(gate.logout, Role.VIEWER, prolongs=False),
        "/api/stay": gate.acting(gate.stay, Role.VIEWER),
        "/api/command": gate.acting(page.command, Role.OPERATOR),
        "/api/sql": gate.acting(page.sql, Role.ENGINEER),
    }
    return Starlette(
        routes=[
            *(Route(path, sentences(handler)) for path, handler in gets.items()),
            *(Route(path, sentences(handler), methods=["POST"]) for path, handler in posts.items()),
            Route("/api/stream", LiveStream(frames, gate.may_look)),
            Route("/", _asset(STATIC / "index.html")),
            *(Route(address, _asset(path)) for address, path in assets().items()),
        ],
        middleware=[Middleware(Guard, hosts=options.hosts, https=options.behind_tls_proxy)],
    )
