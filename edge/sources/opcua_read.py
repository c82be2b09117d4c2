"""A ReadRequest whose nodes are encoded once: reading the same nodes again and again costs no encoding."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from asyncua import ua
from asyncua.ua.ua_binary import nodeid_to_binary
from numpy.typing import NDArray

_VALUE_ATTRIBUTE: Final = b"\x0d\0\0\0" + b"\xff\xff\xff\xff" + b"\0\0" + b"\xff\xff\xff\xff"
"""Attribute 13, no index range, no data encoding: what follows the node in a ReadValueId (OPC 10000-4, 7.29)."""


class Encoded(bytes):
    """Array elements that are encoded already. Their length, which OPC UA writes before them, is their number."""

    elements: int

    def __len__(self) -> int:
        return self.elements


@dataclass(slots=True, kw_only=True)
class PreparedRead:
    """A ReadRequest (OPC 10000-4, 5.11.2) whose nodes are encoded once; asyncua writes the rest of it."""

    TypeId: ua.NodeId = field(
        default_factory=lambda: ua.FourByteNodeId(ua.ObjectIds.ReadRequest_Encoding_DefaultBinary)
    )
    RequestHeader: ua.RequestHeader = field(default_factory=ua.RequestHeader)
    MaxAge: ua.Double = 0.0
    TimestampsToReturn: ua.Int32 = int(ua.TimestampsToReturn.Both)
    NodesToRead: ua.ByteString


def encode(node: ua.NodeId) -> bytes:
    """Return a node as `prepare` takes it."""
    return bytes(nodeid_to_binary(node))


def prepare(members: Sequence[tuple[int, bytes]]) -> tuple[NDArray[np.intp], Encoded]:
    """Return the positions of some (position, encoded node) and what asks for their values."""
    nodes = Encoded(b"".join(node + _VALUE_ATTRIBUTE for _, node in members))
    nodes.elements = len(members)
    return np.array([position for position, _ in members], np.intp), nodes
