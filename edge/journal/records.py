"""How events and tags stand in the journal."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np

from plant.events import Event, GatewayEvent, UnknownEvent, from_record, to_record

UNREADABLE: Final = "unreadable_event"
TAG_COLUMNS: Final = '"index", name, asset, device, unit, description, text, virtual'


@dataclass(frozen=True, slots=True)
class TagRecord:
    """A tag that has an index, with its last known description."""

    index: int
    name: str
    asset: str = ""
    device: str = ""
    unit: str = ""
    description: str = ""
    text: bool = False
    virtual: bool = False


def body_of(event: Event) -> str:
    """Return an event as JSON."""
    return encode(to_record(event))


def encode(value: Any) -> str:
    """Return a value as JSON; numpy's scalars become numbers, anything unknown becomes its text."""
    return msgspec.json.encode(value, enc_hook=_plain).decode()


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else str(value)


def event_of(body: str) -> Event:
    """Return the event of a JSON body.

    An event that this version does not know, e.g. after a step back to an older one, or cannot read comes as a
    GatewayEvent that holds it whole: its number must not vanish from the stream.
    """
    try:
        record: dict[str, Any] = msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.DecodeError:
        return GatewayEvent(id="", time=0, asset="", action=UNREADABLE, detail={"body": body})
    try:
        return from_record(record)
    except UnknownEvent:
        time = record.get("time")
        return GatewayEvent(
            id=str(record.get("id", "")),
            time=time if isinstance(time, int) else 0,
            asset=str(record.get("asset", "")),
            action=UNREADABLE,
            detail=record,
        )


def tag_of(row: Sequence[Any]) -> TagRecord:
    """Return the tag of a row of TAG_COLUMNS."""
    index, name, asset, device, unit, description, text, virtual = row
    return TagRecord(index, name, asset, device, unit, description, bool(text), bool(virtual))
