"""`Users`: who may log in, in one file of the state directory.

Owns names, roles and password hashes (argon2id). Leaves to others: sessions, and who may change a user (whoever can
open the control socket). There is no default user.

The file is written whole and renamed, mode 0600, so a power cut leaves the old or the new one.
"""

import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from edge.errors import AndonError, StorageError
from edge.web.roles import Role

USERS_FILE: Final = "users.json"
USERS_MAX: Final = 200
PASSWORD_LENGTH_MIN: Final = 12
PASSWORD_LENGTH_MAX: Final = 256
DISTINCT_MIN: Final = 5
"""Different characters that a password needs: "aaaaaaaaaaaa" and "121212121212" are none."""
_NAME: Final = re.compile(r"^[a-z0-9][a-z0-9._-]{0,31}$")
_COMMON: Final = frozenset(
    {
        "123456789012", "1234567890123", "12345678901234", "password1234", "passwordpassword", "qwertyuiop12",
        "qwertyuiop123", "administrator", "administrator1", "letmeinletmein", "changemechangeme", "welcome12345",
        "iloveyou1234", "operator1234", "engineer1234",
    }
)  # fmt: skip
HASHER: Final = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
"""argon2id, 19 MiB, two passes: the OWASP password storage cheat sheet's least; about 50 ms on a gateway."""


class User(msgspec.Struct, frozen=True, kw_only=True):
    """changed: when the password was set, ns UTC."""

    name: str
    role: Role
    hash: str
    changed: int


class UserView(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    role: Role
    changed: int
    sessions: int = 0


class _File(msgspec.Struct, frozen=True):
    users: list[User]
    version: int = 1


def folded(name: str) -> str:
    """Return a name as it is compared: case and surrounding spaces do not matter."""
    return unicodedata.normalize("NFKC", name).strip().lower()


def weakness(name: str, password: str) -> str:
    """Return what is wrong with a password, "" if nothing (NIST SP 800-63B: length and a block list, no recipes)."""
    plain = _normal(password)
    if len(plain) < PASSWORD_LENGTH_MIN:
        return f"the password is shorter than {PASSWORD_LENGTH_MIN} characters"
    if len(plain) > PASSWORD_LENGTH_MAX:
        return f"the password is longer than {PASSWORD_LENGTH_MAX} characters"
    if len(set(plain)) < DISTINCT_MIN or plain.lower() in _COMMON:
        return "the password is one that everybody tries first"
    if len(name) >= 4 and name in plain.lower():
        return "the password holds the user's name"
    return ""


def _normal(password: str) -> str:
    return unicodedata.normalize("NFKC", password)


class Users:
    """The users of one gateway. `load` first. `add`, `set_password` and `check` take about 50 ms: not for a loop."""

    def __init__(self, path: Path, hasher: PasswordHasher = HASHER) -> None:
        self.path = path
        self._hasher = hasher
        self._users: dict[str, User] = {}
        self._nobody = ""

    def __len__(self) -> int:
        return len(self._users)

    def load(self) -> None:
        """Read the file; none means no users. Raises StorageError if it cannot be read or understood."""
        # Checked for names that do not exist, so that they take as long as those that do.
        self._nobody = self._hasher.hash(os.urandom(16).hex())
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            self._users = {}
            return
        except OSError as error:
            raise StorageError(f"cannot read the users in {self.path}: {error.strerror}") from error
        try:
            users = msgspec.json.decode(text, type=_File).users
        except msgspec.DecodeError as error:
            raise StorageError(
                f"{self.path} is damaged ({error}): remove it and add the users again with `andon user add`"
            ) from error
        self._users = {user.name: user for user in users}

    def role(self, name: str) -> Role | None:
        user = self._users.get(name)
        return None if user is None else user.role

    def views(self) -> list[UserView]:
        """Return the users without their secrets, in order of name."""
        return [UserView(name=u.name, role=u.role, changed=u.changed) for _, u in sorted(self._users.items())]

    def add(self, name: str, role: Role, password: str, now: int) -> User:
        """Make a user. now: ns UTC. Raises AndonError for a bad name or password, StorageError."""
        name = folded(name)
        if not _NAME.match(name):
            raise AndonError(
                f"{name!r} is no user name: up to 32 letters without accents, digits and . _ -, a letter or digit first"
            )
        if name in self._users:
            raise AndonError(f"there is a user {name} already: `andon user passwd {name}` sets a new password")
        if len(self._users) >= USERS_MAX:
            raise AndonError(f"there are {USERS_MAX} users already: remove those who have left")
        return self._put(name, role, password, now)

    def set_password(self, name: str, password: str, now: int) -> User:
        """Give a user a new password. Raises AndonError, StorageError."""
        user = self._known(name)
        return self._put(user.name, user.role, password, now)

    def remove(self, name: str) -> User:
        """Forget a user. Raises AndonError, StorageError."""
        user = self._known(name)
        self._write(u for u in self._users.values() if u.name != user.name)
        return user

    def check(self, name: str, password: str) -> User | None:
        """Return the user if the password is right. Takes equally long whether there is such a user or not."""
        user = self._users.get(folded(name))
        try:
            self._hasher.verify(self._nobody if user is None else user.hash, _normal(password))
        except (VerificationError, InvalidHashError):
            return None
        return user

    def _known(self, name: str) -> User:
        user = self._users.get(folded(name))
        if user is None:
            known = ", ".join(sorted(self._users)) or "none"
            raise AndonError(f"there is no user {name}; known: {known}")
        return user

    def _put(self, name: str, role: Role, password: str, now: int) -> User:
        what = weakness(name, password)
        if what:
            raise AndonError(f"{what}: a short sentence is strong and easy to remember")
        user = User(name=name, role=role, hash=self._hasher.hash(_normal(password)), changed=now)
        self._write((*(u for u in self._users.values() if u.name != name), user))
        return user

    def _write(self, users: Iterable[User]) -> None:
        kept = {user.name: user for user in users}
        text = msgspec.json.format(msgspec.json.encode(_File(list(kept.values()))))
        partial = self.path.with_suffix(".partial")
        try:
            # Any older file of this name keeps its rights otherwise.
            partial.unlink(missing_ok=True)
            number = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(number, "wb") as file:
                file.write(text)
                file.flush()
                os.fsync(number)
            partial.replace(self.path)
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise StorageError(f"cannot write the users to {self.path}: {error.strerror}") from error
        self._users = kept
