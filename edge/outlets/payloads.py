"""What messages say: JSON, version 1, described by the JSON Schemas in `schema/`.

Times are RFC 3339 texts in UTC with milliseconds. Numbers that cannot be told (NaN) are null. Receivers ignore
members that they do not know; a change that breaks a receiver gets a new version.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from importlib import resources
from typing import Annotated, Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge.tick import Command, Reply
from plant.events import AlarmTransition, Event, to_record

VERSION: Final = 1
SCHEMAS: Final = ("alarm", "event", "value", "status", "snapshot", "command", "reply")
ORIGIN: Final = "mqtt"
NORMAL: Final = "A"
"""The ISA-18.2 state in which an alarm has no retained message."""

_TIMES: Final = ("time", "start", "end")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ENCODER: Final = msgspec.json.Encoder(enc_hook=str)


def rfc3339(time: int) -> str:
    """Return ns UTC as "2026-11-20T12:00:00.000Z"."""
    moment = _EPOCH + timedelta(microseconds=time // 1000)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def rfc3339_column(time: NDArray[np.int64]) -> list[str]:
    """Return the texts of a column of ns UTC."""
    texts: list[str] = np.datetime_as_string(time.view("datetime64[ns]"), unit="ms", timezone="UTC").tolist()
    return texts


def schema(name: str) -> dict[str, Any]:
    """Return the published JSON Schema of one kind of payload."""
    path = resources.files(__package__) / "schema" / f"{name}.v{VERSION}.schema.json"
    loaded: dict[str, Any] = msgspec.json.decode(path.read_bytes())
    return loaded


def record(event: Event) -> dict[str, Any]:
    """Return the event with its times as texts."""
    fields = to_record(event)
    for name in _TIMES:
        if name in fields:
            fields[name] = rfc3339(fields[name])
    if "shelved_until" in fields:
        fields["shelved_until"] = rfc3339(fields["shelved_until"]) if fields["shelved_until"] else None
    return fields


def alarm_state(gateway: str, transition: AlarmTransition) -> dict[str, Any]:
    fields = record(transition)
    del fields["kind"]
    return {"v": VERSION, "gateway": gateway, **fields}


def alarm(gateway: str, transition: AlarmTransition) -> bytes:
    """Return the whole state of an alarm; nothing at all when it is normal, which deletes the retained message."""
    return b"" if transition.state == NORMAL else _ENCODER.encode(alarm_state(gateway, transition))


def event(gateway: str, happened: Event) -> bytes:
    return _ENCODER.encode({"v": VERSION, "gateway": gateway, **record(happened)})


def status(gateway: str, *, online: bool, time: int, session: int, reason: str, version: str) -> bytes:
    """Return the gateway's state. session: ns UTC when the connection began; the last will repeats it.

    The last will is written when the connection begins: its time is that of the beginning, not of the loss.
    """
    return _ENCODER.encode(
        {
            "v": VERSION,
            "gateway": gateway,
            "state": "online" if online else "offline",
            "time": rfc3339(time),
            "session": rfc3339(session),
            "reason": reason,
            "version": version,
        }
    )


def snapshot(
    gateway: str, *, command: str, time: int, part: int, parts: int, alarms: Sequence[AlarmTransition]
) -> bytes:
    """Return one part of a snapshot; part counts from 1 to parts."""
    return _ENCODER.encode(
        {
            "v": VERSION,
            "gateway": gateway,
            "id": command,
            "time": rfc3339(time),
            "part": part,
            "parts": parts,
            "alarms": [alarm_state(gateway, transition) for transition in alarms],
        }
    )


class Value(msgspec.Struct, frozen=True, omit_defaults=True):
    """One value on the wire; the unit only in messages that carry all values of an asset."""

    value: float | str | None
    quality: int
    time: str
    unit: str = ""


def values(gateway: str, *, time: int, complete: bool, by_tag: dict[str, Value]) -> bytes:
    return _ENCODER.encode(
        {"v": VERSION, "gateway": gateway, "time": rfc3339(time), "complete": complete, "values": by_tag}
    )


def reply(gateway: str, time: int, answer: Reply) -> bytes:
    return _ENCODER.encode(
        {
            "v": VERSION,
            "gateway": gateway,
            "id": answer.command,
            "time": rfc3339(time),
            "ok": answer.ok,
            "code": answer.code,
            "message": answer.message,
            "data": dict(answer.data),
        }
    )


class CommandMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A command as it comes in; `user` is who the sender says he is."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    name: Literal[
        "acknowledge", "reset", "shelve", "unshelve", "suppress", "unsuppress", "out_of_service", "in_service",
        "snapshot", "correct", "set_state", "start_order", "end_order",
    ]  # fmt: skip
    v: Literal[1] = 1
    user: Annotated[str, msgspec.Meta(max_length=128)] = ""
    arguments: Annotated[dict[str, Any], msgspec.Meta(max_length=64)] = {}


class _Named(msgspec.Struct):
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] = ""


_COMMAND: Final = msgspec.json.Decoder(CommandMessage)
_NAMED: Final = msgspec.json.Decoder(_Named)
_OWNER: Final = msgspec.json.Decoder(dict[str, Any])


class InvalidCommand(ValueError):
    """A message on the command topic that is no command. id: the id it gave, "" if none could be read."""

    def __init__(self, why: str, command: str = "") -> None:
        super().__init__(why)
        self.id = command


def command(payload: bytes, size_max: int) -> Command:
    """Read a command. Raises InvalidCommand.

    The user is what the sender claims: he is recorded as "mqtt:<claim>".
    """
    if len(payload) > size_max:
        raise InvalidCommand(f"a command has at most {size_max} bytes, this one has {len(payload)}")
    try:
        message = _COMMAND.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidCommand(f"not a command of version {VERSION}: {error}", _id_of(payload)) from error
    return Command(
        id=message.id,
        name=message.name,
        user=f"{ORIGIN}:{message.user or 'unknown'}",
        origin=ORIGIN,
        arguments=message.arguments,
    )


def _id_of(payload: bytes) -> str:
    try:
        return _NAMED.decode(payload).id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""


def owner(payload: bytes) -> str | None:
    """Return the gateway that published an alarm state, None if the payload is not one."""
    try:
        message = _OWNER.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    name = message.get("gateway")
    return name if isinstance(name, str) and "alarm" in message and "occurrence" in message else None
