"""The address space of an OPC UA server as a tree: what there is, of which type, in which unit, with which value.

Owns the order of the questions: level by level, many nodes in one request, so that thousands of nodes take seconds;
then the attributes of the variables. Keeps within the limits that the server states, goes on where it breaks an answer
off (BrowseNext), asks for less where that is too much for it. Leaves session and trust to `opcua_session`, and names
and units for the tag list to `tag_rows`.
"""

import base64
import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from asyncua import ua
from asyncua.ua import UaStatusCodeError

from edge.commands import Progress
from edge.errors import AndonError, Disconnected
from edge.sources.opcua_intake import explain, status_name
from edge.sources.opcua_points import Namespaces, parse_node
from edge.sources.opcua_session import TOO_MUCH, Session

NODES_PER_BROWSE: Final = 100
NODES_PER_READ: Final = 1000
REFERENCES_PER_NODE: Final = 500
DEPTH_MAX: Final = 50
"""Levels below the start; an address space may be a graph with cycles."""
NODES_MAX: Final = 100_000
NAMES_SHOWN: Final = 12

_LIMITS: Final = (
    ua.ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerBrowse,
    ua.ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead,
)
_NO_POINTS: Final = int(ua.StatusCodes.BadNoContinuationPoints)
_OBJECTS: Final = ua.NodeId(ua.ObjectIds.ObjectsFolder)
_HAS_PROPERTY: Final = ua.NodeId(ua.ObjectIds.HasProperty)
_ENUMERATION, _INT32 = 29, 6
_NUMBERS: Final = frozenset((1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 19))
_TEXTS: Final = frozenset((12, 14, 16, 17, 18, 20, 21))
"""Built-in types that the gateway takes as numbers and as texts (OPC 10000-6, table 1)."""
_SCALAR_RANKS: Final = (-1, -2, -3)
_READ, _WRITE = 1, 2


class NotThere(AndonError):
    """The place where to begin does not exist on the server."""


