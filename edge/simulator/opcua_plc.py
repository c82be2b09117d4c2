"""A PLC that speaks OPC UA: an asyncua server on loopback, anonymous, read-only, in a namespace of its own.

Owns the server and its nodes; what they show comes from a machine. Writes only what changed (a write costs tens of
microseconds). The PLC's clock is written here, so that it can go wrong together with the source timestamps.
"""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from asyncua import Server, ua
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server import internal_subscription
from asyncua.server.monitored_item_service import MonitoredItemService

from edge.errors import Unreachable
from edge.simulator.machine import Value
from edge.simulator.plc import STOP_TIMEOUT_S, Faults
from plant.instant import NS_PER_S

CLOCK_PERIOD_NS = NS_PER_S
"""How often ServerStatus.CurrentTime moves: clients take it as a sign of life."""
SESSION_TIMEOUT_MAX_MS = 120_000


@dataclass(frozen=True, slots=True)
class Node:
    """name: of the value; path: string node id; type: OPC UA built-in type."""

    name: str
    path: str
    type: str
    description: str


class _ReadOnlyVisitors:
    """Everybody may come in and nobody may write."""

    def get_user(self, iserver: Any, username: Any = None, password: Any = None, certificate: Any = None) -> Any:
        del iserver, username, password, certificate
        return User(role=UserRole.User)


class _Items(MonitoredItemService):  # type: ignore[misc]
    """Tells a change from or to a bad status whatever the deadband: asyncua 2.1.0 subtracts from nothing there, and the
    change is lost. A deadband is about values alone (OPC 10000-4, 7.22.2).
    """

    def _is_deadband_exceeded(self, values: Any, flt: Any) -> bool:
        both = values.get_old_datavalue(), values.get_current_datavalue()
        if any(one is None or one.Value is None or one.Value.Value is None for one in both):
            return True
        return bool(super()._is_deadband_exceeded(values, flt))


# There is no other way to give the server's subscriptions a class of ours.
internal_subscription.MonitoredItemService = _Items


