"""`Control`: the command line's side of the control socket. Synchronous, one request at a time.

Raises `Unreachable` if no gateway runs there, `Refused` if this user may not talk to it, and `AndonError` with the
gateway's own sentence if the gateway says no.
"""

import getpass
import os
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import httpx
import msgspec

from edge.errors import AndonError, Refused, Unreachable
from edge.tick import Reply
from edge.view import Snapshot
from edge.web.gateway import QueryResult, Reloaded

CONTROL_SOCKET: Final = "control.sock"
CONNECT_TIMEOUT_S: Final = 2.0
ANSWER_TIMEOUT_S: Final = 10.0
EXPORT_TIMEOUT_S: Final = 630.0
RELOAD_TIMEOUT_S: Final = 70.0

T = TypeVar("T")


class Failure(msgspec.Struct, frozen=True):
    """How the gateway says no. problems: one line per mistake, for a configuration that it did not take."""

    error: str
    problems: list[str] = []


class Done(msgspec.Struct, frozen=True):
    sentence: str


class UserView(msgspec.Struct, frozen=True):
    """One who may log in on the page. changed: when the password was set, ns UTC. sessions: logins that are open."""

    name: str
    role: str
    changed: int
    sessions: int


@dataclass(frozen=True, slots=True)
class Exported:
    path: Path
    size: int


def login() -> str:
    """Return who is logged in; the number where the machine has no name for it, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


class Control:
    """A connection to the gateway that owns `state_dir`. Use as a context manager."""

    def __init__(self, state_dir: Path, socket_name: str = CONTROL_SOCKET) -> None:
        self.state_dir = state_dir
        self.path = state_dir / socket_name
        self._client = httpx.Client(
            transport=httpx.HTTPTransport(uds=os.fspath(self.path)),
            base_url="http://gateway",
            timeout=httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def status(self) -> Snapshot:
        """Return the present snapshot."""
        return self._decode(self._send("GET", "/api/snapshot", None, ANSWER_TIMEOUT_S), Snapshot)

    def query(self, sql: str, rows_max: int | None = None, timeout_s: float | None = None) -> QueryResult:
        """Run one read-only statement inside the gateway. None takes the gateway's own bounds, which also cap."""
        body = {"sql": sql, "rows_max": rows_max, "timeout_s": timeout_s}
        # The gateway stops the query itself; without a wish its own limit holds, at most ten minutes.
        patience_s = (timeout_s or 600.0) + ANSWER_TIMEOUT_S
        return self._decode(self._send("POST", "/control/sql", body, patience_s), QueryResult)

    def export(self, start_ns: int, end_ns: int, path: Path) -> Exported:
        """Write the readings of [start_ns, end_ns) (ns UTC) to `path` as Parquet, replacing a file there whole."""
        self._knock()
        body = msgspec.json.encode({"start_ns": start_ns, "end_ns": end_ns})
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
        try:
            with (
                self._client.stream("POST", "/control/export", content=body, timeout=EXPORT_TIMEOUT_S) as response,
                partial.open("wb") as file,
            ):
                if response.status_code != httpx.codes.OK:
                    response.read()
                    self._check(response)
                for chunk in response.iter_bytes():
                    file.write(chunk)
            partial.replace(path)
        except httpx.TransportError as error:
            raise self._lost(error) from error
        finally:
            partial.unlink(missing_ok=True)
        return Exported(path, path.stat().st_size)

    def command(self, name: str, arguments: Mapping[str, Any], user: str = "") -> Reply:
        """Send a command (see `edge.tick.Command`) as `user`, by default the one who is logged in."""
        body = {
            "id": uuid.uuid4().hex,
            "name": name,
            "user": user or login(),
            "arguments": dict(arguments),
        }
        return self._decode(self._send("POST", "/control/command", body, ANSWER_TIMEOUT_S), Reply)

    def reload(self) -> Reloaded:
        """Let the gateway read its configuration again. Raises AndonError with every mistake if it does not take it."""
        return self._decode(self._send("POST", "/control/reload", None, RELOAD_TIMEOUT_S), Reloaded)

    def change_user(self, action: str, name: str, role: str = "viewer", password: str = "") -> str:
        """Change who may log in on the page ("add", "password", "remove", "logout"); return what was done."""
        body = {"action": action, "name": name, "role": role, "password": password, "by": login()}
        return self._decode(self._send("POST", "/control/users", body, ANSWER_TIMEOUT_S), Done).sentence

    def users(self) -> list[UserView]:
        """Return who may log in on the page."""
        body = {"action": "list", "by": login()}
        return self._decode(self._send("POST", "/control/users", body, ANSWER_TIMEOUT_S), list[UserView])

    def metrics(self) -> str:
        """Return what a scrape of /metrics would get."""
        return self._send("GET", "/metrics", None, ANSWER_TIMEOUT_S).text

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None, timeout_s: float) -> httpx.Response:
        self._knock()
        content = None if body is None else msgspec.json.encode(body)
        timeout = httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S)
        try:
            response = self._client.request(method, path, content=content, timeout=timeout)
        except httpx.TransportError as error:
            raise self._lost(error) from error
        self._check(response)
        return response

    def _knock(self) -> None:
        """Raise unless somebody listens: the operating system's own answer is plainer than the HTTP library's."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                sock.settimeout(CONNECT_TIMEOUT_S)
                sock.connect(os.fspath(self.path))
        except PermissionError as error:
            whom = f"you may not talk to the gateway on {self.state_dir}"
            raise Refused(f"{whom}: run this as the user it runs as, or as root") from error
        except TimeoutError as error:
            raise self._silent() from error
        except OSError as error:
            raise Unreachable(
                f"no gateway is running on {self.state_dir}: start it with `andon run`, "
                "or name the right configuration folder"
            ) from error

    def _silent(self) -> Unreachable:
        return Unreachable(
            f"the gateway on {self.state_dir} does not answer in time: it is overloaded or hangs; "
            "look at its log (journalctl -u andon)"
        )

    def _lost(self, error: httpx.TransportError) -> Unreachable:
        if isinstance(error, httpx.TimeoutException):
            return self._silent()
        return Unreachable(f"the gateway on {self.state_dir} went away in mid-answer ({error}): ask again")

    def _check(self, response: httpx.Response) -> None:
        if response.status_code == httpx.codes.OK:
            return
        try:
            failure = msgspec.json.decode(response.content, type=Failure)
        except msgspec.DecodeError:
            text = response.text.strip() or response.reason_phrase
            raise AndonError(f"the gateway on {self.state_dir} answered {response.status_code}: {text}") from None
        raise AndonError("\n".join([failure.error, *failure.problems]))

    def _decode(self, response: httpx.Response, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(response.content, type=kind)
        except msgspec.DecodeError as error:
            what = f"the gateway on {self.state_dir} is of another version than this command ({error}): restart it"
            raise AndonError(what) from error
