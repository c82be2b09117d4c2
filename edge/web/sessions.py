"""`Sessions`: who is logged in. In memory only: a restart of the gateway ends them all.

A session ends after a time without anybody at the page (idle), after a longer time in any case, when its user logs out,
and when its user is removed or gets another password. The browser's token is kept as a hash: whoever reads our memory
image cannot use it.
"""

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from edge import clock as wall
from edge.web.roles import Role
from plant.instant import NS_PER_S, Instant

SESSIONS_MAX: Final = 100
PER_USER_MAX: Final = 5
"""One more ends the user's oldest."""
TOKEN_BYTES: Final = 32


@dataclass(slots=True, eq=False)
class Session:
    """csrf: what the page sends back with every action. opened, seen: monotonic ns."""

    key: str
    user: str
    role: Role
    csrf: str
    opened: int
    seen: int


class Sessions:
    """The sessions of one gateway. idle_s: without activity; lifetime_s: in any case."""

    def __init__(self, idle_s: float, lifetime_s: float, clock: Callable[[], Instant] = wall.now) -> None:
        self._idle = round(idle_s * NS_PER_S)
        self._lifetime = round(lifetime_s * NS_PER_S)
        self._clock = clock
        self._sessions: dict[str, Session] = {}

    def open(self, user: str, role: Role) -> tuple[str, Session]:
        """Return the token for the browser and its new session; the oldest ones go where there are too many."""
        now = self._clock().monotonic
        self._expire(now)
        own = [session for session in self._sessions.values() if session.user == user]
        for session in own[: max(0, len(own) - PER_USER_MAX + 1)]:
            del self._sessions[session.key]
        while len(self._sessions) >= SESSIONS_MAX:
            del self._sessions[next(iter(self._sessions))]
        token = secrets.token_urlsafe(TOKEN_BYTES)
        session = Session(_key(token), user, role, secrets.token_urlsafe(TOKEN_BYTES), now, now)
        self._sessions[session.key] = session
        return token, session

    def find(self, token: str) -> Session | None:
        """Return the session of a token if it is still open. Looking does not prolong it."""
        session = self._sessions.get(_key(token))
        if session is None:
            return None
        if self._over(session, self._clock().monotonic):
            del self._sessions[session.key]
            return None
        return session

    def touch(self, session: Session) -> None:
        """Somebody is at the page: the idle time begins anew."""
        session.seen = self._clock().monotonic

    def left_s(self, session: Session) -> float:
        """Return how long the session lasts if nobody touches the page."""
        until = min(session.seen + self._idle, session.opened + self._lifetime)
        return max(0, until - self._clock().monotonic) / NS_PER_S

    def close(self, session: Session) -> None:
        self._sessions.pop(session.key, None)

    def revoke(self, user: str) -> int:
        """End all sessions of a user and return how many there were."""
        self._expire(self._clock().monotonic)
        ended = [session for session in self._sessions.values() if session.user == user]
        for session in ended:
            del self._sessions[session.key]
        return len(ended)

    def count(self, user: str) -> int:
        self._expire(self._clock().monotonic)
        return sum(session.user == user for session in self._sessions.values())

    def _over(self, session: Session, now: int) -> bool:
        return now - session.seen >= self._idle or now - session.opened >= self._lifetime

    def _expire(self, now: int) -> None:
        for session in [s for s in self._sessions.values() if self._over(s, now)]:
            del self._sessions[session.key]


def _key(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
