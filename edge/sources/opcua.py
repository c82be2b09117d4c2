"""OPC UA: one session with one server, its values as batches.

    parse_node   address of tags.csv -> NodeAddress            opcua_points
    connect      socket, trust, session, limits                opcua_session, opcua_security
    read         subscriptions, or timed reads                 opcua_subscribe, opcua_poll
                 bytes -> columns -> Batch                     opcua_wire, opcua_decode, opcua_intake
    recover      frozen servers, silent nodes, lost sessions   opcua_audit, opcua_recovery
    history      what was missed during a break                opcua_backlog, opcua_history

Owns the choice between subscriptions and reads, and what outlives a session: points, problems, the namespaces as
they were at first contact, the limits that the server taught us. Leaves reconnecting to the supervisor: every
`connect` starts from nothing and resolves all namespaces anew.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Final

import numpy as np
import structlog
from asyncua import ua
from asyncua.ua import UaStatusCodeError
from numpy.typing import NDArray

from edge import clock
from edge.errors import Disconnected, Unreachable
from edge.sources import Filled, Notice
from edge.sources.opcua_audit import Canary
from edge.sources.opcua_backlog import Backlog
from edge.sources.opcua_events import Events
from edge.sources.opcua_expiry import look
from edge.sources.opcua_history import History
from edge.sources.opcua_intake import Intake, explain
from edge.sources.opcua_items import Learned
from edge.sources.opcua_options import OpcuaOptions
from edge.sources.opcua_points import Namespaces, NodeAddress, OpcuaPoint, parse_node
from edge.sources.opcua_poll import Poller
from edge.sources.opcua_recovery import Lasting, Recovery
from edge.sources.opcua_session import Session, open_session
from edge.sources.opcua_subscribe import NoSubscriptions, Subscriber
from plant.batch import Batch
from plant.events import DeviceEvent
from plant.instant import NS_PER_S
from plant.texts import Texts

__all__ = ["NodeAddress", "OpcuaOptions", "OpcuaPoint", "OpcuaSource", "parse_node"]

UNLIMITED: Final = 1_000_000
"""What a server's limit of 0, or none, means: our own caps decide."""

