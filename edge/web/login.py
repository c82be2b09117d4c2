"""`Gate`: who is at the page. Login, logout, what a route needs, and the accounts behind it.

Owns the order of the checks. For an action: a session, the page's own token in a header (a foreign page cannot read
it), a role. For a login: the way is safe, the waits of name and address are over, the password. Every login, refusal
and change of an account goes into the trail. Answers to a wrong name and to a wrong password are the same.
"""

import asyncio
import math
import secrets
from collections.abc import Awaitable, Callable
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from typing import Any, Final, Literal, NamedTuple

import msgspec
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from edge import clock as wall
from edge.errors import AndonError
from edge.web.answers import Handler, Invalid, answer, failure, read_body
from edge.web.backoff import Backoff
from edge.web.options import WebOptions
from edge.web.roles import COMMANDS, Role, covers
from edge.web.sessions import Session, Sessions
from edge.web.trail import Keep, Trail
from edge.web.users import PASSWORD_LENGTH_MAX, Users, folded
from plant.instant import Instant

TOKEN_HEADER: Final = "x-andon-token"  # noqa: S105  (the name of a header)
FREE_PER_USER: Final = 4
FREE_PER_ADDRESS: Final = 20
"""More than per name: all who use one terminal share its address."""
WAIT_PER_USER_S_MAX: Final = 300.0
WAIT_PER_ADDRESS_S_MAX: Final = 900.0
CHECKS_WAITING_MAX: Final = 8
"""Passwords that may wait to be checked; they are checked one at a time, 20 MB and 50 ms each."""
NAME_LENGTH_MAX: Final = 64

Action = Callable[[Request, Session], Awaitable[Response]]


class LoginRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    password: str


class UserRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """by: who asks. sessions end with `remove`, `password` and `logout`."""

    action: Literal["add", "remove", "list", "password", "logout"]
    by: str
    name: str = ""
    role: Role = Role.VIEWER
    password: str = ""


class Obstacle(NamedTuple):
    """Why nobody can log in now. code: "no_users", "unsafe", "damaged"."""

    code: str
    sentence: str


