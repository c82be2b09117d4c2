"""The two faces of one application: the read-only page over TCP, and the control API over the local socket.

Owns routes, the shape of answers, and what a person reads when something is wrong. What is true about the plant comes
from the `Gateway`; how bytes travel is `server.py`'s matter.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from edge.errors import AndonError, ConfigError, StorageError
from edge.tick import Command
from edge.view import Snapshot
from edge.web import metrics
from edge.web.gateway import Gateway
from edge.web.guard import Guard
from edge.web.options import WebOptions
from edge.web.stream import Frames

STATIC: Final = Path(__file__).with_name("static")
MEDIA_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
TAGS_PAGE_MAX: Final = 500
SEARCH_LENGTH_MAX: Final = 200
BODY_BYTES_MAX: Final = 256 * 1024
COMMAND_TIMEOUT_S: Final = 5.0
EXPORT_TIMEOUT_S: Final = 600.0
RELOAD_TIMEOUT_S: Final = 60.0

Handler = Callable[[Request], Awaitable[Response]]


class SqlRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sql: str
    rows_max: int | None = None
    timeout_s: float | None = None


class ExportRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    start_ns: int
    end_ns: int


class CommandRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    name: str
    user: str
    arguments: dict[str, Any] = {}


class _Invalid(Exception):
    """A request that cannot be served as it stands; the text goes back to whoever sent it."""


def _plain(value: Any) -> str:
    """Turn what JSON has no word for (intervals, UUIDs, nested types of SQL) into text."""
    return str(value)


def answer(value: Any, status: int = 200) -> Response:
    """Return JSON; NaN and infinity become null, as JSON has neither."""
    return Response(msgspec.json.encode(value, enc_hook=_plain), status, media_type="application/json")


def failure(sentence: str, status: int, problems: list[str] | None = None) -> Response:
    body: dict[str, Any] = {"error": sentence}
    if problems is not None:
        body["problems"] = problems
    return answer(body, status)


def health(snapshot: Snapshot) -> dict[str, Any]:
    """Return what /healthz says: the verdict, and one sentence for each thing that is not as it should be."""
    problems = [f"{d.name}: {d.sentence}" for d in snapshot.devices if d.sentence]
    problems += [f"{d.name}: {tag}: {what}" for d in snapshot.devices for tag, what in d.problems.items()]
    if snapshot.ring.sentence:
        problems.append(f"ring: {snapshot.ring.sentence}")
    if snapshot.broker.sentence and snapshot.broker.state != "off":
        problems.append(f"broker: {snapshot.broker.sentence}")
    return {
        "healthy": snapshot.healthy,
        "sentence": snapshot.sentence,
        "gateway": snapshot.gateway,
        "version": snapshot.version,
        "time": snapshot.time,
        "tags": snapshot.tags,
        "tags_alive": snapshot.tags_alive,
        "readings_per_s": snapshot.readings_per_s,
        "problems": problems,
    }


def _integer(request: Request, name: str, default: int, low: int, high: int) -> int:
    text = request.query_params.get(name)
    try:
        value = default if text is None else int(text)
    except ValueError:
        raise _Invalid(f"{name} is {text!r}, expected a whole number from {low} to {high}") from None
    if not low <= value <= high:
        raise _Invalid(f"{name} is {value}, expected a whole number from {low} to {high}")
    return value


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            raise _Invalid(f"the request is larger than {BODY_BYTES_MAX} bytes")
    return body


class LiveStream:
    """/api/stream as an ASGI application: its place in `Frames` is given back however the connection ends."""

    def __init__(self, frames: Frames) -> None:
        self.frames = frames

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        media_type = "text/event-stream"
        if scope["method"] == "HEAD":
            await Response(headers=headers, media_type=media_type)(scope, receive, send)
            return
        if not self.frames.admit():
            refusal = failure("As many pages as [web] streams_max allows get live values already.", 503)
            refusal.headers["Retry-After"] = "10"
            await refusal(scope, receive, send)
            return
        try:
            async with aclosing(self.frames.follow()) as events:
                await StreamingResponse(events, headers=headers, media_type=media_type)(scope, receive, send)
        finally:
            self.frames.leave()


class _Handover(FileResponse):
    """Sends a file and removes it, however the connection ends."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.remove()

    def remove(self) -> None:
        Path(self.path).unlink(missing_ok=True)


