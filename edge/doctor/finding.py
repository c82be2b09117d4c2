"""A finding: what it is about, how it is, since when, why, and what to do."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from plant.instant import NS_PER_S

State = Literal["ok", "note", "act"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """state: ok; note = worth knowing, nobody has to do anything; act = a person has to do something.

    kind: "gateway", "configuration", "device", "broker", "disk", "journal", "clock", "certificate". name: which of
    them, "" if there is one only. since: ns UTC, 0 = not known. sentence: how it is. cause: why, next_step: what to
    do; "" where the sentence says it or there is nothing to say.
    """

    kind: str
    name: str = ""
    state: State
    sentence: str
    since: int = 0
    cause: str = ""
    next_step: str = ""

    def record(self) -> dict[str, Any]:
        """Return it as JSON types; since as ISO 8601 in UTC or None."""
        return asdict(self) | {"since": iso(self.since) if self.since else None}


def iso(time: int) -> str:
    """Return ns UTC as ISO 8601, to the second."""
    return datetime.fromtimestamp(time // NS_PER_S, UTC).isoformat().replace("+00:00", "Z")


def needs_person(findings: Iterable[Finding]) -> bool:
    """Tell whether anybody has to do anything."""
    return any(finding.state == "act" for finding in findings)