@dataclass(slots=True, eq=False)
class Node:
    """One object or variable. path: browse names from the start. problem: why its children or value are not known.

    text: its values are texts. unusable: why it cannot be a tag, "" if it can. access: r, w, rw or "".
    """

    id: ua.NodeId
    address: str
    path: tuple[str, ...]
    label: str
    is_variable: bool
    children: "list[Node]" = field(default_factory=list)
    properties: dict[str, ua.NodeId] = field(default_factory=dict)
    type: str = ""
    text: bool = False
    unusable: str = ""
    access: str = ""
    value: Any = None
    description: str = ""
    unit: Any = None
    range: tuple[float, float] | None = None
    problem: str = ""

    def walk(self) -> Iterator["Node"]:
        """Yield this node and everything below, parents first."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(reversed(node.children))


def one_line(text: object, length_max: int = 4096) -> str:
    """Return a text of a server as one line without control characters."""
    text = "" if text is None else str(text)[:length_max]
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def address_of(node: ua.NodeId, uris: Sequence[str]) -> str:
    """Write a node id so that it outlives a change of the namespace indexes: nsu=<uri>;... (OPC 10000-6, 5.1.12)."""
    identifier = node.to_string().split(";")[-1] if node.NodeIdType != ua.NodeIdType.String else f"s={node.Identifier}"
    if node.NodeIdType == ua.NodeIdType.ByteString:
        identifier = f"b={base64.b64encode(node.Identifier).decode()}"
    if node.NamespaceIndex == 0:
        return identifier
    if node.NamespaceIndex >= len(uris):
        return f"ns={node.NamespaceIndex};{identifier}"
    uri = uris[node.NamespaceIndex].replace("%", "%25").replace(";", "%3B")
    return f"nsu={uri};{identifier}"


class AddressSpace:
    """Reads the tree of one session. Use `open`, then `tree`, then `read`."""

    def __init__(self, session: Session, uris: Sequence[str], per_browse: int, per_read: int, tell: Progress) -> None:
        self.uris = uris
        self.cut_off = False
        self._session = session
        self._per_browse = per_browse
        self._per_read = per_read
        self._tell = tell
        self._types: dict[ua.NodeId, tuple[str, int]] = {}

    @classmethod
    async def open(cls, session: Session, tell: Progress) -> "AddressSpace":
        """Read namespaces and limits. Raises Disconnected or UaStatusCodeError."""
        browse, read = [int(limit or 0) for limit in await session.read_values([ua.NodeId(one) for one in _LIMITS])]
        return cls(
            session,
            await session.read_namespaces(),
            min(browse or NODES_PER_BROWSE, NODES_PER_BROWSE),
            min(read or NODES_PER_READ, NODES_PER_READ),
            tell,
        )

    async def find(self, place: str) -> Node:
        """Return the node of a browse path below Objects ("Line1/Press"), or of a node id. Raises NotThere."""
        if not place.strip("/ "):
            return Node(_OBJECTS, "i=85", ("Objects",), "Objects", is_variable=False)
        try:
            address = parse_node(place)
        except ValueError:
            return await self._follow(place.strip("/").split("/"))
        try:
            names = Namespaces()
            names.update(self.uris)
            node = names.resolve(address)
        except LookupError as error:
            raise NotThere(str(error)) from error
        label, kind = await self._attributes(node, ua.AttributeIds.BrowseName, ua.AttributeIds.NodeClass)
        if label is None:
            raise NotThere(f"{self._session.where} has no node {place}")
        name = one_line(label.Name)
        return Node(node, address_of(node, self.uris), (name,), name, is_variable=kind == ua.NodeClass.Variable)

    async def _follow(self, names: list[str]) -> Node:
        node = await self.find("")
        for name in names:
            await self._browse_level([node], keep_standard=True)
            exact = [child for child in node.children if child.path[-1] == name]
            found = exact or [child for child in node.children if child.path[-1].lower() == name.lower()]
            if not found:
                there = _named([child.path[-1] for child in node.children], name)
                raise NotThere(
                    f"{self._session.where}: there is no {name!r} below {'/'.join(node.path)}; there is {there}"
                )
            node = found[0]
        node.children = []
        return node

    async def _attributes(self, node: ua.NodeId, *attributes: ua.AttributeIds) -> list[Any]:
        values = await self._read([(node, attribute) for attribute in attributes])
        return [None if isinstance(one, str) else one.Value.Value if one.Value else None for one in values]

    async def tree(self, root: Node, depth: int, *, standard: bool) -> None:
        """Hang everything below `root` into it. standard: also what OPC UA itself puts into every server."""
        seen = {root.id}
        level, levels, count = [root], 0, 1
        while level and levels < min(depth, DEPTH_MAX):
            await self._browse_level(level, keep_standard=standard, seen=seen, done=count)
            level = [child for node in level for child in node.children]
            count += len(level)
            levels += 1
            if count > NODES_MAX:
                self.cut_off = True
                return

    async def _browse_level(
        self, nodes: Sequence[Node], *, keep_standard: bool, seen: set[ua.NodeId] | None = None, done: int = 0
    ) -> None:
        seen = set() if seen is None else seen
        left = list(nodes)
        while left:
            chunk, left = left[: self._per_browse], left[self._per_browse :]
            try:
                again = await self._browse(chunk, seen, keep_standard=keep_standard)
            except UaStatusCodeError as error:
                if error.code not in TOO_MUCH:
                    raise
                again = chunk
                if len(chunk) == 1:
                    chunk[0].problem, again = explain(error.code), []
            if again:
                self._per_browse = max(1, len(chunk) // 2)
                left = again + left
            self._tell("looking for nodes", done + sum(len(node.children) for node in nodes), None)

    async def _browse(self, nodes: list[Node], seen: set[ua.NodeId], *, keep_standard: bool) -> list[Node]:
        """Browse some nodes to the end of their references; return those that the server wants one at a time."""
        request = ua.BrowseRequest()
        request.Parameters.RequestedMaxReferencesPerNode = REFERENCES_PER_NODE
        request.Parameters.NodesToBrowse = [_downwards(node.id) for node in nodes]
        results = (await self._session.call(request, ua.BrowseResponse)).Results
        again: list[Node] = []
        open_ends: list[tuple[Node, bytes]] = []
        pending = list(zip(nodes, results, strict=True))
        while pending:
            for node, result in pending:
                code = result.StatusCode.value
                if code == _NO_POINTS and len(nodes) > 1:
                    again.append(node)
                elif result.StatusCode.is_bad():
                    node.problem = explain(code)
                else:
                    self._take(node, result.References or (), seen, keep_standard=keep_standard)
                    if result.ContinuationPoint:
                        open_ends.append((node, result.ContinuationPoint))
            pending = []
            if open_ends:
                some, open_ends = open_ends[: self._per_browse], open_ends[self._per_browse :]
                more = ua.BrowseNextRequest()
                more.Parameters.ReleaseContinuationPoints = False
                more.Parameters.ContinuationPoints = [point for _, point in some]
                results = (await self._session.call(more, ua.BrowseNextResponse)).Parameters.Results
                pending = [(node, result) for (node, _), result in zip(some, results, strict=True)]
        return again

    def _take(self, parent: Node, references: Iterable[Any], seen: set[ua.NodeId], *, keep_standard: bool) -> None:
        for one in references:
            target = self._local(one.NodeId)
            if target is None:
                continue
            name = one_line(one.BrowseName.Name) or "?"
            if one.ReferenceTypeId == _HAS_PROPERTY:
                parent.properties[name] = target
                continue
            if target in seen or (parent.id == _OBJECTS and target.NamespaceIndex == 0 and not keep_standard):
                continue
            seen.add(target)
            path = parent.path if parent.id != _OBJECTS else ()
            label = one_line(one.DisplayName.Text) or name
            is_variable = one.NodeClass == ua.NodeClass.Variable
            address = address_of(target, self.uris)
            parent.children.append(Node(target, address, (*path, name), label, is_variable))

    def _local(self, expanded: Any) -> ua.NodeId | None:
        """Return the node id of a reference, None if it leads to another server."""
        if getattr(expanded, "ServerIndex", 0):
            return None
        index = expanded.NamespaceIndex
        if uri := getattr(expanded, "NamespaceUri", None):
            if uri not in self.uris:
                return None
            index = self.uris.index(uri)
        return ua.NodeId(expanded.Identifier, index, _plain(expanded.NodeIdType))

    async def read(self, nodes: Sequence[Node], show: Callable[[int, int], None]) -> None:
        """Read type, access, value, unit, range and description of variables; show(done, of all)."""
        attributes = (
            ua.AttributeIds.DataType, ua.AttributeIds.UserAccessLevel, ua.AttributeIds.ValueRank,
            ua.AttributeIds.Description, ua.AttributeIds.Value,
        )  # fmt: skip
        size = max(1, self._per_read // len(attributes))
        for first in range(0, len(nodes), size):
            chunk = nodes[first : first + size]
            answers = await self._read([(node.id, attribute) for node in chunk for attribute in attributes])
            for i, node in enumerate(chunk):
                await self._describe(node, answers[len(attributes) * i : len(attributes) * (i + 1)])
            show(first + len(chunk), len(nodes))
        await self._read_units(nodes)

    async def _describe(self, node: Node, answers: Sequence[Any]) -> None:
        kind, access, rank, description = (
            None if isinstance(one, str) or one.Value is None else one.Value.Value for one in answers[:4]
        )
        value = answers[4]
        node.access = ("r" if (access or 0) & _READ else "") + ("w" if (access or 0) & _WRITE else "")
        node.description = one_line(description.Text) if description else ""
        name, base = await self._type(kind) if kind is not None else ("", 0)
        is_array = rank is not None and rank not in _SCALAR_RANKS
        if isinstance(value, str):
            node.problem = value
        elif value.StatusCode is not None and value.StatusCode.is_bad():
            node.problem = status_name(value.StatusCode.value)
        elif value.Value is not None:
            node.value = value.Value.Value
            is_array = isinstance(node.value, list)
            base = int(getattr(value.Value.VariantType, "value", base)) or base
        node.type = (name or "unknown") + ("[]" if is_array else "")
        node.text = base in _TEXTS
        if is_array:
            node.unusable = "array"
        elif base and base not in _NUMBERS | _TEXTS:
            node.unusable = "structure" if base == ua.VariantType.ExtensionObject.value else ua.VariantType(base).name
        elif "r" not in node.access:
            node.unusable = "not readable"

    async def _type(self, kind: ua.NodeId) -> tuple[str, int]:
        """Return the name of a data type and the built-in type at its root, 0 if it has none."""
        if kind not in self._types:
            if kind.NamespaceIndex == 0 and 0 < kind.Identifier <= 25:
                self._types[kind] = ua.VariantType(kind.Identifier).name, int(kind.Identifier)
            else:
                (name,) = await self._attributes(kind, ua.AttributeIds.BrowseName)
                self._types[kind] = one_line(name.Name) if name else kind.to_string(), await self._base(kind)
        return self._types[kind]

    async def _base(self, kind: ua.NodeId) -> int:
        for _ in range(DEPTH_MAX):
            if kind.NamespaceIndex == 0 and kind.Identifier == _ENUMERATION:
                return _INT32
            if kind.NamespaceIndex == 0 and 0 < kind.Identifier < 24:
                return int(kind.Identifier)
            request = ua.BrowseRequest()
            upwards = _downwards(kind)
            upwards.BrowseDirection = ua.BrowseDirection.Inverse
            upwards.ReferenceTypeId = ua.NodeId(ua.ObjectIds.HasSubtype)
            upwards.NodeClassMask = 0
            request.Parameters.NodesToBrowse = [upwards]
            (result,) = (await self._session.call(request, ua.BrowseResponse)).Results
            above = self._local(result.References[0].NodeId) if result.References else None
            if above is None:
                return 0
            kind = above
        return 0

    async def _read_units(self, nodes: Sequence[Node]) -> None:
        """Read the properties EngineeringUnits and InstrumentRange (OPC 10000-8, 5.3.2)."""
        asked = [
            (node, name, node.properties[name])
            for node in nodes
            for name in ("EngineeringUnits", "InstrumentRange")
            if name in node.properties
        ]
        answers = await self._read([(target, ua.AttributeIds.Value) for _, _, target in asked])
        for (node, name, _), answer in zip(asked, answers, strict=True):
            value = None if isinstance(answer, str) or answer.Value is None else answer.Value.Value
            if name == "EngineeringUnits" and isinstance(value, ua.EUInformation):
                node.unit = value
            elif isinstance(value, ua.Range) and math.isfinite(value.Low) and math.isfinite(value.High):
                node.range = (value.Low, value.High) if value.Low < value.High else None

    async def _read(self, asked: Sequence[tuple[ua.NodeId, ua.AttributeIds]]) -> list[Any]:
        """Return one DataValue per question, or a text where the answer cannot be decoded or is too large."""
        answers: list[Any] = []
        size = self._per_read
        while len(answers) < len(asked):
            chunk = asked[len(answers) : len(answers) + size]
            request = ua.ReadRequest()
            request.Parameters.NodesToRead = [ua.ReadValueId(node, attribute) for node, attribute in chunk]
            try:
                answers += (await self._session.call(request, ua.ReadResponse)).Results
            except (UaStatusCodeError, Disconnected) as error:
                answer = _too_much(error, self._session)
                if not answer:
                    raise
                if len(chunk) == 1:
                    answers.append(answer)
                size = max(1, len(chunk) // 2)
                if isinstance(error, UaStatusCodeError):
                    self._per_read = size
                continue
            size = min(2 * size, self._per_read)
        return answers


def _named(names: list[str], wanted: str) -> str:
    """Return what there is in words: the most alike first, not more than a person reads."""
    near = difflib.get_close_matches(wanted, names, 3, 0.5)
    shown = [*near, *(name for name in names if name not in near)][:NAMES_SHOWN]
    return (", ".join(shown) or "nothing") + (f" and {len(names) - len(shown)} more" if len(names) > len(shown) else "")


def _too_much(error: Exception, session: Session) -> str:
    """Return why an answer failed if asking for fewer nodes may help, else ""."""
    if isinstance(error, UaStatusCodeError):
        return explain(error.code) if error.code in TOO_MUCH else ""
    # An answer that cannot be decoded leaves the session alive: one strange value must not hide its neighbours.
    return "" if isinstance(error.__cause__, TimeoutError) or not session.is_open else "cannot be decoded"


def _downwards(node: ua.NodeId) -> Any:
    what = ua.BrowseDescription()
    what.NodeId = node
    what.BrowseDirection = ua.BrowseDirection.Forward
    what.ReferenceTypeId = ua.NodeId(ua.ObjectIds.HierarchicalReferences)
    what.IncludeSubtypes = True
    what.NodeClassMask = int(ua.NodeClass.Object) | int(ua.NodeClass.Variable)
    what.ResultMask = int(ua.BrowseResultMask.All)
    return what


def _plain(kind: ua.NodeIdType) -> ua.NodeIdType:
    numeric = (ua.NodeIdType.TwoByte, ua.NodeIdType.FourByte)
    return ua.NodeIdType.Numeric if kind in numeric else kind