class ReadFace:
    """What anybody on this machine may see."""

    def __init__(self, gateway: Gateway, frames: Frames) -> None:
        self.gateway = gateway
        self.frames = frames

    async def snapshot(self, _: Request) -> Response:
        return Response(self.frames.latest()[1], media_type="application/json")

    async def tags(self, request: Request) -> Response:
        offset = _integer(request, "offset", 0, 0, 2**31)
        limit = _integer(request, "limit", 100, 1, TAGS_PAGE_MAX)
        search = request.query_params.get("search", "")
        if len(search) > SEARCH_LENGTH_MAX:
            raise _Invalid(f"search is longer than {SEARCH_LENGTH_MAX} characters")
        tags = self.gateway.tags(offset, limit + 1, search)
        return answer({"offset": offset, "tags": tags[:limit], "more": len(tags) > limit})

    async def metrics(self, _: Request) -> Response:
        body = metrics.render(self.frames.latest()[0], self.gateway.stats())
        return Response(body, headers={"Content-Type": metrics.CONTENT_TYPE})

    async def healthz(self, _: Request) -> Response:
        snapshot = self.frames.latest()[0]
        return answer(health(snapshot), 200 if snapshot.healthy else 503)


class ControlFace:
    """What only the gateway's own user may ask for: the command line's side."""

    def __init__(self, gateway: Gateway, options: WebOptions) -> None:
        self.gateway = gateway
        self.options = options

    async def sql(self, request: Request) -> Response:
        wish = msgspec.json.decode(await _body(request), type=SqlRequest)
        rows_max = min(wish.rows_max or self.options.sql_rows_max, self.options.sql_rows_max)
        timeout_s = min(wish.timeout_s or self.options.sql_timeout_s, self.options.sql_timeout_s)
        if rows_max < 1 or timeout_s <= 0:
            raise _Invalid("rows_max and timeout_s must be greater than zero")
        try:
            result = await self.gateway.query(wish.sql, rows_max, timeout_s)
        except TimeoutError:
            return failure(f"The query took longer than {timeout_s:g} s and was stopped: ask for less.", 504)
        return answer(result)

    async def export(self, request: Request) -> Response:
        wish = msgspec.json.decode(await _body(request), type=ExportRequest)
        if wish.start_ns >= wish.end_ns:
            raise _Invalid("the start of the export must be before its end")
        path = await asyncio.wait_for(self.gateway.export(wish.start_ns, wish.end_ns), EXPORT_TIMEOUT_S)
        return _Handover(path, media_type="application/vnd.apache.parquet")

    async def command(self, request: Request) -> Response:
        wish = msgspec.json.decode(await _body(request), type=CommandRequest)
        if not wish.user:
            raise _Invalid("a command names its user: who asks?")
        command = Command(id=wish.id, name=wish.name, user=wish.user, origin="control", arguments=wish.arguments)
        return answer(await asyncio.wait_for(self.gateway.command(command), COMMAND_TIMEOUT_S))

    async def reload(self, _: Request) -> Response:
        return answer(await asyncio.wait_for(self.gateway.reload(), RELOAD_TIMEOUT_S))


def _sentences(handler: Handler) -> Handler:
    """Turn the errors that the gateway raises on purpose into answers; any other error is a fault and stays one."""

    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except _Invalid as error:
            return failure(str(error), 400)
        except msgspec.DecodeError as error:
            return failure(f"the request is not what {request.url.path} expects: {error}", 400)
        except ConfigError as error:
            return failure("The configuration has mistakes; the old one stays.", 422, [str(p) for p in error.problems])
        except StorageError as error:
            return failure(str(error), 503)
        except AndonError as error:
            return failure(str(error), 422)
        except TimeoutError:
            return failure("The gateway did not answer in time: it is overloaded or its disk hangs.", 504)

    return handle


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
    return {f"/static/{path.name}": path for path in sorted(STATIC.iterdir()) if path.suffix in MEDIA_TYPES}


def create_app(gateway: Gateway, options: WebOptions, frames: Frames, *, control: bool) -> Starlette:
    """Return one face. control False: the guarded page, for TCP. True: reading and commands, for the socket."""
    read = ReadFace(gateway, frames)
    routes = [
        Route("/api/snapshot", _sentences(read.snapshot)),
        Route("/api/tags", _sentences(read.tags)),
        Route("/metrics", _sentences(read.metrics)),
        Route("/healthz", _sentences(read.healthz)),
    ]
    if control:
        commands = ControlFace(gateway, options)
        routes += [
            Route("/control/sql", _sentences(commands.sql), methods=["POST"]),
            Route("/control/export", _sentences(commands.export), methods=["POST"]),
            Route("/control/command", _sentences(commands.command), methods=["POST"]),
            Route("/control/reload", _sentences(commands.reload), methods=["POST"]),
        ]
        return Starlette(routes=routes)
    routes += [
        Route("/api/stream", LiveStream(frames)),
        Route("/", _asset(STATIC / "index.html")),
        *(Route(address, _asset(path)) for address, path in assets().items()),
    ]
    return Starlette(routes=routes, middleware=[Middleware(Guard, hosts=options.hosts)])
