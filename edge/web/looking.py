"""What may be seen: snapshot, live stream, tags, states of machines, trends, metrics, health. Nothing here changes
anything.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from edge import clock
from edge.view import Snapshot
from edge.web import metrics as exposition
from edge.web import trend as trends
from edge.web.answers import Invalid, answer, failure, integer
from edge.web.gateway import Gateway
from edge.web.stream import Frames

TAGS_PAGE_MAX: Final = 500
SEARCH_LENGTH_MAX: Final = 200
HISTORY_HOURS_MAX: Final = 24
HISTORY_TIMEOUT_S: Final = 5.0
TRENDS_MAX: Final = 4
"""Trends that are read at a time; half of the queries that the store lets wait stay for others."""


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


class LiveStream:
    """/api/stream as an ASGI application: its place in `Frames` is given back however the connection ends."""

    def __init__(self, frames: Frames, may_look: Callable[[Scope], bool]) -> None:
        self.frames = frames
        self.may_look = may_look

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        media_type = "text/event-stream"
        if scope["method"] == "HEAD":
            await Response(headers=headers, media_type=media_type)(scope, receive, send)
            return
        if not self.may_look(scope):
            await failure("Log in to see the plant.", 401)(scope, receive, send)
            return
        if not self.frames.admit():
            refusal = failure("As many pages as [web] streams_max allows get live values already.", 503)
            refusal.headers["Retry-After"] = "10"
            await refusal(scope, receive, send)
            return
        try:
            async with aclosing(self._frames(scope)) as events:
                await StreamingResponse(events, headers=headers, media_type=media_type)(scope, receive, send)
        finally:
            self.frames.leave()

    async def _frames(self, scope: Scope) -> AsyncGenerator[bytes, None]:
        """Yield events for as long as the one who listens may look."""
        async with aclosing(self.frames.follow()) as events:
            async for event in events:
                if not self.may_look(scope):
                    return
                yield event


class ReadFace:
    """What anybody on this machine may see."""

    def __init__(self, gateway: Gateway, frames: Frames) -> None:
        self.gateway = gateway
        self.frames = frames
        self.trends_running = 0

    async def snapshot(self, _: Request) -> Response:
        return Response(self.frames.latest()[1], media_type="application/json")

    async def tags(self, request: Request) -> Response:
        offset = integer(request, "offset", 0, 0, 2**31)
        limit = integer(request, "limit", 100, 1, TAGS_PAGE_MAX)
        search = request.query_params.get("search", "")
        if len(search) > SEARCH_LENGTH_MAX:
            raise Invalid(f"search is longer than {SEARCH_LENGTH_MAX} characters")
        tags = self.gateway.tags(offset, limit + 1, search)
        return answer({"offset": offset, "tags": tags[:limit], "more": len(tags) > limit})

    async def states(self, request: Request) -> Response:
        machine = request.query_params.get("machine", "")
        hours = integer(request, "hours", 0, 0, HISTORY_HOURS_MAX)
        found = await asyncio.wait_for(self.gateway.states(machine, hours), HISTORY_TIMEOUT_S)
        told = msgspec.to_builtins(found)
        for span in told["spans"]:
            # A browser's numbers hold 53 bits; a correction must name the very nanosecond.
            span["exact"] = [str(span["start"]), str(span["end"])]
        return answer(told)

    async def trend(self, request: Request) -> Response:
        """Answer ?tag=a&tag=b&span_s=3600&points=300[&since_ms=]: lowest, highest and last good value per point."""
        tags = list(dict.fromkeys(request.query_params.getlist("tag")))
        if not 1 <= len(tags) <= trends.TAGS_MAX or any(len(tag) > SEARCH_LENGTH_MAX for tag in tags):
            raise Invalid(f"ask for 1 to {trends.TAGS_MAX} tags")
        now = clock.now().utc
        asked = trends.window(
            now,
            integer(request, "span_s", 900, 60, trends.SPAN_S_MAX),
            integer(request, "points", 300, 10, trends.POINTS_MAX),
            integer(request, "since_ms", 0, 0, 2**53),
        )
        if self.trends_running >= TRENDS_MAX:
            return failure("Many trends are being read already; this one comes in a moment.", 503)
        self.trends_running += 1
        try:
            result = await self.gateway.query(trends.statement(asked, tags), trends.ROWS_MAX, trends.TIMEOUT_S)
        finally:
            self.trends_running -= 1
        return answer(trends.trend(asked, tags, result.rows, now))

    async def metrics(self, _: Request) -> Response:
        body = exposition.render(self.frames.latest()[0], self.gateway.stats())
        return Response(body, headers={"Content-Type": exposition.CONTENT_TYPE})

    async def healthz(self, _: Request) -> Response:
        snapshot = self.frames.latest()[0]
        return answer(health(snapshot), 200 if snapshot.healthy else 503)