_LIMITS: Final = (
    ua.ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead,
    ua.ObjectIds.Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall,
)

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class OpcuaSource:
    """One OPC UA server as a `Source`.

    points: what is read; ValueError if an address cannot be parsed. texts: the dictionary of text tags.
    namespaces: index -> URI at first contact, from an earlier run; kept up to date in `first_contact`.
    mode: how values come in this session, "subscribe" or "read". lost: readings that the server reported as lost, by
    queue overflows, or messages that it could not repeat.
    """

    def __init__(
        self,
        options: OpcuaOptions,
        points: Sequence[OpcuaPoint],
        texts: Texts,
        *,
        namespaces: Mapping[int, str] | None = None,
    ) -> None:
        self.name = options.name
        self.mode = options.mode
        self._options = options
        self._addresses = [parse_node(point.node) for point in points]
        self._namespaces = Namespaces(dict(namespaces or {}))
        self._intake = Intake(points, texts, f"{options.name} {options.url}")
        self.tags: NDArray[np.uint32] = self._intake.tags
        self.problems: Mapping[int, str] = self._intake.problems
        self.lost = 0
        self._learned = Learned(options.items_per_call, options.nodes_per_read)
        self._lasting = Lasting(
            Canary(options.frozen_ms),
            Recovery(options.name),
            Backlog(self._intake),
            Events(options.name, options.asset),
        )
        self.notices: dict[str, Notice] = {}
        self._expiry: asyncio.Task[tuple[Notice | None, bool]] | None = None
        self._expiry_at = 0
        self._session: Session | None = None
        self._reader: Subscriber | Poller | None = None

    @property
    def first_contact(self) -> Mapping[int, str]:
        """Namespace index -> URI as it was when the index was first used."""
        return self._namespaces.first_contact

    @property
    def recovery(self) -> str:
        """What was done last to bring data back although the connection stood, while that is news; else ""."""
        return self._lasting.recovery.sentence

    def take_events(self) -> list[DeviceEvent]:
        """Hand over the events that the server told since the last call."""
        return self._lasting.events.drain()

    async def history(self) -> AsyncGenerator[Batch | Filled]:
        """Yield what the server recorded while we could not listen; ends with the session. Raises Disconnected."""
        if self._session is None or not self._options.backfill:
            return
        history = History(
            self._session, self._options, self._addresses, self._namespaces, self._intake, self._lasting.backlog
        )
        async with contextlib.aclosing(history.parts()) as parts:
            async for part in parts:
                yield part

    async def connect(self) -> None:
        """Open a session and set up everything. Raises Unreachable or Refused."""
        await self.close()
        session = await open_session(self._options)
        self._session = session
        try:
            await self._set_up(session)
        except (Disconnected, UaStatusCodeError) as error:
            await self.close()
            what = explain(error.code) if isinstance(error, UaStatusCodeError) else str(error)
            raise Unreachable(f"{session.where} broke off while it was set up: {what}") from error
        except BaseException:
            await self.close()
            raise

    async def _set_up(self, session: Session) -> None:
        for uri, was, index in self._namespaces.update(await session.read_namespaces()):
            log.warning("namespace moved", device=self.name, uri=uri, index_at_first_contact=was, index=index)
        nodes, items = [
            int(limit or 0) or UNLIMITED for limit in await session.read_values([ua.NodeId(node) for node in _LIMITS])
        ]
        if self._options.check_ms:
            await self._lasting.canary.begin(session)
        shared = session, self._options, self._addresses, self._namespaces, self._intake, self._learned
        if self._options.mode != "read":
            self._reader = subscriber = Subscriber(*shared, items, nodes, self._lasting)
            try:
                await subscriber.start()
            except NoSubscriptions as error:
                await subscriber.stop()
                if self._options.mode == "subscribe":
                    raise Unreachable(
                        f"{session.where} has no subscriptions ({error}); set mode = read or auto"
                    ) from error
                log.warning("no subscriptions, values are read", device=self.name, reason=str(error))
            else:
                self.mode = "subscribe"
                return
        self._reader = poller = Poller(*shared, nodes, self._lasting)
        await poller.start()
        self.mode = "read"

    async def read(self) -> Batch:
        """Wait for readings and return them; empty after a mere sign of life. Raises Disconnected."""
        if self._reader is None:
            raise Disconnected(f"device {self.name} is not connected")
        batch = await self._reader.read()
        self._watch_expiry()
        self.lost = self._intake.lost + self._lasting.events.lost
        return batch

    def _watch_expiry(self) -> None:
        """Judge the certificates now and then. Raises Disconnected if ours was renewed: connect anew with it."""
        now = clock.now().monotonic
        session = self._session
        if session is None or not session.own_certificate:
            return
        if self._expiry is not None and self._expiry.done():
            expiry, self._expiry = self._expiry, None
            notice, is_renewed = expiry.result()
            self.notices = {"certificate": notice} if notice else {}
            if is_renewed:
                raise Disconnected(f"{session.where}: our certificate was renewed, the new one is used from now on")
        elif self._expiry is None and now >= self._expiry_at:
            self._expiry_at = now + int(self._options.certificate_check_s * NS_PER_S)
            own, server = session.own_certificate, session.server_certificate
            self._expiry = asyncio.create_task(
                asyncio.to_thread(look, self._options, own, server), name=f"opcua-expiry-{self.name}"
            )

    async def close(self) -> None:
        """Let go of the session and its subscriptions; idempotent, bounded in time."""
        expiry, self._expiry = self._expiry, None
        if expiry is not None:
            await asyncio.wait([expiry])
        self._expiry_at = 0
        reader, self._reader = self._reader, None
        session, self._session = self._session, None
        if reader is not None:
            self._lasting.backlog.open()
            await reader.stop()
        if session is not None:
            await session.close()
