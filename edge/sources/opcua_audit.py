"""Whether a server that talks tells the truth: its own time must go on, and what it keeps silent about must not change.

Owns two looks at the server beside the subscriptions. The canary reads the server's own time: one that stands still
while the socket answers belongs to a server that hangs. The audit reads points that nothing was heard of, some at a
time in turn: one whose value has changed, or that never had its first notification, is silent where the server
should have told. Leaves what follows to the subscriptions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from asyncua import ua
from numpy.typing import NDArray

from edge import clock
from edge.errors import Disconnected, Unreachable
from edge.sources.opcua_decode import Columns, Decoder
from edge.sources.opcua_intake import Intake
from edge.sources.opcua_items import MonitoredItems
from edge.sources.opcua_points import Namespaces, NodeAddress, Unresolved
from edge.sources.opcua_read import PreparedRead, encode, prepare
from edge.sources.opcua_session import Session
from edge.sources.opcua_wire import Malformed, parse_read
from plant.batch import EMPTY, Batch
from plant.instant import NS_PER_MS, NS_PER_S

AUDITED_MAX: Final = 200
"""Points that one look reads at most."""
SLACK_NS: Final = NS_PER_S
"""What a notification may need beyond sampling and publishing."""
FIRST_NS: Final = 10 * NS_PER_S
"""What the first notification of a new item may need beyond that: a slow server with many items is not a mute one."""

_TIME: Final = ua.NodeId(ua.ObjectIds.Server_ServerStatus_CurrentTime)


class Canary:
    """The server's own time; outlives the sessions of a device. frozen: the time at which it stood still, or None.

    A server without that node, or whose node stands still although it tells new values, is not judged by it.
    """

    def __init__(self, frozen_ms: float) -> None:
        self.frozen: Any = None
        self._frozen_ns = int(frozen_ms * NS_PER_MS)
        self._time: Any = None
        self._since = 0

    async def begin(self, session: Session) -> None:
        """Look for the first time in a session. Raises Unreachable if the server hangs as it did before."""
        self._time = None
        if self.frozen is None:
            return
        (time,) = await session.read_values([_TIME])
        if time is not None and time == self.frozen:
            raise Unreachable(_lament(session.where, time))
        self.frozen = None

    async def look(self, session: Session, told: int) -> None:
        """Look again; told: monotonic ns of the last news of the server. Raises Disconnected if it hangs."""
        (time,) = await session.read_values([_TIME])
        now = clock.now().monotonic
        if time is None or time != self._time or told >= self._since:
            self._time, self._since = time, now
        elif now - self._since >= self._frozen_ns:
            self.frozen = time
            raise Disconnected(_lament(session.where, time))


def _lament(where: str, time: Any) -> str:
    return f"{where} answers but hangs: its own time stands still at {time:%Y-%m-%d %H:%M:%S} UTC; restart it"


@dataclass(frozen=True, slots=True)
class Findings:
    """mute: positions that the server should have told of and did not. asked: how many were looked at. readings:
    the values of the mute ones, as they were read.
    """

    mute: NDArray[np.intp]
    asked: int
    readings: Batch


class Audit:
    """The audit of one session."""

    def __init__(
        self,
        session: Session,
        addresses: Sequence[NodeAddress],
        namespaces: Namespaces,
        intake: Intake,
        items: MonitoredItems,
        nodes_per_read: int,
    ) -> None:
        self._session = session
        self._addresses = addresses
        self._namespaces = namespaces
        self._intake = intake
        self._items = items
        self._asked_max = min(AUDITED_MAX, nodes_per_read)
        self._decoder = Decoder()
        self._next = 0
        self._suspected: NDArray[np.int64] = np.zeros(len(addresses), np.int64)

    async def look(self, watched: NDArray[np.intp], publishing_ns: int) -> Findings:
        """Read some of the `watched` positions. Raises UaStatusCodeError or Disconnected.

        publishing_ns: how long the server collects news before it sends them.
        """
        chosen = self._choose(watched, clock.now().monotonic, publishing_ns)
        members = []
        for position in chosen.tolist():
            try:
                members.append((position, encode(self._namespaces.resolve(self._addresses[position]))))
            except Unresolved:
                continue  # set up under a namespace that has gone since; the refused nodes' business
        if not members:
            return Findings(np.empty(0, np.intp), 0, EMPTY)
        positions, nodes = prepare(members)
        body = await self._session.send(PreparedRead(NodesToRead=nodes))
        try:
            start, count = parse_read(body)
            columns, _ = self._decoder.decode(body, start, count, 0, len(body))
        except Malformed as error:
            raise Disconnected(f"{self._session.where} sent something that is no answer: {error}") from error
        if count != len(positions):
            raise Disconnected(f"{self._session.where} answered {count} of {len(positions)} nodes")
        bad = np.zeros(count, np.bool_) if columns.status is None else columns.status >> 30 >= 2
        mute = self._judge(positions, self._intake.differs(columns, positions), bad, publishing_ns)
        if not mute.any():
            return Findings(positions[mute], count, EMPTY)
        readings = self._intake.take(_rows(columns, np.flatnonzero(mute)), positions[mute], clock.now(), asked=True)
        return Findings(positions[mute], count, readings)

    def _choose(self, watched: NDArray[np.intp], now: int, publishing_ns: int) -> NDArray[np.intp]:
        """Return the suspects, then others that are quiet, in turn."""
        told = np.maximum(self._intake.told[watched], self._items.created[watched])
        quiet = watched[now - told > self._items.sampling_ns[watched] + publishing_ns + SLACK_NS]
        suspects = quiet[self._suspected[quiet] > self._intake.told[quiet]]
        others = np.setdiff1d(quiet, suspects)
        at = int(np.searchsorted(others, self._next))
        room = max(self._asked_max - len(suspects), 0)
        others = np.concatenate((others[at:], others[:at]))[:room]
        if len(others):
            self._next = int(others[-1]) + 1
        return np.concatenate((suspects[: self._asked_max], others))

    def _judge(
        self, positions: NDArray[np.intp], differs: NDArray[np.bool_], bad: NDArray[np.bool_], publishing_ns: int
    ) -> NDArray[np.bool_]:
        """Tell which points are mute: told nothing since they were set up, or differing at two looks with enough time
        between them for a notification that did not come.
        """
        now = clock.now().monotonic
        told, created = self._intake.told[positions], self._items.created[positions]
        patience = self._items.sampling_ns[positions] + publishing_ns + SLACK_NS
        suspected = self._suspected[positions]
        known = differs & (suspected > told) & (suspected > created)
        owed = (told < created) & (now - created > patience + FIRST_NS) & ~bad
        self._suspected[positions] = np.where(differs, np.where(known, suspected, now), 0)
        mute: NDArray[np.bool_] = owed | (known & (now - suspected > patience))
        return mute


def _rows(columns: Columns, rows: NDArray[np.intp]) -> Columns:
    """Return some rows of decoded items."""
    place = {int(row): n for n, row in enumerate(rows)}

    def some(column: Any) -> Any:
        return None if column is None else column[rows]

    return Columns(
        None,
        columns.value[rows],
        some(columns.status),
        some(columns.source),
        some(columns.server),
        some(columns.inexact),
        tuple((place[row], other) for row, other in columns.others if row in place),
    )
