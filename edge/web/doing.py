"""What can be done: the command line's side over the control socket, and the page's side for whoever is logged in.

Both end in the same `Gateway.command`, with the name of the person who asks.
"""

import asyncio
import uuid
from pathlib import Path
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.types import Receive, Scope, Send

from edge.errors import AndonError
from edge.tick import Command
from edge.web.answers import Invalid, answer, failure, read_body
from edge.web.gateway import Gateway
from edge.web.options import WebOptions
from edge.web.roles import covers, role_for
from edge.web.sessions import Session
from edge.web.trail import Trail

COMMAND_TIMEOUT_S: Final = 5.0
EXPORT_TIMEOUT_S: Final = 600.0
RELOAD_TIMEOUT_S: Final = 60.0
PAGE_ROWS_MAX: Final = 1000
"""Rows of a query that the page shows."""
AUDITED_BY_ALARMS: Final = frozenset(
    {"acknowledge", "reset", "shelve", "unshelve", "suppress", "unsuppress", "out_of_service", "in_service"}
)
"""Commands whose refusal the alarms put into the log themselves."""


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


class PageCommand(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    arguments: dict[str, Any] = {}


class _Handover(FileResponse):
    """Sends a file and removes it, however the connection ends."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.remove()

    def remove(self) -> None:
        Path(self.path).unlink(missing_ok=True)


async def run_sql(
    gateway: Gateway, options: WebOptions, body: bytes, rows_max: int | None = None
) -> tuple[str, Response]:
    """Return the statement that was asked for and the answer to it. Raises Invalid, AndonError."""
    wish = msgspec.json.decode(body, type=SqlRequest)
    most = options.sql_rows_max if rows_max is None else min(rows_max, options.sql_rows_max)
    rows = min(wish.rows_max or most, most)
    timeout_s = min(wish.timeout_s or options.sql_timeout_s, options.sql_timeout_s)
    if rows < 1 or timeout_s <= 0:
        raise Invalid("rows_max and timeout_s must be greater than zero")
    try:
        result = await gateway.query(wish.sql, rows, timeout_s)
    except TimeoutError:
        return wish.sql, failure(f"The query took longer than {timeout_s:g} s and was stopped: ask for less.", 504)
    return wish.sql, answer(result)


class ControlFace:
    """What only the gateway's own user may ask for: the command line's side."""

    def __init__(self, gateway: Gateway, options: WebOptions) -> None:
        self.gateway = gateway
        self.options = options

    async def sql(self, request: Request) -> Response:
        return (await run_sql(self.gateway, self.options, await read_body(request)))[1]

    async def export(self, request: Request) -> Response:
        wish = msgspec.json.decode(await read_body(request), type=ExportRequest)
        if wish.start_ns >= wish.end_ns:
            raise Invalid("the start of the export must be before its end")
        path = await asyncio.wait_for(self.gateway.export(wish.start_ns, wish.end_ns), EXPORT_TIMEOUT_S)
        return _Handover(path, media_type="application/vnd.apache.parquet")

    async def command(self, request: Request) -> Response:
        wish = msgspec.json.decode(await read_body(request), type=CommandRequest)
        if not wish.user:
            raise Invalid("a command names its user: who asks?")
        command = Command(id=wish.id, name=wish.name, user=wish.user, origin="control", arguments=wish.arguments)
        return answer(await asyncio.wait_for(self.gateway.command(command), COMMAND_TIMEOUT_S))

    async def reload(self, _: Request) -> Response:
        return answer(await asyncio.wait_for(self.gateway.reload(), RELOAD_TIMEOUT_S))


class PageFace:
    """What a logged-in person may do on the page. The gate has checked session and token before."""

    def __init__(self, gateway: Gateway, options: WebOptions, trail: Trail) -> None:
        self.gateway = gateway
        self.options = options
        self.trail = trail

    async def command(self, request: Request, session: Session) -> Response:
        wish = msgspec.json.decode(await read_body(request), type=PageCommand)
        needed = role_for(wish.name)
        if needed is None:
            raise Invalid(f"the page gives no command {wish.name!r}")
        if not covers(session.role, needed):
            self.trail.refused(session.user, wish.name, "forbidden", needed=needed)
            return failure(f"This needs the role {needed}; you are {session.role}.", 403)
        arguments = _exact(wish.arguments)
        command = Command(id=uuid.uuid4().hex, name=wish.name, user=session.user, origin="page", arguments=arguments)
        try:
            reply = await asyncio.wait_for(self.gateway.command(command), COMMAND_TIMEOUT_S)
        except (AndonError, TimeoutError) as error:
            self.trail.did(session.user, wish.name, "no_answer", **_told(wish.arguments), why=error)
            raise
        if not reply.ok and wish.name not in AUDITED_BY_ALARMS:
            self.trail.did(session.user, wish.name, reply.code, **_told(wish.arguments), why=reply.message)
        return answer(reply)

    async def sql(self, request: Request, session: Session) -> Response:
        body = await read_body(request)
        outcome, statement = "refused", ""
        try:
            statement, response = await run_sql(self.gateway, self.options, body, PAGE_ROWS_MAX)
            outcome = "ok" if response.status_code == 200 else "stopped"
        finally:
            self.trail.did(session.user, "sql", outcome, statement=statement or body[:500].decode("utf-8", "replace"))
        return response


def _exact(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return arguments with times that came as digits (ns UTC, see `ReadFace.states`) as numbers."""
    times = {name: arguments[name] for name in ("start", "end") if isinstance(arguments.get(name), str)}
    return arguments | {name: int(text) for name, text in times.items() if len(text) <= 19 and text.isdecimal()}


def _told(arguments: dict[str, Any]) -> dict[str, object]:
    """Return arguments under names that cannot be mistaken for the trail's own."""
    return {f"argument_{name[:40]}": value for name, value in list(arguments.items())[:20]}