class OpcuaPlc:
    """uri: the namespace of the nodes. port 0 = any free one, then kept over cuts and restarts."""

    def __init__(self, name: str, uri: str, nodes: Sequence[Node], host: str, port: int) -> None:
        self.name = name
        self.port = port
        self.faults = Faults()
        self._uri = uri
        self._nodes = nodes
        self._host = host
        self._server: Any = None
        self._without: frozenset[str] = frozenset()
        self._namespace_shift = 0
        self._ids: dict[str, tuple[Any, Any]] = {}
        self._shown: dict[str, Value] = {}
        self._bad: set[str] = set()
        self._bad_due: set[str] = set()
        self._next_clock = 0
        self._listening = False

    @property
    def names(self) -> Collection[str]:
        """The values that this PLC serves."""
        return [node.name for node in self._nodes]

    async def start(self) -> None:
        """Build the address space and listen. Raises Unreachable."""
        logging.getLogger("asyncua.server").setLevel(logging.CRITICAL)
        server = Server(user_manager=_ReadOnlyVisitors())
        await server.init()
        server.disable_clock()
        server.set_endpoint(f"opc.tcp://{self._host}:{self.port}/andon/{self.name}")
        server.set_server_name(f"Andon simulator: {self.name}")
        await server.set_application_uri(f"urn:andon:sim:server:{self.name}")
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        server.set_identity_tokens([ua.AnonymousIdentityToken])
        server.iserver.max_session_timeout_ms = SESSION_TIMEOUT_MAX_MS
        for i in range(self._namespace_shift):
            await server.register_namespace(f"{self._uri}:inserted:{i}")
        index = await server.register_namespace(self._uri)
        await self._add_nodes(server, index)
        try:
            await server.start()
        except OSError as error:
            raise Unreachable(f"{self.name}: cannot listen on {self._host}:{self.port}: {error.strerror}") from error
        self._server = server
        self.port = server.bserver.port
        self._listening = True

    async def _add_nodes(self, server: Any, index: int) -> None:
        folder = await server.nodes.objects.add_folder(ua.NodeId(self.name, index), ua.QualifiedName(self.name, index))
        self._ids = {}
        self._shown = {}
        for node in self._nodes:
            if node.name in self._without:
                continue
            kind = ua.VariantType[node.type]
            node_id = ua.NodeId(node.path, index)
            variable = await folder.add_variable(
                node_id, ua.QualifiedName(node.path, index), ua.get_default_value(kind), varianttype=kind
            )
            text = ua.Variant(ua.LocalizedText(node.description), ua.VariantType.LocalizedText)
            await variable.write_attribute(ua.AttributeIds.Description, ua.DataValue(text))
            waiting = ua.DataValue(StatusCode=ua.StatusCode(ua.StatusCodes.BadWaitingForInitialData))
            await server.write_attribute_value(node_id, waiting)
            self._ids[node.name] = (node_id, kind)
        self._bad_due = self._bad & self._ids.keys()

    async def publish(self, values: Mapping[str, Value], time: int) -> None:
        """Write what changed, stamped with the PLC's clock."""
        if not self._listening:
            return
        mine = {name: values[name] for name in self._ids if name in values}
        stamp = datetime.fromtimestamp((time + self.faults.clock_offset_ns) / NS_PER_S, UTC)
        while self._bad_due:
            await self._write_bad(self._bad_due.pop(), stamp)
        for name, value in self.faults.changes(mine, self._shown).items():
            if name not in self._bad:
                node_id, kind = self._ids[name]
                await self._write(node_id, ua.Variant(value, kind), stamp)
                self._shown[name] = value
        if time >= self._next_clock:
            self._next_clock = time + CLOCK_PERIOD_NS
            await self._write_clock(stamp)

    async def _write(self, node_id: Any, variant: Any, stamp: datetime) -> None:
        value = ua.DataValue(variant, SourceTimestamp=stamp, ServerTimestamp=stamp)
        await self._server.write_attribute_value(node_id, value)

    async def _write_bad(self, name: str, stamp: datetime) -> None:
        status = ua.StatusCode(ua.StatusCodes.BadDeviceFailure)
        value = ua.DataValue(StatusCode=status, SourceTimestamp=stamp, ServerTimestamp=stamp)
        await self._server.write_attribute_value(self._ids[name][0], value)

    async def _write_clock(self, stamp: datetime) -> None:
        status = await self._server.iserver.server_status_node.read_value()
        status.CurrentTime = stamp
        node_id = ua.NodeId(ua.ObjectIds.Server_ServerStatus)
        await self._write(node_id, ua.Variant(status, ua.VariantType.ExtensionObject), stamp)
        node_id = ua.NodeId(ua.ObjectIds.Server_ServerStatus_CurrentTime)
        await self._write(node_id, ua.Variant(stamp, ua.VariantType.DateTime), stamp)

    async def cut(self) -> None:
        """Close the listening socket and every connection; nodes, sessions and subscriptions stay in memory."""
        if self._listening:
            self._listening = False
            for transport in list(self._server.iserver.asyncio_transports):
                transport.abort()
            await self._server.bserver.stop()

    async def restore(self) -> None:
        """Listen again at the same port."""
        if self._server is not None and not self._listening:
            self._server.bserver.port = self.port
            await self._server.bserver.start()
            self._listening = True

    async def restart(self, without: Collection[str], namespace_shift: int) -> None:
        """Start a new server at the same port: sessions are gone, nodes may be missing, the index may have moved."""
        await self.stop()
        self._without = frozenset(without)
        self._namespace_shift = namespace_shift
        await self.start()

    def answer_exceptions(self, names: Collection[str]) -> None:
        """Show these nodes with status Bad_DeviceFailure, as a server does whose field bus answers with exceptions."""
        for name in self._bad:
            self._shown.pop(name, None)
        self._bad = set(names)
        self._bad_due = self._bad & self._ids.keys()

    async def stop(self) -> None:
        """Stop the server; idempotent."""
        server, self._server = self._server, None
        self._listening = False
        if server is None:
            return
        for transport in list(server.iserver.asyncio_transports):
            transport.abort()
        async with asyncio.timeout(STOP_TIMEOUT_S):
            # A session with subscriptions outlives its connection by design; with the server it must end.
            for session in list(server.iserver._external_sessions.values()):  # noqa: SLF001
                await session.close_session()
            await server.stop()