def is_loopback(host: str) -> bool:
    """Tell whether an address to listen on can be reached from this machine only."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Gate:
    """The doorkeeper of one gateway. keep: takes an audit entry."""

    def __init__(self, users: Users, options: WebOptions, keep: Keep, clock: Callable[[], Instant] = wall.now) -> None:
        self.users = users
        self.options = options
        self.damage = ""
        self.trail = Trail(keep, clock)
        self.sessions = Sessions(options.session_idle_minutes * 60, options.session_hours_max * 3600, clock)
        self._clock = clock
        self._by_user = Backoff(FREE_PER_USER, WAIT_PER_USER_S_MAX, clock)
        self._by_address = Backoff(FREE_PER_ADDRESS, WAIT_PER_ADDRESS_S_MAX, clock)
        self._checking = asyncio.Lock()
        self._checks = 0
        # The prefix makes browsers insist on Secure and on this very host (RFC 6265bis, 4.1.3.2).
        self._cookie = "__Host-andon" if options.behind_tls_proxy else "andon"

    def obstacle(self) -> Obstacle | None:
        """Return why nobody can log in now, None if people can."""
        if not (self.options.behind_tls_proxy or is_loopback(self.options.host)):
            return Obstacle(
                "unsafe",
                "Passwords do not travel in the clear: there is no login on an address of the network without TLS. "
                "Put a TLS proxy in front and say [web] behind_tls_proxy = true.",
            )
        if self.damage:
            return Obstacle("damaged", self.damage)
        if not len(self.users):
            return Obstacle(
                "no_users",
                "Nobody can log in yet. On the gateway: andon user add NAME --role operator",
            )
        return None

    def address(self, request: Request) -> str:
        """Return whose attempts are counted: the peer, or whom our own proxy names last."""
        peer = request.client.host if request.client else "unknown"
        if self.options.behind_tls_proxy:
            named = request.headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
            return named[:NAME_LENGTH_MAX] or peer
        return peer

    def session(self, scope: Scope) -> Session | None:
        """Return the open session of a request."""
        header = Headers(scope=scope).get("cookie", "")
        try:
            morsel = SimpleCookie(header).get(self._cookie)
        except CookieError:
            return None
        return None if morsel is None else self.sessions.find(morsel.value)

    def may_look(self, scope: Scope) -> bool:
        """Tell whether a request may see the plant."""
        return self.options.view_without_login or self.session(scope) is not None

    def looking(self, handler: Handler) -> Handler:
        """Guard a route that shows the plant."""

        async def handle(request: Request) -> Response:
            if not self.may_look(request.scope):
                return failure("Log in to see the plant.", 401)
            return await handler(request)

        return handle

    def acting(self, action: Action, needed: Role, *, prolongs: bool = True) -> Handler:
        """Guard a route that does something: session, token, role, in this order."""

        async def handle(request: Request) -> Response:
            session = self.session(request.scope)
            if session is None:
                return failure("Log in first; you have been logged out or the gateway was restarted.", 401)
            what, address = request.url.path, self.address(request)
            token = request.headers.get(TOKEN_HEADER, "")
            if not secrets.compare_digest(token.encode(), session.csrf.encode()):
                self.trail.refused(session.user, "access", "no_token", path=what, address=address)
                return failure("This did not come from the page itself. Load the page again.", 403)
            if not covers(session.role, needed):
                self.trail.refused(session.user, "access", "forbidden", path=what, address=address, needed=needed)
                return failure(f"This needs the role {needed}; you are {session.role}.", 403)
            if prolongs:
                self.sessions.touch(session)
            return await action(request, session)

        return handle

    # -- routes of the page --------------------------------------------------------------------------------------

    async def who(self, request: Request) -> Response:
        """Say who is logged in, what he may do, or why nobody can log in."""
        session, obstacle = self.session(request.scope), self.obstacle()
        told: dict[str, Any] = {
            "user": session.user if session else "",
            "role": session.role if session else Role.VIEWER,
            "token": session.csrf if session else "",
            "left_s": self.sessions.left_s(session) if session else 0,
            "commands": _commands(session.role) if session else [],
            "look": self.may_look(request.scope),
            "login": obstacle.code if obstacle else "open",
            "sentence": obstacle.sentence if obstacle else "",
            "notice": self.options.login_notice,
        }
        return answer(told)

    async def login(self, request: Request) -> Response:
        wish = msgspec.json.decode(await read_body(request), type=LoginRequest)
        name, address = folded(wish.name[:NAME_LENGTH_MAX]), self.address(request)
        obstacle = self.obstacle()
        if obstacle is not None:
            return failure(obstacle.sentence, 403)
        wait_s = max(self._by_user.wait_s(name), self._by_address.wait_s(address))
        if wait_s > 0:
            self.trail.refused(self._known(name), "login", "must_wait", address=address)
            return _come_back(f"Too many failed logins. Try again in {math.ceil(wait_s)} s.", wait_s)
        if self._checks >= CHECKS_WAITING_MAX:
            return _come_back("Too many people log in at once. Try again in a moment.", 2)
        self._by_user.failed(name)
        self._by_address.failed(address)
        user = await self._check(name, wish.password)
        if user is None or self.users.role(user) is None:
            self.trail.refused(self._known(name), "login", "refused", address=address)
            return failure("The name or the password is wrong.", 401)
        self._by_user.succeeded(name, wholly=True)
        self._by_address.succeeded(address, wholly=False)
        old = self.session(request.scope)
        if old is not None:
            self.sessions.close(old)
        role = self.users.role(user) or Role.VIEWER
        token, _ = self.sessions.open(user, role)
        self.trail.did(user, "login", "ok", address=address, role=role)
        response = answer({"user": user, "role": role})
        self._set_cookie(response, token)
        return response

    def _known(self, name: str) -> str:
        """Return a name as it may stand in the log: what is no user may be a password in the wrong field."""
        return name if self.users.role(name) is not None else "unknown"

    async def _check(self, name: str, password: str) -> str | None:
        """Return the user's name if the password is right; in a thread, as it takes a while on purpose."""
        if len(password) > PASSWORD_LENGTH_MAX:
            return None
        self._checks += 1
        try:
            async with self._checking:
                user = await asyncio.to_thread(self.users.check, name, password)
        finally:
            self._checks -= 1
        return None if user is None else user.name

    async def logout(self, request: Request, session: Session) -> Response:
        self.sessions.close(session)
        self.trail.did(session.user, "logout", "ok", address=self.address(request))
        response = answer({"user": ""})
        self._set_cookie(response, "")
        return response

    async def stay(self, _: Request, session: Session) -> Response:
        """Somebody is at the page: the session goes on."""
        return answer({"left_s": self.sessions.left_s(session)})

    def _set_cookie(self, response: Response, token: str) -> None:
        response.set_cookie(
            self._cookie,
            token,
            max_age=None if token else 0,
            path="/",
            secure=self.options.behind_tls_proxy,
            httponly=True,
            samesite="strict",
        )

    # -- the control socket's side -------------------------------------------------------------------------------

    async def accounts(self, request: Request) -> Response:
        """Add, remove, list users; only the gateway's own user gets here."""
        wish = msgspec.json.decode(await read_body(request), type=UserRequest)
        if not wish.by:
            raise Invalid("a change of users names who asks")
        if self.damage:
            self.users.load()
            self.damage = ""
        if wish.action == "list":
            views = self.users.views()
            return answer([msgspec.structs.replace(v, sessions=self.sessions.count(v.name)) for v in views])
        now = self._clock().utc
        ended = 0
        try:
            match wish.action:
                case "add":
                    user = await asyncio.to_thread(self.users.add, wish.name, wish.role, wish.password, now)
                    done = f"{user.name} may log in as {user.role}"
                case "password":
                    user = await asyncio.to_thread(self.users.set_password, wish.name, wish.password, now)
                    ended = self.sessions.revoke(user.name)
                    done = f"{user.name} has a new password"
                case "remove":
                    user = self.users.remove(wish.name)
                    ended = self.sessions.revoke(user.name)
                    done = f"{user.name} may no longer log in"
                case _:
                    ended = self.sessions.revoke(folded(wish.name))
                    done = f"{folded(wish.name)} is logged out"
        except AndonError as error:
            self.trail.did(wish.by, f"user_{wish.action}", "refused", name=wish.name, why=error)
            raise
        self.trail.did(wish.by, f"user_{wish.action}", "ok", name=folded(wish.name), role=wish.role, ended=ended)
        return answer({"sentence": f"{done}; {ended} sessions ended" if ended else done})


def _commands(role: Role) -> list[str]:
    return sorted(name for needed, names in COMMANDS.items() if covers(role, needed) for name in names)


def _come_back(sentence: str, wait_s: float) -> Response:
    response = failure(sentence, 429)
    response.headers["Retry-After"] = str(math.ceil(wait_s))
    return response
