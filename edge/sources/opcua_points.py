"""What is read from an OPC UA server: node addresses as people write them, and their way to a node of this session.

A namespace index is only valid within one session of one server (OPC 10000-3, 8.2.2). An address with a URI is
therefore resolved anew in each session, and an address with an index keeps the URI that the index had at first
contact and follows it if it moves.
"""

import base64
import binascii
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from asyncua import ua

IDENTIFIER_LENGTH_MAX: Final = 4096
"""Characters of a string identifier (OPC 10000-3, 8.2.4)."""

Kind = Literal["i", "s", "g", "b"]

_ADDRESS: Final = re.compile(
    r"(?:nsu=(?P<uri>[^;]*);|ns=(?P<index>[^;]*);)?(?P<kind>[isgb])=(?P<identifier>.*)", re.DOTALL
)
_FORMS: Final = (
    "nsu=<namespace uri>;s=<text>, ns=<index>;i=<number> or i=<number>; s, i, g (guid) and b (base64) are possible"
)


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """A parsed node id. Exactly one of uri and index is given; index 0 is the OPC Foundation's own namespace."""

    uri: str | None
    index: int | None
    kind: Kind
    identifier: int | str | uuid.UUID | bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class OpcuaPoint:
    """One node whose value is read.

    tag: the tag's index. node: its address as in tags.csv. text: the value is a text and is interned.
    sampling_ms: how often the server samples it, None = the device's. period_ms: how often it is read where the
    server has no subscriptions, None = the device's. deadband: absolute change, in the unit of the server's value,
    below which the server need not tell; 0 = each change.
    """

    tag: int
    node: str
    text: bool = False
    sampling_ms: float | None = None
    period_ms: float | None = None
    deadband: float = 0.0


class Unresolved(LookupError):
    """The namespace of an address is not on the server now."""


def parse_node(text: str) -> NodeAddress:
    """Parse a node address. Raises ValueError with a sentence that says what is expected; needs no network."""
    match = _ADDRESS.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no node address; write {_FORMS}")
    kind: Kind = match["kind"]  # type: ignore[assignment]
    uri = match["uri"]
    if uri is not None:
        # OPC 10000-6, 5.1.12: ';' and '%' inside the URI are escaped.
        uri = uri.replace("%3B", ";").replace("%3b", ";").replace("%25", "%")
        if not uri:
            raise ValueError(f"{text!r}: the namespace URI after nsu= is empty; write {_FORMS}")
        return NodeAddress(uri, None, kind, _identifier(text, kind, match["identifier"]))
    index = match["index"]
    if index is not None and not (index.isascii() and index.isdigit() and int(index) <= 0xFFFF):
        raise ValueError(f"{text!r}: the namespace index after ns= must be a number from 0 to 65535, not {index!r}")
    return NodeAddress(None, int(index or 0), kind, _identifier(text, kind, match["identifier"]))


def _identifier(text: str, kind: Kind, identifier: str) -> int | str | uuid.UUID | bytes:
    if not identifier:
        raise ValueError(f"{text!r}: nothing stands after {kind}=; write {_FORMS}")
    if kind == "i":
        if not (identifier.isascii() and identifier.isdigit() and int(identifier) <= 0xFFFF_FFFF):
            raise ValueError(f"{text!r}: i= needs a number from 0 to 4294967295, not {identifier!r}; names go after s=")
        return int(identifier)
    if kind == "s":
        if len(identifier) > IDENTIFIER_LENGTH_MAX:
            raise ValueError(f"the text after s= has {len(identifier)} characters, {IDENTIFIER_LENGTH_MAX} are allowed")
        return identifier
    if kind == "g":
        try:
            return uuid.UUID(identifier)
        except ValueError as error:
            raise ValueError(f"{text!r}: g= needs a GUID like 09087e75-8e5e-499b-954f-f2a9603db28a") from error
    try:
        return base64.b64decode(identifier, validate=True)
    except binascii.Error as error:
        raise ValueError(f"{text!r}: b= needs bytes in base64 ({error})") from error


_NODE_TYPES: Final = {"i": "Numeric", "s": "String", "g": "Guid", "b": "ByteString"}


class Namespaces:
    """The namespace array of the current session, and the URI that each plain index had at first contact.

    first_contact: index -> URI; may be given from an earlier run and is kept up to date.
    """

    def __init__(self, first_contact: dict[int, str] | None = None) -> None:
        self.first_contact: dict[int, str] = dict(first_contact or {})
        self.uris: tuple[str, ...] = ()

    def update(self, uris: Sequence[str]) -> list[tuple[str, int, int]]:
        """Take the namespace array of this session; return (URI, index at first contact, index now) of what moved."""
        self.uris = tuple(uris)
        moved = []
        for index, uri in self.first_contact.items():
            if uri in self.uris and self.uris.index(uri) != index:
                moved.append((uri, index, self.uris.index(uri)))
        return moved

    def resolve(self, address: NodeAddress) -> ua.NodeId:
        """Return the node id in this session. Raises Unresolved."""
        index = self._index(address)
        return ua.NodeId(address.identifier, index, getattr(ua.NodeIdType, _NODE_TYPES[address.kind]))

    def _index(self, address: NodeAddress) -> int:
        if address.uri is not None:
            if address.uri not in self.uris:
                raise Unresolved(f"the namespace {address.uri} is not on the server, which has {', '.join(self.uris)}")
            return self.uris.index(address.uri)
        index = address.index or 0
        if index == 0:
            return 0
        uri = self.first_contact.get(index)
        if uri is None:
            if index < len(self.uris):
                self.first_contact[index] = self.uris[index]
            return index
        if uri in self.uris:
            return self.uris.index(uri)
        if index == 1:
            return 1  # the server's own namespace: its URI may follow a renamed host, its index is fixed
        raise Unresolved(f"the namespace {uri}, index {index} at first contact, is not on the server any more")
