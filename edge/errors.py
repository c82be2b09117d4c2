"""Errors, named by what the catcher must do."""

from dataclasses import dataclass


class AndonError(Exception):
    """Root of the errors that the gateway raises on purpose."""


class Unreachable(AndonError):
    """The other side cannot be reached now: wait, then connect again."""


class Disconnected(AndonError):
    """A connection that stood is gone: connect again."""


class Refused(AndonError):
    """The other side said no (credentials, certificate, permission): park, alarm, retry only slowly."""


class Untrusted(AndonError):
    """A signature or certificate does not check out: keep what is active, report."""


class StorageError(AndonError):
    """A store did not take what it was given: go on without it, raise the storage alarm."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a configuration. line 0 = the file as a whole."""

    file: str
    line: int
    what: str
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.what}" + (f" ({self.hint})" if self.hint else "")


class ConfigError(AndonError):
    """The configuration cannot be used; `problems` lists every mistake, each with file and line."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(p) for p in problems))
        self.problems = problems
